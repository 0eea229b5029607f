//! `handshakes`: new TLS connections a second, full or resumed, each with one small request.
//!
//! The request makes sure that the server has finished its side: under TLS 1.3 the client is done before the server has
//! checked the client's certificate. Its cost is the same for every peer.

use std::{collections::VecDeque, io, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    Error,
    clock::Clock,
    dialler::Dialler,
    heads, machine,
    poller::{Poller, READY_MAX, Ready},
    run::Latency,
    target::Target,
    tls::ClientTls,
    transport::Transport,
    watch::{Reading, Watched},
};

const GENERATOR_BUSY_MAX: f64 = 0.95;
const CONCURRENCY_MAX: usize = 1_024;
/// A server that refuses every connection must not be hammered at full speed.
const FAILURES_MAX: u64 = 1_000;

#[derive(Debug, Clone)]
pub struct HandshakeOptions {
    pub target: Target,
    pub tls: ClientTls,
    /// Keep sessions and resume them.
    pub resume: bool,
    /// Connections in their handshake at once.
    pub concurrency: usize,
    pub duration: Duration,
    pub warmup: Duration,
    pub timeout: Duration,
    pub sources: u8,
    pub cpu: Option<usize>,
    pub watch_pids: Vec<u32>,
}

#[derive(Debug, Clone, Serialize)]
pub struct HandshakeReport {
    pub schema: u32,
    pub target: String,
    pub resume: bool,
    pub concurrency: usize,
    pub seconds: f64,
    /// Connections that shook hands and got their answer within the window.
    pub completed: u64,
    pub per_second: f64,
    /// How many of them resumed an earlier session.
    pub resumed: u64,
    pub failed: u64,
    pub last_failure: Option<String>,
    /// From the start of the connect to the end of the answer.
    pub latency_us: Latency,
    pub generator_busy: f64,
    /// The generator used up its CPU: `per_second` is then its own rate, while CPU per handshake still holds.
    pub generator_limited: bool,
    pub watched: Vec<Watched>,
    pub valid: bool,
    pub invalid_reasons: Vec<String>,
}

struct Attempt {
    transport: Transport,
    request: Vec<u8>,
    written: usize,
    head: Vec<u8>,
    started: u64,
}

enum Progress {
    Wait,
    Done { resumed: bool },
}

/// Opens connections until the window ends.
pub fn shake(options: &HandshakeOptions) -> Result<HandshakeReport, Error> {
    if !(1..=CONCURRENCY_MAX).contains(&options.concurrency) {
        return Err(Error::usage(format!("--concurrency: expected 1 to {CONCURRENCY_MAX}")));
    }
    if !options.target.tls {
        return Err(Error::usage("handshakes: the target must be https://"));
    }
    machine::raise_descriptors(options.concurrency)?;
    machine::settle(options.cpu)?;
    Shaker::new(options)?.run()
}

struct Shaker<'a> {
    options: &'a HandshakeOptions,
    dialler: Dialler,
    poller: Poller,
    clock: Clock,
    attempts: Vec<Option<Attempt>>,
    waiting: VecDeque<usize>,
    dialled: usize,
    latency: Histogram<u64>,
    inside: bool,
    completed: u64,
    resumed: u64,
    failed: u64,
    last_failure: Option<String>,
}

impl<'a> Shaker<'a> {
    fn new(options: &'a HandshakeOptions) -> Result<Self, Error> {
        Ok(Shaker {
            options,
            dialler: Dialler::new(
                &options.target,
                &options.tls,
                options.sources,
                b"http/1.1",
                options.resume,
            )?,
            poller: Poller::new().map_err(|e| Error::io("creating an epoll", e))?,
            clock: Clock::start(),
            attempts: (0..options.concurrency).map(|_| None).collect(),
            waiting: (0..options.concurrency).collect(),
            dialled: 0,
            latency: Histogram::new_with_max(60_000_000_000, 3)
                .unwrap_or_else(|_| unreachable!("constant bounds are valid")),
            inside: false,
            completed: 0,
            resumed: 0,
            failed: 0,
            last_failure: None,
        })
    }

    fn run(mut self) -> Result<HandshakeReport, Error> {
        let opens = self.clock.now_ns() + self.options.warmup.as_nanos() as u64;
        let closes = opens + self.options.duration.as_nanos() as u64;
        let own = [std::process::id()];
        let mut before = None;
        let mut ready = Vec::with_capacity(READY_MAX);
        let mut next_sweep = 0;
        let (opened, closed) = loop {
            let now = self.clock.now_ns();
            if now >= opens && before.is_none() {
                self.inside = true;
                before = Some((now, Reading::take(&self.options.watch_pids), Reading::take(&own)));
            }
            if now >= closes {
                break (before.take(), now);
            }
            if self.failed > FAILURES_MAX && self.completed == 0 {
                let reason = self.last_failure.unwrap_or_default();
                return Err(Error::usage(format!("no handshake succeeds: {reason}")));
            }
            self.dial(now);
            if now >= next_sweep {
                next_sweep = now + 100_000_000;
                self.sweep(now);
            }
            let timeout = Duration::from_millis(10).min(Duration::from_nanos(closes - now));
            self.poller.wait(Some(timeout), &mut ready).map_err(|e| Error::io("waiting on epoll", e))?;
            for event in &ready {
                self.on_ready(*event);
            }
        };
        let Some((opened, watched, own_before)) = opened else {
            return Err(Error::usage("the window never opened"));
        };
        let watched = watched.until(&Reading::take(&self.options.watch_pids));
        let own_us = own_before.until(&Reading::take(&own)).first().map_or(0.0, |own| own.cpu_us);
        Ok(self.report((closed - opened) as f64 / 1e9, watched, own_us))
    }

