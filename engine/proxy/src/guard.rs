//! Watches over a request that is under way: its time limits, and whether the client is still there. One timer
//! slot serves all limits; nothing but a cell is written per piece of data.

use crate::{
    conn::Conn,
    http2::Outgoing,
    race::{First, race},
    state::CoreState,
};
use corelane_runtime::{Deadline, Nanos};
use corelane_snapshot::HttpConnectionManager;
use corelane_telemetry::{Block, HttpStat};
use corelane_traffic::Failure;
use std::{cell::Cell, rc::Rc, time::Duration};

/// The client is watched only from here on: most requests are over before, and need no extra operation.
const WATCH_AFTER: Duration = Duration::from_millis(20);
/// And from a multiple of this on: requests then share the instants at which their timers are looked at, and a core
/// with few requests is not woken once more for each.
const WATCH_GRAIN: Duration = Duration::from_millis(64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    PerTry,
    PerTryIdle,
    Route,
    StreamIdle,
    StreamDuration,
    UpstreamDuration,
    /// The request did not come whole in its time.
    Request,
    /// The client reset the connection.
    Downstream,
}

impl Interrupt {
    fn failure(self) -> Failure {
        match self {
            Interrupt::PerTry => Failure::PerTryTimeout,
            Interrupt::PerTryIdle => Failure::PerTryIdleTimeout,
            Interrupt::Route => Failure::RouteTimeout,
            Interrupt::StreamIdle => Failure::StreamIdleTimeout,
            Interrupt::StreamDuration => Failure::DurationMax,
            Interrupt::UpstreamDuration => Failure::UpstreamDurationMax,
            Interrupt::Request => Failure::RequestTimeout,
            Interrupt::Downstream => Failure::DownstreamDisconnect,
        }
    }

    /// Counts what ended the exchange from outside.
    pub fn counted(self, state: &CoreState, hcm: &HttpConnectionManager) -> Failure {
        let stat = match self {
            Interrupt::StreamIdle => Some(HttpStat::DownstreamRqIdleTimeout),
            Interrupt::StreamDuration => Some(HttpStat::DownstreamRqMaxDurationReached),
            Interrupt::Request => Some(HttpStat::DownstreamRqTimeout),
            _ => None,
        };
        if let Some(stat) = stat {
            state.shard.inc(Block::from_raw(hcm.stats.http.0), stat);
        }
        self.failure()
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
pub(crate) struct Progress<'a> {
    /// When the whole request had come; zero while it is coming. The same for all tries: the route's timeout runs
    /// from here.
    pub request_end: &'a Cell<Nanos>,
    /// Sending has ended, well or badly, and must not be asked again.
    pub over: Cell<bool>,
    /// When the try had a connection.
    pub opened: Cell<Nanos>,
    pub last: Cell<Nanos>,
    pub sent: Cell<Sent>,
    pub sent_at: Cell<Nanos>,
    /// Bytes of the request on the wire, once it is all there.
    pub wire_bytes: Cell<u64>,
    /// A byte of an answer has come.
    pub heard: Cell<bool>,
    /// All that was read of the request's body can be sent again.
    pub replayable: Cell<bool>,
}

impl<'a> Progress<'a> {
    /// A connection lost before anything was written to it is another failure than one lost later.
    pub fn as_seen(&self, failure: Failure) -> Failure {
        match failure {
            Failure::UpstreamTermination if self.sent.get() == Sent::Nothing => Failure::ResetBeforeRequest,
            other => other,
        }
    }

    pub fn new(now: Nanos, request_end: &'a Cell<Nanos>) -> Self {
        Progress {
            request_end,
            over: Cell::new(false),
            opened: Cell::new(now),
            last: Cell::new(now),
            sent: Cell::new(Sent::Nothing),
            sent_at: Cell::new(Nanos::ZERO),
            wire_bytes: Cell::new(0),
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

impl Watch {
    pub fn on<'a>(&'a self, conn: &'a Conn) -> Watched<'a> {
        match self {
            Watch::Connection => Watched::Conn(conn),
            Watch::Stream(stream) => Watched::Stream(stream),
        }
    }
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
    pub progress: &'a Progress<'a>,
    pub started: Nanos,
    /// When the try had a connection, and how long it may take to be answered; runs from the end of the request at the
    /// earliest.
    pub one_try: Option<(Nanos, Duration)>,
    /// As `one_try`, but anew with each piece, and until the end of the answer.
    pub try_idle: Option<Duration>,
    /// Runs from the end of the request.
    pub route: Option<Duration>,
    pub stream_idle: Option<Duration>,
    pub stream_until: Option<Nanos>,
    pub upstream_until: Option<Nanos>,
    /// For the request to come whole.
    pub request_until: Option<Nanos>,
}

impl Guard<'_> {
    pub async fn interrupted(&self) -> Interrupt {
        // a stream's reset is seen at no cost
        let watch_at = matches!(self.downstream, Watched::Conn(_))
            .then(|| (self.started + WATCH_AFTER).next_multiple_of(WATCH_GRAIN));
        loop {
            let now = self.state.now();
            if let Some(interrupt) = self.due(now) {
                return interrupt;
            }
            let watching = watch_at.is_some_and(|at| now >= at);
            let next =
                if watching { self.next() } else { [self.next(), watch_at].into_iter().flatten().min() };
            self.deadline.arm(next.unwrap_or(Nanos::MAX));
            let first = match self.downstream {
                Watched::Conn(conn) if watching => race(self.deadline.expired(), self.reset(conn)).await,
                Watched::Conn(_) => {
                    self.deadline.expired().await;
                    First::Left(())
                }
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
        let due = self.limits().into_iter().filter_map(|(at, _)| at).min();
        // while the request is coming, its end sets these limits: look again when the shortest could have run out
        let coming = self.progress.request_end.get() == Nanos::ZERO;
        let shortest =
            [self.route, self.one_try.map(|(_, limit)| limit), self.try_idle].into_iter().flatten().min();
        let again = shortest.filter(|_| coming).map(|limit| self.state.now() + limit);
        [due, again].into_iter().flatten().min()
    }

    fn due(&self, now: Nanos) -> Option<Interrupt> {
        self.limits()
            .into_iter()
            .find_map(|(at, interrupt)| at.is_some_and(|at| now >= at).then_some(interrupt))
    }

    fn limits(&self) -> [(Option<Nanos>, Interrupt); 7] {
        let last = self.progress.last.get();
        let end = Some(self.progress.request_end.get()).filter(|end| *end != Nanos::ZERO);
        let one_try = self.one_try.and_then(|(began, limit)| Some(began.max(end?) + limit));
        [
            (self.stream_until, Interrupt::StreamDuration),
            (self.upstream_until, Interrupt::UpstreamDuration),
            (end.and_then(|end| Some(end + self.route?)), Interrupt::Route),
            (one_try, Interrupt::PerTry),
            (end.and_then(|_| Some(last + self.try_idle?)), Interrupt::PerTryIdle),
            (self.stream_idle.map(|idle| last + idle), Interrupt::StreamIdle),
            (self.request_until.filter(|_| end.is_none()), Interrupt::Request),
        ]
    }
}
