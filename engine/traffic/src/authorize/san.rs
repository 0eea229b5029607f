//! Names of a certificate against a matcher of one kind of them (SubjectAltNameMatcher).

use super::Peer;
use crate::text::{ADDRESS_TEXT_MAX, address_text};
use corelane_snapshot::{SanKind, SanMatcher, StringMatcher};
use std::net::IpAddr;

pub(super) fn accepts(san: &SanMatcher, peer: &Peer<'_>) -> bool {
    let any = |names: &[String]| names.iter().any(|name| san.matcher.matches(name.as_bytes()));
    let is = |kind| san.kind.is_none_or(|wanted| wanted == kind);
    is(SanKind::Uri) && any(peer.uri_sans)
        || is(SanKind::Dns) && peer.dns_sans.iter().any(|name| accepts_dns(&san.matcher, name))
        || is(SanKind::Email) && any(peer.email_sans)
        || is(SanKind::Ip) && peer.ip_sans.iter().any(|&address| accepts_ip(&san.matcher, address))
}

/// RFC 6125 6.4.1: names compare without case. 6.4.3: a presented "*" stands for the whole leftmost label, and for
/// nothing else.
fn accepts_dns(matcher: &StringMatcher, name: &str) -> bool {
    let StringMatcher::Exact { text, .. } = matcher else { return matcher.matches(name.as_bytes()) };
    let wildcard = name.strip_prefix("*.").is_some_and(|parent| {
        let dot = text.iter().position(|&byte| byte == b'.').filter(|&dot| dot > 0);
        dot.is_some_and(|dot| text[dot + 1..].eq_ignore_ascii_case(parent.as_bytes()))
    });
    wildcard || text.eq_ignore_ascii_case(name.as_bytes())
}

fn accepts_ip(matcher: &StringMatcher, address: IpAddr) -> bool {
    matcher.matches(address_text(address, &mut [0; ADDRESS_TEXT_MAX]))
}
