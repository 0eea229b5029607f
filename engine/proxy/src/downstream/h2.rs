//! HTTP/2 from downstream: one task a connection that moves frames, one task a stream that runs `exchange`.

use super::Counted;
use crate::{
    exchange::{self, ANSWER_WITHIN, LocalReply, Request},
    http2::{self, Chunk, H2Body, Outgoing, Queue},
    link::Link,
    poll_io::{Outlet, PollIo},
    race::{First, race},
    reply::{H2Reply, Reply},
    state::CoreState,
    upstream::BodyIn,
};
use corelane_http::{Known, Method, reason_phrase};
use corelane_runtime::{Buf, Nanos};
use corelane_snapshot::{HttpConnectionManager, Terminal};
use corelane_telemetry::{Block, Details, Http2Stat, HttpStat, ResponseFlags};
use h2::{
    Reason, RecvStream,
    server::{self, SendResponse},
};
use std::{
    cell::Cell,
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

/// The connection preface comes within this.
const PREFACE_WITHIN: Duration = Duration::from_secs(15);
/// After our GOAWAY and the last stream, the client closes within this where no delayed_close_timeout is set.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);
/// A stream that the client resets within this was premature (Envoy:
/// overload.premature_reset_min_stream_lifetime_seconds).
const PREMATURE_WITHIN: Duration = Duration::from_secs(1);
/// So many premature resets, being half of all streams, close the connection (Envoy:
/// overload.premature_reset_total_stream_count).
const PREMATURE_RESETS_MAX: u32 = 500;

/// Serves a connection to its end.
pub(crate) async fn serve(state: Rc<CoreState>, link: Rc<Link>, first: Option<Buf>) {
    let Terminal::Http(hcm) = &link.chain.terminal else { return };
    let http = Block::from_raw(hcm.stats.http.0);
    let by_codec = (HttpStat::DownstreamCxHttp2Total, HttpStat::DownstreamCxHttp2Active);
    let counted = Counted::opened(&state, &link, http, by_codec);
    let (end, busy) = connection(&state, &link, hcm, first).await;
    if end == End::Local {
        super::h1::read_out(&state, &link, hcm.delayed_close_timeout).await;
    }
    counted.closed(end == End::Remote, busy);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Remote,
    Local,
}

/// How it ended, and whether with requests under way.
async fn connection(
    state: &Rc<CoreState>,
    link: &Rc<Link>,
    hcm: &HttpConnectionManager,
    first: Option<Buf>,
) -> (End, bool) {
    let io = PollIo::downstream(state, &link.conn, first, Block::from_raw(hcm.stats.http.0));
    let outlet = io.outlet();
    link.deadline.arm(state.now() + PREFACE_WITHIN);
    let (end, busy) = match race(settings(hcm).handshake::<_, Chunk>(io), link.deadline.expired()).await {
        First::Left(Ok(frames)) => {
            let mut connection = Connection::new(state, link, hcm, frames, &outlet);
            let end = connection.run().await;
            link.deadline.disarm();
            (end, connection.streams.active.get() > 0)
        }
        First::Left(Err(error)) => (count_error(state, hcm, &error), false),
        First::Right(()) => {
            state.shard.inc(Block::from_raw(hcm.stats.http.0), HttpStat::DownstreamCxIdleTimeout);
            (End::Local, false)
        }
    };
    if end == End::Local {
        // what was written goes first, and our direction ends behind it
        outlet.finished().await;
    }
    (end, busy)
}

fn settings(hcm: &HttpConnectionManager) -> server::Builder {
    let mut settings = server::Builder::new();
    settings
        .max_concurrent_streams(hcm.http2_streams_max)
        .initial_window_size(hcm.http2_stream_window.min(http2::WINDOW_BYTES_MAX))
        .initial_connection_window_size(hcm.http2_connection_window.min(http2::WINDOW_BYTES_MAX))
        .max_header_list_size(hcm.request_head_bytes_max)
        .max_send_buffer_size(http2::SEND_BUFFER_BYTES_MAX)
        .max_concurrent_reset_streams(http2::RESETS_REMEMBERED_MAX)
        .reset_stream_duration(http2::RESETS_REMEMBERED_FOR)
        .max_local_error_reset_streams(Some(http2::ERROR_RESETS_MAX))
        .max_pending_accept_reset_streams(http2::PENDING_RESETS_MAX);
    settings
}

fn count_error(state: &CoreState, hcm: &HttpConnectionManager, error: &h2::Error) -> End {
    if error.is_io() || error.is_remote() {
        return End::Remote;
    }
    state.shard.inc(Block::from_raw(hcm.stats.http.0), HttpStat::DownstreamCxProtocolError);
    End::Local
}

/// What the streams of a connection tell it.
#[derive(Default)]
struct Streams {
    active: Cell<u32>,
    accepted: Cell<u32>,
    premature_resets: Cell<u32>,
    last_end: Cell<Nanos>,
    queue: Queue,
}

struct Connection<'a> {
    state: &'a Rc<CoreState>,
    link: &'a Rc<Link>,
    hcm: &'a HttpConnectionManager,
    frames: server::Connection<PollIo, Chunk>,
    outlet: &'a Outlet,
    streams: Rc<Streams>,
    /// Since when no new streams are wanted.
    leaving: Option<Nanos>,
    /// What [`Queue::moved`] said when it changed last, and when that was seen.
    moved: (u64, Nanos),
}

