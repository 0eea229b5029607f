//! envoy.config.route.v3.QueryParameterMatcher. Names and values are compared as sent, not decoded; of several
//! parameters of one name the first counts, as in Envoy.

use corelane_http::query::parameter;
use corelane_snapshot::{QueryMatch, QueryMatcher};

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
