//! Established streams: key updates with rustls, alerts, bytes that trickle, break or end, and half-closed sides.
#![allow(clippy::unwrap_used)] // its helpers are part of its tests

mod peers;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream as StdStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use corelane_runtime::Core;
use corelane_runtime::net::PeerState;
use corelane_runtime::testing::on_both_drivers;
use corelane_tls::*;
use peers::*;
use rustls::AlertDescription as Alert;

const PATHS: [RecordPath; 2] = [RecordPath::InPlace, RecordPath::Unbuffered];

/// A server of ours and rustls's client, for each record path and both versions.
fn with_rustls_client<T, F>(
    versions: &'static [Versions],
    peer: impl FnOnce(RustlsClient) -> T + Send + Clone + 'static,
    ours: impl Fn(Rc<Core>, Rc<TlsCore>, TlsStream) -> F + Send + Clone + 'static,
    check: impl Fn(T) + Send + Clone + 'static,
) where
    T: Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let authority = Authority::new("root");
    let certificate = authority.issue(Leaf::uri(&PAYMENTS));
    for path in PATHS {
        for versions in versions {
            let mut spec = ServerSpec::new("inbound", certificate.clone());
            spec.record_path = path;
            let context = server(&spec);
            let config = rustls_client(&authority, None, versions, &[]);
            let (peer, ours, check) = (peer.clone(), ours.clone(), check.clone());
            on_both_drivers(move |core| {
                let (context, config) = (context.clone(), config.clone());
                let (peer, ours, check) = (peer.clone(), ours.clone(), check.clone());
                async move {
                    let (near, far) = Far::run(move |socket| peer(rustls_connect(config, socket))).split();
                    let tls = TlsCore::new(&core);
                    let tcp = adopt(&core, near);
                    let stream = accept(&tls, tcp, &context, None, deadline(&core)).await.unwrap();
                    ours(core.clone(), tls, stream).await;
                    check(finish(&core, far).await);
                }
            });
        }
    }
}

#[test]
fn rustls_may_update_its_keys_at_any_time_and_gets_ours() {
    with_rustls_client(
        &[TLS13],
        |mut tls| {
            for round in 0..20u8 {
                tls.write_all(&[round; 3000]).unwrap();
                // asks for an update of ours too
                tls.conn.refresh_traffic_keys().unwrap();
                tls.write_all(&[round; 2000]).unwrap();
                let mut answer = [0; 5000];
                tls.read_exact(&mut answer).unwrap();
                assert_eq!(answer, [round; 5000]);
            }
        },
        |core, _, stream| async move {
            for round in 0..20u8 {
                assert_eq!(read_len(&core, &stream, 5000).await, [round; 5000]);
                write_bytes(&core, &stream, &[round; 5000]).await;
            }
            if stream.is_in_place() {
                assert_eq!(stream.key_updates(), (20, 20));
            }
        },
        |()| {},
    );
}

#[test]
fn our_key_updates_are_understood_and_answered() {
    with_rustls_client(
        &[TLS13],
        |mut tls| {
            let mut message = [0; 100];
            for _ in 0..10 {
                tls.read_exact(&mut message).unwrap();
                tls.write_all(&message).unwrap();
            }
        },
        |core, _, stream| async move {
            for round in 0..10u8 {
                stream.update_keys(round % 2 == 0).await.unwrap();
                write_bytes(&core, &stream, &[round; 100]).await;
                assert_eq!(read_len(&core, &stream, 100).await, [round; 100]);
            }
            if stream.is_in_place() {
                assert_eq!(stream.key_updates().0, 10);
                // rustls has answered each request that it got
                assert_eq!(stream.key_updates().1, 5);
            }
        },
        |()| {},
    );
}

