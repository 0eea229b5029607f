//! Inbound interception as in a pod: a caller in another network namespace dials the workload's own port; iptables
//! redirects it to the sidecar, which chooses the filter chain by the port that was meant.

use crate::support::{
    Answer, App, Client, NetworkNamespace, Proxy, Received, Request, fill, proxy::sidecar, skip::skip,
};
use std::{
    io::{ErrorKind, Write},
    net::{IpAddr, SocketAddr, TcpListener},
};

const CONFIG: &str = include_str!("inbound.yaml");

/// One family's addresses, and the program that redirects.
struct Family {
    skip: &'static str,
    iptables: &'static str,
    workload: &'static str,
    caller: &'static str,
    prefix: u8,
    any: &'static str,
    loopback: &'static str,
    /// The source of what is passed through: Istio's own, by which its rules know it.
    passed_through: &'static str,
}

const IPV4: Family = Family {
    skip: "interception",
    iptables: "iptables",
    workload: "10.98.0.1",
    caller: "10.98.0.2",
    prefix: 24,
    any: "0.0.0.0",
    loopback: "127.0.0.1",
    passed_through: "127.0.0.6",
};

const IPV6: Family = Family {
    skip: "interception of IPv6",
    iptables: "ip6tables",
    workload: "fd98::1",
    caller: "fd98::2",
    prefix: 64,
    any: "::",
    loopback: "::1",
    passed_through: "::6",
};

impl Family {
    fn workload_at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.workload.parse().expect("an address"), port)
    }

    /// A workload's namespace and a caller's, joined.
    fn namespaces(&self) -> Result<(NetworkNamespace, NetworkNamespace), String> {
        let (workload, caller) = (NetworkNamespace::create()?, NetworkNamespace::create()?);
        workload.connect(&caller)?;
        for (namespace, address) in [(&workload, self.workload), (&caller, self.caller)] {
            namespace.add_address(&format!("{address}/{}", self.prefix), "eth0")?;
        }
        if self.any == "::" {
            // all of 127.0.0.0/8 is loopback's already
            workload.add_address(&format!("{}/128", self.passed_through), "lo")?;
        }
        // whether this kernel and this process can redirect at all; the rule itself needs a port
        workload.inside(self.iptables, &["-t", "nat", "-N", "CORELANE_INBOUND"])?;
        Ok((workload, caller))
    }

    fn redirect(&self, workload: &NetworkNamespace, to: u16) {
        let rule = ["-t", "nat", "-A", "CORELANE_INBOUND", "-p", "tcp", "-j", "REDIRECT", "--to-ports"];
        let jump = ["-t", "nat", "-A", "PREROUTING", "-i", "eth0", "-p", "tcp", "-j", "CORELANE_INBOUND"];
        let added = workload.inside(self.iptables, &[&rule[..], &[&to.to_string()]].concat());
        added.and_then(|()| workload.inside(self.iptables, &jump)).expect("a chain of ours takes rules");
    }
}

#[test]
fn callers_reach_the_app_by_the_port_they_meant() {
    check(&IPV4);
}

#[test]
fn callers_over_ipv6_reach_the_app_by_the_port_they_meant() {
    check(&IPV6);
}

fn check(family: &Family) {
    match family.namespaces() {
        Ok((workload, caller)) => workload.run(|| intercepted(family, &workload, &caller)),
        Err(reason) => skip(family.skip, &reason),
    }
}

/// A port of the namespace that nobody has; all who could take it are ours.
fn free_port(family: &Family) -> u16 {
    let held = TcpListener::bind((family.loopback, 0)).expect("loopback is up");
    held.local_addr().expect("bound").port()
}

fn what_it_was_told(request: &Received) -> Answer {
    let field = |name| request.head.get(name).unwrap_or("none").to_owned();
    Answer::ok(format!("{} from {} to {}", request.path, field("x-caller"), field("x-meant")))
}

fn who_dials(_: &Received) -> Answer {
    Answer::Takeover(Box::new(|mut stream| {
        let peer = stream.peer_addr().expect("connected").ip().to_string();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{peer}", peer.len());
        stream.write_all(answer.as_bytes()).expect("the sidecar reads");
    }))
}

fn intercepted(family: &Family, workload: &NetworkNamespace, caller: &NetworkNamespace) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // nobody outside could reach the one; the other's port is in no filter chain
    let app = App::start_on(&SocketAddr::new(parse(family.loopback), 0).to_string(), what_it_was_told);
    let unlisted = App::start_on(&family.workload_at(0).to_string(), who_dials);
    let (inbound, nobody) = (free_port(family), free_port(family));
    let config = fill(
        CONFIG,
        &[
            ("ANY", &family.any),
            ("INBOUND_PORT", &inbound),
            ("INBOUND_END", &(u32::from(inbound) + 1)),
            ("APP_PORT", &app.port()),
            ("LOOPBACK", &family.loopback),
            ("PASSED_THROUGH", &family.passed_through),
        ],
    );
    let mut command = sidecar();
    command.args(["--concurrency", "2"]);
    let proxy = Proxy::run(command, folder.path(), "inbound", &config);
    family.redirect(workload, inbound);
    let dial = |port: u16| caller.run(|| Client::connect(family.workload_at(port)));

    let mut client = dial(app.port());
    for path in ["/a", "/b"] {
        let told = format!("{path} from {} to {}", family.caller, family.workload_at(app.port()));
        assert_eq!(client.call(&Request::get(path)).text(), told);
    }
    proxy.wait_stat("http.inbound_app.downstream_rq_total", 2);
    proxy.wait_stat("cluster.app.upstream_cx_total", 1);

    assert_eq!(dial(unlisted.port()).call(&Request::get("/")).text(), family.passed_through);
    proxy.wait_stat("cluster.passthrough.upstream_cx_total", 1);

    // neither a port where nobody listens nor the sidecar's own, which would call itself for ever
    for (port, counted) in [
        (nobody, "cluster.passthrough.upstream_cx_connect_fail"),
        (inbound, "cluster.blackhole.upstream_cx_none_healthy"),
    ] {
        // the reset may come before the caller has seen that it is connected
        let called =
            caller.run(|| Client::try_connect(family.workload_at(port))?.try_call(&Request::get("/")));
        let ended = called.expect_err("nobody answers").kind();
        assert!([ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].contains(&ended), "{ended:?}");
        proxy.wait_stat(counted, 1);
    }
    assert_eq!((app.requests(), app.connections(), unlisted.requests()), (2, 1, 1));
    assert_eq!(proxy.listeners_stat("downstream_cx_total"), 4);
}

fn parse(address: &str) -> IpAddr {
    address.parse().expect("an address")
}
