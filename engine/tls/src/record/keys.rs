//! The key, the IV and the sequence number of one direction.
use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::ConnectionTrafficSecrets;

use crate::error::TlsError;

/// What protects records in one direction until the next key update.
pub(crate) struct DirectionKeys {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
}

impl DirectionKeys {
    /// # Errors
    /// [`TlsError::KeysExhausted`] for an algorithm that TLS 1.3 suites of rustls do not use.
    pub(crate) fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, TlsError> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(TlsError::KeysExhausted),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| TlsError::KeysExhausted)?;
        let iv = iv.as_ref().try_into().map_err(|_| TlsError::KeysExhausted)?;
        Ok(Self { key: LessSafeKey::new(key), iv, sequence })
    }

    pub(crate) fn key(&self) -> &LessSafeKey {
        &self.key
    }

    /// Records protected so far with these keys.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    #[cfg(test)]
    pub(crate) fn set_sequence(&mut self, sequence: u64) {
        self.sequence = sequence;
    }

    /// The nonce of the next record. RFC 8446 5.3: the sequence number, padded to the left, XORed with the IV.
    ///
    /// # Errors
    /// [`TlsError::KeysExhausted`]: "Sequence numbers MUST NOT be allowed to wrap".
    pub(crate) fn next_nonce(&mut self) -> Result<Nonce, TlsError> {
        let next = self.sequence.checked_add(1).ok_or(TlsError::KeysExhausted)?;
        let mut nonce = self.iv;
        let (_, low) = nonce.split_at_mut(NONCE_LEN - size_of::<u64>());
        for (byte, digit) in low.iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= digit;
        }
        self.sequence = next;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}
