//! The writing half: records around the caller's bytes, and what must be said between them.
use std::io;

use corelane_runtime::Buf;
use rustls::AlertDescription;

use super::{TlsStream, Turn, WriteSide};
use crate::error::TlsError;
use crate::handshake::Session;
use crate::inplace::InPlace;
use crate::record::{CONTENT_BYTES_MAX, HEADER_BYTES, TRAILER_BYTES};

impl TlsStream {
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
        let shutdown = match self.tcp.shutdown_write() {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other,
        };
        result.map_err(TlsError::into_io).and(shutdown)
    }

    /// Tells the peer by an alert what a failed read was about.
    pub(super) fn answer(&self, error: &TlsError) {
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
    pub(super) fn flush_at_once(&self) {
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

    /// Sends borrowed bytes: the cipher moves them into the core's buffers, as many records to a system call as one
    /// of those takes.
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
        let mut rest = bytes;
        while !rest.is_empty() {
            self.send_before_data().await?;
            let records = self.seal_from(session, &mut rest)?;
            self.tcp.write_all(records).await.0?;
        }
        Ok(())
    }

    /// Seals as much off the front of `rest` as one buffer takes.
    fn seal_from(&self, session: &InPlace, rest: &mut &[u8]) -> Result<Buf, TlsError> {
        let core = self.tls.core();
        let ordinary = core.buffers();
        let pool =
            if rest.len() > ordinary.buffer_bytes() { core.bulk().unwrap_or(ordinary) } else { ordinary };
        let mut records = pool.take();
        let room = records.front_len() + records.back_len();
        let mut end = 0;
        while !rest.is_empty() {
            let wanted = rest.len().min(CONTENT_BYTES_MAX);
            let len = wanted.min((room - end).saturating_sub(HEADER_BYTES + TRAILER_BYTES));
            // no small record for the sake of the last bytes of room
            if len == 0 || (len < wanted && end > 0) {
                break;
            }
            let (contents, after) = rest.split_at(len);
            let start = end;
            end += HEADER_BYTES + len + TRAILER_BYTES;
            if !records.set_filled(start, end) {
                return Err(TlsError::Broken);
            }
            session.seal_into(contents, records.filled_mut())?;
            self.tls.count(|stats| stats.records_sealed += 1);
            *rest = after;
        }
        if records.set_filled(0, end) { Ok(records) } else { Err(TlsError::Broken) }
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
