//! The reading half: records from the socket into the caller's buffer.
use std::io;
use std::time::Duration;

use corelane_runtime::Buf;
use corelane_runtime::net::PeerState;

use super::{ReadSide, Reading, TlsStream, Turn};
use crate::error::TlsError;
use crate::establish::{fill, try_fill};
use crate::handshake::Session;
use crate::inplace::{InPlace, Received};
use crate::intake::Intake;
use crate::record::{HEADER_BYTES, Opener};
use crate::unbuffered::Unbuffered;

/// What to do while no record has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Otherwise {
    Wait,
    Return,
}

impl TlsStream {
    /// Appends at least one byte of data to the buffer's spare room; 0 bytes is the peer's close_notify. An empty
    /// buffer may come back as another one, not smaller, in which a record was opened.
    ///
    /// # Errors
    /// [`TlsError::of`] tells which: [`TlsError::Truncated`] at the end of a connection without close_notify,
    /// [`TlsError::PeerMisbehaved`] after bad records, which have been answered with their alert.
    pub async fn read(&self, buf: Buf) -> (io::Result<usize>, Buf) {
        if buf.spare_len() == 0 {
            return (Err(TlsError::NoRoom.into_io()), buf);
        }
        let before = buf.len();
        let mut slot = Some(buf);
        let result = self.read_into(&mut slot, Otherwise::Wait).await;
        let buf = slot.unwrap_or_else(|| self.tls.core().buffers().take());
        match result {
            Ok(()) => (Ok(buf.len() - before.min(buf.len())), buf),
            Err(error) => (Err(error.into_io()), buf),
        }
    }

    /// Reads into a buffer of the core's, which is given back while the connection is idle: after `idle_after`
    /// without bytes only readiness is awaited. An empty buffer is the peer's close_notify.
    ///
    /// # Errors
    /// As [`TlsStream::read`].
    pub async fn read_parking(&self, idle_after: Duration) -> io::Result<Buf> {
        let mut slot = None;
        // waits here and not further inside, because the future of a parked connection should be small
        while self.read_side.get() != ReadSide::Closed {
            if self.is_idle() {
                self.read_side.set(ReadSide::Busy);
                let turn = Turn { side: &self.read_side, after: ReadSide::Broken };
                let arrived = self.tcp.read_parking(self.tls.core(), idle_after).await?;
                self.arrived(turn, arrived)?;
            }
            self.read_into(&mut slot, Otherwise::Return).await.map_err(TlsError::into_io)?;
            if let Some(buf) = slot {
                return Ok(buf);
            }
        }
        Ok(self.tls.core().buffers().take())
    }

    fn arrived(&self, mut turn: Turn<'_, ReadSide>, buf: Buf) -> io::Result<()> {
        if buf.is_empty() {
            self.answer(&TlsError::Truncated);
            return Err(TlsError::Truncated.into_io());
        }
        self.reading.borrow_mut().intake.accept(buf);
        turn.after = ReadSide::Open;
        Ok(())
    }

    /// Whether a read can only wait for the beginning of a record.
    fn is_idle(&self) -> bool {
        let reading = self.reading.borrow();
        !self.holds_input(&reading) && !reading.intake.expects_more()
    }

    /// Waits, without a buffer, until a read has something to do: data, a record of the protocol's own, the end. May
    /// be dropped without loss.
    pub async fn readable(&self) -> io::Result<()> {
        if self.holds_input(&self.reading.borrow()) {
            return Ok(());
        }
        self.tcp.readable().await
    }

    /// Whether a read has something to do before it asks the socket.
    fn holds_input(&self, reading: &Reading) -> bool {
        reading.plain.is_some()
            || reading.failure.is_some()
            || !matches!(reading.intake.whole(), Ok(None))
            || self.read_side.get() != ReadSide::Open
            || matches!(&self.session, Session::Unbuffered(session) if session.waiting() > 0 || session.is_finished())
    }

    async fn read_into(&self, slot: &mut Option<Buf>, otherwise: Otherwise) -> Result<(), TlsError> {
        match self.read_side.get() {
            ReadSide::Open => {}
            ReadSide::Closed => return Ok(()),
            ReadSide::Busy | ReadSide::Broken => return Err(TlsError::Broken),
        }
        self.read_side.set(ReadSide::Busy);
        let mut turn = Turn { side: &self.read_side, after: ReadSide::Broken };
        // the state moves out, so that nothing is borrowed while the socket is waited for
        let mut reading = self.reading.take();
        let result = self.read_turn(&mut reading, slot, otherwise).await;
        match &result {
            Ok(side) => turn.after = *side,
            Err(error) => self.answer(error),
        }
        if turn.after != ReadSide::Open {
            // nothing behind the end is ever opened
            reading.intake = Intake::default();
        }
        self.reading.replace(reading);
        result.map(|_| ())
    }

