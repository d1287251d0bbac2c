//! The tables of `docs/format.md`, and the few functions that reading by them needs.

use sha2::{Digest as _, Sha256};
use std::collections::HashMap;

pub(crate) const DOCUMENT: &str = include_str!("../../../docs/format.md");

/// The tables of the document.
#[derive(Default)]
pub(crate) struct Format {
    /// Where a field of a table is, and how many bytes it has.
    fields: HashMap<(&'static str, &'static str), (usize, usize)>,
    pub(crate) constants: HashMap<&'static str, u64>,
    magics: HashMap<&'static str, &'static str>,
}

impl Format {
    pub(crate) fn parse(text: &'static str) -> Self {
        let mut format = Self::default();
        let mut table = "";
        for line in text.lines() {
            if let Some(heading) = line.strip_prefix("### ") {
                table = heading.trim_matches('`');
            }
            let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            let is_name =
                |at: usize| line.split('|').nth(at).is_some_and(|cell| cell.trim().starts_with('`'));
            match cells[..] {
                ["", at, bytes, field, ..] if is_name(3) => {
                    if let (Ok(at), Ok(bytes)) = (at.parse(), bytes.parse()) {
                        let twice = format.fields.insert((table, field), (at, bytes));
                        assert!(twice.is_none() || field == "zero", "{table} has two fields {field}");
                    }
                }
                ["", name, value, ..] if is_name(1) => {
                    if let Ok(number) = value.parse() {
                        format.constants.insert(name, number);
                    } else if is_name(2) {
                        format.magics.insert(name, value);
                    }
                }
                _ => {}
            }
        }
        format
    }

    pub(crate) fn place(&self, table: &'static str, field: &'static str) -> (usize, usize) {
        *self
            .fields
            .get(&(table, field))
            .unwrap_or_else(|| panic!("the document has no field {field} of {table}"))
    }

    /// The bytes of a field of the thing at the start of `bytes`.
    pub(crate) fn bytes<'a>(&self, table: &'static str, field: &'static str, bytes: &'a [u8]) -> &'a [u8] {
        let (at, count) = self.place(table, field);
        &bytes[at..at + count]
    }

    pub(crate) fn number(&self, table: &'static str, field: &'static str, bytes: &[u8]) -> u64 {
        number(self.bytes(table, field, bytes))
    }

    pub(crate) fn size(&self, table: &'static str, field: &'static str, bytes: &[u8]) -> usize {
        self.number(table, field, bytes).try_into().unwrap()
    }

    pub(crate) fn start(&self, table: &'static str, field: &'static str) -> usize {
        self.place(table, field).0
    }

    pub(crate) fn constant(&self, name: &'static str) -> usize {
        self.constants[name].try_into().unwrap()
    }

    /// The header of this kind at the start of `bytes`, verified.
    pub(crate) fn header<'a>(&self, kind: &str, bytes: &'a [u8]) -> &'a [u8] {
        let own = self.start("prelude", "checksum");
        assert_eq!(self.number("prelude", "checksum", bytes), u64::from(crc(0, &bytes[..own])), "{kind}");
        assert_eq!(self.bytes("prelude", "magic", bytes), self.magics[kind].as_bytes());
        assert_eq!(self.number("prelude", "version", bytes), 1);
        let header = &bytes[..self.size("prelude", "header length", bytes)];
        let rest = crc(0, &header[own + 4..]);
        assert_eq!(self.number("prelude", "header checksum", bytes), u64::from(rest), "{kind}");
        header
    }
}

pub(crate) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

pub(crate) fn crc(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

pub(crate) fn hash(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().fold(Sha256::new(), |hasher, part| hasher.chain_update(part)).finalize().to_vec()
}

pub(crate) fn align_up(at: usize, unit: usize) -> usize {
    at.div_ceil(unit) * unit
}
