//! Network namespaces for tests of interception: each is a pod of its own, with addresses and iptables rules that
//! touch nothing else on the machine.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    fs::File,
    os::fd::AsFd,
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

/// Removed with everything in it when the test ends.
pub struct NetworkNamespace {
    name: String,
}

impl NetworkNamespace {
    /// With loopback up. The error says what this process may not do here.
    pub fn create() -> Result<NetworkNamespace, String> {
        static CREATED: AtomicU32 = AtomicU32::new(0);
        let name = format!("corelane-{}-{}", process::id(), CREATED.fetch_add(1, Relaxed));
        run("ip", &["netns", "add", &name])?;
        let namespace = NetworkNamespace { name };
        namespace.inside("ip", &["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Joins the two by a cable that is called `eth0` at both ends.
    pub fn connect(&self, other: &NetworkNamespace) -> Result<(), String> {
        let ends = ["netns", &self.name, "type", "veth", "peer", "name", "eth0", "netns", &other.name];
        run("ip", &[&["link", "add", "eth0"], &ends[..]].concat())?;
        for namespace in [self, other] {
            namespace.inside("ip", &["link", "set", "eth0", "up"])?;
        }
        Ok(())
    }

    /// `address/length`, usable at once.
    pub fn add_address(&self, address: &str, device: &str) -> Result<(), String> {
        // an IPv6 address is tentative until nobody else has claimed it, which takes a second
        let now: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
        self.inside("ip", &[&["address", "add", address, "dev", device], now].concat())
    }

    pub fn inside(&self, program: &str, arguments: &[&str]) -> Result<(), String> {
        run("ip", &[&["netns", "exec", &self.name, program], arguments].concat())
    }

    /// Runs on a thread inside. The threads and processes that it starts are inside too; a socket stays where it was
    /// made.
    pub fn run<T: Send>(&self, test: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).expect("the namespace's file");
        let inside = || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("we made it, so we may enter");
            test()
        };
        let ran = std::thread::scope(|scope| scope.spawn(inside).join());
        ran.unwrap_or_else(|failure| std::panic::resume_unwind(failure))
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
