//! What a request costs the core's allocator in steady state: a counting allocator sees every allocation of the core's
//! thread, the runtime's included.

#![allow(unsafe_code)] // a global allocator cannot be written without; test code only

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};
use support::{Proxy, Setup, Upstream, ok};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system allocator unchanged; the counter is a plain thread-local cell that
// neither allocates nor has a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WARM_UP: usize = 300;
const REQUESTS: u64 = 500;

/// Allocations of the core per exchange, rounded up.
fn per_request(proxy: &Proxy, request: &[u8]) -> u64 {
    let mut client = proxy.connect();
    let mut ask = || {
        client.send(request);
        assert_eq!(client.answer().status, 200);
    };
    (0..WARM_UP).for_each(|_| ask());
    let before = proxy.on_core(|_| ALLOCATIONS.with(Cell::get));
    (0..REQUESTS).for_each(|_| ask());
    let after = proxy.on_core(|_| ALLOCATIONS.with(Cell::get));
    // a few are the timers' and the mail's
    let counted = after - before;
    println!("{counted} over {REQUESTS} requests");
    (counted + REQUESTS / 2) / REQUESTS
}

/// A GET over kept connections on both sides.
const GET_ALLOCATIONS_MAX: u64 = 0;

#[test]
fn a_kept_get_hop_allocates_no_more_than_this() {
    let upstream = Upstream::answering(|_, _| ok("hello"));
    let proxy = Setup::to(&[upstream.address]).start();
    let counted =
        per_request(&proxy, b"GET / HTTP/1.1\r\nhost: a\r\nuser-agent: test\r\naccept: */*\r\n\r\n");
    assert_eq!(counted, GET_ALLOCATIONS_MAX, "allocations a request");
}

/// A POST: its body is read by an operation that survives a failed try, which is one allocation a read.
const POST_ALLOCATIONS_MAX: u64 = 1;

#[test]
fn a_kept_post_hop_allocates_no_more_than_this() {
    let upstream = Upstream::answering(|_, _| ok("hello"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.retry = Some(support::policy());
    let proxy = setup.start();
    let counted = per_request(&proxy, b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello");
    assert!(counted <= POST_ALLOCATIONS_MAX, "{counted} allocations a request");
}

/// A long answer moves in pieces of at most this.
const PIECE_BYTES: usize = corelane_runtime::buffer::BULK_BYTES;

#[test]
fn a_long_body_allocates_nothing_for_its_pieces() {
    const LEN: usize = 8 << 20;
    const ANSWERS: u64 = 8;
    let body = "x".repeat(LEN);
    let upstream = Upstream::answering(move |_, _| ok(&body));
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    let mut ask = || {
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.answer().body.len(), LEN);
    };
    (0..ANSWERS).for_each(|_| ask());
    let before = proxy.on_core(|_| ALLOCATIONS.with(Cell::get));
    (0..ANSWERS).for_each(|_| ask());
    let counted = proxy.on_core(|_| ALLOCATIONS.with(Cell::get)) - before;
    println!("{counted} over {ANSWERS} answers");
    assert!(proxy.on_core(|worker| worker.core_stats()).bulk.peak > 0);
    // buffers are given back when the core rests, and taken again
    let pieces = ANSWERS * (LEN / PIECE_BYTES) as u64;
    assert!(counted < pieces / 8, "{counted} allocations for {pieces} pieces");
}
