//! What a route rewrites on the way to its cluster, into buffers of the caller.

use super::path::matched_len;
use corelane_http::RequestHead;
use corelane_snapshot::{HostRewrite, PathMatch, PathRewrite};

/// Writes the new path, with the request's query, into `out`. False: it stays as it is.
pub fn path(rewrite: &PathRewrite, matched: &PathMatch, head: &RequestHead, out: &mut Vec<u8>) -> bool {
    let (path, full) = (head.path_without_query(), head.path());
    out.clear();
    match rewrite {
        PathRewrite::Prefix(text) => {
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(&path[matched_len(matched, path)..]);
        }
        PathRewrite::Full(text) => out.extend_from_slice(text.as_bytes()),
        PathRewrite::Regex { pattern, substitution } => {
            out.extend_from_slice(&pattern.replace(path, substitution));
        }
    }
    out.extend_from_slice(&full[path.len()..]);
    out != full
}

/// Writes the new authority into `out`. False: it stays as it is. `hostname`: the chosen endpoint's, or empty.
pub fn host(rewrite: &HostRewrite, head: &RequestHead, hostname: &str, out: &mut Vec<u8>) -> bool {
    out.clear();
    match rewrite {
        HostRewrite::Literal(text) => out.extend_from_slice(text.as_bytes()),
        HostRewrite::Auto => out.extend_from_slice(hostname.as_bytes()),
        HostRewrite::Header(name) => {
            out.extend_from_slice(head.get_name(name.as_bytes()).unwrap_or_default());
        }
        HostRewrite::PathRegex { pattern, substitution } => {
            out.extend_from_slice(&pattern.replace(head.path_without_query(), substitution));
        }
    }
    !out.is_empty() && out != head.authority()
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_snapshot::Regex;

    fn head(path: &str) -> RequestHead {
        let mut head = RequestHead::new();
        head.set_path(path.as_bytes()).unwrap();
        head.set_authority(b"old.example").unwrap();
        head.fields.append(b"x-host", b"from.header").unwrap();
        head
    }

    fn prefix(text: &str) -> PathMatch {
        PathMatch::Prefix { text: text.into(), ignore_case: false }
    }

    #[test]
    fn paths() {
        let regex = |pattern: &str, substitution: &str| PathRewrite::Regex {
            pattern: Regex::unanchored(pattern).unwrap(),
            substitution: Regex::substitution(substitution).into(),
        };
        let exact = PathMatch::Exact { text: "/a".into(), ignore_case: false };
        for (rewrite, matched, from, to) in [
            (PathRewrite::Prefix("/".into()), prefix("/api/"), "/api/v1?q=1", Some("/v1?q=1")),
            (PathRewrite::Prefix("/new".into()), prefix("/old"), "/old/x", Some("/new/x")),
            (PathRewrite::Prefix("/b".into()), exact, "/a?q", Some("/b?q")),
            (PathRewrite::Prefix("/a".into()), prefix("/a"), "/a/b", None),
            (PathRewrite::Full("/all".into()), prefix("/"), "/x/y?z", Some("/all?z")),
            (
                regex("^/service/([^/]+)(/.*)$", r"\2/instance/\1"),
                prefix("/"),
                "/service/foo/v1/api?k",
                Some("/v1/api/instance/foo?k"),
            ),
            (regex("one", "two"), prefix("/"), "/xxx/one/yyy/one/zzz", Some("/xxx/two/yyy/two/zzz")),
        ] {
            let mut out = Vec::new();
            let changed = path(&rewrite, &matched, &head(from), &mut out);
            assert_eq!(changed.then(|| String::from_utf8(out).unwrap()).as_deref(), to, "{rewrite:?} {from}");
        }
    }

    #[test]
    fn hosts() {
        let by_path = HostRewrite::PathRegex {
            pattern: Regex::unanchored("^/(.+)/.+$").unwrap(),
            substitution: Regex::substitution(r"\1").into(),
        };
        for (rewrite, to) in [
            (HostRewrite::Literal("new.example".into()), Some("new.example")),
            (HostRewrite::Literal("old.example".into()), None),
            (HostRewrite::Auto, Some("endpoint.example")),
            (HostRewrite::Header("x-host".into()), Some("from.header")),
            (HostRewrite::Header("x-none".into()), None),
            (by_path, Some("tenant")),
        ] {
            let mut out = Vec::new();
            let changed = host(&rewrite, &head("/tenant/item?x"), "endpoint.example", &mut out);
            assert_eq!(changed.then(|| String::from_utf8(out).unwrap()).as_deref(), to, "{rewrite:?}");
        }
    }
}
