//! Bytes both ways between two connections until both directions have ended: TCP proxying, WebSocket and other
//! upgrades, CONNECT. The end of one direction is passed on as half close. A tunnel's connections never go back
//! to a pool.

use crate::{
    conn::Conn,
    guard::Interrupt,
    link::Link,
    race::{First, race},
    state::CoreState,
    upstream::Lease,
};
use corelane_runtime::{Buf, Deadline, Nanos};
use corelane_telemetry::{Block, TcpStat};
use std::{cell::Cell, future::Future, pin::pin, rc::Rc, time::Duration};

/// At the end of a drain: TLS says goodbye with a record, for which there may be no room.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

/// How much went through, and how it ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried {
    pub up: u64,
    pub down: u64,
    pub end: TunnelEnd,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TunnelEnd {
    /// Both sides said they were done.
    #[default]
    Closed,
    IdleTimeout,
    MaxDuration,
    /// The process ends.
    Drained,
    DownstreamReset,
    UpstreamReset,
}

pub(crate) struct TunnelLimits {
    pub idle: Option<Duration>,
    pub until: Option<Nanos>,
    /// Where bytes are counted as they come: a tunnel may last for days.
    pub stats: Option<Block<TcpStat>>,
}

/// What each side sent before the tunnel stood.
#[derive(Default)]
pub(crate) struct Early {
    pub from_downstream: Option<Buf>,
    pub from_upstream: Option<Buf>,
}

pub(crate) async fn carry(
    state: &Rc<CoreState>,
    connection: u64,
    deadline: &Deadline,
    downstream: &Conn,
    upstream: &Conn,
    early: Early,
    limits: TunnelLimits,
) -> Carried {
    let flow = Flow {
        last: Cell::new(state.now()),
        up: Count::of(&limits, TcpStat::DownstreamCxRxBytesTotal),
        down: Count::of(&limits, TcpStat::DownstreamCxTxBytesTotal),
    };
    let up = async {
        let moved = one_way(state, downstream, upstream, early.from_downstream, &flow, &flow.up).await;
        moved.map_err(|broken| broken.seen_from(TunnelEnd::DownstreamReset, TunnelEnd::UpstreamReset))
    };
    let down = async {
        let moved = one_way(state, upstream, downstream, early.from_upstream, &flow, &flow.down).await;
        moved.map_err(|broken| broken.seen_from(TunnelEnd::UpstreamReset, TunnelEnd::DownstreamReset))
    };
    // a reset on either side ends both directions at once
    let ended = async {
        let expired = expire(state, deadline, &flow, &limits);
        match race(expired, state.drain.over(&state.shared, connection)).await {
            First::Left(end) => end,
            First::Right(()) => TunnelEnd::Drained,
        }
    };
    let end = match race(try_both(up, down), ended).await {
        First::Left(Ok(())) => TunnelEnd::Closed,
        First::Left(Err(end)) | First::Right(end) => end,
    };
    deadline.disarm();
    if end == TunnelEnd::Drained {
        // what was written arrives; a side that is gone already needs no end, one that does not read gets none
        let goodbye = async {
            let _ = downstream.shutdown_write().await;
            let _ = upstream.shutdown_write().await;
        };
        let _ = state.core.timers().timeout(state.now() + GOODBYE_WITHIN, goodbye).await;
    } else if end != TunnelEnd::Closed {
        if end != TunnelEnd::DownstreamReset {
            downstream.reset();
        }
        upstream.reset();
    }
    Carried { up: flow.up.bytes.get(), down: flow.down.bytes.get(), end }
}

struct Flow {
    last: Cell<Nanos>,
    up: Count,
    down: Count,
}

/// Bytes of one direction.
struct Count {
    bytes: Cell<u64>,
    stat: Option<(Block<TcpStat>, TcpStat)>,
}

impl Count {
    fn of(limits: &TunnelLimits, stat: TcpStat) -> Self {
        Count { bytes: Cell::new(0), stat: limits.stats.map(|block| (block, stat)) }
    }

