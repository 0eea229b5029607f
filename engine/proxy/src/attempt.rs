//! One try of a request at one endpoint: connect, send, wait for the head, judge it, relay. Until the head is
//! passed on a failure can be tried again elsewhere; from then on it can only be shown.

use crate::{
    body::{BodyError, Piece},
    exchange::{ANSWER_WITHIN, After},
    guard::{Guard, Interrupt, Progress, Sent, Watch},
    headers,
    link::Link,
    prepare::Forward,
    race::{First, at_once, race},
    record::Record,
    replay::{Replay, send_body},
    reply::Reply,
    state::CoreState,
    tries::{Tries, Verdict},
    tunnel::Tunnel,
    upstream::{self, Answer, BodyIn, INTERIM_MAX, Lease, Opened, ReceiveHalf, SendError, SendHalf},
};
use corelane_http::{BodyFraming, Casing, Fields, Known, Method, RequestHead, ResponseHead};
use corelane_runtime::{Deadline, Nanos};
use corelane_snapshot::{Endpoint, HeaderCasing, HttpConnectionManager};
use corelane_telemetry::{Block, ClusterStat, HttpStat};
use corelane_traffic::Failure;
use std::{
    cell::Cell,
    future::Future,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

/// How one try ended.
pub(crate) enum TryEnd {
    Answered(After),
    Again { after: Duration },
    Failed(Failure),
}

/// What the tries of one request have in common.
pub(crate) struct Try<'a> {
    pub state: &'a Rc<CoreState>,
    pub link: &'a Link,
    pub hcm: &'a HttpConnectionManager,
    pub forward: &'a Forward<'a>,
    /// The stream's timer slot.
    pub deadline: &'a Deadline,
    pub started: Nanos,
    /// When the whole request had come; zero while it is coming.
    pub request_end: Cell<Nanos>,
    pub framing: BodyFraming,
    pub upgrade: bool,
    /// As [`has_no_end`].
    pub endless: bool,
    pub watch: Watch,
}

/// Whether a request never counts as complete, so that no limit that runs from its end ever runs. Envoy's router starts
/// them when "the downstream request has been received in full", which is never of a CONNECT or an upgrade; only
/// "for websocket upgrades, we need to set up timeouts immediately" (since 1.36), until the 101.
pub(crate) fn has_no_end(request: &RequestHead, upgrade: bool) -> bool {
    let websocket = || {
        let asked = request.fields.get(Known::Upgrade);
        asked.is_some_and(|asked| asked.eq_ignore_ascii_case(b"websocket"))
    };
    request.method() == Method::Connect || (upgrade && !websocket())
}

/// How far a try has come: different limits hold.
#[derive(Clone, Copy)]
enum Phase {
    Connect,
    Await { opened: Nanos },
    Relay { opened: Nanos },
}

