//! Access logs that tell of connections.

mod support;

use corelane_snapshot::{
    AccessLog, AccessLogFilter, AccessLogSink, FilterChain, JsonField, JsonTemplate, Listener, LogFormat,
    NetworkFilter, Permission, Principal, Rbac, RbacAction, RbacPolicy, RbacRules, StatBlock, Terminal,
    TlsParams, TransportSocket, UpstreamTls, template::Template,
};
use std::sync::Arc;
use support::{Proxy, Setup, TRUSTING_CLIENT, Upstream, ok};

const TCP: u16 = 0;
const LISTENER: u16 = 1;

fn log(sink_id: u16, format: &str) -> Arc<AccessLog> {
    let format = LogFormat::Text(Template::parse(format).expect("format"));
    Arc::new(AccessLog { sink: AccessLogSink::Stdout, sink_id, format, filter: None })
}

fn chain(listener: &mut Listener) -> &mut FilterChain {
    Arc::get_mut(&mut listener.chains[0]).expect("not shared yet")
}

fn log_tcp(listener: &mut Listener, format: &str) {
    let Terminal::Tcp(proxy) = &mut chain(listener).terminal else { panic!("tcp") };
    Arc::get_mut(proxy).expect("not shared yet").access_log.push(log(TCP, format));
}

/// Waits for so many lines: the sink's number, and the text.
#[track_caller]
fn logged(proxy: &Proxy, lines: usize) -> Vec<(u16, String)> {
    let found = std::cell::RefCell::new(Vec::new());
    proxy.until("lines", || {
        let line = |sink, line: &[u8]| (sink, String::from_utf8(line.to_vec()).expect("text"));
        proxy.log.drain(|sink, text| found.borrow_mut().push(line(sink, text)));
        found.borrow().len() >= lines
    });
    found.into_inner()
}

