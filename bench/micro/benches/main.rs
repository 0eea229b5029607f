//! What one decision or one message costs a core, in nanoseconds: the parts of a request that are neither the
//! kernel nor the cipher. Each module is one subject and one group of that name.
//!
//! `make micro ARGS="-- balancing/"` runs one group, `ARGS="-- --quick"` is a rough look at everything, and
//! `ARGS="-- --save-baseline before"`, then `ARGS="-- --baseline before"`, compares two states of the code. The
//! program is built with the release profile, so that the compiler sees across crates what it sees in the sidecar.
//!
//! Inputs vary from turn to turn where a branch predictor would otherwise learn the one input by heart.

mod authorize;
mod balancing;
mod http;
mod matching;
mod snapshot;
mod telemetry;
#[path = "../../../engine/traffic/tests/support/mod.rs"]
mod traffic;

use criterion::{Criterion, criterion_group, criterion_main};
use std::time::Duration;

/// A second for each benchmark: all of them stay within two minutes.
fn settings() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(50)
        .nresamples(10_000)
        .without_plots()
}

criterion_group! {
    name = micro;
    config = settings();
    targets =
        http::group,
        matching::group,
        authorize::group,
        balancing::group,
        snapshot::group,
        telemetry::group
}
criterion_main!(micro);

/// Gives its items over and over. There is at least one.
struct Round<'a, T> {
    items: &'a [T],
    next: usize,
}

impl<'a, T> Round<'a, T> {
    fn new(items: &'a [T]) -> Self {
        Round { items, next: 0 }
    }

    #[inline]
    fn turn(&mut self) -> &'a T {
        let item = &self.items[self.next];
        self.next = if self.next + 1 < self.items.len() { self.next + 1 } else { 0 };
        item
    }
}
