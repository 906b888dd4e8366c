//! What the tests of this crate share.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part

pub mod fields;
pub mod pcap;
pub mod strategies;

use iscsi_pdu::{BHS_LEN, pad_len};

/// Bytes from hexadecimal with blanks.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    hex::decode(&digits).unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

/// A PDU on the wire, without digests.
pub fn wire(bhs: &[u8], ahs: &[u8], data: &[u8]) -> Vec<u8> {
    assert_eq!(bhs.len(), BHS_LEN);
    [bhs, ahs, data, &[0; 3][..pad_len(data.len())]].concat()
}

/// A block of a table file: its title and its `key = value` lines in order.
pub struct Block {
    pub title: String,
    pub lines: Vec<(String, String)>,
}

impl Block {
    /// The value of `key`, removed from the block.
    pub fn take(&mut self, key: &str) -> Option<String> {
        let i = self.lines.iter().position(|(k, _)| k == key)?;
        Some(self.lines.remove(i).1)
    }
}

/// The blocks of a table file: `[title]`, then `key = value` lines; `#` begins a comment.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if let Some(title) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            blocks.push(Block { title: title.to_string(), lines: Vec::new() });
        } else {
            let (key, value) = line.split_once(" = ").unwrap_or_else(|| panic!("not key = value: {line:?}"));
            let block = blocks.last_mut().expect("a title comes first");
            block.lines.push((key.to_string(), value.to_string()));
        }
    }
    blocks
}
