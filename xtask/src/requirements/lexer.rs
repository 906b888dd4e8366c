//! As much of Rust's lexical grammar as it takes to tell comments, words and brackets from what
//! stands inside string literals. (A syntax tree would drop the comments, where citations stand.)

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A line or block comment, documentation included.
    Comment,
    /// An identifier or keyword.
    Word,
    /// One byte of punctuation.
    Punct(u8),
    /// A number, string, character or lifetime.
    Literal,
}

/// A token and the bytes it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The tokens of `src`, without white space.
pub(super) fn tokens(src: &str) -> Vec<Token> {
    let bytes = src.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at].is_ascii_whitespace() {
            at += 1;
            continue;
        }
        let (kind, len) = token(&bytes[at..]);
        out.push(Token { kind, start: at, end: at + len });
        at += len;
    }
    out
}

fn token(rest: &[u8]) -> (Kind, usize) {
    if rest.starts_with(b"//") {
        return (Kind::Comment, rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        return (Kind::Comment, block_comment(rest));
    }
    // Prefixes of literals: b"", br#""#, c"", r"", b''.
    let prefix = rest.iter().take_while(|b| matches!(b, b'b' | b'c' | b'r')).count().min(2);
    let (letters, tail) = rest.split_at(prefix);
    if letters.ends_with(b"r")
        && let hashes = tail.iter().take_while(|&&b| b == b'#').count()
        && tail.get(hashes) == Some(&b'"')
    {
        return (Kind::Literal, prefix + raw_string(tail, hashes));
    }
    if prefix <= 1 && tail.first() == Some(&b'"') {
        return (Kind::Literal, prefix + quoted(tail, b'"'));
    }
    if letters == b"b" && tail.first() == Some(&b'\'') {
        return (Kind::Literal, 1 + quoted(tail, b'\''));
    }
    match rest[0] {
        b'\'' => (Kind::Literal, character_or_lifetime(rest)),
        b'0'..=b'9' => (Kind::Literal, word(rest)),
        b if is_word(b) => (Kind::Word, word(rest)),
        b => (Kind::Punct(b), 1),
    }
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || !b.is_ascii()
}

fn word(rest: &[u8]) -> usize {
    rest.iter().take_while(|&&b| is_word(b)).count()
}

/// Block comments nest.
fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (1, 2);
    while depth > 0 && at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    at.min(rest.len())
}

/// Length up to and with the closing quote, which may be escaped on the way.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn raw_string(rest: &[u8], hashes: usize) -> usize {
    let mut close = vec![b'#'; hashes + 1];
    close[0] = b'"';
    let body = hashes + 1;
    rest[body..]
        .windows(close.len())
        .position(|window| window == close)
        .map_or(rest.len(), |at| body + at + close.len())
}

/// `'x'`, `'\n'`, `'é'` are characters; `'a` is a lifetime.
fn character_or_lifetime(rest: &[u8]) -> usize {
    let one = rest.get(1).map_or(1, |b| if b.is_ascii() { 1 } else { b.leading_ones() as usize });
    if rest.get(1) == Some(&b'\\') || rest.get(1 + one) == Some(&b'\'') {
        return quoted(rest, b'\'');
    }
    1 + word(&rest[1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(src: &str) -> Vec<(Kind, &str)> {
        tokens(src).into_iter().map(|t| (t.kind, &src[t.start..t.end])).collect()
    }

    #[test]
    fn comments_are_told_from_strings() {
        assert_eq!(
            shown("a /* x /* y */ z */ \"// no\" // yes\nb"),
            [
                (Kind::Word, "a"),
                (Kind::Comment, "/* x /* y */ z */"),
                (Kind::Literal, "\"// no\""),
                (Kind::Comment, "// yes"),
                (Kind::Word, "b"),
            ]
        );
    }

    #[test]
    fn literals_of_every_shape_are_one_token() {
        for literal in [
            r#""a\"b""#,
            r##"r#"a"b"#"##,
            r#"r"\""#,
            r##"br#"{"#"##,
            r#"b"{""#,
            r#"c"{""#,
            "'{'",
            r"'\''",
            r"'\u{7d}'",
            "b'{'",
            "'é'",
            "'a",
            "0x1f_u8",
        ] {
            assert_eq!(shown(literal), [(Kind::Literal, literal)]);
        }
    }

    #[test]
    fn words_that_begin_like_literals_are_words() {
        for word in ["bytes", "crc", "r", "b", "br", "été"] {
            assert_eq!(shown(word), [(Kind::Word, word)]);
        }
    }

    #[test]
    fn an_unfinished_token_ends_with_the_file() {
        for src in ["/* x", "\"x", "r#\"x", "\"x\\", "'\\", "'"] {
            assert_eq!(tokens(src).last().map(|t| t.end), Some(src.len()), "{src}");
        }
    }
}
