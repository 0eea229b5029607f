//! An established connection over a socket, with the same methods as the socket's own stream.
use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use corelane_runtime::Buf;
use corelane_runtime::net::{PeerState, TcpStream};
use rustls::AlertDescription;

use crate::core::TlsCore;
use crate::error::TlsError;
use crate::establish::next_record;
use crate::handshake::{Negotiated, Session};
use crate::inplace::{InPlace, Received};
use crate::intake::Intake;
use crate::peer::PeerIdentity;
use crate::record::{CONTENT_BYTES_MAX, HEADER_BYTES, Opener, TRAILER_BYTES, record_bytes};
use crate::suites::TlsVersion;

/// What the reading side has, when nobody reads.
#[derive(Default)]
struct Reading {
    intake: Intake,
    /// A whole record that found no room.
    record: Option<Buf>,
    /// Decrypted bytes that found no room.
    plain: Option<Buf>,
    /// What came to light behind data that was delivered first.
    failure: Option<TlsError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadSide {
    Open,
    /// Somebody reads; seen by somebody else, that read was abandoned.
    Busy,
    /// close_notify came.
    Closed,
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteSide {
    Open,
    /// Bytes of ours are on their way; nothing may come between them.
    Busy,
    /// We said close_notify, or a fatal alert.
    Closed,
    Broken,
}

/// A TLS connection. Methods take `&self`: one task may read while another writes.
///
/// Invariant: at most one read and at most one write are pending at a time. A read or a write that is dropped half
/// way leaves the stream unusable in that direction, and says so; [`TlsStream::readable`] may be dropped freely.
pub struct TlsStream {
    tcp: TcpStream,
    tls: Rc<TlsCore>,
    session: Session,
    negotiated: Negotiated,
    reading: RefCell<Reading>,
    read_side: Cell<ReadSide>,
    write_side: Cell<WriteSide>,
    /// To be sent when the writer is done.
    alert: Cell<Option<AlertDescription>>,
}

/// Leaves the direction broken unless the operation came to its end.
struct Turn<'a, T: Copy> {
    side: &'a Cell<T>,
    after: T,
}

impl<T: Copy> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        self.side.set(self.after);
    }
}

impl TlsStream {
    pub(crate) fn new(
        tls: Rc<TlsCore>,
        tcp: TcpStream,
        session: Session,
        negotiated: Negotiated,
        mut intake: Intake,
    ) -> Self {
        intake.protected = matches!(session, Session::InPlace(_));
        Self {
            tcp,
            tls,
            session,
            negotiated,
            reading: RefCell::new(Reading { intake, ..Reading::default() }),
            read_side: Cell::new(ReadSide::Open),
            write_side: Cell::new(WriteSide::Open),
            alert: Cell::new(None),
        }
    }

    /// Who is on the other side; `None` when it presented no certificate. To keep it: `negotiated().peer`.
    pub fn peer(&self) -> Option<&PeerIdentity> {
        self.negotiated.peer.as_deref()
    }

    pub fn alpn(&self) -> Option<&[u8]> {
        self.negotiated.alpn.as_deref()
    }

    /// The server name that the client asked for.
    pub fn sni(&self) -> Option<&str> {
        self.negotiated.sni.as_deref()
    }

    pub fn version(&self) -> TlsVersion {
        self.negotiated.version
    }

