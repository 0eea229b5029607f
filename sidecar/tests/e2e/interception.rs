//! Interception as in a pod: a network namespace, iptables REDIRECT, the original destination read back from the socket.
//! The sidecar runs as uid 1337, whose own connections are let through.

use crate::support::{
    Answer, App, Client, NetworkNamespace, Proxy, Request, fill, proxy::sidecar_copied_to, skip::skip,
};
use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
};

const SIDECAR_UID: u32 = 1337;
const CONFIG: &str = include_str!("interception.yaml");

/// The namespace of a pod whose app calls two others.
fn outbound() -> Result<NetworkNamespace, String> {
    let namespace = NetworkNamespace::create()?;
    // two pods that are not this one
    for address in ["10.99.0.1/32", "10.99.0.2/32"] {
        namespace.add_address(address, "lo")?;
    }
    let uid = SIDECAR_UID.to_string();
    let not_ours = ["-m", "owner", "!", "--uid-owner", &uid];
    let rule =
        [&["-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-d", "10.99.0.0/16"][..], &not_ours[..]].concat();
    namespace.inside("iptables", &[&rule[..], &["-j", "REDIRECT", "--to-ports", "15001"]].concat())?;
    Ok(namespace)
}

#[test]
fn redirected_connections_reach_where_the_app_meant_them_to_go() {
    match outbound() {
        Ok(namespace) => namespace.run(intercepted),
        Err(reason) => skip("interception", &reason),
    }
}

fn intercepted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // the sidecar, another user, writes its admin address here
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("our own folder");
    let one = App::start_on("10.99.0.1:0", |request| Answer::ok(format!("one {}", request.path)));
    let two = App::start_on("10.99.0.2:0", |request| Answer::ok(format!("two {}", request.path)));
    let mut command = sidecar_copied_to(folder.path());
    command.args(["--concurrency", "2"]).uid(SIDECAR_UID).gid(SIDECAR_UID);
    let proxy =
        Proxy::run(command, folder.path(), "outbound", &fill(CONFIG, &[("LISTED_PORT", &two.port())]));
    // the app dials the pods; it has never heard of a sidecar
    for (app, name) in [(&one, "one"), (&two, "two")] {
        let mut client = Client::connect(app.address);
        for path in ["/a", "/b"] {
            assert_eq!(client.call(&Request::get(path)).text(), format!("{name} {path}"));
        }
    }
    assert_eq!((one.requests(), two.requests()), (2, 2));
    // the one that has a listener of its own is served by it
    proxy.wait_stat("http.outbound.downstream_rq_total", 2);
    proxy.wait_stat("http.listed.downstream_rq_total", 2);
    proxy.wait_stat("cluster.original.upstream_cx_total", 2);
    // a destination where nobody listens is told as a failure, not as the sidecar's own listener
    let mut nowhere = Client::connect("10.99.0.1:9".parse().expect("an address"));
    assert_eq!(nowhere.call(&Request::get("/")).status, 503);
}
