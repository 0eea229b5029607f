//! The event loop of `run` for HTTP/1.1 and TCP: one thread, edge-triggered epoll, a fixed set of connections.

use std::{collections::VecDeque, io, time::Duration};

use super::{
    RunOptions, RunReport,
    exchange::{Answer, Exchange},
    tally::{Fault, Progress, Tally, Times},
};
use crate::{
    Error,
    arrivals::Schedule,
    clock::Clock,
    dialler::Dialler,
    poller::{Poller, READY_MAX, Ready},
    transport::Transport,
};

/// How long the first connections may take altogether.
const OPENING_MAX: Duration = Duration::from_secs(15);
/// Pause before a failed connect is tried again.
const RECONNECT_NS: u64 = 10_000_000;
/// How often deadlines are looked at.
const TICK_NS: u64 = 100_000_000;
const READ_BYTES: usize = 256 * 1024;

enum State {
    /// No socket; try again at this time.
    Down(u64),
    Opening,
    Idle,
    Busy,
}

struct Connection {
    transport: Option<Transport>,
    state: State,
    exchange: Exchange,
    times: Times,
    written: usize,
    /// When it last became free: a send cannot be blamed for what came before.
    free_since: u64,
}

pub fn drive(options: &RunOptions) -> Result<RunReport, Error> {
    let clock = Clock::start();
    let mut driver = Driver::new(options, clock)?;
    driver.open_all()?;
    let from = clock.now_ns();
    driver.tally = Tally::new(options, from);
    driver.schedule = options.rate.map(|rate| Schedule::new(options.arrivals, rate, options.seed, from));
    driver.send_until_over()?;
    driver.await_rest()?;
    Ok(driver.tally.report(&clock))
}

struct Driver<'a> {
    options: &'a RunOptions,
    clock: Clock,
    poller: Poller,
    dialler: Dialler,
    request: Vec<u8>,
    connections: Vec<Connection>,
    idle: VecDeque<usize>,
    busy: usize,
    down: usize,
    tally: Tally<'a>,
    /// `None` in a saturation run.
    schedule: Option<Schedule>,
    /// Set at the end of the window: answers no longer lead to further requests.
    sending: bool,
    next_tick: u64,
    read_buffer: Vec<u8>,
    last_failure: String,
}

impl<'a> Driver<'a> {
    fn new(options: &'a RunOptions, clock: Clock) -> Result<Self, Error> {
        let connection = |_| Connection {
            transport: None,
            state: State::Down(0),
            exchange: Exchange::new(options),
            times: Times::default(),
            written: 0,
            free_since: 0,
        };
        Ok(Driver {
            options,
            clock,
            poller: Poller::new().map_err(|e| Error::io("creating an epoll", e))?,
            dialler: Dialler::new(&options.target, &options.tls, options.sources, b"http/1.1", true)?,
            request: options.request_bytes(),
            connections: (0..options.connections).map(connection).collect(),
            idle: VecDeque::with_capacity(options.connections),
            busy: 0,
            down: options.connections,
            tally: Tally::new(options, u64::MAX / 2),
            schedule: None,
            sending: false,
            next_tick: 0,
            read_buffer: vec![0; READ_BYTES],
            last_failure: "none".to_owned(),
        })
    }

    fn open_all(&mut self) -> Result<(), Error> {
        let mut ready = Vec::with_capacity(READY_MAX);
        while self.idle.len() < self.connections.len() {
            let now = self.clock.now_ns();
            if now > OPENING_MAX.as_nanos() as u64 {
                return Err(Error::Unreachable {
                    target: self.options.target.url.clone(),
                    wanted: self.connections.len(),
                    opened: self.idle.len(),
                    seconds: OPENING_MAX.as_secs(),
                    last: self.last_failure.clone(),
                });
            }
            self.redial(now);
            self.turn(Some(Duration::from_millis(10)), &mut ready)?;
        }
        Ok(())
    }

