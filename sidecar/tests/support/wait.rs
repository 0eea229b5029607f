//! Bounded waiting. A test never sleeps for a time that it hopes is long enough: it asks again until the answer is
//! there, or fails with what it last saw.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

/// Generous, since several processes share few CPUs; it only costs time where a test fails.
pub const WITHIN: Duration = Duration::from_secs(20);
const BETWEEN: Duration = Duration::from_millis(5);

/// Asks until the answer is `Ok`.
pub fn wait_for<T, E: Debug>(what: &str, mut probe: impl FnMut() -> Result<T, E>) -> T {
    let began = Instant::now();
    loop {
        match probe() {
            Ok(found) => return found,
            Err(seen) if began.elapsed() > WITHIN => {
                panic!("{what}: not within {WITHIN:?}; last seen: {seen:?}")
            }
            Err(_) => std::thread::sleep(BETWEEN),
        }
    }
}
