//! Opening one protected record.
use aws_lc_rs::aead::Aad;
use rustls::AlertDescription;

use super::{CONTENT_BYTES_MAX, DirectionKeys, HEADER_BYTES, Offence, TAG_BYTES};
use crate::error::TlsError;

/// What was inside a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opened {
    /// 21 alert, 22 handshake, 23 application data; anything else has been refused.
    pub content_type: u8,
    /// Bytes of contents, at the front of where they were asked for.
    pub len: usize,
}

/// Why a record was not opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    Offence(Offence),
    Exhausted,
}

impl From<OpenError> for TlsError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Offence(offence) => offence.into(),
            OpenError::Exhausted => Self::KeysExhausted,
        }
    }
}

const BAD_MAC: OpenError =
    OpenError::Offence(Offence::new(AlertDescription::BadRecordMac, "a record that does not authenticate"));

/// The reading direction's keys.
pub(crate) struct Opener {
    keys: DirectionKeys,
}

impl Opener {
    pub(crate) fn new(keys: DirectionKeys) -> Self {
        Self { keys }
    }

    #[cfg(test)]
    pub(crate) fn set_sequence(&mut self, sequence: u64) {
        self.keys.set_sequence(sequence);
    }

    /// Bytes that opening a record of `record_bytes` (header included) writes: contents, type and padding.
    pub(crate) fn inner_bytes(record_bytes: usize) -> usize {
        record_bytes.saturating_sub(HEADER_BYTES + TAG_BYTES)
    }

    /// Decrypts one whole record into the front of `out`, which must hold [`Opener::inner_bytes`].
    pub(crate) fn open_into(&mut self, record: &[u8], out: &mut [u8]) -> Result<Opened, OpenError> {
        let (header, body) = record.split_first_chunk::<HEADER_BYTES>().ok_or(BAD_MAC)?;
        let (inner, tag) = body.split_last_chunk::<TAG_BYTES>().ok_or(BAD_MAC)?;
        let out = out.get_mut(..inner.len()).ok_or(BAD_MAC)?;
        let nonce = self.keys.next_nonce().map_err(|_| OpenError::Exhausted)?;
        // RFC 8446 5.2: additional_data is the record header as it was received
        self.keys
            .key()
            .open_separate_gather(nonce, Aad::from(*header), inner, tag, out)
            // "the receiver MUST terminate the connection with a "bad_record_mac" alert"
            .map_err(|_| BAD_MAC)?;
        inner_plaintext(out)
    }

    /// Decrypts one whole record where it lies; the contents then begin behind the header.
    pub(crate) fn open_in_place(&mut self, record: &mut [u8]) -> Result<Opened, OpenError> {
        let (header, body) = record.split_first_chunk_mut::<HEADER_BYTES>().ok_or(BAD_MAC)?;
        if body.len() < TAG_BYTES {
            return Err(BAD_MAC);
        }
        let nonce = self.keys.next_nonce().map_err(|_| OpenError::Exhausted)?;
        let inner = self.keys.key().open_in_place(nonce, Aad::from(*header), body).map_err(|_| BAD_MAC)?;
        inner_plaintext(inner)
    }
}

/// Finds the content type in a TLSInnerPlaintext (RFC 8446 5.2): the last byte that is not zero.
fn inner_plaintext(inner: &[u8]) -> Result<Opened, OpenError> {
    let refuse = |alert, what| Err(OpenError::Offence(Offence::new(alert, what)));
    if inner.len() > CONTENT_BYTES_MAX + 1 {
        // 5.4: "the full encoded TLSInnerPlaintext MUST NOT exceed 2^14 + 1 octets"
        return refuse(AlertDescription::RecordOverflow, "contents longer than 2^14 bytes");
    }
    let Some(len) = inner.iter().rposition(|&byte| byte != 0) else {
        // 5.4: "If a receiving implementation does not find a non-zero octet in the cleartext, it MUST terminate
        // the connection with an "unexpected_message" alert."
        return refuse(AlertDescription::UnexpectedMessage, "a record of nothing but padding");
    };
    let content_type = inner[len];
    match content_type {
        super::ALERT | super::HANDSHAKE if len == 0 => {
            // 5.1 and 5.4: zero-length fragments of these types MUST NOT be sent
            refuse(AlertDescription::UnexpectedMessage, "an empty alert or handshake record")
        }
        super::ALERT | super::HANDSHAKE | super::APPLICATION_DATA => Ok(Opened { content_type, len }),
        _ => refuse(AlertDescription::UnexpectedMessage, "a record of unknown inner type"),
    }
}
