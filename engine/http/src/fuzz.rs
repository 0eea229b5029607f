//! What must hold for any input whatever. The fuzzer (`fuzz/`) and `tests/corpus.rs` call the same functions;
//! a broken invariant is a panic. `TARGETS` is the list of both.

use crate::{
    BodyDecoder, BodyEncoder, BodyFraming, BodyLimits, Casing, Connection, Fields, HttpError, Known, Limits,
    Method, Parsed, RequestHead, RequestMeta, ResponseHead, ResponseMeta, Version,
    h1::write::is_framing,
    parse_request, parse_response,
    rules::{
        forwarded::{ForwardedRules, Peer, apply_forwarded_rules},
        hop_by_hop::remove_hop_by_hop,
        host::{HostRules, apply_host_rules},
        path::{EscapedSlashes, PathRules, apply_path_rules},
    },
    sniff::{Sniffed, client_hello, proxy_protocol, sniff},
    write_request, write_response,
};

/// Takes any input and panics if an invariant does not hold for it.
pub type Target = fn(&[u8]);

/// Name of the target, which is the name of its corpus folder, and its function.
pub const TARGETS: &[(&str, Target)] = &[
    ("request_head", request_head),
    ("response_head", response_head),
    ("chunked_body", chunked_body),
    ("path_rules", path_rules),
    ("request_rules", request_rules),
    ("client_hello", client_hello),
    ("proxy_header", proxy_header),
    ("first_bytes", first_bytes),
];

/// Inputs up to this size are cut at every byte, longer ones at a few places.
const EVERY_SPLIT_BYTES_MAX: usize = 300;

fn splits(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let step = 1 + data.len() / EVERY_SPLIT_BYTES_MAX;
    (0..data.len()).step_by(step).map(|end| &data[..end])
}

const LIMITS: Limits =
    Limits { head_bytes_max: 8192, fields_max: 50, accept_http_10: true, preserve_case: true };

