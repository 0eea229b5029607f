//! Who is let in, in both directions, and what the other side is told.
#![allow(clippy::unwrap_used)] // its helpers are part of its tests

mod peers;

use std::io::{Read, Write};
use std::sync::Arc;

use corelane_runtime::testing::on_both_drivers;
use corelane_tls::*;
use peers::*;
use rustls::AlertDescription as Alert;

/// What the peer of a refused handshake learned.
type Told = Option<Alert>;

fn told(error: std::io::Error) -> Told {
    match error.into_inner()?.downcast::<rustls::Error>().ok().map(|inner| *inner) {
        Some(rustls::Error::AlertReceived(alert)) => Some(alert),
        _ => None,
    }
}

/// Runs one handshake as a server against rustls's client; returns our result and the alert that the client got.
fn serve(
    context: Arc<ServerContext>,
    config: rustls::ClientConfig,
    check: impl Fn(Outcome) + Send + Clone + 'static,
) {
    on_both_drivers(move |core| {
        let (context, config, check) = (context.clone(), config.clone(), check.clone());
        async move {
            let far = Far::run(move |socket| {
                let mut tls = rustls_connect(config, socket);
                let result = tls.write_all(b"x").and_then(|()| tls.read_exact(&mut [0]));
                result.err().and_then(told)
            });
            let (near, far) = far.split();
            let tls = TlsCore::new(&core);
            let tcp = adopt(&core, near);
            let result = accept(&tls, tcp, &context, None, deadline(&core)).await;
            let result = match result {
                Ok(stream) => {
                    assert_eq!(read_len(&core, &stream, 1).await, b"x");
                    write_bytes(&core, &stream, b"y").await;
                    Ok(stream.negotiated().clone())
                }
                Err(error) => Err(error),
            };
            assert_eq!(tls.stats().failed, u64::from(result.is_err()));
            check(Outcome { ours: result, told: finish(&core, far).await });
        }
    });
}

struct Outcome {
    ours: Result<Negotiated, TlsError>,
    told: Told,
}

impl Outcome {
    #[track_caller]
    fn refused(self, message: &str, alert: Alert) {
        let error = self.ours.expect_err("must be refused").to_string();
        assert!(error.contains(message), "{error:?} does not say {message:?}");
        assert_eq!(self.told, Some(alert), "{error}");
    }

    #[track_caller]
    fn accepted(self) -> Negotiated {
        assert_eq!(self.told, None);
        self.ours.expect("must be accepted")
    }
}

fn inbound(authority: &Authority, validation: ValidationSpec, required: bool) -> ServerSpec {
    let mut spec = ServerSpec::new("inbound", authority.issue(Leaf::uri(&PAYMENTS)));
    spec.client_validation = Some(validation);
    spec.require_client_certificate = required;
    spec
}

#[test]
fn a_required_client_certificate() {
    let authority = Authority::new("root");
    let other = Authority::new("other root");
    for versions in [TLS12, TLS13] {
        let context = server(&inbound(&authority, authority.validation(&[ORDERS]), true));
        assert!(context.requires_client_certificate());
        let present = |pem: Option<CertifiedPem>| rustls_client(&authority, pem.as_ref(), versions, &[]);
        let right = present(Some(authority.issue(Leaf::uri(&ORDERS))));
        serve(context.clone(), right, |outcome| {
            let peer = outcome.accepted().peer.unwrap();
            assert!(peer.validated);
            assert_eq!((peer.principal(), peer.serial()), (Some(ORDERS), "07"));
        });
        serve(context.clone(), present(None), |outcome| {
            outcome.refused("peer sent no certificates", Alert::CertificateRequired)
        });
        let untrusted = present(Some(other.issue(Leaf::uri(&ORDERS))));
        serve(context.clone(), untrusted, |outcome| outcome.refused("UnknownIssuer", Alert::UnknownCA));
        let expired = Leaf { not_after: (2021, 1, 1), ..Leaf::uri(&ORDERS) };
        let expired = present(Some(authority.issue(expired)));
        serve(context.clone(), expired, |outcome| {
            outcome.refused("certificate expired", Alert::CertificateExpired)
        });
        let early = Leaf { not_before: (2048, 1, 1), ..Leaf::uri(&ORDERS) };
        let early = present(Some(authority.issue(early)));
        serve(context.clone(), early, |outcome| outcome.refused("not valid yet", Alert::CertificateExpired));
        let wrong = present(Some(authority.issue(Leaf::uri(&PAYMENTS))));
        serve(context, wrong, |outcome| {
            outcome.refused(
                "peer presents spiffe://cluster.local/ns/prod/sa/payments",
                Alert::CertificateUnknown,
            )
        });
    }
}

