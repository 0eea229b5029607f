//! The app called orders: one keep-alive connection to its sidecar, one call after the other, each timed.

use crate::support::{Client, Request};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

pub struct Caller {
    client: Client,
    sidecar: SocketAddr,
    calls: u64,
}

/// What the app saw of a number of calls. Status 0 stands for a connection that broke.
#[derive(Default)]
pub struct Seen {
    pub statuses: BTreeMap<u16, u64>,
    pub latencies: Vec<Duration>,
    pub last_body: String,
}

impl Caller {
    pub fn new(sidecar: SocketAddr) -> Caller {
        Caller { client: Client::connect(sidecar), sidecar, calls: 0 }
    }

    pub fn call(&mut self, count: u64) -> Seen {
        let mut seen = Seen::default();
        for _ in 0..count {
            self.calls += 1;
            let request =
                Request::post("/charge", "amount=42").field("x-order", format!("order-{:04}", self.calls));
            let began = Instant::now();
            let status = match self.client.try_call(&request) {
                Ok(answer) => {
                    seen.last_body = String::from_utf8_lossy(&answer.body).trim().to_owned();
                    answer.status
                }
                Err(_) => {
                    self.client = Client::connect(self.sidecar);
                    0
                }
            };
            seen.latencies.push(began.elapsed());
            *seen.statuses.entry(status).or_default() += 1;
        }
        seen
    }
}

impl Seen {
    pub fn is_all_200(&self) -> bool {
        self.statuses.keys().all(|status| *status == 200)
    }

    pub fn statuses(&self) -> String {
        let counted = self.statuses.iter().map(|(status, count)| match status {
            0 => format!("{count} x broken connection"),
            _ => format!("{count} x {status}"),
        });
        counted.collect::<Vec<_>>().join(", ")
    }

    pub fn latencies(&self) -> String {
        let mut sorted = self.latencies.clone();
        sorted.sort();
        let at =
            |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e3;
        format!(
            "p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms, longest {:.2} ms",
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0)
        )
    }
}
