//! One logical unit's configuration, and its one-line form for the command line.

use crate::block::{IoEngine, NbdAddress};
use bytesize::ByteSize;
use scsi_cmd::protection::ProtectionType;
use std::path::PathBuf;
use std::str::FromStr;

/// What holds the blocks of a logical unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Backing {
    /// Memory; lost when the process ends.
    Ram {
        /// Bytes.
        size: u64,
    },
    /// Nothing: reads give zeros, writes are forgotten. For measurements.
    Null {
        /// Bytes.
        size: u64,
    },
    /// A file or a block device.
    Path {
        /// Where.
        path: PathBuf,
        /// Create the file sparsely with this many bytes if it does not exist.
        create: Option<u64>,
    },
    /// An export of an NBD server.
    Nbd(NbdAddress),
}

/// One logical unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LunConfig {
    /// Its number, below 16384; `None` takes the next free one.
    pub lun: Option<u16>,
    /// What holds its blocks.
    pub backing: Backing,
    /// Bytes a logical block: 512 or 4096.
    pub block_size: u32,
    /// Refuse to write.
    pub read_only: bool,
    /// Report the unit as thin provisioned and let UNMAP give space back.
    pub thin: bool,
    /// Bytes of a physical block, a power of two; `None` is what the backing has.
    pub physical_block_size: Option<u32>,
    /// Report the medium as removable, and let it be ejected.
    pub removable: bool,
    /// Write to the medium before a command ends (WCE 0), until an initiator changes it.
    pub write_through: bool,
    /// File in which persistent reservations survive a restart (APTPL).
    pub reservations: Option<PathBuf>,
    /// Serial number; `None` makes one of the target's name and the LUN. The same one at two LUNs says that they are
    /// the same unit.
    pub serial: Option<String>,
    /// Bytes a second that SANITIZE and FORMAT UNIT may take; `None` is all there is.
    pub erase_rate: Option<u64>,
    /// Go past the page cache (`O_DIRECT`); for a path.
    pub direct: bool,
    /// Room for protection information, of this type (1 or 3) to begin with: in memory, or in a tag file that is new.
    pub protection: Option<ProtectionType>,
    /// The tag file; `None` for that of a path: the path with `.pi` at its end.
    pub tags: Option<PathBuf>,
    /// Who waits for the medium; for a path.
    pub io: IoEngine,
    /// Bytes of buffers that the io_uring of each session may pin; with `direct`. `None` is the default of
    /// [`FileOptions::registered`](crate::block::FileOptions::registered).
    pub registered: Option<u64>,
}

impl LunConfig {
    /// A writable, thin unit of 512-byte blocks.
    #[must_use]
    pub fn new(backing: Backing) -> Self {
        Self {
            lun: None,
            backing,
            block_size: 512,
            read_only: false,
            thin: true,
            physical_block_size: None,
            removable: false,
            write_through: false,
            reservations: None,
            serial: None,
            erase_rate: None,
            direct: false,
            protection: None,
            tags: None,
            io: IoEngine::Auto,
            registered: None,
        }
    }

    /// Checks what no backing could serve.
    ///
    /// # Errors
    /// A sentence that says what to change.
    pub fn check(&self) -> Result<(), LunSpecError> {
        if !matches!(self.block_size, 512 | 4096) {
            return Err(LunSpecError(format!(
                "block size {} is not possible: use 512 or 4096",
                self.block_size
            )));
        }
        let physical = self.physical_block_size.unwrap_or(self.block_size);
        if !physical.is_power_of_two() || physical < self.block_size || physical > 1 << 16 {
            return Err(LunSpecError(format!(
                "physical block size {physical} is not possible: use a power of two from {} to 65536",
                self.block_size
            )));
        }
        if self.serial.as_ref().is_some_and(|s| s.is_empty() || s.len() > 64 || !s.is_ascii()) {
            return Err(LunSpecError("a serial number is 1 to 64 ASCII characters".into()));
        }
        if self.lun.is_some_and(|n| n >= 1 << 14) {
            return Err(LunSpecError("LUN numbers go from 0 to 16383".into()));
        }
        self.check_protection()?;
        if (self.direct || self.io != IoEngine::Auto) && !matches!(self.backing, Backing::Path { .. }) {
            return Err(LunSpecError("direct and io= go with a path".into()));
        }
        if self.registered.is_some() && !self.direct {
            return Err(LunSpecError("registered= goes with direct".into()));
        }
        if let Backing::Ram { size } | Backing::Null { size } | Backing::Path { create: Some(size), .. } =
            self.backing
            && (size == 0 || size % u64::from(self.block_size) != 0)
        {
            return Err(LunSpecError(format!(
                "size {size} is not a positive multiple of the block size {}",
                self.block_size
            )));
        }
        Ok(())
    }
}

