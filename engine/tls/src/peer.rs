//! Who is on the other side: taken from its certificate once per connection.
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use aws_lc_rs::digest;
use rustls_pki_types::CertificateDer;

use crate::certificate::{CertificateInfo, hex};
use crate::verify::{sha256, sha256_of};

/// The peer's certificate as policy, XFCC and access logs see it.
#[derive(Debug, Clone)]
pub struct PeerIdentity {
    /// False when the context lets unverified peers through and this is one: never a principal for policy.
    pub validated: bool,
    pub info: CertificateInfo,
    /// Lower-case hex of the SHA-256 digest of the leaf's DER: XFCC's `Hash`.
    pub sha256_hex: String,
    /// DER, leaf first, as the peer sent it.
    chain: Vec<CertificateDer<'static>>,
}

impl PeerIdentity {
    /// `None` when the peer presented no certificate, or one that cannot be read.
    pub(crate) fn from_chain(chain: &[CertificateDer<'_>], validated: bool) -> Option<Self> {
        let leaf = chain.first()?;
        Some(Self {
            validated,
            info: CertificateInfo::from_der(leaf)?,
            sha256_hex: hex(&sha256(leaf)),
            chain: chain.iter().map(|link| link.clone().into_owned()).collect(),
        })
    }

    pub fn uri_sans(&self) -> &[String] {
        &self.info.uri_sans
    }

    pub fn dns_sans(&self) -> &[String] {
        &self.info.dns_sans
    }

    /// RFC 2253 text.
    pub fn subject(&self) -> &str {
        &self.info.subject
    }

    /// Lower-case hex.
    pub fn serial(&self) -> &str {
        &self.info.serial
    }

    /// The SPIFFE ID of a verified peer. The SPIFFE X.509-SVID standard allows exactly one URI SAN; a
    /// certificate with several has no SPIFFE identity.
    pub fn spiffe_id(&self) -> Option<&str> {
        match self.info.uri_sans.as_slice() {
            [only] if self.validated && only.starts_with("spiffe://") => Some(only),
            _ => None,
        }
    }

    /// The text that RBAC's `authenticated.principal_name` compares: the URI SAN, else the DNS SAN, else the
    /// subject, as Envoy documents it. `None` when the peer was not verified.
    pub fn principal(&self) -> Option<&str> {
        if !self.validated {
            return None;
        }
        let sans = self.info.uri_sans.first().or_else(|| self.info.dns_sans.first());
        Some(sans.map_or(self.info.subject.as_str(), String::as_str))
    }

    /// The leaf as URL-encoded PEM: XFCC's `Cert`.
    pub fn certificate_url_encoded_pem(&self) -> String {
        self.chain.first().map(|leaf| url_encoded(&pem(leaf))).unwrap_or_default()
    }

    /// The chain as URL-encoded PEM, leaf first: XFCC's `Chain`.
    pub fn chain_url_encoded_pem(&self) -> String {
        self.chain.iter().map(|link| url_encoded(&pem(link))).collect()
    }

    /// DER, leaf first.
    pub fn chain_der(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

/// The identities of one core's peers, kept once however many connections each has.
#[derive(Default)]
pub(crate) struct PeerCache(RefCell<Known>);

#[derive(Default)]
struct Known {
    /// By digest of chain and verdict. Holds at most as many dead entries as live ones.
    peers: HashMap<[u8; 32], Weak<PeerIdentity>>,
    sweep_at: usize,
}

impl PeerCache {
    /// Below this size dead entries are not worth a look.
    const SWEEP_MIN: usize = 64;

    /// The identity of a chain, shared with whoever holds it already; `None` as [`PeerIdentity::from_chain`].
    pub(crate) fn intern(&self, chain: &[CertificateDer<'_>], validated: bool) -> Option<Rc<PeerIdentity>> {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&[u8::from(validated)]);
        for link in chain {
            context.update(&(link.len() as u64).to_be_bytes());
            context.update(link);
        }
        let key = sha256_of(context);
        let known = &mut *self.0.borrow_mut();
        if let Some(peer) = known.peers.get(&key).and_then(Weak::upgrade) {
            return Some(peer);
        }
        let peer = Rc::new(PeerIdentity::from_chain(chain, validated)?);
        if known.peers.len() >= known.sweep_at {
            known.peers.retain(|_, peer| peer.strong_count() > 0);
            known.sweep_at = (known.peers.len() * 2).max(Self::SWEEP_MIN);
        }
        known.peers.insert(key, Rc::downgrade(&peer));
        Some(peer)
    }
}

/// RFC 7468 text of a certificate, 64 characters a line.
fn pem(der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const LINE: usize = 64;
    let mut text = String::with_capacity(der.len() * 3 / 2 + 64);
    text.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut column = 0;
    for group in der.chunks(3) {
        let bits =
            group.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for position in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * position)) as usize & 0x3f];
            text.push(if position > group.len() { '=' } else { char::from(digit) });
        }
        column += 4;
        if column == LINE {
            text.push('\n');
            column = 0;
        }
    }
    if column > 0 {
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn url_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(b"0123456789ABCDEF"[usize::from(byte >> 4)]));
            out.push(char::from(b"0123456789ABCDEF"[usize::from(byte & 15)]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};
    use rustls_pki_types::pem::PemObject;

    use super::*;

    fn chain(uris: &[&str]) -> Vec<CertificateDer<'static>> {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        for &uri in uris {
            params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        }
        vec![params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()]
    }

    #[test]
    fn pem_round_trips_through_url_encoding() {
        let chain = chain(&["spiffe://td/a"]);
        let peer = PeerIdentity::from_chain(&chain, true).unwrap();
        let encoded = peer.certificate_url_encoded_pem();
        assert!(encoded.starts_with("-----BEGIN%20CERTIFICATE-----%0A"), "{encoded}");
        assert!(!encoded.contains(['+', '/', '=', '\n', ' ']));
        assert_eq!(peer.chain_url_encoded_pem(), encoded);
        for len in 0..200 {
            let text = pem(&chain[0][..len]);
            let decoded = CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
            assert_eq!(decoded.as_ref(), &chain[0][..len]);
            assert!(text.lines().all(|line| line.len() <= 64));
        }
    }

    #[test]
    fn connections_of_one_peer_share_its_identity_and_gone_peers_are_forgotten() {
        let cache = PeerCache::default();
        let chain_a = chain(&["spiffe://td/a"]);
        let one = cache.intern(&chain_a, true).unwrap();
        assert!(Rc::ptr_eq(&one, &cache.intern(&chain_a, true).unwrap()));
        let unverified = cache.intern(&chain_a, false).unwrap();
        assert!(!Rc::ptr_eq(&one, &unverified) && !unverified.validated);
        for _ in 0..20 {
            // a renewed certificate is another peer
            assert!(!Rc::ptr_eq(&one, &cache.intern(&chain(&["spiffe://td/a"]), true).unwrap()));
        }
        let two_links = [chain_a[0].clone(), chain_a[0].clone()];
        for _ in 0..PeerCache::SWEEP_MIN {
            assert_eq!(cache.intern(&two_links, true).unwrap().chain_der().len(), 2);
        }
        cache.0.borrow_mut().sweep_at = 0;
        drop(cache.intern(&chain(&["spiffe://td/b"]), true));
        assert_eq!(cache.0.borrow().peers.len(), 3);
        assert!(Rc::ptr_eq(&one, &cache.intern(&chain_a, true).unwrap()));
    }

    #[test]
    fn principals_come_from_verified_certificates_only() {
        let one = PeerIdentity::from_chain(&chain(&["spiffe://td/a"]), true).unwrap();
        assert_eq!((one.spiffe_id(), one.principal()), (Some("spiffe://td/a"), Some("spiffe://td/a")));
        let unverified = PeerIdentity { validated: false, ..one };
        assert_eq!((unverified.spiffe_id(), unverified.principal()), (None, None));
        let two = PeerIdentity::from_chain(&chain(&["spiffe://td/a", "spiffe://td/b"]), true).unwrap();
        assert_eq!(two.spiffe_id(), None);
        let none = PeerIdentity::from_chain(&chain(&[]), true).unwrap();
        assert_eq!(none.principal(), Some("a.example"));
        assert!(PeerIdentity::from_chain(&[], true).is_none());
    }
}
