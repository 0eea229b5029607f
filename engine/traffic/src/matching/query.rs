//! envoy.config.route.v3.QueryParameterMatcher. By routes names and values are compared as sent, by rate limits
//! decoded; of several parameters of one name the first counts, as in Envoy.

use corelane_http::query::{decoded, parameter, parameter_by_decoded_name};
use corelane_snapshot::{QueryMatch, QueryMatcher};

pub fn matches(matcher: &QueryMatcher, query: Option<&[u8]>) -> bool {
    accepts(matcher, query.and_then(|query| parameter(query, matcher.name.as_bytes())))
}

/// Builds a value only where there is something to decode in it.
pub fn matches_decoded(matcher: &QueryMatcher, query: Option<&[u8]>) -> bool {
    match query.and_then(|query| parameter_by_decoded_name(query, matcher.name.as_bytes())) {
        Some(value) if value.contains(&b'%') => accepts(matcher, Some(&decoded(value).collect::<Vec<u8>>())),
        value => accepts(matcher, value),
    }
}

fn accepts(matcher: &QueryMatcher, value: Option<&[u8]>) -> bool {
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
            (text("1"), Some("debug=%31"), false),
        ] {
            let matcher = QueryMatcher { name: "debug".into(), matcher };
            assert_eq!(matches(&matcher, query.map(str::as_bytes)), matched, "{matcher:?} {query:?}");
        }
        for (query, matched) in [("debug=1", true), ("d%65bug=%31", true), ("debug=%32", false), ("x", false)]
        {
            let matcher = QueryMatcher { name: "debug".into(), matcher: text("1") };
            assert_eq!(matches_decoded(&matcher, Some(query.as_bytes())), matched, "{query}");
        }
    }
}