impl Try<'_> {
    /// Whether a switch of protocols can be an answer: it was asked for, and all of the request is there.
    fn asked_for_tunnel(&self, request: &RequestHead, progress: &Progress<'_>) -> bool {
        (self.upgrade || request.method() == Method::Connect) && progress.sent.get() == Sent::All
    }

    /// An idle connection unless the try wants a fresh one, or one that is made within the limits of the request.
    async fn open(
        &self,
        endpoint: &Arc<Endpoint>,
        request: &RequestHead,
        progress: &Progress<'_>,
        tries: &Tries<'_>,
    ) -> Result<Opened, Failure> {
        let (cluster, fresh) = (self.forward.cluster, tries.is_fresh());
        if !fresh
            && let Some(idle) = upstream::idle(self.state, self.forward, endpoint, request, self.upgrade)
        {
            return Ok(idle);
        }
        let guard = self.guard(progress, Phase::Connect);
        let opening = pin!(upstream::open(self.state, self.forward, endpoint, request, self.upgrade, fresh));
        match race(opening, pin!(guard.interrupted())).await {
            First::Left(opened) => opened,
            First::Right(interrupt) => {
                let stats = Block::from_raw(cluster.config.stats.cluster.0);
                self.state.shard.inc(stats, ClusterStat::UpstreamRqCancelled);
                Err(self.interrupted(interrupt))
            }
        }
    }

    /// Tells a client that waits for it to send its body, and prepares the head. What fails here has sent nothing
    /// upstream. Envoy says `100 Continue` before it looks for an upstream; here a request that finds none is
    /// refused before its body is sent (RFC 9110 section 10.1.1: "an immediate response with a final status code").
    async fn begin(
        &self,
        send: &mut SendHalf,
        request: &RequestHead,
        body: &mut BodyIn,
        reply: &mut Reply,
    ) -> Result<(), Failure> {
        if body.take_continue_due() {
            self.deadline.arm(self.state.now() + self.forward.stream_idle.unwrap_or(ANSWER_WITHIN));
            match self.deadline.limit(reply.go_on(self.state)).await {
                Ok(said) => said.map_err(|_| Failure::DownstreamDisconnect)?,
                Err(_) => return Err(self.interrupted(Interrupt::StreamIdle)),
            }
        }
        let casing = match self.hcm.http1.casing {
            HeaderCasing::Preserve => Casing::Preserve,
            // the upstream's own codec decides otherwise
            HeaderCasing::Lower | HeaderCasing::ProperCase => Casing::Lower,
        };
        send.head(self.state, request, self.framing, self.upgrade, casing)
    }

    /// Sends the head that begins a tunnel.
    async fn answer_upgrade(&self, reply: &mut Reply) -> Result<(), Failure> {
        self.deadline.arm(self.state.now() + self.forward.stream_idle.unwrap_or(ANSWER_WITHIN));
        match self.deadline.limit(reply.finish(self.state, &Fields::new())).await {
            Ok(sent) => sent.map_err(|_| Failure::DownstreamDisconnect),
            Err(_) => Err(self.interrupted(Interrupt::StreamIdle)),
        }
    }

    /// An upgraded stream is a stream: it lasts no longer than others. Limits that run from the end of a request are
    /// over (Envoy: "Disable the route timeout since the websocket upgrade completed successfully").
    fn tunnel_until(&self, opened: Nanos) -> Option<(Nanos, Interrupt)> {
        let downstream = self.forward.duration_max.map(|max| (self.started + max, Interrupt::StreamDuration));
        let upstream_max = self.forward.cluster.config.pool.stream_duration_max;
        let upstream = upstream_max.map(|max| (opened + max, Interrupt::UpstreamDuration));
        [downstream, upstream].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// When the route's timeout runs out; None while the request is coming, or without one.
    pub fn route_until(&self) -> Option<Nanos> {
        let end = Some(self.request_end.get()).filter(|end| *end != Nanos::ZERO && !self.endless)?;
        Some(end + self.forward.limits.timeout?)
    }

    fn guard<'g>(&'g self, progress: &'g Progress<'g>, phase: Phase) -> Guard<'g> {
        let forward = self.forward;
        let (opened, answered) = match phase {
            Phase::Connect => (None, false),
            Phase::Await { opened } => (Some(opened), false),
            Phase::Relay { opened } => (Some(opened), true),
        };
        let upstream_max = forward.cluster.config.pool.stream_duration_max;
        let from_end = |limit: Option<Duration>| limit.filter(|_| !self.endless);
        Guard {
            state: self.state,
            deadline: self.deadline,
            downstream: self.watch.on(&self.link.conn),
            progress,
            started: self.started,
            // retry_policy: "does not start until after both the entire request has been received by the router and
            // a connection pool connection has been obtained"
            one_try: opened
                .filter(|_| !answered)
                .and_then(|at| Some((at, from_end(forward.limits.per_try_timeout)?))),
            // "Unlike per_try_timeout, the idle timer continues once the response starts streaming back"
            try_idle: opened.and(from_end(forward.limits.per_try_idle_timeout)),
            route: from_end(forward.limits.timeout),
            stream_idle: forward.stream_idle,
            stream_until: forward.duration_max.map(|max| self.started + max),
            upstream_until: opened.and_then(|at| Some(at + upstream_max?)),
            // request_timeout: "disarmed when the last byte of the request is sent upstream", "OR when the response
            // is initiated"
            request_until: self.hcm.request_timeout.filter(|_| !answered).map(|limit| self.started + limit),
        }
    }

    fn interrupted(&self, interrupt: Interrupt) -> Failure {
        interrupt.counted(self.state, self.hcm)
    }

    /// Backs off before the next try, which is for a client that is still there.
    pub async fn pause(&self, length: Duration) -> Result<(), Failure> {
        let progress = Progress::new(self.state.now(), &self.request_end);
        let guard = self.guard(&progress, Phase::Connect);
        let over = pin!(self.state.core.timers().sleep(length));
        match race(over, pin!(guard.interrupted())).await {
            First::Left(()) => Ok(()),
            First::Right(interrupt) => Err(self.interrupted(interrupt)),
        }
    }
}

