//! Heads in and out: what is parsed, what the limits say, what is written.

#![allow(clippy::unwrap_used)]

use corelane_http::{
    BodyFraming, Casing, Connection, HttpError, Known, Limits, Method, Parsed, RequestHead, RequestMeta,
    ResponseHead, ResponseMeta, SliceSink, Version, parse_request, parse_response, write_request,
    write_response,
};

fn request(bytes: &[u8], limits: &Limits) -> (RequestHead, RequestMeta) {
    let mut head = RequestHead::new();
    match parse_request(bytes, limits, &mut head) {
        Ok(Parsed::Complete(meta)) => (head, meta),
        other => panic!("{other:?} {}", bytes.escape_ascii()),
    }
}

fn response(bytes: &[u8], method: Method) -> Result<(ResponseHead, ResponseMeta), HttpError> {
    let mut head = ResponseHead::new();
    match parse_response(bytes, &Limits::default(), method, &mut head)? {
        Parsed::Complete(meta) => Ok((head, meta)),
        Parsed::Partial => panic!("partial {}", bytes.escape_ascii()),
    }
}

fn names(head: &RequestHead) -> Vec<String> {
    head.fields.iter().map(|(n, v)| format!("{}={}", n.escape_ascii(), v.escape_ascii())).collect()
}

#[test]
fn a_request_with_everything() {
    let bytes = b"\r\nPOST http://Payments:8080/charge?id=1 HTTP/1.1\r\nHOST: other\r\nX-One: \t1 \r\nEmpty:\r\n\
        Expect: 100-Continue\r\nConnection: Keep-Alive, Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\
        x-ONE: 2\r\n\r\nhello";
    let (head, meta) = request(bytes, &Limits::default());
    let expected = RequestMeta {
        consumed: bytes.len() - 5,
        framing: BodyFraming::Length(5),
        keep_alive: true,
        upgrade: true,
        expect_continue: true,
    };
    assert_eq!(meta, expected);
    assert_eq!((head.method(), head.version), (Method::Post, Version::H11));
    assert_eq!(head.scheme(), b"http");
    assert_eq!(head.authority(), b"Payments:8080", "RFC 9112 section 3.2.2: Host is ignored");
    assert_eq!(head.path(), b"/charge?id=1");
    assert_eq!(
        names(&head),
        [
            "x-one=1",
            "empty=",
            "expect=100-Continue",
            "connection=Keep-Alive, Upgrade",
            "upgrade=websocket",
            "content-length=5",
            "x-one=2"
        ]
    );
    assert_eq!(head.fields.get(Known::Expect), Some(&b"100-Continue"[..]));
    assert!(!head.fields.contains(Known::Host), "it lives in the authority");
}

#[test]
fn a_head_is_reused_without_traces() {
    let mut head = RequestHead::new();
    let first = b"PURGE /long/path HTTP/1.1\r\nHost: a-long-name\r\nX-Secret: 1\r\n\r\n";
    parse_request(first, &Limits::default(), &mut head).unwrap();
    assert_eq!(head.method_bytes(), b"PURGE");
    parse_request(b"GET / HTTP/1.1\r\nHost: b\r\n\r\n", &Limits::default(), &mut head).unwrap();
    assert_eq!((head.method_bytes(), head.authority(), head.path()), (&b"GET"[..], &b"b"[..], &b"/"[..]));
    assert!(head.fields.is_empty() && head.scheme().is_empty());
}

#[test]
fn expectations() {
    let expects = |version: &str, lines: &str| {
        let bytes = format!("POST / HTTP/{version}\r\nHost: a\r\n{lines}\r\n\r\n");
        request(bytes.as_bytes(), &Limits { accept_http_10: true, ..Limits::default() }).1.expect_continue
    };
    assert!(expects("1.1", "Expect: 100-continue\r\nContent-Length: 1"));
    assert!(expects("1.1", "Expect: 100-continue\r\nTransfer-Encoding: chunked"));
    assert!(!expects("1.0", "Expect: 100-continue\r\nContent-Length: 1"));
    assert!(!expects("1.1", "Expect: 100-continue"));
    assert!(!expects("1.1", "Expect: 100-continue\r\nContent-Length: 0"));
    assert!(!expects("1.1", "Expect: something\r\nContent-Length: 1"));
}

