//! Stateless session tickets (RFC 5077, RFC 8446 section 4.6.1) whose keys all cores share.
//!
//! ```text
//! ticket = key name 16 | nonce 12 | AES-256-GCM(peer's expiry 8 | own expiry 8 | session)  tag 16
//! ```
//! The name and the issuing context's binding are authenticated with it. A ticket is refused, and a full handshake
//! follows, when its key has been rotated out, when its context's trust bundle or validation rules have changed
//! since, when the certificate that the peer proved then has expired, or when the ticket itself has.
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use rustls::time_provider::TimeProvider;

use crate::error::TlsError;
use crate::scope;
use crate::verify::sha256;

/// How long a client may keep a ticket. The caller rotates the keys at this interval, so that a ticket lives for
/// one to two intervals.
pub const TICKET_LIFETIME_S: u32 = 6 * 60 * 60;
/// Key generations that can open tickets, the sealing one included.
pub const TICKET_KEYS_MAX: usize = 8;

/// A ticket carries the client's chain; larger ones are neither made nor opened.
const TICKET_BYTES_MAX: usize = 16 * 1024;
const NAME: usize = 16;
const NONCE: usize = 12;
const TAG: usize = 16;
const EXPIRY: usize = 8;
/// What a rotation by hand keeps besides the new key.
const PREVIOUS_KEPT: usize = 1;

struct TicketKey {
    name: [u8; NAME],
    key: LessSafeKey,
}

impl TicketKey {
    fn random() -> Result<Self, TlsError> {
        let mut secret = [0; 32];
        rand::fill(&mut secret).map_err(|_| TlsError::NoRandomness)?;
        Self::from_secret(&secret)
    }

    /// Any secret of 32 bytes or more, the same on every replica that shall open the tickets.
    fn from_secret(secret: &[u8]) -> Result<Self, TlsError> {
        let mut name = [0; NAME];
        name.copy_from_slice(&sha256(&[b"corelane ticket name", secret].concat())[..NAME]);
        let key = sha256(&[b"corelane ticket key", secret].concat());
        let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| TlsError::NoRandomness)?;
        Ok(Self { name, key: LessSafeKey::new(key) })
    }
}

/// The ticket keys of the process: the first seals, all open.
pub struct TicketKeys(ArcSwap<Vec<Arc<TicketKey>>>);

impl fmt::Debug for TicketKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TicketKeys").field("keys", &self.0.load().len()).finish()
    }
}

impl TicketKeys {
    /// One fresh random key.
    ///
    /// # Errors
    /// [`TlsError::NoRandomness`].
    pub fn new() -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(vec![Arc::new(TicketKey::random()?)]))))
    }

    /// Seals with a fresh key from now on; the previous one still opens. To be called by one thread, every
    /// [`TICKET_LIFETIME_S`].
    ///
    /// # Errors
    /// [`TlsError::NoRandomness`]; the keys then stay.
    pub fn rotate(&self) -> Result<(), TlsError> {
        let mut keys = vec![Arc::new(TicketKey::random()?)];
        keys.extend(self.0.load().iter().take(PREVIOUS_KEPT).cloned());
        self.0.store(Arc::new(keys));
        Ok(())
    }

    /// Takes the keys from configuration (Envoy's `session_ticket_keys`): the first seals, all open.
    ///
    /// # Errors
    /// [`TlsError::BadSpec`] when there is none, too many, or one shorter than 32 bytes.
    pub fn set(&self, secrets: &[Vec<u8>]) -> Result<(), TlsError> {
        if secrets.is_empty()
            || secrets.len() > TICKET_KEYS_MAX
            || secrets.iter().any(|secret| secret.len() < 32)
        {
            let cause = format!("from 1 to {TICKET_KEYS_MAX} secrets of at least 32 bytes are needed");
            return Err(TlsError::BadSpec { resource: "session ticket keys".to_owned(), cause });
        }
        let keys = secrets.iter().map(|secret| TicketKey::from_secret(secret).map(Arc::new));
        self.0.store(Arc::new(keys.collect::<Result<_, _>>()?));
        Ok(())
    }
}

