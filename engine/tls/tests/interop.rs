//! Our streams against rustls's buffered ones: every version, suite, role and record path.
#![allow(clippy::unwrap_used)] // its helpers are part of its tests

mod peers;

use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::Arc;

use corelane_runtime::testing::on_both_drivers;
use corelane_tls::*;
use peers::*;
use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::cipher_suite as suite;

const TLS13_SUITES: [SupportedCipherSuite; 3] =
    [suite::TLS13_AES_128_GCM_SHA256, suite::TLS13_AES_256_GCM_SHA384, suite::TLS13_CHACHA20_POLY1305_SHA256];
const TLS12_SUITES: [SupportedCipherSuite; 6] = [
    suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// Sizes of single writes: around a record's limit, and many records.
const SIZES: [usize; 6] = [1, 1000, 16_383, 16_384, 16_385, 70_000];

fn cases() -> Vec<(Versions, SupportedCipherSuite, RecordPath)> {
    let mut cases = Vec::new();
    for suite in TLS13_SUITES {
        cases.push((TLS13, suite, RecordPath::Auto));
        cases.push((TLS13, suite, RecordPath::Unbuffered));
    }
    cases.extend(TLS12_SUITES.map(|suite| (TLS12, suite, RecordPath::InPlace)));
    cases
}

/// The peer's side: echoes every message of SIZES, then waits for the end and closes.
fn echo<C, S>(mut tls: rustls::StreamOwned<C, std::net::TcpStream>) -> Vec<u8>
where
    C: std::ops::DerefMut<Target = rustls::ConnectionCommon<S>>,
    S: rustls::SideData,
{
    for size in SIZES {
        let mut message = vec![0; size];
        tls.read_exact(&mut message).unwrap();
        tls.write_all(&message).unwrap();
        tls.flush().unwrap();
    }
    let mut rest = Vec::new();
    tls.read_to_end(&mut rest).unwrap();
    tls.conn.send_close_notify();
    tls.flush().unwrap();
    rest
}

async fn converse(core: &corelane_runtime::Core, stream: &TlsStream) {
    for size in SIZES {
        let message = pattern(size);
        write_bytes(core, stream, &message).await;
        assert!(read_len(core, stream, size).await == message, "{size} bytes through {}", stream.cipher());
    }
    stream.shutdown_write().await.unwrap();
    let (end, _) = stream.read(core.buffers().take()).await;
    assert_eq!(end.unwrap(), 0);
    let (after, _) = stream.read(core.buffers().take()).await;
    assert_eq!(after.unwrap(), 0);
}

fn check(
    tls: &TlsCore,
    stream: &TlsStream,
    versions: Versions,
    suite: SupportedCipherSuite,
    path: RecordPath,
) {
    let in_place = versions == TLS13 && path != RecordPath::Unbuffered;
    assert_eq!(stream.is_in_place(), in_place);
    assert_eq!(stream.cipher(), cipher_name(suite.suite()));
    assert_eq!(stream.version(), if versions == TLS13 { TlsVersion::Tls13 } else { TlsVersion::Tls12 });
    assert_eq!(stream.alpn(), Some(&b"h2"[..]));
    if in_place {
        // the figure that "in place" promises
        assert_eq!(tls.stats().payload_bytes_copied, 0);
    } else {
        assert!(tls.stats().payload_bytes_copied > 0);
    }
}

#[test]
fn as_server_with_every_version_suite_and_path() {
    let authority = Authority::new("root");
    let ecdsa = authority.issue(Leaf::uri(&PAYMENTS));
    let rsa = authority.issue(Leaf { rsa: true, ..Leaf::uri(&PAYMENTS) });
    let orders = authority.issue(Leaf::uri(&ORDERS));
    for (versions, suite, path) in cases() {
        let mut spec = ServerSpec::new("inbound", ecdsa.clone());
        spec.certificates.push(rsa.clone());
        spec.client_validation = Some(authority.validation(&[ORDERS]));
        spec.require_client_certificate = true;
        spec.alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        spec.record_path = path;
        let context = server(&spec);
        let mut config = rustls_client(&authority, Some(&orders), versions, &[suite]);
        config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
        on_both_drivers(move |core| {
            let (context, config) = (context.clone(), config.clone());
            async move {
                let (near, far) = Far::run(move |socket| echo(rustls_connect(config, socket))).split();
                let tls = TlsCore::new(&core);
                let tcp = adopt(&core, near);
                let stream = accept(&tls, tcp, &context, None, deadline(&core)).await.unwrap();
                assert_eq!(stream.sni(), Some("payments.prod.svc"));
                let peer = stream.peer().unwrap();
                assert_eq!((peer.spiffe_id(), peer.principal()), (Some(ORDERS), Some(ORDERS)));
                converse(&core, &stream).await;
                assert_eq!(finish(&core, far).await, b"");
                check(&tls, &stream, versions, suite, path);
                assert_eq!((tls.stats().accepted, tls.stats().failed), (1, 0));
            }
        });
    }
}

#[test]
fn as_client_with_every_version_suite_and_path() {
    let authority = Authority::new("root");
    let ecdsa = authority.issue(Leaf::uri(&PAYMENTS));
    let rsa = authority.issue(Leaf { rsa: true, ..Leaf::uri(&PAYMENTS) });
    let orders = authority.issue(Leaf::uri(&ORDERS));
    for (versions, suite, path) in cases() {
        let mut spec = ClientSpec::new("outbound");
        spec.certificate = Some(orders.clone());
        spec.validation = Some(authority.validation(&[PAYMENTS]));
        spec.alpn = vec![b"istio".to_vec(), b"h2".to_vec()];
        spec.sni = Some("outbound_.80_._.payments.prod.svc.cluster.local".to_owned());
        spec.record_path = path;
        let context = client(&spec);
        let certificate = if cipher_name(suite.suite()).contains("RSA") { &rsa } else { &ecdsa };
        let mut config = rustls_server(certificate, Some(&authority), versions, &[suite]);
        config.alpn_protocols = vec![b"h2".to_vec()];
        on_both_drivers(move |core| {
            let (context, config) = (context.clone(), config.clone());
            async move {
                let far = Far::run(move |socket| {
                    let mut tls = rustls_accept(config, socket);
                    while tls.conn.is_handshaking() {
                        tls.conn.complete_io(&mut tls.sock).unwrap();
                    }
                    let seen = tls.conn.server_name().map(str::to_owned);
                    let peers = tls.conn.peer_certificates().map_or(0, <[_]>::len);
                    (seen, peers, echo(tls))
                });
                let (near, far) = far.split();
                let tls = TlsCore::new(&core);
                let tcp = adopt(&core, near);
                let params = ConnectParams::default();
                let stream = connect(&tls, tcp, &context, params, deadline(&core)).await.unwrap();
                assert_eq!(stream.peer().unwrap().spiffe_id(), Some(PAYMENTS));
                converse(&core, &stream).await;
                let (sni, certificates, rest) = finish(&core, far).await;
                assert_eq!(sni.as_deref(), Some("outbound_.80_._.payments.prod.svc.cluster.local"));
                assert_eq!((certificates, rest.len()), (1, 0));
                check(&tls, &stream, versions, suite, path);
            }
        });
    }
}

#[test]
fn a_megabyte_flows_both_ways_at_once_between_our_own_ends() {
    const LEN: usize = 1 << 20;
    for path in [RecordPath::InPlace, RecordPath::Unbuffered] {
        on_both_drivers(move |core| async move {
            let (tls, client, server) = both_ends(&core, path).await;
            let done = Rc::new(std::cell::Cell::new(0));
            for stream in [&client, &server] {
                let (core_far, stream, done) = (core.clone(), stream.clone(), done.clone());
                core.spawn(async move {
                    write_bytes(&core_far, &stream, &pattern(LEN)).await;
                    stream.shutdown_write().await.unwrap();
                    done.set(done.get() + 1);
                });
            }
            let (core_far, server_far, done_far) = (core.clone(), server.clone(), done.clone());
            core.spawn(async move {
                let got = read_len(&core_far, &server_far, LEN + 1).await;
                assert!(got == pattern(LEN));
                done_far.set(done_far.get() + 1);
            });
            assert!(read_len(&core, &client, LEN + 1).await == pattern(LEN));
            while done.get() < 3 {
                core.timers().sleep(std::time::Duration::from_millis(1)).await;
            }
            if path == RecordPath::InPlace {
                assert_eq!(tls.stats().payload_bytes_copied, 0);
                let moved = tls.stats().ciphertext_bytes_moved;
                assert!(moved < LEN as u64 / 50, "{moved}");
            }
            assert_eq!(core.buffers().stats().in_use, 0, "an idle connection pins no buffer");
        });
    }
}

#[test]
fn pairs_and_borrowed_bytes_arrive_in_order_without_copies() {
    on_both_drivers(|core| async move {
        let (tls, client, server) = both_ends(&core, RecordPath::Auto).await;
        let before = tls.stats().records_sealed;
        let (mut head, mut body) = (core.buffers().take(), core.buffers().take());
        head.extend_from_slice(b"HTTP/1.1 200 OK\r\n\r\n");
        body.extend_from_slice(&pattern(9000));
        let (result, head, body) = client.write_all_pair(head, body).await;
        result.unwrap();
        assert!(head.is_empty() && body.is_empty());
        client.write_from(&pattern(100_000)).await.unwrap();
        let expected = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), pattern(9000), pattern(100_000)].concat();
        assert!(read_len(&core, &server, expected.len()).await == expected);
        // 2 for the pair, 7 of up to 2^14 bytes for the rest
        assert_eq!(tls.stats().records_sealed - before, 9);

        // a pair with an empty half, and a pair larger than records
        let (result, ..) = client.write_all_pair(core.buffers().take(), head).await;
        result.unwrap();
        let mut large = core.buffers().take_sized(50_000);
        large.extend_from_slice(&pattern(50_000));
        let mut small = core.buffers().take();
        small.extend_from_slice(b"x");
        let (result, ..) = client.write_all_pair(small, large).await;
        result.unwrap();
        assert!(read_len(&core, &server, 50_001).await[1..] == pattern(50_000));
        assert_eq!(tls.stats().payload_bytes_copied, 0);
    });
}