#[test]
fn limits_of_a_head() {
    let parse = |bytes: &[u8], limits: &Limits| parse_request(bytes, limits, &mut RequestHead::new());
    let small = Limits { head_bytes_max: 64, fields_max: 2, ..Limits::default() };
    let with = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "v".repeat(n));
    let room = 64 - with(0).len();
    assert!(matches!(parse(with(room).as_bytes(), &small), Ok(Parsed::Complete(_))));
    assert_eq!(parse(with(room + 1).as_bytes(), &small), Err(HttpError::HeadTooLarge));
    assert_eq!(HttpError::HeadTooLarge.status(), 431);
    let three = b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nY: 2\r\n\r\n";
    assert_eq!(parse(three, &small), Err(HttpError::TooManyFields));
    assert_eq!(parse(&[b"GET /".as_slice(), &[b'a'; 59]].concat(), &small), Err(HttpError::TargetTooLong));
    assert_eq!(HttpError::TargetTooLong.status(), 414);
    assert_eq!(parse(&[b"GET /".as_slice(), &[b'a'; 58]].concat(), &small), Ok(Parsed::Partial));
    assert_eq!(parse(b"GET / HTTP/1.0\r\n\r\n", &small), Err(HttpError::Http10NotAccepted));
    // the default is Envoy's 60 KiB and 100 fields
    let limits = Limits::default();
    let big = with(60 * 1024 - with(0).len());
    assert!(matches!(parse(big.as_bytes(), &limits), Ok(Parsed::Complete(_))));
    assert_eq!(parse(with(60 * 1024).as_bytes(), &limits), Err(HttpError::HeadTooLarge));
    let many = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(n));
    assert!(matches!(parse(many(99).as_bytes(), &limits), Ok(Parsed::Complete(_))));
    assert_eq!(parse(many(100).as_bytes(), &limits), Err(HttpError::TooManyFields));
}