    async fn read_turn(
        &self,
        reading: &mut Reading,
        slot: &mut Option<Buf>,
        otherwise: Otherwise,
    ) -> Result<ReadSide, TlsError> {
        if let Some(failure) = reading.failure.take() {
            return Err(failure);
        }
        if let Some(plain) = reading.plain.take() {
            self.deliver(reading, plain, slot);
            return Ok(ReadSide::Open);
        }
        loop {
            let opened = match &self.session {
                Session::InPlace(session) => self.open_arrived(session, reading, slot)?,
                Session::Unbuffered(session) => self.feed_arrived(session, reading, slot)?,
            };
            if let Some(side) = opened {
                return Ok(side);
            }
            if otherwise == Otherwise::Return && !reading.intake.expects_more() {
                return Ok(ReadSide::Open);
            }
            let core = self.tls.core();
            // a caller with room for several records gets them in one buffer, received in another
            let bulk = slot.as_ref().is_some_and(|buf| buf.capacity() > core.buffers().buffer_bytes());
            let pool = if bulk { core.bulk() } else { None };
            let own = self.lend(reading, slot);
            fill(&self.tls, &self.tcp, &mut reading.intake, own, pool.unwrap_or(core.buffers())).await?;
        }
    }

    /// The caller's own buffer to receive into, where a record can then be opened in place. What comes back in its stead
    /// may be an ordinary one, so a larger one is not lent.
    fn lend(&self, reading: &Reading, slot: &mut Option<Buf>) -> Option<Buf> {
        if reading.intake.expects_more() || !self.is_in_place() {
            return None;
        }
        let ordinary = self.tls.core().buffers().buffer_bytes();
        slot.take_if(|buf| buf.is_empty() && buf.capacity() == ordinary)
    }

