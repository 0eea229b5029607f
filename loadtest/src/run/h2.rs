//! `run` over HTTP/2: the h2 crate on a current-thread tokio, with a timer exact to the microsecond.

use std::{cell::RefCell, io, rc::Rc, time::Duration};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Version};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::{net::unix::pipe, runtime, sync::Notify, task::LocalSet};

use super::{
    RunOptions, RunReport,
    tally::{Fault, Progress, Tally, Times},
};
use crate::{Error, arrivals::Schedule, async_transport::AsyncTransport, clock::Clock, dialler::Dialler};

const OPENING_MAX: Duration = Duration::from_secs(15);
const RECONNECT: Duration = Duration::from_millis(10);
const TICK: Duration = Duration::from_millis(100);
const WINDOW_BYTES: u32 = 1 << 20;

/// One HTTP/2 connection; `sender` is absent while it is down.
struct Connection {
    sender: RefCell<Option<SendRequest<Bytes>>>,
    streams: std::cell::Cell<usize>,
    free_since: std::cell::Cell<u64>,
}

struct Shared<'a> {
    options: &'a RunOptions,
    clock: Clock,
    tally: RefCell<Tally<'a>>,
    connections: Vec<Connection>,
    /// A stream has become free, or a connection has come up.
    freed: Notify,
    request: Request<()>,
    body: Bytes,
}

pub fn drive(options: &RunOptions) -> Result<RunReport, Error> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::io("starting the HTTP/2 event loop", e))?;
    // spawned tasks are 'static; the options of one run are small and the process ends with it
    let options: &'static RunOptions = Box::leak(Box::new(options.clone()));
    LocalSet::new().block_on(&runtime, drive_async(options))
}

async fn drive_async(options: &'static RunOptions) -> Result<RunReport, Error> {
    let clock = Clock::start();
    let dialler = Rc::new(Dialler::new(&options.target, &options.tls, options.sources, b"h2", true)?);
    let shared = Rc::new(Shared {
        options,
        clock,
        tally: RefCell::new(Tally::new(options, u64::MAX / 2)),
        connections: (0..options.connections)
            .map(|_| Connection { sender: RefCell::new(None), streams: 0.into(), free_since: 0.into() })
            .collect(),
        freed: Notify::new(),
        request: request(options)?,
        body: Bytes::from(vec![b'x'; options.body_bytes]),
    });
    for index in 0..options.connections {
        tokio::task::spawn_local(keep_open(shared.clone(), dialler.clone(), index));
    }
    open_all(&shared).await?;
    let from = clock.now_ns();
    *shared.tally.borrow_mut() = Tally::new(options, from);
    let ticker = tokio::task::spawn_local(tick(shared.clone()));
    match options.rate {
        Some(rate) => {
            send_on_schedule(&shared, Schedule::new(options.arrivals, rate, options.seed, from)).await?
        }
        None => saturate(&shared).await,
    }
    await_rest(&shared).await;
    ticker.abort();
    let tally = shared.tally.replace(Tally::new(options, u64::MAX / 2));
    Ok(tally.report(&clock))
}

fn request(options: &RunOptions) -> Result<Request<()>, Error> {
    let scheme = if options.target.tls { "https" } else { "http" };
    let authority = options.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
    let authority = authority.map_or(&options.target.authority, |(_, value)| value);
    let mut builder = Request::builder()
        .method(options.method.as_str())
        .uri(format!("{scheme}://{authority}{}", options.target.path))
        .version(Version::HTTP_2);
    for (name, value) in options.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
        builder = builder.header(name.as_str(), value.as_str());
    }
    builder.body(()).map_err(|e| Error::usage(format!("the request cannot be sent over HTTP/2: {e}")))
}