#[allow(clippy::too_many_arguments)]
pub(crate) async fn one(
    cx: &Try<'_>,
    endpoint: &Arc<Endpoint>,
    request: &RequestHead,
    body: &mut BodyIn,
    replay: &mut Replay,
    tries: &mut Tries<'_>,
    reply: &mut Reply,
    record: &mut Record,
) -> TryEnd {
    let state = cx.state;
    let progress = Progress::new(state.now(), &cx.request_end);
    let Opened { mut send, mut receive, lease } = match cx.open(endpoint, request, &progress, tries).await {
        Ok(opened) => opened,
        Err(failure) => {
            progress.replayable.set(replay.is_possible(body));
            return tries.failed(cx, record, endpoint, failure, &progress);
        }
    };
    let opened = state.now();
    progress.opened.set(opened);
    tries.connected(cx, endpoint);
    record.connected(state, &lease);
    if let Err(failure) = cx.begin(&mut send, request, body, reply).await {
        lease.give_back_unused(state);
        return TryEnd::Failed(failure);
    }
    let mut head = state.response_head();
    // an upgrade's head is sent before its answer is judged, which may be there in the same turn
    let bodyless = body.is_empty() || cx.framing == BodyFraming::None;
    let mut sending = pin!(send_body(state, &mut send, body, replay, &progress));
    let heard = {
        let guard = cx.guard(&progress, Phase::Await { opened });
        let listen = pin!(final_head(cx, &mut receive, request.method(), &mut head, reply, &progress));
        let talk = pin!(send_and_listen(bodyless, sending.as_mut(), listen, &progress.over));
        match race(talk, pin!(guard.interrupted())).await {
            First::Left(heard) => heard,
            First::Right(interrupt) => Err(cx.interrupted(interrupt)),
        }
    };
    // RFC 9110 section 15.2.2: a switch of protocols answers an Upgrade, which was not sent
    let unasked = |answer: &Answer| answer.tunnel && !cx.asked_for_tunnel(request, &progress);
    let heard = heard.and_then(|it| if unasked(&it) { Err(Failure::ProtocolError) } else { Ok(it) });
    let verdict = match &heard {
        Ok(_) => tries.judge(cx, record, endpoint, &head, &progress),
        Err(_) => Verdict::Keep,
    };
    match (heard, verdict) {
        (Ok(answer), Verdict::Keep) => {
            let sending = sending.as_mut();
            pass_on(
                cx, request, answer, head, sending, receive, lease, reply, record, &progress, tries, endpoint,
            )
            .await
        }
        (Ok(_), Verdict::Again { after }) => {
            state.keep_response_head(head);
            TryEnd::Again { after }
        }
        (Err(failure), _) if reply.is_started() => {
            // a part of an interim answer has gone out: nothing can follow it
            state.keep_response_head(head);
            TryEnd::Failed(tries.broke_off(cx, record, endpoint, &lease, failure, true))
        }
        (Err(failure), _) => {
            state.keep_response_head(head);
            tries.lost(cx, record, endpoint, failure, &lease, &progress, request.method())
        }
    }
}

