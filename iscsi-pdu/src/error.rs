//! Why bytes are not a PDU.
