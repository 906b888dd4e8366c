//! Citations of requirement ids in Rust sources.
//!
//! A citation is a comment `// req: 7143-11.8-1, 7143-11.8-2` or, for a test, a name that contains
//! `req_7143_11_8_1`. It speaks for the function whose body holds it, or right below whose comments
//! and attributes the function follows without a blank line.

use std::ops::Range;

use super::lexer::{Kind, Token, tokens};
use super::spec::split_id;

/// What kind of text cites the requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Code that is built into the crate.
    Code,
    /// A test that runs.
    Test,
    /// A test that is `#[ignore]`d.
    Ignored,
    /// Helpers of tests: neither obeys the rule nor checks it.
    Support,
}

/// One citation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Citation {
    pub(super) id: String,
    pub(super) line: usize,
    pub(super) place: Place,
}

/// A range of source text and what it counts as.
struct Region {
    range: Range<usize>,
    place: Place,
    /// Name of the test.
    name: Range<usize>,
}

/// Every citation in `src`. `default` is what text outside tests counts as; `scenario` makes every
/// public function a test (suites that other crates run as theirs).
pub(super) fn citations(
    src: &str,
    default: Place,
    scenario: bool,
    known: &dyn Fn(&str) -> bool,
) -> Vec<Citation> {
    if !src.contains("req") {
        return Vec::new();
    }
    let tokens = tokens(src);
    let regions = regions(src, &tokens, scenario);
    let line = |at: usize| src[..at].bytes().filter(|&b| b == b'\n').count() + 1;
    let place = |at: usize| {
        let places = || regions.iter().filter(|r| r.range.contains(&at)).map(|r| r.place);
        [Place::Test, Place::Ignored, Place::Support]
            .into_iter()
            .find(|&place| places().any(|p| p == place))
            .unwrap_or(default)
    };
    let mut found = Vec::new();
    let mut continued = false;
    for token in tokens.iter() {
        if token.kind != Kind::Comment {
            continued = false;
            continue;
        }
        let text = &src[token.start..token.end];
        let ids = ids_in_comment(text, continued);
        continued = !ids.is_empty();
        let at = token.start;
        found.extend(ids.into_iter().map(|id| Citation { id, line: line(at), place: place(at) }));
    }
    for region in regions.iter().filter(|r| r.place != Place::Support) {
        let at = region.name.start;
        let ids = ids_in_name(&src[region.name.clone()], known);
        found.extend(ids.into_iter().map(|id| Citation { id, line: line(at), place: region.place }));
    }
    found
}

/// Ids after each `req:`; a comment that goes on from a citing one may begin with ids at once.
fn ids_in_comment(text: &str, continued: bool) -> Vec<String> {
    let mut ids = Vec::new();
    if continued {
        ids.extend(leading_ids(text.trim_start_matches(['/', '!', '*'])));
    }
    for (at, _) in text.match_indices("req:") {
        let word_before = text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        // `req::Thing` is a path.
        if !word_before && !text[at + 4..].starts_with(':') {
            ids.extend(leading_ids(&text[at + 4..]));
        }
    }
    ids
}

fn leading_ids(text: &str) -> Vec<String> {
    text.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';'))
        .filter(|word| !word.is_empty() && !word.chars().all(|c| matches!(c, '/' | '*' | '!')))
        .map(|word| word.trim_end_matches(['.', ':', ')', '*', '/']))
        .take_while(|word| split_id(word).is_some())
        .map(str::to_owned)
        .collect()
}

/// Ids in a test's name: `req_7143_4_2_2_1_3` is 7143-4.2.2.1-3. Digits that follow the running
/// number belong to the rest of the name, so the longest id that exists is meant.
fn ids_in_name(name: &str, known: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut ids = Vec::new();
    for (at, _) in name.match_indices("req_") {
        let parts: Vec<String> = name[at + 4..]
            .split('_')
            .take_while(|p| !p.is_empty() && (p.bytes().all(|b| b.is_ascii_digit()) || p.len() == 1))
            .map(str::to_uppercase)
            .collect();
        let candidate = |n: usize| format!("{}-{}-{}", parts[0], parts[1..n - 1].join("."), parts[n - 1]);
        let longest = (3..=parts.len()).rev().map(candidate).find(|id| known(id));
        let fallback = || (parts.len() >= 3).then(|| candidate(parts.len()));
        ids.extend(longest.or_else(fallback));
    }
    ids
}

/// The attributes that stand before an item.
#[derive(Default)]
struct Attributes {
    test: bool,
    ignore: bool,
    cfg_test: bool,
    public: bool,
}