#[test]
fn each_side_may_end_its_half_while_the_other_goes_on() {
    with_rustls_client(
        &[TLS12, TLS13],
        |mut tls| {
            tls.write_all(b"request").unwrap();
            tls.conn.send_close_notify();
            tls.flush().unwrap();
            tls.sock.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            tls.read_to_end(&mut answer).unwrap();
            answer
        },
        |core, _, stream| async move {
            assert_eq!(read_len(&core, &stream, 100).await, b"request");
            write_bytes(&core, &stream, &pattern(100_000)).await;
            stream.shutdown_write().await.unwrap();
            stream.shutdown_write().await.unwrap();
            let mut buf = core.buffers().take();
            buf.extend_from_slice(b"late");
            let (result, _) = stream.write_all(buf).await;
            assert!(matches!(tls_error(&result.unwrap_err()), TlsError::WriteClosed));
        },
        |answer| assert!(answer == pattern(100_000)),
    );
}

#[test]
fn an_end_without_close_notify_is_a_truncation_wherever_it_comes() {
    for cut in [0, 3, 5, 50] {
        with_rustls_client(
            &[TLS12, TLS13],
            move |mut tls| {
                tls.write_all(b"whole").unwrap();
                tls.flush().unwrap();
                // the beginning of a record that is never finished
                tls.sock.write_all(&[23, 3, 3, 1, 0].repeat(20)[..cut]).unwrap();
                tls.sock.shutdown(Shutdown::Write).unwrap();
                let _ = tls.sock.read(&mut [0; 1000]);
            },
            |core, _, stream| async move {
                assert_eq!(read_len(&core, &stream, 5).await, b"whole");
                let (result, _) = stream.read(core.buffers().take()).await;
                let error = result.unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
                assert!(matches!(tls_error(&error), TlsError::Truncated));
                assert_ne!(stream.peer_state(), PeerState::Quiet);
                // our half still works
                write_bytes(&core, &stream, b"bye").await;
            },
            |()| {},
        );
    }
}

/// Reads raw records off a rustls client's socket until the end and returns what rustls makes of them.
fn alert_seen(mut tls: RustlsClient) -> Option<Alert> {
    match tls.read_to_end(&mut Vec::new()) {
        Err(error) => match error.into_inner()?.downcast::<rustls::Error>().ok().map(|inner| *inner) {
            Some(rustls::Error::AlertReceived(alert)) => Some(alert),
            _ => None,
        },
        Ok(_) => None,
    }
}

#[test]
fn garbage_behind_good_records_is_answered_with_its_alert_after_the_data() {
    let cases: [(&[u8], Alert); 5] = [
        (b"GET / HTTP/1.1\r\n\r\n", Alert::UnexpectedMessage),
        (
            &[
                23, 3, 3, 0, 30, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7,
                8, 9, 1, 2, 3,
            ],
            Alert::BadRecordMac,
        ),
        (&[23, 3, 3, 0x48, 0x01], Alert::RecordOverflow),
        (&[20, 3, 3, 0, 1, 1], Alert::UnexpectedMessage),
        (&[23, 3, 3, 0, 0], Alert::BadRecordMac),
    ];
    for (garbage, expected) in cases {
        with_rustls_client(
            &[TLS13],
            move |mut tls| {
                tls.write_all(b"good").unwrap();
                tls.flush().unwrap();
                tls.sock.write_all(garbage).unwrap();
                alert_seen(tls)
            },
            move |core, _, stream| async move {
                assert_eq!(read_len(&core, &stream, 4).await, b"good");
                let (result, _) = stream.read(core.buffers().take()).await;
                let error = result.unwrap_err();
                if stream.is_in_place() {
                    let TlsError::PeerMisbehaved { alert, .. } = tls_error(&error) else { panic!("{error}") };
                    assert_eq!(*alert, expected);
                    let mut buf = core.buffers().take();
                    buf.extend_from_slice(b"x");
                    let (result, _) = stream.write_all(buf).await;
                    assert!(matches!(tls_error(&result.unwrap_err()), TlsError::WriteClosed));
                    stream.tcp().shutdown_write().unwrap();
                } else {
                    stream.tcp().shutdown_write().unwrap();
                }
                let (result, _) = stream.read(core.buffers().take()).await;
                assert!(result.is_err(), "a broken stream stays broken");
            },
            move |alert| assert!(alert.is_some(), "told nothing in place of {expected:?}"),
        );
    }
}