/// The request is sent while its answer is awaited, for it may come early. A request without body is sent first.
async fn send_and_listen(
    bodyless: bool,
    mut sending: Pin<&mut impl Future<Output = Result<(), SendError>>>,
    mut listen: Pin<&mut impl Future<Output = Result<Answer, Failure>>>,
    over: &Cell<bool>,
) -> Result<Answer, Failure> {
    if bodyless {
        // a write that fails: the answer, or its absence, says what happened
        let _ = sending.await;
        over.set(true);
        return listen.await;
    }
    match race(listen.as_mut(), sending.as_mut()).await {
        First::Left(answer) => {
            // both may have ended in the same turn: then the answer did not come early
            over.set(at_once(sending).await.is_some());
            answer
        }
        First::Right(Ok(()) | Err(SendError::Upstream)) => {
            over.set(true);
            listen.await
        }
        First::Right(Err(SendError::Downstream(BodyError::Closed | BodyError::Reset))) => {
            Err(Failure::DownstreamDisconnect)
        }
        First::Right(Err(SendError::Downstream(BodyError::Malformed))) => {
            Err(Failure::DownstreamProtocolError)
        }
    }
}

/// The first head that is not interim; those are passed on as they come.
async fn final_head(
    cx: &Try<'_>,
    receive: &mut ReceiveHalf,
    method: Method,
    head: &mut ResponseHead,
    reply: &mut Reply,
    progress: &Progress<'_>,
) -> Result<Answer, Failure> {
    let state = cx.state;
    for _ in 0..INTERIM_MAX {
        let answer = receive.head(state, method, head, progress).await?;
        progress.last.set(state.now());
        if !answer.interim {
            return Ok(answer);
        }
        // where the proxy answers the client's Expect itself, a 100 is for this hop
        if (head.status != 100 || cx.hcm.proxy_100_continue) && reply.interim(state, head).await.is_err() {
            return Err(Failure::DownstreamDisconnect);
        }
    }
    Err(Failure::ProtocolError)
}

/// The answer goes downstream, beside what is left of the request.
#[allow(clippy::too_many_arguments)]
async fn pass_on(
    cx: &Try<'_>,
    request: &RequestHead,
    answer: Answer,
    mut head: Box<ResponseHead>,
    sending: Pin<&mut impl Future<Output = Result<(), SendError>>>,
    mut receive: ReceiveHalf,
    lease: Lease,
    reply: &mut Reply,
    record: &mut Record,
    progress: &Progress<'_>,
    tries: &mut Tries<'_>,
    endpoint: &Endpoint,
) -> TryEnd {
    let state = cx.state;
    record.answered(state, &answer, progress);
    headers::finish_upstream_response(state, cx, request, &mut head, record, tries.number);
    if !answer.tunnel && progress.sent.get() != Sent::All {
        // what is left of the request will not be read for the sake of a next one: Envoy's connection manager
        // (`encodeHeaders`) lets the client know too
        reply.close_after();
    }
    record.response_head(state, &head);
    let begun = reply.head(state, &mut head, answer.framing).await.inspect_err(|_| record.called_back(state));
    state.keep_response_head(head);
    if begun.is_err() {
        return TryEnd::Failed(Failure::DownstreamDisconnect);
    }
    if answer.tunnel {
        return match cx.answer_upgrade(reply).await.inspect_err(|_| record.called_back(state)) {
            Ok(()) => TryEnd::Answered(After::Tunnel(Box::new(Tunnel::new(
                lease,
                receive.into_early(),
                cx.forward.stream_idle,
                cx.tunnel_until(progress.opened.get()),
            )))),
            Err(failure) => TryEnd::Failed(failure),
        };
    }
    let relayed = {
        let guard = cx.guard(progress, Phase::Relay { opened: progress.opened.get() });
        let relay = pin!(relay(state, &mut receive, reply, progress));
        let relay = pin!(relay_beside(relay, sending, progress));
        match race(relay, pin!(guard.interrupted())).await {
            First::Left(relayed) => relayed,
            First::Right(interrupt) => Err(cx.interrupted(interrupt)),
        }
    };
    record.relayed(state, &receive);
    if let Err(failure) = relayed {
        // what came with the head is malformed: the client has seen nothing of it, and gets an answer that is whole
        let shown = failure != Failure::ProtocolError || !reply.take_back();
        return TryEnd::Failed(tries.broke_off(cx, record, endpoint, &lease, failure, shown));
    }
    lease.answered(&answer);
    let whole = progress.sent.get() == Sent::All;
    if !whole {
        let http = Block::from_raw(cx.hcm.stats.http.0);
        state.shard.inc(http, HttpStat::DownstreamRqResponseBeforeRqComplete);
        record.called_back(state);
    }
    if whole && answer.keep_alive && receive.is_clean() {
        lease.give_back(state);
    }
    // an answer that came before the request was complete: what is left of it is not read
    TryEnd::Answered(if reply.closes() || !whole { After::Close } else { After::KeepAlive })
}

