//! What a listener learns before a filter chain is chosen, and names that are resolved while the sidecar runs.

use crate::{
    hop::Hop,
    support::{Answer, App, Client, Identities, Proxy, Request, fill, skip::skip, wait_for},
};

#[test]
fn permissive_mutual_tls_serves_the_mesh_and_plain_callers_on_one_port() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let identities = Identities::issue(folder.path());
    let config = fill(include_str!("listener.yaml"), &[("FOLDER", &folder.path().display())]);
    let proxy = Proxy::start(folder.path(), "mixed", &config);
    let address = proxy.listener("mixed");
    assert_eq!(Client::connect(address).call(&Request::get("/")).text(), "plain");
    let mut meshed =
        Client::connect_tls(address, identities.client(Some("orders"), "http/1.1")).expect("a handshake");
    assert_eq!(meshed.call(&Request::get("/")).text(), "mesh");
    // a plain caller whose first byte comes late is not taken for anything else
    let mut slow = Client::connect(address);
    for byte in Request::get("/").bytes() {
        slow.send(&[byte]);
    }
    assert_eq!(slow.read("GET").text(), "plain");
    proxy.wait_stat("http.mesh.downstream_rq_total", 1);
    proxy.wait_stat("http.plain.downstream_rq_total", 2);
    proxy.wait_stat("http.mesh.downstream_cx_ssl_total", 1);
    proxy.wait_stat("http.mesh.downstream_cx_ssl_active", 1);
    proxy.wait_stat("http.plain.downstream_cx_ssl_total", 0);
    for (stat, connections) in [("tls_found", 1), ("sni_found", 1), ("alpn_found", 1), ("tls_not_found", 2)] {
        proxy.wait_stat(&format!("tls_inspector.{stat}"), connections);
    }
}

#[test]
fn a_listener_tells_of_callers_that_it_did_not_serve() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let identities = Identities::issue(folder.path());
    let path = folder.path().join("listener.log");
    let log = format!(
        "  - name: mixed\n    access_log:\n    - name: file\n      typed_config:\n        \
         \"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog\n        \
         path: {}\n        log_format: {{ text_format_source: {{ inline_string: \"%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% \
         %DOWNSTREAM_TRANSPORT_FAILURE_REASON% %REQUESTED_SERVER_NAME%\\n\" }} }}\n",
        path.display()
    );
    let config = fill(include_str!("listener.yaml"), &[("FOLDER", &folder.path().display())]);
    let config =
        config.replacen("  - name: mixed\n", &log, 1).replacen("[localhost]", "[elsewhere, localhost]", 1);
    let proxy = Proxy::start(folder.path(), "mixed", &config);
    let address = proxy.listener("mixed");
    let line = |wanted: &str| {
        wait_for(wanted, || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if text.lines().any(|line| line.starts_with(wanted)) { Ok(()) } else { Err(text) }
        });
    };
    // whether its own side of the handshake ends before it hears of the end is the client's affair
    drop(Client::connect_tls(address, identities.client(None, "http/1.1")));
    line("- - TLS_handshake_");
    let other =
        config.replacen("[elsewhere, localhost]", "[elsewhere]", 1).replacen("id: mixed", "id: other", 1);
    let other = Proxy::start(folder.path(), "other", &other);
    assert!(Client::connect_tls(other.listener("mixed"), identities.client(None, "http/1.1")).is_err());
    line("NR filter_chain_not_found - localhost");
}

#[test]
fn a_proxy_header_names_the_client() {
    let app = App::start(|request| Answer::ok(request.head.get("x-forwarded-for").unwrap_or("-").to_owned()));
    let filter = "listener_filters:\n- name: proxy_protocol\n  typed_config:\n    \
                  \"@type\": type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol\n";
    let hop = Hop {
        endpoints: &[app.port()],
        listener: filter,
        manager: "use_remote_address: true",
        ..Hop::default()
    }
    .start();
    let address = hop.proxy.listener("hop");
    let mut client = Client::connect(address);
    client.send(b"PROXY TCP4 203.0.113.7 198.51.100.1 40000 80\r\n");
    assert_eq!(client.call(&Request::get("/")).text(), "203.0.113.7");
    let mut second = Client::connect(address);
    second.send(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x08\xc6\x33\x64\x01\x9c\x40\0\x50");
    assert_eq!(second.call(&Request::get("/")).text(), "203.0.113.8");
    // without the header, or with rubbish in it, the connection is not served
    for rubbish in [&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], b"PROXY TCP9 x y z\r\n"] {
        let mut refused = Client::connect(address);
        refused.send(rubbish);
        assert!(refused.read_to_end().unwrap_or_default().is_empty());
    }
    assert_eq!(app.requests(), 2);
}

#[test]
fn a_name_is_resolved_without_holding_anybody_up() {
    let app = App::start(|_| Answer::ok("found"));
    let config = Hop { endpoints: &[app.port()], ..Hop::default() }.yaml();
    let (before, after) = config.split_once("  clusters:\n").expect("the clusters");
    let after = after.replace("type: STATIC", "type: STRICT_DNS\n    dns_lookup_family: V4_ONLY");
    let after = after.replace("address: 127.0.0.1", "address: localhost");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let proxy = Proxy::start(folder.path(), "named", &format!("{before}  clusters:\n{after}"));
    let mut client = Client::connect(proxy.listener("hop"));
    assert_eq!(client.call(&Request::get("/")).text(), "found");
    assert_eq!(proxy.endpoint("app", app.address, "hostname"), "localhost");
}

#[test]
fn an_ipv6_listener_takes_ipv4_only_where_it_says_so() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return skip("IPv6 listener", "this machine has no IPv6");
    }
    let app = App::start(|request| Answer::ok(request.head.get("x-forwarded-for").unwrap_or("-").to_owned()));
    let plain =
        Hop { endpoints: &[app.port()], manager: "use_remote_address: true", ..Hop::default() }.yaml();
    for compatible in [true, false] {
        let address = format!("address: \"::\", ipv4_compat: {compatible}, port_value: 0");
        let config = plain.replacen("address: 127.0.0.1, port_value: 0", "ADMIN", 1);
        let config = config.replacen("address: 127.0.0.1, port_value: 0", &address, 1);
        let config = config.replacen("ADMIN", "address: 127.0.0.1, port_value: 0", 1);
        assert!(config.contains(&address), "{config}");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let proxy = Proxy::start(folder.path(), "six", &config);
        let port = proxy.listener("hop").port();
        let mut six = Client::connect(format!("[::1]:{port}").parse().expect("an address"));
        assert_eq!(six.call(&Request::get("/")).text(), "::1");
        let four = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        if compatible {
            assert_eq!(Client::connect(four).call(&Request::get("/")).text(), "127.0.0.1");
        } else {
            assert!(std::net::TcpStream::connect(four).is_err());
        }
    }
}

#[test]
fn connections_are_placed_on_both_cores() {
    let app = App::start(|_| Answer::ok("ok"));
    let hop = Hop { endpoints: &[app.port()], ..Hop::default() }.start();
    let address = hop.proxy.listener("hop");
    let mut clients: Vec<Client> = (0..16).map(|_| Client::connect(address)).collect();
    for client in &mut clients {
        assert_eq!(client.call(&Request::get("/")).status, 200);
    }
    // each core has connections of its own to the app, and keeps one at least
    assert!(app.connections() >= 2, "{}", app.connections());
    hop.proxy.wait_stat("http.hop.downstream_cx_active", 16);
}
