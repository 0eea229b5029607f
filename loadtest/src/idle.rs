//! `idle`: many keep-alive connections that have each carried one request and now carry none.

use std::{io, os::unix::net::UnixStream, time::Duration};

use serde::Serialize;

use crate::{
    Error,
    clock::Clock,
    dialler::Dialler,
    heads, machine,
    poller::{Poller, READY_MAX},
    run::RunOptions,
    transport::Transport,
};

/// Connections that may be waiting for their answer at once, so that the peer needs few upstream connections.
const IN_FLIGHT_MAX: usize = 64;
const STOP: u64 = u64::MAX;

#[derive(Debug, Clone, Serialize)]
pub struct Established {
    pub event: &'static str,
    pub connections: usize,
    pub seconds: f64,
}

#[derive(Debug, Clone, Serialize)]
pub struct IdleReport {
    pub event: &'static str,
    pub connections: usize,
    /// Connections that the peer closed while they were held.
    pub closed_by_peer: usize,
    pub seconds: f64,
}

struct Held {
    transport: Transport,
    head: Vec<u8>,
    body_left: u64,
    asked: bool,
    answered: bool,
}

/// Opens `options.connections` connections, calls `on_established`, and holds them for `options.duration` or until
/// `stop` is readable. Fails when any of them cannot be opened and answered within `options.timeout` of its turn.
pub fn hold(
    options: &RunOptions,
    stop: &UnixStream,
    on_established: impl FnOnce(&Established),
) -> Result<IdleReport, Error> {
    machine::raise_descriptors(options.connections)?;
    machine::settle(options.cpu)?;
    let clock = Clock::start();
    let dialler = Dialler::new(&options.target, &options.tls, options.sources, b"http/1.1", true)?;
    let mut poller = Poller::new().map_err(|e| Error::io("creating an epoll", e))?;
    poller.add_listener(stop, STOP).map_err(|e| Error::io("watching for the end", e))?;
    let mut held = Vec::with_capacity(options.connections);
    establish(options, &clock, &dialler, &mut poller, &mut held)?;
    let seconds = clock.now_ns() as f64 / 1e9;
    on_established(&Established { event: "established", connections: held.len(), seconds });
    let closed_by_peer = keep(options, &clock, &mut poller, held.len())?;
    Ok(IdleReport {
        event: "done",
        connections: held.len(),
        closed_by_peer,
        seconds: clock.now_ns() as f64 / 1e9 - seconds,
    })
}

fn establish(
    options: &RunOptions,
    clock: &Clock,
    dialler: &Dialler,
    poller: &mut Poller,
    held: &mut Vec<Held>,
) -> Result<(), Error> {
    let request = options.request_bytes();
    let mut answered = 0;
    let mut last_answer = clock.now_ns();
    let mut ready = Vec::with_capacity(READY_MAX);
    while answered < options.connections {
        while held.len() < options.connections && held.len() - answered < IN_FLIGHT_MAX {
            let transport = dialler.dial(held.len()).map_err(|e| unreachable(options, answered, &e))?;
            poller
                .add_stream(&transport, held.len() as u64)
                .map_err(|e| Error::io("watching a connection", e))?;
            held.push(Held { transport, head: Vec::new(), body_left: 0, asked: false, answered: false });
        }
        poller
            .wait(Some(Duration::from_millis(100)), &mut ready)
            .map_err(|e| Error::io("waiting on epoll", e))?;
        for event in &ready {
            let Some(connection) = held.get_mut(event.token as usize) else { continue };
            if connection.answered {
                continue;
            }
            match connection.advance(&request) {
                Ok(()) => {
                    connection.answered = true;
                    answered += 1;
                    last_answer = clock.now_ns();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(unreachable(options, answered, &error)),
            }
        }
        if clock.now_ns() - last_answer > options.timeout.as_nanos() as u64 {
            return Err(unreachable(options, answered, &io::ErrorKind::TimedOut.into()));
        }
    }
    Ok(())
}

fn unreachable(options: &RunOptions, opened: usize, error: &io::Error) -> Error {
    Error::Unreachable {
        target: options.target.url.clone(),
        wanted: options.connections,
        opened,
        seconds: options.timeout.as_secs(),
        last: error.to_string(),
    }
}

fn keep(options: &RunOptions, clock: &Clock, poller: &mut Poller, count: usize) -> Result<usize, Error> {
    let until = clock.now_ns() + options.duration.as_nanos() as u64;
    let mut closed = vec![false; count];
    let mut ready = Vec::with_capacity(READY_MAX);
    loop {
        let now = clock.now_ns();
        if now >= until {
            break;
        }
        let timeout = Duration::from_nanos(until - now);
        poller.wait(Some(timeout), &mut ready).map_err(|e| Error::io("waiting on epoll", e))?;
        for event in &ready {
            match closed.get_mut(event.token as usize) {
                Some(flag) => *flag |= event.ended(),
                None => return Ok(closed.iter().filter(|&&flag| flag).count()),
            }
        }
    }
    Ok(closed.iter().filter(|&&flag| flag).count())
}

impl Held {
    /// Ok once the whole answer has been read; `WouldBlock` until then.
    fn advance(&mut self, request: &[u8]) -> io::Result<()> {
        if let Some(error) = self.transport.socket().take_error()? {
            return Err(error);
        }
        if !self.transport.handshake()? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if !self.asked {
            // a fresh socket takes a small request whole
            if self.transport.write(request)? < request.len() {
                return Err(io::Error::other("the request did not fit into the socket"));
            }
            self.asked = true;
        }
        let mut buffer = [0; 16 * 1024];
        loop {
            let count = self.transport.read(&mut buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if self.body_left > 0 {
                self.body_left = self.body_left.saturating_sub(count as u64);
            } else {
                self.head.extend_from_slice(&buffer[..count]);
                let head = heads::response(&self.head, false);
                let head =
                    head.map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed.0))?;
                let Some(head) = head else { continue };
                let crate::framing::Framing::Length(length) = head.framing else {
                    return Err(io::Error::other("the idle run needs answers with a content-length"));
                };
                if head.status >= 400 || !head.keep_alive {
                    return Err(io::Error::other(format!("answered with status {} or a close", head.status)));
                }
                self.body_left = (length + head.bytes as u64).saturating_sub(self.head.len() as u64);
            }
            if self.body_left == 0 {
                self.head = Vec::new();
                return Ok(());
            }
        }
    }
}
