//! envoy.config.route.v3.QueryParameterMatcher. Names and values are compared as sent, not decoded; of several
//! parameters of one name the first counts, as in Envoy.

use corelane_snapshot::{QueryMatch, QueryMatcher};

/// Value of the first parameter of that name; empty where it has no `=`.
pub fn parameter<'q>(query: &'q [u8], name: &[u8]) -> Option<&'q [u8]> {
    query.split(|&b| b == b'&').find_map(|pair| {
        let at = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        (&pair[..at] == name).then(|| pair.get(at + 1..).unwrap_or_default())
    })
}

pub fn matches(matcher: &QueryMatcher, query: Option<&[u8]>) -> bool {
    let value = query.and_then(|query| parameter(query, matcher.name.as_bytes()));
    match (&matcher.matcher, value) {
        (QueryMatch::Present(present), value) => value.is_some() == *present,
        (QueryMatch::Text(text), Some(value)) => text.matches(value),
        (QueryMatch::Text(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_snapshot::StringMatcher;

    #[test]
    fn the_first_of_a_name_counts() {
        let query = b"a=1&b&a=2&c=&=x";
        assert_eq!(parameter(query, b"a"), Some(&b"1"[..]));
        assert_eq!(parameter(query, b"b"), Some(&b""[..]));
        assert_eq!(parameter(query, b"c"), Some(&b""[..]));
        assert_eq!(parameter(query, b"d"), None);
        assert_eq!(parameter(b"", b"a"), None);
    }

    #[test]
    fn values_and_presence() {
        let text = |text: &str| QueryMatch::Text(StringMatcher::exact(text));
        for (matcher, query, matched) in [
            (QueryMatch::Present(true), Some("debug"), true),
            (QueryMatch::Present(true), Some("debugging"), false),
            (QueryMatch::Present(true), None, false),
            (QueryMatch::Present(false), None, true),
            (text("1"), Some("debug=1"), true),
            (text("1"), Some("debug=11"), false),
            (text(""), Some("x"), false),
        ] {
            let matcher = QueryMatcher { name: "debug".into(), matcher };
            assert_eq!(matches(&matcher, query.map(str::as_bytes)), matched, "{matcher:?} {query:?}");
        }
    }
}
