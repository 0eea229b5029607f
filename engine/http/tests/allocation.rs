//! A request in steady state allocates nothing: a counting allocator sees parse, rules, serialize and body of
//! both directions, on this thread.

#![allow(clippy::unwrap_used)]

use corelane_http::{
    BodyDecoder, BodyEncoder, BodyFraming, BodyLimits, Casing, Connection, Fields, Known, Limits, Method,
    Parsed, RequestHead, ResponseHead, Version, parse_request, parse_response,
    rules::{
        forwarded::{ForwardedRules, Peer, apply_forwarded_rules},
        hop_by_hop::remove_hop_by_hop,
        path::{EscapedSlashes, PathRules, apply_path_rules},
        response::{ResponseRules, ServerHeader, apply_response_rules},
        xfcc::{ClientCert, ClientCertDetails, ForwardClientCert, apply_xfcc},
    },
    write_request, write_response,
};
const REQUEST: &[u8] =
    b"POST /a/../charge?id=1 HTTP/1.1\r\nHost: payments:8080\r\nUser-Agent: curl/8.5.0\r\n\
    Accept: */*\r\nAccept-Encoding: gzip, deflate\r\nCookie: a=b; c=d\r\nContent-Type: application/json\r\n\
    X-Forwarded-For: 10.0.0.1, 10.0.0.2\r\nX-Envoy-Retry-On: 5xx\r\nConnection: keep-alive, x-gone\r\n\
    X-Gone: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
const BODY: &[u8] = b"5\r\nhello\r\n6\r\n world\r\n0\r\nx-sum: 1\r\n\r\n";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: app\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\
    Keep-Alive: timeout=5\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\nhello";

/// All that a pooled exchange keeps from request to request.
#[derive(Default)]
struct Exchange {
    request: RequestHead,
    response: ResponseHead,
    trailers: Fields,
    scratch: Vec<u8>,
    upstream: Vec<u8>,
    downstream: Vec<u8>,
}

fn request_rules(exchange: &mut Exchange, upgrade: bool) {
    let head = &mut exchange.request;
    remove_hop_by_hop(&mut head.fields, upgrade);
    let rules = ForwardedRules {
        use_remote_address: true,
        skip_xff_append: false,
        xff_trusted_hops: 0,
        via: Some(b"1.1 corelane"),
        generate_request_id: true,
        preserve_external_request_id: false,
        scheme_overwrite: None,
        node_address: None,
        is_internal: &|address| address.is_loopback(),
    };
    let peer = Peer { address: "203.0.113.7".parse().unwrap(), is_tls: true };
    apply_forwarded_rules(head, &rules, &peer, [7; 16]).unwrap();
    let path = PathRules {
        normalize: true,
        merge_slashes: true,
        escaped_slashes: EscapedSlashes::UnescapeAndForward,
    };
    apply_path_rules(head, &path).unwrap();
    let client =
        ClientCert { by: &["spiffe://a/b"], hash: "abcd", uris: &["spiffe://a/c"], ..ClientCert::default() };
    let details = ClientCertDetails { uri: true, subject: true, ..ClientCertDetails::default() };
    apply_xfcc(
        &mut head.fields,
        ForwardClientCert::AppendForward,
        details,
        Some(&client),
        &mut exchange.scratch,
    );
    head.set_authority(b"payments.default.svc").unwrap();
    head.fields.append(b"x-added", b"1").unwrap();
}

fn serve(exchange: &mut Exchange) {
    exchange.upstream.clear();
    exchange.downstream.clear();
    exchange.trailers.clear();
    let Ok(Parsed::Complete(meta)) = parse_request(REQUEST, &Limits::default(), &mut exchange.request) else {
        panic!("request");
    };
    assert_eq!(meta.framing, BodyFraming::Chunked);
    request_rules(exchange, meta.upgrade);
    let Exchange { request, upstream, trailers, .. } = exchange;
    write_request(request, meta.framing, Connection::KeepAlive, Casing::Lower, upstream).unwrap();
    let mut decoder = BodyDecoder::new(meta.framing, BodyLimits::default());
    let mut encoder = BodyEncoder::new(BodyFraming::Chunked);
    let mut at = 0;
    while !decoder.is_done() {
        let decoded = decoder.decode(&BODY[at..], trailers).unwrap();
        encoder.data(&BODY[at..][decoded.data], upstream).unwrap();
        at += decoded.consumed;
    }
    encoder.finish(Some(trailers), upstream).unwrap();

    let Exchange { response, downstream, .. } = exchange;
    let Ok(Parsed::Complete(meta)) = parse_response(RESPONSE, &Limits::default(), Method::Post, response)
    else {
        panic!("response");
    };
    let rules = ResponseRules {
        server: ServerHeader::Overwrite,
        server_name: b"corelane",
        via: None,
        request_id: None,
        date: b"Sun, 06 Nov 1994 08:49:37 GMT",
        keep_upgrade: false,
    };
    apply_response_rules(response, &rules);
    write_response(response, Version::H11, meta.framing, Connection::KeepAlive, Casing::Lower, downstream)
        .unwrap();
    downstream.extend_from_slice(&RESPONSE[meta.consumed..]);
}

#[test]
fn a_request_in_steady_state_allocates_nothing() {
    let mut exchange = Exchange::default();
    let first = allocation_counter::measure(|| serve(&mut exchange));
    assert!(first.count_total > 0, "the counter counts");
    let steady = allocation_counter::measure(|| (0..100).for_each(|_| serve(&mut exchange)));
    assert_eq!(steady.count_total, 0);

    let upstream = String::from_utf8(exchange.upstream).unwrap();
    assert!(
        upstream.starts_with("POST /charge?id=1 HTTP/1.1\r\nhost: payments.default.svc\r\n"),
        "{upstream}"
    );
    assert!(upstream.ends_with("\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nx-sum: 1\r\n\r\n"), "{upstream}");
    assert!(!upstream.contains("x-gone") && !upstream.contains("retry-on"), "{upstream}");
    assert!(exchange.request.fields.contains(Known::XRequestId));
}
