//! Bodies on HTTP/1 connections, either direction: bytes in as pieces, pieces out as bytes. A piece is an owned
//! buffer that goes from one socket to the other; its bytes are copied only where several small chunks are put
//! together, or where what follows the body shares the buffer.

use crate::{
    conn::{Conn, ResumableRead},
    state::CoreState,
};
use corelane_http::{BodyDecoder, BodyEncoder, BodyFraming, BodyLimits, Fields, Known, SliceSink};
use corelane_runtime::Buf;
use std::{io, rc::Rc};

pub(crate) enum Piece {
    Data {
        buf: Buf,
        last: bool,
    },
    /// Trailers, if any, are with the body.
    End,
}

/// Why a body ended before its end.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The peer closed or reset the connection.
    Closed,
    /// The peer reset the stream.
    Reset,
    /// The peer broke the protocol.
    Malformed,
}

/// The body of a message that comes in.
pub(crate) struct H1Body {
    pub conn: Rc<Conn>,
    decoder: BodyDecoder,
    trailers: Fields,
    /// Bytes read and not yet decoded; when the body has ended, what follows it on the connection.
    pub input: Option<Buf>,
    /// For bodies whose reading may be given up and taken up again.
    resumable: Option<ResumableRead>,
    /// The peer waits for `100 Continue` before it sends; whoever writes to it says so, before this is read.
    pub continue_due: bool,
    pub received: u64,
    /// Bytes read from the connection, framing included; without what was there at the start.
    pub read: u64,
    /// The last read brought so much that more is likely to wait.
    rushes: bool,
}

impl H1Body {
    pub fn new(conn: Rc<Conn>, framing: BodyFraming, input: Option<Buf>, resumable: bool) -> Self {
        let rushes = input.as_ref().is_some_and(|input| input.spare_len() == 0);
        H1Body {
            conn,
            decoder: BodyDecoder::new(framing, BodyLimits::default()),
            trailers: Fields::new(),
            input,
            resumable: resumable.then(ResumableRead::default),
            continue_due: false,
            received: 0,
            read: 0,
            rushes,
        }
    }

    pub fn is_done(&self) -> bool {
        self.decoder.is_done()
    }

    /// After the end.
    pub fn trailers(&self) -> &Fields {
        &self.trailers
    }

    pub async fn next(&mut self, state: &CoreState) -> Result<Piece, BodyError> {
        loop {
            if self.decoder.is_done() {
                return Ok(Piece::End);
            }
            match self.input.take() {
                Some(input) if !input.is_empty() => {
                    if let Some(piece) = self.decode(state, input)? {
                        return Ok(piece);
                    }
                }
                _ => self.fill(state).await?,
            }
        }
    }

    /// What the input holds, if that is a piece. Leaves the rest in `input`.
    fn decode(&mut self, state: &CoreState, mut input: Buf) -> Result<Option<Piece>, BodyError> {
        let mut gathered: Option<Buf> = None;
        while !input.is_empty() && !self.decoder.is_done() {
            let decoded = self.decoder.decode(input.filled(), &mut self.trailers);
            let decoded = decoded.map_err(|_| BodyError::Malformed)?;
            if decoded.done {
                self.trailers.remove_if(|known, name, _| is_not_for_trailers(known, name));
            }
            let (data, consumed) = (decoded.data, decoded.consumed);
            if data.is_empty() {
                if consumed == 0 {
                    break;
                }
                input.advance(consumed);
                continue;
            }
            if consumed == input.len() && gathered.is_none() {
                self.received += data.len() as u64;
                input.truncate(data.end);
                input.advance(data.start);
                return Ok(Some(Piece::Data { buf: input, last: self.is_last() }));
            }
            let out = gathered.get_or_insert_with(|| state.buffer_for(input.len() as u64));
            if out.spare_len() < data.len() {
                // the decoder has moved on: take it all, in a buffer of the right size
                let mut larger = state.core.buffers().take_sized(out.len() + data.len());
                larger.extend_from_slice(out.filled());
                *out = larger;
            }
            out.extend_from_slice(&input.filled()[data.clone()]);
            self.received += data.len() as u64;
            input.advance(consumed);
        }
        self.input = (!input.is_empty()).then_some(input);
        Ok(gathered.map(|buf| Piece::Data { buf, last: self.is_last() }))
    }

    fn is_last(&self) -> bool {
        self.decoder.is_done() && self.trailers.is_empty()
    }

    async fn fill(&mut self, state: &CoreState) -> Result<(), BodyError> {
        // a peer that sends a long body slowly gets no large buffer to wait with
        let to_come = if self.rushes { self.decoder.known_remaining() } else { 0 };
        let partial = self.input.take();
        let room = || partial.unwrap_or_else(|| state.buffer_for(to_come));
        let (read, buf) = match &mut self.resumable {
            Some(read) => read.read(&self.conn, room).await,
            None => self.conn.read(room()).await,
        };
        match read {
            Ok(0) => self.decoder.finish().map_err(|_| BodyError::Closed),
            Ok(n) => {
                self.read += n as u64;
                self.rushes = n >= state.core.buffers().buffer_bytes() / 2;
                self.input = Some(buf);
                Ok(())
            }
            Err(_) => Err(BodyError::Closed),
        }
    }
}

