//! One request as a stream of an upstream HTTP/2 connection. The two halves share the stream: sending makes it,
//! receiving waits on it, and dropping both before its end resets it (CANCEL). What became of it is counted then.

use super::{Answer, SendError};
use crate::{
    body::{BodyError, Piece},
    guard::{Progress, Sent},
    http2::{self, H2Body, Outgoing, StreamEnd},
    state::CoreState,
    upstream::streams::Stream,
};
use corelane_http::{BodyFraming, Fields, Method, RequestHead, ResponseHead};
use corelane_runtime::Buf;
use corelane_telemetry::{Block, ClusterHttp2Stat, ClusterStat};
use corelane_traffic::Failure;
use h2::{Reason, client::ResponseFuture};
use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::Poll,
};

/// What sending tells receiving.
enum Call {
    Unsent,
    Refused(Failure),
    Waiting(ResponseFuture),
    Answered,
}

/// What both halves know of the stream.
struct Shared {
    stream: Rc<Stream>,
    call: RefCell<Call>,
    /// The stream was opened.
    open: Cell<bool>,
    /// END_STREAM was sent.
    sent: Cell<bool>,
    /// None: nobody has seen the answer's end.
    end: Cell<Option<StreamEnd>>,
    /// The answer had trailers.
    trailers: Cell<bool>,
}

impl Shared {
    fn opened(&self) {
        self.open.set(true);
        self.stream.state().shard.gauge_add(self.block(), ClusterHttp2Stat::StreamsActive, 1);
    }

    fn block(&self) -> Block<ClusterHttp2Stat> {
        Block::from_raw(self.stream.cluster().stats.http2.0)
    }

    fn see(&self, body: &H2Body) {
        self.end.set(body.end());
        self.trailers.set(!body.trailers().is_empty());
    }
}

/// Of the answer's head that did not come: then even NO_ERROR is one.
fn end_of(error: &h2::Error) -> StreamEnd {
    match () {
        () if error.is_reset() && error.is_library() => StreamEnd::Malformed,
        () if error.is_reset() => StreamEnd::Reset,
        () => StreamEnd::Lost,
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !self.open.get() {
            return;
        }
        let (shard, block) = (&self.stream.state().shard, self.block());
        shard.gauge_sub(block, ClusterHttp2Stat::StreamsActive, 1);
        if self.trailers.get() {
            shard.inc(block, ClusterHttp2Stat::Trailers);
        }
        match self.end.get() {
            Some(StreamEnd::ResetWithoutError) => {
                let cluster = Block::from_raw(self.stream.cluster().stats.cluster.0);
                shard.inc(cluster, ClusterStat::UpstreamRqRxResetNoError);
                shard.inc(block, ClusterHttp2Stat::RxReset);
            }
            Some(StreamEnd::Reset) => shard.inc(block, ClusterHttp2Stat::RxReset),
            Some(StreamEnd::Malformed) => {
                shard.inc(block, ClusterHttp2Stat::RxMessagingError);
                shard.inc(block, ClusterHttp2Stat::TxReset);
            }
            Some(StreamEnd::Whole) if self.sent.get() => {}
            Some(StreamEnd::Lost) => {}
            // h2 resets it, for nobody holds it any more
            Some(StreamEnd::Whole) | None => shard.inc(block, ClusterHttp2Stat::TxReset),
        }
    }
}

pub(crate) struct H2Send {
    shared: Rc<Shared>,
    outgoing: Option<Outgoing>,
}

pub(crate) struct H2Receive {
    fields_max: usize,
    shared: Rc<Shared>,
    body: Option<H2Body>,
}

pub(crate) fn halves(stream: &Rc<Stream>) -> (H2Send, H2Receive) {
    let fields_max = stream.cluster().pool.header_fields_max as usize;
    let shared = Rc::new(Shared {
        stream: stream.clone(),
        call: RefCell::new(Call::Unsent),
        open: Cell::default(),
        sent: Cell::default(),
        end: Cell::default(),
        trailers: Cell::default(),
    });
    (H2Send { shared: shared.clone(), outgoing: None }, H2Receive { fields_max, shared, body: None })
}

impl H2Send {
    /// Opens the stream. What h2 refuses is told by the receiving half, as if the upstream had.
    ///
    /// # Errors
    /// A request that HTTP/2 cannot carry, or that would become a tunnel.
    pub fn head(&mut self, head: &RequestHead, framing: BodyFraming, upgrade: bool) -> Result<(), Failure> {
        if upgrade || head.method() == Method::Connect {
            // extended CONNECT (RFC 8441) is not spoken to upstreams
            return Err(Failure::ProtocolError);
        }
        let request = http2::write_request(head, framing, self.shared.stream.scheme())
            .map_err(|_| Failure::DownstreamProtocolError)?;
        let end = matches!(framing, BodyFraming::None | BodyFraming::Length(0));
        let bytes = head.fields.total_bytes() + head.path().len() + head.authority().len();
        let call = match self.shared.stream.send(request, end) {
            Ok((response, stream)) => {
                self.outgoing = Some(Outgoing::request(stream, bytes as u64, end));
                self.shared.opened();
                self.shared.sent.set(end);
                Call::Waiting(response)
            }
            Err(error) => Call::Refused(unsent(&error)),
        };
        self.shared.call.replace(call);
        Ok(())
    }

