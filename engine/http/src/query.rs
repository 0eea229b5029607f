//! Query parameters as they were written: nothing is decoded, as Envoy's query parameter matchers have it.

/// (name, value) of every parameter in order; a parameter without `=` has an empty value.
pub fn parameters(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query.split(|&b| b == b'&').filter(|p| !p.is_empty()).map(|parameter| {
        match memchr::memchr(b'=', parameter) {
            Some(equals) => (&parameter[..equals], &parameter[equals + 1..]),
            None => (parameter, &b""[..]),
        }
    })
}

/// Value of the first parameter of that name; names are case-sensitive.
pub fn parameter<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    parameters(query).find(|(n, _)| *n == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_in_order() {
        let all: Vec<(&[u8], &[u8])> = parameters(b"a=1&&b&c=%20=x&a=2&=3").collect();
        let expected: [(&[u8], &[u8]); 5] =
            [(b"a", b"1"), (b"b", b""), (b"c", b"%20=x"), (b"a", b"2"), (b"", b"3")];
        assert_eq!(all, expected);
        assert_eq!(parameter(b"a=1&a=2", b"a"), Some(&b"1"[..]));
        assert_eq!(parameter(b"a=1", b"A"), None);
        assert_eq!(parameters(b"").count(), 0);
    }
}
