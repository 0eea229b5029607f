//! What the hot path allocates once it has warmed up: nothing, on either event loop.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use corelane_runtime::net::{ConnectOptions, ListenOptions, Listener, TcpStream};
use corelane_runtime::testing::on_both_drivers;
use corelane_runtime::{Core, Deadline};

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no counter any more.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as promised by our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as promised by our caller.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as promised by our caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as promised by our caller.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

async fn pair(core: &Core) -> (TcpStream, TcpStream) {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = Listener::bind(core, any, &ListenOptions::default()).expect("bind");
    let client =
        TcpStream::connect(core, listener.local_addr(), &ConnectOptions::default()).await.expect("connect");
    (listener.accept().await.expect("accept").into_stream(core).expect("stream"), client)
}

/// What one request of a proxy does with its runtime.
async fn exchange(core: &Core, server: &TcpStream, client: &TcpStream, deadline: &Deadline) {
    deadline.arm(core.now() + Duration::from_secs(15));
    let mut head = core.buffers().take();
    head.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
    let mut body = core.buffers().take();
    body.extend_from_slice(&[7; 1024]);
    let (result, ..) = client.write_all_pair(head, body).await;
    result.expect("write");
    let request = server.read_parking(core, Duration::from_secs(5)).await.expect("read");
    assert_eq!(request.len(), 18 + 1024);
    server.write_all(request).await.0.expect("write");
    let (result, response) = deadline.limit(client.read(core.buffers().take())).await.expect("in time");
    assert_eq!(result.expect("read"), response.len());
    deadline.disarm();
}

#[test]
fn an_exchange_allocates_nothing() {
    on_both_drivers(|core| async move {
        let (server, client) = pair(&core).await;
        let deadline = Rc::new(core.timers().deadline());
        for _ in 0..100 {
            exchange(&core, &server, &client, &deadline).await;
        }
        let before = ALLOCATIONS.get();
        for _ in 0..1000 {
            exchange(&core, &server, &client, &deadline).await;
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "on {:?}", core.driver());
        assert!(core.buffers().stats().allocations <= 4);
    });
}

#[test]
fn deadlines_and_buffers_are_reused() {
    on_both_drivers(|core| async move {
        for _ in 0..10 {
            core.timers().sleep(Duration::from_millis(1)).await;
            drop((core.buffers().take(), core.timers().deadline()));
        }
        let before = ALLOCATIONS.get();
        for _ in 0..20 {
            core.timers().sleep(Duration::from_millis(1)).await;
            drop((core.buffers().take(), core.timers().deadline()));
        }
        assert_eq!(ALLOCATIONS.get() - before, 0);
    });
}

#[test]
fn large_writes_that_wait_for_another_turn_allocate_nothing() {
    const PIECES: usize = 1_000;
    const PIECE_BYTES: usize = 8 << 10;
    on_both_drivers(|core| async move {
        let (server, client) = pair(&core).await;
        let reader = core.clone();
        core.spawn(async move { while !client.read(reader.buffers().take()).await.1.is_empty() {} });
        let mut before = 0;
        for piece in 0..2 * PIECES {
            if piece == PIECES {
                before = ALLOCATIONS.get();
            }
            let mut buf = core.buffers().take();
            buf.extend_from_slice(&[7; PIECE_BYTES]);
            server.write_all(buf).await.0.expect("write");
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "on {:?}", core.driver());
    });
}
