//! Entry points for fuzzing: what a peer's bytes reach before anything is authenticated, and behind it.
//!
//! Plain `cargo test` replays the committed corpora; `cargo fuzz run <target>` in `engine/tls` looks for more.
use corelane_runtime::BufferPool;
use rustls_pki_types::CertificateDer;

use crate::certificate::CertificateInfo;
use crate::hello;
use crate::intake::Intake;
use crate::record::RECORD_BYTES_MAX;

/// Segments a byte stream (the first byte chooses how) and checks that the records are the stream's bytes in order.
pub fn records(data: &[u8]) {
    let Some((&seed, wire)) = data.split_first() else { return };
    let piece = usize::from(seed >> 1).max(1);
    let pool = BufferPool::new(16 * 1024, 2);
    let mut intake = Intake::default();
    intake.protected = seed & 1 == 1;
    let mut seen = Vec::new();
    let mut rest = wire;
    while !rest.is_empty() {
        let Ok(mut buf) = intake.prepare(None, &pool) else { break };
        let n = rest.len().min(piece);
        let n = buf.extend_from_slice(&rest[..n]);
        assert!(n > 0, "a prepared buffer has room");
        rest = &rest[n..];
        intake.accept(buf);
        while let Ok(Some(len)) = intake.whole() {
            assert!(len <= RECORD_BYTES_MAX);
            seen.extend_from_slice(intake.record(len));
            intake.consume(len);
        }
    }
    assert!(wire.starts_with(&seen));
    assert!(pool.stats().in_use <= 1);
}

/// The look into a ClientHello.
pub fn client_hello(data: &[u8]) {
    let _ = hello::parse(data);
}

/// The certificate fields that webpki keeps to itself.
pub fn certificate(data: &[u8]) {
    let _ = CertificateInfo::from_der(&CertificateDer::from(data));
}
