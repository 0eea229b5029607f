//! Driving rustls's unbuffered connections, in either role, one step at a time.
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{CommonState, Error};

use crate::scope::{self, Facts};

/// A connection in either role.
pub(crate) enum Connection {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// Where one step has led.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Call again.
    Again,
    /// The handshake needs more from the peer.
    Blocked,
    /// Data may flow.
    Ready,
    /// The peer said close_notify.
    PeerClosed,
    /// Both sides did.
    Closed,
}

/// What a step wants to do when data may flow.
pub(crate) enum Intent<'a> {
    Nothing,
    /// Encrypts into the vector and is done.
    Encrypt(&'a [u8]),
    CloseNotify,
    RefreshKeys,
}

impl Connection {
    pub(crate) fn common(&self) -> &CommonState {
        match self {
            Self::Client(connection) => connection,
            Self::Server(connection) => connection,
        }
    }

    /// One step over `incoming`; returns how many of its first bytes are done with. Bytes for the peer are appended
    /// to `out`, received plaintext to `plain`. The intent is carried out when the stage is `Ready`.
    pub(crate) fn step(
        &mut self,
        facts: &mut Facts,
        incoming: &mut [u8],
        intent: Intent<'_>,
        out: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> (usize, Result<Stage, Error>) {
        scope::within(facts, || match self {
            Self::Client(connection) => absorb(connection.process_tls_records(incoming), intent, out, plain),
            Self::Server(connection) => absorb(connection.process_tls_records(incoming), intent, out, plain),
        })
    }

    /// After an error: takes what rustls has queued, the alert last. `incoming` must be what was left of it, because
    /// rustls still looks up there the messages that it had found before it failed. It is not asked once more than
    /// it has something queued: it would fail a second time, and does not expect that of itself.
    pub(crate) fn collect_alert(&mut self, facts: &mut Facts, incoming: &mut [u8], out: &mut Vec<u8>) {
        const STEPS_MAX: usize = 64;
        for _ in 0..STEPS_MAX {
            if !self.common().wants_write() {
                return;
            }
            let (discard, stage) = self.step(facts, incoming, Intent::Nothing, out, &mut Vec::new());
            if discard > 0 || stage != Ok(Stage::Again) {
                return;
            }
        }
    }
}

fn absorb<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    intent: Intent<'_>,
    out: &mut Vec<u8>,
    plain: &mut Vec<u8>,
) -> (usize, Result<Stage, Error>) {
    let mut discard = status.discard;
    let stage = match status.state {
        Err(error) => Err(error),
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            append(out, |room| data.encode(room).map_err(Insufficient::from_encode)).map(|()| Stage::Again)
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            // `out` keeps the order, and the caller sends it before it waits for anything
            data.done();
            Ok(Stage::Again)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Stage::Blocked),
        Ok(ConnectionState::WriteTraffic(traffic)) => carry_out(intent, traffic, out).map(|()| Stage::Ready),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    plain.extend_from_slice(record.payload);
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Stage::Again),
            }
        },
        Ok(ConnectionState::PeerClosed) => Ok(Stage::PeerClosed),
        Ok(ConnectionState::Closed) => Ok(Stage::Closed),
        // early data is never enabled, and the enum may grow
        Ok(_) => Err(Error::General("rustls reached a state that this proxy does not enable".to_owned())),
    };
    (discard, stage)
}

fn carry_out<Data>(
    intent: Intent<'_>,
    mut traffic: WriteTraffic<'_, Data>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    match intent {
        Intent::Nothing => Ok(()),
        Intent::Encrypt(data) => {
            append(out, |room| traffic.encrypt(data, room).map_err(Insufficient::from_encrypt))
        }
        Intent::CloseNotify => {
            append(out, |room| traffic.queue_close_notify(room).map_err(Insufficient::from_encrypt))
        }
        Intent::RefreshKeys => traffic.refresh_traffic_keys(),
    }
}

/// How much room an encoder wants, or that it will never have enough.
struct Insufficient(Option<usize>);

impl Insufficient {
    fn from_encode(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(size) => Self(Some(size.required_size)),
            EncodeError::AlreadyEncoded => Self(None),
        }
    }

    fn from_encrypt(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(size) => Self(Some(size.required_size)),
            EncryptError::EncryptExhausted => Self(None),
        }
    }
}

/// Appends what an encoder writes, asking it first how much that is.
fn append(
    out: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, Insufficient>,
) -> Result<(), Error> {
    let start = out.len();
    for _ in 0..2 {
        match encode(out.get_mut(start..).unwrap_or_default()) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(Insufficient(Some(required))) => out.resize(start + required, 0),
            Err(Insufficient(None)) => break,
        }
    }
    out.truncate(start);
    Err(Error::EncryptError)
}
