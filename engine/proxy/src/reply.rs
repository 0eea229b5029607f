//! The answer on its way downstream, whichever codec the request came by: a head, pieces of body, an end.

use crate::{
    body::{H1Writer, write_into},
    guard::Watch,
    http2::{self, Outgoing},
    link::Link,
    state::CoreState,
};
use corelane_http::{
    BodyFraming, Casing, Connection, Fields, Known, Method, ResponseHead, Version, write_response,
};
use corelane_runtime::Buf;
use corelane_snapshot::TrafficDirection;
use std::{io, rc::Rc};

pub(crate) enum Reply {
    H1(H1Reply),
    H2(H2Reply),
}

impl Reply {
    /// Whether the client has (or is about to get) a final head, or a part of any: then no other answer can be given.
    pub fn is_started(&self) -> bool {
        match self {
            Reply::H1(reply) => reply.started || reply.torn,
            Reply::H2(reply) => reply.started,
        }
    }

    /// `100 Continue` of our own, before anything of the upstream's is passed on: two writers would mix their bytes.
    pub async fn go_on(&mut self, state: &CoreState) -> io::Result<()> {
        match self {
            Reply::H1(reply) => {
                let mut interim = state.buffer();
                interim.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                reply.whole(interim).await
            }
            Reply::H2(_) => Ok(()),
        }
    }

    /// A 1xx before the final head; codecs and versions without them drop it.
    pub async fn interim(&mut self, state: &CoreState, head: &ResponseHead) -> io::Result<()> {
        match self {
            Reply::H1(reply) => reply.interim(state, head).await,
            Reply::H2(reply) => {
                if head.status == 100 {
                    reply.outgoing.go_on();
                }
                Ok(())
            }
        }
    }

    /// `framing` is how the body comes; each codec sends it as it can. Small messages wait for their end.
    pub async fn head(
        &mut self,
        state: &CoreState,
        head: &mut ResponseHead,
        framing: BodyFraming,
    ) -> io::Result<()> {
        match self {
            Reply::H1(reply) => reply.head(state, head, framing).await,
            Reply::H2(reply) => reply.head(head, framing),
        }
    }

    pub async fn data(&mut self, buf: Buf, last: bool) -> io::Result<()> {
        match self {
            Reply::H1(reply) => reply.writer.data(buf, last).await,
            Reply::H2(reply) => reply.outgoing.data(buf, last).await,
        }
    }

    /// Sends a head that waits for its body. An HTTP/2 head never waits.
    pub async fn flush(&mut self) -> io::Result<()> {
        match self {
            Reply::H1(reply) => reply.writer.flush().await,
            Reply::H2(_) => Ok(()),
        }
    }

    /// Takes back a final head of which nothing has gone out, so that another answer can be given. An HTTP/2 head never
    /// waits.
    pub fn take_back(&mut self) -> bool {
        match self {
            Reply::H1(reply) => {
                let unsent = reply.started && !reply.torn && reply.writer.take_back();
                if unsent {
                    reply.started = false;
                    reply.until_close = false;
                }
                unsent
            }
            Reply::H2(_) => false,
        }
    }

    pub async fn finish(&mut self, state: &CoreState, trailers: &Fields) -> io::Result<()> {
        match self {
            Reply::H1(reply) => reply.writer.finish(state, trailers).await,
            Reply::H2(reply) => reply.outgoing.finish(trailers),
        }
    }

    /// The client did not read in time: what it has is a part, and the rest will not come.
    pub fn tear(&mut self) {
        if let Reply::H1(reply) = self {
            reply.torn = true;
        }
        self.abort();
    }

    /// The answer broke off: the client must see that it is not whole.
    pub fn abort(&mut self) {
        match self {
            Reply::H1(reply) => reply.abort(),
            Reply::H2(reply) => reply.outgoing.reset(h2::Reason::INTERNAL_ERROR),
        }
    }

    /// What tells that the client is gone.
    pub fn watch(&self) -> Watch {
        match self {
            Reply::H1(_) => Watch::Connection,
            Reply::H2(reply) => Watch::Stream(reply.outgoing.clone()),
        }
    }

    /// Asks for the connection to end after this answer; an HTTP/2 connection goes on.
    pub fn close_after(&mut self) {
        if let Reply::H1(reply) = self {
            reply.close = true;
        }
    }

    pub fn closes(&self) -> bool {
        matches!(self, Reply::H1(reply) if reply.close)
    }

    pub fn body_bytes(&self) -> u64 {
        match self {
            Reply::H1(reply) => reply.writer.body_bytes(),
            Reply::H2(reply) => reply.outgoing.body_bytes(),
        }
    }

    /// Bytes on the wire, where they are the answer's own; an HTTP/2 connection counts for all its streams.
    pub fn wire_bytes(&self) -> u64 {
        match self {
            Reply::H1(reply) => reply.beside + reply.writer.wire_bytes(),
            Reply::H2(_) => 0,
        }
    }
}

pub(crate) struct H1Reply {
    writer: H1Writer,
    version: Version,
    method: Method,
    casing: Casing,
    /// Of the listener; decides whether a drain is its own.
    direction: TrafficDirection,
    close: bool,
    started: bool,
    until_close: bool,
    /// A write outside the body was given up, or is under way.
    torn: bool,
    /// Bytes written outside the final head and its body.
    beside: u64,
}

impl H1Reply {
    /// `close`: the client or a limit wants the connection to end after this answer.
    pub fn new(link: &Link, version: Version, method: Method, casing: Casing, close: bool) -> Self {
        H1Reply {
            writer: H1Writer::new(link.conn.clone()),
            direction: link.listener.direction,
            version,
            method,
            casing,
            close,
            started: false,
            until_close: false,
            torn: false,
            beside: 0,
        }
    }

