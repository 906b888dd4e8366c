//! Log pages (SPC-4 clause 7.3).

use crate::codec::{Put, arr, be16, flag, has, run, take};
use crate::error::DecodeError;
use alloc::vec::Vec;

/// A log parameter (SPC-4 clause 7.3.2.2).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LogParameter {
    /// PARAMETER CODE.
    pub code: u16,
    /// Parameter control byte.
    pub control: u8,
    /// PARAMETER VALUE; at most 255 bytes.
    pub value: Vec<u8>,
}

/// Control byte of a bounded data counter: FORMAT AND LINKING 00b.
pub const BOUNDED_COUNTER: u8 = 0x00;
/// Control byte of an unbounded data counter: FORMAT AND LINKING 10b.
pub const UNBOUNDED_COUNTER: u8 = 0x02;
/// Control byte of a binary list: FORMAT AND LINKING 11b.
pub const BINARY_LIST: u8 = 0x03;

/// A log page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogPage {
    /// PAGE CODE, 6 bits.
    pub page_code: u8,
    /// SUBPAGE CODE; SPF is set when it is not 0.
    pub subpage_code: u8,
    /// DS: parameters are not saved.
    pub ds: bool,
    /// What follows PAGE LENGTH.
    pub content: LogContent,
}

/// What a log page holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogContent {
    /// Page codes of the Supported Log Pages page, or pairs of page and subpage code.
    Raw(Vec<u8>),
    /// Parameters by ascending code.
    Parameters(Vec<LogParameter>),
}

impl LogPage {
    /// A page of parameters that are not saved.
    #[must_use]
    pub fn new(page_code: u8, subpage_code: u8, parameters: Vec<LogParameter>) -> Self {
        Self { page_code, subpage_code, ds: true, content: LogContent::Parameters(parameters) }
    }

    /// The page, PAGE LENGTH filled in.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut o = Vec::new();
        let spf = flag(self.subpage_code != 0, 6);
        o.put_bytes(&[flag(self.ds, 7) | spf | (self.page_code & 0x3f), self.subpage_code, 0, 0]);
        match &self.content {
            LogContent::Raw(bytes) => o.put_bytes(bytes),
            LogContent::Parameters(all) => {
                for parameter in all {
                    o.put16(parameter.code);
                    let len = u8::try_from(parameter.value.len()).unwrap_or(u8::MAX);
                    o.put_bytes(&[parameter.control, len]);
                    o.extend(parameter.value.iter().take(usize::from(len)));
                }
            }
        }
        o.fill_len16(2);
        o
    }

    /// Decodes a page: codes for page 00h and the FFh subpages, parameters for all others.
    ///
    /// # Errors
    /// [`crate::DecodeErrorKind::Truncated`] when page or parameter are not whole.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        run(bytes, |i| {
            let (i, [code, sub]) = arr(i)?;
            let (i, len) = be16(i)?;
            let (rest, mut i) = take(usize::from(len))(i)?;
            let page_code = code & 0x3f;
            let subpage_code = if has(code, 6) { sub } else { 0 };
            let content = if page_code == 0 || subpage_code == 0xff {
                LogContent::Raw(i.to_vec())
            } else {
                let mut all = Vec::new();
                while !i.is_empty() {
                    let (after, code) = be16(i)?;
                    let (after, [control, len]) = arr(after)?;
                    let (after, value) = take(usize::from(len))(after)?;
                    all.push(LogParameter { code, control, value: value.to_vec() });
                    i = after;
                }
                LogContent::Parameters(all)
            };
            Ok((rest, Self { page_code, subpage_code, ds: has(code, 7), content }))
        })
    }
}

/// A self-test result (SPC-4 clause 7.3.22), the value of a parameter of page 10h.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SelfTestResult {
    /// SELF-TEST CODE of the SEND DIAGNOSTIC that began it.
    pub code: u8,
    /// SELF-TEST RESULTS: 0 passed, 1 aborted by command, 2 aborted by reset, 5 to 7 failed, 15 in progress.
    pub result: u8,
    /// ACCUMULATED POWER ON HOURS.
    pub power_on_hours: u16,
    /// ADDRESS OF FIRST FAILURE; `None` is FFFF_FFFF_FFFF_FFFFh.
    pub first_failure: Option<u64>,
}

impl SelfTestResult {
    /// The value of the parameter, 16 bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut o = Vec::with_capacity(16);
        o.put_bytes(&[(self.code << 5) | (self.result & 0x0f), 0]);
        o.put16(self.power_on_hours);
        o.put64(self.first_failure.unwrap_or(u64::MAX));
        o.put32(0);
        o
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn supported_pages_by_hand() {
        let page = LogPage {
            page_code: 0,
            subpage_code: 0,
            ds: false,
            content: LogContent::Raw(vec![0, 0x10, 0x2f]),
        };
        assert_eq!(page.encode(), [0, 0, 0, 3, 0, 0x10, 0x2f]);
        assert_eq!(LogPage::decode(&page.encode()), Ok(page));
    }

    #[test]
    fn informational_exceptions_by_hand() {
        let parameter = LogParameter { code: 0, control: BINARY_LIST, value: vec![0, 0, 0x20, 0x28] };
        let page = LogPage::new(0x2f, 0, vec![parameter]);
        assert_eq!(page.encode(), [0xaf, 0, 0, 8, 0, 0, 3, 4, 0, 0, 0x20, 0x28]);
    }

    #[test]
    fn self_test_result_by_hand() {
        let result = SelfTestResult { code: 1, result: 0, power_on_hours: 3, first_failure: None };
        let mut bytes = [0xff; 16];
        bytes[..4].copy_from_slice(&[0x20, 0, 0, 3]);
        bytes[12..].fill(0);
        assert_eq!(result.encode(), bytes);
    }

    proptest! {
        #[test]
        fn pages_survive(page in 1u8..64, sub in 0u8..255, ds: bool,
                         all in prop::collection::vec((any::<u16>(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..30)), 0..6)) {
            let all = all.into_iter().map(|(code, control, value)| LogParameter { code, control, value }).collect();
            let page = LogPage { page_code: page, subpage_code: sub, ds, content: LogContent::Parameters(all) };
            let bytes = page.encode();
            prop_assert_eq!(LogPage::decode(&bytes), Ok(page));
            for len in 0..bytes.len() {
                prop_assert!(LogPage::decode(&bytes[..len]).is_err());
            }
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = LogPage::decode(&bytes);
        }
    }
}