/// Makes and opens the tickets of one server context.
pub(crate) struct ContextTickets {
    pub(crate) keys: Arc<TicketKeys>,
    /// What a ticket is good for: digest of the context's id, bundle generation and validation rules.
    pub(crate) binding: [u8; 32],
    pub(crate) time: Arc<dyn TimeProvider>,
    /// At most [`TICKET_LIFETIME_S`] is promised to clients, whatever is configured.
    pub(crate) lifetime_s: u32,
}

impl fmt::Debug for ContextTickets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ContextTickets").finish_non_exhaustive()
    }
}

impl ContextTickets {
    fn aad(&self, name: &[u8; NAME]) -> Aad<[u8; NAME + 32]> {
        let mut aad = [0; NAME + 32];
        aad[..NAME].copy_from_slice(name);
        aad[NAME..].copy_from_slice(&self.binding);
        Aad::from(aad)
    }
}

impl ProducesTickets for ContextTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.lifetime_s.min(TICKET_LIFETIME_S)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let (expiry, untrusted) = scope::with_facts(|facts| (facts.peer_not_after_s, facts.peer_untrusted))?;
        if untrusted || plain.len() + 2 * EXPIRY + NAME + NONCE + TAG > TICKET_BYTES_MAX {
            return None;
        }
        let keys = self.keys.0.load();
        let key = keys.first()?;
        let mut nonce = [0; NONCE];
        rand::fill(&mut nonce).ok()?;
        let own = self.time.current_time()?.as_secs().saturating_add(self.lifetime_s.into());
        let mut sealed = Vec::with_capacity(2 * EXPIRY + plain.len() + TAG);
        // a peer without a certificate has none that could expire
        sealed.extend_from_slice(&expiry.unwrap_or(u64::MAX).to_be_bytes());
        sealed.extend_from_slice(&own.to_be_bytes());
        sealed.extend_from_slice(plain);
        key.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), self.aad(&key.name), &mut sealed)
            .ok()?;
        Some([&key.name[..], &nonce, &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>()?;
        let keys = self.keys.0.load();
        let key = keys.iter().find(|key| key.name == *name)?;
        let mut sealed = sealed.to_vec();
        let opened =
            key.key.open_in_place(Nonce::assume_unique_for_key(*nonce), self.aad(name), &mut sealed).ok()?;
        let (expiry, rest) = opened.split_first_chunk::<EXPIRY>()?;
        let (own, plain) = rest.split_first_chunk::<EXPIRY>()?;
        let (expiry, own) = (u64::from_be_bytes(*expiry), u64::from_be_bytes(*own));
        if expiry.min(own) < self.time.current_time()?.as_secs() {
            return None;
        }
        // tickets that the resumed session brings expire with the same certificate
        scope::with_facts(|facts| facts.peer_not_after_s = (expiry != u64::MAX).then_some(expiry))?;
        Some(plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::UnixTime;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::scope::{Facts, within};

    #[derive(Debug)]
    struct Clock(AtomicU64);
    impl TimeProvider for Clock {
        fn current_time(&self) -> Option<UnixTime> {
            Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed))))
        }
    }

    fn tickets(keys: &Arc<TicketKeys>, binding: u8, clock: &Arc<Clock>) -> ContextTickets {
        let lifetime_s = TICKET_LIFETIME_S;
        ContextTickets { keys: keys.clone(), binding: [binding; 32], time: clock.clone(), lifetime_s }
    }

    fn facts(not_after_s: Option<u64>) -> Facts {
        Facts { peer_not_after_s: not_after_s, ..Facts::default() }
    }

    #[test]
    fn a_ticket_dies_with_the_binding_the_key_and_the_certificate() {
        let keys = TicketKeys::new().unwrap();
        let clock = Arc::new(Clock(AtomicU64::new(1000)));
        let issuer = tickets(&keys, 1, &clock);
        let ticket = within(&mut facts(Some(2000)), || issuer.encrypt(b"session")).unwrap();

        let mut resumed = Facts::default();
        assert_eq!(within(&mut resumed, || issuer.decrypt(&ticket)).as_deref(), Some(&b"session"[..]));
        assert_eq!(resumed.peer_not_after_s, Some(2000));
        let other = tickets(&keys, 2, &clock);
        assert_eq!(within(&mut Facts::default(), || other.decrypt(&ticket)), None);

        keys.rotate().unwrap();
        assert!(within(&mut Facts::default(), || issuer.decrypt(&ticket)).is_some());
        clock.0.store(2001, Ordering::Relaxed);
        assert_eq!(within(&mut Facts::default(), || issuer.decrypt(&ticket)), None);
        clock.0.store(1000, Ordering::Relaxed);
        keys.rotate().unwrap();
        assert_eq!(within(&mut Facts::default(), || issuer.decrypt(&ticket)), None);
    }

    #[test]
    fn a_ticket_lives_as_long_as_configured() {
        let clock = Arc::new(Clock(AtomicU64::new(1000)));
        let issuer = ContextTickets { lifetime_s: 60, ..tickets(&TicketKeys::new().unwrap(), 1, &clock) };
        assert_eq!(issuer.lifetime(), 60);
        let ticket = within(&mut facts(Some(5000)), || issuer.encrypt(b"session")).unwrap();
        clock.0.store(1060, Ordering::Relaxed);
        assert!(within(&mut Facts::default(), || issuer.decrypt(&ticket)).is_some());
        clock.0.store(1061, Ordering::Relaxed);
        assert_eq!(within(&mut Facts::default(), || issuer.decrypt(&ticket)), None);
        let longer = ContextTickets { lifetime_s: u32::MAX, ..issuer };
        assert_eq!(longer.lifetime(), TICKET_LIFETIME_S);
    }

    #[test]
    fn no_ticket_without_a_connection_or_for_an_unverified_peer() {
        let keys = TicketKeys::new().unwrap();
        let clock = Arc::new(Clock(AtomicU64::new(0)));
        let issuer = tickets(&keys, 1, &clock);
        assert_eq!(issuer.encrypt(b"session"), None);
        let mut unverified = Facts { peer_untrusted: true, ..Facts::default() };
        assert_eq!(within(&mut unverified, || issuer.encrypt(b"session")), None);
        let anonymous = within(&mut facts(None), || issuer.encrypt(b"session")).unwrap();
        clock.0.store(TICKET_LIFETIME_S.into(), Ordering::Relaxed);
        assert!(within(&mut Facts::default(), || issuer.decrypt(&anonymous)).is_some());
    }

    #[test]
    fn damaged_tickets_are_refused() {
        let keys = TicketKeys::new().unwrap();
        keys.set(&[vec![7; 80], vec![8; 80]]).unwrap();
        let clock = Arc::new(Clock(AtomicU64::new(0)));
        let issuer = tickets(&keys, 1, &clock);
        let ticket = within(&mut facts(None), || issuer.encrypt(b"session")).unwrap();
        for position in 0..ticket.len() {
            let mut damaged = ticket.clone();
            damaged[position] ^= 1;
            assert_eq!(within(&mut Facts::default(), || issuer.decrypt(&damaged)), None);
            assert_eq!(within(&mut Facts::default(), || issuer.decrypt(&ticket[..position])), None);
        }
        keys.set(&[vec![9; 80], vec![7; 80]]).unwrap();
        assert!(within(&mut Facts::default(), || issuer.decrypt(&ticket)).is_some());
        assert!(keys.set(&[]).is_err() && keys.set(&[vec![0; 31]]).is_err());
    }
}
