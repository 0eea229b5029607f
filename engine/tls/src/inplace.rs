//! A TLS 1.3 connection after its handshake, sans-io: records in and out, and what the peer says between them.
//!
//! rustls keeps the key schedule ([`KernelConnection`]); the records are ours. The two directions meet in one place
//! only: a peer that asks for a key update is answered before our next record, as RFC 8446 section 4.6.3 wants it.
use std::cell::{Cell, RefCell};

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{AlertDescription, ConnectionTrafficSecrets, Error, ExtractedSecrets};

use crate::error::TlsError;
use crate::record::{
    ALERT, APPLICATION_DATA, DirectionKeys, HANDSHAKE, HEADER_BYTES, Offence, Opened, Opener, Sealer,
};
use crate::scope::{self, Facts};

/// Records without application data that a peer may send in a row; OpenSSL and BoringSSL bound them likewise.
pub const IDLE_RECORDS_MAX: u32 = 32;
/// One handshake message after the handshake. A ticket has two fields of up to 2^16 bytes; real ones have a few KiB.
pub const POST_HANDSHAKE_BYTES_MAX: usize = 64 * 1024;

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
const MESSAGE_HEADER: usize = 4;

/// The key schedule, whose sides differ in type and in whether tickets may come.
pub(crate) enum Schedule {
    Client(Box<KernelConnection<ClientConnectionData>>),
    Server(Box<KernelConnection<ServerConnectionData>>),
}

impl Schedule {
    fn next_tx(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Client(kernel) => kernel.update_tx_secret(),
            Self::Server(kernel) => kernel.update_tx_secret(),
        }
    }

    fn next_rx(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Client(kernel) => kernel.update_rx_secret(),
            Self::Server(kernel) => kernel.update_rx_secret(),
        }
    }
}

/// What one received record meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// Application data, this many bytes.
    Data(usize),
    /// Nothing for the caller.
    Control,
    /// close_notify: no more data will come.
    Closed,
}

struct Reading {
    opener: Opener,
    /// The beginning of a handshake message that spans records.
    partial: Vec<u8>,
    idle_records: u32,
}

/// See the module's head.
pub(crate) struct InPlace {
    reading: RefCell<Reading>,
    sealer: RefCell<Sealer>,
    schedule: RefCell<Schedule>,
    facts: RefCell<Facts>,
    /// The peer asked for a key update and has not got it yet.
    owes_key_update: Cell<bool>,
    key_updates_sent: Cell<u64>,
    key_updates_received: Cell<u64>,
}

impl InPlace {
    pub(crate) fn new(
        secrets: ExtractedSecrets,
        schedule: Schedule,
        facts: Facts,
        records_max: u64,
    ) -> Result<Self, TlsError> {
        let opener = Opener::new(DirectionKeys::new(secrets.rx)?);
        Ok(Self {
            reading: RefCell::new(Reading { opener, partial: Vec::new(), idle_records: 0 }),
            sealer: RefCell::new(Sealer::new(DirectionKeys::new(secrets.tx)?, records_max)),
            schedule: RefCell::new(schedule),
            facts: RefCell::new(facts),
            owes_key_update: Cell::new(false),
            key_updates_sent: Cell::new(0),
            key_updates_received: Cell::new(0),
        })
    }

    /// Key updates sent and received so far.
    pub(crate) fn key_updates(&self) -> (u64, u64) {
        (self.key_updates_sent.get(), self.key_updates_received.get())
    }

    /// Opens a record into the front of `out`.
    pub(crate) fn open_into(&self, record: &[u8], out: &mut [u8]) -> Result<Received, TlsError> {
        let mut reading = self.reading.borrow_mut();
        let opened = reading.opener.open_into(record, out)?;
        self.interpret(&mut reading, opened, out)
    }

    /// Opens a record where it lies; its contents then begin behind the header.
    pub(crate) fn open_in_place(&self, record: &mut [u8]) -> Result<Received, TlsError> {
        let mut reading = self.reading.borrow_mut();
        let opened = reading.opener.open_in_place(record)?;
        self.interpret(&mut reading, opened, record.get(HEADER_BYTES..).unwrap_or_default())
    }

    fn interpret(&self, reading: &mut Reading, opened: Opened, inner: &[u8]) -> Result<Received, TlsError> {
        let contents = inner.get(..opened.len).unwrap_or_default();
        if !reading.partial.is_empty() && opened.content_type != HANDSHAKE {
            // RFC 8446 5.1: "Handshake messages MUST NOT be interleaved with other record types."
            return Err(Offence::new(
                AlertDescription::UnexpectedMessage,
                "a record inside a handshake message",
            )
            .into());
        }
        if opened.content_type == APPLICATION_DATA && opened.len > 0 {
            reading.idle_records = 0;
            return Ok(Received::Data(opened.len));
        }
        reading.idle_records += 1;
        if reading.idle_records > IDLE_RECORDS_MAX {
            return Err(
                Offence::new(AlertDescription::UnexpectedMessage, "too many records without data").into()
            );
        }
        match opened.content_type {
            APPLICATION_DATA => Ok(Received::Control),
            ALERT => alert(contents),
            _ => self.handshake(reading, contents),
        }
    }

    /// Takes the handshake messages that a record brings (RFC 8446 section 4.6).
    fn handshake(&self, reading: &mut Reading, contents: &[u8]) -> Result<Received, TlsError> {
        let mut messages = std::mem::take(&mut reading.partial);
        messages.extend_from_slice(contents);
        let mut rest = messages.as_slice();
        while let Some((message_type, body, after)) = split_message(rest)? {
            rest = after;
            match message_type {
                NEW_SESSION_TICKET => self.new_session_ticket(body)?,
                KEY_UPDATE => self.key_update(reading, body, rest)?,
                _ => {
                    let what = "a handshake message that has no place after the handshake";
                    return Err(Offence::new(AlertDescription::UnexpectedMessage, what).into());
                }
            }
        }
        reading.partial = rest.to_vec();
        Ok(Received::Control)
    }

