//! A request's body on its way upstream, kept as far as it may have to be sent again. What was kept is bounded;
//! beyond the bound the try under way is final.

use crate::{
    body::Piece,
    guard::{Progress, Sent},
    race::at_once,
    state::CoreState,
    upstream::{BodyIn, SendError, SendHalf},
};
use corelane_http::Fields;
use corelane_runtime::{Buf, Nanos};
use std::pin::pin;

/// Pieces of the body sent so far, as long as another try may need them.
#[derive(Default)]
pub(crate) struct Replay {
    kept: Vec<Buf>,
    bytes: usize,
    bytes_max: usize,
    overflowed: bool,
}

impl Replay {
    /// `bytes_max` 0: nothing is kept, for there is no second try.
    pub fn new(bytes_max: usize) -> Self {
        Replay { bytes_max, ..Replay::default() }
    }

    /// Whether another try can send the whole body.
    pub fn is_possible(&self, body: &BodyIn) -> bool {
        !self.overflowed || body.is_empty()
    }

    fn keep(&mut self, state: &CoreState, piece: &Buf) {
        if self.overflowed {
            return;
        }
        self.bytes += piece.len();
        if self.bytes > self.bytes_max {
            self.overflowed = true;
            self.kept.clear();
            return;
        }
        self.append(state, piece.filled());
    }

    fn append(&mut self, state: &CoreState, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.kept.last().is_none_or(|last| last.spare_len() == 0) {
                self.kept.push(state.buffer());
            }
            if let Some(last) = self.kept.last_mut() {
                let taken = last.extend_from_slice(bytes);
                bytes = &bytes[taken..];
            }
        }
    }
}

/// The next piece. The head waits for one that is there; the upstream does not, for it may answer the head alone.
async fn next_piece(state: &CoreState, send: &mut SendHalf, body: &mut BodyIn) -> Result<Piece, SendError> {
    let mut next = pin!(body.next(state));
    let piece = match at_once(next.as_mut()).await {
        Some(piece) => piece,
        None => {
            send.flush().await?;
            next.await
        }
    };
    piece.map_err(SendError::Downstream)
}

/// Counts what was sent upstream when sending is over, however it ended.
struct Sending<'a> {
    state: &'a CoreState,
    send: &'a mut SendHalf,
    progress: &'a Progress<'a>,
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.send.count(self.state, self.progress);
    }
}

/// Sends the body: first what earlier tries have read, then the rest as it comes. The head is written already.
/// May be dropped at any point; what was read from downstream is then in `replay` or still with `body`.
pub(crate) async fn send_body(
    state: &CoreState,
    send: &mut SendHalf,
    body: &mut BodyIn,
    replay: &mut Replay,
    progress: &Progress<'_>,
) -> Result<(), SendError> {
    let sending = Sending { state, send, progress };
    let send = &mut *sending.send;
    if !body.is_empty() {
        // a part of it may arrive even if the write fails; a head alone is no request before it is whole
        progress.sent.set(Sent::Some);
    }
    progress.replayable.set(!replay.overflowed);
    for kept in &replay.kept {
        let mut again = state.buffer();
        again.extend_from_slice(kept.filled());
        send.data(again, false).await?;
        send.count(state, progress);
    }
    while let Piece::Data { buf, last } = next_piece(state, send, body).await? {
        progress.last.set(state.now());
        replay.keep(state, &buf);
        progress.replayable.set(!replay.overflowed);
        send.data(buf, last).await?;
        send.count(state, progress);
        if last {
            break;
        }
    }
    if progress.request_end.get() == Nanos::ZERO {
        progress.request_end.set(state.now());
    }
    let none = Fields::new();
    send.finish(state, body.trailers().unwrap_or(&none)).await?;
    let now = state.now();
    progress.last.set(now);
    progress.sent_at.set(now);
    send.count(state, progress);
    progress.sent.set(Sent::All);
    Ok(())
}
