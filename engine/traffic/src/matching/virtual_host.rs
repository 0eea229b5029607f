//! The virtual host of an authority. Search order (VirtualHost.domains): exact, longest suffix wildcard, longest
//! prefix wildcard, `*`. RFC 9110 section 4.2.3: the host is compared in any case.

use corelane_http::head::split_port;
use corelane_snapshot::{RouteTable, VirtualHost};
use std::sync::Arc;

/// RFC 1035 section 2.3.4 bounds a name to 255 octets; longer ones match no exact domain.
const DOMAIN_BYTES_MAX: usize = 255 + ":65535".len();

/// None: no domain matches (NR).
pub fn virtual_host<'t>(table: &'t RouteTable, authority: &[u8]) -> Option<&'t Arc<VirtualHost>> {
    let host = if table.ignore_port_in_host_matching { split_port(authority).0 } else { authority };
    let index = &table.hosts;
    let mut folded = [0u8; DOMAIN_BYTES_MAX];
    let host = match folded.get_mut(..host.len()) {
        Some(lower) if host.iter().any(u8::is_ascii_uppercase) => {
            lower.copy_from_slice(host);
            lower.make_ascii_lowercase();
            &*lower
        }
        _ => host,
    };
    let number = index.exact.get(host).copied();
    // Envoy: a wildcard stands for at least one byte
    let wild = |text: &[u8]| host.len() > text.len();
    let number = number.or_else(|| {
        let suffix = |(text, _): &&(Box<[u8]>, u32)| wild(text) && ends_with(host, text);
        index.suffixes.iter().find(suffix).map(|entry| entry.1)
    });
    let number = number.or_else(|| {
        let prefix = |(text, _): &&(Box<[u8]>, u32)| wild(text) && starts_with(host, text);
        index.prefixes.iter().find(prefix).map(|entry| entry.1)
    });
    index.hosts.get(number.or(index.any)? as usize)
}

fn ends_with(host: &[u8], text: &[u8]) -> bool {
    host.len() >= text.len() && host[host.len() - text.len()..].eq_ignore_ascii_case(text)
}

fn starts_with(host: &[u8], text: &[u8]) -> bool {
    host.len() >= text.len() && host[..text.len()].eq_ignore_ascii_case(text)
}
