//! From a listening socket to a served connection: placement on the least loaded core, listener filters, filter
//! chain, TLS, network filters, then the codec or the TCP relay.

use crate::{
    codec::{self, Chosen},
    conn::Conn,
    connection_log, downstream, filters,
    inspect::{self, Inspected},
    link::{Link, OwnRateLimits},
    race::{First, race},
    shared::{Admitted, Shared},
    state::CoreState,
    tcp,
    worker::{Worker, on_worker},
};
use corelane_runtime::{
    Buf, Core, LoadGuard, Mail, Nanos,
    net::{self, Accepted, Listener as Socket, TcpStream},
};
use corelane_snapshot::{FilterChain, Listener, ListenerId, Pinned, Terminal, TrafficDirection};
use corelane_telemetry::{Block, CoreStat, ListenerSslStat, ListenerStat};
use corelane_tls::{ContextId, TlsError};
use corelane_traffic::listener as chains;
use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, Release},
    },
    task::{Poll, Waker},
    time::Duration,
};

/// Pause after accept failed for want of descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// Connections taken from the queue of a listener that stops.
const QUEUED_MAX: usize = 4_096;
/// A handshake that has begun when a listener stops is waited for so long: more than a way there and back takes.
const HANDSHAKES_WITHIN: Duration = Duration::from_millis(100);
/// A connection to a listener that is gone has this long to hear of it, and is read from so far.
const DISMISSED_WITHIN: Duration = Duration::from_secs(1);
const DISMISSED_BYTES_MAX: usize = 64 << 10;
/// A TLS handshake takes at most this long where the filter chain does not say.
const HANDSHAKE_MAX: Duration = Duration::from_secs(15);

/// A bound listener on this core.
pub(crate) struct Accepting {
    id: ListenerId,
    pub configured: SocketAddr,
    pub direction: TrafficDirection,
    pub socket: Socket,
    stopped: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    shared: Arc<Shared>,
}

impl Accepting {
    pub fn new(listener: &Listener, socket: Socket, shared: &Arc<Shared>) -> Rc<Self> {
        shared.listening.fetch_add(1, Relaxed);
        Rc::new(Accepting {
            id: listener.id,
            configured: listener.address,
            direction: listener.direction,
            socket,
            stopped: Cell::new(false),
            waker: RefCell::default(),
            shared: shared.clone(),
        })
    }

