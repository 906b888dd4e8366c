//! Stages of the login phase (RFC 7143 section 6.3).
//!
//! ```text
//!   +-----------------------------------------------------------+
//!   |From      To ->  | Security    | Operational | FullFeature |
//!   +-----------------------------------------------------------+
//!   | (start)         | yes         | yes         | no          |
//!   | Security        | no          | yes         | yes         |
//!   | Operational     | no          | no          | yes         |
//!   +-----------------------------------------------------------+
//! ```

use crate::status::Rule;
use iscsi_pdu::Stage;

/// Whether the table above has "yes"; `None` is the start.
// req: 7143-6.3-7, 7143-6.3-9, 7143-6.3-15
#[must_use]
pub const fn transition_allowed(from: Option<Stage>, to: Stage) -> bool {
    matches!(
        (from, to),
        (None, Stage::SecurityNegotiation | Stage::LoginOperationalNegotiation)
            | (
                Some(Stage::SecurityNegotiation),
                Stage::LoginOperationalNegotiation | Stage::FullFeaturePhase
            )
            | (Some(Stage::LoginOperationalNegotiation), Stage::FullFeaturePhase)
    )
}

/// The stage fields and flags of one login PDU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StageFields {
    /// T bit.
    pub transit: bool,
    /// C bit.
    pub continue_text: bool,
    /// CSG.
    pub csg: Stage,
    /// NSG, of meaning with `transit` alone.
    pub nsg: Stage,
}

impl StageFields {
    /// Checks the fields of a request: `current` is the stage the login is in, `None` before its first request.
    ///
    /// # Errors
    /// [`Rule::ContinueWithTransit`] or [`Rule::Stage`].
    // req: 7143-6.2-1, 7143-6.3-13
    pub fn check_request(self, current: Option<Stage>) -> Result<(), Rule> {
        if self.continue_text && self.transit {
            return Err(Rule::ContinueWithTransit);
        }
        let here = match current {
            Some(stage) => self.csg == stage,
            None => transition_allowed(None, self.csg),
        };
        let there = !self.transit || transition_allowed(Some(self.csg), self.nsg);
        if here && there { Ok(()) } else { Err(Rule::Stage) }
    }

    /// Checks the fields of the response to `request`: same CSG, T only if asked for, NSG not beyond what was asked.
    ///
    /// # Errors
    /// [`Rule::ContinueWithTransit`] or [`Rule::Stage`].
    // req: 7143-6.3-12, 7143-6.3-13, 7143-11.13.6-2
    pub fn check_response(self, request: Self) -> Result<(), Rule> {
        if self.continue_text && self.transit {
            return Err(Rule::ContinueWithTransit);
        }
        let transit = !self.transit
            || (request.transit && self.nsg <= request.nsg && transition_allowed(Some(self.csg), self.nsg));
        if self.csg == request.csg && transit { Ok(()) } else { Err(Rule::Stage) }
    }
}

#[cfg(test)]
mod tests;
