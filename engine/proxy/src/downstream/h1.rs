//! HTTP/1.1 and 1.0 from downstream: one request after the other, pipelined ones as they come.
//!
//! Most connections are idle most of the time, and what serves a request is large. So a connection is two futures:
//! the task itself, small, waits for bytes; [`Requests`] serves them in a frame, which lasts while requests come
//! and is given up when none came for `park_after`. The wait itself is never given up, so no byte is lost.

use super::Counted;
use crate::{
    body::H1Body,
    exchange::{self, After, LocalReply, Request},
    link::Link,
    race::{First, race},
    reply::{H1Reply, Reply},
    state::CoreState,
    upstream::{BodyIn, roomier},
};
use corelane_http::{
    BodyFraming, Casing, HttpError, Limits, Method, Parsed, RequestHead, RequestMeta, parse_request,
    reason_phrase,
};
use corelane_runtime::{Buf, Nanos};
use corelane_snapshot::{HeaderCasing, HttpConnectionManager, Terminal};
use corelane_telemetry::{Block, Details, HttpStat, ResponseFlags};
use corelane_traffic::Failure;
use std::{
    cell::Cell,
    future::Future,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

/// Bytes that are read and thrown away after the last answer, so that it is not lost to a reset (RFC 9112
/// section 9.6).
const LINGER_BYTES_MAX: usize = 1 << 20;

/// Serves a connection to its end.
pub(crate) async fn serve(state: Rc<CoreState>, link: Rc<Link>, first: Option<Buf>) {
    let Terminal::Http(hcm) = &link.chain.terminal else { return };
    let http = Block::from_raw(hcm.stats.http.0);
    let by_codec = (HttpStat::DownstreamCxHttp1Total, HttpStat::DownstreamCxHttp1Active);
    let counted = Counted::opened(&state, &link, http, by_codec);
    let early = first.as_ref().map_or(0, Buf::len);
    state.shard.add(http, HttpStat::DownstreamCxRxBytesTotal, early as u64);
    let connection =
        Connection { state: &state, link: &link, hcm, requests: Cell::new(0), gate: Gate::new(first) };
    let end = connection.run().await;
    if end == End::Linger {
        let closed = state.core.frames().place(linger(&state, &link, hcm.delayed_close_timeout)).await;
        if !closed {
            state.shard.inc(http, HttpStat::DownstreamCxDelayedCloseTimeout);
        }
    }
    counted.closed(matches!(end, End::Remote | End::Gone), end == End::Gone);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client is done, or gone.
    Remote,
    /// The client is gone, and a request was under way.
    Gone,
    /// We are done, and the client may still be sending.
    Linger,
    /// Nothing more can be said.
    Now,
}

struct Connection<'a> {
    state: &'a Rc<CoreState>,
    link: &'a Link,
    hcm: &'a HttpConnectionManager,
    /// Requests so far.
    requests: Cell<u32>,
    gate: Gate,
}

/// Where the requests ask the connection for bytes.
struct Gate {
    asked: Cell<bool>,
    bytes: Cell<Option<Buf>>,
}

impl Gate {
    fn new(first: Option<Buf>) -> Self {
        let first = first.filter(|buf| !buf.is_empty());
        Gate { asked: Cell::new(first.is_none()), bytes: Cell::new(first) }
    }

    fn deliver(&self, buf: Buf) {
        self.asked.set(false);
        self.bytes.set(Some(buf));
    }

    /// The start of the next request. Whoever delivers it polls next, so nobody is woken.
    fn next(&self) -> impl Future<Output = Buf> {
        std::future::poll_fn(|_| {
            let bytes = self.bytes.take();
            self.asked.set(bytes.is_none());
            bytes.map_or(Poll::Pending, Poll::Ready)
        })
    }
}

/// The requests of one busy period.
struct Requests<'a> {
    state: &'a Rc<CoreState>,
    link: &'a Link,
    hcm: &'a HttpConnectionManager,
    connection: &'a Connection<'a>,
    /// Bytes read and not yet parsed: the start of the next request.
    input: Option<Buf>,
}

