//! Counts and histograms of one run, cut to its window.

use std::{collections::BTreeMap, io};

use hdrhistogram::Histogram;

use super::{RunOptions, report::RunReport};
use crate::{clock::Clock, framing::Malformed, watch::Reading};

/// Longest latency a histogram holds; longer ones count as this. Twice the longest timeout.
const LATENCY_MAX_NS: u64 = 120_000_000_000;

/// Why a request got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Connect,
    /// The connection ended before the response did.
    Closed,
    Reset,
    Timeout,
    /// Bytes that are not a response.
    Protocol,
    /// Still unanswered when the run gave up waiting.
    Unfinished,
}

impl Fault {
    pub fn name(self) -> &'static str {
        match self {
            Fault::Connect => "connect",
            Fault::Closed => "closed",
            Fault::Reset => "reset",
            Fault::Timeout => "timeout",
            Fault::Protocol => "protocol",
            Fault::Unfinished => "unfinished",
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Fault::Reset,
            io::ErrorKind::InvalidData => Fault::Protocol,
            _ => Fault::Closed,
        }
    }
}

impl From<Malformed> for Fault {
    fn from(_: Malformed) -> Self {
        Fault::Protocol
    }
}

/// The three times of one request, in nanoseconds on the run's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// When the schedule meant it to leave; latency counts from here.
    pub intended: u64,
    /// When a connection was free for it (never before `intended`).
    pub possible: u64,
    pub sent: u64,
}

enum Edge {
    Before,
    Inside { reading: Reading, own_cpu_ns: u64, at: u64 },
    After,
}

pub struct Tally<'a> {
    pub(super) options: &'a RunOptions,
    pub(super) window: std::ops::Range<u64>,
    pub(super) latency: Histogram<u64>,
    pub(super) service: Histogram<u64>,
    pub(super) lateness: Histogram<u64>,
    pub(super) statuses: BTreeMap<u16, u64>,
    pub(super) faults: BTreeMap<&'static str, u64>,
    pub(super) sent: u64,
    pub(super) unsent: u64,
    pub(super) waited: u64,
    pub(super) finished_inside: u64,
    pub(super) bytes_inside: u64,
    pub(super) reconnects: u64,
    pub(super) watched: Vec<crate::watch::Watched>,
    pub(super) own_cpu_us: f64,
    pub(super) measured_ns: u64,
    edge: Edge,
    /// The window ended with its last request instead of with its time.
    cut_short: bool,
}

impl<'a> Tally<'a> {
    /// The window opens `warmup` after `from_ns`.
    pub fn new(options: &'a RunOptions, from_ns: u64) -> Self {
        let opens = from_ns + options.warmup.as_nanos() as u64;
        let histogram = || {
            Histogram::new_with_max(LATENCY_MAX_NS, 3)
                .unwrap_or_else(|_| unreachable!("constant bounds are valid"))
        };
        Tally {
            options,
            window: opens..opens + options.duration.as_nanos() as u64,
            latency: histogram(),
            service: histogram(),
            lateness: histogram(),
            statuses: BTreeMap::new(),
            faults: BTreeMap::new(),
            sent: 0,
            unsent: 0,
            waited: 0,
            finished_inside: 0,
            bytes_inside: 0,
            reconnects: 0,
            watched: Vec::new(),
            own_cpu_us: 0.0,
            measured_ns: 0,
            edge: Edge::Before,
            cut_short: false,
        }
    }

    /// Opens or closes the window when its time has come; returns when to be called next.
    pub fn tick(&mut self, now: u64) -> Option<u64> {
        match &self.edge {
            Edge::Before if now >= self.window.start => {
                let reading = Reading::take(&self.options.watch_pids);
                self.edge = Edge::Inside { reading, own_cpu_ns: own_cpu_ns(), at: now };
            }
            Edge::Inside { reading, own_cpu_ns: before, at } if now >= self.window.end => {
                self.watched = reading.until(&Reading::take(&self.options.watch_pids));
                self.own_cpu_us = own_cpu_ns().saturating_sub(*before) as f64 / 1e3;
                self.measured_ns = now - at;
                self.edge = Edge::After;
            }
            _ => {}
        }
        match self.edge {
            Edge::Before => Some(self.window.start),
            Edge::Inside { .. } => Some(self.window.end),
            Edge::After => None,
        }
    }

    /// Sending ends with the window.
    pub fn over(&self, now: u64) -> bool {
        now >= self.window.end
    }

    pub fn sent(&mut self, times: &Times, now: u64) {
        if self.window.contains(&times.intended) {
            self.sent += 1;
            self.lateness.saturating_record(times.sent.saturating_sub(times.possible));
            self.waited += u64::from(times.possible > times.intended);
            if self.sent >= self.options.requests_max {
                self.window.end = now.max(times.intended) + 1;
                self.cut_short = true;
            }
        }
    }

    /// A request that was due in the window and never left.
    pub fn unsent(&mut self, intended: u64) {
        self.unsent += u64::from(self.window.contains(&intended) && !self.cut_short);
    }

    pub fn answered(&mut self, times: &Times, now: u64, status: u16) {
        self.finished_inside += u64::from(matches!(self.edge, Edge::Inside { .. }));
        if self.window.contains(&times.intended) {
            *self.statuses.entry(status).or_default() += 1;
            self.latency.saturating_record(now.saturating_sub(times.intended));
            self.service.saturating_record(now.saturating_sub(times.sent));
        }
    }

    pub fn failed(&mut self, times: &Times, fault: Fault) {
        if self.window.contains(&times.intended) {
            *self.faults.entry(fault.name()).or_default() += 1;
        }
    }

    pub fn connect_failed(&mut self) {
        if matches!(self.edge, Edge::Inside { .. }) {
            *self.faults.entry(Fault::Connect.name()).or_default() += 1;
        }
    }

    pub fn reconnected(&mut self) {
        self.reconnects += u64::from(matches!(self.edge, Edge::Inside { .. }));
    }

    pub fn received(&mut self, bytes: usize) {
        if matches!(self.edge, Edge::Inside { .. }) {
            self.bytes_inside += bytes as u64;
        }
    }

    pub fn report(mut self, clock: &Clock) -> RunReport {
        self.tick(clock.now_ns().max(self.window.end));
        RunReport::new(self)
    }
}

fn own_cpu_ns() -> u64 {
    crate::watch::cpu_ns(std::process::id()).unwrap_or(0)
}

/// A line a second on a terminal.
pub struct Progress {
    shown: bool,
    next_ns: u64,
    last: u64,
}

impl Progress {
    pub fn new(shown: bool, now: u64) -> Self {
        Progress { shown, next_ns: now + 1_000_000_000, last: 0 }
    }

    pub fn tick(&mut self, tally: &Tally<'_>, now: u64) {
        if !self.shown || now < self.next_ns {
            return;
        }
        self.next_ns = now + 1_000_000_000;
        let answers = tally.finished_inside - self.last;
        self.last = tally.finished_inside;
        let left = tally.window.end.saturating_sub(now) / 1_000_000_000;
        let p99_us = tally.latency.value_at_quantile(0.99) / 1_000;
        let failures: u64 = tally.faults.values().sum();
        eprint!("\r{answers:>9} answers/s   p99 {p99_us:>7} us   {failures} failed   {left:>4} s left ");
    }

    pub fn end(&self) {
        if self.shown {
            eprintln!();
        }
    }
}
