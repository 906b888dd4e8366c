//! One view of all commands that name a run of logical blocks, whatever the size of their CDB.

use super::*;

/// What is done with the blocks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum IoKind {
    /// READ.
    Read,
    /// WRITE.
    Write,
    /// WRITE ATOMIC(16).
    WriteAtomic,
    /// WRITE AND VERIFY.
    WriteAndVerify,
    /// VERIFY.
    Verify,
    /// ORWRITE.
    OrWrite,
    /// COMPARE AND WRITE.
    CompareAndWrite,
    /// WRITE SAME.
    WriteSame,
    /// PRE-FETCH.
    PreFetch,
    /// SYNCHRONIZE CACHE.
    SynchronizeCache,
}

/// A command on a run of logical blocks, the fields of its 6, 10, 12, 16 and 32-byte forms united.
///
/// ```
/// use scsi_cmd::cdb::{BlockIo, Cdb, Command, IoKind};
///
/// // The smallest CDB that can say it is chosen: READ(10), or READ(16) beyond 2 TiB.
/// assert!(matches!(BlockIo::new(IoKind::Read, 7, 8).command(), Some(Command::Read10(_))));
/// let far = BlockIo::new(IoKind::Read, 1 << 40, 8).command().unwrap();
/// assert_eq!(far.block_io().unwrap().lba, 1 << 40);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BlockIo {
    /// What is done.
    pub kind: IoKind,
    /// First logical block.
    pub lba: u64,
    /// Number of blocks. 0 means none, but up to the last block for [`IoKind::WriteSame`], [`IoKind::PreFetch`]
    /// and [`IoKind::SynchronizeCache`]. READ(6) and WRITE(6) say 256 with 0; here that is 256.
    pub blocks: u32,
    /// RDPROTECT, WRPROTECT, VRPROTECT or ORPROTECT (SBC-3 clause 4.22).
    pub protect: u8,
    /// DPO.
    pub dpo: bool,
    /// FUA.
    pub fua: bool,
    /// RARC.
    pub rarc: bool,
    /// BYTCHK of VERIFY and WRITE AND VERIFY.
    pub bytchk: u8,
    /// UNMAP of WRITE SAME.
    pub unmap: bool,
    /// ANCHOR of WRITE SAME.
    pub anchor: bool,
    /// NDOB of WRITE SAME(16) and (32).
    pub ndob: bool,
    /// IMMED of PRE-FETCH and SYNCHRONIZE CACHE.
    pub immed: bool,
    /// ATOMIC BOUNDARY of WRITE ATOMIC(16).
    pub atomic_boundary: u16,
    /// GROUP NUMBER.
    pub group: u8,
    /// Expected reference tag, application tag and application tag mask of the 32-byte forms.
    pub tags: Option<(u32, u16, u16)>,
}

impl BlockIo {
    /// A command without flags.
    #[must_use]
    pub const fn new(kind: IoKind, lba: u64, blocks: u32) -> Self {
        Self {
            kind,
            lba,
            blocks,
            protect: 0,
            dpo: false,
            fua: false,
            rarc: false,
            bytchk: 0,
            unmap: false,
            anchor: false,
            ndob: false,
            immed: false,
            atomic_boundary: 0,
            group: 0,
            tags: None,
        }
    }

    /// With FUA.
    #[must_use]
    pub const fn fua(mut self, fua: bool) -> Self {
        self.fua = fua;
        self
    }

    /// Number of logical blocks in the Data-Out buffer.
    #[must_use]
    pub fn data_out_blocks(&self) -> u64 {
        let blocks = u64::from(self.blocks);
        match (self.kind, self.bytchk) {
            (IoKind::Write | IoKind::WriteAtomic | IoKind::WriteAndVerify | IoKind::OrWrite, _) => blocks,
            (IoKind::Verify, 1) => blocks,
            (IoKind::Verify, 3) => blocks.min(1),
            (IoKind::CompareAndWrite, _) => blocks.saturating_mul(2),
            (IoKind::WriteSame, _) => u64::from(!self.ndob),
            _ => 0,
        }
    }