async fn open_all(shared: &Shared<'_>) -> Result<(), Error> {
    let all = async {
        while shared.connections.iter().any(|connection| connection.sender.borrow().is_none()) {
            shared.freed.notified().await;
        }
    };
    tokio::time::timeout(OPENING_MAX, all).await.map_err(|_| Error::Unreachable {
        target: shared.options.target.url.clone(),
        wanted: shared.connections.len(),
        opened: shared.connections.iter().filter(|connection| connection.sender.borrow().is_some()).count(),
        seconds: OPENING_MAX.as_secs(),
        last: "see the target's log".to_owned(),
    })
}

/// Opens connection `index`, drives it, and opens it again when it ends.
async fn keep_open(shared: Rc<Shared<'static>>, dialler: Rc<Dialler>, index: usize) {
    loop {
        match open(&dialler, index).await {
            Ok((sender, connection)) => {
                *shared.connections[index].sender.borrow_mut() = Some(sender);
                shared.connections[index].free_since.set(shared.clock.now_ns());
                shared.freed.notify_one();
                // its requests report how it ended
                let _ = connection.await;
                *shared.connections[index].sender.borrow_mut() = None;
                shared.tally.borrow_mut().reconnected();
            }
            Err(_) => shared.tally.borrow_mut().connect_failed(),
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

type Opened = (SendRequest<Bytes>, h2::client::Connection<AsyncTransport, Bytes>);

async fn open(dialler: &Dialler, index: usize) -> io::Result<Opened> {
    let transport = AsyncTransport::new(dialler.dial(index)?, Vec::new())?.established().await?;
    h2::client::Builder::new()
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES * 16)
        .enable_push(false)
        .handshake(transport)
        .await
        .map_err(io::Error::other)
}

async fn tick(shared: Rc<Shared<'static>>) {
    let mut progress = Progress::new(shared.options.progress, shared.clock.now_ns());
    loop {
        let now = shared.clock.now_ns();
        let edge = shared.tally.borrow_mut().tick(now);
        progress.tick(&shared.tally.borrow(), now);
        let Some(edge) = edge else { return progress.end() };
        tokio::time::sleep(TICK.min(Duration::from_nanos(edge.saturating_sub(now)))).await;
    }
}

async fn send_on_schedule(shared: &Rc<Shared<'static>>, mut schedule: Schedule) -> Result<(), Error> {
    let timer = Timer::new().map_err(|e| Error::io("creating a timer", e))?;
    let window_end = shared.tally.borrow().window.end;
    let mut turn = 0;
    loop {
        let now = shared.clock.now_ns();
        if shared.tally.borrow().over(now) {
            break;
        }
        let intended = schedule.next_ns();
        if intended > now {
            timer
                .sleep(intended.min(window_end) - now)
                .await
                .map_err(|e| Error::io("waiting on a timer", e))?;
            continue;
        }
        match free_connection(shared, &mut turn) {
            Some(index) => {
                schedule.advance();
                let times = begin(shared, index, intended);
                let shared = shared.clone();
                tokio::task::spawn_local(async move { exchange(&shared, index, times).await });
            }
            None => {
                let left = Duration::from_nanos(window_end.saturating_sub(now));
                // the end of the window ends the wait
                let _ = tokio::time::timeout(left, shared.freed.notified()).await;
            }
        }
    }
    while schedule.next_ns() < shared.tally.borrow().window.end {
        shared.tally.borrow_mut().unsent(schedule.next_ns());
        schedule.advance();
    }
    Ok(())
}

async fn saturate(shared: &Rc<Shared<'static>>) {
    let mut senders = Vec::new();
    for index in
        (0..shared.connections.len()).flat_map(|index| std::iter::repeat_n(index, shared.options.streams))
    {
        let shared = shared.clone();
        senders.push(tokio::task::spawn_local(async move {
            loop {
                let now = shared.clock.now_ns();
                if shared.tally.borrow().over(now) {
                    return;
                }
                if shared.connections[index].sender.borrow().is_none() {
                    tokio::time::sleep(RECONNECT).await;
                    continue;
                }
                shared.connections[index].free_since.set(now);
                let times = begin(&shared, index, now);
                exchange(&shared, index, times).await;
            }
        }));
    }
    for sender in senders {
        // a sender ends by itself; a panic in one has been printed
        let _ = sender.await;
    }
}

async fn await_rest(shared: &Shared<'_>) {
    let idle = async {
        while shared.connections.iter().any(|connection| connection.streams.get() > 0) {
            shared.freed.notified().await;
        }
    };
    // requests that outlast the timeout have reported themselves
    let _ = tokio::time::timeout(shared.options.timeout + TICK, idle).await;
}

fn free_connection(shared: &Shared<'_>, turn: &mut usize) -> Option<usize> {
    let count = shared.connections.len();
    let found = (0..count).map(|step| (*turn + step) % count).find(|&index| {
        let connection = &shared.connections[index];
        connection.streams.get() < shared.options.streams && connection.sender.borrow().is_some()
    })?;
    *turn = found + 1;
    Some(found)
}

fn begin(shared: &Shared<'_>, index: usize, intended: u64) -> Times {
    let connection = &shared.connections[index];
    connection.streams.set(connection.streams.get() + 1);
    let now = shared.clock.now_ns();
    // with a stream to spare all along, the send was possible when it was due
    let full_before = connection.streams.get() == shared.options.streams;
    let possible = if full_before { intended.max(connection.free_since.get()).min(now) } else { intended };
    let times = Times { intended, possible, sent: now };
    shared.tally.borrow_mut().sent(&times, now);
    times
}

async fn exchange(shared: &Shared<'_>, index: usize, times: Times) {
    let connection = &shared.connections[index];
    let sender = connection.sender.borrow().clone();
    let outcome = match sender {
        None => Err(Fault::Closed),
        Some(sender) => tokio::time::timeout(shared.options.timeout, one_request(shared, sender))
            .await
            .unwrap_or(Err(Fault::Timeout)),
    };
    let now = shared.clock.now_ns();
    match outcome {
        Ok(status) => shared.tally.borrow_mut().answered(&times, now, status),
        Err(fault) => shared.tally.borrow_mut().failed(&times, fault),
    }
    connection.streams.set(connection.streams.get() - 1);
    connection.free_since.set(now);
    shared.freed.notify_one();
}

async fn one_request(shared: &Shared<'_>, sender: SendRequest<Bytes>) -> Result<u16, Fault> {
    let mut sender = sender.ready().await.map_err(fault)?;
    let (response, mut body) =
        sender.send_request(shared.request.clone(), shared.body.is_empty()).map_err(fault)?;
    if !shared.body.is_empty() {
        body.send_data(shared.body.clone(), true).map_err(fault)?;
    }
    let response = response.await.map_err(fault)?;
    let status = response.status().as_u16();
    let mut body = response.into_body();
    while let Some(piece) = body.data().await {
        let count = piece.map_err(fault)?.len();
        shared.tally.borrow_mut().received(count);
        body.flow_control().release_capacity(count).map_err(fault)?;
    }
    Ok(status)
}

fn fault(error: h2::Error) -> Fault {
    if error.is_reset() {
        Fault::Reset
    } else if error.is_io() || error.is_go_away() {
        Fault::Closed
    } else {
        Fault::Protocol
    }
}

/// tokio's own timer counts in milliseconds; the kernel's, read like a pipe, does not.
struct Timer {
    descriptor: pipe::Receiver,
}

impl Timer {
    fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Timer { descriptor: pipe::Receiver::from_owned_fd_unchecked(timer)? })
    }

    async fn sleep(&self, ns: u64) -> io::Result<()> {
        let ns = ns.max(1);
        let value = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as _ },
        };
        rustix::time::timerfd_settime(&self.descriptor, TimerfdTimerFlags::empty(), &value)?;
        loop {
            self.descriptor.readable().await?;
            match self.descriptor.try_read(&mut [0; 8]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result.map(drop),
            }
        }
    }
}
