//! Poll-based I/O over a connection whose operations own their buffers, for the h2 crate. Two pumps on the same
//! core move the bytes: one reads ahead by one buffer, the other gathers what was written in one turn of the loop
//! and sends it with one write.
//!
//! Bounds: one buffer read and not yet taken, one buffer gathering, one buffer on its way out. A full side makes
//! the other wait, so what the peer does not read, or we do not take, goes no further. An idle connection holds no
//! buffer.

use crate::{
    conn::Conn,
    race::{First, race},
    state::CoreState,
};
use corelane_runtime::Buf;
use corelane_telemetry::{Block, ClusterStat, HttpStat};
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// After the user of the connection is gone: how long each buffer that it wrote may still be on its way, where nobody
/// is more patient.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

pub(crate) struct PollIo {
    state: Rc<CoreState>,
    pipe: Rc<Pipe>,
}

#[derive(Default)]
struct Pipe {
    inbound: RefCell<Inbound>,
    outbound: RefCell<Outbound>,
    patience: Cell<Option<Duration>>,
    /// Of the cluster that the bytes are counted for, if any.
    stats: Block<ClusterStat>,
    /// Of the connection manager that a client's bytes are counted for, if any.
    http: Block<HttpStat>,
}

/// What becomes of the bytes written, seen from beside.
pub(crate) struct Outlet(Rc<Pipe>);

impl Outlet {
    /// What is written is owed to the peer: after the user is gone each buffer has this long.
    pub fn be_patient(&self, patience: Duration) {
        self.0.patience.set(Some(patience));
    }

    pub fn patience(&self) -> Duration {
        self.0.patience.get().unwrap_or(FLUSH_WITHIN)
    }

    /// Whether all that was written is with the kernel.
    pub fn is_empty(&self) -> bool {
        let outbound = self.0.outbound.borrow();
        outbound.done || (outbound.gathering.is_none() && !outbound.writing)
    }

    /// The task, which is also the one that writes, is woken when all is with the kernel.
    pub fn watch(&self, context: &Context<'_>) {
        remember(&mut self.0.outbound.borrow_mut().writer, context);
    }

    /// Resolves when the last byte was written, or was given up, after the user is gone.
    pub async fn finished(&self) {
        poll_fn(|context| {
            let mut outbound = self.0.outbound.borrow_mut();
            if outbound.done {
                return Poll::Ready(());
            }
            remember(&mut outbound.writer, context);
            Poll::Pending
        })
        .await;
    }
}

#[derive(Default)]
struct Inbound {
    /// Read, and not yet taken.
    ready: Option<Buf>,
    end: Option<End>,
    /// Nobody will take anything any more.
    closed: bool,
    reader: Option<Waker>,
    pump: Option<Waker>,
}

#[derive(Clone, Copy)]
enum End {
    Eof,
    Failed(io::ErrorKind),
}

#[derive(Default)]
struct Outbound {
    gathering: Option<Buf>,
    /// A buffer is on its way.
    writing: bool,
    failed: Option<io::ErrorKind>,
    /// What is gathered is the last; then our direction ends.
    finishing: bool,
    /// The user is gone.
    closed: bool,
    /// The pump has ended.
    done: bool,
    writer: Option<Waker>,
    pump: Option<Waker>,
}

fn wake(slot: &mut Option<Waker>) {
    if let Some(waker) = slot.take() {
        waker.wake();
    }
}

fn remember(slot: &mut Option<Waker>, context: &Context<'_>) {
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
        *slot = Some(context.waker().clone());
    }
}

impl PollIo {
    /// `early`: read from the connection already.
    pub fn new(state: &Rc<CoreState>, conn: &Rc<Conn>, early: Option<Buf>) -> Self {
        PollIo::over(state, conn, early, Pipe::default())
    }