#[test]
fn an_optional_client_certificate() {
    let authority = Authority::new("root");
    let other = Authority::new("other root");
    let context = server(&inbound(&authority, authority.validation(&[]), false));
    serve(context.clone(), rustls_client(&authority, None, TLS13, &[]), |outcome| {
        assert!(outcome.accepted().peer.is_none());
    });
    let right = authority.issue(Leaf::uri(&ORDERS));
    serve(context.clone(), rustls_client(&authority, Some(&right), TLS13, &[]), |outcome| {
        assert_eq!(outcome.accepted().peer.unwrap().spiffe_id(), Some(ORDERS));
    });
    // one that is shown must still be good
    let wrong = other.issue(Leaf::uri(&ORDERS));
    serve(context, rustls_client(&authority, Some(&wrong), TLS13, &[]), |outcome| {
        outcome.refused("UnknownIssuer", Alert::UnknownCA);
    });
}

#[test]
fn a_permitted_untrusted_certificate_is_never_a_principal() {
    let authority = Authority::new("root");
    let other = Authority::new("other root");
    let validation = ValidationSpec { accept_untrusted: true, ..authority.validation(&[ORDERS]) };
    let context = server(&inbound(&authority, validation, true));
    for (pem, validated) in
        [(other.issue(Leaf::uri(&ORDERS)), false), (authority.issue(Leaf::uri(&ORDERS)), true)]
    {
        serve(context.clone(), rustls_client(&authority, Some(&pem), TLS13, &[]), move |outcome| {
            let peer = outcome.accepted().peer.unwrap();
            assert_eq!(peer.validated, validated);
            assert_eq!(peer.principal(), validated.then_some(ORDERS));
            assert_eq!(peer.uri_sans(), [ORDERS]);
        });
    }
    // a certificate is asked for without anything to judge it by
    let mut spec = inbound(&authority, ValidationSpec::default(), true);
    spec.client_validation = None;
    let pem = authority.issue(Leaf::uri(&ORDERS));
    serve(server(&spec), rustls_client(&authority, Some(&pem), TLS13, &[]), |outcome| {
        assert_eq!(outcome.accepted().peer.unwrap().principal(), None);
    });
}

#[test]
fn bundles_of_several_roots_revocation_and_pins() {
    let authority = Authority::new("root");
    let other = Authority::new("other root");
    let orders = other.issue(Leaf { serial: 9, ..Leaf::uri(&ORDERS) });
    let present = || rustls_client(&authority, Some(&orders), TLS13, &[]);
    let both = Some(NamedPem::new("bundle", authority.pem() + &other.pem()));
    let crl = |lists: &[Vec<u8>]| Some(NamedPem::new("crl", lists.concat()));
    let bundle = ValidationSpec { trust_bundle: both, ..authority.validation(&[ORDERS]) };
    let context = server(&inbound(&authority, bundle.clone(), true));
    assert_eq!(context.trust_roots().len(), 2);
    serve(context, present(), |outcome| assert!(outcome.accepted().peer.is_some()));

    let revoked = ValidationSpec { crl: crl(&[other.revoke(9), authority.revoke(9)]), ..bundle.clone() };
    serve(server(&inbound(&authority, revoked, true)), present(), |outcome| {
        outcome.refused("Revoked", Alert::CertificateRevoked);
    });
    let not_revoked = ValidationSpec { crl: crl(&[other.revoke(8)]), ..bundle.clone() };
    serve(server(&inbound(&authority, not_revoked, true)), present(), |outcome| drop(outcome.accepted()));
    let uncovered = ValidationSpec { crl: crl(&[authority.revoke(9)]), ..bundle.clone() };
    serve(server(&inbound(&authority, uncovered, true)), present(), |outcome| {
        outcome.refused("UnknownRevocationStatus", Alert::UnknownCA);
    });

    let info = PinOf::new(&orders);
    let pinned = ValidationSpec { certificate_sha256: vec![info.0], ..bundle.clone() };
    serve(server(&inbound(&authority, pinned, true)), present(), |outcome| drop(outcome.accepted()));
    let mispinned = ValidationSpec { spki_sha256: vec![[1; 32]], ..bundle.clone() };
    serve(server(&inbound(&authority, mispinned, true)), present(), |outcome| {
        outcome.refused("not among the pinned", Alert::CertificateUnknown);
    });
    // pins alone prove an identity without any bundle
    let alone = ValidationSpec { certificate_sha256: vec![info.0], ..ValidationSpec::default() };
    serve(server(&inbound(&authority, alone, true)), present(), |outcome| {
        assert!(outcome.accepted().peer.unwrap().validated);
    });
    let alone = ValidationSpec { certificate_sha256: vec![[2; 32]], ..ValidationSpec::default() };
    serve(server(&inbound(&authority, alone, true)), present(), |outcome| {
        outcome.refused("not among the pinned", Alert::CertificateUnknown);
    });
}

