//! The text format of login and text PDUs (RFC 7143 section 6.1).

/// `key=value`, each ended by a zero byte.
pub(crate) fn text(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in pairs {
        out.extend_from_slice(format!("{key}={value}").as_bytes());
        out.push(0);
    }
    out
}

/// The pairs of a data segment; what has no `=` becomes a key with an empty value.
pub(crate) fn pairs(data: &[u8]) -> Vec<(String, String)> {
    data.split(|&b| b == 0)
        .filter(|item| !item.is_empty())
        .map(|item| {
            let item = String::from_utf8_lossy(item);
            let (key, value) = item.split_once('=').unwrap_or((&item, ""));
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

/// The first value of a key.
pub(crate) fn find<'a>(pairs: &'a [(String, String)], key: &str) -> Option<&'a str> {
    pairs.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
}

/// A number: decimal or, after `0x`, hexadecimal.
pub(crate) fn number(value: &str) -> Option<u64> {
    match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => value.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_what_was_written() {
        let data = text(&[("A", "1"), ("B", "x=y"), ("C", "")]);
        assert_eq!(data, b"A=1\0B=x=y\0C=\0");
        let pairs = pairs(&data);
        assert_eq!(find(&pairs, "B"), Some("x=y"));
        assert_eq!(find(&pairs, "C"), Some(""));
        assert_eq!(find(&pairs, "D"), None);
        assert_eq!(number("0x200"), Some(512));
        assert_eq!(number("No"), None);
    }
}
