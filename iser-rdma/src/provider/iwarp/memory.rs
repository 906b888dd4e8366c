//! Our buffers as memory of the queue pair.

use crate::rcap::Tagged;
use ::iwarp::{Gather, Memory, Region};
use datamover::{IoBuf, SgListMut};

/// What the queue pair may write into.
#[derive(Debug)]
pub(super) enum Owned {
    /// A receive buffer.
    Message(IoBuf),
    /// The sink of an RDMA Read, or memory that the peer may write.
    Sink(SgListMut),
}

impl Memory for Owned {
    fn slices(&self, from: usize) -> impl Iterator<Item = &[u8]> {
        let (message, list) = match self {
            Self::Message(buf) => (Some(buf), None),
            Self::Sink(list) => (None, Some(list)),
        };
        let mut skip = from;
        message.into_iter().chain(list.into_iter().flat_map(SgListMut::parts)).filter_map(move |part| {
            let here = skip;
            skip = skip.saturating_sub(part.len());
            part.get(here..).filter(|s| !s.is_empty())
        })
    }

    fn slices_mut(&mut self, from: usize) -> impl Iterator<Item = &mut [u8]> {
        let (message, list) = match self {
            Self::Message(buf) => (Some(&mut **buf), None),
            Self::Sink(list) => (None, Some(list)),
        };
        let mut skip = from;
        message.into_iter().chain(list.into_iter().flat_map(SgListMut::slices_mut)).filter_map(move |part| {
            let here = skip;
            skip = skip.saturating_sub(part.len());
            part.get_mut(here..).filter(|s| !s.is_empty())
        })
    }

    fn len(&self) -> usize {
        match self {
            Self::Message(buf) => buf.len(),
            Self::Sink(list) => list.len(),
        }
    }
}

/// Advertised memory as a region.
pub(super) fn region(memory: Tagged) -> Region<Owned> {
    match memory {
        Tagged::Source(list) => Region::Shared(list.parts().cloned().collect()),
        Tagged::Sink(list) => Region::Owned(Owned::Sink(list)),
    }
}

/// A region as advertised memory.
pub(super) fn tagged(region: Region<Owned>) -> Option<Tagged> {
    match region {
        Region::Shared(gather) => Some(Tagged::Source(Gather::pieces(&gather).cloned().collect())),
        Region::Owned(Owned::Sink(list)) => Some(Tagged::Sink(list)),
        Region::Owned(Owned::Message(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_one_range() {
        let mut list = SgListMut::new();
        [3, 4].into_iter().for_each(|n| list.push(IoBuf::zeroed(n)));
        let mut memory = Owned::Sink(list);
        assert_eq!(Memory::len(&memory), 7);
        for from in 0..=8 {
            let seen: usize = memory.slices(from).map(<[u8]>::len).sum();
            assert_eq!(seen, 7usize.saturating_sub(from));
        }
        memory.slices_mut(2).for_each(|s| s.fill(9));
        let Owned::Sink(list) = memory else { panic!("it was a list") };
        let bytes: Vec<u8> = list.parts().flat_map(|p| p.to_vec()).collect();
        assert_eq!(bytes, [0, 0, 9, 9, 9, 9, 9]);
    }
}