struct PinOf([u8; 32]);

impl PinOf {
    fn new(pem: &CertifiedPem) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &chain_of(pem)[0]);
        Self(digest.as_ref().try_into().unwrap())
    }
}

#[test]
fn a_server_is_known_by_its_spiffe_name_and_by_its_address_only_on_request() {
    let authority = Authority::new("root");
    let other = Authority::new("other root");
    let payments =
        |authority: &Authority| authority.issue(Leaf { dns: &["payments.prod.svc"], ..Leaf::uri(&PAYMENTS) });
    let cases = [
        (payments(&authority), authority.validation(&[PAYMENTS]), false, None),
        (payments(&authority), authority.validation(&[ORDERS]), false, Some("none of the 1 accepted names")),
        (payments(&other), authority.validation(&[PAYMENTS]), false, Some("UnknownIssuer")),
        (payments(&authority), authority.validation(&[]), true, None),
        (authority.issue(Leaf::uri(&PAYMENTS)), authority.validation(&[]), true, Some("NotValidForName")),
        (
            authority.issue(Leaf { not_after: (2022, 1, 1), ..Leaf::uri(&PAYMENTS) }),
            authority.validation(&[]),
            false,
            Some("expired"),
        ),
    ];
    for (certificate, validation, match_server_name, expected) in cases {
        let mut spec = ClientSpec::new("outbound");
        spec.sni = Some("payments.prod.svc".to_owned());
        spec.validation = Some(validation);
        spec.match_server_name = match_server_name;
        let context = client(&spec);
        let config = rustls_server(&certificate, None, TLS13, &[]);
        on_both_drivers(move |core| {
            let (context, config) = (context.clone(), config.clone());
            async move {
                let far = Far::run(move |socket| {
                    let mut tls = rustls_accept(config, socket);
                    tls.read_exact(&mut [0]).err().and_then(told)
                });
                let (near, far) = far.split();
                let tls = TlsCore::new(&core);
                let tcp = adopt(&core, near);
                let result = connect(&tls, tcp, &context, ConnectParams::default(), deadline(&core)).await;
                match (result, expected) {
                    (Ok(stream), None) => {
                        write_bytes(&core, &stream, b"x").await;
                        assert_eq!(finish(&core, far).await, None);
                    }
                    (Err(error), Some(expected)) => {
                        assert!(error.to_string().contains(expected), "{error}");
                        assert!(finish(&core, far).await.is_some(), "the server must be told");
                    }
                    (result, expected) => panic!("{result:?} in place of {expected:?}"),
                }
            }
        });
    }
}

#[test]
fn a_server_that_is_not_verified_has_no_principal() {
    let authority = Authority::new("root");
    let context = client(&ClientSpec::new("outbound"));
    let config = rustls_server(&authority.issue(Leaf::uri(&PAYMENTS)), None, TLS13, &[]);
    on_both_drivers(move |core| {
        let (context, config) = (context.clone(), config.clone());
        async move {
            let far = Far::run(move |socket| {
                let mut tls = rustls_accept(config, socket);
                tls.read_exact(&mut [0]).unwrap();
                tls.conn.server_name().map(str::to_owned)
            });
            let (near, far) = far.split();
            let tls = TlsCore::new(&core);
            let tcp = adopt(&core, near);
            let stream =
                connect(&tls, tcp, &context, ConnectParams::default(), deadline(&core)).await.unwrap();
            assert_eq!(stream.peer().unwrap().principal(), None);
            write_bytes(&core, &stream, b"x").await;
            // no name was configured, so an address, which is no server name, stood in
            assert_eq!(finish(&core, far).await, None);
        }
    });
}

#[test]
fn configurations_that_cannot_work_are_refused_by_name_and_cause() {
    let authority = Authority::new("root");
    let good = authority.issue(Leaf::uri(&PAYMENTS));
    let foreign = authority.issue(Leaf::uri(&PAYMENTS));
    let text = |change: &dyn Fn(&mut CertifiedPem)| {
        let mut pem = good.clone();
        change(&mut pem);
        let spec = ServerSpec::new("inbound", pem);
        ServerContext::build(&spec, &environment(), 1, 1).unwrap_err().to_string()
    };
    let broken = b"-----BEGIN CERTIFICATE-----\nAAAA".to_vec();
    let expired = authority.issue(Leaf { not_after: (2021, 1, 1), ..Leaf::default() });
    let cases = [
        (
            text(&|pem| pem.key = foreign.key.clone()),
            "leaf's key: the private key does not match the certificate of leaf;",
        ),
        (text(&|pem| pem.chain = pem.key.clone()), "leaf: holds no certificate;"),
        (text(&|pem| pem.key = pem.chain.clone()), "leaf's key: holds no private key;"),
        (text(&|pem| pem.chain = broken.clone()), "leaf: not valid PEM"),
        (text(&|pem| pem.chain = pem.chain.repeat(17)), "leaf: the chain has 17 certificates"),
        (text(&|pem| *pem = expired.clone()), "leaf: the certificate expired at unix second 1609459200"),
    ];
    for (message, expected) in cases {
        assert!(message.starts_with(expected), "{message}");
    }
    let refuse = |validation: ValidationSpec| {
        let spec = inbound(&authority, validation, true);
        ServerContext::build(&spec, &environment(), 1, 1).unwrap_err().to_string()
    };
    let no_bundle = ValidationSpec { sans: vec![SanMatch::exact_uri(ORDERS)], ..ValidationSpec::default() };
    assert!(refuse(no_bundle).starts_with("inbound: subject alternative names"));
    let mut spec = ClientSpec::new("outbound");
    spec.sni = Some("not a name".to_owned());
    assert!(ClientContext::build(&spec, &environment()).unwrap_err().to_string().contains("\"not a name\""));
}

