//! iSER over iWARP on an in-memory stream: against itself, and against a queue pair driven by hand.

mod bad_input;
mod both;
mod pipe;