async fn relay_beside(
    mut relay: Pin<&mut impl Future<Output = Result<(), Failure>>>,
    mut sending: Pin<&mut impl Future<Output = Result<(), SendError>>>,
    progress: &Progress<'_>,
) -> Result<(), Failure> {
    if progress.over.get() || progress.sent.get() == Sent::All {
        return relay.await;
    }
    match race(relay.as_mut(), sending.as_mut()).await {
        First::Left(relayed) => {
            progress.over.set(at_once(sending).await.is_some());
            relayed
        }
        First::Right(Ok(()) | Err(SendError::Upstream)) => relay.await,
        First::Right(Err(SendError::Downstream(_))) => Err(Failure::DownstreamDisconnect),
    }
}

fn broken_off(error: BodyError) -> Failure {
    match error {
        BodyError::Closed => Failure::UpstreamTermination,
        BodyError::Reset => Failure::Reset,
        BodyError::Malformed => Failure::ProtocolError,
    }
}

async fn relay(
    state: &CoreState,
    receive: &mut ReceiveHalf,
    reply: &mut Reply,
    progress: &Progress<'_>,
) -> Result<(), Failure> {
    loop {
        let mut next = pin!(receive.next(state));
        let piece = match at_once(next.as_mut()).await {
            Some(piece) => piece,
            None => {
                // what the upstream says now is not held back for what it says later
                reply.flush().await.map_err(|_| Failure::DownstreamDisconnect)?;
                next.await
            }
        };
        match piece.map_err(broken_off)? {
            Piece::Data { buf, last } => {
                progress.last.set(state.now());
                reply.data(buf, last).await.map_err(|_| Failure::DownstreamDisconnect)?;
                if last {
                    break;
                }
            }
            Piece::End => break,
        }
    }
    let none = Fields::new();
    reply.finish(state, receive.trailers().unwrap_or(&none)).await.map_err(|_| Failure::DownstreamDisconnect)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        future::poll_fn,
        task::{Context, Poll, Waker},
    };

    /// Ready when polled the second time.
    fn second<T>(done: impl Fn() -> T) -> impl Future<Output = T> {
        let mut polled = false;
        poll_fn(
            move |_| if std::mem::replace(&mut polled, true) { Poll::Ready(done()) } else { Poll::Pending },
        )
    }

    #[test]
    fn a_request_that_is_sent_in_the_turn_of_its_answer_is_sent() {
        let framing = BodyFraming::None;
        let answer = Answer { framing, keep_alive: true, tunnel: false, interim: false, wire_bytes: 0 };
        let over = Cell::new(false);
        let (sending, listen) = (pin!(second(|| Ok(()))), pin!(second(|| Ok(answer))));
        let mut both = pin!(send_and_listen(false, sending, listen, &over));
        let context = &mut Context::from_waker(Waker::noop());
        assert!(both.as_mut().poll(context).is_pending());
        assert!(matches!(both.poll(context), Poll::Ready(Ok(_))));
        assert!(over.get());
    }
}
