//! Query parameters as they were written: nothing is decoded, as Envoy's query parameter matchers of routes have it;
//! and decoded, as its rate limits have them.

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

/// The same of the parameters' decoded names; the value is as written.
pub fn parameter_by_decoded_name<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    parameters(query).find(|(n, _)| decoded(n).eq(name.iter().copied())).map(|(_, value)| value)
}

/// The bytes of a name or a value, percent-decoded as Envoy's `urlDecodeQueryParameter` does: of `%XX` only visible
/// ASCII is decoded, and not `"<>\^{|}`; a `%` that two hexadecimal digits do not follow is left out, unless it is
/// one of the last two bytes; `+` is itself.
pub fn decoded(text: &[u8]) -> impl Iterator<Item = u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (mut rest, mut kept) = (text, 0u8);
    std::iter::from_fn(move || {
        loop {
            match rest {
                [b'%', high, low, after @ ..] if kept == 0 => {
                    match digit(high).zip(digit(low)).map(|(high, low)| (high << 4) | low) {
                        Some(byte) if byte.is_ascii_graphic() && !br#""<>\^{|}"#.contains(&byte) => {
                            rest = after;
                            return Some(byte);
                        }
                        Some(_) => kept = 3,
                        None => rest = &rest[1..],
                    }
                }
                _ => {
                    let (&byte, after) = rest.split_first()?;
                    (rest, kept) = (after, kept.saturating_sub(1));
                    return Some(byte);
                }
            }
        }
    })
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

    #[test]
    fn decoded_as_rate_limits_have_it() {
        for (written, read) in [
            ("free", "free"),
            ("%66r%65e", "free"),
            ("a%2Bb%2bc+d", "a+b+c+d"),
            ("%2566", "%66"),
            ("a%20b%00%7f%FF%5c%5E%7B", "a%20b%00%7f%FF%5c%5E%7B"),
            ("%zzfree", "zzfree"),
            ("%%66ree", "free"),
            ("a%6", "a%6"),
            ("%", "%"),
            ("", ""),
        ] {
            let bytes: Vec<u8> = decoded(written.as_bytes()).collect();
            assert_eq!(String::from_utf8_lossy(&bytes), read, "{written}");
        }
        assert_eq!(parameter_by_decoded_name(b"x=1&ti%65r=%66", b"tier"), Some(&b"%66"[..]));
        assert_eq!(parameter_by_decoded_name(b"ti%65r=1", b"ti%65r"), None);
    }
}