/// (name, value) of what every hop must see alike.
fn end_to_end(fields: &Fields) -> Vec<(Vec<u8>, Vec<u8>)> {
    let kept = fields.iter_known().filter(|(known, _, _)| !known.is_hop_by_hop() && !is_framing(*known));
    kept.map(|(_, name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// A prefix may be an error or a head only if the whole is the same error or the same head.
fn agree<M: PartialEq + std::fmt::Debug>(
    prefix: Result<Parsed<M>, HttpError>,
    whole: &Result<Parsed<M>, HttpError>,
) {
    if prefix != Ok(Parsed::Partial) {
        assert_eq!(&prefix, whole, "a prefix was judged otherwise than the whole");
    }
}

pub fn request_head(data: &[u8]) {
    let mut head = RequestHead::new();
    let whole = parse_request(data, &LIMITS, &mut head);
    let mut again = RequestHead::new();
    for prefix in splits(data) {
        agree(parse_request(prefix, &LIMITS, &mut again), &whole);
    }
    let Ok(Parsed::Complete(meta)) = whole else { return };
    assert!(meta.consumed <= data.len());
    assert_eq!(parse_request(&data[..meta.consumed - 1], &LIMITS, &mut again), Ok(Parsed::Partial));
    for casing in [Casing::Lower, Casing::Proper, Casing::Preserve] {
        assert_request_survives(&head, &meta, casing);
    }
}

/// What we write is what we read: no peer sees another message than the rules did.
fn assert_request_survives(head: &RequestHead, meta: &RequestMeta, casing: Casing) {
    let mut wire = Vec::new();
    let connection = if meta.upgrade { Connection::Upgrade } else { Connection::Close };
    let written = write_request(head, meta.framing, connection, casing, &mut wire);
    if head.authority().is_empty() {
        assert_eq!(written, Err(HttpError::MissingHost));
        return;
    }
    assert_eq!(written, Ok(()));
    let mut again = RequestHead::new();
    let limits = Limits { head_bytes_max: usize::MAX, fields_max: 200, ..LIMITS };
    let Ok(Parsed::Complete(second)) = parse_request(&wire, &limits, &mut again) else {
        panic!("our own request is refused: {}", wire.escape_ascii());
    };
    assert_eq!(second.consumed, wire.len());
    // no content may be said or left unsaid
    let bare = |framing| if framing == BodyFraming::Length(0) { BodyFraming::None } else { framing };
    assert_eq!((bare(second.framing), second.upgrade), (bare(meta.framing), meta.upgrade));
    assert_eq!(again.method_bytes(), head.method_bytes());
    assert_eq!(again.authority(), head.authority());
    assert_eq!(again.path(), head.path());
    assert_eq!(end_to_end(&again.fields), end_to_end(&head.fields));
}

/// The first byte chooses the method of the request.
pub fn response_head(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let method = [Method::Get, Method::Head, Method::Connect, Method::Post][usize::from(choice) % 4];
    let mut head = ResponseHead::new();
    let whole = parse_response(data, &LIMITS, method, &mut head);
    let mut again = ResponseHead::new();
    for prefix in splits(data) {
        agree(parse_response(prefix, &LIMITS, method, &mut again), &whole);
    }
    let Ok(Parsed::Complete(meta)) = whole else { return };
    assert!(meta.consumed <= data.len());
    let mut wire = Vec::new();
    let connection = if meta.tunnel { Connection::Upgrade } else { Connection::KeepAlive };
    let written = write_response(&head, Version::H11, meta.framing, connection, Casing::Lower, &mut wire);
    assert_eq!(written, Ok(()));
    let limits = Limits { head_bytes_max: usize::MAX, fields_max: 200, ..LIMITS };
    let Ok(Parsed::Complete(second)) = parse_response(&wire, &limits, method, &mut again) else {
        panic!("our own response is refused: {}", wire.escape_ascii());
    };
    let facts = |m: &ResponseMeta| (m.framing, m.tunnel, m.interim);
    assert_eq!((second.consumed, facts(&second)), (wire.len(), facts(&meta)));
    assert_eq!((again.status, end_to_end(&again.fields)), (head.status, end_to_end(&head.fields)));
}

/// Data, trailers, bytes used, and whether it is done, of a body fed in pieces of `step` bytes.
type Body = (Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>, usize, bool);

const BODY_LIMITS: BodyLimits =
    BodyLimits { chunk_line_bytes_max: 64, trailer_bytes_max: 256, trailer_fields_max: 8 };

fn decode(input: &[u8], step: usize, limits: BodyLimits) -> Result<Body, HttpError> {
    let mut decoder = BodyDecoder::new(BodyFraming::Chunked, limits);
    let mut trailers = Fields::new();
    let (mut data, mut used) = (Vec::new(), 0);
    while used < input.len() && !decoder.is_done() {
        let piece = &input[used..input.len().min(used + step)];
        let decoded = decoder.decode(piece, &mut trailers)?;
        assert!(decoded.consumed > 0 && decoded.consumed <= piece.len(), "no progress");
        data.extend_from_slice(&piece[decoded.data]);
        used += decoded.consumed;
    }
    Ok((data, end_to_end(&trailers), used, decoder.is_done()))
}

pub fn chunked_body(data: &[u8]) {
    let whole = decode(data, usize::MAX / 2, BODY_LIMITS);
    for step in [1, 2, 3, 7, 100] {
        assert_eq!(decode(data, step, BODY_LIMITS), whole, "pieces of {step}");
    }
    let Ok((body, trailers, _, true)) = whole else { return };
    let mut fields = Fields::new();
    for (name, value) in &trailers {
        assert_eq!(fields.append(name, value), Ok(()));
    }
    let mut wire = Vec::new();
    let mut encoder = BodyEncoder::new(BodyFraming::Chunked);
    for piece in body.chunks(5) {
        assert_eq!(encoder.data(piece, &mut wire), Ok(()));
    }
    assert_eq!(encoder.finish(Some(&fields), &mut wire), Ok(()));
    let len = wire.len();
    // a space behind each name may be new
    let limits = BodyLimits { trailer_bytes_max: 512, ..BODY_LIMITS };
    assert_eq!(decode(&wire, 4, limits), Ok((body, trailers, len, true)));
}

/// The first byte chooses the rules, the rest is the path.
pub fn path_rules(data: &[u8]) {
    let Some((&choice, path)) = data.split_first() else { return };
    let escaped_slashes = match choice & 3 {
        0 => EscapedSlashes::KeepUnchanged,
        1 => EscapedSlashes::Reject,
        2 => EscapedSlashes::UnescapeAndRedirect,
        _ => EscapedSlashes::UnescapeAndForward,
    };
    let rules = PathRules { normalize: choice & 4 != 0, merge_slashes: choice & 8 != 0, escaped_slashes };
    let mut head = RequestHead::new();
    if head.set_path(path).is_err() || apply_path_rules(&mut head, &rules).is_err() {
        return;
    }
    let once = head.path().to_vec();
    assert!(once.len() <= path.len() && !once.is_empty());
    assert_eq!(once.first() == Some(&b'/'), path.first() == Some(&b'/'));
    let query = |p: &[u8]| memchr::memchr(b'?', p).map(|at| p[at..].to_vec());
    assert_eq!(query(&once), query(path), "the query is not ours to change");
    if rules.normalize && once[0] == b'/' {
        let bare = head.path_without_query();
        assert!(!bare.split(|&b| b == b'/').any(|s| s == b"." || s == b".."));
        assert!(!bare.contains(&b'\\'));
    }
    // Unescaped slashes may join a stray `%` and what follows it to a new escape, which is the next hop's.
    if rules.escaped_slashes == EscapedSlashes::KeepUnchanged {
        assert!(apply_path_rules(&mut head, &rules).is_ok());
        assert_eq!(head.path(), once, "a second time changes nothing");
    }
}

/// Every rule on any request that parses, and the result can be written and read.
pub fn request_rules(data: &[u8]) {
    let mut head = RequestHead::new();
    let Ok(Parsed::Complete(meta)) = parse_request(data, &LIMITS, &mut head) else { return };
    if head.authority().is_empty() {
        return;
    }
    remove_hop_by_hop(&mut head.fields, meta.upgrade);
    assert!(!head.fields.contains(Known::Connection));
    let address = |byte: u8| std::net::IpAddr::from([10, 0, 0, byte]);
    for choice in 0..4 {
        let mut head = head.clone();
        let rules = ForwardedRules {
            use_remote_address: choice & 1 != 0,
            skip_xff_append: false,
            xff_trusted_hops: choice >> 1,
            via: Some(b"1.1 corelane"),
            generate_request_id: true,
            preserve_external_request_id: false,
            scheme_overwrite: None,
            node_address: Some(address(1)),
            is_internal: &|address| address.is_loopback(),
        };
        let peer = Peer { address: address(2), is_tls: true };
        let Ok(origin) = apply_forwarded_rules(&mut head, &rules, &peer, [7; 16]) else { return };
        assert_eq!(head.fields.contains(Known::XEnvoyInternal), origin.is_internal);
        assert!(head.fields.contains(Known::XRequestId) && !head.scheme().is_empty());
        apply_host_rules(
            &mut head,
            &HostRules { strip_any_port: true, strip_port: None, strip_trailing_dot: true },
        );
        assert_request_survives(&head, &meta, Casing::Lower);
    }
}

pub fn client_hello(data: &[u8]) {
    use client_hello::{Hello, parse_client_hello};
    let mut scratch = Vec::new();
    let whole = parse_client_hello(data, &mut scratch);
    let mut other = Vec::new();
    for prefix in splits(data) {
        let part = parse_client_hello(prefix, &mut other);
        assert!(part == Ok(Hello::NeedMore) || part == whole, "{part:?} {whole:?}");
    }
    if let Ok(Hello::Complete(hello)) = whole {
        assert!(hello.alpn().all(|name| !name.is_empty()));
        assert!(hello.server_name.is_none_or(|name| !name.is_empty()));
    }
}

pub fn proxy_header(data: &[u8]) {
    use proxy_protocol::{ProxyHeader, parse_proxy_header, write_proxy_v1, write_proxy_v2};
    let whole = parse_proxy_header(data);
    for prefix in splits(data) {
        let part = parse_proxy_header(prefix);
        assert!(part == Ok(ProxyHeader::NeedMore) || part == whole, "{part:?} {whole:?}");
    }
    let Ok(ProxyHeader::Present { addresses, consumed }) = whole else { return };
    assert!(consumed <= data.len());
    let (mut v1, mut v2) = (Vec::new(), Vec::new());
    assert_eq!(write_proxy_v1(addresses.as_ref(), &mut v1), Ok(()));
    assert_eq!(write_proxy_v2(addresses.as_ref(), &mut v2), Ok(()));
    let read = parse_proxy_header(&v2);
    assert!(matches!(read, Ok(ProxyHeader::Present { consumed, .. }) if consumed == v2.len()));
    let ends = |header| match header {
        Ok(ProxyHeader::Present { addresses, .. }) => addresses,
        _ => None,
    };
    assert_eq!(ends(parse_proxy_header(&v1)), ends(read));
}

pub fn first_bytes(data: &[u8]) {
    let whole = sniff(data);
    for prefix in splits(data) {
        let part = sniff(prefix);
        assert!(part == Sniffed::NeedMore || part == whole);
    }
}
