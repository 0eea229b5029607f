//! One request on one upstream connection: a half that sends and a half that receives, so that an answer may
//! come before the request is complete. Which codec carries it is known only here.

mod frames;
mod h2;
mod lease;
mod opening;
mod streams;

pub(crate) use lease::Lease;
pub(crate) use streams::Streams;

use crate::{
    body::{BodyError, H1Body, H1Writer, Piece, write_into},
    conn::Conn,
    connect,
    guard::Progress,
    http2::{H2Body, StreamEnd},
    pool::UpstreamConn,
    prepare::Forward,
    state::CoreState,
};
use corelane_http::{
    BodyFraming, Casing, Connection, Fields, Limits, Method, Parsed, RequestHead, ResponseHead, Version,
    parse_response, write_request,
};
use corelane_runtime::Buf;
use corelane_snapshot::{Cluster, Endpoint, EndpointId, UpstreamProtocol};
use corelane_telemetry::{Block, ClusterStat};
use corelane_tls::TlsError;
use corelane_traffic::Failure;
use h2::{H2Receive, H2Send};
use std::{io, rc::Rc, sync::Arc};
use streams::{Acquired, Wanted};

/// Bytes of an upstream's response head at most (Envoy: 60 KiB).
const RESPONSE_HEAD_BYTES_MAX: usize = 60 * 1024;
/// 1xx answers before the final one.
pub(crate) const INTERIM_MAX: u32 = 16;

/// A request's body as the downstream codec delivers it.
// boxing it would allocate for each
#[expect(clippy::large_enum_variant)]
pub(crate) enum BodyIn {
    Empty,
    H1(H1Body),
    H2(Box<H2Body>),
}

impl BodyIn {
    pub fn is_empty(&self) -> bool {
        matches!(self, BodyIn::Empty)
    }

    pub fn is_done(&self) -> bool {
        match self {
            BodyIn::Empty => true,
            BodyIn::H1(body) => body.is_done(),
            BodyIn::H2(body) => body.is_done(),
        }
    }

    pub async fn next(&mut self, state: &CoreState) -> Result<Piece, BodyError> {
        match self {
            BodyIn::Empty => Ok(Piece::End),
            BodyIn::H1(body) => body.next(state).await,
            BodyIn::H2(body) => body.next(state).await,
        }
    }

    /// Once: whether the client waits for the codec's `100 Continue`. RFC 9110 section 10.1.1: it may be omitted when
    /// "some or all of the content" has come. HTTP/2 says it by itself.
    pub fn take_continue_due(&mut self) -> bool {
        match self {
            BodyIn::H1(body) => {
                std::mem::take(&mut body.continue_due) && body.input.as_ref().is_none_or(Buf::is_empty)
            }
            BodyIn::Empty | BodyIn::H2(_) => false,
        }
    }

    pub fn trailers(&self) -> Option<&Fields> {
        match self {
            BodyIn::Empty => None,
            BodyIn::H1(body) => Some(body.trailers()),
            BodyIn::H2(body) => Some(body.trailers()),
        }
    }

    /// What the client sent behind its request.
    pub fn take_rest(&mut self) -> Option<Buf> {
        match self {
            BodyIn::Empty | BodyIn::H2(_) => None,
            BodyIn::H1(body) => body.input.take(),
        }
    }

    pub fn received(&self) -> u64 {
        match self {
            BodyIn::Empty => 0,
            BodyIn::H1(body) => body.received,
            BodyIn::H2(body) => body.received,
        }
    }

    /// It broke the rules of HTTP/2.
    pub fn is_malformed(&self) -> bool {
        matches!(self, BodyIn::H2(body) if body.end() == Some(StreamEnd::Malformed))
    }

    /// Of a gRPC call, which HTTP/1 does not carry.
    pub fn messages(&self) -> u64 {
        match self {
            BodyIn::Empty | BodyIn::H1(_) => 0,
            BodyIn::H2(body) => body.messages(),
        }
    }
}

/// An upstream stream, opened for one request.
pub(crate) struct Opened {
    pub send: SendHalf,
    pub receive: ReceiveHalf,
    pub lease: Lease,
}

