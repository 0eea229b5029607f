//! The sending half of one stream, either side: a head, data as flow control allows, trailers, or a reset. It is
//! shared between whoever sends and whoever watches for the peer's reset; borrows never outlast a poll.

use crate::http2::head;
use bytes::Bytes;
use corelane_http::Fields;
use corelane_runtime::Buf;
use h2::{Reason, SendStream, server::SendResponse};
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// Bytes on their way into an HTTP/2 connection: the very buffer they came in, or a copy of its own size where the
/// buffer would be mostly empty, so that small frames cannot pin large buffers.
pub(crate) struct Chunk {
    content: Content,
    queued: Queue,
}

enum Content {
    Whole(Buf),
    Small(Bytes),
}

/// A buffer filled less than this share is copied.
const SPARSE: usize = 4;

impl Chunk {
    fn of(buf: Buf, queue: &Queue) -> Chunk {
        Chunk::new(
            if buf.len() * SPARSE < buf.capacity() {
                Content::Small(Bytes::copy_from_slice(buf.filled()))
            } else {
                Content::Whole(buf)
            },
            queue,
        )
    }

    fn empty(queue: &Queue) -> Chunk {
        Chunk::new(Content::Small(Bytes::new()), queue)
    }

    fn new(content: Content, queue: &Queue) -> Chunk {
        if let Some(pieces) = &queue.0 {
            pieces.waiting.set(pieces.waiting.get() + 1);
        }
        Chunk { content, queued: queue.clone() }
    }
}

/// h2 lets go of a piece when its last byte is written, or its stream reset.
impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(pieces) = &self.queued.0 {
            pieces.waiting.set(pieces.waiting.get() - 1);
            pieces.moved.set(pieces.moved.get() + 1);
        }
    }
}

impl bytes::Buf for Chunk {
    fn remaining(&self) -> usize {
        match &self.content {
            Content::Whole(buf) => buf.len(),
            Content::Small(bytes) => bytes.len(),
        }
    }
    fn chunk(&self) -> &[u8] {
        match &self.content {
            Content::Whole(buf) => buf.filled(),
            Content::Small(bytes) => bytes,
        }
    }
    fn advance(&mut self, n: usize) {
        if let Some(pieces) = &self.queued.0 {
            pieces.moved.set(pieces.moved.get() + n as u64);
        }
        match &mut self.content {
            Content::Whole(buf) => buf.advance(n),
            Content::Small(bytes) => bytes::Buf::advance(bytes, n),
        }
    }
}

/// The pieces of a connection's streams that h2 has been given and has not written yet. The default does not count.
#[derive(Clone, Default)]
pub(crate) struct Queue(Option<Rc<Pieces>>);

#[derive(Default)]
struct Pieces {
    waiting: Cell<u32>,
    /// Grows with each byte that goes into a frame.
    moved: Cell<u64>,
}