    /// A connection from a client; `early` as for [`PollIo::new`].
    pub fn downstream(
        state: &Rc<CoreState>,
        conn: &Rc<Conn>,
        early: Option<Buf>,
        http: Block<HttpStat>,
    ) -> Self {
        let bytes = early.as_ref().map_or(0, Buf::len);
        state.shard.add(http, HttpStat::DownstreamCxRxBytesTotal, bytes as u64);
        PollIo::over(state, conn, early, Pipe { http, ..Pipe::default() })
    }

    /// A connection to an endpoint of this cluster.
    pub fn upstream(state: &Rc<CoreState>, conn: &Rc<Conn>, stats: Block<ClusterStat>) -> Self {
        PollIo::over(state, conn, None, Pipe { stats, ..Pipe::default() })
    }

    fn over(state: &Rc<CoreState>, conn: &Rc<Conn>, early: Option<Buf>, pipe: Pipe) -> Self {
        let pipe = Rc::new(pipe);
        pipe.inbound.borrow_mut().ready = early.filter(|early| !early.is_empty());
        let reading = state.core.spawn(pump_in(state.clone(), conn.clone(), pipe.clone()));
        let writing = state.core.spawn(pump_out(state.clone(), conn.clone(), pipe.clone()));
        if !reading || !writing {
            // the core is full or stopping
            pipe.inbound.borrow_mut().end = Some(End::Failed(io::ErrorKind::ConnectionAborted));
            let mut outbound = pipe.outbound.borrow_mut();
            outbound.failed = Some(io::ErrorKind::ConnectionAborted);
            outbound.done = true;
        }
        PollIo { state: state.clone(), pipe }
    }

    pub fn outlet(&self) -> Outlet {
        Outlet(self.pipe.clone())
    }
}

impl Drop for PollIo {
    fn drop(&mut self) {
        let mut inbound = self.pipe.inbound.borrow_mut();
        inbound.closed = true;
        inbound.ready = None;
        wake(&mut inbound.pump);
        let mut outbound = self.pipe.outbound.borrow_mut();
        outbound.closed = true;
        wake(&mut outbound.pump);
    }
}

