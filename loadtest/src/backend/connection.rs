//! One downstream connection of the backend: reads requests, writes prebuilt answers, never blocks.

use std::{io, sync::Arc};

use super::{BackendOptions, Counters, Mode, ResetAt};
use crate::{
    arrivals::Random,
    framing::Body,
    heads::{self, HEAD_BYTES_MAX, RequestHead},
    transport::Transport,
};

/// RFC 9113 section 3.4: what an HTTP/2 client sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What all connections use.
pub struct Shared<'a> {
    pub options: &'a BackendOptions,
    pub response: Response,
    pub counters: Arc<Counters>,
    pub random: Random,
    pub scratch: Vec<u8>,
}

impl Shared<'_> {
    /// Whether this connection or request is one to be reset.
    pub fn toss(&mut self) -> bool {
        self.options.reset_probability > 0.0 && self.random.unit() < self.options.reset_probability
    }
}

/// The answer, with and without `connection: close`.
pub struct Response {
    keep: Vec<u8>,
    close: Vec<u8>,
    body_bytes: usize,
}

impl Response {
    pub fn new(options: &BackendOptions) -> Self {
        let bodiless = matches!(options.status, 204 | 304);
        let build = |close: bool| {
            let mut head =
                format!("HTTP/1.1 {} {}\r\n", options.status, if options.status < 400 { "OK" } else { "No" });
            if !bodiless {
                head += &format!("content-type: text/plain\r\ncontent-length: {}\r\n", options.body_bytes);
            }
            for (name, value) in &options.headers {
                head += &format!("{name}: {value}\r\n");
            }
            head += if close { "connection: close\r\n\r\n" } else { "\r\n" };
            let mut bytes = head.into_bytes();
            bytes.resize(bytes.len() + if bodiless { 0 } else { options.body_bytes }, b'y');
            bytes
        };
        Response {
            keep: build(false),
            close: build(true),
            body_bytes: if bodiless { 0 } else { options.body_bytes },
        }
    }
}

/// What the server does with the connection next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Wait,
    /// Call [`Connection::released`] after the delay.
    Delay,
    Close,
    Reset,
    Http2,
}

enum Reading {
    Start,
    Head,
    Body { head: RequestHead, body: Body },
}

struct Writing {
    at: usize,
    end: usize,
    close: bool,
    then_reset: bool,
}

pub struct Connection {
    pub transport: Transport,
    /// Bytes read and not yet used; under echo, bytes still to be sent back.
    pub input: Vec<u8>,
    reading: Reading,
    writing: Option<Writing>,
    held: bool,
    /// Whether this connection gets reset in its handshake has been decided.
    tossed: bool,
    /// The last read emptied the socket: reading again before the next event would be a wasted system call.
    empty: bool,
    ended: bool,
    answers: u64,
}

impl Connection {
    pub fn new(transport: Transport) -> Self {
        Connection {
            transport,
            input: Vec::new(),
            reading: Reading::Start,
            writing: None,
            held: false,
            tossed: false,
            empty: false,
            ended: false,
            answers: 0,
        }
    }

    pub fn woken(&mut self, ended: bool) {
        self.empty = false;
        self.ended |= ended;
    }

    pub fn released(&mut self) {
        self.held = false;
    }

