//! Watches over a request that is under way: its time limits, and whether the client is still there. One timer
//! slot serves all limits; nothing but a cell is written per piece of data.

use crate::{
    conn::Conn,
    http2::Outgoing,
    race::{First, race},
    state::CoreState,
};
use corelane_runtime::{Deadline, Nanos};
use corelane_traffic::Failure;
use std::{cell::Cell, rc::Rc, time::Duration};

/// The client is watched only from here on: most requests are over before, and need no extra operation.
const WATCH_AFTER: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    PerTry,
    PerTryIdle,
    Route,
    StreamIdle,
    StreamDuration,
    /// The client reset the connection.
    Downstream,
}

impl Interrupt {
    pub fn failure(self) -> Failure {
        match self {
            Interrupt::PerTry => Failure::PerTryTimeout,
            Interrupt::PerTryIdle => Failure::PerTryIdleTimeout,
            Interrupt::Route => Failure::RouteTimeout,
            Interrupt::StreamIdle => Failure::StreamIdleTimeout,
            Interrupt::StreamDuration => Failure::DurationMax,
            Interrupt::Downstream => Failure::DownstreamDisconnect,
        }
    }
}

/// How much of the request upstream has been given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sent {
    Nothing,
    Some,
    All,
}

/// Where the exchange stands; written by what moves bytes, read by what watches.
pub(crate) struct Progress {
    pub last: Cell<Nanos>,
    pub sent: Cell<Sent>,
    pub sent_at: Cell<Nanos>,
    /// A byte of an answer has come.
    pub heard: Cell<bool>,
    /// All that was read of the request's body can be sent again.
    pub replayable: Cell<bool>,
}

impl Progress {
    /// A connection lost before anything was written to it is another failure than one lost later.
    pub fn as_seen(&self, failure: Failure) -> Failure {
        match failure {
            Failure::UpstreamTermination if self.sent.get() == Sent::Nothing => Failure::ResetBeforeRequest,
            other => other,
        }
    }

    pub fn new(now: Nanos) -> Self {
        Progress {
            last: Cell::new(now),
            sent: Cell::new(Sent::Nothing),
            sent_at: Cell::new(Nanos::ZERO),
            heard: Cell::new(false),
            replayable: Cell::new(true),
        }
    }
}

/// Where the client's departure shows.
pub(crate) enum Watch {
    /// HTTP/1: the connection is the request's alone.
    Connection,
    /// HTTP/2: the stream may be reset.
    Stream(Rc<Outgoing>),
}

#[derive(Clone, Copy)]
pub(crate) enum Watched<'a> {
    Conn(&'a Conn),
    Stream(&'a Outgoing),
}

pub(crate) struct Guard<'a> {
    pub state: &'a CoreState,
    pub deadline: &'a Deadline,
    pub downstream: Watched<'a>,
    pub progress: &'a Progress,
    pub started: Nanos,
    pub try_at: Option<Nanos>,
    pub try_idle: Option<Duration>,
    /// Runs from the end of the request.
    pub route: Option<Duration>,
    pub stream_idle: Option<Duration>,
    pub stream_until: Option<Nanos>,
}

impl Guard<'_> {
    pub async fn interrupted(&self) -> Interrupt {
        // a stream's reset is seen at no cost
        let watch_at = matches!(self.downstream, Watched::Conn(_)).then(|| self.started + WATCH_AFTER);
        loop {
            let now = self.state.now();
            if let Some(interrupt) = self.due(now) {
                return interrupt;
            }
            let watching = watch_at.is_some_and(|at| now >= at);
            let next = if watching { self.next() } else { [self.next(), watch_at].into_iter().flatten().min() };
            self.deadline.arm(next.unwrap_or(Nanos::MAX));
            let first = match self.downstream {
                Watched::Conn(conn) if watching => race(self.deadline.expired(), self.reset(conn)).await,
                Watched::Conn(_) => First::Left(self.deadline.expired().await),
                Watched::Stream(stream) => race(self.deadline.expired(), stream.was_reset()).await,
            };
            if let First::Right(()) = first {
                return Interrupt::Downstream;
            }
        }
    }

    /// Resolves when the client has reset the connection. A client that only ended its own direction (half close)
    /// still waits for its answer, so from then on only its reset counts, which a later write will show.
    async fn reset(&self, conn: &Conn) {
        if conn.readable().await.is_ok() && !conn.tcp().has_failed() {
            std::future::pending::<()>().await;
        }
    }

    fn next(&self) -> Option<Nanos> {
        self.limits().into_iter().map(|(at, _)| at).flatten().min()
    }

    fn due(&self, now: Nanos) -> Option<Interrupt> {
        self.limits().into_iter().find_map(|(at, interrupt)| at.is_some_and(|at| now >= at).then_some(interrupt))
    }

    fn limits(&self) -> [(Option<Nanos>, Interrupt); 5] {
        let progress = self.progress;
        let sent = progress.sent.get() == Sent::All;
        // a request still on its way is looked at again when it may have arrived
        let route = self.route.map(|limit| if sent { progress.sent_at.get() + limit } else { self.state.now() + limit });
        [
            (self.stream_until, Interrupt::StreamDuration),
            (route, Interrupt::Route),
            (self.try_at, Interrupt::PerTry),
            (self.try_idle.map(|idle| progress.last.get() + idle), Interrupt::PerTryIdle),
            (self.stream_idle.map(|idle| progress.last.get() + idle), Interrupt::StreamIdle),
        ]
    }
}
