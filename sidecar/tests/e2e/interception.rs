//! Interception as in a pod: a network namespace, iptables REDIRECT, the original destination read back from the socket.
//! The sidecar runs as uid 1337, whose own connections are let through.

use crate::support::{Answer, App, Client, Proxy, Request, proxy::sidecar_copied_to, skip::skip};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    fs::{self, File},
    os::{fd::AsFd, unix::fs::PermissionsExt, unix::process::CommandExt},
    process::Command,
};

const SIDECAR_UID: u32 = 1337;
const CONFIG: &str = include_str!("interception.yaml");

/// Removed with everything in it when the test ends.
struct NetworkNamespace {
    name: String,
}

impl NetworkNamespace {
    fn create() -> Result<NetworkNamespace, String> {
        let name = format!("corelane-{}", std::process::id());
        run("ip", &["netns", "add", &name])?;
        let namespace = NetworkNamespace { name };
        namespace.inside("ip", &["link", "set", "lo", "up"])?;
        // two pods that are not this one
        for address in ["10.99.0.1/32", "10.99.0.2/32"] {
            namespace.inside("ip", &["address", "add", address, "dev", "lo"])?;
        }
        let uid = SIDECAR_UID.to_string();
        let not_ours = ["-m", "owner", "!", "--uid-owner", &uid];
        let rule =
            [&["-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-d", "10.99.0.0/16"][..], &not_ours[..]].concat();
        namespace.inside("iptables", &[&rule[..], &["-j", "REDIRECT", "--to-ports", "15001"]].concat())?;
        Ok(namespace)
    }

    fn inside(&self, program: &str, arguments: &[&str]) -> Result<(), String> {
        run("ip", &[&["netns", "exec", &self.name, program], arguments].concat())
    }

    /// Runs on a thread inside; the threads and processes that it starts are inside too.
    fn run(&self, test: impl FnOnce() + Send) {
        let file = File::open(format!("/run/netns/{}", self.name)).expect("the namespace's file");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("we made it, so we may enter");
                test();
            });
        });
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        let _ = run("ip", &["netns", "delete", &self.name]);
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(arguments).env("PATH", path).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let line =
        || format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    output.status.success().then_some(()).ok_or_else(line)
}

#[test]
fn redirected_connections_reach_where_the_app_meant_them_to_go() {
    match NetworkNamespace::create() {
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
    let proxy = Proxy::run(command, folder.path(), "outbound", CONFIG);
    // the app dials the pods; it has never heard of a sidecar
    for (app, name) in [(&one, "one"), (&two, "two")] {
        let mut client = Client::connect(app.address);
        for path in ["/a", "/b"] {
            assert_eq!(client.call(&Request::get(path)).text(), format!("{name} {path}"));
        }
    }
    assert_eq!((one.requests(), two.requests()), (2, 2));
    proxy.wait_stat("http.outbound.downstream_rq_total", 4);
    proxy.wait_stat("cluster.original.upstream_cx_total", 2);
    // a destination where nobody listens is told as a failure, not as the sidecar's own listener
    let mut nowhere = Client::connect("10.99.0.1:9".parse().expect("an address"));
    assert_eq!(nowhere.call(&Request::get("/")).status, 503);
}
