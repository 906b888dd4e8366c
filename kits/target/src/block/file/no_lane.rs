//! What stands for rings where there are none: nothing can be made of it.

use super::super::Action;
use super::super::workers::Ticket;
use super::medium::Medium;
use std::io;
use std::sync::Arc;
use std::task::Context;

pub(super) fn available() -> Result<(), &'static str> {
    Err("this program was built without it")
}

pub(super) enum Lane {}

impl Lane {
    pub(super) fn open(_: &Medium) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn takes(_: &Medium, _: &Action) -> bool {
        false
    }

    pub(super) fn is_full(&self) -> bool {
        match *self {}
    }

    pub(super) fn is_busy(&self) -> bool {
        match *self {}
    }

    pub(super) fn start(&mut self, _: &Arc<Medium>, _: Action, _: Ticket) {
        match *self {}
    }

    pub(super) fn poll(&mut self, _: &Arc<Medium>, _: &mut Context<'_>) {
        match *self {}
    }

    pub(super) fn finish(self, _: &Arc<Medium>) {
        match self {}
    }
}