#[test]
fn records_that_arrive_together_are_read_together_and_one_alone_in_the_buffer_it_came_in() {
    on_both_drivers(|core| async move {
        let (tls, client, server) = both_ends(&core, RecordPath::Auto).await;
        let (mut head, mut body) = (core.buffers().take(), core.buffers().take());
        head.extend_from_slice(b"head");
        body.extend_from_slice(&pattern(3000));
        client.write_all_pair(head, body).await.0.unwrap();
        // one system call has sent both records
        let both = server.read_parking(std::time::Duration::from_secs(1)).await.unwrap();
        assert!(both.filled()[..4] == *b"head" && both.filled()[4..] == pattern(3000));
        assert_eq!(core.buffers().stats().in_use, 1, "only what the caller holds");
        drop(both);

        write_bytes(&core, &client, &pattern(1000)).await;
        let peak = core.buffers().stats().peak;
        let spare = (0..peak - 1).map(|_| core.buffers().take()).collect::<Vec<_>>();
        let (result, buf) = server.read(core.buffers().take()).await;
        assert_eq!(result.unwrap(), 1000);
        assert!(buf.filled() == pattern(1000));
        assert_eq!(core.buffers().stats().peak, peak, "the caller's buffer is all that it took");
        assert!(buf.back_len() > corelane_runtime::buffer::TAILROOM && buf.front_len() >= 16);
        drop((spare, buf));
        assert_eq!((tls.stats().payload_bytes_copied, tls.stats().ciphertext_bytes_moved), (0, 0));
    });
}