    fn report(self, seconds: f64, watched: Vec<Watched>, own_us: f64) -> HandshakeReport {
        let generator_busy = own_us / 1e6 / seconds;
        let mut invalid_reasons = Vec::new();
        if self.completed == 0 {
            invalid_reasons.push("no handshake completed".to_owned());
        }
        if self.options.resume && self.resumed * 10 < self.completed * 9 {
            invalid_reasons.push(format!("only {} of {} connections resumed", self.resumed, self.completed));
        }
        // not a fault of CPU per handshake, but the rate is then the generator's
        if generator_busy > 0.95 {
            invalid_reasons
                .push(format!("rate limited by the generator ({:.0} % of a CPU)", generator_busy * 100.0));
        }
        HandshakeReport {
            schema: 1,
            target: self.options.target.url.clone(),
            resume: self.options.resume,
            concurrency: self.options.concurrency,
            seconds,
            completed: self.completed,
            per_second: self.completed as f64 / seconds,
            resumed: self.resumed,
            failed: self.failed,
            last_failure: self.last_failure,
            latency_us: Latency::of(&self.latency),
            generator_busy,
            generator_limited: generator_busy > GENERATOR_BUSY_MAX,
            watched,
            valid: invalid_reasons.is_empty(),
            invalid_reasons,
        }
    }

    fn dial(&mut self, now: u64) {
        while let Some(index) = self.waiting.pop_front() {
            self.dialled += 1;
            let dialled = self.dialler.dial(self.dialled).and_then(|transport| {
                self.poller.add_stream(&transport, index as u64)?;
                Ok(transport)
            });
            match dialled {
                Ok(transport) => {
                    let host = &self.options.target.authority;
                    let path = &self.options.target.path;
                    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
                    self.attempts[index] = Some(Attempt {
                        transport,
                        request: request.into(),
                        written: 0,
                        head: Vec::new(),
                        started: now,
                    });
                }
                Err(error) => {
                    self.fail(index, &error);
                    return;
                }
            }
        }
    }

    fn on_ready(&mut self, event: Ready) {
        let index = event.token as usize;
        let Some(attempt) = &mut self.attempts[index] else { return };
        match attempt.advance() {
            Ok(Progress::Wait) => {}
            Ok(Progress::Done { resumed }) => {
                if self.inside {
                    self.completed += 1;
                    self.resumed += u64::from(resumed);
                    self.latency.saturating_record(self.clock.now_ns() - attempt.started);
                }
                if let Some(attempt) = self.attempts[index].take() {
                    attempt.transport.close();
                }
                self.waiting.push_back(index);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.fail(index, &error),
        }
    }

    fn fail(&mut self, index: usize, error: &io::Error) {
        self.attempts[index] = None;
        self.waiting.push_back(index);
        self.failed += 1;
        self.last_failure = Some(error.to_string());
    }

    fn sweep(&mut self, now: u64) {
        let oldest = now.saturating_sub(self.options.timeout.as_nanos() as u64);
        for index in 0..self.attempts.len() {
            if self.attempts[index].as_ref().is_some_and(|attempt| attempt.started < oldest) {
                self.fail(index, &io::ErrorKind::TimedOut.into());
            }
        }
    }
}

impl Attempt {
    fn advance(&mut self) -> io::Result<Progress> {
        if let Some(error) = self.transport.socket().take_error()? {
            return Err(error);
        }
        if !self.transport.handshake()? {
            return Ok(Progress::Wait);
        }
        while self.written < self.request.len() {
            self.written += self.transport.write(&self.request[self.written..])?;
        }
        self.transport.flush()?;
        let mut buffer = [0; 4096];
        loop {
            let count = self.transport.read(&mut buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.head.extend_from_slice(&buffer[..count]);
            let head = heads::response(&self.head, false);
            match head.map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed.0))? {
                // the head proves that the request was read; the body is of no interest here
                Some(head) if head.status < 400 => {
                    return Ok(Progress::Done { resumed: self.transport.resumed() });
                }
                Some(head) => return Err(io::Error::other(format!("answered with status {}", head.status))),
                None => {}
            }
        }
    }
}
