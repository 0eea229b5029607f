//! The reading half: records from the socket into the caller's buffer.
use std::io;

use corelane_runtime::Buf;
use corelane_runtime::net::PeerState;

use super::{ReadSide, Reading, TlsStream, Turn};
use crate::error::TlsError;
use crate::establish::next_record;
use crate::handshake::Session;
use crate::inplace::{InPlace, Received};
use crate::record::{HEADER_BYTES, Opener, record_bytes};

impl TlsStream {
    /// Appends at least one byte of data to the buffer's spare room; 0 bytes is the peer's close_notify. An empty
    /// buffer that is too small for a record may come back as another, larger one.
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
        let result = self.read_into(&mut slot).await;
        let buf = slot.unwrap_or_else(|| self.tls.core().buffers().take());
        match result {
            Ok(()) => (Ok(buf.len() - before.min(buf.len())), buf),
            Err(error) => (Err(error.into_io()), buf),
        }
    }

    /// Waits without a buffer, then reads into one of the core's. It is empty at the peer's close_notify.
    ///
    /// # Errors
    /// As [`TlsStream::read`].
    pub async fn read_parking(&self) -> io::Result<Buf> {
        let mut slot = None;
        self.read_into(&mut slot).await.map_err(TlsError::into_io)?;
        Ok(slot.unwrap_or_else(|| self.tls.core().buffers().take()))
    }

    /// Waits, without a buffer, until a read has something to do: data, a record of the protocol's own, the end. May
    /// be dropped without loss.
    pub async fn readable(&self) -> io::Result<()> {
        if self.has_buffered_input() {
            return Ok(());
        }
        self.tcp.readable().await
    }

    /// Whether a read has something to do before it asks the socket.
    fn has_buffered_input(&self) -> bool {
        let reading = self.reading.borrow();
        reading.plain.is_some()
            || reading.failure.is_some()
            || reading.intake.is_ready()
            || self.read_side.get() != ReadSide::Open
            || matches!(&self.session, Session::Unbuffered(session) if session.waiting() > 0)
    }

    async fn read_into(&self, slot: &mut Option<Buf>) -> Result<(), TlsError> {
        match self.read_side.get() {
            ReadSide::Open => {}
            ReadSide::Closed => return Ok(()),
            ReadSide::Busy | ReadSide::Broken => return Err(TlsError::Broken),
        }
        self.read_side.set(ReadSide::Busy);
        let mut turn = Turn { side: &self.read_side, after: ReadSide::Broken };
        // the state moves out, so that nothing is borrowed while the socket is waited for
        let mut reading = self.reading.take();
        let result = self.read_turn(&mut reading, slot).await;
        match &result {
            Ok(side) => turn.after = *side,
            Err(error) => self.answer(error),
        }
        self.reading.replace(reading);
        result.map(|_| ())
    }

    async fn read_turn(&self, reading: &mut Reading, slot: &mut Option<Buf>) -> Result<ReadSide, TlsError> {
        if let Some(failure) = reading.failure.take() {
            return Err(failure);
        }
        if let Session::Unbuffered(session) = &self.session {
            loop {
                if session.waiting() > 0 {
                    let buf = slot.get_or_insert_with(|| self.tls.core().buffers().take());
                    let n = session.take_plain(buf.spare_mut());
                    buf.commit(n);
                    self.tls.count(|stats| stats.payload_bytes_copied += n as u64);
                    return Ok(ReadSide::Open);
                }
                if session.is_finished() {
                    return Ok(ReadSide::Closed);
                }
                let mut record = match next_record(&self.tls, &self.tcp, &mut reading.intake).await {
                    Ok(record) => record,
                    Err(error) => {
                        // rustls must see the header that we refuse, to answer it
                        if let Some(header) = reading.intake.next_header() {
                            session.feed(&mut header.clone())?;
                        }
                        return Err(error);
                    }
                };
                self.tls.count(|stats| stats.records_opened += 1);
                session.feed(record.filled_mut())?;
                self.flush_at_once();
            }
        }
        let Session::InPlace(session) = &self.session else { return Err(TlsError::Broken) };
        if let Some(plain) = reading.plain.take() {
            self.deliver(reading, plain, slot);
            return Ok(ReadSide::Open);
        }
        let parks = slot.is_none();
        let mut record = next_record(&self.tls, &self.tcp, &mut reading.intake).await?;
        loop {
            match self.open(session, reading, record, slot)? {
                Received::Closed => return Ok(ReadSide::Closed),
                Received::Data(_) => break,
                Received::Control => {
                    // back to waiting, without a buffer of the pool
                    slot.take_if(|_| parks);
                    record = next_record(&self.tls, &self.tcp, &mut reading.intake).await?;
                }
            }
        }
        match self.read_ahead(session, reading, slot) {
            Err(failure) => {
                self.answer(&failure);
                reading.failure = Some(failure);
                Ok(ReadSide::Open)
            }
            side => side,
        }
    }

    /// Takes further records that have arrived and fit, so that many small ones cost one wake-up.
    fn read_ahead(
        &self,
        session: &InPlace,
        reading: &mut Reading,
        slot: &mut Option<Buf>,
    ) -> Result<ReadSide, TlsError> {
        while let (Some(header), Some(buf)) = (reading.intake.next_header(), slot.as_ref()) {
            // an offence is answered when it is the next thing to read
            let Ok(len) = record_bytes(header, true) else { break };
            if Opener::inner_bytes(len) > buf.spare_len() {
                break;
            }
            let Some(record) = self.try_next_record(reading)? else { break };
            if self.open(session, reading, record, slot)? == Received::Closed {
                return Ok(ReadSide::Closed);
            }
        }
        Ok(ReadSide::Open)
    }

    /// The next record if it has arrived whole.
    fn try_next_record(&self, reading: &mut Reading) -> Result<Option<Buf>, TlsError> {
        loop {
            let intake = &mut reading.intake;
            let mut buf = intake.prepare(&self.tls.headers, self.tls.core().buffers())?;
            if intake.fill_from_preload(&mut buf) == 0 {
                match self.tcp.try_read(&mut buf) {
                    Ok(0) => {
                        intake.accept(buf);
                        return Ok(None);
                    }
                    Ok(_) => {}
                    Err(error) => {
                        intake.accept(buf);
                        let waits = error.kind() == io::ErrorKind::WouldBlock;
                        return if waits { Ok(None) } else { Err(error.into()) };
                    }
                }
            }
            if let Some(record) = intake.accept(buf) {
                return Ok(Some(record));
            }
        }
    }

    /// Opens one record, into the caller's buffer if it fits there, else where it lies.
    fn open(
        &self,
        session: &InPlace,
        reading: &mut Reading,
        mut record: Buf,
        slot: &mut Option<Buf>,
    ) -> Result<Received, TlsError> {
        self.tls.count(|stats| stats.records_opened += 1);
        let inner = Opener::inner_bytes(record.len());
        let buf = slot.get_or_insert_with(|| self.tls.core().buffers().take());
        let (start, end) = buf.range();
        let room = buf.spare_len();
        buf.open_tailroom();
        // the contents must fit into the payload, the byte of their type may lie behind it
        let fits = inner <= room + 1 && inner <= buf.spare_len();
        let received = if fits {
            let room = buf.spare_mut().get_mut(..inner).unwrap_or_default();
            session.open_into(record.filled(), room)
        } else {
            session.open_in_place(record.filled_mut())
        };
        // closes the tailroom again: the next hop's record needs it
        buf.clear();
        let mut refill = buf.set_filled(start, end);
        let received = received?;
        if let Received::Data(n) = received {
            if fits {
                refill &= buf.set_filled(start, end + n);
            } else {
                let (start, _) = record.range();
                refill &= record.set_filled(start + HEADER_BYTES, start + HEADER_BYTES + n);
                self.deliver(reading, record, slot);
            }
        }
        if refill { Ok(received) } else { Err(TlsError::Broken) }
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
            match (self.tcp.peer_state(), reading.intake.is_idle()) {
                (PeerState::Quiet, true) => return PeerState::Quiet,
                (PeerState::Quiet, false) => return PeerState::Readable,
                (PeerState::Closed, _) => return PeerState::Closed,
                (PeerState::Readable, _) => {}
            }
            let mut record = match self.try_next_record(reading) {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                Err(_) => return self.idle_side(ReadSide::Broken),
            };
            let mut slot = None;
            let opened = match &self.session {
                Session::InPlace(session) => self.open(session, reading, record, &mut slot),
                Session::Unbuffered(session) => session.feed(record.filled_mut()).map(|()| {
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