    pub fn advance(&mut self, shared: &mut Shared<'_>) -> Next {
        let result = match shared.options.mode {
            Mode::Http => self.http(shared),
            Mode::Echo => self.echo(shared),
            Mode::Discard => self.discard(shared),
        };
        result.unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Next::Wait,
            io::ErrorKind::InvalidData => {
                Counters::add(&shared.counters.malformed);
                Next::Close
            }
            _ => Next::Close,
        })
    }

    fn http(&mut self, shared: &mut Shared<'_>) -> io::Result<Next> {
        if matches!(self.reading, Reading::Start)
            && let Some(next) = self.start(shared)?
        {
            return Ok(next);
        }
        loop {
            if self.held {
                return Ok(Next::Wait);
            }
            if let Some(next) = self.write(shared)? {
                return Ok(next);
            }
            if self.parse()? {
                if let Some(next) = self.begin_answer(shared) {
                    return Ok(next);
                }
            } else if self.empty {
                return Ok(Next::Wait);
            } else if !self.fill(shared)? {
                return Ok(Next::Close);
            }
        }
    }

    /// TLS, a reset in its midst, and the choice of the protocol. `None` goes on with HTTP/1.1.
    fn start(&mut self, shared: &mut Shared<'_>) -> io::Result<Option<Next>> {
        if shared.options.reset_at == ResetAt::Handshake && !self.tossed {
            // waits until there is something to interrupt
            self.transport.socket().peek(&mut [0])?;
            self.tossed = true;
            if shared.toss() {
                return Ok(Some(Next::Reset));
            }
        }
        if !self.transport.handshake()? {
            return Ok(Some(Next::Wait));
        }
        if self.transport.negotiated_h2() {
            return Ok(Some(Next::Http2));
        }
        while self.input.len() < PREFACE.len() && PREFACE.starts_with(&self.input) {
            if self.empty {
                return Ok(Some(Next::Wait));
            }
            if !self.fill(shared)? {
                return Ok(Some(Next::Close));
            }
        }
        if self.input.starts_with(PREFACE) {
            return Ok(Some(Next::Http2));
        }
        self.reading = Reading::Head;
        Ok(None)
    }

    /// Reads once; false at the end of the stream.
    fn fill(&mut self, shared: &mut Shared<'_>) -> io::Result<bool> {
        let count = self.transport.read(&mut shared.scratch)?;
        // with the end already announced, only a read of zero may be the last
        self.empty = count < shared.scratch.len() && self.transport.short_read_means_empty() && !self.ended;
        self.input.extend_from_slice(&shared.scratch[..count]);
        Ok(count > 0)
    }

    /// Uses what has been read; true when a whole request has been.
    fn parse(&mut self) -> io::Result<bool> {
        if self.input.is_empty() && matches!(self.reading, Reading::Head) {
            return Ok(false);
        }
        let bad =
            |malformed: crate::framing::Malformed| io::Error::new(io::ErrorKind::InvalidData, malformed.0);
        if !matches!(self.reading, Reading::Body { .. }) {
            let Some(head) = heads::request(&self.input).map_err(bad)? else { return Ok(false) };
            self.consume(head.bytes);
            if head.expects_continue {
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            self.reading = Reading::Body { body: Body::new(head.framing), head };
        }
        let Reading::Body { body, .. } = &mut self.reading else { return Ok(false) };
        let taken = body.feed(&self.input).map_err(bad)?;
        let done = body.done();
        self.consume(taken);
        Ok(done)
    }

    fn consume(&mut self, count: usize) {
        if count == self.input.len() {
            self.input.clear();
            // ten thousand idle connections must not each keep a large body's buffer
            self.input.shrink_to(HEAD_BYTES_MAX.min(4096));
        } else {
            self.input.drain(..count);
        }
    }

    fn begin_answer(&mut self, shared: &mut Shared<'_>) -> Option<Next> {
        let Reading::Body { head, .. } = std::mem::replace(&mut self.reading, Reading::Head) else {
            return None;
        };
        let options = shared.options;
        let chosen = matches!(options.reset_at, ResetAt::Request | ResetAt::Body) && shared.toss();
        if chosen && options.reset_at == ResetAt::Request {
            return Some(Next::Reset);
        }
        self.answers += 1;
        let close = !head.keep_alive || self.answers == options.close_after;
        let whole = if close { shared.response.close.len() } else { shared.response.keep.len() };
        let body = shared.response.body_bytes;
        let end = if head.head_method {
            whole - body
        } else if chosen {
            whole - body / 2
        } else {
            whole
        };
        self.writing = Some(Writing { at: 0, end, close, then_reset: chosen });
        if options.delay.is_zero() {
            return None;
        }
        self.held = true;
        Some(Next::Delay)
    }

    /// Goes on with the answer in progress; `None` when there is none left.
    fn write(&mut self, shared: &mut Shared<'_>) -> io::Result<Option<Next>> {
        let Some(writing) = &mut self.writing else { return Ok(None) };
        let bytes = if writing.close { &shared.response.close } else { &shared.response.keep };
        while writing.at < writing.end {
            writing.at += self.transport.write(&bytes[writing.at..writing.end])?;
        }
        if !self.transport.flush()? {
            return Ok(Some(Next::Wait));
        }
        let next = match (writing.then_reset, writing.close) {
            (true, _) => Some(Next::Reset),
            (false, true) => Some(Next::Close),
            (false, false) => None,
        };
        if !writing.then_reset {
            Counters::add(&shared.counters.answered);
        }
        self.writing = None;
        Ok(next)
    }

    fn echo(&mut self, shared: &mut Shared<'_>) -> io::Result<Next> {
        if !self.transport.handshake()? {
            return Ok(Next::Wait);
        }
        loop {
            while !self.input.is_empty() {
                let count = self.transport.write(&self.input)?;
                self.input.drain(..count);
            }
            if !self.transport.flush()? || self.empty {
                return Ok(Next::Wait);
            }
            let count = self.transport.read(&mut shared.scratch)?;
            if count == 0 {
                return Ok(Next::Close);
            }
            Counters::add(&shared.counters.answered);
            self.empty =
                count < shared.scratch.len() && self.transport.short_read_means_empty() && !self.ended;
            let sent = match self.transport.write(&shared.scratch[..count]) {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            self.input.extend_from_slice(&shared.scratch[sent..count]);
        }
    }

    fn discard(&mut self, shared: &mut Shared<'_>) -> io::Result<Next> {
        if !self.transport.handshake()? {
            return Ok(Next::Wait);
        }
        loop {
            if self.transport.read(&mut shared.scratch)? == 0 {
                return Ok(Next::Close);
            }
            Counters::add(&shared.counters.answered);
        }
    }
}