#[test]
fn small_buffers_lose_nothing_and_copies_are_counted() {
    on_both_drivers(|core| async move {
        let (tls, client, server) = both_ends(&core, RecordPath::Auto).await;
        client.write_from(&pattern(20_000)).await.unwrap();
        // an empty small buffer is exchanged for the one that holds the record
        let pool = corelane_runtime::BufferPool::new(100, 4);
        let (result, first) = server.read(pool.take()).await;
        assert_eq!((result.unwrap(), first.len()), (16_384, 16_384));
        assert_eq!(tls.stats().payload_bytes_copied, 0);
        // what one holds is put in front of a longer record's contents
        let mut held = pool.take();
        held.extend_from_slice(b"held:");
        let (result, both) = server.read(held).await;
        assert_eq!((result.unwrap(), both.len()), (3616, 5 + 3616));
        assert!(both.filled()[..5] == *b"held:" && both.filled()[5..] == pattern(20_000)[16_384..]);
        assert_eq!(tls.stats().payload_bytes_copied, 5);
        // and a shorter record's contents behind it, as far as there is room
        client.write_from(&pattern(50)).await.unwrap();
        let mut held = pool.take();
        held.extend_from_slice(&[b'h'; 80]);
        let (result, held) = server.read(held).await;
        assert_eq!((result.unwrap(), held.len()), (20, 100));
        assert!(held.filled()[80..] == pattern(50)[..20]);
        assert!(read_len(&core, &server, 30).await == pattern(50)[20..]);
        assert_eq!(tls.stats().payload_bytes_copied, 25);
        let (result, _) = server.read(held).await;
        assert!(matches!(tls_error(&result.unwrap_err()), TlsError::NoRoom));
        assert_eq!(server.peer_state(), corelane_runtime::net::PeerState::Quiet);
    });
}