impl LunConfig {
    fn check_protection(&self) -> Result<(), LunSpecError> {
        let wrong = match (&self.backing, self.protection, &self.tags) {
            (_, Some(ProtectionType::Type2), _) => "protection information is of type 1 or 3",
            (_, None, Some(_)) => "a tag file goes with pi=1 or pi=3",
            (Backing::Ram { .. }, Some(_), Some(_)) => "memory needs no tag file",
            (Backing::Null { .. }, Some(_), _) => "a null disk keeps no protection information",
            (Backing::Nbd(_), Some(_), None) => "protection information of an NBD disk needs tags=PATH",
            _ => return Ok(()),
        };
        Err(LunSpecError(wrong.into()))
    }
}

/// What is wrong with a logical unit's configuration.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct LunSpecError(pub String);

/// `ram:SIZE`, `null:SIZE`, `nbd://…` (see [`NbdAddress`]) or `PATH`, then `,key=value` options: `lun=N`, `bs=512|4096`, `pbs=N`, `ro`, `thick`,
/// `removable`, `write-through`, `direct`, `io=auto|uring|threads`, `registered=SIZE`, `pi=1|3`, `tags=PATH`, `create=SIZE`, `reservations=PATH`, `serial=TEXT`, `erase-rate=SIZE`. Sizes as in `64M`, `1GiB`, `1048576`.
impl FromStr for LunConfig {
    type Err = LunSpecError;

    fn from_str(spec: &str) -> Result<Self, LunSpecError> {
        let mut parts = spec.split(',');
        let what = parts.next().unwrap_or_default();
        let backing = match what.split_once(':') {
            Some(("ram", size)) => Backing::Ram { size: parse_size(size)? },
            Some(("null", size)) => Backing::Null { size: parse_size(size)? },
            Some((scheme, _)) if scheme.starts_with("nbd") && what.contains("://") => {
                Backing::Nbd(what.parse().map_err(|e| LunSpecError(format!("{e}")))?)
            }
            _ if what.is_empty() => {
                return Err(LunSpecError("expected ram:SIZE, null:SIZE, nbd://HOST/EXPORT or a path".into()));
            }
            _ => Backing::Path { path: what.into(), create: None },
        };
        let mut lun = Self::new(backing);
        for option in parts {
            match option.split_once('=').unwrap_or((option, "")) {
                ("ro", "") => lun.read_only = true,
                ("thick", "") => lun.thin = false,
                ("lun", n) => {
                    lun.lun = Some(n.parse().map_err(|_| LunSpecError(format!("'{n}' is no LUN number")))?);
                }
                ("bs", n) => {
                    lun.block_size =
                        n.parse().map_err(|_| LunSpecError(format!("'{n}' is no block size")))?;
                }
                ("io", name) => lun.io = parse_engine(name)?,
                ("direct", "") => lun.direct = true,
                ("registered", size) => lun.registered = Some(parse_size(size)?),
                ("pi", n) => {
                    let kind = n.parse().ok().and_then(ProtectionType::from_number);
                    lun.protection =
                        Some(kind.ok_or_else(|| LunSpecError(format!("'{n}' is no protection type")))?);
                }
                ("tags", path) if !path.is_empty() => lun.tags = Some(path.into()),
                ("removable", "") => lun.removable = true,
                ("write-through", "") => lun.write_through = true,
                ("pbs", n) => {
                    lun.physical_block_size =
                        Some(n.parse().map_err(|_| LunSpecError(format!("'{n}' is no block size")))?);
                }
                ("reservations", path) if !path.is_empty() => lun.reservations = Some(path.into()),
                ("serial", text) => lun.serial = Some(text.into()),
                ("erase-rate", size) => lun.erase_rate = Some(parse_size(size)?),
                ("create", size) => match &mut lun.backing {
                    Backing::Path { create, .. } => *create = Some(parse_size(size)?),
                    _ => return Err(LunSpecError("create= goes with a path".into())),
                },
                _ => {
                    return Err(LunSpecError(format!(
                        "unknown option '{option}': expected lun=N, bs=512|4096, pbs=N, ro, thick, removable, \
                         write-through, direct, io=auto|uring|threads, registered=SIZE, pi=1|3, tags=PATH, create=SIZE, reservations=PATH, serial=TEXT or \
                         erase-rate=SIZE"
                    )));
                }
            }
        }
        lun.check()?;
        Ok(lun)
    }
}

/// Who waits for the medium, by name.
///
/// # Errors
/// Says which names there are.
pub(crate) fn parse_engine(name: &str) -> Result<IoEngine, LunSpecError> {
    match name {
        "auto" => Ok(IoEngine::Auto),
        "uring" => Ok(IoEngine::Uring),
        "threads" => Ok(IoEngine::Threads),
        _ => Err(LunSpecError(format!("'{name}' is no way of I/O: expected auto, uring or threads"))),
    }
}