/// Why a request that has begun does not become one.
enum NoRequest {
    Closed,
    HeaderTimeout,
    StreamIdle,
    IdleConnection,
    Broken(HttpError),
}

impl<'a> Connection<'a> {
    /// Waits and serves in turn. It is small: an idle connection holds all of it.
    async fn run(&'a self) -> End {
        let (state, link) = (self.state, self.link);
        let park_after = state.shared.limits.park_after;
        let mut serving = None;
        loop {
            if !self.gate.asked.get() {
                let frame = serving.get_or_insert_with(|| state.core.frames().place(self.requests().run()));
                let ended = std::future::poll_fn(|context| match Pin::new(&mut *frame).poll(context) {
                    Poll::Ready(end) => Poll::Ready(Some(end)),
                    Poll::Pending if self.gate.asked.get() => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                });
                if let Some(end) = ended.await {
                    return end;
                }
            }
            let now = state.now();
            if state.shared.is_closing() && !link.conn.is_asked() {
                return self.ends(HttpStat::DownstreamCxDrainClose);
            }
            let idle_until = self.hcm.idle_timeout.map_or(Nanos::MAX, |idle| now + idle);
            let gives_up = idle_until.min(self.old_at());
            let mut parks = if serving.is_some() { now + park_after } else { gives_up };
            link.deadline.arm(gives_up.min(parks));
            let mut read = pin!(link.conn.read_parking(&state.core, park_after));
            loop {
                // a busy connection hears of the end of a drain when it parks, or with its next answer
                let drain = serving.is_none().then(|| state.drain.enter(link.id));
                let due = std::future::poll_fn(|context| {
                    let over = drain.as_ref().is_some_and(|drain| drain.is_over(&state.shared, context));
                    if over && !link.conn.is_asked() {
                        return Poll::Ready(());
                    }
                    link.deadline.poll_expired(context)
                });
                match race(read.as_mut(), due).await {
                    First::Left(Ok(buf)) if !buf.is_empty() => {
                        self.read(buf.len() as u64);
                        break self.gate.deliver(buf);
                    }
                    First::Left(_) => return End::Remote,
                    First::Right(()) if state.shared.is_closing() && !link.conn.is_asked() => {
                        return self.ends(HttpStat::DownstreamCxDrainClose);
                    }
                    First::Right(()) if parks < gives_up => {
                        serving = None;
                        parks = gives_up;
                        link.deadline.arm(gives_up);
                    }
                    First::Right(()) if state.now() >= self.old_at() => {
                        return self.ends(HttpStat::DownstreamCxMaxDurationReached);
                    }
                    First::Right(()) => return self.ends(HttpStat::DownstreamCxIdleTimeout),
                }
            }
        }
    }

    /// When it has lasted as long as it may.
    fn old_at(&self) -> Nanos {
        self.hcm.connection_duration_max.map_or(Nanos::MAX, |max| self.link.accepted + max)
    }

    fn read(&self, bytes: u64) {
        let http = Block::from_raw(self.hcm.stats.http.0);
        self.state.shard.add(http, HttpStat::DownstreamCxRxBytesTotal, bytes);
    }

    fn ends(&self, why: HttpStat) -> End {
        self.state.shard.inc(Block::from_raw(self.hcm.stats.http.0), why);
        End::Linger
    }

    fn requests(&'a self) -> Requests<'a> {
        Requests { state: self.state, link: self.link, hcm: self.hcm, connection: self, input: None }
    }
}

impl Requests<'_> {
    async fn run(mut self) -> End {
        loop {
            let start = match self.input.take() {
                Some(buf) if !buf.is_empty() => buf,
                _ => self.connection.gate.next().await,
            };
            let mut head = self.state.request_head();
            let next = match self.head(start, &mut head).await {
                // not a future of its own: that would be moved, all of it, for every request
                Ok(meta) => {
                    let close = self.begun(&meta);
                    let mut body = self.body(&head, &meta);
                    let mut reply = self.reply(&head, close);
                    let request = Request {
                        head: &mut head,
                        body: &mut body,
                        framing: meta.framing,
                        upgrade: meta.upgrade,
                        deadline: &self.link.deadline,
                    };
                    let after =
                        exchange::exchange(self.state, self.link, self.hcm, request, &mut reply).await;
                    self.answered(body, after, close)
                }
                Err(none) => Err(self.without_request(&mut head, none).await),
            };
            self.state.keep_request_head(head);
            match next {
                Ok(()) => {}
                Err(end) => return end,
            }
        }
    }