    pub fn stop(&self) {
        self.stopped.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    async fn until_stopped(&self) {
        std::future::poll_fn(|context| {
            if self.stopped.get() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        // whoever sees this sees the connections that came of it counted
        self.shared.listening.fetch_sub(1, Release);
    }
}

/// Accepts until stopped; the socket closes with it.
pub(crate) async fn run(worker: Rc<Worker>, listening: Rc<Accepting>) {
    let state = &worker.state;
    loop {
        match race(listening.socket.accept(), listening.until_stopped()).await {
            First::Left(Ok(accepted)) => place(state, listening.id, accepted),
            First::Left(Err(error)) => {
                state.shard.inc(state.stats.core, CoreStat::AcceptFailures);
                if net::is_exhaustion(&error) {
                    race(state.core.timers().sleep(EXHAUSTED_PAUSE), listening.until_stopped()).await;
                }
            }
            First::Right(()) => break,
        }
    }
    empty(state, &listening).await;
}

/// The kernel resets what waits in the queue of a socket that closes, and handshakes that end after that.
async fn empty(state: &Rc<CoreState>, listening: &Accepting) {
    // without socket filters somebody may still come in between
    let _ = listening.socket.turn_away();
    let over = state.core.timers().deadline();
    over.arm(state.now() + HANDSHAKES_WITHIN);
    for _ in 0..QUEUED_MAX {
        match race(listening.socket.accept(), over.expired()).await {
            First::Left(Ok(accepted)) => place(state, listening.id, accepted),
            First::Left(Err(error)) if !net::is_exhaustion(&error) => {}
            First::Left(Err(_)) | First::Right(()) => break,
        }
    }
    for _ in 0..QUEUED_MAX {
        let Ok(Some(accepted)) = listening.socket.try_accept() else { break };
        place(state, listening.id, accepted);
    }
}

/// A connection on the way to its core.
struct Placed {
    listener: ListenerId,
    accepted: Accepted,
    load: LoadGuard,
    /// None: the process has too many.
    admitted: Option<Admitted>,
}

/// Here, or on the core with the fewest connections.
fn place(state: &Rc<CoreState>, listener: ListenerId, accepted: Accepted) {
    let core = &state.core;
    let placement = core.placement();
    let target = placement.choose(core.id);
    state.shard.inc(state.stats.core, CoreStat::ConnectionsAccepted);
    let load = placement.claim(target);
    let placed = Placed { listener, accepted, load, admitted: Admitted::new(&state.shared) };
    if target == core.id {
        core.spawn(serve(state.clone(), placed));
        return;
    }
    let handed_over = Mail::task(move |_: &Rc<Core>| {
        on_worker(|worker| {
            let state = &worker.state;
            if state.core.id == target {
                state.shard.inc(state.stats.core, CoreStat::ConnectionsReceived);
            }
            state.core.spawn(serve(state.clone(), placed));
        });
    });
    match core.post(target, handed_over) {
        Ok(()) => state.shard.inc(state.stats.core, CoreStat::ConnectionsHandedOver),
        // that core's mailbox is full: better here than not at all
        Err(Mail::Task(serve_here)) => serve_here(core),
        Err(_) => {}
    }
}

/// Counts that hold while a connection is open.
struct Open<'a> {
    state: &'a CoreState,
    listener: Arc<Listener>,
    accepted: Nanos,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let shard = &self.state.shard;
        let block = Block::from_raw(self.listener.stats.listener.0);
        self.listener.live.leave();
        shard.gauge_sub(block, ListenerStat::DownstreamCxActive, 1);
        shard.inc(block, ListenerStat::DownstreamCxDestroy);
        let lived = self.state.now().since(self.accepted);
        shard.record(block, ListenerStat::DownstreamCxLengthMs, lived.as_micros() as u64);
    }
}

async fn serve(state: Rc<CoreState>, placed: Placed) {
    let Placed { listener, accepted, load: _load, admitted } = placed;
    let snapshot = state.pin();
    let Some(bound) = snapshot.listener(listener).cloned() else {
        drop(snapshot);
        return dismiss(&state, accepted).await;
    };
    let block = Block::from_raw(bound.stats.listener.0);
    if admitted.is_none() {
        state.shard.inc(block, ListenerStat::DownstreamGlobalCxOverflow);
        return;
    }
    if !bound.live.admit(bound.connections_max) {
        state.shard.inc(block, ListenerStat::DownstreamCxOverflow);
        return;
    }
    let now = state.now();
    state.shard.inc(block, ListenerStat::DownstreamCxTotal);
    state.shard.gauge_add(block, ListenerStat::DownstreamCxActive, 1);
    let open = Open { state: &state, listener: bound.clone(), accepted: now };
    let peer = accepted.peer;
    let Ok(tcp) = accepted.into_stream(&state.core) else { return };
    // what comes before the first request is large and soon over: the task itself, which lasts, does not hold it
    let established = state.core.frames().place(establish(&state, &snapshot, bound, tcp, peer, now)).await;
    if let Some((link, early)) = established {
        drop(snapshot);
        let link = Rc::new(link);
        let hcm = match &link.chain.terminal {
            Terminal::Http(hcm) => hcm,
            Terminal::Tcp(proxy) => return Box::pin(tcp::serve(&state, &link, proxy, early)).await,
        };
        match codec::choose(&state, &link, hcm, early).await {
            Chosen::Http1(first) => downstream::h1::serve(state.clone(), link.clone(), first).await,
            Chosen::Http2(first) => Box::pin(downstream::h2::serve(state.clone(), link.clone(), first)).await,
            Chosen::Silent => {
                let goodbye = downstream::h1::linger(&state, &link, hcm.delayed_close_timeout);
                state.core.frames().place(goodbye).await;
            }
        }
        connection_log::ended(&state, &link);
    }
    drop(open);
}

/// Ends a connection that nobody serves. Closing it with bytes unread would be a reset.
async fn dismiss(state: &CoreState, accepted: Accepted) {
    let Ok(tcp) = accepted.into_stream(&state.core) else { return };
    if tcp.shutdown_write().is_err() {
        return;
    }
    let until = state.core.timers().deadline();
    until.arm(state.now() + DISMISSED_WITHIN);
    let mut left = DISMISSED_BYTES_MAX;
    while left > 0 {
        match race(tcp.read(state.buffer()), until.expired()).await {
            First::Left((Ok(n), _)) if n > 0 => left = left.saturating_sub(n),
            _ => return,
        }
    }
}

/// Listener filters, filter chain, transport and network filters. None: the connection is closed, and counted.
async fn establish(
    state: &Rc<CoreState>,
    snapshot: &Pinned,
    bound: Arc<Listener>,
    tcp: TcpStream,
    peer: SocketAddr,
    accepted: Nanos,
) -> Option<(Link, Option<Buf>)> {
    let block = Block::from_raw(bound.stats.listener.0);
    let deadline = state.core.timers().deadline();
    let Inspected { facts, early, seen } =
        match inspect::inspect(state, snapshot, &bound, &tcp, peer, &deadline).await {
            Ok(inspected) => inspected,
            Err(why) => {
                state.shard.inc(block, why);
                if let Some(facts) = inspect::socket_facts(&tcp, peer) {
                    connection_log::failed(state, &bound, &facts, accepted);
                }
                return None;
            }
        };
    // a redirected connection belongs to the listener of its original destination, where there is one
    let listener = match facts.original_dst.filter(|_| bound.use_original_dst) {
        Some(destination) => inspect::listener_for(snapshot, destination).unwrap_or(bound),
        None => bound,
    };
    let asked = chains::ConnectionFacts {
        destination: facts.local,
        source: facts.remote,
        direct_source: facts.direct_remote,
        server_name: facts.server_name.as_deref(),
        transport: seen.transport,
        application_protocols: &seen.application_protocols,
    };
    let Some(chain) = chains::pick_chain(&listener, &asked).cloned() else {
        state.shard.inc(block, ListenerStat::NoFilterChainMatch);
        connection_log::unmatched(state, &listener, &facts, accepted);
        return None;
    };
    let Some(secured) = secure(state, &listener, &chain, tcp, early).await else {
        connection_log::handshake_failed(state, &listener, &facts, accepted);
        return None;
    };
    let Secured { conn, early, local_uri_sans } = secured;
    let id = state.connection_id();
    let rate_limits = OwnRateLimits::default();
    let conn = Rc::new(conn);
    let link = Link { id, conn, listener, chain, facts, local_uri_sans, accepted, deadline, rate_limits };
    match filters::admit(state, &link) {
        Ok(()) => Some((link, early)),
        Err(policy) => {
            connection_log::refused(state, &link, policy);
            None
        }
    }
}

struct Secured {
    conn: Conn,
    early: Option<Buf>,
    local_uri_sans: Vec<String>,
}

/// The chain's transport socket.
async fn secure(
    state: &Rc<CoreState>,
    listener: &Listener,
    chain: &FilterChain,
    tcp: TcpStream,
    early: Option<Buf>,
) -> Option<Secured> {
    let Some(tls) = &chain.tls else {
        return Some(Secured { conn: Conn::Plain(tcp), early, local_uri_sans: Vec::new() });
    };
    let stats = Block::from_raw(listener.stats.ssl.0);
    let Some(context) = state.tls.server(ContextId(tls.context.0)) else {
        // its secret has not arrived, or was never good: better no answer than a plain one
        state.transport_failure.borrow_mut().note(None, &"no certificate yet");
        state.shard.inc(stats, ListenerSslStat::ConnectionError);
        return None;
    };
    let by = state.now() + chain.handshake_timeout.unwrap_or(HANDSHAKE_MAX);
    match corelane_tls::accept(&state.tls_core, tcp, &context, early, by).await {
        Ok(stream) => {
            state.shard.inc(stats, ListenerSslStat::Handshake);
            if stream.resumed() {
                state.shard.inc(stats, ListenerSslStat::SessionReused);
            }
            if stream.peer().is_none() {
                state.shard.inc(stats, ListenerSslStat::NoCertificate);
            }
            let local_uri_sans =
                context.identities().first().map(|own| own.leaf().uri_sans.clone()).unwrap_or_default();
            Some(Secured { conn: Conn::Tls(Box::new(stream)), early: None, local_uri_sans })
        }
        Err(error) => {
            if !listener.access_log.is_empty() {
                state.transport_failure.borrow_mut().note(None, &error);
            }
            let stat = match &error {
                TlsError::HandshakeTimeout => {
                    let block = Block::from_raw(listener.stats.listener.0);
                    state.shard.inc(block, ListenerStat::DownstreamCxTransportSocketConnectTimeout);
                    ListenerSslStat::ConnectionError
                }
                TlsError::Handshake(rustls::Error::NoCertificatesPresented) => {
                    ListenerSslStat::FailVerifyNoCert
                }
                error if error.is_san_mismatch() => ListenerSslStat::FailVerifySan,
                error if error.is_pin_mismatch() => ListenerSslStat::FailVerifyCertHash,
                TlsError::Handshake(rustls::Error::InvalidCertificate(_)) => ListenerSslStat::FailVerifyError,
                _ => ListenerSslStat::ConnectionError,
            };
            state.shard.inc(stats, stat);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task<A, B, F: Future>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    fn bytes<A, B, C, F: Future>(_: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// What the task of an idle connection holds; growing it takes a reason.
    #[test]
    fn an_idle_connection_is_a_small_future() {
        for (what, bytes, most) in
            [("task", task(serve), 1_856), ("HTTP/1.1", bytes(downstream::h1::serve), 1_280)]
        {
            assert!(bytes <= most, "{what}: {bytes} bytes");
        }
    }
}