/// A size as people write it: `K`, `M`, `G`, `T` and the same with `iB` are powers of 1024, as with `qemu-img` and
/// `truncate`; `KB`, `MB` … are powers of 1000.
///
/// # Errors
/// Names the text that is no size.
pub(crate) fn parse_size(text: &str) -> Result<u64, LunSpecError> {
    let trimmed = text.trim();
    let with_unit = match trimmed.chars().last() {
        Some('K' | 'k' | 'M' | 'm' | 'G' | 'g' | 'T' | 't' | 'P' | 'p') => format!("{trimmed}iB"),
        _ => trimmed.to_owned(),
    };
    with_unit
        .parse::<ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| LunSpecError(format!("'{text}' is no size: expected for example 64M, 1GiB or 1048576")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_forms() {
        let lun: LunConfig = "ram:64M".parse().unwrap();
        assert_eq!(lun, LunConfig::new(Backing::Ram { size: 64 << 20 }));
        let lun: LunConfig = "nbd+unix:///disk?socket=/run/nbd.sock,ro".parse().unwrap();
        let address = "nbd+unix:///disk?socket=/run/nbd.sock".parse().unwrap();
        assert_eq!(lun, LunConfig { read_only: true, ..LunConfig::new(Backing::Nbd(address)) });
        let lun: LunConfig = "/a/b:c.img,lun=3,ro,bs=4096,create=1G,thick".parse().unwrap();
        assert_eq!(
            lun,
            LunConfig {
                lun: Some(3),
                block_size: 4096,
                read_only: true,
                thin: false,
                ..LunConfig::new(Backing::Path { path: "/a/b:c.img".into(), create: Some(1 << 30) })
            }
        );
        let lun: LunConfig = "/a/b.img,pi=3,tags=/c/b.pi".parse().unwrap();
        let path = Backing::Path { path: "/a/b.img".into(), create: None };
        let protection = Some(ProtectionType::Type3);
        assert_eq!(lun, LunConfig { protection, tags: Some("/c/b.pi".into()), ..LunConfig::new(path) });
        let lun: LunConfig = "/dev/sdb,direct,registered=1M".parse().unwrap();
        assert_eq!((lun.direct, lun.registered), (true, Some(1 << 20)));
        let lun: LunConfig = "/dev/sdb,direct,io=threads".parse().unwrap();
        let path = Backing::Path { path: "/dev/sdb".into(), create: None };
        assert_eq!(lun, LunConfig { direct: true, io: IoEngine::Threads, ..LunConfig::new(path) });
        let spec = "ram:1M,pbs=4096,removable,write-through,reservations=/a/pr,serial=x1,erase-rate=1M";
        assert_eq!(
            spec.parse::<LunConfig>().unwrap(),
            LunConfig {
                physical_block_size: Some(4096),
                removable: true,
                write_through: true,
                reservations: Some("/a/pr".into()),
                serial: Some("x1".into()),
                erase_rate: Some(1 << 20),
                ..LunConfig::new(Backing::Ram { size: 1 << 20 })
            }
        );
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("512", 512),
            ("1k", 1024),
            ("1KB", 1000),
            ("1 GiB", 1 << 30),
            ("2T", 2 << 40),
            ("1.5G", 3 << 29),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        assert!(parse_size("many").is_err());
    }

    #[test]
    fn mistakes_say_what_to_do() {
        for (spec, says) in [
            ("ram:0", "positive multiple"),
            ("ram:1000", "multiple of the block size 512"),
            ("ram:1M,bs=1000", "use 512 or 4096"),
            ("ram:1M,pbs=256", "power of two from 512"),
            ("ram:1M,serial=", "1 to 64"),
            ("x.img,lun=16384", "0 to 16383"),
            ("x.img,rw", "unknown option 'rw'"),
            ("ram:1M,create=2M", "goes with a path"),
            ("ram:1M,direct", "go with a path"),
            ("/a,registered=1M", "goes with direct"),
            ("/a,direct,registered=much", "no size"),
            ("ram:1M,pi=2", "type 1 or 3"),
            ("ram:1M,pi=4", "'4' is no protection type"),
            ("x.img,tags=y", "goes with pi=1 or pi=3"),
            ("ram:1M,pi=1,tags=y", "needs no tag file"),
            ("null:1M,pi=1", "keeps no protection information"),
            ("nbd://[::1]/x,pi=3", "needs tags=PATH"),
            ("x.img,io=aio", "auto, uring or threads"),
            ("nbd+unix:///x", "no socket"),
            ("", "expected ram:SIZE"),
        ] {
            let error = spec.parse::<LunConfig>().unwrap_err().to_string();
            assert!(error.contains(says), "{spec}: {error}");
        }
    }
}