/// Finds a connection to the endpoint, or makes one; over HTTP/1.1 a `fresh` one is made if it may be.
pub(crate) async fn open(
    state: &Rc<CoreState>,
    forward: &Forward<'_>,
    endpoint: &Arc<Endpoint>,
    request: &RequestHead,
    upgrade: bool,
    fresh: bool,
) -> Result<Opened, Failure> {
    let (cluster, priority) = (forward.cluster, forward.action.priority);
    if let Some(wanted) = multiplexed(cluster, endpoint, request.version, upgrade) {
        match streams::acquire(state, cluster, endpoint, wanted, priority).await? {
            Acquired::Stream(stream) => {
                let (send, receive) = h2::halves(&stream);
                return Ok(Opened {
                    send: SendHalf::H2(send),
                    receive: ReceiveHalf::H2(receive),
                    lease: Lease::H2(stream),
                });
            }
            Acquired::Http1 => {}
        }
    }
    let method = request.method();
    let upstream = loop {
        let upstream = connect::acquire(state, cluster, endpoint, priority, fresh).await?;
        // what can't be repeated goes only on a connection that is known to be open now
        if method.is_idempotent() || !upstream.is_reused() || !upstream.conn.is_stale() {
            break upstream;
        }
    };
    Ok(over_http1(cluster, upstream))
}

/// An idle HTTP/1.1 connection to the endpoint, which is the usual case and needs no waiting.
pub(crate) fn idle(
    state: &CoreState,
    forward: &Forward<'_>,
    endpoint: &Endpoint,
    request: &RequestHead,
    upgrade: bool,
) -> Option<Opened> {
    let (cluster, priority) = (forward.cluster, forward.action.priority);
    if multiplexed(cluster, endpoint, request.version, upgrade).is_some() {
        return None;
    }
    loop {
        let upstream = state.pool.take(state.now(), &cluster.config, endpoint, priority)?;
        if request.method().is_idempotent() || !upstream.conn.is_stale() {
            return Some(over_http1(cluster, upstream));
        }
    }
}

fn over_http1(cluster: &Cluster, upstream: UpstreamConn) -> Opened {
    let fields_max = cluster.config.pool.header_fields_max;
    let conn = upstream.conn.clone();
    upstream.taken();
    let stats = upstream.block();
    let first_of = (!upstream.is_reused()).then_some(upstream.endpoint.id);
    Opened {
        send: SendHalf::H1(H1Writer::new(conn.clone()), stats),
        receive: ReceiveHalf::H1(H1Receive { conn, body: None, fields_max, stats, first_of }),
        lease: Lease::H1(upstream),
    }
}

/// Whether the request goes over HTTP/2, and on what condition.
fn multiplexed(cluster: &Cluster, endpoint: &Endpoint, version: Version, upgrade: bool) -> Option<Wanted> {
    match cluster.config.protocol {
        UpstreamProtocol::Http1 => None,
        UpstreamProtocol::Http2 => Some(Wanted::Http2),
        UpstreamProtocol::UseDownstream => (version == Version::H2).then_some(Wanted::Http2),
        // nothing negotiates without TLS; an HTTP/1.1 upgrade needs HTTP/1.1
        UpstreamProtocol::Auto => {
            (streams::tls(cluster, endpoint).is_some() && !upgrade).then_some(Wanted::Negotiated)
        }
    }
}

pub(crate) enum SendHalf {
    /// And who counts its bytes; HTTP/2 counts a connection's.
    H1(H1Writer, Block<ClusterStat>),
    H2(H2Send),
}

/// Which side broke while the request was sent.
#[derive(Debug)]
pub(crate) enum SendError {
    Upstream,
    Downstream(BodyError),
}