impl Queue {
    pub fn counting() -> Queue {
        Queue(Some(Rc::default()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|pieces| pieces.waiting.get() == 0)
    }

    /// Another number whenever a part of what was queued has gone on.
    pub fn moved(&self) -> u64 {
        self.0.as_ref().map_or(0, |pieces| pieces.moved.get())
    }
}

enum Sending {
    /// A server's, before its head.
    Unanswered(SendResponse<Chunk>),
    Open(SendStream<Chunk>),
}

pub(crate) struct Outgoing {
    sending: RefCell<Sending>,
    /// END_STREAM was sent, or a reset.
    ended: Cell<bool>,
    reset: Cell<bool>,
    body_bytes: Cell<u64>,
    head_bytes: Cell<u64>,
    queue: Queue,
}

fn broken(error: h2::Error) -> io::Error {
    io::Error::other(error)
}

fn ended() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl Outgoing {
    /// What is sent waits in the connection's queue.
    pub fn answer(respond: SendResponse<Chunk>, queue: Queue) -> Self {
        Self::new(Sending::Unanswered(respond), 0, false, queue)
    }

    /// A request whose head was sent already.
    pub fn request(stream: SendStream<Chunk>, head_bytes: u64, ended: bool) -> Self {
        Self::new(Sending::Open(stream), head_bytes, ended, Queue::default())
    }

    fn new(sending: Sending, head_bytes: u64, ended: bool, queue: Queue) -> Self {
        Outgoing {
            sending: RefCell::new(sending),
            ended: Cell::new(ended),
            reset: Cell::default(),
            body_bytes: Cell::default(),
            head_bytes: Cell::new(head_bytes),
            queue,
        }
    }

    pub fn body_bytes(&self) -> u64 {
        self.body_bytes.get()
    }

    /// Without framing and header compression, which h2 keeps to itself.
    pub fn wire_bytes(&self) -> u64 {
        self.head_bytes.get() + self.body_bytes.get()
    }

    /// Sends the head of an answer.
    pub fn head(&self, response: http::Response<()>, head_bytes: u64, end: bool) -> io::Result<()> {
        let mut sending = self.sending.borrow_mut();
        let Sending::Unanswered(respond) = &mut *sending else { return Err(ended()) };
        let stream = respond.send_response(response, end).map_err(broken)?;
        *sending = Sending::Open(stream);
        self.head_bytes.set(head_bytes);
        self.ended.set(end);
        Ok(())
    }

    /// RFC 9110 section 10.1.1: the client waits for it before it sends its content.
    pub fn go_on(&self) {
        let Sending::Unanswered(respond) = &mut *self.sending.borrow_mut() else { return };
        let mut interim = http::Response::new(());
        *interim.status_mut() = http::StatusCode::CONTINUE;
        // a stream that cannot take it is lost, and the read that follows says so
        let _ = respond.send_informational(interim);
    }

    /// Waits until flow control and the bounded send buffer allow a byte, then hands all of the piece over.
    pub async fn data(&self, buf: Buf, last: bool) -> io::Result<()> {
        let len = buf.len();
        if len == 0 && !last {
            return Ok(());
        }
        if self.ended.get() {
            return if len == 0 { Ok(()) } else { Err(ended()) };
        }
        if len > 0 {
            self.with_stream(|stream| stream.reserve_capacity(len))?;
            poll_fn(|context| self.poll_room(context)).await?;
        }
        self.with_stream(|stream| stream.send_data(Chunk::of(buf, &self.queue), last))?.map_err(broken)?;
        self.body_bytes.set(self.body_bytes.get() + len as u64);
        self.ended.set(last);
        Ok(())
    }

    fn poll_room(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut sending = self.sending.borrow_mut();
        let Sending::Open(stream) = &mut *sending else { return Poll::Ready(Err(ended())) };
        if stream.capacity() > 0 {
            return Poll::Ready(Ok(()));
        }
        stream.poll_capacity(context).map(|room| match room {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(broken(error)),
            None => Err(ended()),
        })
    }

    /// Ends the stream in good order.
    pub fn finish(&self, trailers: &Fields) -> io::Result<()> {
        if self.ended.replace(true) {
            return Ok(());
        }
        let trailers = head::write_trailers(trailers);
        self.with_stream(|stream| match trailers {
            Some(trailers) => stream.send_trailers(trailers),
            None => stream.send_data(Chunk::empty(&self.queue), true),
        })?
        .map_err(broken)
    }

    fn with_stream<T>(&self, act: impl FnOnce(&mut SendStream<Chunk>) -> T) -> io::Result<T> {
        match &mut *self.sending.borrow_mut() {
            Sending::Open(stream) => Ok(act(stream)),
            Sending::Unanswered(_) => Err(ended()),
        }
    }

    /// RST_STREAM; harmless when the stream has ended.
    pub fn reset(&self, reason: Reason) {
        self.ended.set(true);
        // where the peer's reset came first the stream is gone, and ours is not sent
        let by_peer = self.poll_reset(&mut Context::from_waker(Waker::noop())).is_ready();
        self.reset.set(self.reset.get() || !by_peer);
        match &mut *self.sending.borrow_mut() {
            Sending::Unanswered(respond) => respond.send_reset(reason),
            Sending::Open(stream) => stream.send_reset(reason),
        }
    }

    pub fn was_reset_by_us(&self) -> bool {
        self.reset.get()
    }

    /// Ready when the peer has reset the stream or the connection is lost.
    pub fn poll_reset(&self, context: &mut Context<'_>) -> Poll<()> {
        let reset = match &mut *self.sending.borrow_mut() {
            Sending::Unanswered(respond) => respond.poll_reset(context),
            Sending::Open(stream) => stream.poll_reset(context),
        };
        reset.map(drop)
    }

    pub async fn was_reset(&self) {
        poll_fn(|context| self.poll_reset(context)).await;
    }
}
