//! The message interface that the HTTP/1 and HTTP/2 codecs share. A head is one arena (in `fields`) and ranges
//! into it; it is reused from message to message (`clear`), so that a request allocates nothing.
//!
//! The authority lives only in `authority()`: the HTTP/1 parser moves Host there (RFC 9110 section 7.2) and
//! the writer writes it back, so a rewrite cannot leave two that differ.

use crate::{
    Fields, HttpError, Method,
    fields::{Span, is_token},
    h1::target::{is_authority, is_target},
};

pub use crate::h1::target::split_port;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Version {
    H10,
    #[default]
    H11,
    H2,
}

impl Version {
    /// As `%PROTOCOL%` in access logs and the Via field write it.
    pub const fn name(self) -> &'static str {
        match self {
            Version::H10 => "HTTP/1.0",
            Version::H11 => "HTTP/1.1",
            Version::H2 => "HTTP/2",
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    pub version: Version,
    pub fields: Fields,
    method: Method,
    /// Text of the method where it is `Other`.
    method_text: Span,
    scheme: Span,
    authority: Span,
    path: Span,
}

impl RequestHead {
    pub fn new() -> RequestHead {
        RequestHead::default()
    }

    /// Empties it and keeps its memory; see `Fields::clear`.
    pub fn clear(&mut self) {
        self.fields.clear();
        self.version = Version::default();
        self.method = Method::default();
        self.method_text = Span::default();
        self.scheme = Span::default();
        self.authority = Span::default();
        self.path = Span::default();
    }

    pub fn method(&self) -> Method {
        self.method
    }

    pub fn method_bytes(&self) -> &[u8] {
        match self.method {
            Method::Other => self.fields.slice(self.method_text),
            known => known.name().as_bytes(),
        }
    }

    /// `http`, `https`, or empty where an HTTP/1 request in origin-form has not been given one yet.
    pub fn scheme(&self) -> &[u8] {
        self.fields.slice(self.scheme)
    }

    /// `host [":" port]` as received; empty for an HTTP/1.0 request without Host.
    pub fn authority(&self) -> &[u8] {
        self.fields.slice(self.authority)
    }

    /// The authority without its port; brackets of an IPv6 address stay.
    pub fn host(&self) -> &[u8] {
        split_port(self.authority()).0
    }

    pub fn port(&self) -> Option<u16> {
        split_port(self.authority()).1
    }

    /// Path with query, beginning in `/`; `*` for a server-wide OPTIONS; empty for CONNECT.
    pub fn path(&self) -> &[u8] {
        self.fields.slice(self.path)
    }

    pub fn path_without_query(&self) -> &[u8] {
        let path = self.path();
        &path[..memchr::memchr2(b'?', b'#', path).unwrap_or(path.len())]
    }

    /// What follows the first `?`, without a fragment.
    pub fn query(&self) -> Option<&[u8]> {
        let path = self.path();
        let path = &path[..memchr::memchr(b'#', path).unwrap_or(path.len())];
        memchr::memchr(b'?', path).map(|at| &path[at + 1..])
    }

    /// Value of a field, or of `:method`, `:scheme`, `:authority`, `:path`; `host` is the authority. This is
    /// what header matchers and formatters see.
    pub fn get_name(&self, name: &[u8]) -> Option<&[u8]> {
        let pseudo = match name {
            b":method" => self.method_bytes(),
            b":scheme" => self.scheme(),
            b":path" => self.path(),
            b":authority" => self.authority(),
            name if name.eq_ignore_ascii_case(b"host") => self.authority(),
            _ => return self.fields.get_name(name),
        };
        (!pseudo.is_empty()).then_some(pseudo)
    }

    /// # Errors
    /// `InvalidMethod` if it is not a token; nothing is changed.
    pub fn set_method(&mut self, token: &[u8]) -> Result<(), HttpError> {
        if !is_token(token) {
            return Err(HttpError::InvalidMethod);
        }
        self.method = Method::of(token);
        if self.method == Method::Other {
            self.method_text = self.fields.push_bytes(token);
        }
        Ok(())
    }

    /// # Errors
    /// `InvalidTarget` if it is not a URI scheme (RFC 3986 section 3.1); nothing is changed.
    pub fn set_scheme(&mut self, scheme: &[u8]) -> Result<(), HttpError> {
        let valid = scheme.first().is_some_and(u8::is_ascii_alphabetic)
            && scheme.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        if !valid {
            return Err(HttpError::InvalidTarget);
        }
        self.scheme = self.fields.push_bytes(scheme);
        Ok(())
    }

    /// # Errors
    /// `InvalidHost` if it is not `host [":" port]`; nothing is changed.
    pub fn set_authority(&mut self, authority: &[u8]) -> Result<(), HttpError> {
        if !is_authority(authority) {
            return Err(HttpError::InvalidHost);
        }
        self.authority = self.fields.push_bytes(authority);
        Ok(())
    }

    /// # Errors
    /// `InvalidTarget` if it is empty or has a space, a control or a non-ASCII byte; nothing is changed.
    pub fn set_path(&mut self, path: &[u8]) -> Result<(), HttpError> {
        if !is_target(path) {
            return Err(HttpError::InvalidTarget);
        }
        self.path = self.fields.push_bytes(path);
        Ok(())
    }

