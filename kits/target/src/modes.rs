//! The mode pages of a logical unit: values, and which of them can be changed.

use scsi_cmd::mode::{
    ApplicationTagDescriptor, ApplicationTags, Caching, Control, ControlExtension, InformationalExceptions,
    ModePage, ReadWriteErrorRecovery,
};

/// Current (or default) values of all pages; none is saved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Modes {
    pub(crate) recovery: ReadWriteErrorRecovery,
    pub(crate) caching: Caching,
    pub(crate) control: Control,
    pub(crate) extension: ControlExtension,
    /// Of units that have room for protection information.
    pub(crate) application_tags: Option<ApplicationTags>,
    pub(crate) exceptions: InformationalExceptions,
}

impl Modes {
    /// The defaults; `write_cache` is WCE, `protectable` says that there may be application tags.
    pub(crate) fn new(write_cache: bool, protectable: bool) -> Self {
        // All blocks have tag 0.
        let all = ApplicationTagDescriptor { last: true, ..Default::default() };
        let mut tags = ApplicationTags::default();
        tags.descriptors[0] = all;
        Self {
            recovery: ReadWriteErrorRecovery {
                awre: true,
                arre: true,
                read_retry_count: 8,
                write_retry_count: 8,
                ..Default::default()
            },
            caching: Caching { wce: write_cache, ..Default::default() },
            // A task set per nexus, reordering allowed, tasks of others told when they are aborted.
            control: Control { tst: 1, queue_algorithm: 1, tas: true, ..Default::default() },
            extension: ControlExtension { max_sense_length: 252, ..Default::default() },
            application_tags: protectable.then_some(tags),
            exceptions: InformationalExceptions { dexcpt: true, ..Default::default() },
        }
    }

    /// A one for every bit that MODE SELECT can change. WCE only if there is a cache to turn off, ATO and ATMPE only if
    /// there are application tags.
    pub(crate) fn changeable(volatile_cache: bool, protectable: bool) -> Self {
        Self {
            recovery: ReadWriteErrorRecovery::default(),
            caching: Caching { wce: volatile_cache, ..Default::default() },
            control: Control {
                d_sense: true,
                swp: true,
                ato: protectable,
                atmpe: protectable,
                tas: true,
                ..Default::default()
            },
            extension: ControlExtension::default(),
            application_tags: protectable.then(|| ApplicationTags::decode(&[0xff; ApplicationTags::LEN])),
            exceptions: InformationalExceptions { dexcpt: true, ..Default::default() },
        }
    }

    /// All pages, by ascending code.
    pub(crate) fn pages(&self) -> Vec<ModePage> {
        let mut pages = vec![
            ModePage::ReadWriteErrorRecovery(self.recovery),
            ModePage::Caching(self.caching),
            ModePage::Control(self.control),
            ModePage::ControlExtension(self.extension),
        ];
        pages.extend(self.application_tags.map(ModePage::ApplicationTags));
        pages.push(ModePage::InformationalExceptions(self.exceptions));
        pages
    }

    /// Takes over a page; `false` for one that is not there.
    pub(crate) fn set(&mut self, page: &ModePage) -> bool {
        match page {
            ModePage::ReadWriteErrorRecovery(page) => self.recovery = *page,
            ModePage::Caching(page) => self.caching = *page,
            ModePage::Control(page) => self.control = *page,
            ModePage::ControlExtension(page) => self.extension = *page,
            ModePage::ApplicationTags(page) if self.application_tags.is_some() => {
                self.application_tags = Some(*page);
            }
            ModePage::InformationalExceptions(page) => self.exceptions = *page,
            _ => return false,
        }
        true
    }
}