impl SendHalf {
    /// Writes the head; it may wait for the first piece of body.
    pub fn head(
        &mut self,
        state: &CoreState,
        head: &RequestHead,
        framing: BodyFraming,
        upgrade: bool,
        casing: Casing,
    ) -> Result<(), Failure> {
        match self {
            SendHalf::H1(writer, _) => {
                let connection = if upgrade { Connection::Upgrade } else { Connection::KeepAlive };
                let mut buf = state.buffer();
                let write = |buf: &mut Buf| {
                    write_into(buf, |sink| write_request(head, framing, connection, casing, sink))
                };
                if write(&mut buf).is_err() {
                    const LINES_ADDED_BYTES: usize = 512;
                    let target = head.path().len() + head.authority().len() + head.method_bytes().len();
                    let bytes =
                        head.fields.total_bytes() + head.fields.count() * 4 + target + LINES_ADDED_BYTES;
                    buf = state.core.buffers().take_sized(bytes);
                    // only a head that cannot be written at all (no host) fails twice
                    write(&mut buf).map_err(|_| Failure::DownstreamProtocolError)?;
                }
                writer.begin(buf, framing);
                Ok(())
            }
            SendHalf::H2(send) => send.head(head, framing, upgrade),
        }
    }

    pub async fn data(&mut self, buf: Buf, last: bool) -> Result<(), SendError> {
        match self {
            SendHalf::H1(writer, _) => writer.data(buf, last).await.map_err(|_| SendError::Upstream),
            SendHalf::H2(send) => send.data(buf, last).await,
        }
    }

    /// Sends a head that waits for its body. An HTTP/2 head never waits.
    pub async fn flush(&mut self) -> Result<(), SendError> {
        match self {
            SendHalf::H1(writer, _) => writer.flush().await.map_err(|_| SendError::Upstream),
            SendHalf::H2(_) => Ok(()),
        }
    }

    pub async fn finish(&mut self, state: &CoreState, trailers: &Fields) -> Result<(), SendError> {
        match self {
            SendHalf::H1(writer, _) => writer.finish(state, trailers).await.map_err(|_| SendError::Upstream),
            SendHalf::H2(send) => send.finish(trailers),
        }
    }

    pub fn wire_bytes(&self) -> u64 {
        match self {
            SendHalf::H1(writer, _) => writer.sent_bytes(),
            SendHalf::H2(send) => send.wire_bytes(),
        }
    }

    /// Counts what went out since it was counted last.
    pub fn count(&self, state: &CoreState, progress: &Progress<'_>) {
        let all = self.wire_bytes();
        let more = all - progress.wire_bytes.replace(all);
        if let (SendHalf::H1(_, stats), 1..) = (self, more) {
            state.shard.add(*stats, ClusterStat::UpstreamCxTxBytesTotal, more);
        }
    }
}

pub(crate) enum ReceiveHalf {
    H1(H1Receive),
    H2(H2Receive),
}

pub(crate) struct H1Receive {
    conn: Rc<Conn>,
    body: Option<H1Body>,
    fields_max: u32,
    stats: Block<ClusterStat>,
    /// The endpoint, where this is the connection's first request.
    first_of: Option<EndpointId>,
}

/// What a response's head says about what follows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub framing: BodyFraming,
    pub keep_alive: bool,
    pub tunnel: bool,
    pub interim: bool,
    pub wire_bytes: u64,
}

impl ReceiveHalf {
    /// The next head, final or interim.
    pub async fn head(
        &mut self,
        state: &CoreState,
        method: Method,
        head: &mut ResponseHead,
        progress: &Progress<'_>,
    ) -> Result<Answer, Failure> {
        match self {
            ReceiveHalf::H1(receive) => receive.head(state, method, head, progress).await,
            ReceiveHalf::H2(receive) => receive.head(method, head, progress).await,
        }
    }

    pub async fn next(&mut self, state: &CoreState) -> Result<Piece, BodyError> {
        match self {
            ReceiveHalf::H1(receive) => match &mut receive.body {
                Some(body) => {
                    let before = body.read;
                    let piece = body.next(state).await;
                    if body.read > before {
                        let more = body.read - before;
                        state.shard.add(receive.stats, ClusterStat::UpstreamCxRxBytesTotal, more);
                    }
                    piece
                }
                None => Ok(Piece::End),
            },
            ReceiveHalf::H2(receive) => receive.next(state).await,
        }
    }

