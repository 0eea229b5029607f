//! A connection whose records rustls processes: TLS 1.2, and TLS 1.3 where the in-place path is switched off.
//!
//! rustls's unbuffered API of 0.23 allocates and copies each record it decrypts; the stream counts those bytes.
use std::cell::{RefCell, RefMut};

use crate::drive::{Connection, Intent, Stage};
use crate::error::TlsError;
use crate::handshake::HANDSHAKE_BYTES_MAX;
use crate::scope::Facts;

struct State {
    connection: Connection,
    facts: Facts,
    /// Records of a handshake message that is not complete; nearly always empty.
    held: Vec<u8>,
    /// What rustls wants to send beside the caller's data: alerts, answers to key updates.
    out: Vec<u8>,
    /// Decrypted and not yet taken.
    plain: Vec<u8>,
    /// How much of `plain` has been taken.
    taken: usize,
    peer_closed: bool,
    /// rustls has failed: it must not be called again, because it may point into bytes that are gone.
    failed: bool,
}

/// See the module's head.
pub(crate) struct Unbuffered(RefCell<State>);

impl Unbuffered {
    /// `held` is what the handshake has left of its records: rustls may point into it.
    pub(crate) fn new(connection: Connection, facts: Facts, held: Vec<u8>) -> Self {
        Self(RefCell::new(State {
            connection,
            facts,
            held,
            out: Vec::new(),
            plain: Vec::new(),
            taken: 0,
            peer_closed: false,
            failed: false,
        }))
    }

    /// Takes one whole record.
    ///
    /// # Errors
    /// [`TlsError::Stream`] or [`TlsError::PeerAlert`]; the stream is over, and an alert may wait to be sent.
    pub(crate) fn feed(&self, record: &mut [u8]) -> Result<(), TlsError> {
        let mut guard = self.0.borrow_mut();
        let state = &mut *guard;
        if state.held.is_empty() {
            let done = state.run(Some(record), Intent::Nothing)?;
            state.held.extend_from_slice(record.get(done..).unwrap_or_default());
        } else {
            state.held.extend_from_slice(record);
            state.run(None, Intent::Nothing)?;
        }
        if state.held.len() > HANDSHAKE_BYTES_MAX {
            return Err(TlsError::HandshakeTooLarge { max: HANDSHAKE_BYTES_MAX });
        }
        Ok(())
    }

    /// Whether the peer has sent close_notify and all data before it was taken.
    pub(crate) fn is_finished(&self) -> bool {
        let state = self.0.borrow();
        state.peer_closed && state.taken == state.plain.len()
    }

    /// Decrypted bytes that wait to be taken.
    pub(crate) fn waiting(&self) -> usize {
        let state = self.0.borrow();
        state.plain.len() - state.taken
    }

    /// Copies decrypted bytes to the front of `room`; returns how many.
    pub(crate) fn take_plain(&self, room: &mut [u8]) -> usize {
        let mut state = self.0.borrow_mut();
        let waiting = &state.plain[state.taken..];
        let n = waiting.len().min(room.len());
        room[..n].copy_from_slice(&waiting[..n]);
        state.taken += n;
        if state.taken == state.plain.len() {
            // an idle connection holds no memory for plaintext
            state.plain = Vec::new();
            state.taken = 0;
        }
        n
    }

    /// Encrypts `data` behind whatever waits to be sent.
    pub(crate) fn encrypt(&self, data: &[u8]) -> Result<(), TlsError> {
        self.0.borrow_mut().run(None, Intent::Encrypt(data)).map(|_| ())
    }

    pub(crate) fn close_notify(&self) -> Result<(), TlsError> {
        self.0.borrow_mut().run(None, Intent::CloseNotify).map(|_| ())
    }

    pub(crate) fn update_keys(&self) -> Result<(), TlsError> {
        let mut state = self.0.borrow_mut();
        state.run(None, Intent::RefreshKeys)?;
        state.run(None, Intent::Nothing).map(|_| ())
    }

    /// What waits to be sent, in order; the caller drains it from the front.
    pub(crate) fn out(&self) -> RefMut<'_, Vec<u8>> {
        RefMut::map(self.0.borrow_mut(), |state| &mut state.out)
    }
}

impl State {
    /// Steps until nothing moves; returns how much of `record` is done with. Without a record, over `held`.
    fn run(&mut self, mut record: Option<&mut [u8]>, intent: Intent<'_>) -> Result<usize, TlsError> {
        if self.failed {
            return Err(TlsError::Broken);
        }
        let mut done = 0;
        let mut intent = Some(intent);
        loop {
            // an encoder may be asked more than once before data may flow
            let now = match &intent {
                Some(Intent::Encrypt(data)) => Intent::Encrypt(data),
                Some(Intent::CloseNotify) => Intent::CloseNotify,
                Some(Intent::RefreshKeys) => Intent::RefreshKeys,
                _ => Intent::Nothing,
            };
            let input = match &mut record {
                Some(record) => record.get_mut(done..).unwrap_or_default(),
                None => self.held.get_mut(done..).unwrap_or_default(),
            };
            let (discard, stage) =
                self.connection.step(&mut self.facts, input, now, &mut self.out, &mut self.plain);
            done += discard;
            match stage {
                Ok(Stage::Again) => {}
                Ok(Stage::PeerClosed) => self.peer_closed = true,
                Ok(Stage::Ready | Stage::Blocked | Stage::Closed) => {
                    intent.take();
                    break;
                }
                Err(error) => {
                    self.failed = true;
                    let rest = match &mut record {
                        Some(record) => record.get_mut(done..).unwrap_or_default(),
                        None => self.held.get_mut(done..).unwrap_or_default(),
                    };
                    self.connection.collect_alert(&mut self.facts, rest, &mut self.out);
                    return Err(match error {
                        rustls::Error::AlertReceived(alert) => TlsError::PeerAlert(alert),
                        other => TlsError::Stream(other),
                    });
                }
            }
        }
        if record.is_none() {
            self.held.drain(..done.min(self.held.len()));
        }
        Ok(done)
    }
}
