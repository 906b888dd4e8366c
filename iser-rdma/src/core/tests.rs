//! Both roles against each other and against a hand-driven peer, on the `mem` provider.

mod bad_input;
mod depth;
mod end;
mod flow;
mod hello;
mod initiator;
mod target;
mod world;
