//! A run's result: one JSON object, or a table for people.

use std::{collections::BTreeMap, fmt::Write};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{Protocol, tally::Tally};
use crate::{arrivals::Arrivals, watch::Watched};

/// Raised when a field changes its meaning.
const SCHEMA: u32 = 1;
/// Above this share of one CPU the generator may be what limits a saturation run.
const GENERATOR_BUSY_MAX: f64 = 0.95;
/// An open loop that sent less than this share of what was due did not produce the load it was asked for.
const SENT_SHARE_MIN: f64 = 0.99;

/// Microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    pub count: u64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Latency {
    /// From a histogram of nanoseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Latency {
            count: histogram.len(),
            mean: histogram.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1e3,
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct Generator {
    pub cpu: Option<usize>,
    /// Share of one CPU that the generator used over the window.
    pub busy: f64,
    pub cpu_us_per_request: f64,
}

#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    pub schema: u32,
    pub scenario: Option<String>,
    pub target: String,
    pub protocol: Protocol,
    /// `open` or `saturate`.
    pub mode: &'static str,
    pub arrivals: Option<Arrivals>,
    pub seed: u64,
    pub connections: usize,
    pub streams: Option<usize>,
    pub body_bytes: usize,
    /// Length of the measured window.
    pub seconds: f64,
    pub warmup_seconds: f64,
    pub rate_wanted: Option<f64>,
    /// Requests due in the window that left, a second.
    pub rate_sent: f64,
    /// Answers that arrived within the window, a second.
    pub throughput: f64,
    pub sent: u64,
    /// Due in the window, but no connection was ever free.
    pub unsent: u64,
    pub ok: u64,
    pub statuses: BTreeMap<u16, u64>,
    pub errors: BTreeMap<&'static str, u64>,
    /// Answers that arrived within the window: divide a proxy's CPU time by this.
    pub finished_inside: u64,
    pub bytes_received: u64,
    pub reconnects: u64,
    /// From the intended send time to the answer's last byte.
    pub latency_us: Latency,
    /// From the actual send time.
    pub service_us: Latency,
    /// How late the generator itself was: send time less the time at which a send was due and possible.
    pub lateness_us: Latency,
    /// Requests that were due while every connection was busy.
    pub waited_for_connection: u64,
    pub generator: Generator,
    pub watched: Vec<Watched>,
    pub valid: bool,
    pub invalid_reasons: Vec<String>,
}

impl RunReport {
    pub(super) fn new(tally: Tally<'_>) -> Self {
        let options = tally.options;
        let wanted_ns = (tally.window.end - tally.window.start) as f64;
        let seconds = tally.measured_ns as f64 / 1e9;
        let busy = tally.own_cpu_us / 1e6 / seconds.max(1e-9);
        let ok = tally.statuses.range(200..400).map(|(_, count)| count).sum();
        let mut report = RunReport {
            schema: SCHEMA,
            scenario: options.scenario.clone(),
            target: options.target.url.clone(),
            protocol: options.protocol,
            mode: if options.rate.is_some() { "open" } else { "saturate" },
            arrivals: options.rate.map(|_| options.arrivals),
            seed: options.seed,
            connections: options.connections,
            streams: (options.protocol == Protocol::H2).then_some(options.streams),
            body_bytes: options.body_bytes,
            seconds,
            warmup_seconds: options.warmup.as_secs_f64(),
            rate_wanted: options.rate,
            rate_sent: tally.sent as f64 / (wanted_ns / 1e9).max(1e-9),
            throughput: tally.finished_inside as f64 / seconds.max(1e-9),
            sent: tally.sent,
            unsent: tally.unsent,
            ok,
            statuses: tally.statuses,
            errors: tally.faults,
            finished_inside: tally.finished_inside,
            bytes_received: tally.bytes_inside,
            reconnects: tally.reconnects,
            latency_us: Latency::of(&tally.latency),
            service_us: Latency::of(&tally.service),
            lateness_us: Latency::of(&tally.lateness),
            waited_for_connection: tally.waited,
            generator: Generator {
                cpu: options.cpu,
                busy,
                cpu_us_per_request: tally.own_cpu_us / (tally.finished_inside as f64).max(1.0),
            },
            watched: tally.watched,
            valid: true,
            invalid_reasons: Vec::new(),
        };
        report.judge(options.lateness_max.as_secs_f64() * 1e6, options.spin);
        report
    }

    fn judge(&mut self, lateness_max_us: f64, spin: bool) {
        let mut reasons = Vec::new();
        if self.sent == 0 {
            reasons.push("nothing was sent in the window".to_owned());
        }
        if self.mode == "open" {
            let due = (self.sent + self.unsent) as f64;
            if (self.sent as f64) < due * SENT_SHARE_MIN {
                reasons
                    .push(format!("{} of {due} requests never left: all connections were busy", self.unsent));
            }
            if self.lateness_us.p99 > lateness_max_us {
                let late = self.lateness_us.p99;
                reasons.push(format!(
                    "the generator was {late:.0} us late at p99 (at most {lateness_max_us:.0})"
                ));
            }
        } else if self.generator.busy > GENERATOR_BUSY_MAX && !spin {
            let busy = self.generator.busy * 100.0;
            reasons.push(format!("the generator used {busy:.0} % of a CPU: it may have been the bottleneck"));
        }
        self.valid = reasons.is_empty();
        self.invalid_reasons = reasons;
    }

    /// Every request due in the window was answered below 400.
    pub fn clean(&self) -> bool {
        self.unsent == 0 && self.errors.is_empty() && self.ok == self.sent
    }
}

/// The report for a terminal.
pub fn table(report: &RunReport) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<14}{value}");
    };
    line("target", format!("{} ({:?}, {} connections)", report.target, report.protocol, report.connections));
    let wanted =
        report.rate_wanted.map_or("as fast as answered".to_owned(), |rate| format!("{rate:.0}/s wanted"));
    line("sent", format!("{} in {:.1} s, {:.0}/s ({wanted})", report.sent, report.seconds, report.rate_sent));
    line("answered", format!("{:.0}/s; by status {:?}", report.throughput, report.statuses));
    line("failed", format!("{:?}; {} never sent", report.errors, report.unsent));
    for (name, latency) in [
        ("latency us", &report.latency_us),
        ("service us", &report.service_us),
        ("lateness us", &report.lateness_us),
    ] {
        let Latency { p50, p90, p99, p999, max, .. } = latency;
        line(name, format!("p50 {p50:.0}  p90 {p90:.0}  p99 {p99:.0}  p99.9 {p999:.0}  max {max:.0}"));
    }
    let busy = report.generator.busy * 100.0;
    line(
        "generator",
        format!("{busy:.0} % of a CPU, {:.1} us a request", report.generator.cpu_us_per_request),
    );
    for watched in &report.watched {
        let each = watched.cpu_us / (report.finished_inside as f64).max(1.0);
        line(
            "watched",
            format!("pid {}: {each:.2} us of CPU a request, {} KiB", watched.pid, watched.rss_kib),
        );
    }
    match report.valid {
        true => line("verdict", "valid".to_owned()),
        false => line("verdict", format!("INVALID: {}", report.invalid_reasons.join("; "))),
    }
    text
}