    /// OpenSSL's name.
    pub fn cipher(&self) -> &'static str {
        self.negotiated.cipher
    }

    pub fn resumed(&self) -> bool {
        self.negotiated.resumed
    }

    /// All that was agreed; cheap to clone.
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// Whether records are opened and sealed in place.
    pub fn is_in_place(&self) -> bool {
        matches!(self.session, Session::InPlace(_))
    }

    /// Key updates sent and received; counted on the in-place path.
    pub fn key_updates(&self) -> (u64, u64) {
        match &self.session {
            Session::InPlace(session) => session.key_updates(),
            Session::Unbuffered(_) => (0, 0),
        }
    }

    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.peer_addr()
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

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

    /// Whether a read would find something without waiting for the socket.
    fn has_buffered_input(&self) -> bool {
        let reading = self.reading.borrow();
        reading.plain.is_some()
            || reading.record.is_some()
            || reading.failure.is_some()
            || !reading.intake.is_idle()
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
                let mut record = next_record(&self.tls, &self.tcp, &mut reading.intake).await?;
                self.tls.count(|stats| stats.records_opened += 1);
                session.feed(record.filled_mut())?;
                self.flush_at_once();
            }
        }
        let Session::InPlace(session) = &self.session else { return Err(TlsError::Broken) };
        if let Some(plain) = reading.plain.take() {
            return self.deliver(reading, plain, slot).map(|()| ReadSide::Open);
        }
        let parks = slot.is_none();
        let mut record = match reading.record.take() {
            Some(record) => record,
            None => next_record(&self.tls, &self.tcp, &mut reading.intake).await?,
        };
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
                self.deliver(reading, record, slot)?;
            }
        }
        if refill { Ok(received) } else { Err(TlsError::Broken) }
    }

    /// Hands decrypted bytes over with the buffer they are in; copies them only behind what the caller holds.
    fn deliver(&self, reading: &mut Reading, mut plain: Buf, slot: &mut Option<Buf>) -> Result<(), TlsError> {
        match slot {
            Some(buf) if !buf.is_empty() => {
                let n = buf.extend_from_slice(plain.filled());
                plain.advance(n);
                self.tls.count(|stats| stats.payload_bytes_copied += n as u64);
                if !plain.is_empty() {
                    reading.plain = Some(plain);
                }
                Ok(())
            }
            _ => {
                *slot = Some(plain);
                Ok(())
            }
        }
    }

    /// Tells the peer by an alert what a failed read was about.
    fn answer(&self, error: &TlsError) {
        match (error, &self.session) {
            (_, Session::Unbuffered(_)) => self.flush_at_once(),
            (TlsError::PeerMisbehaved { alert, .. }, _) => self.send_alert(*alert),
            _ => {}
        }
    }

    /// Sends a fatal alert as far as the socket takes it at once; a peer that does not read loses it.
    fn send_alert(&self, alert: AlertDescription) {
        match (self.write_side.get(), &self.session) {
            (WriteSide::Busy, _) => self.alert.set(Some(alert)),
            (WriteSide::Open, Session::InPlace(session)) => {
                if let Ok(record) = session.alert(alert) {
                    // the connection ends with it, so a part that is not sent harms nothing
                    let _ = self.tcp.try_write(&record);
                }
                self.write_side.set(WriteSide::Closed);
            }
            _ => {}
        }
    }

    /// Sends what rustls wants to say, unless the writer is at it: then the writer will.
    fn flush_at_once(&self) {
        let Session::Unbuffered(session) = &self.session else { return };
        if self.write_side.get() != WriteSide::Open {
            return;
        }
        let mut out = session.out();
        if !out.is_empty()
            && let Ok(sent) = self.tcp.try_write(&out)
        {
            out.drain(..sent);
        }
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
        if reading.plain.is_some() || reading.record.is_some() || reading.failure.is_some() {
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

    /// Sends all filled bytes. The buffer's memory becomes the records, so it comes back empty.
    ///
    /// # Errors
    /// [`TlsError::WriteClosed`] after [`TlsStream::shutdown_write`], otherwise the socket's.
    pub async fn write_all(&self, mut buf: Buf) -> (io::Result<()>, Buf) {
        if buf.is_empty() {
            return (Ok(()), buf);
        }
        let result = match self.begin_write() {
            Ok(turn) => {
                let (result, back) = self.write_one(buf).await;
                buf = back;
                self.end_write(turn, result)
            }
            Err(error) => Err(error),
        };
        buf.clear();
        (result.map_err(TlsError::into_io), buf)
    }

    /// Sends all of `head` and then all of `body`, in one system call where the socket takes it. Both come back
    /// empty.
    ///
    /// # Errors
    /// As [`TlsStream::write_all`].
    pub async fn write_all_pair(&self, mut head: Buf, mut body: Buf) -> (io::Result<()>, Buf, Buf) {
        let result = match self.begin_write() {
            Ok(turn) => {
                let (result, head_back, body_back) = self.write_two(head, body).await;
                (head, body) = (head_back, body_back);
                self.end_write(turn, result)
            }
            Err(error) => Err(error),
        };
        head.clear();
        body.clear();
        (result.map_err(TlsError::into_io), head, body)
    }

    /// Sends bytes that the caller keeps, such as a body that a retry may need again.
    ///
    /// # Errors
    /// As [`TlsStream::write_all`].
    pub async fn write_from(&self, bytes: &[u8]) -> io::Result<()> {
        let result = match self.begin_write() {
            Ok(turn) => {
                let result = self.write_copy(bytes).await;
                self.end_write(turn, result)
            }
            Err(error) => Err(error),
        };
        result.map_err(TlsError::into_io)
    }

    /// Replaces our traffic keys (TLS 1.3), and asks the peer to replace its own if `request`.
    ///
    /// # Errors
    /// As [`TlsStream::write_all`]; TLS 1.2 has no key update.
    pub async fn update_keys(&self, request: bool) -> io::Result<()> {
        let result = match self.begin_write() {
            Ok(turn) => {
                let result = match &self.session {
                    Session::InPlace(session) => match session.update_keys(request) {
                        Ok(record) => self.send(record).await,
                        Err(error) => Err(error),
                    },
                    Session::Unbuffered(session) => match session.update_keys() {
                        Ok(()) => self.flush().await,
                        Err(error) => Err(error),
                    },
                };
                self.end_write(turn, result)
            }
            Err(error) => Err(error),
        };
        result.map_err(TlsError::into_io)
    }

    /// Says close_notify and ends our side of the connection; reading goes on (RFC 8446 section 6.1).
    ///
    /// # Errors
    /// The socket's.
    pub async fn shutdown_write(&self) -> io::Result<()> {
        let result = match self.begin_write() {
            Ok(turn) => {
                let result = match &self.session {
                    Session::InPlace(session) => match session.alert(AlertDescription::CloseNotify) {
                        Ok(record) => self.send(record).await,
                        Err(error) => Err(error),
                    },
                    Session::Unbuffered(session) => match session.close_notify() {
                        Ok(()) => self.flush().await,
                        Err(error) => Err(error),
                    },
                };
                let result = self.end_write(turn, result);
                self.write_side.set(WriteSide::Closed);
                result
            }
            Err(TlsError::WriteClosed) => Ok(()),
            Err(error) => Err(error),
        };
        // the end of the TCP stream follows even when the alert could not be sent
        let shutdown = self.tcp.shutdown_write();
        result.map_err(TlsError::into_io).and(shutdown)
    }

    /// Ends the connection with RST, at once.
    pub fn reset(&self) {
        self.tcp.reset();
    }

    fn begin_write(&self) -> Result<Turn<'_, WriteSide>, TlsError> {
        match self.write_side.get() {
            WriteSide::Open => {
                self.write_side.set(WriteSide::Busy);
                Ok(Turn { side: &self.write_side, after: WriteSide::Broken })
            }
            WriteSide::Closed => Err(TlsError::WriteClosed),
            WriteSide::Busy | WriteSide::Broken => Err(TlsError::Broken),
        }
    }

    fn end_write(&self, mut turn: Turn<'_, WriteSide>, result: Result<(), TlsError>) -> Result<(), TlsError> {
        if result.is_ok() {
            turn.after = WriteSide::Open;
        }
        drop(turn);
        if let Some(alert) = self.alert.take() {
            self.send_alert(alert);
        }
        self.flush_at_once();
        result
    }

    async fn write_one(&self, mut buf: Buf) -> (Result<(), TlsError>, Buf) {
        if let Err(error) = self.send_before_data().await {
            return (Err(error), buf);
        }
        match self.seal(&mut buf) {
            Ok(true) => {
                let (result, buf) = self.tcp.write_all(buf).await;
                (result.map_err(TlsError::from), buf)
            }
            Ok(false) => (self.write_copy(buf.filled()).await, buf),
            Err(error) => (Err(error), buf),
        }
    }

    async fn write_two(&self, mut head: Buf, mut body: Buf) -> (Result<(), TlsError>, Buf, Buf) {
        if body.is_empty() || !fits_one_record(&head) || !fits_one_record(&body) || !self.is_in_place() {
            let mut result = Ok(());
            if !head.is_empty() {
                (result, head) = self.write_one(head).await;
            }
            if result.is_ok() && !body.is_empty() {
                (result, body) = self.write_one(body).await;
            }
            return (result, head, body);
        }
        if let Err(error) = self.send_before_data().await {
            return (Err(error), head, body);
        }
        // an empty head makes no record, and an empty buffer is nothing to the socket
        if let Err(error) = self.seal(&mut head).and_then(|_| self.seal(&mut body)) {
            return (Err(error), head, body);
        }
        let (result, head, body) = self.tcp.write_all_pair(head, body).await;
        (result.map_err(TlsError::from), head, body)
    }

    /// Turns the buffer's contents into a record around them; false when they do not fit one in place.
    fn seal(&self, buf: &mut Buf) -> Result<bool, TlsError> {
        let Session::InPlace(session) = &self.session else { return Ok(false) };
        if buf.is_empty() {
            return Ok(true);
        }
        if !fits_one_record(buf)
            || buf.grow_front(HEADER_BYTES).is_none()
            || buf.grow_back(TRAILER_BYTES).is_none()
        {
            return Ok(false);
        }
        self.tls.count(|stats| stats.records_sealed += 1);
        session.seal_in_place(buf.filled_mut()).map(|()| true)
    }

    /// Sends borrowed bytes: the cipher moves them into the core's buffers, two records to a system call.
    async fn write_copy(&self, bytes: &[u8]) -> Result<(), TlsError> {
        let session = match &self.session {
            Session::InPlace(session) => session,
            Session::Unbuffered(session) => {
                for chunk in bytes.chunks(CONTENT_BYTES_MAX) {
                    session.encrypt(chunk)?;
                    self.tls.count(|stats| stats.payload_bytes_copied += chunk.len() as u64);
                    self.flush().await?;
                }
                return Ok(());
            }
        };
        let size = self.tls.core().buffers().buffer_bytes().min(CONTENT_BYTES_MAX);
        for pair in bytes.chunks(2 * size) {
            self.send_before_data().await?;
            let (first, second) = pair.split_at(pair.len().min(size));
            let first = self.seal_from(session, first)?;
            if second.is_empty() {
                self.tcp.write_all(first).await.0?;
            } else {
                let second = self.seal_from(session, second)?;
                self.tcp.write_all_pair(first, second).await.0?;
            }
        }
        Ok(())
    }

    fn seal_from(&self, session: &InPlace, contents: &[u8]) -> Result<Buf, TlsError> {
        let mut record = self.tls.core().buffers().take();
        let (start, _) = record.range();
        let end = start + contents.len() + TRAILER_BYTES;
        if !record.set_filled(start - HEADER_BYTES, end) {
            return Err(TlsError::Broken);
        }
        self.tls.count(|stats| stats.records_sealed += 1);
        session.seal_into(contents, record.filled_mut())?;
        Ok(record)
    }

    async fn send_before_data(&self) -> Result<(), TlsError> {
        match &self.session {
            Session::InPlace(session) => match session.before_data()? {
                Some(record) => self.send(record).await,
                None => Ok(()),
            },
            Session::Unbuffered(_) => Ok(()),
        }
    }

    async fn send(&self, mut records: Vec<u8>) -> Result<(), TlsError> {
        crate::establish::send(&self.tls, &self.tcp, &mut records).await
    }

    /// Sends what the unbuffered session has put out.
    async fn flush(&self) -> Result<(), TlsError> {
        let Session::Unbuffered(session) = &self.session else { return Ok(()) };
        loop {
            let mut out = std::mem::take(&mut *session.out());
            if out.is_empty() {
                return Ok(());
            }
            crate::establish::send(&self.tls, &self.tcp, &mut out).await?;
        }
    }
}

fn fits_one_record(buf: &Buf) -> bool {
    buf.len() <= CONTENT_BYTES_MAX && buf.front_len() >= HEADER_BYTES && buf.back_len() >= TRAILER_BYTES
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("TlsStream")
            .field("tcp", &self.tcp)
            .field("version", &self.version())
            .field("cipher", &self.cipher())
            .finish_non_exhaustive()
    }
}
