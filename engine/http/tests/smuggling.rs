//! Request smuggling and splitting: what two implementations could frame differently must be refused, with the
//! status and detail that operators will count. One row a case.

#![allow(clippy::unwrap_used)]

use corelane_http::{BodyFraming, HttpError, Limits, Parsed, RequestHead, parse_request};

#[derive(Debug, PartialEq)]
enum Verdict {
    Framed(BodyFraming),
    Refused(HttpError, u16),
}

fn verdict(bytes: &[u8]) -> Verdict {
    let limits = Limits { accept_http_10: true, ..Limits::default() };
    let mut head = RequestHead::new();
    let whole = parse_request(bytes, &limits, &mut head);
    for end in 0..bytes.len() {
        let prefix = parse_request(&bytes[..end], &limits, &mut head);
        assert!(
            prefix == Ok(Parsed::Partial) || prefix == whole,
            "{prefix:?} at {end} of {}",
            bytes.escape_ascii()
        );
    }
    match whole {
        Ok(Parsed::Complete(meta)) => Verdict::Framed(meta.framing),
        Ok(Parsed::Partial) => panic!("partial: {}", bytes.escape_ascii()),
        Err(error) => Verdict::Refused(error, error.status()),
    }
}

fn none() -> Verdict {
    Verdict::Framed(BodyFraming::None)
}
fn length(n: u64) -> Verdict {
    Verdict::Framed(BodyFraming::Length(n))
}
fn chunked() -> Verdict {
    Verdict::Framed(BodyFraming::Chunked)
}
fn no(error: HttpError) -> Verdict {
    Verdict::Refused(error, 400)
}

/// A POST with these further lines.
fn post(lines: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n").into_bytes()
}

#[test]
fn body_lengths() {
    use HttpError::*;
    let rows: Vec<(&str, Verdict)> = vec![
        // RFC 9112 section 6.3: neither field
        ("X: y", none()),
        ("Content-Length: 0", length(0)),
        ("Content-Length: 5", length(5)),
        ("CONTENT-LENGTH:5", length(5)),
        ("Content-Length: \t 5 \t", length(5)),
        ("Content-Length: 0005", length(5)),
        ("Content-Length: 9223372036854775807", length(i64::MAX as u64)),
        // RFC 9110 section 8.6: Content-Length = 1*DIGIT
        ("Content-Length:", no(InvalidContentLength)),
        ("Content-Length: +5", no(InvalidContentLength)),
        ("Content-Length: -5", no(InvalidContentLength)),
        ("Content-Length: 5 6", no(InvalidContentLength)),
        ("Content-Length: 5,5", no(InvalidContentLength)),
        ("Content-Length: 5, 6", no(InvalidContentLength)),
        ("Content-Length: 0x5", no(InvalidContentLength)),
        ("Content-Length: 5a", no(InvalidContentLength)),
        ("Content-Length: 5.0", no(InvalidContentLength)),
        ("Content-Length: \"5\"", no(InvalidContentLength)),
        ("Content-Length: 9223372036854775808", no(InvalidContentLength)),
        ("Content-Length: 18446744073709551621", no(InvalidContentLength)),
        ("Content-Length: 99999999999999999999999", no(InvalidContentLength)),
        ("Content-Length: \u{b2}", no(InvalidContentLength)),
        ("Content-Length: 5;a", no(InvalidContentLength)),
        ("Content-Length: 5\r\nContent-Length: 6", no(DuplicateContentLength)),
        ("Content-Length: 5\r\nContent-Length: 5", no(DuplicateContentLength)),
        ("Content-Length: 5\r\nX: y\r\ncontent-length: 0", no(DuplicateContentLength)),
        // a look-alike is another field
        ("Content_Length: 5", none()),
        ("Content-Length-X: 5", none()),
        // RFC 9112 section 6.1
        ("Transfer-Encoding: chunked", chunked()),
        ("transfer-encoding:CHUNKED", chunked()),
        ("Transfer-Encoding: \tchunked\t ", chunked()),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", no(LengthAndTransferEncoding)),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", no(LengthAndTransferEncoding)),
        ("Content-Length: 0\r\nTransfer-Encoding: chunked", no(LengthAndTransferEncoding)),
        ("Content-Length: x\r\nTransfer-Encoding: chunked", no(InvalidContentLength)),
        ("Content-Length: 5\r\nTransfer-Encoding: x", no(InvalidTransferEncoding)),
        ("Transfer-Encoding:", no(InvalidTransferEncoding)),
        ("Transfer-Encoding: identity", no(InvalidTransferEncoding)),
        ("Transfer-Encoding: gzip", no(InvalidTransferEncoding)),
        ("Transfer-Encoding: xchunked", no(InvalidTransferEncoding)),
        ("Transfer-Encoding: chunkedx", no(InvalidTransferEncoding)),
        ("Transfer-Encoding: chunked;q=1", no(InvalidTransferEncoding)),
        ("Transfer-Encoding: \"chunked\"", no(InvalidTransferEncoding)),
        ("Transfer-Encoding: chunked, gzip", no(InvalidTransferEncoding)),
        ("Transfer-Encoding: chunked, chunked", no(InvalidTransferEncoding)),
        ("Transfer-Encoding: chunked,", no(InvalidTransferEncoding)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", no(InvalidTransferEncoding)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", no(InvalidTransferEncoding)),
        ("Transfer-Encoding: \u{b}chunked", no(InvalidFieldValue)),
        ("Transfer-Encoding: chu nked", no(InvalidTransferEncoding)),
        ("Transfer_Encoding: chunked", none()),
        ("Transfer-Encoding: gzip, chunked", Verdict::Refused(UnsupportedTransferEncoding, 501)),
        (
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
            Verdict::Refused(UnsupportedTransferEncoding, 501),
        ),
        ("Transfer-Encoding: ,chunked", Verdict::Refused(UnsupportedTransferEncoding, 501)),
    ];
    for (lines, expected) in rows {
        assert_eq!(verdict(&post(lines)), expected, "{lines:?}");
    }
}

