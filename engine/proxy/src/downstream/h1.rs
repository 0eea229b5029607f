//! HTTP/1.1 and 1.0 from downstream: one request after the other, pipelined ones as they come.

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
    BodyFraming, Casing, HttpError, Limits, Method, Parsed, RequestHead, RequestMeta, parse_request, reason_phrase,
};
use corelane_runtime::{Buf, Nanos};
use corelane_snapshot::{HeaderCasing, HttpConnectionManager, Terminal};
use corelane_telemetry::{Block, Details, HttpStat, ResponseFlags};
use std::{rc::Rc, time::Duration};

/// Bytes that are read and thrown away after the last answer, so that it is not lost to a reset (RFC 9112
/// section 9.6).
const LINGER_BYTES_MAX: usize = 1 << 20;

/// Serves a connection to its end.
pub(crate) async fn serve(state: Rc<CoreState>, link: Rc<Link>, first: Option<Buf>) {
    let Terminal::Http(hcm) = &link.chain.terminal else { return };
    let http = Block::from_raw(hcm.stats.http.0);
    let shard = &state.shard;
    shard.inc(http, HttpStat::DownstreamCxTotal);
    shard.inc(http, HttpStat::DownstreamCxHttp1Total);
    shard.gauge_add(http, HttpStat::DownstreamCxActive, 1);
    shard.gauge_add(http, HttpStat::DownstreamCxHttp1Active, 1);
    let mut connection = Connection { state: &state, link: &link, hcm, input: first, requests: 0 };
    let end = connection.run().await;
    if end == End::Linger {
        linger(&state, &link, hcm.delayed_close_timeout).await;
    }
    shard.gauge_sub(http, HttpStat::DownstreamCxActive, 1);
    shard.gauge_sub(http, HttpStat::DownstreamCxHttp1Active, 1);
    shard.inc(http, HttpStat::DownstreamCxDestroy);
    shard.inc(http, if end == End::Remote { HttpStat::DownstreamCxDestroyRemote } else { HttpStat::DownstreamCxDestroyLocal });
    shard.record(http, HttpStat::DownstreamCxLengthMs, state.now().since(link.accepted).as_micros() as u64);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client is done, or gone.
    Remote,
    /// We are done, and the client may still be sending.
    Linger,
    /// Nothing more can be said.
    Now,
}

struct Connection<'a> {
    state: &'a Rc<CoreState>,
    link: &'a Link,
    hcm: &'a HttpConnectionManager,
    /// Bytes read and not yet parsed: the start of the next request.
    input: Option<Buf>,
    requests: u32,
}

/// Why there is no next request.
enum NoRequest {
    Closed,
    IdleTimeout,
    HeaderTimeout,
    Broken(HttpError),
}

