//! One request, from its head to its record. Read this first: everything a request passes is named here, in order.

use crate::{
    attempt::{self, Try, TryEnd},
    failure,
    guard::{Guard, Progress},
    headers::{self, Decimal},
    link::Link,
    prepare::{self, Forward, Matched, Plan},
    race::{First, race},
    record::{FaultDelay, Record},
    replay::Replay,
    reply::{self, H1Reply, Reply},
    shared::Active,
    state::CoreState,
    tries::Tries,
    tunnel::Tunnel,
    upstream::BodyIn,
};
use corelane_http::{BodyFraming, Casing, Fields, Known, Method, RequestHead, ResponseHead, Version};
use corelane_runtime::{Buf, Deadline, Nanos};
use corelane_snapshot::{HttpConnectionManager, Pinned};
use corelane_telemetry::{Block, Details, HttpStat, ResponseFlags};
use corelane_traffic::{
    Failure, Side,
    breaker::{Limit, Permit},
    matching,
};
use std::{cell::Cell, io, pin::pin, rc::Rc, time::Duration};

/// How long a client may take to read an answer of the proxy's own where its stream has no idle timeout (Envoy's
/// default for that timeout).
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(300);

/// Fault injection holds a request back for at most this long, whoever asks for it: a request may.
const FAULT_DELAY_MAX: Duration = Duration::from_secs(3_600);

/// A request as the codec delivers it.
pub(crate) struct Request<'a> {
    pub head: &'a mut RequestHead,
    pub body: &'a mut BodyIn,
    /// As the client framed it.
    pub framing: BodyFraming,
    /// The stream's timer slot.
    pub deadline: &'a Deadline,
    /// The client offers another protocol on this connection (HTTP/1.1 Upgrade, or extended CONNECT).
    pub upgrade: bool,
}

/// What becomes of the connection (HTTP/2: of the stream) after the answer.
pub(crate) enum After {
    KeepAlive,
    Close,
    /// The client went before it had its answer.
    Gone,
    Tunnel(Box<Tunnel>),
    /// A tunnel has come to its end: nothing is left to say.
    Closed,
}

/// Why the proxy answers by itself.
pub(crate) struct LocalReply {
    pub status: u16,
    pub body: LocalBody,
    pub details: Details,
    pub flags: ResponseFlags,
    /// Fields for the answer (redirects, rate limits, CORS).
    pub fields: Fields,
    /// For gRPC calls, where the status does not map to it.
    pub grpc_status: Option<u8>,
    /// What failed was forwarding: the answer may say how often it was tried (x-envoy-attempt-count).
    pub of_tries: bool,
}

pub(crate) enum LocalBody {
    Text(&'static str),
    Bytes(Box<[u8]>),
}

impl LocalBody {
    fn as_bytes(&self) -> &[u8] {
        match self {
            LocalBody::Text(text) => text.as_bytes(),
            LocalBody::Bytes(bytes) => bytes,
        }
    }
}

impl LocalReply {
    pub fn new(status: u16, text: &'static str, details: Details, flags: ResponseFlags) -> Self {
        LocalReply {
            status,
            body: LocalBody::Text(text),
            details,
            flags,
            fields: Fields::new(),
            grpc_status: None,
            of_tries: false,
        }
    }

    /// As [`LocalReply::of`], where it matters whether the client has sent its whole request: then 408 would blame it
    /// for what it did not do.
    fn after(failure: Failure, request_complete: bool) -> Self {
        let mut local = LocalReply::of(failure);
        if request_complete && matches!(failure, Failure::StreamIdleTimeout | Failure::DurationMax) {
            local.status = 504;
        }
        if failure == Failure::DurationMax {
            local.grpc_status = Some(reply::GRPC_DEADLINE_EXCEEDED);
        }
        local
    }

    /// With what is known beyond the kind of failure.
    fn told(self, tries: &Tries<'_>, failure: Failure, record: &Record) -> Self {
        let body = LocalBody::Text(failure::text(failure, tries.number > 1));
        LocalReply { body, details: record.outcome.details, ..self }
    }