// handed on within the same poll
#[allow(clippy::large_enum_variant)]
enum Event {
    Stream(http::Request<RecvStream>, SendResponse<Chunk>),
    Ended(End),
    /// Time, or the drain, says to look again.
    Look,
}

impl<'a> Connection<'a> {
    fn new(
        state: &'a Rc<CoreState>,
        link: &'a Rc<Link>,
        hcm: &'a HttpConnectionManager,
        frames: server::Connection<PollIo, Chunk>,
        outlet: &'a Outlet,
    ) -> Self {
        let streams = Rc::new(Streams { queue: Queue::counting(), ..Streams::default() });
        streams.last_end.set(state.now());
        Connection { state, link, hcm, frames, outlet, streams, leaving: None, moved: (0, state.now()) }
    }

    async fn run(&mut self) -> End {
        let drains = self.state.drain.enter(self.link.id);
        loop {
            if self.is_over() {
                return End::Local;
            }
            self.link.deadline.arm(self.next_look());
            let event = poll_fn(|context| {
                drains.watch(context);
                self.poll(context)
            })
            .await;
            match event {
                Event::Stream(request, respond) => self.begin(request, respond),
                Event::Ended(end) => return end,
                Event::Look => {}
            }
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        match self.frames.poll_accept(context) {
            Poll::Ready(Some(Ok((request, respond)))) => return Poll::Ready(Event::Stream(request, respond)),
            Poll::Ready(Some(Err(error))) => {
                return Poll::Ready(Event::Ended(count_error(self.state, self.hcm, &error)));
            }
            Poll::Ready(None) => {
                let end = if self.leaving.is_some() { End::Local } else { End::Remote };
                return Poll::Ready(Event::Ended(end));
            }
            Poll::Pending => {}
        }
        let drain = self.leaving.is_none() && self.state.shared.is_draining(self.link.listener.direction);
        if self.leaving.is_some() {
            self.outlet.watch(context);
        }
        let done = self.streams.active.get() == 0 && (self.leaving.is_none() || self.owes_nothing());
        let closing = done && self.state.shared.is_closing();
        if drain || closing || self.link.deadline.poll_expired(context).is_ready() {
            return Poll::Ready(Event::Look);
        }
        Poll::Pending
    }

    fn begin(&mut self, request: http::Request<RecvStream>, respond: SendResponse<Chunk>) {
        let streams = &self.streams;
        streams.accepted.set(streams.accepted.get().saturating_add(1));
        streams.active.set(streams.active.get() + 1);
        self.state.shard.gauge_add(self.state.stats.http2, Http2Stat::StreamsActive, 1);
        let running = Running { state: self.state.clone(), streams: streams.clone() };
        // a core that is full drops the stream, which resets it
        self.state.core.spawn(serve_stream(running, self.link.clone(), request, respond));
    }

    /// Says goodbye where it is time to; true: nothing is left to wait for.
    fn is_over(&mut self) -> bool {
        let now = self.state.now();
        let streams = &self.streams;
        if let Some(since) = self.leaving {
            if streams.active.get() > 0 {
                return false;
            }
            let last = since.max(streams.last_end.get());
            if !self.owes_nothing() {
                // a client that reads slowly gets all of it; one that does not read, or whose window stays closed
                // whatever else it says, is not waited for
                let moved = streams.queue.moved();
                if moved != self.moved.0 {
                    self.moved = (moved, now);
                }
                return now.since(last.max(self.moved.1)) >= self.outlet.patience();
            }
            return now.since(last) >= self.goodbye() || self.state.shared.is_closing();
        }
        let resets = streams.premature_resets.get();
        if resets >= PREMATURE_RESETS_MAX && resets >= streams.accepted.get() / 2 {
            self.count(HttpStat::DownstreamRqTooManyPrematureResets);
            self.state.shard.inc(self.state.stats.http2, Http2Stat::GoawaySent);
            self.frames.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            self.leaving = Some(now);
            return false;
        }
        if let Some(why) = self.reason_to_leave(now) {
            self.count(why);
            self.outlet.be_patient(self.hcm.stream_idle_timeout.unwrap_or(ANSWER_WITHIN));
            self.state.shard.inc(self.state.stats.http2, Http2Stat::GoawaySent);
            self.frames.graceful_shutdown();
            self.leaving = Some(now);
        }
        false
    }

    fn reason_to_leave(&self, now: Nanos) -> Option<HttpStat> {
        let hcm = self.hcm;
        let streams = &self.streams;
        let worn =
            hcm.requests_per_connection_max > 0 && streams.accepted.get() >= hcm.requests_per_connection_max;
        let old = hcm.connection_duration_max.is_some_and(|max| now.since(self.link.accepted) >= max);
        let unused = || {
            streams.active.get() == 0
                && hcm.idle_timeout.is_some_and(|max| now.since(streams.last_end.get()) >= max)
        };
        match () {
            () if self.state.shared.is_draining(self.link.listener.direction) => {
                Some(HttpStat::DownstreamCxDrainClose)
            }
            () if worn => Some(HttpStat::DownstreamCxMaxRequestsReached),
            () if old => Some(HttpStat::DownstreamCxMaxDurationReached),
            () if unused() => Some(HttpStat::DownstreamCxIdleTimeout),
            () => None,
        }
    }

    /// When something may have come due. A stream that ends does not arm anything: the look after it is early at
    /// worst.
    fn next_look(&self) -> Nanos {
        let now = self.state.now();
        let from = if self.streams.active.get() > 0 { now } else { self.streams.last_end.get() };
        if let Some(since) = self.leaving {
            // what is owed may be gone by then, or may not: it is looked at once a goodbye
            let due = from.max(since) + self.goodbye();
            return if due > now { due } else { now + self.goodbye() };
        }
        let idle = self.hcm.idle_timeout.map(|max| from + max);
        let old = self.hcm.connection_duration_max.map(|max| self.link.accepted + max);
        [idle, old].into_iter().flatten().min().unwrap_or(Nanos::MAX)
    }

    /// All answers are with the kernel.
    fn owes_nothing(&self) -> bool {
        self.streams.queue.is_empty() && self.outlet.is_empty()
    }

    fn goodbye(&self) -> Duration {
        let configured = self.hcm.delayed_close_timeout;
        if configured.is_zero() { GOODBYE_WITHIN } else { configured }
    }

    fn count(&self, stat: HttpStat) {
        self.state.shard.inc(Block::from_raw(self.hcm.stats.http.0), stat);
    }
}

/// Counts a stream while it is served.
struct Running {
    state: Rc<CoreState>,
    streams: Rc<Streams>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.streams.active.set(self.streams.active.get() - 1);
        self.streams.last_end.set(self.state.now());
        self.state.shard.gauge_sub(self.state.stats.http2, Http2Stat::StreamsActive, 1);
    }
}