/// RFC 9110 section 6.5.1: fields about routing, authentication and control are not taken from trailers. What the
/// proxy itself writes about the caller least of all: it was checked in the head.
fn is_not_for_trailers(known: Known, name: &[u8]) -> bool {
    let named = matches!(
        known,
        Known::Host
            | Known::Authorization
            | Known::ProxyAuthorization
            | Known::Cookie
            | Known::SetCookie
            | Known::Expect
            | Known::XRequestId
            | Known::Forwarded
            | Known::Via
    );
    named || name.starts_with(b"x-forwarded-") || name.starts_with(b"x-envoy-")
}

/// A message that goes out. The head waits in `out` for the first piece of body, so that a small message is one
/// write.
pub(crate) struct H1Writer {
    pub conn: Rc<Conn>,
    out: Option<Buf>,
    encoder: BodyEncoder,
    body_bytes: u64,
    wire_bytes: u64,
    /// What the connection had sent before.
    sent_before: u64,
}

/// A first piece of body up to here is copied behind its head, which costs less than a second piece to the socket or the
/// cipher. Larger ones are not copied.
const JOINED_BYTES_MAX: usize = 2 * 1024;

/// Room kept in a buffer that gathers a head and a small body, for the framing around and behind it.
const FRAMING_ROOM: usize = 64;

impl H1Writer {
    pub fn new(conn: Rc<Conn>) -> Self {
        let sent_before = conn.sent().unwrap_or(0);
        let encoder = BodyEncoder::Finished;
        H1Writer { conn, out: None, encoder, body_bytes: 0, wire_bytes: 0, sent_before }
    }

    /// `head` is written already; the body follows, framed like this.
    pub fn begin(&mut self, head: Buf, framing: BodyFraming) {
        self.out = Some(head);
        self.encoder = BodyEncoder::new(framing);
    }

    /// Takes back the head and what was put behind it. False: some of it may have gone out.
    pub fn take_back(&mut self) -> bool {
        // a write that was begun has taken it, whatever became of it
        let unsent = self.wire_bytes == 0 && self.out.take().is_some();
        if unsent {
            self.encoder = BodyEncoder::Finished;
            self.body_bytes = 0;
        }
        unsent
    }

    /// Bytes of body sent so far, without framing.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Bytes on the wire so far, heads and framing included.
    pub fn wire_bytes(&self) -> u64 {
        self.wire_bytes
    }

    /// As [`H1Writer::wire_bytes`], of a write that broke off what went out. A piece that TLS could not send whole is
    /// none of it: who gets half a record gets nothing.
    pub fn sent_bytes(&self) -> u64 {
        self.conn.sent().map_or(self.wire_bytes, |sent| sent - self.sent_before)
    }

    /// Sends a piece. With `last` it may wait for [`H1Writer::finish`].
    pub async fn data(&mut self, mut buf: Buf, last: bool) -> io::Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        self.body_bytes += buf.len() as u64;
        let header = self.encoder.begin_chunk(buf.len()).map_err(io::Error::other)?;
        let end = self.encoder.chunk_end();
        if !end.is_empty() {
            // the framing goes into the buffer's own head- and tailroom: no byte moves
            let full = || io::Error::other("buffer without room for chunk framing");
            buf.grow_front(header.as_bytes().len()).ok_or_else(full)?[..header.as_bytes().len()]
                .copy_from_slice(header.as_bytes());
            buf.grow_back(end.len()).ok_or_else(full)?.copy_from_slice(end);
        }
        match self.out.take() {
            Some(mut out) if buf.len() <= JOINED_BYTES_MAX && out.spare_len() >= buf.len() + FRAMING_ROOM => {
                out.extend_from_slice(buf.filled());
                self.out = Some(out);
                if last { Ok(()) } else { self.flush().await }
            }
            Some(out) => {
                let bytes = out.len() + buf.len();
                let sent = self.conn.write_all_pair(out, buf).await.0;
                self.count(bytes, sent)
            }
            None if last && !end.is_empty() => {
                self.out = Some(buf);
                Ok(())
            }
            None => {
                let bytes = buf.len();
                let sent = self.conn.write_all(buf).await.0;
                self.count(bytes, sent)
            }
        }
    }

    /// Ends the message and sends what waits.
    pub async fn finish(&mut self, state: &CoreState, trailers: &Fields) -> io::Result<()> {
        let room = FRAMING_ROOM + trailers.total_bytes() + trailers.count() * 4;
        if self.encoder.is_finished() {
            return self.flush().await;
        }
        if self.out.as_ref().is_some_and(|out| out.spare_len() < room) {
            self.flush().await?;
        }
        let mut out = self.out.take().unwrap_or_else(|| match room > state.core.buffers().buffer_bytes() {
            true => state.core.buffers().take_sized(room),
            false => state.buffer(),
        });
        write_into(&mut out, |sink| self.encoder.finish(Some(trailers), sink)).map_err(io::Error::other)?;
        self.out = Some(out);
        self.flush().await
    }

    pub async fn flush(&mut self) -> io::Result<()> {
        match self.out.take() {
            Some(out) if !out.is_empty() => {
                let bytes = out.len();
                let sent = self.conn.write_all(out).await.0;
                self.count(bytes, sent)
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, bytes: usize, sent: io::Result<()>) -> io::Result<()> {
        if sent.is_ok() {
            self.wire_bytes += bytes as u64;
        }
        sent
    }
}

/// Appends to a buffer what `write` puts into its spare room.
pub(crate) fn write_into<E>(
    buf: &mut Buf,
    write: impl FnOnce(&mut SliceSink<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut sink = SliceSink::new(buf.spare_mut());
    write(&mut sink)?;
    let filled = sink.filled();
    buf.commit(filled);
    Ok(())
}