#[test]
fn a_fatal_alert_of_the_peer_is_named() {
    with_rustls_client(
        &[TLS13],
        |mut tls| {
            tls.write_all(b"x").unwrap();
            // rustls refuses plain text and says so under its keys
            let _ = tls.read(&mut [0; 10]);
        },
        |core, _, stream| async move {
            assert_eq!(read_len(&core, &stream, 1).await, b"x");
            let (result, _) = stream
                .tcp()
                .write_all({
                    let mut buf = core.buffers().take();
                    buf.extend_from_slice(b"HTTP/1.1 400 Bad Request\r\n\r\n");
                    buf
                })
                .await;
            result.unwrap();
            let (result, _) = stream.read(core.buffers().take()).await;
            let error = result.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
            assert!(matches!(tls_error(&error), TlsError::PeerAlert(_)), "{error}");
        },
        |()| {},
    );
}

/// Passes bytes on in pieces of the given size.
fn trickle(mut from: StdStream, mut to: StdStream, piece: usize) {
    let mut bytes = vec![0; 4096];
    while let Ok(n) = from.read(&mut bytes) {
        if n == 0 {
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
        for piece in bytes[..n].chunks(piece) {
            if to.write_all(piece).is_err() {
                return;
            }
        }
    }
}

#[test]
fn handshakes_and_records_survive_any_segmentation() {
    let authority = Authority::new("root");
    let certificate = authority.issue(Leaf::uri(&PAYMENTS));
    for piece in [1, 7] {
        for path in PATHS {
            let mut spec = ServerSpec::new("inbound", certificate.clone());
            spec.client_validation = Some(authority.validation(&[ORDERS]));
            spec.record_path = path;
            let context = server(&spec);
            let config = rustls_client(&authority, Some(&authority.issue(Leaf::uri(&ORDERS))), TLS13, &[]);
            on_both_drivers(move |core| {
                let (context, config) = (context.clone(), config.clone());
                async move {
                    let ((near, inner), (outer, far)) = (sockets(), sockets());
                    let copies = [
                        (inner.try_clone().unwrap(), outer.try_clone().unwrap()),
                        (outer.try_clone().unwrap(), inner.try_clone().unwrap()),
                    ];
                    let copies =
                        copies.map(|(from, to)| std::thread::spawn(move || trickle(from, to, piece)));
                    let peer = std::thread::spawn(move || {
                        let mut tls = rustls_connect(config, far);
                        for size in [1, 2, 300] {
                            tls.write_all(&pattern(size)).unwrap();
                            let mut answer = vec![0; size];
                            tls.read_exact(&mut answer).unwrap();
                            assert!(answer == pattern(size));
                        }
                        tls.conn.send_close_notify();
                        tls.flush().unwrap();
                    });
                    let tls = TlsCore::new(&core);
                    let tcp = adopt(&core, near);
                    let stream = accept(&tls, tcp, &context, None, deadline(&core)).await.unwrap();
                    for size in [1, 2, 300] {
                        assert!(read_len(&core, &stream, size).await == pattern(size));
                        // byte by byte: each is a record of its own
                        for byte in pattern(size) {
                            write_bytes(&core, &stream, &[byte]).await;
                        }
                    }
                    assert_eq!(read_len(&core, &stream, 1).await, b"");
                    finish(&core, peer).await;
                    drop(stream);
                    drop((inner.shutdown(Shutdown::Both), outer.shutdown(Shutdown::Both)));
                    for copy in copies {
                        copy.join().unwrap();
                    }
                }
            });
        }
    }
}

#[test]
fn an_idle_connection_holds_no_buffer_and_can_be_judged() {
    let authority = Authority::new("root");
    let certificate = authority.issue(Leaf::uri(&PAYMENTS));
    let mut spec = ClientSpec::new("outbound");
    spec.validation = Some(authority.validation(&[PAYMENTS]));
    let context = client(&spec);
    let config = Arc::new(rustls_server(&certificate, None, TLS13, &[]));
    on_both_drivers(move |core| {
        let (context, config) = (context.clone(), config.clone());
        async move {
            let (say, hear) = std::sync::mpsc::channel::<&[u8]>();
            let (near, far) = Far::run(move |socket| {
                let mut tls = rustls_accept((*config).clone(), socket);
                while tls.conn.is_handshaking() {
                    tls.conn.complete_io(&mut tls.sock).unwrap();
                }
                for message in hear {
                    tls.write_all(message).unwrap();
                }
                tls.conn.send_close_notify();
                tls.flush().unwrap();
            })
            .split();
            let tls = TlsCore::new(&core);
            let tcp = adopt(&core, near);
            let stream = Rc::new(
                connect(&tls, tcp, &context, ConnectParams::default(), deadline(&core)).await.unwrap(),
            );
            // session tickets arrive by themselves, and do not make the connection look used
            stream.readable().await.unwrap();
            let _ = stream.peer_state();
            assert_eq!(core.buffers().stats().in_use, 0);

            // a parked read holds none of the core's buffers
            let (reader, waiting) = (stream.clone(), Rc::new(std::cell::RefCell::new(None)));
            let found = waiting.clone();
            core.spawn(async move {
                let buf = reader.read_parking(Duration::from_millis(1)).await.unwrap();
                *found.borrow_mut() = Some(buf.filled().to_vec());
            });
            core.timers().sleep(Duration::from_millis(2)).await;
            while core.buffers().stats().in_use > 0 {
                core.timers().sleep(Duration::from_millis(1)).await;
            }
            say.send(b"hello").unwrap();
            while waiting.borrow().is_none() {
                core.timers().sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(waiting.borrow_mut().take().unwrap(), b"hello");
            assert_eq!(stream.peer_state(), PeerState::Quiet);

            // data that nobody asked for shows, and is not lost by looking
            say.send(b"early").unwrap();
            stream.readable().await.unwrap();
            assert_eq!(stream.peer_state(), PeerState::Readable);
            assert_eq!(stream.peer_state(), PeerState::Readable);
            assert_eq!(read_len(&core, &stream, 5).await, b"early");
            drop(say);
            stream.readable().await.unwrap();
            assert_eq!(stream.peer_state(), PeerState::Closed);
            finish(&core, far).await;
            assert_eq!(tls.session_peers(), 1, "the tickets were kept");
            assert_eq!(tls.stats().payload_bytes_copied, 0);
        }
    });
}

#[test]
fn a_read_or_write_given_up_half_way_is_noticed() {
    with_rustls_client(
        &[TLS13],
        |mut tls| {
            tls.write_all(b"x").unwrap();
            let _ = tls.read(&mut [0; 1]);
        },
        |core, _, stream| async move {
            assert_eq!(read_len(&core, &stream, 1).await, b"x");
            let soon = core.now() + Duration::from_millis(2);
            assert!(core.timers().timeout(soon, stream.readable()).await.is_err(), "may be dropped");
            let soon = core.now() + Duration::from_millis(2);
            assert!(core.timers().timeout(soon, stream.read(core.buffers().take())).await.is_err());
            let (result, _) = stream.read(core.buffers().take()).await;
            assert!(matches!(tls_error(&result.unwrap_err()), TlsError::Broken));
            write_bytes(&core, &stream, b"y").await;
            stream.reset();
        },
        |()| {},
    );
}
