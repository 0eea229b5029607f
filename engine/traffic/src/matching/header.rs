//! envoy.config.route.v3.HeaderMatcher against a head. Several fields of one name are one value joined by commas
//! (RFC 9110 section 5.3), as Envoy has it.

use corelane_http::{Fields, RequestHead, ResponseHead};
use corelane_snapshot::{HeaderMatch, HeaderMatcher};

/// Bytes of several values joined that fit without the heap.
const JOINED_BYTES: usize = 512;

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
    decide(matcher, Some(&[digit(100), digit(10), digit(1)]))
}

pub fn all_match(matchers: &[HeaderMatcher], head: &RequestHead) -> bool {
    matchers.iter().all(|matcher| matches_request(matcher, head))
}

fn matches_fields(matcher: &HeaderMatcher, fields: &Fields) -> bool {
    let mut values = fields.get_all_name(matcher.name.as_bytes());
    let Some(first) = values.next() else { return decide(matcher, None) };
    if values.next().is_none() {
        return decide(matcher, Some(first));
    }
    let values = || fields.get_all_name(matcher.name.as_bytes());
    let len = values().map(|value| value.len() + 1).sum::<usize>() - 1;
    let mut stack = [0u8; JOINED_BYTES];
    if let Some(joined) = stack.get_mut(..len) {
        joined.fill(b',');
        let mut at = 0;
        for value in values() {
            joined[at..at + value.len()].copy_from_slice(value);
            at += value.len() + 1;
        }
        return decide(matcher, Some(joined));
    }
    let joined = values().collect::<Vec<_>>().join(&b","[..]);
    decide(matcher, Some(&joined))
}

fn decide(matcher: &HeaderMatcher, value: Option<&[u8]>) -> bool {
    if let HeaderMatch::Present(present) = matcher.matcher {
        return (value.is_some() == present) != matcher.invert;
    }
    // an absent header matches no rule about its value, inverted or not
    let value = match value {
        Some(value) => value,
        None if matcher.treat_missing_as_empty => b"",
        None => return false,
    };
    let matched = match &matcher.matcher {
        HeaderMatch::Text(text) => text.matches(value),
        HeaderMatch::Range(range) => {
            integer(value).is_some_and(|number| (range.start..range.end).contains(&number))
        }
        HeaderMatch::Present(present) => *present,
    };
    matched != matcher.invert
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

    #[test]
    fn several_values_are_one() {
        let two = head(&[("x", "a"), ("y", "-"), ("x", "b")]);
        assert!(matches_request(&matcher("x", exact("a,b")), &two));
        assert!(!matches_request(&matcher("x", exact("a")), &two));
        let long = "l".repeat(JOINED_BYTES);
        let longer = head(&[("x", &long), ("x", "b")]);
        assert!(matches_request(&matcher("x", exact(&format!("{long},b"))), &longer));
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