    fn add(&self, state: &CoreState, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
        if let Some((block, stat)) = self.stat {
            state.shard.add(block, stat, bytes as u64);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Source,
    Sink,
}

impl Broken {
    fn seen_from(self, source: TunnelEnd, sink: TunnelEnd) -> TunnelEnd {
        match self {
            Broken::Source => source,
            Broken::Sink => sink,
        }
    }
}

/// Copies until the source ends, then half-closes the sink. Waiting holds no buffer: a tunnel may be silent for
/// hours.
async fn one_way(
    state: &CoreState,
    from: &Conn,
    to: &Conn,
    early: Option<Buf>,
    flow: &Flow,
    count: &Count,
) -> Result<(), Broken> {
    let mut early = early.filter(|early| !early.is_empty());
    loop {
        let full = match early.take() {
            Some(early) => early,
            None => {
                let park_after = state.shared.limits.park_after;
                let buf = from.read_parking(&state.core, park_after).await.map_err(|_| Broken::Source)?;
                if buf.is_empty() {
                    break;
                }
                buf
            }
        };
        count.add(state, full.len());
        to.write_all(full).await.0.map_err(|_| Broken::Sink)?;
        flow.last.set(state.now());
    }
    to.shutdown_write().await.map_err(|_| Broken::Sink)
}

async fn try_both<E>(
    left: impl Future<Output = Result<(), E>>,
    right: impl Future<Output = Result<(), E>>,
) -> Result<(), E> {
    let (mut left, mut right) = (pin!(left), pin!(right));
    match race(&mut left, &mut right).await {
        First::Left(done) => {
            done?;
            right.await
        }
        First::Right(done) => {
            done?;
            left.await
        }
    }
}

async fn expire(state: &CoreState, deadline: &Deadline, flow: &Flow, limits: &TunnelLimits) -> TunnelEnd {
    loop {
        let idle_at = limits.idle.map(|idle| flow.last.get() + idle);
        let Some(at) = [idle_at, limits.until].into_iter().flatten().min() else {
            return std::future::pending().await;
        };
        let now = state.now();
        if now >= at {
            return if limits.until.is_some_and(|until| now >= until) {
                TunnelEnd::MaxDuration
            } else {
                TunnelEnd::IdleTimeout
            };
        }
        deadline.arm(at);
        deadline.expired().await;
    }
}

/// An upgraded stream, ready to carry bytes. It holds no snapshot.
pub(crate) struct Tunnel {
    lease: Lease,
    from_upstream: Option<Buf>,
    idle: Option<Duration>,
    /// The limit that strikes first, and which it is.
    until: Option<(Nanos, Interrupt)>,
}

impl Tunnel {
    pub fn new(
        lease: Lease,
        from_upstream: Option<Buf>,
        idle: Option<Duration>,
        until: Option<(Nanos, Interrupt)>,
    ) -> Self {
        Tunnel { lease, from_upstream, idle, until }
    }

    /// Carries bytes to the end, and tells which limit that was. `from_downstream` is what the client sent behind its
    /// request.
    pub async fn run(
        self,
        state: &Rc<CoreState>,
        link: &Link,
        deadline: &Deadline,
        from_downstream: Option<Buf>,
    ) -> (Carried, Option<Interrupt>) {
        // read with the head, and counted then
        let known = self.from_upstream.as_ref().map_or(0, Buf::len) as u64;
        let early = Early { from_downstream, from_upstream: self.from_upstream };
        let limits = TunnelLimits { idle: self.idle, until: self.until.map(|(at, _)| at), stats: None };
        let carried = carry(state, link.id, deadline, &link.conn, self.lease.conn(), early, limits).await;
        let by_peer = carried.end == TunnelEnd::UpstreamReset;
        self.lease.carried(state, carried.up, carried.down.saturating_sub(known), by_peer);
        let interrupt = match carried.end {
            TunnelEnd::IdleTimeout => Some(Interrupt::StreamIdle),
            TunnelEnd::MaxDuration => self.until.map(|(_, why)| why),
            _ => None,
        };
        (carried, interrupt)
    }
}
