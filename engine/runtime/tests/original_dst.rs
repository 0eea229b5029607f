//! The original destination of intercepted connections, in a network namespace with real redirection. Needs the
//! right to make one and iptables; without either there is nothing to test and the test says so.

use std::io::Error as IoError;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::rc::Rc;

use corelane_runtime::Core;
use corelane_runtime::net::{ConnectOptions, ListenOptions, Listener, TcpStream};
use corelane_runtime::testing::on_both_drivers;

/// Connections to the first are redirected to the second; a pair for each case.
const PORTS: [(u16, u16); 3] = [(8080, 15001), (8081, 15002), (8082, 15003)];

fn run(program: &str, args: &[&str]) -> bool {
    let quiet = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

/// Moves this thread, and those it starts, to a new namespace whose loopback redirects a port. False if it may not.
fn enter_redirecting_namespace() -> bool {
    // SAFETY: takes an integer only.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        eprintln!("no namespace: {}", IoError::last_os_error());
        return false;
    }
    let redirects = |(asked, intercepted): (u16, u16)| {
        let (from, to) = (asked.to_string(), intercepted.to_string());
        let rule = "-t nat -A OUTPUT -p tcp -j REDIRECT --dport".split(' ');
        let rule: Vec<_> = rule.chain([from.as_str(), "--to-ports", to.as_str()]).collect();
        run("iptables", &rule) && run("ip6tables", &rule)
    };
    run("ip", &["link", "set", "lo", "up"]) && PORTS.into_iter().all(redirects)
}

async fn intercepts(core: Rc<Core>, listen: SocketAddr, ask: SocketAddr) {
    let listener = Listener::bind(&core, listen, &ListenOptions::default()).expect("bind");
    let _client = TcpStream::connect(&core, ask, &ConnectOptions::default()).await.expect("connect");
    let stream = listener.accept().await.expect("accept").into_stream(&core).expect("stream");
    let original = stream.original_dst().expect("redirected");
    assert_eq!((original.ip().to_canonical(), original.port()), (ask.ip(), ask.port()));
}

#[test]
fn a_redirected_connection_knows_where_it_was_going() {
    let thread = std::thread::spawn(|| {
        if !enter_redirecting_namespace() {
            eprintln!("skipped: redirection is not possible here");
            return;
        }
        on_both_drivers(|core| async move {
            let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
            let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            // An IPv4 connection on an IPv4 socket and on a dual-stack one, and an IPv6 connection.
            let cases = [(v4, v4), (any, v4), (v6, v6)].into_iter().zip(PORTS);
            for ((listen, ask), (asked, intercepted)) in cases {
                let (listen, ask) = (SocketAddr::new(listen, intercepted), SocketAddr::new(ask, asked));
                intercepts(core.clone(), listen, ask).await;
            }
        });
    });
    thread.join().expect("passed");
}