#[test]
fn a_relayed_connection_is_logged_when_it_ends_by_the_proxy_and_by_the_listener() {
    let upstream = Upstream::start(|_, mut client| {
        assert_eq!(client.read_to_end(), b"question");
        client.send(b"answer");
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.tcp = true;
    setup.listener = |listener| {
        log_tcp(
            listener,
            "%BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_WIRE_BYTES_SENT% %UPSTREAM_WIRE_BYTES_RECEIVED% \
             %RESPONSE_FLAGS% %RESPONSE_CODE% %PROTOCOL% %REQ(:PATH)% %UPSTREAM_CLUSTER% %UPSTREAM_HOST% \
             %UPSTREAM_REQUEST_ATTEMPT_COUNT% %UPSTREAM_PROTOCOL% %ROUTE_NAME%",
        );
        listener.access_log.push(log(LISTENER, "%BYTES_RECEIVED% %DOWNSTREAM_LOCAL_ADDRESS%"));
    };
    let proxy = setup.start();
    let mut client = proxy.connect();
    client.send(b"question");
    client.half_close();
    assert_eq!(client.read_to_end(), b"answer");
    assert_eq!(
        logged(&proxy, 2),
        [
            (TCP, format!("8 6 8 6 - 0 - - upstream {} 1 - -", upstream.address)),
            (LISTENER, format!("8 {}", proxy.address)),
        ]
    );
}

#[test]
fn a_connection_that_reaches_nobody_says_why() {
    let gone = {
        let unused = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        unused.local_addr().expect("address")
    };
    for (endpoints, line) in
        [(vec![gone], format!("UF,URX 1 upstream {gone} 0")), (vec![], "UH 0 upstream - 0".to_owned())]
    {
        let mut setup = Setup::to(&endpoints);
        setup.tcp = true;
        setup.listener = |listener| {
            let format = "%RESPONSE_FLAGS% %UPSTREAM_REQUEST_ATTEMPT_COUNT% %UPSTREAM_CLUSTER% \
                          %UPSTREAM_HOST% %BYTES_SENT%";
            log_tcp(listener, format);
        };
        let proxy = setup.start();
        proxy.connect().read_to_end_or_reset();
        assert_eq!(logged(&proxy, 1), [(TCP, line)]);
    }
}

#[test]
fn a_connection_without_a_filter_chain_is_logged_by_the_listener() {
    let upstream = Upstream::answering(|_, _| ok("never"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.listener = |listener| {
        listener.chains.clear();
        let mut no_route = log(
            LISTENER,
            "%PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_HOST% \
             %DOWNSTREAM_LOCAL_ADDRESS% %CONNECTION_ID%",
        );
        // as Istio writes it
        let filter = AccessLogFilter::ResponseFlags(vec!["NR".into()]);
        Arc::get_mut(&mut no_route).expect("own").filter = Some(filter);
        listener.access_log.push(no_route);
    };
    let proxy = setup.start();
    proxy.connect().read_to_end_or_reset();
    let line = format!("- 0 NR filter_chain_not_found - {} -", proxy.address);
    assert_eq!(logged(&proxy, 1), [(LISTENER, line)]);
}

#[test]
fn a_connection_of_requests_is_one_line_of_the_listener_and_none_where_its_filter_says_so() {
    let upstream = Upstream::answering(|_, _| ok("ok"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.listener = |listener| {
        let mut failed = log(TCP, "never");
        let filter = AccessLogFilter::ResponseFlags(Vec::new());
        Arc::get_mut(&mut failed).expect("own").filter = Some(filter);
        listener.access_log = vec![failed, log(LISTENER, "%CONNECTION_ID% %RESPONSE_FLAGS%")];
    };
    let proxy = setup.start();
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.answer().status, 200);
    }
    drop(client);
    let lines = logged(&proxy, 1);
    assert_eq!(lines.len(), 1);
    assert!(lines[0].0 == LISTENER && lines[0].1.ends_with(" -"), "{lines:?}");
}

#[test]
fn a_connection_that_a_policy_refuses_names_the_policy() {
    let upstream = Upstream::start(|_, _| {});
    let mut setup = Setup::to(&[upstream.address]);
    setup.tcp = true;
    setup.listener = |listener| {
        let nobody = RbacPolicy {
            name: "nobody".into(),
            permissions: vec![Permission::Any],
            principals: vec![Principal::Any],
        };
        let rules = RbacRules { action: RbacAction::Deny, policies: vec![nobody] };
        chain(listener).network_filters.push(NetworkFilter::Rbac(Arc::new(Rbac {
            rules: Some(rules),
            shadow_rules: None,
            shadow_stats: StatBlock::default(),
            stats: StatBlock::default(),
        })));
        log_tcp(listener, "%CONNECTION_TERMINATION_DETAILS% %BYTES_RECEIVED% %RESPONSE_FLAGS%");
    };
    let proxy = setup.start();
    proxy.connect().read_to_end_or_reset();
    let line = "rbac_access_denied_matched_policy[nobody] 0 -".to_owned();
    assert_eq!(logged(&proxy, 1), [(TCP, line)]);
}

#[test]
fn a_handshake_that_fails_says_why_in_one_word() {
    let upstream = Upstream::start(|_, mut client| client.send(b"220 this is no TLS\r\n"));
    for tcp in [true, false] {
        let mut setup = Setup::to(&[upstream.address]);
        setup.tcp = tcp;
        setup.cluster = |cluster| {
            cluster.transport.sockets = vec![TransportSocket::Tls(Arc::new(UpstreamTls {
                context: TRUSTING_CLIENT,
                sni: None,
                certificate: None,
                validation: None,
                alpn: Vec::new(),
                params: TlsParams::default(),
                session_keys_max: 1,
            }))];
        };
        const FORMAT: &str = "%RESPONSE_CODE% %UPSTREAM_TRANSPORT_FAILURE_REASON%";
        setup.manager = |manager| manager.access_log.push(log(TCP, FORMAT));
        if tcp {
            setup.listener = |listener| log_tcp(listener, FORMAT);
        }
        let proxy = setup.start();
        let mut client = proxy.connect();
        // a relay's client may be reset before it has said anything
        let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let _ = std::io::Write::write_all(&mut client.stream, request);
        client.read_to_end_or_reset();
        let lines = logged(&proxy, 1);
        let (code, reason) = lines[0].1.split_once(' ').expect("two words");
        assert_eq!(code, if tcp { "0" } else { "503" });
        assert!(reason.contains("handshake") && !reason.contains(char::is_whitespace), "{reason}");
    }
}

#[test]
fn json_shows_what_is_absent_as_null_or_not_at_all() {
    let upstream = Upstream::answering(|_, _| ok("ok"));
    for (omit_empty, line) in [
        (false, "{\"path\":null,\"bytes\":0,\"list\":[null,\"-\"],\"text\":\"a -\",\"last\":null}\n"),
        (true, "{\"bytes\":0,\"list\":[null,\"-\"],\"text\":\"a \"}\n"),
    ] {
        let mut setup = Setup::to(&[upstream.address]);
        setup.listener = if omit_empty { |l| log_json(l, true) } else { |l| log_json(l, false) };
        let proxy = setup.start();
        drop(proxy.connect());
        assert_eq!(logged(&proxy, 1), [(LISTENER, line.to_owned())]);
    }
}

fn log_json(listener: &mut Listener, omit_empty: bool) {
    let value = |format: &str| {
        JsonTemplate::Template(Template { omit_empty, ..Template::parse(format).expect("format") })
    };
    let field = |key: &str, value| JsonField { key: key.into(), value };
    let mut log = log(LISTENER, "");
    Arc::get_mut(&mut log).expect("own").format = LogFormat::Json(vec![
        field("path", value("%REQ(:PATH)%")),
        field("bytes", value("%BYTES_SENT%")),
        field("list", JsonTemplate::List(vec![value("%PROTOCOL%"), value("%RESPONSE_FLAGS%")])),
        field("text", value("a %PROTOCOL%")),
        field("last", value("%ROUTE_NAME%")),
    ]);
    listener.access_log.push(log);
}