    /// Whether the connection ends after this request.
    fn begun(&self, meta: &RequestMeta) -> bool {
        let requests = &self.connection.requests;
        requests.set(requests.get().saturating_add(1));
        !meta.keep_alive || self.is_last()
    }

    fn body(&mut self, head: &RequestHead, meta: &RequestMeta) -> BodyIn {
        match meta.framing {
            BodyFraming::None if !meta.upgrade && head.method() != Method::Connect => BodyIn::Empty,
            framing => {
                let mut body = H1Body::new(self.link.conn.clone(), framing, self.input.take(), true);
                body.continue_due = meta.expect_continue && !self.hcm.proxy_100_continue;
                BodyIn::H1(body)
            }
        }
    }

    fn reply(&self, head: &RequestHead, close: bool) -> Reply {
        let casing = casing(self.hcm.http1.casing);
        Reply::H1(H1Reply::new(self.link, head.version, head.method(), casing, close))
    }

    fn answered(&mut self, body: BodyIn, after: After, close: bool) -> Result<(), End> {
        if let BodyIn::H1(body) = body {
            self.connection.read(body.read);
            self.input = body.input;
        }
        match after {
            After::KeepAlive => Ok(()),
            After::Close => {
                if !close && self.state.shared.is_draining(self.link.listener.direction) {
                    // it began while the answer was awaited
                    self.state
                        .shard
                        .inc(Block::from_raw(self.hcm.stats.http.0), HttpStat::DownstreamCxDrainClose);
                }
                Err(End::Linger)
            }
            After::Gone => Err(End::Gone),
            After::Tunnel(_) | After::Closed => Err(End::Now),
        }
    }

    /// Whether the connection ends after the request now begun.
    fn is_last(&self) -> bool {
        let hcm = self.hcm;
        let http = Block::from_raw(hcm.stats.http.0);
        let worn = hcm.requests_per_connection_max > 0
            && self.connection.requests.get() >= hcm.requests_per_connection_max;
        let old =
            hcm.connection_duration_max.is_some_and(|max| self.state.now().since(self.link.accepted) >= max);
        let drained = self.state.shared.is_draining(self.link.listener.direction);
        for (is, stat) in [
            (worn, HttpStat::DownstreamCxMaxRequestsReached),
            (old, HttpStat::DownstreamCxMaxDurationReached),
            (drained, HttpStat::DownstreamCxDrainClose),
        ] {
            if is {
                self.state.shard.inc(http, stat);
            }
        }
        worn || old || drained
    }

    async fn head(&mut self, mut buf: Buf, head: &mut RequestHead) -> Result<RequestMeta, NoRequest> {
        let hcm = self.hcm;
        let limits = Limits {
            head_bytes_max: hcm.request_head_bytes_max as usize,
            fields_max: hcm.header_fields_max as usize,
            accept_http_10: hcm.http1.accept_http_10,
            preserve_case: hcm.http1.casing == HeaderCasing::Preserve,
        };
        let mut began: Option<Nanos> = None;
        loop {
            match parse_request(buf.filled(), &limits, head) {
                Ok(Parsed::Complete(meta)) => {
                    buf.advance(meta.consumed);
                    self.input = (!buf.is_empty()).then_some(buf);
                    return Ok(meta);
                }
                Ok(Parsed::Partial) => {
                    let began = *began.get_or_insert(self.state.now());
                    buf = self.more(roomier(self.state, buf), began).await?;
                }
                Err(error) => return Err(NoRequest::Broken(error)),
            }
        }
    }