    /// What the client gets for a failure: Envoy's status, text and details.
    pub fn of(failure: Failure) -> Self {
        let (details, flags) = failure::describe(failure);
        let mut local = LocalReply::new(failure.status(), failure::text(failure, false), details, flags);
        local.of_tries = failure.side() == Side::Upstream
            || matches!(failure, Failure::Overflow(_) | Failure::NoHealthyUpstream);
        if matches!(failure, Failure::Overflow(_)) {
            // who reads it does not count it against this service, and may go elsewhere
            local.fields.append_known(Known::XEnvoyOverloaded, b"true");
        }
        local
    }
}

pub(crate) async fn exchange(
    state: &Rc<CoreState>,
    link: &Link,
    hcm: &HttpConnectionManager,
    mut request: Request<'_>,
    reply: &mut Reply,
) -> After {
    let mut record = Record::start(state, link, hcm, request.head);
    let _active = Active::new(&state.shared);
    // the snapshot is let go before a tunnel, which may last for days
    let mut after = {
        let snapshot = state.pin();
        run(state, link, hcm, &snapshot, &mut request, reply, &mut record).await
    };
    if let After::Tunnel(tunnel) = after {
        let http = Block::from_raw(hcm.stats.http.0);
        state.shard.inc(http, HttpStat::DownstreamCxUpgradesTotal);
        state.shard.gauge_add(http, HttpStat::DownstreamCxUpgradesActive, 1);
        let early = request.body.take_rest();
        let counted = early.as_ref().map_or(0, Buf::len) as u64;
        let (carried, interrupt) = tunnel.run(state, link, request.deadline, early).await;
        state.shard.gauge_sub(http, HttpStat::DownstreamCxUpgradesActive, 1);
        record.carried(carried.up, carried.down);
        state.shard.add(http, HttpStat::DownstreamCxRxBytesTotal, carried.up.saturating_sub(counted));
        state.shard.add(http, HttpStat::DownstreamCxTxBytesTotal, carried.down);
        if let Some(interrupt) = interrupt {
            let failure = interrupt.counted(state, hcm);
            record.attempt_failed(state, failure);
            record.failed(failure, false);
        }
        after = After::Closed;
    }
    record.finish(state, link, hcm, request.head, request.body, reply);
    count_written(state, hcm, reply);
    match after {
        After::Close if record.outcome.flags.contains(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION) => {
            // HTTP/2 counts the resets of its streams where they come in
            if matches!(reply, Reply::H1(_)) {
                state.shard.inc(Block::from_raw(hcm.stats.http.0), HttpStat::DownstreamRqRxReset);
            }
            After::Gone
        }
        after => after,
    }
}

/// Answers what never became a request: a head that is malformed, too large or too slow.
pub(crate) async fn refuse(
    state: &Rc<CoreState>,
    link: &Link,
    hcm: &HttpConnectionManager,
    request: &mut RequestHead,
    local: LocalReply,
) {
    let mut reply = Reply::H1(H1Reply::new(link, Version::H11, Method::Get, Casing::Lower, true));
    refuse_on(state, link, hcm, request, local, &mut reply, &link.deadline).await;
}

/// As [`refuse`], where the codec has made the reply, and the stream has a timer slot of its own.
pub(crate) async fn refuse_on(
    state: &Rc<CoreState>,
    link: &Link,
    hcm: &HttpConnectionManager,
    request: &mut RequestHead,
    local: LocalReply,
    reply: &mut Reply,
    deadline: &Deadline,
) {
    let mut record = Record::start(state, link, hcm, request);
    let mut body = BodyIn::Empty;
    let mut asked =
        Request { head: request, body: &mut body, framing: BodyFraming::None, deadline, upgrade: false };
    answer(state, link, hcm, None, &mut asked, reply, &mut record, local).await;
    record.finish(state, link, hcm, request, &body, reply);
    count_written(state, hcm, reply);
}

fn count_written(state: &CoreState, hcm: &HttpConnectionManager, reply: &Reply) {
    let http = Block::from_raw(hcm.stats.http.0);
    state.shard.add(http, HttpStat::DownstreamCxTxBytesTotal, reply.wire_bytes());
}

async fn run(
    state: &Rc<CoreState>,
    link: &Link,
    hcm: &HttpConnectionManager,
    snapshot: &Pinned,
    request: &mut Request<'_>,
    reply: &mut Reply,
    record: &mut Record,
) -> After {
    let (plan, matched) = prepare::prepare(state, link, hcm, snapshot, request, record);
    if let Some(delay) = record.fault_delay.take()
        && let Err(failure) = held_back(state, link, hcm, request, reply, &plan, delay).await
    {
        record.failed(failure, false);
        let local = LocalReply::after(failure, request.body.is_done());
        return answer(state, link, hcm, matched.as_ref(), request, reply, record, local).await;
    }
    let answered = match plan {
        Plan::Local(local) => Err(local),
        Plan::Forward(forward) => forward_request(state, link, hcm, &forward, request, reply, record).await,
    };
    match answered {
        Ok(after) => after,
        Err(local) => answer(state, link, hcm, matched.as_ref(), request, reply, record, *local).await,
    }
}

/// Waits as fault injection asks, within the limits of the stream. With the end of a drain the wait is over.
async fn held_back(
    state: &CoreState,
    link: &Link,
    hcm: &HttpConnectionManager,
    request: &Request<'_>,
    reply: &Reply,
    plan: &Plan<'_>,
    delay: FaultDelay,
) -> Result<(), Failure> {
    let (stream_idle, duration_max) = match plan {
        Plan::Forward(forward) => (forward.stream_idle, forward.duration_max),
        Plan::Local(_) => (hcm.stream_idle_timeout, hcm.stream_duration_max),
    };
    let started = state.now();
    let (request_end, watch) = (Cell::new(Nanos::ZERO), reply.watch());
    let guard = Guard {
        state,
        deadline: request.deadline,
        downstream: watch.on(&link.conn),
        progress: &Progress::new(started, &request_end),
        started,
        one_try: None,
        try_idle: None,
        route: None,
        stream_idle,
        stream_until: duration_max.map(|max| started + max),
        upstream_until: None,
        // its body waits with it
        request_until: None,
    };
    let length = delay.length.min(FAULT_DELAY_MAX);
    // an HTTP/2 connection listens by its own number
    let over =
        race(state.core.timers().sleep(length), state.drain.over(&state.shared, state.connection_id()));
    match race(pin!(over), pin!(guard.interrupted())).await {
        First::Left(_) => Ok(()),
        First::Right(interrupt) => Err(interrupt.counted(state, hcm)),
    }
}

/// Tries endpoints until one answers for good, the policy has enough, or time is up.
async fn forward_request(
    state: &Rc<CoreState>,
    link: &Link,
    hcm: &HttpConnectionManager,
    forward: &Forward<'_>,
    request: &mut Request<'_>,
    reply: &mut Reply,
    record: &mut Record,
) -> Result<After, Box<LocalReply>> {
    let cluster = forward.cluster;
    let _request =
        Permit::acquire(cluster, forward.action.priority, Limit::Requests).map_err(|overflow| {
            record.overflow(state, Limit::Requests);
            record.failed(overflow.into(), false);
            Box::new(LocalReply::of(overflow.into()))
        })?;
    let now = state.now();
    let cx = Try {
        state,
        link,
        hcm,
        forward,
        deadline: request.deadline,
        started: now,
        // a request without body has come with its head
        request_end: Cell::new(if request.body.is_empty() { now } else { Nanos::ZERO }),
        framing: request.framing,
        upgrade: request.upgrade,
        endless: attempt::has_no_end(request.head, request.upgrade),
        watch: reply.watch(),
    };
    let mut tries = Tries::new(forward, request.head);
    // a race with the end of an idle connection is repeated without a policy too, where that is safe
    let kept = tries.may_retry() || request.head.method().is_idempotent();
    let mut replay = Replay::new(if kept { state.shared.limits.replay_bytes_max } else { 0 });
    loop {
        let Some(endpoint) = tries.next_endpoint(&cx, request.head) else {
            record.none_healthy(state);
            record.failed(Failure::NoHealthyUpstream, tries.is_exhausted());
            return Err(Box::new(LocalReply::of(Failure::NoHealthyUpstream)));
        };
        tries.begin(&endpoint);
        record.attempt(state, &endpoint);
        let elapsed = state.now().since(cx.started);
        headers::prepare_try(state, forward, &endpoint, request.head, &tries, elapsed);
        let body = &mut *request.body;
        match attempt::one(&cx, &endpoint, request.head, body, &mut replay, &mut tries, reply, record).await {
            TryEnd::Answered(after) => return Ok(after),
            TryEnd::Again { after } => {
                if cx.route_until().is_some_and(|until| state.now() + after >= until) {
                    record.attempt_failed(state, Failure::RouteTimeout);
                    record.failed(Failure::RouteTimeout, false);
                    return Err(Box::new(LocalReply::of(Failure::RouteTimeout)));
                }
                if !after.is_zero()
                    && let Err(failure) = cx.pause(after).await
                {
                    record.failed(failure, false);
                    return Err(Box::new(LocalReply::after(failure, request.body.is_done())));
                }
            }
            TryEnd::Failed(failure) => {
                record.failed(failure, tries.is_exhausted());
                record.say_how(failure, reply.is_started());
                let local = LocalReply::after(failure, request.body.is_done());
                return Err(Box::new(local.told(&tries, failure, record)));
            }
        }
    }
}

/// Sends an answer of the proxy's own, or breaks off one that has begun.
#[allow(clippy::too_many_arguments)]
async fn answer(
    state: &Rc<CoreState>,
    link: &Link,
    hcm: &HttpConnectionManager,
    matched: Option<&Matched<'_>>,
    request: &mut Request<'_>,
    reply: &mut Reply,
    record: &mut Record,
    local: LocalReply,
) -> After {
    record.local(&local);
    // 0: nobody is left to read it
    if reply.is_started() || local.status == 0 {
        reply.abort();
        return After::Close;
    }
    let body = local.body.as_bytes();
    let mut head = state.response_head();
    let grpc = matching::is_grpc(request.head);
    let grpc_status = grpc.then(|| local.grpc_status.unwrap_or_else(|| reply::grpc_status(local.status)));
    reply::local_head(&mut head, local.status, grpc_status, body);
    headers::finish_local_response(state, link, matched, request.head, &local, &mut head, record);
    headers::finish_response(state, hcm, &mut head, request.head);
    // what is left of a request's body is not read for an answer that does not depend on it
    if !request.body.is_done() {
        reply.close_after();
    }
    // RFC 9110 section 9.3.2: the answer to HEAD says how long the body would be, and has none
    let bodiless = request.head.method() == Method::Head || matches!(local.status, 100..=199 | 204 | 304);
    let bare = grpc || bodiless || body.is_empty();
    if !grpc && (!bare || request.head.method() == Method::Head) {
        head.fields.set(Known::ContentLength, Decimal::default().write(body.len() as u64));
    }
    let framing = match bodiless {
        true => BodyFraming::None,
        false if bare => BodyFraming::Length(0),
        false => BodyFraming::Length(body.len() as u64),
    };
    record.response_head(state, &head);
    request.deadline.arm(state.now() + hcm.stream_idle_timeout.unwrap_or(ANSWER_WITHIN));
    let sent = {
        let sending = pin!(send_local(state, reply, &mut head, framing, if bare { &[] } else { body }));
        request.deadline.limit(sending).await
    };
    state.keep_response_head(head);
    match sent {
        Ok(Ok(())) if reply.closes() => After::Close,
        Ok(Ok(())) => After::KeepAlive,
        Ok(Err(_)) => {
            record.downstream_gone();
            After::Close
        }
        Err(_) => {
            state.shard.inc(Block::from_raw(hcm.stats.http.0), HttpStat::DownstreamRqIdleTimeout);
            record.failed(Failure::StreamIdleTimeout, false);
            reply.tear();
            After::Close
        }
    }
}

async fn send_local(
    state: &CoreState,
    reply: &mut Reply,
    head: &mut ResponseHead,
    framing: BodyFraming,
    body: &[u8],
) -> io::Result<()> {
    reply.head(state, head, framing).await?;
    for piece in body.chunks(state.core.buffers().buffer_bytes()) {
        let mut buf = state.buffer();
        buf.extend_from_slice(piece);
        reply.data(buf, false).await?;
    }
    reply.finish(state, &Fields::new()).await
}
