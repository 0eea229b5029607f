//! HTTP/1: heads in and out, the rules between, and the framing of a chunked body.

use corelane_http::{
    BodyDecoder, BodyFraming, BodyLimits, Casing, Connection, Fields, Limits, Method, Parsed, RequestHead,
    ResponseHead, Version, parse_request, parse_response,
    rules::forwarded::{ForwardedRules, Peer, apply_forwarded_rules},
    write_request, write_response,
};
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use std::hint::black_box;

/// Ten fields, Host among them.
const REQUEST: &[u8] = b"GET /api/v1/payments/4711?currency=EUR HTTP/1.1\r\n\
    Host: payments.default.svc.cluster.local:8080\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: application/json\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Accept-Language: en-GB,en;q=0.5\r\n\
    Authorization: Bearer eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiI0NzExIn0.c2lnbmF0dXJl\r\n\
    Cookie: session=8f14e45fceea167a5a36dedd4bea2543\r\n\
    X-Forwarded-For: 203.0.113.7, 10.0.0.1\r\n\
    X-Request-Id: 7c0e4b0a-9f0b-4c1e-8c53-0d8a2d2ff5f1\r\n\
    Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n";

/// Eight fields.
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: payments\r\n\
    Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
    Content-Type: application/json; charset=utf-8\r\n\
    Content-Length: 1024\r\n\
    Cache-Control: no-cache, no-store\r\n\
    Etag: \"33a64df551425fcc55e4d42a148795d9\"\r\n\
    Vary: Accept-Encoding\r\n\
    X-Content-Type-Options: nosniff\r\n\r\n";

const CHUNK_BYTES: usize = 1024;
const CHUNKS: usize = 16;

/// Heads that lie ready for the rules: few enough to stay in the cache, as a pooled head is.
const HEADS_READY: u64 = 64;

pub fn group(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("http");
    request_head(&mut group);
    response_head(&mut group);
    forwarded_rules(&mut group);
    chunked_body(&mut group);
    group.finish();
}

fn parsed_request(head: &mut RequestHead) {
    match parse_request(REQUEST, &Limits::default(), head) {
        Ok(Parsed::Complete(meta)) => assert_eq!((meta.consumed, head.fields.count()), (REQUEST.len(), 9)),
        other => panic!("the request is whole: {other:?}"),
    }
}

fn request_head(group: &mut BenchmarkGroup<'_, WallTime>) {
    let (limits, mut head) = (Limits::default(), RequestHead::new());
    parsed_request(&mut head);
    group.throughput(Throughput::Bytes(REQUEST.len() as u64));
    group.bench_function("parse_request", |b| {
        b.iter(|| black_box(parse_request(black_box(REQUEST), &limits, &mut head)).is_ok());
    });
    let mut out = Vec::with_capacity(2 * REQUEST.len());
    group.bench_function("write_request", |b| {
        b.iter(|| {
            out.clear();
            let written = write_request(
                black_box(&head),
                BodyFraming::None,
                Connection::KeepAlive,
                Casing::Lower,
                &mut out,
            );
            black_box(&out);
            written
        });
    });
}

fn response_head(group: &mut BenchmarkGroup<'_, WallTime>) {
    let (limits, mut head) = (Limits::default(), ResponseHead::new());
    group.throughput(Throughput::Bytes(RESPONSE.len() as u64));
    let framing = match parse_response(RESPONSE, &limits, Method::Get, &mut head) {
        Ok(Parsed::Complete(meta)) => meta.framing,
        other => panic!("the response is whole: {other:?}"),
    };
    group.bench_function("parse_response", |b| {
        b.iter(|| black_box(parse_response(black_box(RESPONSE), &limits, Method::Get, &mut head)).is_ok());
    });
    let mut out = Vec::with_capacity(2 * RESPONSE.len());
    group.bench_function("write_response", |b| {
        b.iter(|| {
            out.clear();
            let written = write_response(
                black_box(&head),
                Version::H11,
                framing,
                Connection::KeepAlive,
                Casing::Lower,
                &mut out,
            );
            black_box(&out);
            written
        });
    });
}

/// The rules of a gateway, which trusts nobody: x-forwarded-for is appended to, the request id is a new one.
fn forwarded_rules(group: &mut BenchmarkGroup<'_, WallTime>) {
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
    let peer = Peer { address: [203, 0, 113, 9].into(), is_tls: true };
    group.throughput(Throughput::Elements(1));
    group.bench_function("forwarded_rules", |b| {
        b.iter_batched_ref(
            || {
                let mut head = RequestHead::new();
                // a pooled head has the room that its rules need from the request before
                parsed_request(&mut head);
                apply_forwarded_rules(&mut head, &rules, &peer, [7; 16]).expect("a plain request");
                parsed_request(&mut head);
                head
            },
            |head| apply_forwarded_rules(black_box(head), &rules, black_box(&peer), black_box([7; 16])),
            BatchSize::NumIterations(HEADS_READY),
        );
    });
}

fn chunked_body(group: &mut BenchmarkGroup<'_, WallTime>) {
    let mut body = Vec::new();
    for _ in 0..CHUNKS {
        body.extend_from_slice(format!("{CHUNK_BYTES:x}\r\n").as_bytes());
        body.resize(body.len() + CHUNK_BYTES, b'x');
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    let mut trailers = Fields::default();
    let mut decode = |body: &[u8]| {
        let mut decoder = BodyDecoder::new(BodyFraming::Chunked, BodyLimits::default());
        trailers.clear();
        let (mut at, mut data) = (0, 0);
        while !decoder.is_done() {
            let decoded = decoder.decode(&body[at..], &mut trailers).expect("a whole body");
            data += black_box(decoded.data).len();
            at += decoded.consumed;
        }
        data
    };
    assert_eq!(decode(&body), CHUNKS * CHUNK_BYTES);
    group.throughput(Throughput::Elements(CHUNKS as u64));
    group.bench_function("chunked_body/16_chunks_of_1KiB", |b| b.iter(|| decode(black_box(&body))));
}
