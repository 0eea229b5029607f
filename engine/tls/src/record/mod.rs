//! The TLS 1.3 record layer (RFC 8446 section 5) over keys that rustls negotiated.
//!
//! ```text
//! | type 1 | version 2 | length 2 | content ... | content type 1 | padding 0* | tag 16 |
//!   '------- header: 5 ---------'   '------------- encrypted ----------------'
//! ```
//! [`Opener`] decrypts one record where it lies or into another buffer, [`Sealer`] encrypts one where it lies or into
//! another buffer: either way the cipher itself moves the bytes. Both are sans-io.

mod keys;
mod open;
mod seal;

pub(crate) use keys::DirectionKeys;
pub(crate) use open::{Opened, Opener};
pub(crate) use seal::Sealer;

use rustls::AlertDescription;

use crate::error::TlsError;

/// Bytes in front of a record's contents.
pub const HEADER_BYTES: usize = 5;
/// Bytes behind the contents when nothing is padded: content type and tag.
pub const TRAILER_BYTES: usize = 1 + TAG_BYTES;
/// Contents of one record. RFC 8446 5.1: "The length MUST NOT exceed 2^14 bytes."
pub const CONTENT_BYTES_MAX: usize = 1 << 14;
/// One record with its header. RFC 8446 5.2: "The length MUST NOT exceed 2^14 + 256 bytes."
pub const RECORD_BYTES_MAX: usize = HEADER_BYTES + CIPHERTEXT_BYTES_MAX;

const TAG_BYTES: usize = 16;
const CIPHERTEXT_BYTES_MAX: usize = CONTENT_BYTES_MAX + 256;

pub(crate) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const APPLICATION_DATA: u8 = 23;

/// A peer's offence and the alert that answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offence {
    pub what: &'static str,
    pub alert: AlertDescription,
}

impl Offence {
    pub(crate) const fn new(alert: AlertDescription, what: &'static str) -> Self {
        Self { what, alert }
    }
}

impl From<Offence> for TlsError {
    fn from(offence: Offence) -> Self {
        Self::PeerMisbehaved { what: offence.what, alert: offence.alert }
    }
}

/// The size of the record that begins with `header`, header included.
///
/// # Errors
/// The record can only be refused, so it need not be waited for.
pub(crate) fn record_bytes(header: &[u8; HEADER_BYTES], protected: bool) -> Result<usize, Offence> {
    let [content_type, _, _, high, low] = *header;
    if protected && content_type != APPLICATION_DATA {
        // RFC 8446 5.2: opaque_type "is always set to the value 23"; an unprotected record after the handshake,
        // change_cipher_spec included, MUST be answered with "unexpected_message" (section 5).
        return Err(Offence::new(AlertDescription::UnexpectedMessage, "a record that is not protected"));
    }
    if !protected && !(CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&content_type) {
        return Err(Offence::new(AlertDescription::UnexpectedMessage, "a record of unknown type"));
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length < if protected { TRAILER_BYTES } else { 1 } {
        // nothing that short authenticates; and no message is empty before there are keys (RFC 8446 5.1)
        let alert = if protected { AlertDescription::BadRecordMac } else { AlertDescription::DecodeError };
        return Err(Offence::new(alert, "a record too short to hold anything"));
    }
    // TLS 1.2 allows 2^14 + 2048 (RFC 5246 6.2.3), but its AEAD suites expand a record by 24 bytes only.
    if length > CIPHERTEXT_BYTES_MAX {
        // RFC 8446 5.2: "MUST terminate the connection with a "record_overflow" alert"
        return Err(Offence::new(AlertDescription::RecordOverflow, "a record longer than 2^14 + 256 bytes"));
    }
    Ok(HEADER_BYTES + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_judged_before_their_records_arrive() {
        assert_eq!(record_bytes(&[23, 3, 3, 0x41, 0x00], true), Ok(5 + 0x4100));
        assert_eq!(record_bytes(&[23, 9, 9, 0, 17], true), Ok(22));
        let alert = |header: &[u8; 5], protected| record_bytes(header, protected).unwrap_err().alert;
        assert_eq!(alert(&[23, 3, 3, 0x41, 0x01], true), AlertDescription::RecordOverflow);
        for content_type in [20, 21, 22, 24, 0, b'G'] {
            assert_eq!(alert(&[content_type, 3, 3, 0, 20], true), AlertDescription::UnexpectedMessage);
        }
        assert_eq!(record_bytes(&[22, 3, 1, 2, 0], false), Ok(517));
        assert_eq!(alert(b"GET /", false), AlertDescription::UnexpectedMessage);
        assert_eq!(alert(&[22, 3, 1, 0xff, 0xff], false), AlertDescription::RecordOverflow);
        assert_eq!(alert(&[23, 3, 3, 0, 16], true), AlertDescription::BadRecordMac);
        assert_eq!(alert(&[22, 3, 1, 0, 0], false), AlertDescription::DecodeError);
    }
}
