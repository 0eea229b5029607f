//! Larger buffers: several records with one read or write.
#![allow(clippy::unwrap_used)] // its helpers are part of its tests

mod peers;

use corelane_runtime::buffer::{BULK_BUFFERS_MAX, BULK_BYTES};
use corelane_runtime::testing::on_both_drivers;
use corelane_tls::*;
use peers::*;

#[test]
fn bulk_buffers_move_three_records_at_a_time_without_copies() {
    const LEN: usize = 30 * (16 << 10);
    on_both_drivers(|core| async move {
        let (tls, client, server) = both_ends(&core, RecordPath::Auto).await;
        let (core_far, client_far) = (core.clone(), client.clone());
        core.spawn(async move {
            for piece in pattern(LEN).chunks(BULK_BYTES) {
                let mut bulk = core_far.bulk().expect("none is in use").take();
                assert_eq!(bulk.extend_from_slice(piece), piece.len());
                let (result, bulk) = client_far.write_all(bulk).await;
                result.unwrap();
                assert!(bulk.is_empty());
            }
        });
        let mut got = Vec::new();
        let mut longest = 0;
        while got.len() < LEN {
            let (result, buf) = server.read(core.bulk().expect("few are in use").take()).await;
            longest = longest.max(result.unwrap());
            got.extend_from_slice(buf.filled());
        }
        assert!(got == pattern(LEN));
        assert!(longest > 16 << 10, "several records were opened into one buffer: {longest}");
        assert_eq!(tls.stats().payload_bytes_copied, 0);
        assert_eq!(core.stats().bulk.in_use, 0);
    });
}

#[test]
fn an_empty_buffer_comes_back_no_smaller_though_no_bulk_buffer_is_left() {
    const LEN: usize = 5 * (16 << 10);
    on_both_drivers(|core| async move {
        let (tls, client, server) = both_ends(&core, RecordPath::Auto).await;
        let mut held: Vec<_> = (0..BULK_BUFFERS_MAX).map(|_| core.bulk().expect("room").take()).collect();
        assert!(core.bulk().is_none());
        // all of it waits before the first read
        client.write_from(&pattern(LEN)).await.unwrap();
        let mut got = Vec::new();
        while got.len() < LEN {
            let (result, mut buf) = server.read(held.pop().unwrap()).await;
            result.unwrap();
            assert!(buf.capacity() >= BULK_BYTES, "{} bytes", buf.capacity());
            got.extend_from_slice(buf.filled());
            buf.clear();
            held.push(buf);
        }
        assert!(got == pattern(LEN));
        assert_eq!(tls.stats().payload_bytes_copied, 0);
    });
}