    fn send_until_over(&mut self) -> Result<(), Error> {
        let mut ready = Vec::with_capacity(READY_MAX);
        let mut progress = Progress::new(self.options.progress, self.clock.now_ns());
        self.sending = true;
        loop {
            let now = self.clock.now_ns();
            let edge = self.tally.tick(now);
            if self.tally.over(now) {
                break;
            }
            self.dispatch();
            self.housekeep(now);
            progress.tick(&self.tally, now);
            let timeout = if self.options.spin { Duration::ZERO } else { self.patience(edge) };
            self.turn(Some(timeout), &mut ready)?;
        }
        self.sending = false;
        progress.end();
        if let Some(schedule) = &mut self.schedule {
            while schedule.next_ns() < self.tally.window.end {
                self.tally.unsent(schedule.next_ns());
                schedule.advance();
            }
        }
        Ok(())
    }

    /// Waits for the answers still due, no longer than one request may take.
    fn await_rest(&mut self) -> Result<(), Error> {
        let mut ready = Vec::with_capacity(READY_MAX);
        let until = self.clock.now_ns() + self.options.timeout.as_nanos() as u64;
        while self.busy > 0 && self.clock.now_ns() < until {
            self.housekeep(self.clock.now_ns());
            self.turn(Some(Duration::from_nanos(TICK_NS)), &mut ready)?;
        }
        for connection in &self.connections {
            if matches!(connection.state, State::Busy) {
                self.tally.failed(&connection.times, Fault::Unfinished);
            }
        }
        Ok(())
    }

    fn patience(&self, edge: Option<u64>) -> Duration {
        let mut until = self.next_tick;
        if let Some(edge) = edge {
            until = until.min(edge);
        }
        if let (Some(schedule), false) = (&self.schedule, self.idle.is_empty()) {
            until = until.min(schedule.next_ns());
        }
        if self.down > 0 {
            until = until.min(self.clock.now_ns() + RECONNECT_NS);
        }
        Duration::from_nanos(until.saturating_sub(self.clock.now_ns()))
    }

