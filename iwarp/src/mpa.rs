//! Marker PDU Aligned framing: the startup frames, then FPDUs in a TCP stream (RFC 5044, RFC 6581).
//!
//! ```text
//!   initiator                                   responder
//!   MPA Request (revision, M, C, IRD/ORD, data) ─────────►  poll_event: Request
//!                                                           accept() / reject()
//!   poll_event: Established  ◄───────── MPA Reply (R, M, C, IRD/ORD, data)
//!   first FPDU ──────────────────────────────────────────►  may send FPDUs from now on
//! ```

mod fpdu;
mod frame;
mod startup;

mod initiator;
mod responder;

pub use fpdu::mulpdu;
pub(crate) use fpdu::{CRC_LEN, MARKER_INTERVAL, WireFrame, measure, pad_len};
pub use frame::{
    Enhanced, Frame, FrameError, FrameKind, HEADER_LEN, MAX_PRIVATE_DATA, NOT_NEGOTIATED, Rtr, RtrSet,
};
pub use initiator::{Initiator, InitiatorEvent};
pub use responder::{Request, Responder, ResponderEvent};
pub use startup::{Config, Established, Revision, Role, StartupError};

#[cfg(test)]
mod tests;