    /// Opens the records that have arrived whole, as many as the caller's buffer takes; `None` when there was no data.
    fn open_arrived(
        &self,
        session: &InPlace,
        reading: &mut Reading,
        slot: &mut Option<Buf>,
    ) -> Result<Option<ReadSide>, TlsError> {
        let mut delivered = false;
        loop {
            let len = match reading.intake.whole() {
                Ok(Some(len)) => len,
                // an offence is answered when it is the next thing to read
                Err(offence) if !delivered => return Err(offence.into()),
                Ok(None) | Err(_) => break,
            };
            let takes = |buf: &Buf| takes(buf, Opener::inner_bytes(len));
            if delivered && (reading.plain.is_some() || !slot.as_ref().is_some_and(takes)) {
                break;
            }
            match self.open(session, reading, len, slot) {
                Ok(Received::Control) => {}
                Ok(Received::Data(_)) => delivered = true,
                Ok(Received::Closed) => return Ok(Some(ReadSide::Closed)),
                Err(failure) if delivered => {
                    self.answer(&failure);
                    reading.failure = Some(failure);
                    break;
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(delivered.then_some(ReadSide::Open))
    }

    /// The same through rustls, which keeps what it decrypts.
    fn feed_arrived(
        &self,
        session: &Unbuffered,
        reading: &mut Reading,
        slot: &mut Option<Buf>,
    ) -> Result<Option<ReadSide>, TlsError> {
        loop {
            if session.waiting() > 0 {
                let buf = slot.get_or_insert_with(|| self.tls.core().buffers().take());
                let n = session.take_plain(buf.spare_mut());
                buf.commit(n);
                self.tls.count(|stats| stats.payload_bytes_copied += n as u64);
                return Ok(Some(ReadSide::Open));
            }
            if session.is_finished() {
                return Ok(Some(ReadSide::Closed));
            }
            match reading.intake.whole() {
                Ok(None) => return Ok(None),
                Ok(Some(len)) => {
                    self.feed(session, reading, len)?;
                    self.flush_at_once();
                }
                Err(offence) => {
                    // rustls must see the header that we refuse, to answer it
                    if let Some(header) = reading.intake.next_header() {
                        session.feed(&mut header.clone())?;
                    }
                    return Err(offence.into());
                }
            }
        }
    }

    fn feed(&self, session: &Unbuffered, reading: &mut Reading, len: usize) -> Result<(), TlsError> {
        self.tls.count(|stats| stats.records_opened += 1);
        let fed = session.feed(reading.intake.record(len));
        reading.intake.consume(len);
        fed
    }

    /// Opens the next record, of `len` bytes: where it lies if the buffer can be handed on with it, else into the
    /// caller's buffer or a fresh one.
    fn open(
        &self,
        session: &InPlace,
        reading: &mut Reading,
        len: usize,
        slot: &mut Option<Buf>,
    ) -> Result<Received, TlsError> {
        self.tls.count(|stats| stats.records_opened += 1);
        let inner = Opener::inner_bytes(len);
        let held = slot.as_ref().map_or(0, Buf::len);
        let room = slot.as_mut().filter(|buf| takes(buf, inner));
        if (held == 0 || room.is_none())
            && let Some(record) = reading.intake.take_sole(len, slot.as_ref().map_or(0, Buf::capacity))
        {
            let (received, plain) = open_where_it_lies(session, record)?;
            if let Received::Data(_) = received {
                self.deliver(reading, plain, slot);
            }
            return Ok(received);
        }
        let received = if let Some(buf) = slot.as_mut().filter(|buf| takes(buf, inner)) {
            open_behind(session, reading.intake.record(len), buf)?
        } else {
            let mut plain = self.tls.core().buffers().take_sized(inner);
            let received = open_behind(session, reading.intake.record(len), &mut plain)?;
            if let Received::Data(_) = received {
                self.deliver(reading, plain, slot);
            }
            received
        };
        reading.intake.consume(len);
        Ok(received)
    }

    /// Hands decrypted bytes over with the buffer they are in. When the caller holds something already, the shorter of
    /// the two is copied to the other, so that the rest of a frame that began in the last record costs little.
    fn deliver(&self, reading: &mut Reading, mut plain: Buf, slot: &mut Option<Buf>) {
        if let Some(buf) = slot.as_mut().filter(|buf| !buf.is_empty()) {
            let held = buf.len();
            let front = if held < plain.len() { plain.grow_front(held) } else { None };
            if let Some(front) = front {
                front.copy_from_slice(buf.filled());
                self.tls.count(|stats| stats.payload_bytes_copied += held as u64);
            } else {
                let n = buf.extend_from_slice(plain.filled());
                plain.advance(n);
                self.tls.count(|stats| stats.payload_bytes_copied += n as u64);
                reading.plain = Some(plain).filter(|plain| !plain.is_empty());
                return;
            }
        }
        *slot = Some(plain);
    }

    /// What an idle connection looks like. Records of the protocol's own, such as session tickets, are taken on the
    /// way; data stays for the next read.
    pub fn peer_state(&self) -> PeerState {
        match self.read_side.get() {
            ReadSide::Open => {}
            ReadSide::Closed | ReadSide::Busy | ReadSide::Broken => return PeerState::Closed,
        }
        let mut reading = self.reading.take();
        let state = self.drain_control(&mut reading);
        self.reading.replace(reading);
        state
    }

    fn drain_control(&self, reading: &mut Reading) -> PeerState {
        if reading.plain.is_some() || reading.failure.is_some() {
            return PeerState::Readable;
        }
        loop {
            let len = match reading.intake.whole() {
                Ok(Some(len)) => len,
                Ok(None) => match (self.tcp.peer_state(), reading.intake.is_idle()) {
                    (PeerState::Quiet, true) => return PeerState::Quiet,
                    (PeerState::Quiet, false) => return PeerState::Readable,
                    (PeerState::Closed, _) => return PeerState::Closed,
                    (PeerState::Readable, _) => match try_fill(&self.tls, &self.tcp, &mut reading.intake) {
                        Ok(_) => continue,
                        Err(_) => return self.idle_side(ReadSide::Broken),
                    },
                },
                Err(_) => return self.idle_side(ReadSide::Broken),
            };
            let mut slot = None;
            let opened = match &self.session {
                Session::InPlace(session) => self.open(session, reading, len, &mut slot),
                Session::Unbuffered(session) => self.feed(session, reading, len).map(|()| {
                    if session.is_finished() { Received::Closed } else { Received::Data(session.waiting()) }
                }),
            };
            match opened {
                Ok(Received::Control | Received::Data(0)) => {}
                Ok(Received::Data(_)) => {
                    reading.plain = slot;
                    return PeerState::Readable;
                }
                Ok(Received::Closed) => return self.idle_side(ReadSide::Closed),
                Err(error) => {
                    self.answer(&error);
                    return self.idle_side(ReadSide::Broken);
                }
            }
        }
    }

    fn idle_side(&self, side: ReadSide) -> PeerState {
        self.read_side.set(side);
        PeerState::Closed
    }
}

/// Whether a record's insides can be opened behind what the buffer holds: the contents must fit into the payload, the
/// byte of their type may lie behind it.
fn takes(buf: &Buf, inner: usize) -> bool {
    inner <= buf.spare_len() + 1 && inner <= buf.back_len()
}

/// Opens a record behind what `buf` holds; the cipher moves the bytes.
fn open_behind(session: &InPlace, record: &[u8], buf: &mut Buf) -> Result<Received, TlsError> {
    let (start, end) = buf.range();
    buf.open_tailroom();
    let room = buf.spare_mut().get_mut(..Opener::inner_bytes(record.len())).unwrap_or_default();
    let received = session.open_into(record, room);
    // closes the tailroom again: the next hop's record needs it
    buf.clear();
    let end = if let Ok(Received::Data(n)) = received { end + n } else { end };
    if buf.set_filled(start, end) { received } else { Err(TlsError::Broken) }
}

/// Opens the one record that `buf` holds; the buffer then holds its contents.
fn open_where_it_lies(session: &InPlace, mut buf: Buf) -> Result<(Received, Buf), TlsError> {
    let received = session.open_in_place(buf.filled_mut())?;
    let start = buf.range().0 + HEADER_BYTES;
    buf.clear();
    let end = if let Received::Data(n) = received { start + n } else { start };
    if buf.set_filled(start, end) { Ok((received, buf)) } else { Err(TlsError::Broken) }
}
