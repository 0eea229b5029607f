//! Cookies of a request (RFC 6265 section 4.2.1), for hashing, matching and logging.

use crate::{Fields, Known, list};

/// (name, value) of every cookie in order, over all Cookie lines; quotes around a value are not part of it.
/// Pairs without `=` are skipped, as Envoy does.
pub fn cookies(fields: &Fields) -> impl Iterator<Item = (&[u8], &[u8])> {
    fields.get_all(Known::Cookie).flat_map(|line| line.split(|&b| b == b';')).filter_map(|pair| {
        let equals = memchr::memchr(b'=', pair)?;
        let (name, value) = (list::trim(&pair[..equals]), list::trim(&pair[equals + 1..]));
        let value = match value {
            [b'"', inner @ .., b'"'] => inner,
            plain => plain,
        };
        Some((name, value))
    })
}

/// Value of the first cookie of that name; names are case-sensitive.
pub fn cookie<'a>(fields: &'a Fields, name: &[u8]) -> Option<&'a [u8]> {
    cookies(fields).find(|(n, _)| *n == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_over_lines() {
        let mut fields = Fields::new();
        fields.append_known(Known::Cookie, b"a=1; b = \"two\" ;c;d==x");
        fields.append_known(Known::Cookie, b"A=3;e=\"");
        let all: Vec<(&[u8], &[u8])> = cookies(&fields).collect();
        let expected: [(&[u8], &[u8]); 5] =
            [(b"a", b"1"), (b"b", b"two"), (b"d", b"=x"), (b"A", b"3"), (b"e", b"\"")];
        assert_eq!(all, expected);
        assert_eq!(cookie(&fields, b"A"), Some(&b"3"[..]));
        assert_eq!(cookie(&fields, b"c"), None);
    }
}