    /// Reads on in a head, within its time.
    async fn more(&self, buf: Buf, began: Nanos) -> Result<Buf, NoRequest> {
        let deadline = &self.link.deadline;
        let (limit, why) = head_limit(self.hcm);
        deadline.arm(limit.map_or(Nanos::MAX, |limit| began + limit));
        match race(self.link.conn.read(buf), deadline.expired()).await {
            First::Left((Ok(n), buf)) if n > 0 => {
                self.connection.read(n as u64);
                Ok(buf)
            }
            First::Left(_) => Err(NoRequest::Closed),
            First::Right(()) => Err(why),
        }
    }

    async fn without_request(&mut self, head: &mut RequestHead, why: NoRequest) -> End {
        let http = Block::from_raw(self.hcm.stats.http.0);
        let shard = &self.state.shard;
        match why {
            NoRequest::Closed => End::Remote,
            NoRequest::IdleConnection => self.connection.ends(HttpStat::DownstreamCxIdleTimeout),
            NoRequest::HeaderTimeout => {
                shard.inc(http, HttpStat::DownstreamRqHeaderTimeout);
                let details = Details::REQUEST_HEADER_TIMEOUT;
                let local = LocalReply::new(408, "request header timeout", details, ResponseFlags::NONE);
                exchange::refuse(self.state, self.link, self.hcm, head, local).await;
                End::Linger
            }
            NoRequest::StreamIdle => {
                shard.inc(http, HttpStat::DownstreamRqIdleTimeout);
                let local = LocalReply::of(Failure::StreamIdleTimeout);
                exchange::refuse(self.state, self.link, self.hcm, head, local).await;
                End::Linger
            }
            NoRequest::Broken(error) => {
                shard.inc(http, HttpStat::DownstreamCxProtocolError);
                let (text, details) = (reason_phrase(error.status()), Details::new(error.detail()));
                let local =
                    LocalReply::new(error.status(), text, details, ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
                exchange::refuse(self.state, self.link, self.hcm, head, local).await;
                End::Linger
            }
        }
    }
}

/// How long a head may take from its first byte on, and what is said then: the limit made for it, or the stream's,
/// which exists since that byte; else a connection that brings no whole head is idle.
fn head_limit(hcm: &HttpConnectionManager) -> (Option<Duration>, NoRequest) {
    match (hcm.request_headers_timeout, hcm.stream_idle_timeout) {
        (Some(head), stream) if stream.is_none_or(|stream| head <= stream) => {
            (Some(head), NoRequest::HeaderTimeout)
        }
        (_, Some(stream)) => (Some(stream), NoRequest::StreamIdle),
        (_, None) => (hcm.idle_timeout, NoRequest::IdleConnection),
    }
}

fn casing(configured: HeaderCasing) -> Casing {
    match configured {
        HeaderCasing::Lower => Casing::Lower,
        HeaderCasing::ProperCase => Casing::Proper,
        HeaderCasing::Preserve => Casing::Preserve,
    }
}

/// RFC 9112 section 9.6: closing while the client still sends would reset the connection and could lose the
/// answer. So: no more from us, then what comes is read and dropped, for a bounded time and amount.
/// False: the peer had not closed in time.
pub(crate) async fn linger(state: &CoreState, link: &Link, limit: Duration) -> bool {
    if limit.is_zero() {
        return true;
    }
    link.deadline.arm(state.now() + limit);
    // TLS says goodbye with a record, for which there may be no room
    match race(link.conn.shutdown_write(), link.deadline.expired()).await {
        First::Left(Ok(())) => read_out(state, link, limit).await,
        First::Left(Err(_)) => true,
        First::Right(()) => false,
    }
}

/// The second half of [`linger`], where our direction has ended.
pub(crate) async fn read_out(state: &CoreState, link: &Link, limit: Duration) -> bool {
    link.deadline.arm(state.now() + limit);
    let drain = async {
        let mut left = LINGER_BYTES_MAX;
        while left > 0 {
            // of a TLS stream too the bytes as they come: a read that was given up has left nothing else to read
            match link.conn.tcp().read(state.buffer()).await.0 {
                Ok(n) if n > 0 => left = left.saturating_sub(n),
                _ => return,
            }
        }
    };
    matches!(race(drain, link.deadline.expired()).await, First::Left(()))
}