#[test]
fn a_client_without_common_protocol_is_served_without_alpn() {
    let authority = Authority::new("root");
    let mut spec = ServerSpec::new("inbound", authority.issue(Leaf::uri(&PAYMENTS)));
    spec.alpn = vec![b"h2".to_vec()];
    let context = server(&spec);
    let mut config = rustls_client(&authority, None, TLS13, &[]);
    config.alpn_protocols = vec![b"istio".to_vec()];
    on_both_drivers(move |core| {
        let (context, config) = (context.clone(), config.clone());
        async move {
            let (near, far) = Far::run(move |socket| echo(rustls_connect(config, socket))).split();
            let tls = TlsCore::new(&core);
            let tcp = adopt(&core, near);
            let stream = accept(&tls, tcp, &context, None, deadline(&core)).await.unwrap();
            assert_eq!(stream.alpn(), None);
            assert!(stream.peer().is_none());
            converse(&core, &stream).await;
            finish(&core, far).await;
        }
    });
}

#[test]
fn a_sniffed_hello_is_taken_from_its_buffer() {
    let authority = Authority::new("root");
    let context = server(&ServerSpec::new("inbound", authority.issue(Leaf::uri(&PAYMENTS))));
    let config = rustls_client(&authority, None, TLS13, &[]);
    on_both_drivers(move |core| {
        let (context, config) = (context.clone(), config.clone());
        async move {
            let (near, far) = Far::run(move |socket| echo(rustls_connect(config, socket))).split();
            let tls = TlsCore::new(&core);
            let tcp = adopt(&core, near);
            let (result, sniffed) = tcp.read(core.buffers().take()).await;
            assert!(result.unwrap() > 5);
            let stream = accept(&tls, tcp, &context, Some(sniffed), deadline(&core)).await.unwrap();
            converse(&core, &stream).await;
            finish(&core, far).await;
            assert_eq!(tls.stats().payload_bytes_copied, 0);
        }
    });
}

