//! The receiving half of one stream, either side. What h2 has received is taken into the core's own buffers, and
//! only then the peer may send more: a reader that stops stops the peer.

use crate::{
    body::{BodyError, Piece},
    grpc::Messages,
    http2::{head, outgoing::Outgoing},
    state::CoreState,
};
use bytes::{Buf as _, Bytes};
use corelane_http::Fields;
use corelane_runtime::Buf;
use corelane_traffic::matching;
use h2::{Reason, RecvStream};
use std::{
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll},
};

pub(crate) struct H2Body {
    stream: RecvStream,
    /// Received, and too large for the buffer before.
    rest: Bytes,
    trailers: Fields,
    done: bool,
    /// The peer waits for `100 Continue` before it sends.
    continue_due: Option<Rc<Outgoing>>,
    pub received: u64,
    /// Of a gRPC call.
    messages: Option<Messages>,
}

impl H2Body {
    /// `head`: the fields of the message's head.
    pub fn new(stream: RecvStream, continue_due: Option<Rc<Outgoing>>, head: &Fields) -> Self {
        let done = stream.is_end_stream();
        let messages = matching::is_grpc_message(head).then(Messages::default);
        let (rest, trailers) = (Bytes::new(), Fields::new());
        H2Body { stream, rest, trailers, done, continue_due, received: 0, messages }
    }

    pub fn messages(&self) -> u64 {
        self.messages.map_or(0, |messages| messages.count)
    }

    pub fn is_done(&self) -> bool {
        self.done
    }

    /// After the end.
    pub fn trailers(&self) -> &Fields {
        &self.trailers
    }

    /// All that has come, as far as it fits one buffer; waits for the first byte. May be dropped and called again.
    pub async fn next(&mut self, state: &CoreState) -> Result<Piece, BodyError> {
        if let Some(answer) = self.continue_due.take() {
            answer.go_on();
        }
        poll_fn(|context| self.poll_next(state, context)).await
    }

    fn poll_next(&mut self, state: &CoreState, context: &mut Context<'_>) -> Poll<Result<Piece, BodyError>> {
        if self.done {
            return Poll::Ready(Ok(Piece::End));
        }
        let mut gathered: Option<Buf> = None;
        while gathered.as_ref().is_none_or(|buf| buf.spare_len() > 0) {
            if !self.rest.is_empty() {
                self.take_into(gathered.get_or_insert_with(|| state.buffer()));
                continue;
            }
            match self.stream.poll_data(context) {
                Poll::Ready(Some(Ok(data))) => self.rest = data,
                Poll::Ready(Some(Err(error))) if gathered.is_none() => {
                    // RFC 9113 section 8.1: NO_ERROR follows a complete response
                    if error.reason() == Some(Reason::NO_ERROR) && error.is_reset() {
                        self.done = true;
                        return Poll::Ready(Ok(Piece::End));
                    }
                    return Poll::Ready(Err(cause(&error)));
                }
                // the error comes again, after what came before it
                Poll::Ready(Some(Err(_))) => break,
                Poll::Ready(None) => {
                    if self.poll_end(context)?.is_pending() && gathered.is_none() {
                        return Poll::Pending;
                    }
                    break;
                }
                Poll::Pending if gathered.is_none() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if gathered.is_some() && self.rest.is_empty() && self.stream.is_end_stream() {
            self.done = true;
        }
        Poll::Ready(Ok(match gathered {
            Some(buf) => Piece::Data { buf, last: self.done && self.trailers.is_empty() },
            None => Piece::End,
        }))
    }

    fn take_into(&mut self, buf: &mut Buf) {
        let taken = buf.extend_from_slice(&self.rest);
        if let Some(messages) = &mut self.messages {
            messages.feed(&self.rest[..taken]);
        }
        self.rest.advance(taken);
        self.received += taken as u64;
        // fails only on a stream that is over, where no window matters
        let _ = self.stream.flow_control().release_capacity(taken);
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        match self.stream.poll_trailers(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(trailers)) => {
                if let Some(trailers) = trailers {
                    head::read_trailers(&trailers, &mut self.trailers);
                }
                self.done = true;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(cause(&error))),
        }
    }
}

fn cause(error: &h2::Error) -> BodyError {
    if error.is_library() {
        BodyError::Malformed
    } else if error.is_reset() {
        BodyError::Reset
    } else {
        BodyError::Closed
    }
}
