//! Which subject alternative names of a peer are accepted.
use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::digest;

use crate::certificate::CertificateInfo;

/// Matchers in one validation context.
pub const SAN_MATCHERS_MAX: usize = 4096;

/// The kind of subject alternative name that a matcher looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SanKind {
    Uri,
    Dns,
    Ip,
    Email,
    /// Every kind: Envoy's deprecated `match_subject_alt_names`.
    Any,
}

/// How a matcher compares text.
#[derive(Clone)]
pub enum TextMatcher {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    /// A full match of `pattern`, compiled by the caller. Two matchers with one pattern count as equal.
    Regex {
        pattern: String,
        is_match: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    },
}

/// One accepted subject alternative name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SanMatch {
    pub kind: SanKind,
    pub matcher: TextMatcher,
    /// Compares ASCII letters without case; not for `Regex`. An exact DNS name is always compared so.
    pub ignore_case: bool,
}

impl SanMatch {
    /// The matcher that Istio writes most: one exact URI.
    pub fn exact_uri(uri: impl Into<String>) -> Self {
        Self { kind: SanKind::Uri, matcher: TextMatcher::Exact(uri.into()), ignore_case: false }
    }

    /// Whether a name of the peer's certificate is accepted.
    pub fn accepts(&self, peer: &CertificateInfo) -> bool {
        let any = |texts: &[String]| texts.iter().any(|text| self.matcher.accepts(text, self.ignore_case));
        match self.kind {
            SanKind::Uri => any(&peer.uri_sans),
            SanKind::Dns => peer.dns_sans.iter().any(|name| self.accepts_dns(name)),
            SanKind::Email => any(&peer.email_sans),
            SanKind::Ip => peer.ip_sans.iter().any(|&address| self.accepts_ip(address)),
            SanKind::Any => {
                any(&peer.uri_sans)
                    || any(&peer.email_sans)
                    || peer.dns_sans.iter().any(|name| self.accepts_dns(name))
                    || peer.ip_sans.iter().any(|&address| self.accepts_ip(address))
            }
        }
    }

    fn accepts_ip(&self, address: IpAddr) -> bool {
        if let TextMatcher::Exact(expected) = &self.matcher
            && let Ok(expected) = expected.parse::<IpAddr>()
        {
            return expected == address;
        }
        self.matcher.accepts(&address.to_string(), self.ignore_case)
    }

    fn accepts_dns(&self, name: &str) -> bool {
        let TextMatcher::Exact(expected) = &self.matcher else {
            return self.matcher.accepts(name, self.ignore_case);
        };
        // RFC 6125 6.4.3: a presented "*" stands for the whole leftmost label, and for nothing else
        let wildcard = name.strip_prefix("*.").is_some_and(|parent| {
            expected
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent))
        });
        // RFC 6125 6.4.1: names compare without case, whatever `ignore_case` says
        wildcard || expected.eq_ignore_ascii_case(name)
    }

    pub(crate) fn feed(&self, digest: &mut digest::Context) {
        let (form, text) = match &self.matcher {
            TextMatcher::Exact(text) => (0u8, text),
            TextMatcher::Prefix(text) => (1, text),
            TextMatcher::Suffix(text) => (2, text),
            TextMatcher::Contains(text) => (3, text),
            TextMatcher::Regex { pattern, .. } => (4, pattern),
        };
        digest.update(&[self.kind as u8, form, u8::from(self.ignore_case)]);
        digest.update(&(text.len() as u64).to_be_bytes());
        digest.update(text.as_bytes());
    }
}

impl TextMatcher {
    fn accepts(&self, text: &str, ignore_case: bool) -> bool {
        if ignore_case {
            let lower = |text: &str| text.to_ascii_lowercase();
            return match self {
                Self::Exact(wanted) => wanted.eq_ignore_ascii_case(text),
                Self::Prefix(wanted) => lower(text).starts_with(&lower(wanted)),
                Self::Suffix(wanted) => lower(text).ends_with(&lower(wanted)),
                Self::Contains(wanted) => lower(text).contains(&lower(wanted)),
                Self::Regex { is_match, .. } => is_match(text),
            };
        }
        match self {
            Self::Exact(wanted) => wanted == text,
            Self::Prefix(wanted) => text.starts_with(wanted.as_str()),
            Self::Suffix(wanted) => text.ends_with(wanted.as_str()),
            Self::Contains(wanted) => text.contains(wanted.as_str()),
            Self::Regex { is_match, .. } => is_match(text),
        }
    }
}