    async fn interim(&mut self, state: &CoreState, head: &ResponseHead) -> io::Result<()> {
        // RFC 9110 section 15.2: "A server MUST NOT send a 1xx response to an HTTP/1.0 client."
        if self.version == Version::H10 {
            return Ok(());
        }
        let head = self.written(state, head, BodyFraming::None, Connection::KeepAlive)?;
        self.whole(head).await
    }

    /// Writes what must not be left half written; dropped meanwhile, it leaves its mark.
    async fn whole(&mut self, buf: Buf) -> io::Result<()> {
        self.torn = true;
        self.beside += buf.len() as u64;
        self.writer.conn.write_all(buf).await.0?;
        self.torn = false;
        Ok(())
    }

    async fn head(
        &mut self,
        state: &CoreState,
        head: &mut ResponseHead,
        framing: BodyFraming,
    ) -> io::Result<()> {
        let framing = self.framing(head.status, framing);
        self.until_close = framing == BodyFraming::UntilClose;
        // a drain that began while the answer was awaited
        self.close |= self.until_close || state.shared.is_draining(self.direction);
        let connection = match () {
            () if head.status == 101 => Connection::Upgrade,
            () if self.close => Connection::Close,
            () => Connection::KeepAlive,
        };
        let written = self.written(state, head, framing, connection)?;
        self.started = true;
        self.writer.begin(written, framing);
        Ok(())
    }

    /// How the body goes out, given how it came.
    fn framing(&self, status: u16, framing: BodyFraming) -> BodyFraming {
        // RFC 9112 section 6.3, 1: answers to HEAD and all 1xx, 204 and 304 end with their head; a 2xx to CONNECT too
        let bodiless = self.method == Method::Head
            || matches!(status, 100..=199 | 204 | 304)
            || (self.method == Method::Connect && (200..300).contains(&status));
        match framing {
            _ if bodiless => BodyFraming::None,
            BodyFraming::Chunked | BodyFraming::UntilClose if self.version == Version::H10 => {
                BodyFraming::UntilClose
            }
            BodyFraming::Chunked | BodyFraming::UntilClose => BodyFraming::Chunked,
            BodyFraming::None => BodyFraming::Length(0),
            BodyFraming::Length(length) => BodyFraming::Length(length),
        }
    }

    fn written(
        &self,
        state: &CoreState,
        head: &ResponseHead,
        framing: BodyFraming,
        connection: Connection,
    ) -> io::Result<Buf> {
        let mut buf = state.buffer();
        let write = |buf: &mut Buf| {
            write_into(buf, |sink| write_response(head, self.version, framing, connection, self.casing, sink))
        };
        if write(&mut buf).is_err() {
            // larger than a pooled buffer: names, values, separators and the lines we add
            const LINES_ADDED_BYTES: usize = 512;
            let bytes = head.fields.total_bytes() + head.fields.count() * 4 + LINES_ADDED_BYTES;
            buf = state.core.buffers().take_sized(bytes);
            write(&mut buf).map_err(io::Error::other)?;
        }
        Ok(buf)
    }

    fn abort(&mut self) {
        self.close = true;
        if self.until_close || self.torn {
            // a plain close would look like the end of the body, or wait for a client that does not read
            self.writer.conn.reset();
        }
    }
}

pub(crate) struct H2Reply {
    outgoing: Rc<Outgoing>,
    method: Method,
    started: bool,
}

impl H2Reply {
    pub fn new(outgoing: Rc<Outgoing>, method: Method) -> Self {
        H2Reply { outgoing, method, started: false }
    }

    fn head(&mut self, head: &ResponseHead, framing: BodyFraming) -> io::Result<()> {
        // RFC 9113 section 8.6: "The 101 (Switching Protocols) informational status code is not supported in HTTP/2"
        let unwritable = || io::Error::from(io::ErrorKind::InvalidData);
        if head.status < 200 {
            return Err(unwritable());
        }
        // RFC 9110 section 6.4.1: answers to HEAD, 204 and 304 have no content
        let bodiless = self.method == Method::Head || matches!(head.status, 204 | 304);
        let end = bodiless || matches!(framing, BodyFraming::None | BodyFraming::Length(0));
        let response = http2::write_response(head, framing).map_err(|_| unwritable())?;
        self.outgoing.head(response, head.fields.total_bytes() as u64, end)?;
        self.started = true;
        Ok(())
    }
}

/// An answer of the proxy's own: plain text as Envoy sends it, or a gRPC status for gRPC calls.
pub(crate) fn local_head(head: &mut ResponseHead, status: u16, grpc: Option<u8>, body: &[u8]) {
    head.clear();
    if let Some(code) = grpc {
        // gRPC over HTTP/2, "HTTP2 Transport Mapping": trailers-only with the status in the head
        head.status = 200;
        head.fields.append_known(Known::ContentType, b"application/grpc");
        let digits = [b'0' + code / 10, b'0' + code % 10];
        head.fields.append_known(Known::GrpcStatus, if code >= 10 { &digits } else { &digits[1..] });
        if !body.is_empty() {
            head.fields.append_known(Known::GrpcMessage, body);
        }
        return;
    }
    head.status = status;
    if !body.is_empty() {
        head.fields.append_known(Known::ContentType, b"text/plain");
    }
}

/// gRPC status codes: DEADLINE_EXCEEDED.
pub(crate) const GRPC_DEADLINE_EXCEEDED: u8 = 4;
/// gRPC status codes: RESOURCE_EXHAUSTED.
pub(crate) const GRPC_RESOURCE_EXHAUSTED: u8 = 8;

/// gRPC, "HTTP to gRPC Status Code Mapping".
pub(crate) fn grpc_status(http: u16) -> u8 {
    match http {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}