async fn serve_stream(
    running: Running,
    link: Rc<Link>,
    request: http::Request<RecvStream>,
    respond: SendResponse<Chunk>,
) {
    let Terminal::Http(hcm) = &link.chain.terminal else { return };
    let state = &running.state;
    let began = state.now();
    let outgoing = Rc::new(Outgoing::answer(respond, running.streams.queue.clone()));
    let mut head = state.request_head();
    // the exchange is large: it comes from the core's frames, not with the task from the allocator
    state.core.frames().place(one(state, &link, hcm, request, &outgoing, &mut head)).await;
    state.keep_request_head(head);
    if outgoing.was_reset_by_us() {
        state.shard.inc(Block::from_raw(hcm.stats.http.0), HttpStat::DownstreamRqTxReset);
        state.shard.inc(state.stats.http2, Http2Stat::TxReset);
    } else if is_reset(&outgoing) {
        state.shard.inc(Block::from_raw(hcm.stats.http.0), HttpStat::DownstreamRqRxReset);
        state.shard.inc(state.stats.http2, Http2Stat::RxReset);
        if state.now().since(began) < PREMATURE_WITHIN {
            let resets = &running.streams.premature_resets;
            resets.set(resets.get().saturating_add(1));
        }
    }
}

fn is_reset(outgoing: &Outgoing) -> bool {
    outgoing.poll_reset(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
}

async fn one(
    state: &Rc<CoreState>,
    link: &Link,
    hcm: &HttpConnectionManager,
    request: http::Request<RecvStream>,
    outgoing: &Rc<Outgoing>,
    head: &mut corelane_http::RequestHead,
) {
    let (parts, received) = request.into_parts();
    let end = received.is_end_stream();
    let read = http2::read_request(&parts, end, hcm.header_fields_max as usize, head);
    let mut reply = Reply::H2(H2Reply::new(outgoing.clone(), head.method()));
    let deadline = state.core.timers().deadline();
    let framing = match read {
        Ok(framing) => framing,
        Err(error) => {
            state.shard.inc(Block::from_raw(hcm.stats.http.0), HttpStat::DownstreamCxProtocolError);
            state.shard.inc(state.stats.http2, Http2Stat::RxMessagingError);
            let (text, details) = (reason_phrase(error.status()), Details::new(error.detail()));
            let local =
                LocalReply::new(error.status(), text, details, ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
            return exchange::refuse_on(state, link, hcm, head, local, &mut reply, &deadline).await;
        }
    };
    if head.method() == Method::Connect {
        // tunnels through HTTP/2 (RFC 9113 section 8.5, RFC 8441) are not carried, and not offered in our SETTINGS
        let local = LocalReply::new(501, reason_phrase(501), Details::UPGRADE_FAILED, ResponseFlags::NONE);
        return exchange::refuse_on(state, link, hcm, head, local, &mut reply, &deadline).await;
    }
    let mut body = if end {
        BodyIn::Empty
    } else {
        let expects = !hcm.proxy_100_continue
            && head
                .fields
                .get(Known::Expect)
                .is_some_and(|expect| expect.eq_ignore_ascii_case(b"100-continue"));
        BodyIn::H2(Box::new(H2Body::of_request(received, expects.then(|| outgoing.clone()), &head.fields)))
    };
    let request = Request { head, body: &mut body, framing, deadline: &deadline, upgrade: false };
    // the stream's fate is in what was sent; the connection goes on
    let _ = exchange::exchange(state, link, hcm, request, &mut reply).await;
    if body.trailers().is_some_and(|trailers| !trailers.is_empty()) {
        state.shard.inc(state.stats.http2, Http2Stat::Trailers);
    }
    if body.is_malformed() {
        state.shard.inc(state.stats.http2, Http2Stat::RxMessagingError);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<A, B, C, D, F: Future>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// What is allocated for each stream, and held by an idle connection; growing either takes a reason.
    #[test]
    fn streams_and_connections_are_small_futures() {
        let (stream, connection) = (bytes(serve_stream), bytes(connection));
        assert!(stream <= 1_024, "{stream} bytes");
        assert!(connection <= 8_192, "{connection} bytes");
    }
}