impl std::fmt::Debug for TextMatcher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(text) => write!(formatter, "exact {text:?}"),
            Self::Prefix(text) => write!(formatter, "prefix {text:?}"),
            Self::Suffix(text) => write!(formatter, "suffix {text:?}"),
            Self::Contains(text) => write!(formatter, "contains {text:?}"),
            Self::Regex { pattern, .. } => write!(formatter, "regex {pattern:?}"),
        }
    }
}

impl PartialEq for TextMatcher {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(one), Self::Exact(two))
            | (Self::Prefix(one), Self::Prefix(two))
            | (Self::Suffix(one), Self::Suffix(two))
            | (Self::Contains(one), Self::Contains(two))
            | (Self::Regex { pattern: one, .. }, Self::Regex { pattern: two, .. }) => one == two,
            _ => false,
        }
    }
}

impl Eq for TextMatcher {}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> CertificateInfo {
        CertificateInfo {
            serial: String::new(),
            subject: String::new(),
            issuer: String::new(),
            not_before_s: 0,
            not_after_s: 0,
            uri_sans: vec!["spiffe://cluster.local/ns/prod/sa/orders".to_owned()],
            dns_sans: vec!["orders.prod.svc".to_owned(), "*.example.com".to_owned()],
            ip_sans: vec!["fd00::1".parse().unwrap()],
            email_sans: vec!["ops@example.com".to_owned()],
        }
    }

    fn accepts(kind: SanKind, matcher: TextMatcher, ignore_case: bool) -> bool {
        SanMatch { kind, matcher, ignore_case }.accepts(&peer())
    }

    #[test]
    fn every_form_matches_its_kind_only() {
        let text = str::to_owned;
        assert!(accepts(
            SanKind::Uri,
            TextMatcher::Exact(text("spiffe://cluster.local/ns/prod/sa/orders")),
            false
        ));
        assert!(!accepts(
            SanKind::Dns,
            TextMatcher::Exact(text("spiffe://cluster.local/ns/prod/sa/orders")),
            false
        ));
        assert!(!accepts(
            SanKind::Uri,
            TextMatcher::Exact(text("spiffe://cluster.local/ns/prod/sa/order")),
            false
        ));
        assert!(!accepts(
            SanKind::Uri,
            TextMatcher::Exact(text("SPIFFE://cluster.local/ns/prod/sa/orders")),
            false
        ));
        assert!(accepts(
            SanKind::Uri,
            TextMatcher::Exact(text("SPIFFE://cluster.local/ns/prod/sa/orders")),
            true
        ));
        assert!(accepts(SanKind::Uri, TextMatcher::Prefix(text("spiffe://cluster.local/ns/prod/")), false));
        assert!(accepts(SanKind::Uri, TextMatcher::Suffix(text("/sa/orders")), false));
        assert!(accepts(SanKind::Uri, TextMatcher::Contains(text("/NS/prod")), true));
        assert!(!accepts(SanKind::Uri, TextMatcher::Contains(text("/NS/prod")), false));
        assert!(accepts(SanKind::Email, TextMatcher::Suffix(text("@example.com")), false));
        assert!(accepts(SanKind::Any, TextMatcher::Exact(text("orders.prod.svc")), false));
        let is_match: Arc<dyn Fn(&str) -> bool + Send + Sync> = Arc::new(|name| name.contains("/sa/"));
        assert!(accepts(SanKind::Uri, TextMatcher::Regex { pattern: text(".*/sa/.*"), is_match }, false));
    }

    #[test]
    fn addresses_compare_as_addresses_and_wildcards_cover_one_label() {
        let exact = |text: &str| TextMatcher::Exact(text.to_owned());
        assert!(accepts(SanKind::Ip, exact("fd00:0:0::1"), false));
        assert!(!accepts(SanKind::Ip, exact("fd00::2"), false));
        assert!(accepts(SanKind::Dns, exact("Orders.PROD.svc"), false));
        assert!(accepts(SanKind::Any, exact("Orders.PROD.svc"), false));
        assert!(!accepts(SanKind::Dns, TextMatcher::Prefix("Orders.".to_owned()), false));
        assert!(accepts(SanKind::Dns, exact("www.example.com"), false));
        assert!(!accepts(SanKind::Dns, exact("a.www.example.com"), false));
        assert!(!accepts(SanKind::Dns, exact("example.com"), false));
        assert!(!accepts(SanKind::Dns, exact(".example.com"), false));
    }
}