    pub fn trailers(&self) -> Option<&Fields> {
        match self {
            ReceiveHalf::H1(receive) => receive.body.as_ref().map(H1Body::trailers),
            ReceiveHalf::H2(receive) => receive.trailers(),
        }
    }

    pub fn received(&self) -> u64 {
        match self {
            ReceiveHalf::H1(receive) => receive.body.as_ref().map_or(0, |body| body.received),
            ReceiveHalf::H2(receive) => receive.received(),
        }
    }

    /// Of a gRPC call, which HTTP/1 does not carry.
    pub fn messages(&self) -> u64 {
        match self {
            ReceiveHalf::H1(_) => 0,
            ReceiveHalf::H2(receive) => receive.messages(),
        }
    }

    /// Nothing unasked followed the response, so that the connection can carry another.
    pub fn is_clean(&self) -> bool {
        match self {
            ReceiveHalf::H1(receive) => receive
                .body
                .as_ref()
                .is_some_and(|body| body.is_done() && body.input.as_ref().is_none_or(Buf::is_empty)),
            ReceiveHalf::H2(_) => true,
        }
    }

    /// What came behind the head of a 101.
    pub fn into_early(self) -> Option<Buf> {
        match self {
            ReceiveHalf::H1(receive) => receive.body.and_then(|body| body.input),
            ReceiveHalf::H2(_) => None,
        }
    }
}

impl H1Receive {
    async fn head(
        &mut self,
        state: &CoreState,
        method: Method,
        head: &mut ResponseHead,
        progress: &Progress<'_>,
    ) -> Result<Answer, Failure> {
        // an interim head left what followed it here
        let mut input = self.body.take().and_then(|body| body.input);
        let limits = Limits {
            head_bytes_max: RESPONSE_HEAD_BYTES_MAX,
            fields_max: self.fields_max as usize,
            accept_http_10: true,
            ..Limits::default()
        };
        loop {
            if let Some(mut buf) = input.take().filter(|buf| !buf.is_empty()) {
                match parse_response(buf.filled(), &limits, method, head) {
                    Ok(Parsed::Complete(meta)) => {
                        buf.advance(meta.consumed);
                        let rest = (!buf.is_empty()).then_some(buf);
                        self.body = Some(H1Body::new(self.conn.clone(), meta.framing, rest, false));
                        return Ok(Answer {
                            framing: meta.framing,
                            keep_alive: meta.keep_alive,
                            tunnel: meta.tunnel,
                            interim: meta.interim,
                            wire_bytes: meta.consumed as u64,
                        });
                    }
                    Ok(Parsed::Partial) => input = Some(roomier(state, buf)),
                    Err(_) => return Err(Failure::ProtocolError),
                }
            }
            let (read, buf) = self.conn.read(input.take().unwrap_or_else(|| state.buffer())).await;
            match read {
                Ok(n) if n > 0 => {
                    progress.heard.set(true);
                    state.shard.add(self.stats, ClusterStat::UpstreamCxRxBytesTotal, n as u64);
                    input = Some(buf);
                }
                Ok(_) => return Err(Failure::UpstreamTermination),
                Err(error) => return Err(self.broken(state, &error, progress)),
            }
        }
    }

    /// RFC 8446, appendix A.1: a client's handshake is over when it has sent its certificate. What the
    /// server thinks of that certificate comes where the answer should, and is about the handshake.
    fn broken(&self, state: &CoreState, error: &io::Error, progress: &Progress<'_>) -> Failure {
        match (TlsError::of(error), self.first_of) {
            (Some(alert), Some(endpoint)) if alert.is_about_certificate() && !progress.heard.get() => {
                state.transport_failure.borrow_mut().note(Some(endpoint), alert);
                Failure::TlsHandshake
            }
            _ => Failure::UpstreamTermination,
        }
    }
}

/// A partial head that fills its buffer goes on in a larger one; the codec's limit bounds it.
pub(crate) fn roomier(state: &CoreState, buf: Buf) -> Buf {
    if buf.spare_len() > 0 {
        return buf;
    }
    let mut larger = state.core.buffers().take_sized(buf.len() * 2);
    larger.extend_from_slice(buf.filled());
    larger
}
