//! HTTP/1.1 heads: just enough of them to count a response rightly and to answer a request.

use crate::framing::{Framing, Malformed};

/// Largest head either side accepts, in bytes.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 128;

#[derive(Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// Bytes up to and including the empty line.
    pub bytes: usize,
    pub status: u16,
    pub framing: Framing,
    pub keep_alive: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct RequestHead {
    pub bytes: usize,
    pub head_method: bool,
    pub framing: Framing,
    pub keep_alive: bool,
    pub expects_continue: bool,
}

/// `None` until the head is whole.
pub fn response(bytes: &[u8], to_head_request: bool) -> Result<Option<ResponseHead>, Malformed> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut headers);
    let size = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) => return partial(bytes),
        Err(_) => return Err(Malformed("response head")),
    };
    let status = parsed.code.unwrap_or(0);
    let fields = Fields::read(parsed.headers)?;
    // RFC 9112 6.3: 1xx, 204, 304 and answers to HEAD end with their head
    let bodiless = to_head_request || matches!(status, 100..=199 | 204 | 304);
    let framing = match (bodiless, fields.chunked, fields.length) {
        (true, _, _) => Framing::Length(0),
        (false, true, _) => Framing::Chunked,
        (false, false, Some(length)) => Framing::Length(length),
        (false, false, None) => Framing::UntilClose,
    };
    let keep_alive = fields.keep_alive(parsed.version) && framing != Framing::UntilClose;
    Ok(Some(ResponseHead { bytes: size, status, framing, keep_alive }))
}

/// `None` until the head is whole.
pub fn request(bytes: &[u8]) -> Result<Option<RequestHead>, Malformed> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let size = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) => return partial(bytes),
        Err(_) => return Err(Malformed("request head")),
    };
    let fields = Fields::read(parsed.headers)?;
    if fields.chunked && fields.length.is_some() {
        return Err(Malformed("both transfer-encoding and content-length"));
    }
    Ok(Some(RequestHead {
        bytes: size,
        head_method: parsed.method == Some("HEAD"),
        framing: if fields.chunked { Framing::Chunked } else { Framing::Length(fields.length.unwrap_or(0)) },
        keep_alive: fields.keep_alive(parsed.version),
        expects_continue: fields.expects_continue,
    }))
}

fn partial<T>(bytes: &[u8]) -> Result<Option<T>, Malformed> {
    if bytes.len() > HEAD_BYTES_MAX { Err(Malformed("head too large")) } else { Ok(None) }
}

#[derive(Default)]
struct Fields {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    explicit_keep_alive: bool,
    expects_continue: bool,
}

impl Fields {
    fn read(headers: &[httparse::Header<'_>]) -> Result<Self, Malformed> {
        let mut fields = Fields::default();
        for header in headers {
            let value = header.value.trim_ascii();
            if header.name.eq_ignore_ascii_case("content-length") {
                let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                let length = length.ok_or(Malformed("content-length"))?;
                if fields.length.is_some_and(|earlier| earlier != length) {
                    return Err(Malformed("two different content-lengths"));
                }
                fields.length = Some(length);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                fields.chunked =
                    value.len() >= 7 && value[value.len() - 7..].eq_ignore_ascii_case(b"chunked");
            } else if header.name.eq_ignore_ascii_case("connection") {
                for token in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                    fields.close |= token.eq_ignore_ascii_case(b"close");
                    fields.explicit_keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            } else if header.name.eq_ignore_ascii_case("expect") {
                fields.expects_continue = value.eq_ignore_ascii_case(b"100-continue");
            }
        }
        Ok(fields)
    }

    fn keep_alive(&self, minor_version: Option<u8>) -> bool {
        !self.close && (minor_version == Some(1) || self.explicit_keep_alive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_framing_follows_rfc_9112() {
        let read = |text: &str, head| response(text.as_bytes(), head).unwrap().unwrap();
        let plain = read("HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n", false);
        assert_eq!((plain.status, plain.framing, plain.keep_alive), (200, Framing::Length(12), true));
        assert_eq!(read("HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n", true).framing, Framing::Length(0));
        assert_eq!(read("HTTP/1.1 204 x\r\n\r\n", false).framing, Framing::Length(0));
        assert_eq!(
            read("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", false).framing,
            Framing::Chunked
        );
        let until_close = read("HTTP/1.1 200 OK\r\n\r\n", false);
        assert_eq!((until_close.framing, until_close.keep_alive), (Framing::UntilClose, false));
        assert!(!read("HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 0\r\n\r\n", false).keep_alive);
        assert!(!read("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", false).keep_alive);
    }

    #[test]
    fn requests_are_whole_or_awaited_or_refused() {
        let whole = b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc";
        for cut in 0..whole.len() - 3 {
            assert_eq!(request(&whole[..cut]), Ok(None), "cut at {cut}");
        }
        let head = request(whole).unwrap().unwrap();
        assert_eq!((head.bytes, head.framing), (whole.len() - 3, Framing::Length(3)));
        assert!(head.expects_continue && head.keep_alive && !head.head_method);
        assert!(request(b"GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n").is_err());
        assert!(
            request(b"GET / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n").is_err()
        );
        assert!(request(&vec![b'a'; HEAD_BYTES_MAX + 1]).is_err());
    }
}
