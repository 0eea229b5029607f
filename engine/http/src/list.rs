//! Comma-separated lists of tokens (RFC 9110 section 5.6.1).

use crate::{Fields, Known};

/// The elements of one field line, without optional white space; empty elements are skipped, as RFC 9110
/// section 5.6.1.2 asks of a recipient. For fields whose elements have no quoted commas.
pub fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim).filter(|e| !e.is_empty())
}

/// Without SP and HTAB on both sides.
pub fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

pub(crate) fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

pub(crate) fn has_token(value: &[u8], token: &[u8]) -> bool {
    elements(value).any(|e| e.eq_ignore_ascii_case(token))
}

/// Whether any line of the list field holds the token, in any case.
pub fn field_has_token(fields: &Fields, known: Known, token: &[u8]) -> bool {
    fields.get_all(known).any(|value| has_token(value, token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_trimmed_and_never_empty() {
        let all: Vec<&[u8]> = elements(b" a ,, b\t,c d, ").collect();
        assert_eq!(all, [&b"a"[..], b"b", b"c d"]);
        assert!(has_token(b"keep-alive, Upgrade", b"upgrade"));
        assert!(!has_token(b"keep-alive, Upgraded", b"upgrade"));
    }
}
