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
use std::{
    cell::Cell,
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

/// From the end that we make of a tunnel to its close: what was read is written, TLS says goodbye, for which there may
/// be no room, and the peers may say theirs.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

/// Bytes of a side that goes on sending, read after our end of it.
const LINGER_BYTES_MAX: usize = 1 << 20;

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
        over: Cell::new(false),
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
    let (mut up, mut down) = (pin!(up), pin!(down));
    // a reset on either side ends both directions at once
    let ended = async {
        let expired = expire(state, deadline, &flow, &limits);
        match race(expired, state.drain.over(&state.shared, connection)).await {
            First::Left(end) => end,
            First::Right(()) => TunnelEnd::Drained,
        }
    };
    let end = match race(try_both(up.as_mut(), down.as_mut()), ended).await {
        First::Left(Ok(())) => TunnelEnd::Closed,
        First::Left(Err(end)) | First::Right(end) => end,
    };
    deadline.disarm();
    match end {
        TunnelEnd::Closed => {}
        TunnelEnd::Drained => {
            let goodbye = say_goodbye(downstream, upstream);
            let _ = state.core.timers().timeout(state.now() + GOODBYE_WITHIN, goodbye).await;
        }
        // nobody broke anything: what was accepted from one side still reaches the other
        TunnelEnd::IdleTimeout | TunnelEnd::MaxDuration => {
            flow.over.set(true);
            let goodbye = async {
                let _ = try_both(last_write(&flow.up, up), last_write(&flow.down, down)).await;
                say_goodbye(downstream, upstream).await;
                let _ = try_both(read_out(state, downstream), read_out(state, upstream)).await;
            };
            let _ = state.core.timers().timeout(state.now() + GOODBYE_WITHIN, goodbye).await;
        }
        TunnelEnd::DownstreamReset => upstream.reset(),
        TunnelEnd::UpstreamReset => {
            downstream.reset();
            upstream.reset();
        }
    }
    Carried { up: flow.up.bytes.get(), down: flow.down.bytes.get(), end }
}

/// What was written arrives; a side that is gone already needs no end, one that does not read gets none.
async fn say_goodbye(downstream: &Conn, upstream: &Conn) {
    let _ = downstream.shutdown_write().await;
    let _ = upstream.shutdown_write().await;
}

/// Finishes the write under way, if there is one. A write that is given up leaves its peer with a part of it.
async fn last_write(count: &Count, mut one_way: Pin<&mut impl Future>) -> Result<(), Infallible> {
    std::future::poll_fn(move |context| {
        if count.writing.get() {
            let _ = one_way.as_mut().poll(context);
        }
        if count.writing.get() { Poll::Pending } else { Poll::Ready(Ok(())) }
    })
    .await
}

/// RFC 9112 section 9.6 says it of HTTP, and it is TCP's: closing while there are bytes to read resets the connection,
/// and the peer may lose what it has not read. So they are read, until the peer ends too.
async fn read_out(state: &CoreState, conn: &Conn) -> Result<(), Infallible> {
    let mut left = LINGER_BYTES_MAX;
    while left > 0 {
        // of a TLS stream too the bytes as they come: nobody reads it any more
        match conn.tcp().read(state.buffer()).await.0 {
            Ok(n) if n > 0 => left = left.saturating_sub(n),
            _ => break,
        }
    }
    Ok(())
}

struct Flow {
    last: Cell<Nanos>,
    /// Nothing more is read.
    over: Cell<bool>,
    up: Count,
    down: Count,
}

/// Bytes of one direction.
struct Count {
    bytes: Cell<u64>,
    /// What was read is being written.
    writing: Cell<bool>,
    stat: Option<(Block<TcpStat>, TcpStat)>,
}

impl Count {
    fn of(limits: &TunnelLimits, stat: TcpStat) -> Self {
        Count {
            bytes: Cell::new(0),
            writing: Cell::new(false),
            stat: limits.stats.map(|block| (block, stat)),
        }
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
        count.writing.set(true);
        let written = to.write_all(full).await.0;
        count.writing.set(false);
        written.map_err(|_| Broken::Sink)?;
        if flow.over.get() {
            return Ok(());
        }
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