    pub async fn data(&mut self, buf: Buf, last: bool) -> Result<(), SendError> {
        let outgoing = self.outgoing.as_ref().ok_or(SendError::Upstream)?;
        outgoing.data(buf, last).await.map_err(|_| SendError::Upstream)?;
        self.shared.sent.set(last);
        Ok(())
    }

    pub fn finish(&mut self, trailers: &Fields) -> Result<(), SendError> {
        let outgoing = self.outgoing.as_ref().ok_or(SendError::Upstream)?;
        outgoing.finish(trailers).map_err(|_| SendError::Upstream)?;
        self.shared.sent.set(true);
        Ok(())
    }

    pub fn wire_bytes(&self) -> u64 {
        self.outgoing.as_ref().map_or(0, Outgoing::wire_bytes)
    }
}

impl H2Receive {
    /// RFC 9113 section 8.1: "one or more" interim heads may come before the final one.
    fn interim(&self, parts: &http::response::Parts, head: &mut ResponseHead) -> Result<Answer, Failure> {
        http2::read_response(parts, false, self.fields_max, head).map_err(|_| Failure::ProtocolError)?;
        let framing = BodyFraming::None;
        Ok(Answer { framing, keep_alive: true, tunnel: false, interim: true, wire_bytes: 0 })
    }

    pub async fn head(
        &mut self,
        method: Method,
        head: &mut ResponseHead,
        progress: &Progress<'_>,
    ) -> Result<Answer, Failure> {
        let answered = std::future::poll_fn(|context| match &mut *self.shared.call.borrow_mut() {
            Call::Waiting(response) => match response.poll_informational(context) {
                Poll::Ready(Some(Ok(interim))) => Poll::Ready(Ok(Err(interim))),
                _ => Pin::new(response).poll(context).map_ok(Ok).map_err(Some),
            },
            Call::Unsent | Call::Refused(_) | Call::Answered => Poll::Ready(Err(None)),
        })
        .await;
        let answered = match answered {
            Ok(Err(interim)) => {
                progress.heard.set(true);
                return self.interim(&interim.into_parts().0, head);
            }
            Ok(Ok(response)) => Ok(response),
            Err(error) => Err(error),
        };
        let response = match (answered, self.shared.call.replace(Call::Answered)) {
            (Ok(response), _) => response,
            (Err(None), Call::Refused(failure)) => return Err(failure),
            (Err(None), _) => return Err(Failure::ResetBeforeRequest),
            (Err(Some(error)), _) => {
                self.shared.end.set(Some(end_of(&error)));
                return Err(lost(&error, progress));
            }
        };
        progress.heard.set(true);
        let (parts, body) = response.into_parts();
        let end = body.is_end_stream();
        let framing = http2::read_response(&parts, end, self.fields_max, head).map_err(|_| {
            let stats = self.shared.block();
            self.shared.stream.state().shard.inc(stats, ClusterHttp2Stat::RxMessagingError);
            Failure::ProtocolError
        })?;
        // RFC 9110 section 9.3.2 and section 15.4.5: neither has content, whatever its fields say
        let bodiless = method == Method::Head || matches!(head.status, 204 | 304);
        let body = self.body.insert(H2Body::of_answer(body, &head.fields));
        self.shared.see(body);
        Ok(Answer {
            framing: if bodiless { BodyFraming::None } else { framing },
            keep_alive: true,
            tunnel: false,
            interim: false,
            wire_bytes: head.fields.total_bytes() as u64,
        })
    }

    pub async fn next(&mut self, state: &CoreState) -> Result<Piece, BodyError> {
        match &mut self.body {
            Some(body) => {
                let piece = body.next(state).await;
                self.shared.see(body);
                piece
            }
            None => Ok(Piece::End),
        }
    }

    pub fn trailers(&self) -> Option<&Fields> {
        self.body.as_ref().map(H2Body::trailers)
    }

    pub fn messages(&self) -> u64 {
        self.body.as_ref().map_or(0, H2Body::messages)
    }

    pub fn received(&self) -> u64 {
        self.body.as_ref().map_or(0, |body| body.received)
    }
}

/// The stream could not even be opened: the connection is on its end.
fn unsent(error: &h2::Error) -> Failure {
    if error.is_library() { Failure::ProtocolError } else { Failure::ResetBeforeRequest }
}

/// What became of a request without an answer.
fn lost(error: &h2::Error, progress: &Progress<'_>) -> Failure {
    if error.is_library() {
        return Failure::ProtocolError;
    }
    if error.is_go_away() {
        // RFC 9113 section 6.8: streams above the last identifier "were not or might not be processed"; h2 gives
        // this error to those alone
        progress.sent.set(Sent::Nothing);
        return Failure::ResetBeforeRequest;
    }
    if error.is_reset() {
        // RFC 9113 section 8.7: "The REFUSED_STREAM error code can be included in a RST_STREAM frame to indicate that
        // the stream is being closed prior to any processing having occurred"
        return if error.reason() == Some(Reason::REFUSED_STREAM) {
            Failure::RefusedStream
        } else {
            Failure::Reset
        };
    }
    Failure::UpstreamTermination
}