impl Connection<'_> {
    async fn run(&mut self) -> End {
        loop {
            let mut head = self.state.request_head();
            let next = match self.next_head(&mut head).await {
                Ok(meta) => self.one(&mut head, meta).await,
                Err(none) => Err(self.without_request(&mut head, none).await),
            };
            self.state.keep_request_head(head);
            match next {
                Ok(()) => {}
                Err(end) => return end,
            }
        }
    }

    async fn one(&mut self, head: &mut RequestHead, meta: RequestMeta) -> Result<(), End> {
        self.requests += 1;
        let link = self.link;
        let mut body = match meta.framing {
            BodyFraming::None if !meta.upgrade && head.method() != Method::Connect => BodyIn::Empty,
            framing => {
                let mut body = H1Body::new(link.conn.clone(), framing, self.input.take(), true);
                body.continue_due = meta.expect_continue;
                BodyIn::H1(body)
            }
        };
        let close = !meta.keep_alive || self.is_last();
        let casing = casing(self.hcm.http1.casing);
        let reply = H1Reply::new(link.conn.clone(), head.version, head.method(), casing, close);
        let mut reply = Reply::H1(reply);
        let request = Request {
            head,
            body: &mut body,
            framing: meta.framing,
            upgrade: meta.upgrade,
            deadline: &link.deadline,
        };
        let after = exchange::exchange(self.state, link, self.hcm, request, &mut reply).await;
        if let BodyIn::H1(body) = body {
            self.input = body.input;
        }
        match after {
            After::KeepAlive => Ok(()),
            After::Close => Err(End::Linger),
            After::Tunnel(_) | After::Closed => Err(End::Now),
        }
    }

    /// Whether the connection ends after the request now begun.
    fn is_last(&self) -> bool {
        let hcm = self.hcm;
        let http = Block::from_raw(hcm.stats.http.0);
        let worn = hcm.requests_per_connection_max > 0 && self.requests >= hcm.requests_per_connection_max;
        let old = hcm.connection_duration_max.is_some_and(|max| self.state.now().since(self.link.accepted) >= max);
        let drained = self.state.shared.is_draining();
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

    async fn next_head(&mut self, head: &mut RequestHead) -> Result<RequestMeta, NoRequest> {
        let hcm = self.hcm;
        let limits = Limits {
            head_bytes_max: hcm.request_head_bytes_max as usize,
            fields_max: hcm.header_fields_max as usize,
            accept_http_10: hcm.http1.accept_http_10,
            preserve_case: hcm.http1.casing == HeaderCasing::Preserve,
        };
        let mut began: Option<Nanos> = None;
        loop {
            if let Some(mut buf) = self.input.take().filter(|buf| !buf.is_empty()) {
                match parse_request(buf.filled(), &limits, head) {
                    Ok(Parsed::Complete(meta)) => {
                        buf.advance(meta.consumed);
                        self.input = (!buf.is_empty()).then_some(buf);
                        return Ok(meta);
                    }
                    Ok(Parsed::Partial) => {
                        began.get_or_insert(self.state.now());
                        self.input = Some(roomier(self.state, buf));
                    }
                    Err(error) => return Err(NoRequest::Broken(error)),
                }
            }
            self.more(began).await?;
        }
    }

    /// Reads on: the rest of a head, within its time, or the first byte of the next.
    async fn more(&mut self, began: Option<Nanos>) -> Result<(), NoRequest> {
        let state = self.state;
        let deadline = &self.link.deadline;
        let conn = &self.link.conn;
        let Some(began) = began else {
            deadline.arm(self.hcm.idle_timeout.map_or(Nanos::MAX, |idle| state.now() + idle));
            let read = conn.read_parking(&state.core, state.shared.limits.park_after);
            return match race(read, deadline.expired()).await {
                First::Left(Ok(buf)) if !buf.is_empty() => {
                    self.input = Some(buf);
                    Ok(())
                }
                First::Left(_) => Err(NoRequest::Closed),
                First::Right(()) => Err(NoRequest::IdleTimeout),
            };
        };
        deadline.arm(self.hcm.request_headers_timeout.map_or(Nanos::MAX, |limit| began + limit));
        let buf = self.input.take().unwrap_or_else(|| state.buffer());
        match race(conn.read(buf), deadline.expired()).await {
            First::Left((Ok(n), buf)) if n > 0 => {
                self.input = Some(buf);
                Ok(())
            }
            First::Left(_) => Err(NoRequest::Closed),
            First::Right(()) => Err(NoRequest::HeaderTimeout),
        }
    }

    async fn without_request(&mut self, head: &mut RequestHead, why: NoRequest) -> End {
        let http = Block::from_raw(self.hcm.stats.http.0);
        let shard = &self.state.shard;
        match why {
            NoRequest::Closed => End::Remote,
            NoRequest::IdleTimeout => {
                shard.inc(http, HttpStat::DownstreamCxIdleTimeout);
                End::Linger
            }
            NoRequest::HeaderTimeout => {
                shard.inc(http, HttpStat::DownstreamRqHeaderTimeout);
                let details = Details::REQUEST_HEADER_TIMEOUT;
                let local = LocalReply::new(408, "request header timeout", details, ResponseFlags::NONE);
                exchange::refuse(self.state, self.link, self.hcm, head, local).await;
                End::Linger
            }
            NoRequest::Broken(error) => {
                shard.inc(http, HttpStat::DownstreamCxProtocolError);
                let (text, details) = (reason_phrase(error.status()), Details::new(error.detail()));
                let local = LocalReply::new(error.status(), text, details, ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
                exchange::refuse(self.state, self.link, self.hcm, head, local).await;
                End::Linger
            }
        }
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
pub(crate) async fn linger(state: &CoreState, link: &Link, limit: Duration) {
    if limit.is_zero() || link.conn.shutdown_write().await.is_err() {
        return;
    }
    link.deadline.arm(state.now() + limit);
    let drain = async {
        let mut left = LINGER_BYTES_MAX;
        while left > 0 {
            match link.conn.read(state.buffer()).await.0 {
                Ok(n) if n > 0 => left = left.saturating_sub(n),
                _ => return,
            }
        }
    };
    let _ = race(drain, link.deadline.expired()).await;
}