    /// The command with the smallest CDB of 10 bytes or more that can say this, or `None` when there is none: an
    /// [`IoKind::CompareAndWrite`] of more than 255 blocks, an [`IoKind::WriteAtomic`] of more than 65535, tags with
    /// a kind that has no 32-byte form. A 12-byte form is never chosen: peers that have it also have the 16-byte one.
    #[must_use]
    pub fn command(&self) -> Option<Command> {
        let Self { lba, protect, dpo, fua, rarc, bytchk, unmap, anchor, ndob, immed, group, .. } = *self;
        if let Some(tags) = self.tags {
            return self.command32(tags);
        }
        let (lba32, blocks16) = (u32::try_from(lba), u16::try_from(self.blocks));
        let blocks = self.blocks;
        Some(match (self.kind, lba32, blocks16) {
            (IoKind::Read, Ok(lba), Ok(blocks)) => {
                Read10 { protect, dpo, fua, rarc, lba, group, blocks }.into()
            }
            (IoKind::Read, ..) => Read16 { protect, dpo, fua, rarc, lba, blocks, group }.into(),
            (IoKind::Write, Ok(lba), Ok(blocks)) => Write10 { protect, dpo, fua, lba, group, blocks }.into(),
            (IoKind::Write, ..) => Write16 { protect, dpo, fua, lba, blocks, group }.into(),
            (IoKind::WriteAtomic, _, Ok(blocks)) => {
                let atomic_boundary = self.atomic_boundary;
                WriteAtomic16 { protect, dpo, fua, lba, atomic_boundary, blocks, group }.into()
            }
            (IoKind::WriteAtomic, ..) => return None,
            (IoKind::WriteAndVerify, Ok(lba), Ok(blocks)) => {
                WriteAndVerify10 { protect, dpo, bytchk, lba, group, blocks }.into()
            }
            (IoKind::WriteAndVerify, ..) => {
                WriteAndVerify16 { protect, dpo, bytchk, lba, blocks, group }.into()
            }
            (IoKind::Verify, Ok(lba), Ok(blocks)) => {
                Verify10 { protect, dpo, bytchk, lba, group, blocks }.into()
            }
            (IoKind::Verify, ..) => Verify16 { protect, dpo, bytchk, lba, blocks, group }.into(),
            (IoKind::OrWrite, ..) => OrWrite16 { protect, dpo, fua, lba, blocks, group }.into(),
            (IoKind::CompareAndWrite, ..) => {
                let blocks = u8::try_from(blocks).ok()?;
                CompareAndWrite { protect, dpo, fua, lba, blocks, group }.into()
            }
            (IoKind::WriteSame, Ok(lba), Ok(blocks)) if !ndob => {
                WriteSame10 { protect, anchor, unmap, lba, group, blocks }.into()
            }
            (IoKind::WriteSame, ..) => {
                WriteSame16 { protect, anchor, unmap, ndob, lba, blocks, group }.into()
            }
            (IoKind::PreFetch, Ok(lba), Ok(blocks)) => PreFetch10 { immed, lba, group, blocks }.into(),
            (IoKind::PreFetch, ..) => PreFetch16 { immed, lba, blocks, group }.into(),
            (IoKind::SynchronizeCache, Ok(lba), Ok(blocks)) => {
                SynchronizeCache10 { immed, lba, group, blocks }.into()
            }
            (IoKind::SynchronizeCache, ..) => SynchronizeCache16 { immed, lba, blocks, group }.into(),
        })
    }

    fn command32(&self, tags: (u32, u16, u16)) -> Option<Command> {
        let Self { lba, blocks, protect, dpo, fua, rarc, bytchk, unmap, anchor, ndob, group, .. } = *self;
        let (expected_reference_tag, expected_application_tag, application_tag_mask) = tags;
        macro_rules! with_tags {
            ($name:ident { $($field:ident),* }) => {
                $name {
                    group, protect, lba, blocks, expected_reference_tag, expected_application_tag,
                    application_tag_mask, $($field),*
                }
                .into()
            };
        }
        Some(match self.kind {
            IoKind::Read => with_tags!(Read32 { dpo, fua, rarc }),
            IoKind::Write => with_tags!(Write32 { dpo, fua }),
            IoKind::Verify => with_tags!(Verify32 { dpo, bytchk }),
            IoKind::WriteAndVerify => with_tags!(WriteAndVerify32 { dpo, bytchk }),
            IoKind::WriteSame => with_tags!(WriteSame32 { anchor, unmap, ndob }),
            _ => return None,
        })
    }
}

