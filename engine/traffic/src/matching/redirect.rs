//! The Location of a redirect (envoy.config.route.v3.RedirectAction).

use super::path::matched_len;
use corelane_http::{RequestHead, head::split_port};
use corelane_snapshot::{PathMatch, Redirect};

/// Writes the absolute URL into `out`. `scheme`: the request's, as the client used it.
pub fn location(
    redirect: &Redirect,
    matched: &PathMatch,
    head: &RequestHead,
    scheme: &[u8],
    out: &mut Vec<u8>,
) {
    out.clear();
    let new_scheme: &[u8] = match &redirect.scheme {
        Some(text) => text.as_bytes(),
        None if redirect.https => b"https",
        None => scheme,
    };
    out.extend_from_slice(new_scheme);
    out.extend_from_slice(b"://");
    match &redirect.host {
        Some(host) => out.extend_from_slice(host.as_bytes()),
        None => out.extend_from_slice(kept_host(head, redirect.port.is_some(), scheme, new_scheme)),
    }
    if let Some(port) = redirect.port {
        push_port(out, port);
    }
    push_path(redirect, matched, head, out);
}

/// The request's own, without a port that is replaced or that only fitted the old scheme.
fn kept_host<'h>(head: &'h RequestHead, new_port: bool, scheme: &[u8], new_scheme: &[u8]) -> &'h [u8] {
    let authority = head.authority();
    let (host, port) = split_port(authority);
    let fitted = scheme != new_scheme
        && ((scheme == b"http" && port == Some(80)) || (scheme == b"https" && port == Some(443)));
    if new_port || fitted { host } else { authority }
}

fn push_port(out: &mut Vec<u8>, port: u16) {
    let digits = [10_000, 1_000, 100, 10, 1].map(|unit| b'0' + (port / unit % 10) as u8);
    let first = digits.iter().position(|&digit| digit != b'0').unwrap_or(digits.len() - 1);
    out.push(b':');
    out.extend_from_slice(&digits[first..]);
}

fn push_path(redirect: &Redirect, matched: &PathMatch, head: &RequestHead, out: &mut Vec<u8>) {
    let (path, full) = (head.path_without_query(), head.path());
    if let Some(text) = &redirect.path {
        out.extend_from_slice(text.as_bytes());
        // a query of its own takes precedence, and is never stripped
        if text.contains('?') {
            return;
        }
    } else if let Some(prefix) = &redirect.prefix {
        out.extend_from_slice(prefix.as_bytes());
        out.extend_from_slice(&path[matched_len(matched, path)..]);
    } else if let Some((pattern, substitution)) = &redirect.regex {
        out.extend_from_slice(&pattern.replace(path, substitution));
    } else {
        out.extend_from_slice(path);
    }
    if !redirect.strip_query {
        out.extend_from_slice(&full[path.len()..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect() -> Redirect {
        Redirect {
            https: false,
            scheme: None,
            host: None,
            port: None,
            path: None,
            prefix: None,
            regex: None,
            strip_query: false,
            status: 301,
        }
    }

    fn at(redirect: Redirect, authority: &str, scheme: &str) -> String {
        let mut head = RequestHead::new();
        head.set_path(b"/api/v1?q=1").unwrap();
        head.set_authority(authority.as_bytes()).unwrap();
        let matched = PathMatch::Prefix { text: "/api".into(), ignore_case: false };
        let mut out = Vec::new();
        location(&redirect, &matched, &head, scheme.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_part_is_replaced_by_itself() {
        let base = redirect;
        for (redirect, url) in [
            (base(), "http://a.b:8080/api/v1?q=1"),
            (Redirect { https: true, ..base() }, "https://a.b:8080/api/v1?q=1"),
            (Redirect { scheme: Some("ftp".into()), ..base() }, "ftp://a.b:8080/api/v1?q=1"),
            (Redirect { host: Some("c.d".into()), ..base() }, "http://c.d/api/v1?q=1"),
            (Redirect { port: Some(443), ..base() }, "http://a.b:443/api/v1?q=1"),
            (Redirect { path: Some("/new".into()), ..base() }, "http://a.b:8080/new?q=1"),
            (Redirect { path: Some("/new?r".into()), ..base() }, "http://a.b:8080/new?r"),
            (Redirect { prefix: Some("/v2".into()), ..base() }, "http://a.b:8080/v2/v1?q=1"),
            (Redirect { strip_query: true, ..base() }, "http://a.b:8080/api/v1"),
        ] {
            assert_eq!(at(redirect, "a.b:8080", "http"), url);
        }
    }

    #[test]
    fn a_port_that_fitted_the_old_scheme_goes() {
        let https = || Redirect { https: true, ..redirect() };
        assert_eq!(at(https(), "a.b:80", "http"), "https://a.b/api/v1?q=1");
        assert_eq!(at(https(), "[::1]:80", "http"), "https://[::1]/api/v1?q=1");
        assert_eq!(at(redirect(), "a.b:80", "http"), "http://a.b:80/api/v1?q=1");
    }
}
