//! The Datamover Interface of RFC 5047: primitives, events, buffers, in-memory datamover, conformance suite.