impl Command {
    /// The command as a [`BlockIo`], or `None` when it names no run of blocks.
    #[must_use]
    #[inline]
    pub fn block_io(&self) -> Option<BlockIo> {
        macro_rules! io {
            ($kind:ident, $c:ident; $($flag:ident)*; $($more:ident: $value:expr),*) => {
                BlockIo {
                    $($flag: $c.$flag,)*
                    $($more: $value,)*
                    ..BlockIo::new(IoKind::$kind, $c.lba.into(), $c.blocks.into())
                }
            };
        }
        macro_rules! tags {
            ($c:ident) => {
                Some(($c.expected_reference_tag, $c.expected_application_tag, $c.application_tag_mask))
            };
        }
        // READ(6) and WRITE(6): 0 is 256.
        let six = |blocks: u8| if blocks == 0 { 256 } else { u32::from(blocks) };
        Some(match self {
            Self::Read6(c) => BlockIo::new(IoKind::Read, c.lba.into(), six(c.blocks)),
            Self::Read10(c) => io!(Read, c; protect dpo fua rarc group;),
            Self::Read12(c) => io!(Read, c; protect dpo fua rarc group;),
            Self::Read16(c) => io!(Read, c; protect dpo fua rarc group;),
            Self::Read32(c) => io!(Read, c; protect dpo fua rarc group; tags: tags!(c)),
            Self::Write6(c) => BlockIo::new(IoKind::Write, c.lba.into(), six(c.blocks)),
            Self::Write10(c) => io!(Write, c; protect dpo fua group;),
            Self::Write12(c) => io!(Write, c; protect dpo fua group;),
            Self::Write16(c) => io!(Write, c; protect dpo fua group;),
            Self::Write32(c) => io!(Write, c; protect dpo fua group; tags: tags!(c)),
            Self::WriteAtomic16(c) => io!(WriteAtomic, c; protect dpo fua group atomic_boundary;),
            Self::WriteAndVerify10(c) => io!(WriteAndVerify, c; protect dpo bytchk group;),
            Self::WriteAndVerify12(c) => io!(WriteAndVerify, c; protect dpo bytchk group;),
            Self::WriteAndVerify16(c) => io!(WriteAndVerify, c; protect dpo bytchk group;),
            Self::WriteAndVerify32(c) => io!(WriteAndVerify, c; protect dpo bytchk group; tags: tags!(c)),
            Self::Verify10(c) => io!(Verify, c; protect dpo bytchk group;),
            Self::Verify12(c) => io!(Verify, c; protect dpo bytchk group;),
            Self::Verify16(c) => io!(Verify, c; protect dpo bytchk group;),
            Self::Verify32(c) => io!(Verify, c; protect dpo bytchk group; tags: tags!(c)),
            Self::OrWrite16(c) => io!(OrWrite, c; protect dpo fua group;),
            Self::CompareAndWrite(c) => io!(CompareAndWrite, c; protect dpo fua group;),
            Self::WriteSame10(c) => io!(WriteSame, c; protect anchor unmap group;),
            Self::WriteSame16(c) => io!(WriteSame, c; protect anchor unmap ndob group;),
            Self::WriteSame32(c) => io!(WriteSame, c; protect anchor unmap ndob group; tags: tags!(c)),
            Self::PreFetch10(c) => io!(PreFetch, c; immed group;),
            Self::PreFetch16(c) => io!(PreFetch, c; immed group;),
            Self::SynchronizeCache10(c) => io!(SynchronizeCache, c; immed group;),
            Self::SynchronizeCache16(c) => io!(SynchronizeCache, c; immed group;),
            _ => return None,
        })
    }
}
