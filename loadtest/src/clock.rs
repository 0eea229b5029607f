//! Monotonic nanoseconds since the run began: one `u64` is cheaper to keep per request than an `Instant`.

use std::time::Instant;

#[derive(Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    pub fn start() -> Self {
        Clock { origin: Instant::now() }
    }

    /// Nanoseconds since [`Clock::start`]; wraps after 584 years.
    pub fn now_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }
}
