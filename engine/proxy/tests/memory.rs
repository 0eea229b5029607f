//! What an idle connection costs. The only test of its process: the allocator counts for all threads together.

mod support;

use corelane_runtime::memory::allocated;
use std::time::Duration;
use support::{Setup, Upstream, ok};

/// Both ends are descriptors of this process, which may have 1,024.
const CONNECTIONS: usize = 400;
/// The task, its link, its socket and two timers. Nothing of a request, no buffer.
const BYTES_MAX: u64 = 3 << 10;

#[test]
fn an_idle_connection_holds_neither_buffer_nor_frame_and_few_bytes() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.limits.park_after = Duration::from_millis(20);
    let proxy = setup.start();
    let parked = |connections: usize| {
        proxy.until("every connection parked", || {
            let stats = proxy.on_core(|worker| worker.core_stats());
            stats.frames.in_use == 0 && stats.buffers.in_use == 0 && stats.tasks >= connections
        });
    };
    let mut asked = |client: &mut support::Client| {
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.answer().status, 200);
    };
    // first use of code and pools is not what a connection costs
    let mut first = proxy.connect();
    asked(&mut first);
    parked(1);

    let Some(before) = allocated() else { return };
    let mut clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let mut client = proxy.connect();
            asked(&mut client);
            client
        })
        .collect();
    parked(CONNECTIONS);
    let each = allocated().expect("as before").saturating_sub(before) / CONNECTIONS as u64;
    println!("{each} bytes");
    assert!(each <= BYTES_MAX, "{each} bytes each");

    // and each of them still serves
    clients.iter_mut().for_each(&mut asked);
    drop(clients);
}