/// A file that something writes anew is empty first, and then half done. Neither may turn a check off.
#[test]
fn an_empty_or_half_written_bundle_or_revocation_list_never_counts_as_none() {
    let authority = Authority::new("root");
    let chain = authority.issue(Leaf::uri(&PAYMENTS)).chain;
    let refused = |change: &dyn Fn(&mut ValidationSpec)| {
        let mut validation = authority.validation(&[]);
        change(&mut validation);
        let as_server = inbound(&authority, validation.clone(), true);
        let as_server = ServerContext::build(&as_server, &environment(), 1, 1).unwrap_err().to_string();
        let mut as_client = ClientSpec::new("outbound");
        as_client.validation = Some(validation);
        let as_client = ClientContext::build(&as_client, &environment()).unwrap_err().to_string();
        assert_eq!(as_server, as_client);
        as_server
    };
    let bundle = |text: &[u8]| refused(&|spec| spec.trust_bundle = Some(NamedPem::new("ca.pem", text)));
    for text in ["", "\n", "nothing"] {
        assert!(bundle(text.as_bytes()).starts_with("ca.pem: holds no certificate"), "{text:?}");
    }
    let two = (authority.pem() + &authority.pem()).into_bytes();
    assert!(bundle(&two[..two.len() - 100]).starts_with("ca.pem: not valid PEM"));
    assert!(bundle(&two[..authority.pem().len() + 7]).starts_with("ca.pem: not valid PEM"), "a line begun");

    let crl = |text: &[u8]| refused(&|spec| spec.crl = Some(NamedPem::new("crl.pem", text)));
    let none = "crl.pem: certificate revocation list cannot be parsed (it holds no X509 CRL block";
    for text in [&b""[..], b"nothing", &chain] {
        assert!(crl(text).starts_with(none), "{}", crl(text));
    }
    let list = authority.revoke(9);
    assert!(crl(&list[..list.len() - 40]).starts_with("crl.pem: not valid PEM"));
}

#[test]
fn peers_that_do_not_speak_tls_or_hang_up_or_stall_are_named() {
    let authority = Authority::new("root");
    let context = server(&ServerSpec::new("inbound", authority.issue(Leaf::uri(&PAYMENTS))));
    on_both_drivers(move |core| {
        let context = context.clone();
        async move {
            let tls = TlsCore::new(&core);
            let attempt = async |bytes: &[u8], hang_up: bool| {
                let (near, mut far) = sockets();
                far.write_all(bytes).unwrap();
                if hang_up {
                    far.shutdown(std::net::Shutdown::Write).unwrap();
                }
                let tcp = adopt(&core, near);
                let by = core.now() + std::time::Duration::from_millis(if hang_up { 20_000 } else { 30 });
                let error = accept(&tls, tcp, &context, None, by).await.unwrap_err();
                let mut answer = Vec::new();
                let _ = far.read_to_end(&mut answer);
                (error, answer)
            };
            assert!(matches!(attempt(b"GET / HTTP/1.1\r\n\r\n", true).await.0, TlsError::NotTls));
            assert!(matches!(attempt(b"", true).await.0, TlsError::HandshakeClosed));
            assert!(matches!(attempt(b"\x16\x03\x01\x02\x00\x01", true).await.0, TlsError::HandshakeClosed));
            assert!(matches!(attempt(b"\x16\x03\x01", false).await.0, TlsError::HandshakeTimeout));
            let (error, answer) = attempt(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", true).await;
            assert!(matches!(error, TlsError::Handshake(rustls::Error::InvalidMessage(_))), "{error}");
            assert_eq!(answer[..6], [21, 3, 3, 0, 2, 2], "a fatal alert");
            assert_eq!(tls.stats().failed, 5);
            assert_eq!(core.buffers().stats().in_use, 0);
        }
    });
}