    fn turn(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> Result<(), Error> {
        self.poller.wait(timeout, ready).map_err(|e| Error::io("waiting on epoll", e))?;
        for &event in ready.iter() {
            self.on_ready(event.token as usize, event);
            // a long batch must not hold back what has become due meanwhile
            self.dispatch();
        }
        Ok(())
    }

    /// Sends whatever is due on whatever is free.
    fn dispatch(&mut self) {
        while self.sending && !self.idle.is_empty() {
            let now = self.clock.now_ns();
            if self.tally.over(now) {
                return;
            }
            let intended = match &self.schedule {
                Some(schedule) if schedule.next_ns() > now => return,
                Some(schedule) => schedule.next_ns(),
                None => now,
            };
            let Some(index) = self.idle.pop_front() else { return };
            // an idle connection may have gone down since it was queued
            if !matches!(self.connections[index].state, State::Idle) {
                continue;
            }
            if let Some(schedule) = &mut self.schedule {
                schedule.advance();
            }
            self.send(index, intended, now);
        }
    }

    fn send(&mut self, index: usize, intended: u64, now: u64) {
        let connection = &mut self.connections[index];
        let possible = intended.max(connection.free_since);
        connection.times = Times { intended, possible, sent: now.max(possible) };
        connection.written = 0;
        connection.exchange.begin(self.options);
        connection.state = State::Busy;
        self.busy += 1;
        self.tally.sent(&connection.times, now);
        self.push(index);
    }

    /// Writes what the socket takes of the request.
    fn push(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let Some(transport) = &mut connection.transport else { return };
        while connection.written < self.request.len() {
            match transport.write(&self.request[connection.written..]) {
                Ok(count) => connection.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // the answer, or the reason, may be waiting to be read
                Err(error) if connection.written > 0 && error.kind() == io::ErrorKind::BrokenPipe => return,
                Err(error) => return self.fail(index, error.into()),
            }
        }
        if let Err(error) = transport.flush() {
            self.fail(index, error.into());
        }
    }

    fn on_ready(&mut self, index: usize, event: Ready) {
        match self.connections[index].state {
            State::Down(_) => {}
            State::Opening => self.open(index, event),
            State::Idle if event.ended() => self.renew(index),
            State::Idle => {}
            State::Busy => {
                if event.writable() && self.unsent(index) {
                    self.push(index);
                }
                if event.readable() && matches!(self.connections[index].state, State::Busy) {
                    self.pull(index, event.ended());
                }
            }
        }
    }

    fn unsent(&mut self, index: usize) -> bool {
        let connection = &mut self.connections[index];
        connection.written < self.request.len()
            || connection.transport.as_mut().is_some_and(|transport| !transport.short_read_means_empty())
    }

    fn pull(&mut self, index: usize, ended: bool) {
        loop {
            let connection = &mut self.connections[index];
            let Some(transport) = &mut connection.transport else { return };
            let count = match transport.read(&mut self.read_buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.fail(index, error.into()),
            };
            if count == 0 {
                return match connection.exchange.ended() {
                    Ok(answer) => self.answered(index, answer, true),
                    Err(fault) => self.fail(index, fault),
                };
            }
            self.tally.received(count);
            match connection.exchange.feed(&self.read_buffer[..count]) {
                Ok(Some(answer)) => return self.answered(index, answer, ended),
                Ok(None) if count < READ_BYTES && transport.short_read_means_empty() && !ended => return,
                Ok(None) => {}
                Err(fault) => return self.fail(index, fault),
            }
        }
    }

    fn answered(&mut self, index: usize, answer: Answer, ended: bool) {
        let now = self.clock.now_ns();
        let connection = &mut self.connections[index];
        self.tally.answered(&connection.times, now, answer.status);
        self.busy -= 1;
        if ended || !answer.keep_alive || connection.written < self.request.len() {
            return self.renew(index);
        }
        connection.free_since = now;
        connection.state = State::Idle;
        self.idle.push_back(index);
    }

    fn fail(&mut self, index: usize, fault: Fault) {
        self.tally.failed(&self.connections[index].times, fault);
        self.busy -= 1;
        self.renew(index);
    }

    /// Replaces a connection that is of no further use.
    fn renew(&mut self, index: usize) {
        if let Some(transport) = self.connections[index].transport.take() {
            transport.close();
        }
        self.tally.reconnected();
        self.down += 1;
        self.connections[index].state = State::Down(0);
        self.redial_one(index, self.clock.now_ns());
    }

    fn redial(&mut self, now: u64) {
        if self.down == 0 {
            return;
        }
        for index in 0..self.connections.len() {
            self.redial_one(index, now);
        }
    }

    fn redial_one(&mut self, index: usize, now: u64) {
        let State::Down(due) = self.connections[index].state else { return };
        if due > now {
            return;
        }
        let dialled = self.dialler.dial(index).and_then(|transport| {
            self.poller.add_stream(&transport, index as u64)?;
            Ok(transport)
        });
        match dialled {
            Ok(transport) => {
                self.connections[index].transport = Some(transport);
                self.connections[index].state = State::Opening;
                self.down -= 1;
            }
            Err(error) => self.connect_failed(index, now, &error),
        }
    }

    fn open(&mut self, index: usize, event: Ready) {
        let now = self.clock.now_ns();
        let Some(transport) = &mut self.connections[index].transport else { return };
        let opened = match transport.socket().take_error() {
            Ok(None) if event.writable() || event.readable() => transport.handshake(),
            Ok(None) => return,
            Ok(Some(error)) | Err(error) => Err(error),
        };
        match opened {
            Ok(false) => {}
            Ok(true) => {
                self.connections[index].state = State::Idle;
                self.connections[index].free_since = now;
                self.idle.push_back(index);
            }
            Err(error) => {
                self.down += 1;
                self.connect_failed(index, now, &error);
            }
        }
    }

    fn connect_failed(&mut self, index: usize, now: u64, error: &io::Error) {
        self.tally.connect_failed();
        self.last_failure = error.to_string();
        self.connections[index].transport = None;
        self.connections[index].state = State::Down(now + RECONNECT_NS);
    }

    fn housekeep(&mut self, now: u64) {
        self.redial(now);
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK_NS;
        let timeout = self.options.timeout.as_nanos() as u64;
        for index in 0..self.connections.len() {
            let connection = &self.connections[index];
            if matches!(connection.state, State::Busy) && connection.times.sent + timeout < now {
                self.fail(index, Fault::Timeout);
            }
        }
    }
}
