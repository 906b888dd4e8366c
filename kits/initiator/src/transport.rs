//! What carries a session, as reports show it.

use datamover::TransportInfo;
use std::fmt;

/// `tcp`, `iser (iwarp)`, `iser (rxe0)`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Transport(String);

impl Transport {
    pub(crate) fn of(info: &TransportInfo) -> Self {
        match info.detail.as_str() {
            "" => Self(info.name.to_owned()),
            detail => Self(format!("{} ({detail})", info.name)),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
