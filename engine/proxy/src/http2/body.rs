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

/// How the peer's half of a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    Whole,
    /// RFC 9113 section 8.1: with NO_ERROR, after a whole answer.
    ResetWithoutError,
    Reset,
    Malformed,
    /// With the connection.
    Lost,
}

pub(crate) struct H2Body {
    stream: RecvStream,
    /// Received, and too large for the buffer before.
    rest: Bytes,
    trailers: Fields,
    end: Option<StreamEnd>,
    /// The peer waits for `100 Continue` before it sends.
    continue_due: Option<Rc<Outgoing>>,
    is_answer: bool,
    pub received: u64,
    /// Of a gRPC call.
    messages: Option<Messages>,
}

impl H2Body {
    /// Of a request. `head`: the fields of its head.
    pub fn of_request(stream: RecvStream, continue_due: Option<Rc<Outgoing>>, head: &Fields) -> Self {
        H2Body::new(stream, continue_due, head, false)
    }

    /// As [`H2Body::of_request`], of an answer.
    pub fn of_answer(stream: RecvStream, head: &Fields) -> Self {
        H2Body::new(stream, None, head, true)
    }

    fn new(stream: RecvStream, continue_due: Option<Rc<Outgoing>>, head: &Fields, is_answer: bool) -> Self {
        let end = stream.is_end_stream().then_some(StreamEnd::Whole);
        let messages = matching::is_grpc_message(head).then(Messages::default);
        let (rest, trailers) = (Bytes::new(), Fields::new());
        H2Body { stream, rest, trailers, end, continue_due, is_answer, received: 0, messages }
    }

    pub fn messages(&self) -> u64 {
        self.messages.map_or(0, |messages| messages.count)
    }

    pub fn is_done(&self) -> bool {
        matches!(self.end, Some(StreamEnd::Whole | StreamEnd::ResetWithoutError))
    }

    /// None: it goes on, or nobody has read it to its end.
    pub fn end(&self) -> Option<StreamEnd> {
        self.end
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
        if self.is_done() {
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
                    // RFC 9113 section 8.1: a server may send it "after sending a complete response"; of a client it
                    // is the end of a request that is not whole
                    if self.is_answer && error.reason() == Some(Reason::NO_ERROR) && error.is_reset() {
                        self.end = Some(StreamEnd::ResetWithoutError);
                        return Poll::Ready(Ok(Piece::End));
                    }
                    return Poll::Ready(Err(self.broken(&error)));
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
            self.end = Some(StreamEnd::Whole);
        }
        Poll::Ready(Ok(match gathered {
            Some(buf) => Piece::Data { buf, last: self.is_done() && self.trailers.is_empty() },
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
                self.end = Some(StreamEnd::Whole);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.broken(&error))),
        }
    }

    fn broken(&mut self, error: &h2::Error) -> BodyError {
        let (end, cause) = if error.is_library() {
            (StreamEnd::Malformed, BodyError::Malformed)
        } else if error.is_reset() {
            (StreamEnd::Reset, BodyError::Reset)
        } else {
            (StreamEnd::Lost, BodyError::Closed)
        };
        self.end = Some(end);
        cause
    }
}
