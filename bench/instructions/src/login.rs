//! `iscsi-login`: one login, both ends together.

use crate::Operation;

#[path = "../../../iscsi-login/benches/common/exchange.rs"]
mod exchange;
use exchange::Exchange;

pub(crate) fn operations() -> Vec<Operation> {
    let (plain, mutual) = (Exchange::plain(), Exchange::mutual_chap());
    vec![
        Operation::new("login: one exchange, both roles", 10, move || plain.run()),
        Operation::new("login: mutual CHAP, both roles", 10, move || mutual.run()),
    ]
}