impl Attributes {
    fn add(&mut self, text: &str) {
        let path = text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).next().unwrap_or("");
        let inner: String = text.split_whitespace().collect();
        match path.rsplit("::").next() {
            Some("test" | "rstest" | "test_case" | "quickcheck") => self.test = true,
            Some("ignore") => self.ignore = true,
            Some("cfg") => {
                self.cfg_test |= inner.starts_with("cfg(test)") || inner.starts_with("cfg(all(test")
            }
            _ => {}
        }
    }
}

fn regions(src: &str, tokens: &[Token], scenario: bool) -> Vec<Region> {
    let mut out: Vec<Region> = Vec::new();
    let mut attributes = Attributes::default();
    // Where the comments and attributes right above the next item begin.
    let mut block: Option<usize> = None;
    // Each `proptest! {}` around us: where its block of comments begins, the token of its brace, its end.
    let mut proptests: Vec<(usize, usize, usize)> = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let text = &src[token.start..token.end];
        proptests.retain(|&(.., close)| close > at);
        let blank_above = at > 0 && src[tokens[at - 1].end..token.start].matches('\n').count() > 1;
        if blank_above {
            block = None;
        }
        let here = block.unwrap_or(token.start);
        match token.kind {
            Kind::Comment => {
                // A comment behind code on its line belongs to that code.
                let trailing = at > 0 && !src[tokens[at - 1].end..token.start].contains('\n');
                if !trailing || block.is_some() {
                    block = Some(here);
                }
                at += 1;
            }
            Kind::Punct(b'#') if is_punct(tokens, at + 1, b'[') => {
                let close = matching(tokens, at + 1);
                let end = tokens.get(close).map_or(src.len(), |t| t.start);
                attributes.add(&src[tokens[at + 1].end..end]);
                block = Some(here);
                at = close + 1;
            }
            Kind::Word if matches!(text, "pub" | "async" | "unsafe" | "const" | "extern") => {
                attributes.public |= text == "pub";
                block = Some(here);
                at += 1;
                if text == "pub" && is_punct(tokens, at, b'(') {
                    at = matching(tokens, at) + 1;
                }
            }
            Kind::Word if text == "fn" || (text == "mod" && attributes.cfg_test) => {
                let found = std::mem::take(&mut attributes);
                let name = tokens.get(at + 1).map_or(token.start..token.end, |t| t.start..t.end);
                let end = tokens.get(body_end(tokens, at)).map_or(src.len(), |t| t.end);
                let in_proptest = proptests.last().filter(|&&(_, open, _)| depth(tokens, open, at) == 1);
                let test = text == "fn"
                    && (found.test || in_proptest.is_some() || (scenario && found.public && !found.cfg_test));
                let place = match (test, found.ignore) {
                    (true, false) => Place::Test,
                    (true, true) => Place::Ignored,
                    (false, _) => Place::Support,
                };
                if let (true, Some(&(start, open, _))) = (test, in_proptest) {
                    out.push(Region { range: start..tokens[open].end, place, name: name.start..name.start });
                }
                if test || found.cfg_test {
                    out.push(Region { range: here..end, place, name });
                }
                block = None;
                at += 1;
            }
            Kind::Word if text == "proptest" && is_punct(tokens, at + 1, b'!') => {
                let close = matching(tokens, at + 2);
                proptests.push((here, (at + 2).min(tokens.len() - 1), close));
                (block, attributes) = (None, Attributes::default());
                at += 3;
            }
            _ => {
                (block, attributes) = (None, Attributes::default());
                at += 1;
            }
        }
    }
    out
}

fn is_punct(tokens: &[Token], at: usize, byte: u8) -> bool {
    tokens.get(at).is_some_and(|t| t.kind == Kind::Punct(byte))
}

/// +1 for an opening bracket, -1 for a closing one.
fn nesting(token: &Token) -> i32 {
    match token.kind {
        Kind::Punct(b'(' | b'[' | b'{') => 1,
        Kind::Punct(b')' | b']' | b'}') => -1,
        _ => 0,
    }
}

/// Brackets open at token `at`, counted from token `from`.
fn depth(tokens: &[Token], from: usize, at: usize) -> i32 {
    tokens[from..at].iter().map(nesting).sum()
}

/// The token that closes the bracket at `open`.
fn matching(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        depth += nesting(token);
        if depth <= 0 {
            return at;
        }
    }
    tokens.len()
}

/// The token that ends the item which begins at `at`: its closing brace, or a semicolon.
fn body_end(tokens: &[Token], at: usize) -> usize {
    let mut depth = 0;
    for (k, token) in tokens.iter().enumerate().skip(at) {
        match token.kind {
            Kind::Punct(b'{') if depth == 0 => return matching(tokens, k),
            Kind::Punct(b';') if depth == 0 => return k,
            _ => depth += nesting(token),
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests;
