//! iSCSI login: key table, negotiation, CHAP, both roles, sans-IO.
