//! envoy.config.route.v3.HeaderMatcher against a head. Each of several fields of one name is looked at by itself and
//! one that matches is enough, as Envoy has it since 1.39 (`envoy.reloadable_features.match_headers_individually`, for
//! RBAC `rbac_match_headers_individually` since 1.38): joined by commas, a rule that denies a value would be passed by
//! sending the field twice.

use corelane_http::{Fields, RequestHead, ResponseHead};
use corelane_snapshot::{HeaderMatch, HeaderMatcher};

/// `:method`, `:path`, `:authority`, `:scheme` and `host` are the head's own.
pub fn matches_request(matcher: &HeaderMatcher, head: &RequestHead) -> bool {
    let name = matcher.name.as_bytes();
    if name.starts_with(b":") || name == b"host" {
        return decide(matcher, head.get_name(name));
    }
    matches_fields(matcher, &head.fields)
}

/// `:status` is the head's own.
pub fn matches_response(matcher: &HeaderMatcher, head: &ResponseHead) -> bool {
    if &*matcher.name != ":status" {
        return matches_fields(matcher, &head.fields);
    }
    let digit = |unit: u16| b'0' + (head.status / unit % 10) as u8;
    decide(matcher, [&[digit(100), digit(10), digit(1)][..]])
}

pub fn all_match(matchers: &[HeaderMatcher], head: &RequestHead) -> bool {
    matchers.iter().all(|matcher| matches_request(matcher, head))
}

fn matches_fields(matcher: &HeaderMatcher, fields: &Fields) -> bool {
    decide(matcher, fields.get_all_name(matcher.name.as_bytes()))
}

/// Inversion comes last: an inverted rule holds where no value matches, as Envoy has it.
fn decide<'v>(matcher: &HeaderMatcher, values: impl IntoIterator<Item = &'v [u8]>) -> bool {
    let mut values = values.into_iter().peekable();
    let is_there = values.peek().is_some();
    let is_match = match &matcher.matcher {
        HeaderMatch::Present(present) => is_there == *present,
        found if is_there => values.any(|value| holds(found, value)),
        found if matcher.treat_missing_as_empty => holds(found, b""),
        // an absent header matches no rule about its value, inverted or not
        _ => return false,
    };
    is_match != matcher.invert
}

fn holds(found: &HeaderMatch, value: &[u8]) -> bool {
    match found {
        HeaderMatch::Text(text) => text.matches(value),
        HeaderMatch::Range(range) => {
            integer(value).is_some_and(|number| (range.start..range.end).contains(&number))
        }
        HeaderMatch::Present(present) => *present,
    }
}

/// The whole value in base 10, with an optional sign.
fn integer(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_snapshot::{RangeI64, StringMatcher};

    fn head(fields: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::new();
        head.set_path(b"/charge?x=1").unwrap();
        head.set_authority(b"payments:8080").unwrap();
        for (name, value) in fields {
            head.fields.append(name.as_bytes(), value.as_bytes()).unwrap();
        }
        head
    }

    fn matcher(name: &str, matcher: HeaderMatch) -> HeaderMatcher {
        HeaderMatcher { name: name.into(), matcher, invert: false, treat_missing_as_empty: false }
    }

    fn exact(text: &str) -> HeaderMatch {
        HeaderMatch::Text(StringMatcher::exact(text))
    }

    /// (value of x, invert, treat missing as empty) against exact "a", exact "" and present.
    #[test]
    fn absence_inversion_and_emptiness() {
        for (value, invert, empty, is_a, is_nothing, present) in [
            (Some("a"), false, false, true, false, true),
            (Some("b"), false, false, false, false, true),
            (None, false, false, false, false, false),
            (Some("a"), true, false, false, true, false),
            (Some("b"), true, false, true, true, false),
            (None, true, false, false, false, true),
            (None, false, true, false, true, false),
            (None, true, true, true, false, true),
        ] {
            let fields: Vec<_> = value.map(|value| ("x", value)).into_iter().collect();
            let head = head(&fields);
            let ask = |m: HeaderMatch| {
                let matcher = HeaderMatcher { invert, treat_missing_as_empty: empty, ..matcher("x", m) };
                matches_request(&matcher, &head)
            };
            let got = (ask(exact("a")), ask(exact("")), ask(HeaderMatch::Present(true)));
            assert_eq!(got, (is_a, is_nothing, present), "{value:?} invert {invert} empty {empty}");
        }
        assert!(matches_request(&matcher("x", HeaderMatch::Present(false)), &head(&[])));
        assert!(!matches_request(&matcher("x", HeaderMatch::Present(false)), &head(&[("x", "")])));
    }

    #[test]
    fn pseudo_headers_are_seen() {
        let head = head(&[]);
        for (name, value) in [
            (":path", "/charge?x=1"),
            (":method", "GET"),
            (":authority", "payments:8080"),
            ("host", "payments:8080"),
        ] {
            assert!(matches_request(&matcher(name, exact(value)), &head), "{name}");
        }
    }

    /// What Envoy 1.40 answered to each of these, as a route's rule, an RBAC permission and a fault's condition.
    #[test]
    fn one_of_several_values_is_enough() {
        let range = || HeaderMatch::Range(RangeI64 { start: 1, end: 5 });
        let cases: [(&[&str], [bool; 4]); 7] = [
            (&["a"], [true, false, false, false]),
            (&["b"], [false, true, false, false]),
            (&["a", "b"], [true, false, false, false]),
            (&["b", "a"], [true, false, false, false]),
            (&["a,b"], [false, true, true, false]),
            (&["b", "c"], [false, true, false, false]),
            (&["9", "1"], [false, true, false, true]),
        ];
        for (values, expected) in cases {
            let fields: Vec<_> = values.iter().map(|value| ("x", *value)).collect();
            let head = head(&fields);
            let not_a = HeaderMatcher { invert: true, ..matcher("x", exact("a")) };
            let asked = [matcher("x", exact("a")), not_a, matcher("x", exact("a,b")), matcher("x", range())];
            assert_eq!(asked.map(|matcher| matches_request(&matcher, &head)), expected, "{values:?}");
        }
    }

    #[test]
    fn ranges_want_a_whole_integer() {
        let range = |start, end| HeaderMatch::Range(RangeI64 { start, end });
        for (value, matched) in
            [("-1", true), ("-10", true), ("0", false), ("-11", false), ("-1x", false), ("", false)]
        {
            assert_eq!(
                matches_request(&matcher("x", range(-10, 0)), &head(&[("x", value)])),
                matched,
                "{value}"
            );
        }
    }

    #[test]
    fn a_response_has_a_status() {
        let mut response = ResponseHead::new();
        response.status = 503;
        assert!(matches_response(&matcher(":status", exact("503")), &response));
        assert!(!matches_response(&matcher(":status", exact("500")), &response));
    }
}
