//! The path part of envoy.config.route.v3.RouteMatch, against a path without its query.

use corelane_snapshot::PathMatch;

pub fn matches(matcher: &PathMatch, path: &[u8], is_connect: bool) -> bool {
    if let PathMatch::Connect = matcher {
        return is_connect;
    }
    // Envoy: CONNECT requests match no other rule, but with a path they are extended CONNECT
    if is_connect && path.is_empty() {
        return false;
    }
    match matcher {
        PathMatch::Prefix { text, ignore_case } => starts(path, text, *ignore_case),
        PathMatch::Exact { text, ignore_case } => {
            path.len() == text.len() && starts(path, text, *ignore_case)
        }
        PathMatch::SeparatedPrefix { text, ignore_case } => {
            starts(path, text, *ignore_case) && matches!(path.get(text.len()), None | Some(b'/'))
        }
        PathMatch::Regex(regex) => regex.is_match(path),
        PathMatch::Connect => is_connect,
    }
}

/// Bytes at the start of a path that the rule matched: what a prefix rewrite replaces.
pub fn matched_len(matcher: &PathMatch, path: &[u8]) -> usize {
    match matcher {
        PathMatch::Prefix { text, .. } | PathMatch::SeparatedPrefix { text, .. } => {
            text.len().min(path.len())
        }
        PathMatch::Exact { .. } | PathMatch::Regex(_) | PathMatch::Connect => path.len(),
    }
}

fn starts(path: &[u8], text: &str, ignore_case: bool) -> bool {
    let text = text.as_bytes();
    match path.get(..text.len()) {
        Some(head) if ignore_case => head.eq_ignore_ascii_case(text),
        Some(head) => head == text,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_snapshot::Regex;

    #[test]
    fn every_kind() {
        let prefix = |text: &str| PathMatch::Prefix { text: text.into(), ignore_case: false };
        let folded = |text: &str| PathMatch::Prefix { text: text.into(), ignore_case: true };
        let exact = |text: &str| PathMatch::Exact { text: text.into(), ignore_case: false };
        let separated = |text: &str| PathMatch::SeparatedPrefix { text: text.into(), ignore_case: false };
        for (matcher, path, matched) in [
            (prefix("/a"), "/a", true),
            (prefix("/a"), "/ab", true),
            (prefix("/a"), "/A", false),
            (folded("/a"), "/Ab", true),
            (exact("/a"), "/a", true),
            (exact("/a"), "/a/", false),
            (exact("/a"), "/", false),
            (separated("/foo"), "/foo", true),
            (separated("/foo"), "/foo/bar", true),
            (separated("/foo"), "/foobar", false),
            (PathMatch::Regex(Regex::new("/b[io]t").unwrap()), "/bit", true),
            (PathMatch::Regex(Regex::new("/b[io]t").unwrap()), "/bite", false),
            (PathMatch::Connect, "/", false),
        ] {
            assert_eq!(matches(&matcher, path.as_bytes(), false), matched, "{matcher:?} {path}");
        }
    }

    #[test]
    fn connect_is_matched_by_its_own_rule_only() {
        let any = PathMatch::Prefix { text: "".into(), ignore_case: false };
        assert!(matches(&PathMatch::Connect, b"", true));
        assert!(!matches(&any, b"", true));
        assert!(matches(&any, b"/chat", true), "extended CONNECT has a path");
    }
}