#[test]
fn bodies_of_responses() {
    use BodyFraming::*;
    use HttpError::*;
    let head = |status: u16, lines: &str| format!("HTTP/1.1 {status} X\r\n{lines}\r\n");
    let rows: Vec<(String, Method, Result<BodyFraming, HttpError>)> = vec![
        (head(200, "Content-Length: 5\r\n"), Method::Get, Ok(Length(5))),
        (head(200, "Transfer-Encoding: chunked\r\n"), Method::Get, Ok(Chunked)),
        (head(200, ""), Method::Get, Ok(UntilClose)),
        (head(500, ""), Method::Post, Ok(UntilClose)),
        (head(200, "Content-Length: 5\r\n"), Method::Head, Ok(None)),
        (head(200, "Transfer-Encoding: chunked\r\n"), Method::Head, Ok(None)),
        (head(304, "Content-Length: 5\r\n"), Method::Get, Ok(None)),
        (head(204, ""), Method::Get, Ok(None)),
        (head(204, "Content-Length: 0\r\n"), Method::Get, Ok(None)),
        (head(204, "Content-Length: 5\r\n"), Method::Get, Err(ContentLengthNotAllowed)),
        (head(204, "Transfer-Encoding: chunked\r\n"), Method::Get, Err(TransferEncodingNotAllowed)),
        (head(100, ""), Method::Get, Ok(None)),
        (head(103, "Transfer-Encoding: chunked\r\n"), Method::Get, Err(TransferEncodingNotAllowed)),
        (head(101, "Upgrade: x\r\n"), Method::Get, Ok(None)),
        (head(200, "Content-Length: 5\r\nTransfer-Encoding: gzip\r\n"), Method::Connect, Ok(None)),
        (head(403, "Content-Length: 5\r\n"), Method::Connect, Ok(Length(5))),
        (
            head(200, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
            Method::Get,
            Err(LengthAndTransferEncoding),
        ),
        (head(200, "Content-Length: 5\r\nContent-Length: 5\r\n"), Method::Get, Err(DuplicateContentLength)),
        (head(200, "Content-Length: 5,5\r\n"), Method::Get, Err(InvalidContentLength)),
        (head(200, "Content-Length: x\r\n"), Method::Head, Err(InvalidContentLength)),
        (head(200, "Transfer-Encoding: gzip\r\n"), Method::Get, Err(InvalidTransferEncoding)),
        (head(200, "Transfer-Encoding: gzip, chunked\r\n"), Method::Get, Err(UnsupportedTransferEncoding)),
        (
            "HTTP/1.0 200 X\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            Method::Get,
            Err(TransferEncodingNotAllowed),
        ),
        ("HTTP/1.1 200\r\nContent-Length: 5\r\n\r\n".into(), Method::Get, Ok(Length(5))),
        ("HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\n".into(), Method::Get, Ok(Length(5))),
        ("HTTP/1.1 099 X\r\n\r\n".into(), Method::Get, Err(StatusLine)),
        ("HTTP/1.1 20 X\r\n\r\n".into(), Method::Get, Err(StatusLine)),
        ("HTTP/1.1 2000 X\r\n\r\n".into(), Method::Get, Err(StatusLine)),
        ("HTTP/1.1  200 X\r\n\r\n".into(), Method::Get, Err(StatusLine)),
        ("HTTP/2.0 200 X\r\n\r\n".into(), Method::Get, Err(Version)),
        ("ICY 200 OK\r\n\r\n".into(), Method::Get, Err(Version)),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n".into(), Method::Get, Err(StatusLine)),
        ("HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\n".into(), Method::Get, Err(BareLf)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\n\r\n".into(), Method::Get, Err(BareLf)),
        ("HTTP/1.1 200 OK\r\nA : 5\r\n\r\n".into(), Method::Get, Err(SpaceBeforeColon)),
        ("HTTP/1.1 200 OK\r\nA: 5\r\n b\r\n\r\n".into(), Method::Get, Err(ObsFold)),
    ];
    for (bytes, method, expected) in rows {
        assert_eq!(
            response(bytes.as_bytes(), method).map(|(_, m)| m.framing),
            expected,
            "{method:?} {bytes:?}"
        );
    }
}

#[test]
fn facts_of_responses() {
    let facts = |bytes: &str, method| {
        let (head, meta) = response(bytes.as_bytes(), method).unwrap();
        (
            head.status,
            String::from_utf8_lossy(head.reason()).into_owned(),
            meta.keep_alive,
            meta.tunnel,
            meta.interim,
        )
    };
    let fact =
        |status, reason: &str, keep, tunnel, interim| (status, reason.to_string(), keep, tunnel, interim);
    let get = Method::Get;
    assert_eq!(
        facts("HTTP/1.1 404 Not Here\r\nContent-Length: 0\r\n\r\n", get),
        fact(404, "Not Here", true, false, false)
    );
    assert_eq!(facts("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", get), fact(200, "", true, false, false));
    assert_eq!(facts("HTTP/1.1 200 OK\r\n\r\n", get), fact(200, "OK", false, false, false));
    assert_eq!(
        facts("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", get),
        fact(200, "OK", false, false, false)
    );
    assert_eq!(
        facts("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", get),
        fact(200, "OK", false, false, false)
    );
    assert_eq!(
        facts("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", get),
        fact(200, "OK", true, false, false)
    );
    assert_eq!(facts("HTTP/1.1 100 Continue\r\n\r\n", get), fact(100, "Continue", true, false, true));
    assert_eq!(facts("HTTP/1.1 101 Switch\r\n\r\n", get), fact(101, "Switch", false, true, false));
    assert_eq!(facts("HTTP/1.1 200 OK\r\n\r\n", Method::Connect), fact(200, "OK", false, true, false));
    assert_eq!(facts("HTTP/1.1 999 \r\nContent-Length: 0\r\n\r\n", get), fact(999, "", true, false, false));
}

fn written(head: &RequestHead, framing: BodyFraming, connection: Connection, casing: Casing) -> String {
    let mut out = Vec::new();
    write_request(head, framing, connection, casing, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn requests_are_written() {
    let bytes = b"GET /a HTTP/1.1\r\nX-Custom-ID: 1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
        Upgrade: websocket\r\nContent-Length: 7\r\nKeep-Alive: 5\r\nTE: trailers\r\nContent-MD5:   x\r\n\r\n";
    let (mut head, _) = request(bytes, &Limits { preserve_case: true, ..Limits::default() });
    head.fields.append(b"X-Added-b3", b"2").unwrap();
    assert_eq!(
        written(&head, BodyFraming::None, Connection::KeepAlive, Casing::Lower),
        "GET /a HTTP/1.1\r\nhost: a\r\nx-custom-id: 1\r\nte: trailers\r\ncontent-md5: x\r\nx-added-b3: 2\r\n\r\n"
    );
    assert_eq!(
        written(&head, BodyFraming::Length(7), Connection::Upgrade, Casing::Preserve),
        "GET /a HTTP/1.1\r\nHost: a\r\nX-Custom-ID: 1\r\nTE: trailers\r\nContent-MD5: x\r\nx-added-b3: 2\r\n\
         Content-Length: 7\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    );
    // what did not come is written as Envoy writes what it adds
    let preserved = written(&head, BodyFraming::Chunked, Connection::KeepAlive, Casing::Preserve);
    assert!(preserved.ends_with("\r\ntransfer-encoding: chunked\r\n\r\n"), "{preserved}");
    assert_eq!(
        written(&head, BodyFraming::Chunked, Connection::Close, Casing::Proper),
        "GET /a HTTP/1.1\r\nHost: a\r\nX-Custom-Id: 1\r\nTe: trailers\r\nContent-Md5: x\r\nX-Added-B3: 2\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    );
    head.set_method(b"CONNECT").unwrap();
    head.set_authority(b"b:443").unwrap();
    assert!(
        written(&head, BodyFraming::None, Connection::KeepAlive, Casing::Lower)
            .starts_with("CONNECT b:443 HTTP/1.1\r\nhost: b:443\r\n")
    );
}

#[test]
fn a_request_without_authority_is_not_written() {
    let limits = Limits { accept_http_10: true, ..Limits::default() };
    let (head, _) = request(b"GET / HTTP/1.0\r\n\r\n", &limits);
    let result =
        write_request(&head, BodyFraming::None, Connection::KeepAlive, Casing::Lower, &mut Vec::new());
    assert_eq!(result, Err(HttpError::MissingHost));
}

#[test]
fn responses_are_written() {
    let write = |status: u16, version, framing, connection| {
        let mut head = ResponseHead::new();
        head.status = status;
        head.fields.append(b"Content-Length", b"9").unwrap();
        head.fields.append(b"Transfer-Encoding", b"gzip").unwrap();
        head.fields.append(b"x-a", b"evil\r\nset-cookie: b").unwrap();
        let mut out = Vec::new();
        write_response(&head, version, framing, connection, Casing::Lower, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let a = "x-a: evil  set-cookie: b\r\n";
    let (keep, close) = (Connection::KeepAlive, Connection::Close);
    let (h10, h11) = (Version::H10, Version::H11);
    for (got, expected) in [
        (
            write(200, h11, BodyFraming::Length(5), keep),
            format!("HTTP/1.1 200 OK\r\n{a}content-length: 5\r\n\r\n"),
        ),
        (
            write(404, h11, BodyFraming::Chunked, close),
            format!("HTTP/1.1 404 Not Found\r\n{a}transfer-encoding: chunked\r\nconnection: close\r\n\r\n"),
        ),
        (
            write(200, h10, BodyFraming::UntilClose, close),
            format!("HTTP/1.0 200 OK\r\n{a}connection: close\r\n\r\n"),
        ),
        (
            write(200, h10, BodyFraming::Length(5), keep),
            format!("HTTP/1.0 200 OK\r\n{a}content-length: 5\r\nconnection: keep-alive\r\n\r\n"),
        ),
        // HEAD and 304 keep what they announce
        (
            write(200, h11, BodyFraming::None, keep),
            format!("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n{a}\r\n"),
        ),
        (
            write(304, h11, BodyFraming::None, keep),
            format!("HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n{a}\r\n"),
        ),
        // 1xx and 204 have none
        (write(204, h11, BodyFraming::None, keep), format!("HTTP/1.1 204 No Content\r\n{a}\r\n")),
        (write(204, h11, BodyFraming::Length(0), keep), format!("HTTP/1.1 204 No Content\r\n{a}\r\n")),
        (write(103, h11, BodyFraming::None, keep), format!("HTTP/1.1 103 Early Hints\r\n{a}\r\n")),
        (
            write(599, h11, BodyFraming::Length(0), keep),
            format!("HTTP/1.1 599 Unknown\r\n{a}content-length: 0\r\n\r\n"),
        ),
    ] {
        assert_eq!(got, expected);
    }
}

#[test]
fn a_full_buffer_is_said_at_every_size() {
    let bytes = b"GET /path HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nAccept:  */*\r\nContent-Length: 3\r\n\r\n";
    let (head, meta) = request(bytes, &Limits::default());
    let whole = written(&head, meta.framing, Connection::Close, Casing::Lower);
    for size in 0..=whole.len() {
        let mut buffer = vec![0; size];
        let mut out = SliceSink::new(&mut buffer);
        let result = write_request(&head, meta.framing, Connection::Close, Casing::Lower, &mut out);
        let expected = if size < whole.len() { Err(HttpError::OutputFull) } else { Ok(()) };
        assert_eq!(result, expected, "{size}");
        let filled = out.filled();
        assert!(whole.as_bytes().starts_with(&buffer[..filled]));
    }
}

#[test]
fn every_split_of_every_message_gives_the_same_head() {
    let messages: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: a\r\nX:  y \r\n\r\nrest",
        b"\r\nPOST http://b/c?d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: [::1]\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ];
    for bytes in messages {
        let (expected, meta) = request(bytes, &Limits::default());
        let mut head = RequestHead::new();
        for end in 0..=bytes.len() {
            let got = parse_request(&bytes[..end], &Limits::default(), &mut head).unwrap();
            assert_eq!(got, if end < meta.consumed { Parsed::Partial } else { Parsed::Complete(meta) });
        }
        assert_eq!((names(&head), head.path()), (names(&expected), expected.path()));
    }
}

#[test]
fn pipelined_requests_follow_each_other() {
    let bytes = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /3 HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut rest = &bytes[..];
    let mut paths = Vec::new();
    while !rest.is_empty() {
        let (head, meta) = request(rest, &Limits::default());
        paths.push(String::from_utf8_lossy(head.path()).into_owned());
        let body = if let BodyFraming::Length(n) = meta.framing { n as usize } else { 0 };
        rest = &rest[meta.consumed + body..];
    }
    assert_eq!(paths, ["/1", "/2", "/3"]);
}