    /// For rules that only shorten: `shorten(path) -> new length`, bytes changed in place. The rule keeps to
    /// bytes that were there or `/` and `\`, so the path stays valid.
    pub(crate) fn edit_path<R>(&mut self, edit: impl FnOnce(&mut [u8]) -> (usize, R)) -> R {
        let range = self.path.range();
        let Some(bytes) = self.fields.bytes.get_mut(range) else {
            return edit(&mut []).1;
        };
        let (len, result) = edit(bytes);
        self.path.len = self.path.len.min(len as u32);
        result
    }

    /// `a.b.:80` to `a.b:80`; the host ends in a dot.
    pub(crate) fn remove_trailing_dot(&mut self) {
        let Some(host) = self.host().len().checked_sub(1).filter(|&len| len > 0) else {
            return;
        };
        let old = self.authority.range();
        let start = self.fields.bytes.len();
        self.fields.bytes.extend_from_within(old.start..old.start + host);
        self.fields.bytes.extend_from_within(old.start + host + 1..old.end);
        self.authority = Span::new(start, old.len() - 1);
    }

    pub(crate) fn shorten_authority(&mut self, len: usize) {
        self.authority.len = self.authority.len.min(len as u32);
    }

    pub(crate) fn set_parsed(&mut self, method: Method, text: Span, version: Version) {
        self.method = method;
        self.method_text = text;
        self.version = version;
    }

    pub(crate) fn set_target(&mut self, scheme: Span, authority: Span, path: Span) {
        self.scheme = scheme;
        self.authority = authority;
        self.path = path;
    }
}

#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// 100 to 999.
    pub status: u16,
    pub version: Version,
    pub fields: Fields,
    reason: Span,
}

impl ResponseHead {
    pub fn new() -> ResponseHead {
        ResponseHead::default()
    }

    /// Empties it and keeps its memory; see `Fields::clear`.
    pub fn clear(&mut self) {
        self.fields.clear();
        self.status = 0;
        self.version = Version::default();
        self.reason = Span::default();
    }

    /// As received; empty for HTTP/2 and for local replies. The writer does not forward it, as Envoy does not.
    pub fn reason(&self) -> &[u8] {
        self.fields.slice(self.reason)
    }

    pub(crate) fn set_reason(&mut self, reason: Span) {
        self.reason = reason;
    }

    /// Value of a field.
    pub fn get_name(&self, name: &[u8]) -> Option<&[u8]> {
        self.fields.get_name(name)
    }

    /// 1xx, which precedes the final response; 101 is not interim, it ends HTTP on the connection.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accessors_of_a_path() {
        let mut head = RequestHead::new();
        for (path, bare, query) in [
            ("/a?b=c?d#e", "/a", Some("b=c?d")),
            ("/a", "/a", None),
            ("/a?", "/a", Some("")),
            ("/a#x?y", "/a", None),
            ("*", "*", None),
        ] {
            head.set_path(path.as_bytes()).unwrap();
            assert_eq!(head.path_without_query(), bare.as_bytes(), "{path}");
            assert_eq!(head.query(), query.map(str::as_bytes), "{path}");
        }
    }

    #[test]
    fn accessors_of_an_authority() {
        let mut head = RequestHead::new();
        for (authority, host, port) in [
            ("a.b", "a.b", None),
            ("a.b:80", "a.b", Some(80)),
            ("a.b:", "a.b", None),
            ("[::1]", "[::1]", None),
            ("[::1]:443", "[::1]", Some(443)),
        ] {
            head.set_authority(authority.as_bytes()).unwrap();
            assert_eq!((head.host(), head.port()), (host.as_bytes(), port), "{authority}");
        }
    }

    #[test]
    fn setters_refuse_what_would_split_a_request() {
        let mut head = RequestHead::new();
        head.set_path(b"/ok").unwrap();
        head.set_method(b"PURGE").unwrap();
        assert_eq!(head.set_path(b"/a b"), Err(HttpError::InvalidTarget));
        assert_eq!(head.set_path(b"/a\r\n"), Err(HttpError::InvalidTarget));
        assert_eq!(head.set_path(b""), Err(HttpError::InvalidTarget));
        assert_eq!(head.set_method(b"GET /"), Err(HttpError::InvalidMethod));
        assert_eq!(head.set_authority(b"a\r\nb"), Err(HttpError::InvalidHost));
        assert_eq!(head.set_scheme(b"ht tp"), Err(HttpError::InvalidTarget));
        assert_eq!((head.path(), head.method_bytes()), (&b"/ok"[..], &b"PURGE"[..]));
    }

    #[test]
    fn pseudo_names_are_seen_by_matchers() {
        let mut head = RequestHead::new();
        assert_eq!(head.get_name(b"host"), None);
        head.set_authority(b"payments").unwrap();
        head.set_path(b"/charge").unwrap();
        head.fields.append(b"X-A", b"1").unwrap();
        assert_eq!(head.get_name(b"Host"), Some(&b"payments"[..]));
        assert_eq!(head.get_name(b":authority"), Some(&b"payments"[..]));
        assert_eq!(head.get_name(b":path"), Some(&b"/charge"[..]));
        assert_eq!(head.get_name(b":method"), Some(&b"GET"[..]));
        assert_eq!(head.get_name(b"x-a"), Some(&b"1"[..]));
    }
}