impl AsyncRead for PollIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inbound = self.pipe.inbound.borrow_mut();
        if let Some(buf) = &mut inbound.ready {
            let n = buf.len().min(out.remaining());
            out.put_slice(&buf.filled()[..n]);
            buf.advance(n);
            if buf.is_empty() {
                inbound.ready = None;
                wake(&mut inbound.pump);
            }
            return Poll::Ready(Ok(()));
        }
        match inbound.end {
            Some(End::Eof) => Poll::Ready(Ok(())),
            Some(End::Failed(kind)) => Poll::Ready(Err(kind.into())),
            None => {
                remember(&mut inbound.reader, context);
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for PollIo {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut outbound = self.pipe.outbound.borrow_mut();
        if let Some(kind) = outbound.failed {
            return Poll::Ready(Err(kind.into()));
        }
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let buf = outbound.gathering.get_or_insert_with(|| self.state.buffer());
        let before = buf.len();
        for slice in slices {
            if buf.extend_from_slice(slice) < slice.len() {
                break;
            }
        }
        let written = buf.len() - before;
        if written == 0 {
            remember(&mut outbound.writer, context);
            return Poll::Pending;
        }
        wake(&mut outbound.pump);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What was written is on its way by itself; how much may be is bounded.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.pipe.outbound.borrow().failed {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Ready when all was written and our direction has ended.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outbound = self.pipe.outbound.borrow_mut();
        if let Some(kind) = outbound.failed {
            return Poll::Ready(Err(kind.into()));
        }
        if outbound.done {
            return Poll::Ready(Ok(()));
        }
        outbound.finishing = true;
        wake(&mut outbound.pump);
        remember(&mut outbound.writer, context);
        Poll::Pending
    }
}

impl Pipe {
    /// Whether there is room for one buffer more; false: it is closed.
    async fn room(&self) -> bool {
        poll_fn(|context| {
            let mut inbound = self.inbound.borrow_mut();
            if inbound.closed {
                return Poll::Ready(false);
            }
            if inbound.ready.is_none() {
                return Poll::Ready(true);
            }
            remember(&mut inbound.pump, context);
            Poll::Pending
        })
        .await
    }

    async fn closed(&self) {
        poll_fn(|context| {
            let mut inbound = self.inbound.borrow_mut();
            if inbound.closed {
                return Poll::Ready(());
            }
            remember(&mut inbound.pump, context);
            Poll::Pending
        })
        .await;
    }

    /// What is to be written next; None: nothing will follow.
    async fn gathered(&self) -> Option<Buf> {
        poll_fn(|context| {
            let mut outbound = self.outbound.borrow_mut();
            if let Some(buf) = outbound.gathering.take() {
                outbound.writing = true;
                wake(&mut outbound.writer);
                return Poll::Ready(Some(buf));
            }
            if outbound.finishing || outbound.closed {
                return Poll::Ready(None);
            }
            remember(&mut outbound.pump, context);
            Poll::Pending
        })
        .await
    }

    /// Resolves a while after the user is gone.
    async fn given_up(&self, state: &CoreState) {
        poll_fn(|context| {
            let mut outbound = self.outbound.borrow_mut();
            if outbound.closed {
                return Poll::Ready(());
            }
            remember(&mut outbound.pump, context);
            Poll::Pending
        })
        .await;
        state.core.timers().sleep(self.patience.get().unwrap_or(FLUSH_WITHIN)).await;
    }
}

async fn pump_in(state: Rc<CoreState>, conn: Rc<Conn>, pipe: Rc<Pipe>) {
    while pipe.room().await {
        let read = conn.read_parking(&state.core, state.shared.limits.park_after);
        let end = match race(read, pipe.closed()).await {
            First::Right(()) => return,
            First::Left(Ok(buf)) if !buf.is_empty() => {
                state.shard.add(pipe.http, HttpStat::DownstreamCxRxBytesTotal, buf.len() as u64);
                state.shard.add(pipe.stats, ClusterStat::UpstreamCxRxBytesTotal, buf.len() as u64);
                let mut inbound = pipe.inbound.borrow_mut();
                inbound.ready = Some(buf);
                wake(&mut inbound.reader);
                continue;
            }
            First::Left(Ok(_)) => End::Eof,
            First::Left(Err(error)) => End::Failed(error.kind()),
        };
        let mut inbound = pipe.inbound.borrow_mut();
        inbound.end = Some(end);
        wake(&mut inbound.reader);
        return;
    }
}

async fn pump_out(state: Rc<CoreState>, conn: Rc<Conn>, pipe: Rc<Pipe>) {
    let mut failed = None;
    while let Some(buf) = pipe.gathered().await {
        let bytes = buf.len() as u64;
        state.shard.add(pipe.http, HttpStat::DownstreamCxTxBytesTotal, bytes);
        match race(conn.write_all(buf), pipe.given_up(&state)).await {
            First::Left((Ok(()), _)) => {
                state.shard.add(pipe.stats, ClusterStat::UpstreamCxTxBytesTotal, bytes)
            }
            First::Left((Err(error), _)) => failed = Some(error.kind()),
            First::Right(()) => failed = Some(io::ErrorKind::TimedOut),
        }
        if failed.is_some() {
            break;
        }
        let mut outbound = pipe.outbound.borrow_mut();
        outbound.writing = false;
        if outbound.gathering.is_none() {
            // somebody may wait for all to be written
            wake(&mut outbound.writer);
        }
    }
    if failed.is_none() {
        let ended = race(conn.shutdown_write(), pipe.given_up(&state)).await;
        failed = match ended {
            First::Left(Err(error)) => Some(error.kind()),
            First::Left(Ok(())) | First::Right(()) => None,
        };
    }
    let mut outbound = pipe.outbound.borrow_mut();
    outbound.failed = failed;
    outbound.done = true;
    outbound.gathering = None;
    wake(&mut outbound.writer);
}
