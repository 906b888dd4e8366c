//! iSCSI names (RFC 7143 section 4.2.7) in the stringprep profile of RFC 3722, and local names for display.

use core::fmt;
use std::sync::Arc;

/// Longest iSCSI name in bytes of UTF-8 (RFC 7143 section 4.2.7.2).
// req: 7143-4.2.7.1-3
pub const MAX_NAME_LEN: usize = 223;

/// Longest local name in bytes: a simple-value (RFC 7143 section 6.1).
pub const MAX_LOCAL_NAME_LEN: usize = 255;

/// An iSCSI node name: `iqn.`, `eui.` or `naa.` (RFC 7143 section 4.2.7), prepared as RFC 3722 says.
///
/// Every `IscsiName` is in normal form, so that equal names are equal byte for byte. It holds no path separator, no
/// control character, no space and no quote: what comes from a peer as an `IscsiName` may go into a log, a file name
/// or a configuration line as it is. Clones share the text.
///
/// ```
/// # use iscsi_login::IscsiName;
/// let name: IscsiName = "iqn.2001-04.com.Example:Disk1".parse().unwrap();
/// assert_eq!(name.as_str(), "iqn.2001-04.com.example:disk1");
/// assert!("iqn.2001-13.com.example".parse::<IscsiName>().is_err()); // there is no month 13
/// ```
// req: 7143-4.2.7.1-6, 7143-4.2.7.2-1, 7143-4.2.7.2-2
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IscsiName(Arc<str>);

/// Which naming authority a name is based on (RFC 7143 section 4.2.7.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NameType {
    /// `iqn.`: a domain name and a month in which it was held.
    Iqn,
    /// `eui.`: an EUI-64.
    Eui,
    /// `naa.`: an NAA identifier of 64 or 128 bits.
    Naa,
}

/// Why a string is no iSCSI name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum NameError {
    /// Empty, or more than [`MAX_NAME_LEN`] bytes.
    Length,
    /// A character that RFC 3722 prohibits.
    Character,
    /// No `iqn.`, `eui.` or `naa.` at the start.
    Type,
    /// `iqn.` without yyyy-mm and a dot behind it.
    Date,
    /// `iqn.` without a reversed domain name, or with an empty label in it.
    Authority,
    /// `eui.` without exactly 16, or `naa.` without 16 or 32 hexadecimal digits.
    Digits,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "an iSCSI name has 1 to 223 bytes",
            Self::Character => "character not allowed in an iSCSI name",
            Self::Type => "an iSCSI name begins with iqn., eui. or naa.",
            Self::Date => "iqn. is followed by a date as yyyy-mm and a dot",
            Self::Authority => "the date of an iqn. name is followed by a reversed domain name",
            Self::Digits => "eui. takes 16, naa. 16 or 32 hexadecimal digits",
        })
    }
}

impl core::error::Error for NameError {}

impl IscsiName {
    /// Prepares `text` (upper case becomes lower case, compatibility forms are unified) and checks the result.
    ///
    /// # Errors
    /// The rule of RFC 3722 or RFC 7143 section 4.2.7 that `text` breaks.
    pub fn new(text: &str) -> Result<Self, NameError> {
        // The length first: preparation allocates. It never makes more than 18 bytes of one character.
        if text.is_empty() || text.len() > MAX_NAME_LEN {
            return Err(NameError::Length);
        }
        let prepared = prepare(text)?;
        if prepared.is_empty() || prepared.len() > MAX_NAME_LEN {
            return Err(NameError::Length);
        }
        check_structure(&prepared)?;
        Ok(Self(prepared.into()))
    }

    /// The name in normal form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The naming authority.
    #[must_use]
    pub fn name_type(&self) -> NameType {
        match self.0.get(..4) {
            Some("eui.") => NameType::Eui,
            Some("naa.") => NameType::Naa,
            _ => NameType::Iqn,
        }
    }
}

/// The profile of RFC 3722: nameprep (RFC 3491) has its tables of mapping, normalization and bidirectional checks;
/// it prohibits more.
fn prepare(text: &str) -> Result<String, NameError> {
    let prepared = stringprep::nameprep(text).map_err(|_| NameError::Character)?;
    if prepared.chars().any(prohibited) { Err(NameError::Character) } else { Ok(prepared.into_owned()) }
}

/// RFC 3722 sections 6.1 and 6.2: what nameprep lets pass and iSCSI does not.
fn prohibited(c: char) -> bool {
    matches!(c, '\u{3002}' | '\0'..='\u{2c}' | '/' | '\u{3b}'..='\u{40}' | '\u{5b}'..='\u{60}' | '\u{7b}'..='\u{7f}')
}

// req: 7143-4.2.7.3-1
fn check_structure(name: &str) -> Result<(), NameError> {
    let (kind, rest) = name.split_at_checked(4).ok_or(NameError::Type)?;
    match kind {
        "iqn." => check_iqn(rest),
        // req: 7143-4.2.7.5-1
        "eui." => check_digits(rest, &[16]),
        // req: 7143-4.2.7.6-1
        "naa." => check_digits(rest, &[16, 32]),
        _ => Err(NameError::Type),
    }
}

fn check_digits(rest: &str, lengths: &[usize]) -> Result<(), NameError> {
    if lengths.contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(())
    } else {
        Err(NameError::Digits)
    }
}

/// `yyyy-mm.reversed.domain[:anything]`.
// req: 7143-4.2.7.4-1, 7143-4.2.7.4-3
fn check_iqn(rest: &str) -> Result<(), NameError> {
    let (date, rest) = rest.split_once('.').ok_or(NameError::Date)?;
    let (year, month) = date.split_once('-').ok_or(NameError::Date)?;
    let digits = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(year, 4) || !digits(month, 2) || !("01"..="12").contains(&month) {
        return Err(NameError::Date);
    }
    let authority = rest.split(':').next().unwrap_or_default();
    if authority.split('.').any(str::is_empty) { Err(NameError::Authority) } else { Ok(()) }
}

impl core::str::FromStr for IscsiName {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        Self::new(s)
    }
}

impl AsRef<str> for IscsiName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IscsiName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for IscsiName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// An iSCSI-local-name-value (RFC 7143 section 6.1): UTF-8 without control characters, at most 255 bytes, for people
/// to read. Aliases and node architectures are of this type. Clones share the text.
///
/// The RFC forbids NUL alone; other control characters are replaced by U+FFFD, since what a peer calls itself ends in
/// logs and terminals.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct LocalName(Arc<str>);

impl LocalName {
    /// `text` without its control characters.
    ///
    /// # Errors
    /// [`NameError::Length`] beyond 255 bytes, [`NameError::Character`] with a NUL in it.
    // req: 7143-13.26.1-1
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.len() > MAX_LOCAL_NAME_LEN {
            return Err(NameError::Length);
        }
        if text.contains('\0') {
            return Err(NameError::Character);
        }
        if !text.contains(char::is_control) {
            return Ok(Self(text.into()));
        }
        let clean = text.replace(char::is_control, "\u{fffd}");
        if clean.len() > MAX_LOCAL_NAME_LEN { Err(NameError::Length) } else { Ok(Self(clean.into())) }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl core::str::FromStr for LocalName {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        Self::new(s)
    }
}

impl fmt::Display for LocalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for LocalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests;