#[test]
fn lines_and_names() {
    use HttpError::*;
    let rows: Vec<(&str, Verdict)> = vec![
        // RFC 9112 section 5.1: "No whitespace is allowed between the field name and colon."
        ("Transfer-Encoding : chunked", no(SpaceBeforeColon)),
        ("Transfer-Encoding\t: chunked", no(SpaceBeforeColon)),
        ("Content-Length : 5", no(SpaceBeforeColon)),
        (" Transfer-Encoding: chunked", no(ObsFold)),
        // RFC 9112 section 5.2: obs-fold
        ("X: a\r\n Content-Length: 5", no(ObsFold)),
        ("X: a\r\n\tb", no(ObsFold)),
        ("Transfer-Encoding:\r\n chunked", no(ObsFold)),
        // RFC 9112 section 2.2: bare CR and bare LF
        ("X: a\rContent-Length: 5", no(BareCr)),
        ("X: a\r\rY: b", no(BareCr)),
        ("X: a\nContent-Length: 5", no(BareLf)),
        ("X: a\n\r\nGET /evil HTTP/1.1", no(BareLf)),
        ("X:\nContent-Length: 5", no(BareLf)),
        ("X: \t\nY: b", no(BareLf)),
        // RFC 9110 section 5.5: CR, LF and NUL are dangerous; other controls invalid
        ("X: a\0b", no(InvalidFieldValue)),
        ("X: a\u{1}b", no(InvalidFieldValue)),
        ("X: a\u{7f}b", no(InvalidFieldValue)),
        ("X: a\tb", none()),
        // RFC 9110 section 5.1: names are tokens
        ("X\0: a", no(InvalidFieldName)),
        (": a", no(InvalidFieldName)),
        ("X", no(InvalidFieldName)),
        ("X(a): b", no(InvalidFieldName)),
        ("Content-Length\u{e9}: 5", no(InvalidFieldName)),
        ("X\"Y: 5", no(InvalidFieldName)),
        ("Content-Length;x: 5", no(InvalidFieldName)),
    ];
    for (lines, expected) in rows {
        assert_eq!(verdict(&post(lines)), expected, "{lines:?}");
    }
}

