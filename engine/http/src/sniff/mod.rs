//! What the first bytes of a connection say: which protocol speaks (`http_inspector`), for whom a TLS client
//! asks (`tls_inspector`), and where a proxied connection really comes from (`proxy_protocol`). All are bounded,
//! and answer the same however the bytes were cut.

pub mod client_hello;
pub mod proxy_protocol;

use crate::fields::is_token_byte;

/// RFC 9113 section 3.4: the client connection preface.
pub const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A first line longer than this is not waited for.
pub const SNIFF_BYTES_MAX: usize = 8 * 1024;

/// No method that is in use is longer.
const METHOD_BYTES_MAX: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniffed {
    /// A TLS handshake record that begins with a ClientHello.
    Tls,
    Http1,
    /// With prior knowledge: the preface.
    Http2,
    /// None of these: relay it as it is.
    Opaque,
    /// The bytes so far are the beginning of one of these.
    NeedMore,
}

/// Names the protocol of a connection by its first bytes; no bytes need more. A caller that gives up waiting
/// treats `NeedMore` as `Opaque`, for the server may be the one to speak first.
pub fn sniff(bytes: &[u8]) -> Sniffed {
    match bytes {
        [] => Sniffed::NeedMore,
        [0x16, ..] => sniff_tls(bytes),
        _ if bytes.starts_with(HTTP2_PREFACE) => Sniffed::Http2,
        _ if HTTP2_PREFACE.starts_with(bytes) => Sniffed::NeedMore,
        _ => sniff_http1(bytes),
    }
}

/// RFC 8446 section 5.1: type handshake (22), a version of 3.x, a length; then section 4: client_hello (1).
fn sniff_tls(bytes: &[u8]) -> Sniffed {
    match bytes {
        [0x16] | [0x16, 0x03] => Sniffed::NeedMore,
        [0x16, 0x03, 0..=4] | [0x16, 0x03, 0..=4, _] | [0x16, 0x03, 0..=4, _, _] => Sniffed::NeedMore,
        [0x16, 0x03, 0..=4, _, _, 0x01, ..] => Sniffed::Tls,
        _ => Sniffed::Opaque,
    }
}

/// `method SP target SP HTTP/1.`
fn sniff_http1(bytes: &[u8]) -> Sniffed {
    let more = if bytes.len() < SNIFF_BYTES_MAX { Sniffed::NeedMore } else { Sniffed::Opaque };
    let method = bytes.iter().take(METHOD_BYTES_MAX + 1).take_while(|&&b| is_token_byte(b)).count();
    let Some(rest) = bytes.get(method..).filter(|_| (1..=METHOD_BYTES_MAX).contains(&method)) else {
        return Sniffed::Opaque;
    };
    let target = match rest {
        [] => return more,
        [b' ', target @ ..] => &target[..target.len().min(SNIFF_BYTES_MAX)],
        _ => return Sniffed::Opaque,
    };
    let len = target.iter().take_while(|b| matches!(b, 0x21..=0x7e)).count();
    match &target[len..] {
        [] => more,
        [b' ', version @ ..] if len > 0 => {
            let expected = b"HTTP/1.";
            match version.iter().zip(expected).all(|(a, b)| a == b) {
                true if version.len() >= expected.len() => Sniffed::Http1,
                true => more,
                false => Sniffed::Opaque,
            }
        }
        _ => Sniffed::Opaque,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols() {
        for (bytes, expected) in [
            (&b""[..], Sniffed::NeedMore),
            (b"G", Sniffed::NeedMore),
            (b"GET /a", Sniffed::NeedMore),
            (b"GET /a HTTP/1", Sniffed::NeedMore),
            (b"GET /a HTTP/1.1\r\n", Sniffed::Http1),
            (b"OPTIONS * HTTP/1.0\r\n", Sniffed::Http1),
            (b"M-SEARCH http://a/ HTTP/1.1", Sniffed::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", Sniffed::NeedMore),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00", Sniffed::Http2),
            (b"PRI * HTTP/1.1\r\n", Sniffed::Http1),
            (b"GET /a HTTP/2.0\r\n", Sniffed::Opaque),
            (b"GET  /a HTTP/1.1\r\n", Sniffed::Opaque),
            (b"GET /a\r\n", Sniffed::Opaque),
            (b"SSH-2.0-x\r\n", Sniffed::Opaque),
            (b" GET", Sniffed::Opaque),
            (b"\r\nGET / HTTP/1.1", Sniffed::Opaque),
            (b"*1\r\n$4\r\nPING\r\n", Sniffed::Opaque),
            (b"\x16", Sniffed::NeedMore),
            (b"\x16\x03\x01\x00\x05", Sniffed::NeedMore),
            (b"\x16\x03\x01\x00\x05\x01", Sniffed::Tls),
            (b"\x16\x03\x01\x00\x05\x02", Sniffed::Opaque),
            (b"\x16\x02", Sniffed::Opaque),
            (b"\x00\x00", Sniffed::Opaque),
        ] {
            assert_eq!(sniff(bytes), expected, "{:?}", bytes.escape_ascii().to_string());
        }
    }

    #[test]
    fn waiting_is_bounded() {
        assert_eq!(sniff(&[b'A'; METHOD_BYTES_MAX]), Sniffed::NeedMore);
        assert_eq!(sniff(&[b'A'; METHOD_BYTES_MAX + 1]), Sniffed::Opaque);
        let mut long = b"GET /".to_vec();
        long.resize(SNIFF_BYTES_MAX - 1, b'a');
        assert_eq!(sniff(&long), Sniffed::NeedMore);
        long.push(b'a');
        assert_eq!(sniff(&long), Sniffed::Opaque);
    }

    #[test]
    fn an_answer_once_given_stays() {
        for whole in [
            &b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00",
            b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
            b"SSH-2.0-x\r\n",
        ] {
            let answers: Vec<Sniffed> = (0..=whole.len()).map(|n| sniff(&whole[..n])).collect();
            let decided = answers.iter().position(|&a| a != Sniffed::NeedMore).unwrap();
            assert!(answers[decided..].iter().all(|&a| a == answers[decided]));
        }
    }
}
