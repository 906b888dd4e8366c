//! CHAP: responses of RFC 1994 section 4.1 with the algorithms of RFC 7143 section 12.1.3.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::Digest as _;

/// The response: a hash over identifier, secret and challenge. `None` for an algorithm that has no number at IANA.
pub(crate) fn response(algorithm: u8, identifier: u8, secret: &[u8], challenge: &[u8]) -> Option<Vec<u8>> {
    let all = [&[identifier], secret, challenge].concat();
    match algorithm {
        5 => Some(md5::Md5::digest(&all).to_vec()),
        6 => Some(sha1::Sha1::digest(&all).to_vec()),
        7 => Some(sha2::Sha256::digest(&all).to_vec()),
        8 => Some(sha3::Sha3_256::digest(&all).to_vec()),
        _ => None,
    }
}

/// A binary value in hexadecimal (section 6.1).
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// A binary value in base64.
pub(crate) fn base64(bytes: &[u8]) -> String {
    format!("0b{}", STANDARD.encode(bytes))
}

/// The bytes of a binary value; `None` if it is not one.
pub(crate) fn binary(value: &str) -> Option<Vec<u8>> {
    let (prefix, rest) = value.split_at_checked(2)?;
    match prefix {
        "0x" | "0X" => {
            let digits = if rest.len() % 2 == 1 { format!("0{rest}") } else { rest.to_owned() };
            let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
            (0..digits.len()).step_by(2).map(byte).collect()
        }
        "0b" | "0B" => STANDARD.decode(rest).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with openssl from 01, "secretsecret", 00..0f.
    #[test]
    fn responses_of_another_implementation() {
        let challenge: Vec<u8> = (0..16).collect();
        let get = |algorithm| hex(&response(algorithm, 1, b"secretsecret", &challenge).unwrap());
        assert_eq!(get(5), MD5);
        assert_eq!(get(6), SHA1);
        assert_eq!(get(7), SHA256);
        assert_eq!(get(8), SHA3);
        assert!(response(1, 1, b"x", b"y").is_none());
    }

    const MD5: &str = "0x226dc576c33f04ff9c3a200ffe35f442";
    const SHA1: &str = "0xae35ac1694de2cf7e68e790fbface9a28501fed7";
    const SHA256: &str = "0x024aef34e176668b34ec2bf7f5525e3bf7f0e94d7cec77cb07d08c3d5a8e23ca";
    const SHA3: &str = "0xe2bd0aba5f885a39aa4fbebccc63203c2f728f034cbaf009b44c2f0c5544f172";

    #[test]
    fn binary_values() {
        assert_eq!(binary("0xabc").unwrap(), [0x0a, 0xbc]);
        assert_eq!(binary("0bAQID").unwrap(), [1, 2, 3]);
        assert_eq!(binary(&base64(&[9, 8])).unwrap(), [9, 8]);
        assert!(binary("abc").is_none() && binary("0xzz").is_none());
    }
}