    fn new_session_ticket(&self, body: &[u8]) -> Result<(), TlsError> {
        match &mut *self.schedule.borrow_mut() {
            Schedule::Client(kernel) => {
                let mut facts = self.facts.borrow_mut();
                scope::within(&mut facts, || kernel.handle_new_session_ticket(body)).map_err(|_| {
                    Offence::new(AlertDescription::DecodeError, "a session ticket that cannot be read").into()
                })
            }
            Schedule::Server(_) => {
                Err(Offence::new(AlertDescription::UnexpectedMessage, "a session ticket from a client")
                    .into())
            }
        }
    }

    fn key_update(&self, reading: &mut Reading, body: &[u8], rest: &[u8]) -> Result<(), TlsError> {
        let requested = match body {
            [0] => false,
            [1] => true,
            // RFC 8446 4.6.3: any other value MUST be answered with "illegal_parameter"
            [_] => {
                return Err(
                    Offence::new(AlertDescription::IllegalParameter, "a key update of unknown kind").into()
                );
            }
            _ => {
                return Err(
                    Offence::new(AlertDescription::DecodeError, "a key update of wrong length").into()
                );
            }
        };
        if !rest.is_empty() {
            // RFC 8446 5.1: messages "immediately prior to a key change MUST align with a record boundary"
            let what = "a message behind a key update in one record";
            return Err(Offence::new(AlertDescription::UnexpectedMessage, what).into());
        }
        let secrets = self.schedule.borrow_mut().next_rx().map_err(TlsError::Stream)?;
        reading.opener = Opener::new(DirectionKeys::new(secrets)?);
        self.key_updates_received.set(self.key_updates_received.get() + 1);
        if requested {
            self.owes_key_update.set(true);
        }
        Ok(())
    }

    /// The record that must go out before the next data, if any: a key update that is owed or due.
    pub(crate) fn before_data(&self) -> Result<Option<Vec<u8>>, TlsError> {
        let mut sealer = self.sealer.borrow_mut();
        // RFC 8446 4.6.3: "the receiver MUST send a KeyUpdate of its own with request_update set to
        // "update_not_requested" prior to sending its next Application Data record"
        if !self.owes_key_update.get() && !sealer.needs_new_keys() {
            return Ok(None);
        }
        self.rotate(&mut sealer, false).map(Some)
    }

    /// A key update of our own accord, asking the peer for one if `request`.
    pub(crate) fn update_keys(&self, request: bool) -> Result<Vec<u8>, TlsError> {
        self.rotate(&mut self.sealer.borrow_mut(), request)
    }

    fn rotate(&self, sealer: &mut Sealer, request: bool) -> Result<Vec<u8>, TlsError> {
        let message = sealer.seal_message(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, u8::from(request)])?;
        let secrets = self.schedule.borrow_mut().next_tx().map_err(TlsError::Stream)?;
        sealer.replace_keys(DirectionKeys::new(secrets)?);
        self.owes_key_update.set(false);
        self.key_updates_sent.set(self.key_updates_sent.get() + 1);
        Ok(message)
    }

    /// Seals application data where it lies; see [`Sealer::seal_in_place`].
    pub(crate) fn seal_in_place(&self, record: &mut [u8]) -> Result<(), TlsError> {
        self.sealer.borrow_mut().seal_in_place(APPLICATION_DATA, record)
    }

    /// Seals application data into another buffer; see [`Sealer::seal_into`].
    pub(crate) fn seal_into(&self, contents: &[u8], out: &mut [u8]) -> Result<(), TlsError> {
        self.sealer.borrow_mut().seal_into(contents, out)
    }

    /// An alert as a record. RFC 8446 section 6: close_notify is sent as a warning, all others as fatal.
    pub(crate) fn alert(&self, description: AlertDescription) -> Result<Vec<u8>, TlsError> {
        let level = if description == AlertDescription::CloseNotify { 1 } else { 2 };
        self.sealer.borrow_mut().seal_message(ALERT, &[level, u8::from(description)])
    }
}

/// One handshake message off the front: its type, its body and what follows; `None` when it is not complete.
#[allow(clippy::type_complexity)]
fn split_message(bytes: &[u8]) -> Result<Option<(u8, &[u8], &[u8])>, TlsError> {
    let Some((&[message_type, high, middle, low], rest)) = bytes.split_first_chunk::<MESSAGE_HEADER>() else {
        return Ok(None);
    };
    let len = u32::from_be_bytes([0, high, middle, low]) as usize;
    if len > POST_HANDSHAKE_BYTES_MAX {
        let what = "a handshake message longer than 64 KiB after the handshake";
        return Err(Offence::new(AlertDescription::UnexpectedMessage, what).into());
    }
    Ok(rest.split_at_checked(len).map(|(body, after)| (message_type, body, after)))
}

/// RFC 8446 section 6: after the handshake only close_notify and user_canceled are not fatal, whatever the level says.
fn alert(contents: &[u8]) -> Result<Received, TlsError> {
    // section 5.1: "Alert messages MUST NOT be fragmented across records" nor share one
    let &[_level, description] = contents else {
        return Err(Offence::new(AlertDescription::DecodeError, "an alert of wrong length").into());
    };
    match AlertDescription::from(description) {
        AlertDescription::CloseNotify => Ok(Received::Closed),
        AlertDescription::UserCanceled => Ok(Received::Control),
        fatal => Err(TlsError::PeerAlert(fatal)),
    }
}

#[cfg(test)]
pub(crate) mod tests;