#[test]
fn certificates_are_chosen_by_name_and_by_key_type() {
    let authority = Authority::new("root");
    let first = authority.issue(Leaf { dns: &["a.example"], serial: 1, ..Leaf::default() });
    let named = authority.issue(Leaf { dns: &["payments.prod.svc"], serial: 2, ..Leaf::default() });
    let rsa = authority.issue(Leaf { dns: &["b.example"], rsa: true, serial: 3, ..Leaf::default() });
    let wildcard = authority.issue(Leaf { dns: &["*.prod.svc"], rsa: true, serial: 4, ..Leaf::default() });
    let cases = [
        (vec![&first, &named], suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "2"),
        (vec![&first, &rsa], suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "1"),
        (vec![&first, &rsa], suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "3"),
        (vec![&first, &rsa, &wildcard], suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "4"),
    ];
    for (certificates, suite, expected) in cases {
        let mut spec = ServerSpec::new("inbound", certificates[0].clone());
        spec.certificates = certificates.into_iter().cloned().collect();
        let context = server(&spec);
        let mut config = rustls_client(&authority, None, TLS12, &[suite]);
        config.enable_sni = true;
        on_both_drivers(move |core| {
            let (context, config) = (context.clone(), config.clone());
            async move {
                let far = Far::run(move |socket| {
                    let mut tls = rustls_connect(config, socket);
                    tls.write_all(b"x").unwrap();
                    let leaf = tls.conn.peer_certificates().unwrap()[0].clone().into_owned();
                    CertificateInfo::from_der(&leaf).unwrap().serial
                });
                let (near, far) = far.split();
                let tls = TlsCore::new(&core);
                let tcp = adopt(&core, near);
                let stream = accept(&tls, tcp, &context, None, deadline(&core)).await.unwrap();
                assert_eq!(read_len(&core, &stream, 1).await, b"x");
                assert_eq!(finish(&core, far).await.trim_start_matches('0'), expected);
            }
        });
    }
}

#[test]
fn a_rotation_reaches_new_handshakes_and_leaves_connections_alone() {
    let authority = Authority::new("root");
    let table = ContextTable::new(environment());
    let id = table.reserve().unwrap();
    let spec = |serial| ServerSpec::new("inbound", authority.issue(Leaf { serial, ..Leaf::uri(&PAYMENTS) }));
    table.set_server(id, &spec(1)).unwrap();
    let next = spec(2);
    let mut config = rustls_client(&authority, None, TLS13, &[]);
    // a resumed session would show the certificate that it began with
    config.resumption = rustls::client::Resumption::disabled();
    on_both_drivers(move |core| {
        let (table, next, config) = (table.clone(), next.clone(), config.clone());
        async move {
            let mut view = table.view();
            let tls = TlsCore::new(&core);
            let open = async |context: Arc<ServerContext>| {
                let config = config.clone();
                let (near, far) = Far::run(move |socket| {
                    let mut tls = rustls_connect(config, socket);
                    let mut message = [0; 4];
                    for _ in 0..2 {
                        tls.write_all(b"ping").unwrap();
                        tls.read_exact(&mut message).unwrap();
                    }
                    let leaf = tls.conn.peer_certificates().unwrap()[0].clone().into_owned();
                    CertificateInfo::from_der(&leaf).unwrap().serial
                })
                .split();
                let tcp = adopt(&core, near);
                (accept(&tls, tcp, &context, None, deadline(&core)).await.unwrap(), far)
            };
            let before = view.server(id).unwrap().identities()[0].leaf().serial.clone();
            let (first, first_far) = open(view.server(id).unwrap().clone()).await;
            assert_eq!(read_len(&core, &first, 4).await, b"ping");
            let generation = view.generation();
            table.set_server(id, &next).unwrap();
            assert_eq!(view.generation(), generation + 1);
            let (second, second_far) = open(view.server(id).unwrap().clone()).await;
            write_bytes(&core, &first, b"pong").await;
            for stream in [&first, &second, &second] {
                assert_eq!(read_len(&core, stream, 4).await, b"ping");
                write_bytes(&core, stream, b"pong").await;
            }
            assert_eq!(finish(&core, first_far).await, before);
            assert_eq!(finish(&core, second_far).await, "02");
        }
    });
}
