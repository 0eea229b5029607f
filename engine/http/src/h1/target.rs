//! Request targets (RFC 9112 section 3.2) and authorities (RFC 3986 section 3.2).

use crate::{HttpError, Method, decimal::decimal, fields::Span};

/// The parts of a request target as ranges of the whole head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub scheme: Span,
    /// Empty in origin-form and asterisk-form.
    pub authority: Span,
    pub path: Path,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    At(Span),
    /// The target had none and this one is meant: `/` or `*`.
    Implied(&'static [u8]),
}

impl Default for Path {
    fn default() -> Self {
        Path::At(Span::default())
    }
}

/// RFC 3986 knows no space, control or non-ASCII byte. Of the visible bytes it also leaves out `"<>\^`{|}`,
/// which are in use; they frame nothing and are let through, as Envoy does.
///
/// It looks at every byte rather than stop at the first bad one, because so it compiles to vector code.
pub(crate) fn is_target(target: &[u8]) -> bool {
    !target.is_empty() && target.iter().fold(true, |valid, b| valid & matches!(b, 0x21..=0x7e))
}

/// Splits `target`, which begins at byte `start` of the head.
pub(crate) fn parse_target(method: Method, target: &[u8], start: usize) -> Result<Target, HttpError> {
    if !is_target(target) {
        return Err(HttpError::InvalidTarget);
    }
    let whole = Span::new(start, target.len());
    // RFC 9112 section 3.2.3: "The 'authority-form' of request-target is only used for CONNECT requests", and
    // "a client MUST send only the host and port of the tunnel destination".
    if method == Method::Connect {
        let has_port = matches!(split_port(target), (_, Some(_)));
        return match is_authority(target) && has_port {
            true => Ok(Target { authority: whole, ..Target::default() }),
            false => Err(HttpError::InvalidTarget),
        };
    }
    if target[0] == b'/' {
        return Ok(Target { path: Path::At(whole), ..Target::default() });
    }
    // RFC 9112 section 3.2.4: "The 'asterisk-form' of request-target is only used for a server-wide OPTIONS".
    if target == b"*" {
        return match method {
            Method::Options => Ok(Target { path: Path::At(whole), ..Target::default() }),
            _ => Err(HttpError::InvalidTarget),
        };
    }
    absolute_form(method, target, start)
}

fn absolute_form(method: Method, target: &[u8], start: usize) -> Result<Target, HttpError> {
    let scheme_len = match target {
        t if has_prefix_ignore_case(t, b"http://") => 4,
        t if has_prefix_ignore_case(t, b"https://") => 5,
        _ => return Err(HttpError::InvalidTarget),
    };
    let after = scheme_len + 3;
    let rest = &target[after..];
    let authority_len = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    // RFC 9110 section 4.2.4: "a recipient SHOULD parse for userinfo and treat its presence as an error".
    if !is_authority(&rest[..authority_len]) {
        return Err(HttpError::InvalidHost);
    }
    let path = &rest[authority_len..];
    let path = match path.first() {
        Some(b'/') => Path::At(Span::new(start + after + authority_len, path.len())),
        // RFC 9112 section 3.2.4: an OPTIONS whose URI has an empty path and no query means `*`.
        None if method == Method::Options => Path::Implied(b"*"),
        // RFC 9112 section 3.2.1: "If the target URI's path component is empty, the client MUST send '/'".
        None => Path::Implied(b"/"),
        // `http://host?query` would need a byte put in; nobody sends it.
        Some(_) => return Err(HttpError::InvalidTarget),
    };
    Ok(Target {
        scheme: Span::new(start, scheme_len),
        authority: Span::new(start + after, authority_len),
        path,
    })
}

fn has_prefix_ignore_case(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.get(..prefix.len()).is_some_and(|b| b.eq_ignore_ascii_case(prefix))
}

/// `uri-host [ ":" port ]` (RFC 9110 section 7.2), not empty. A comma is in RFC 3986's sub-delims but in no
/// host name: it is refused because it is what joining two Host lines leaves.
pub(crate) fn is_authority(authority: &[u8]) -> bool {
    let host_len = match authority {
        [b'[', ..] => match memchr::memchr(b']', authority) {
            Some(close) if is_ip_literal(&authority[1..close]) => close + 1,
            _ => return false,
        },
        _ => memchr::memchr(b':', authority).unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(host_len);
    if host.is_empty() || (host[0] != b'[' && !is_reg_name(host)) {
        return false;
    }
    match port {
        [] | [b':'] => true,
        [b':', digits @ ..] => decimal(digits).is_some_and(|p| p <= u16::MAX as u64),
        _ => false,
    }
}

/// RFC 3986: reg-name = *( unreserved / pct-encoded / sub-delims ).
fn is_reg_name(host: &[u8]) -> bool {
    host.iter().all(|&b| REG_NAME_BYTES[usize::from(b)]) || is_escaped_reg_name(host)
}

/// Unreserved and sub-delims without the comma.
static REG_NAME_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(b, b'-' | b'.' | b'_' | b'~')
            || matches!(b, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=');
        byte += 1;
    }
    table
};