#[test]
fn request_lines_and_hosts() {
    use HttpError::*;
    let host = "Host: a\r\n\r\n";
    let rows: Vec<(String, Verdict)> = vec![
        (format!("GET / HTTP/1.1\r\n{host}"), none()),
        (format!("\r\nGET / HTTP/1.1\r\n{host}"), none()),
        (format!("\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n{host}"), none()),
        (format!("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n{host}"), no(LeadingEmptyLines)),
        (format!("\nGET / HTTP/1.1\r\n{host}"), no(BareLf)),
        (format!("\rGET / HTTP/1.1\r\n{host}"), no(BareCr)),
        (format!("GET / HTTP/1.1\n{host}"), no(BareLf)),
        (format!("GET / HTTP/1.1\rX\n{host}"), no(BareCr)),
        (format!(" GET / HTTP/1.1\r\n{host}"), no(RequestLine)),
        (format!("GET  / HTTP/1.1\r\n{host}"), no(RequestLine)),
        (format!("GET /  HTTP/1.1\r\n{host}"), no(RequestLine)),
        (format!("GET\t/\tHTTP/1.1\r\n{host}"), no(RequestLine)),
        (format!("GET / HTTP/1.1 \r\n{host}"), no(RequestLine)),
        (format!("GET / x HTTP/1.1\r\n{host}"), no(RequestLine)),
        (format!("GET /\r\n{host}"), no(RequestLine)),
        (format!("GET / HTTPS/1.1\r\n{host}"), no(RequestLine)),
        (format!("GET / http/1.1\r\n{host}"), no(RequestLine)),
        (format!("GET / HTTP/1.11\r\n{host}"), no(RequestLine)),
        (format!("G(T / HTTP/1.1\r\n{host}"), no(RequestLine)),
        (format!("G\0T / HTTP/1.1\r\n{host}"), no(RequestLine)),
        (format!("GET / HTTP/1.2\r\n{host}"), Verdict::Refused(Version, 505)),
        (format!("GET / HTTP/2.0\r\n{host}"), Verdict::Refused(Version, 505)),
        (format!("GET / HTTP/0.9\r\n{host}"), Verdict::Refused(Version, 505)),
        (format!("GET /\u{e9} HTTP/1.1\r\n{host}"), no(InvalidTarget)),
        (format!("GET /\0 HTTP/1.1\r\n{host}"), no(RequestLine)),
        (format!("GET /\u{7f} HTTP/1.1\r\n{host}"), no(RequestLine)),
        (format!("GET * HTTP/1.1\r\n{host}"), no(InvalidTarget)),
        (format!("GET a/b HTTP/1.1\r\n{host}"), no(InvalidTarget)),
        (format!("GET ftp://a/ HTTP/1.1\r\n{host}"), no(InvalidTarget)),
        (format!("GET http://u@a/ HTTP/1.1\r\n{host}"), no(InvalidHost)),
        (format!("GET http:// HTTP/1.1\r\n{host}"), no(InvalidHost)),
        (format!("GET http://b/ HTTP/1.1\r\n{host}"), none()),
        (format!("CONNECT a HTTP/1.1\r\n{host}"), no(InvalidTarget)),
        (format!("CONNECT /a HTTP/1.1\r\n{host}"), no(InvalidTarget)),
        (format!("CONNECT a:443 HTTP/1.1\r\n{host}"), none()),
        (
            format!("CONNECT a:443 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n{host}"),
            no(TransferEncodingNotAllowed),
        ),
        (format!("CONNECT a:443 HTTP/1.1\r\nContent-Length: 5\r\n{host}"), no(ContentLengthNotAllowed)),
        // RFC 9112 section 3.2: exactly one valid Host
        ("GET / HTTP/1.1\r\n\r\n".into(), no(MissingHost)),
        ("GET http://b/ HTTP/1.1\r\n\r\n".into(), no(MissingHost)),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{host}"), no(DuplicateHost)),
        (format!("GET / HTTP/1.1\r\nhOST: b\r\n{host}"), no(DuplicateHost)),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n".into(), no(InvalidHost)),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(), no(InvalidHost)),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".into(), no(InvalidHost)),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into(), no(InvalidHost)),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n".into(), no(InvalidHost)),
        ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n".into(), no(InvalidHost)),
        ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n".into(), no(InvalidHost)),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n".into(), no(InvalidHost)),
        ("GET / HTTP/1.1\r\nHost: \u{e9}\r\n\r\n".into(), no(InvalidHost)),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".into(), no(SpaceBeforeColon)),
        // RFC 9112 section 6.1: no transfer coding in HTTP/1.0
        ("GET / HTTP/1.0\r\n\r\n".into(), none()),
        ("POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\n".into(), length(5)),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), no(TransferEncodingNotAllowed)),
        (
            "POST / HTTP/1.0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            no(TransferEncodingNotAllowed),
        ),
    ];
    for (bytes, expected) in rows {
        assert_eq!(verdict(bytes.as_bytes()), expected, "{bytes:?}");
    }
}

#[test]
fn every_error_has_its_own_detail_and_a_status() {
    use HttpError::*;
    let all = [
        RequestLine,
        StatusLine,
        InvalidMethod,
        InvalidTarget,
        Version,
        Http10NotAccepted,
        InvalidFieldName,
        SpaceBeforeColon,
        ObsFold,
        InvalidFieldValue,
        BareLf,
        BareCr,
        LeadingEmptyLines,
        HeadTooLarge,
        TargetTooLong,
        TooManyFields,
        MissingHost,
        DuplicateHost,
        InvalidHost,
        InvalidContentLength,
        DuplicateContentLength,
        LengthAndTransferEncoding,
        InvalidTransferEncoding,
        UnsupportedTransferEncoding,
        TransferEncodingNotAllowed,
        ContentLengthNotAllowed,
        InvalidChunkSize,
        ChunkLineTooLong,
        InvalidChunkExtension,
        InvalidChunkEnd,
        TrailersTooLarge,
        ForbiddenTrailer,
        Incomplete,
        BodyTooLong,
        OutputFull,
        PathNotNormalizable,
        EscapedSlash,
        PathFragment,
        ClientHello,
        ClientHelloTooLarge,
        ProxyHeader,
        ProxyHeaderTooLarge,
    ];
    let mut details: Vec<&str> = all.iter().map(|e| e.detail()).collect();
    details.sort_unstable();
    details.dedup();
    assert_eq!(details.len(), all.len());
    let is_plain =
        |d: &str| d.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._".contains(&b));
    assert!(details.iter().all(|d| is_plain(d)));
    assert!(all.iter().all(|e| (400..=505).contains(&e.status())));
}
