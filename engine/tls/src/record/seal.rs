//! Sealing one record.
use aws_lc_rs::aead::Aad;

use super::{APPLICATION_DATA, CONTENT_BYTES_MAX, DirectionKeys, HEADER_BYTES, TRAILER_BYTES};
use crate::error::TlsError;

/// The writing direction's keys.
pub(crate) struct Sealer {
    keys: DirectionKeys,
    /// Records after which these keys are replaced.
    records_max: u64,
}

impl Sealer {
    pub(crate) fn new(keys: DirectionKeys, records_max: u64) -> Self {
        Self { keys, records_max }
    }

    /// RFC 8446 5.5: an implementation "SHOULD" update its keys before it reaches the limit of its cipher.
    pub(crate) fn needs_new_keys(&self) -> bool {
        self.keys.sequence() >= self.records_max
    }

    pub(crate) fn replace_keys(&mut self, keys: DirectionKeys) {
        self.keys = keys;
    }

    #[cfg(test)]
    pub(crate) fn raw(&mut self) -> (&aws_lc_rs::aead::LessSafeKey, aws_lc_rs::aead::Nonce) {
        let nonce = self.keys.next_nonce().unwrap();
        (self.keys.key(), nonce)
    }

    #[cfg(test)]
    pub(crate) fn sequence(&self) -> u64 {
        self.keys.sequence()
    }

    #[cfg(test)]
    pub(crate) fn set_sequence(&mut self, sequence: u64) {
        self.keys.set_sequence(sequence);
    }

    /// Seals where the contents lie: `record` is header room, contents, trailer room, and comes out as the record.
    ///
    /// # Errors
    /// [`TlsError::KeysExhausted`]; a window of the wrong size counts as [`TlsError::Broken`].
    pub(crate) fn seal_in_place(&mut self, content_type: u8, record: &mut [u8]) -> Result<(), TlsError> {
        let (header, body) = record.split_first_chunk_mut::<HEADER_BYTES>().ok_or(TlsError::Broken)?;
        *header = header_of(body.len())?;
        let (contents, trailer) = body.split_last_chunk_mut::<TRAILER_BYTES>().ok_or(TlsError::Broken)?;
        let nonce = self.keys.next_nonce()?;
        self.keys
            .key()
            .seal_in_place_scatter(nonce, Aad::from(*header), contents, &[content_type], trailer)
            .map_err(|_| TlsError::KeysExhausted)
    }

    /// Seals application data into `out`, which must be exactly the record's size; the cipher moves the bytes.
    ///
    /// # Errors
    /// As [`Sealer::seal_in_place`].
    pub(crate) fn seal_into(&mut self, contents: &[u8], out: &mut [u8]) -> Result<(), TlsError> {
        let (header, body) = out.split_first_chunk_mut::<HEADER_BYTES>().ok_or(TlsError::Broken)?;
        *header = header_of(body.len())?;
        let (sealed, trailer) = body.split_last_chunk_mut::<TRAILER_BYTES>().ok_or(TlsError::Broken)?;
        if sealed.len() != contents.len() {
            return Err(TlsError::Broken);
        }
        let nonce = self.keys.next_nonce()?;
        let aad = Aad::from(*header);
        self.keys
            .key()
            .seal_out_of_place_scatter(nonce, aad, contents, sealed, &[APPLICATION_DATA], trailer)
            .map_err(|_| TlsError::KeysExhausted)
    }

    /// Seals a short message of another type into a record of its own.
    ///
    /// # Errors
    /// As [`Sealer::seal_in_place`].
    pub(crate) fn seal_message(&mut self, content_type: u8, message: &[u8]) -> Result<Vec<u8>, TlsError> {
        let mut record = vec![0; HEADER_BYTES + message.len() + TRAILER_BYTES];
        record[HEADER_BYTES..][..message.len()].copy_from_slice(message);
        self.seal_in_place(content_type, &mut record)?;
        Ok(record)
    }
}

/// The header of a record whose encrypted part has `length` bytes.
fn header_of(length: usize) -> Result<[u8; HEADER_BYTES], TlsError> {
    if !(TRAILER_BYTES..=CONTENT_BYTES_MAX + TRAILER_BYTES).contains(&length) {
        return Err(TlsError::Broken);
    }
    let [high, low] = (length as u16).to_be_bytes();
    // RFC 8446 5.2: opaque_type application_data, legacy_record_version 0x0303
    Ok([APPLICATION_DATA, 3, 3, high, low])
}