#[cold]
fn is_escaped_reg_name(host: &[u8]) -> bool {
    let mut rest = host;
    while let [b, tail @ ..] = rest {
        rest = match (b, tail) {
            (b'%', [a, b, tail @ ..]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => tail,
            (b, tail) if REG_NAME_BYTES[usize::from(*b)] => tail,
            _ => return false,
        };
    }
    true
}

/// The inside of the brackets: an IPv6 address, with a zone as RFC 6874 writes it (`%25eth0`).
fn is_ip_literal(inside: &[u8]) -> bool {
    let address = match memchr::memmem::find(inside, b"%25") {
        Some(at) if is_reg_name(&inside[at + 3..]) && at + 3 < inside.len() => &inside[..at],
        Some(_) => return false,
        None => inside,
    };
    std::str::from_utf8(address).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
}

/// Host and port of an authority; the port is None if absent, empty or not a number below 65536.
pub fn split_port(authority: &[u8]) -> (&[u8], Option<u16>) {
    let Some(colon) = memchr::memrchr(b':', authority) else {
        return (authority, None);
    };
    let (host, port) = (&authority[..colon], &authority[colon + 1..]);
    // The colons of a bare `[::1]` are inside its brackets.
    if !port.iter().all(u8::is_ascii_digit) {
        return (authority, None);
    }
    (host, decimal(port).and_then(|p| u16::try_from(p).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        for good in [
            "a",
            "a.b-c_d",
            "A.B:80",
            "a:",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:65535",
            "[fe80::1%25eth0]",
            "a%20b",
            "xn--bcher-kva.example",
            "payments.default.svc.cluster.local:443",
        ] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a:65536",
            "a:8o",
            "a:-1",
            "a b",
            "a/b",
            "u@a",
            "a?b",
            "a#b",
            "a,b",
            "[::1",
            "[::1]x",
            "[]",
            "[g::1]",
            "[fe80::1%25]",
            "a%2",
            "a%zz",
            "::1",
            "a:1:2",
            "\u{e4}",
            "a\\b",
            "a\"b",
            "a\tb",
            "<a>",
            "a\0",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad:?}");
        }
    }

    fn parts(method: Method, target: &str) -> Result<(String, String, String), HttpError> {
        let head = format!("xx{target}");
        let t = parse_target(method, target.as_bytes(), 2)?;
        let text = |s: Span| head[s.range()].to_string();
        let path = match t.path {
            Path::At(span) => text(span),
            Path::Implied(path) => String::from_utf8_lossy(path).into_owned(),
        };
        Ok((text(t.scheme), text(t.authority), path))
    }

    #[test]
    fn forms_of_a_target() {
        let ok = |s: &str, a: &str, p: &str| Ok((s.to_string(), a.to_string(), p.to_string()));
        assert_eq!(parts(Method::Get, "/a?b"), ok("", "", "/a?b"));
        assert_eq!(parts(Method::Get, "//a/b"), ok("", "", "//a/b"));
        assert_eq!(parts(Method::Options, "*"), ok("", "", "*"));
        assert_eq!(parts(Method::Get, "http://h:80/a?b"), ok("http", "h:80", "/a?b"));
        assert_eq!(parts(Method::Get, "HTTPS://h"), ok("HTTPS", "h", "/"));
        assert_eq!(parts(Method::Options, "http://h"), ok("http", "h", "*"));
        assert_eq!(parts(Method::Connect, "h:443"), ok("", "h:443", ""));
        for (method, bad, error) in [
            (Method::Get, "*", HttpError::InvalidTarget),
            (Method::Get, "a", HttpError::InvalidTarget),
            (Method::Get, "h:443", HttpError::InvalidTarget),
            (Method::Get, "ftp://h/", HttpError::InvalidTarget),
            (Method::Get, "http://", HttpError::InvalidHost),
            (Method::Get, "http:///a", HttpError::InvalidHost),
            (Method::Get, "http://u:p@h/", HttpError::InvalidHost),
            (Method::Get, "http://h?a", HttpError::InvalidTarget),
            (Method::Get, "/\u{e4}", HttpError::InvalidTarget),
            (Method::Get, "/a\x7f", HttpError::InvalidTarget),
            (Method::Connect, "/a", HttpError::InvalidTarget),
            (Method::Connect, "h", HttpError::InvalidTarget),
            (Method::Connect, "http://h:80", HttpError::InvalidTarget),
        ] {
            assert_eq!(parts(method, bad), Err(error), "{method:?} {bad}");
        }
    }
}
