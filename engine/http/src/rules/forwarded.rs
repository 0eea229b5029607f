//! Whose request it is: the trusted client address out of X-Forwarded-For, and the headers that tell it on
//! (x-forwarded-for, x-forwarded-proto, x-envoy-internal, x-envoy-external-address, via, x-request-id, and
//! `:scheme`). What only an internal caller may say is removed from everybody else's requests.

use super::request_id::uuid_v4;
use crate::{Fields, HttpError, Known, RequestHead, Version, list};
use std::net::IpAddr;

/// The HttpConnectionManager's settings of these names.
#[derive(Clone, Copy)]
pub struct ForwardedRules<'a> {
    pub use_remote_address: bool,
    pub skip_xff_append: bool,
    pub xff_trusted_hops: u32,
    /// Text to append to Via, such as `1.1 envoy`.
    pub via: Option<&'a [u8]>,
    pub generate_request_id: bool,
    pub preserve_external_request_id: bool,
    /// `http` or `https` whatever came (scheme_header_transformation).
    pub scheme_overwrite: Option<&'a [u8]>,
    /// What to append to XFF for a peer on loopback, which means nothing to others; None: its address.
    pub node_address: Option<IpAddr>,
    /// internal_address_config; nobody is internal by default.
    pub is_internal: &'a dyn Fn(IpAddr) -> bool,
}

/// The downstream connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub address: IpAddr,
    pub is_tls: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The earliest source address that is known to be right.
    pub client: IpAddr,
    /// The request comes from inside: its x-envoy-* wishes were kept.
    pub is_internal: bool,
}

/// Rewrites the head of a request; `random` becomes its id if it needs one. Call it once a request, after
/// `remove_hop_by_hop`.
///
/// # Errors
/// `InvalidTarget`: an HTTP/1 target with scheme https on a connection without TLS, which would make the
/// upstream believe in an encryption that there was not.
pub fn apply_forwarded_rules(
    head: &mut RequestHead,
    rules: &ForwardedRules<'_>,
    peer: &Peer,
    random: [u8; 16],
) -> Result<Origin, HttpError> {
    let by_connection: &[u8] = if peer.is_tls { b"https" } else { b"http" };
    if head.version != Version::H2 && head.scheme() == b"https" && !peer.is_tls {
        return Err(HttpError::InvalidTarget);
    }
    let fields = &mut head.fields;
    fields.remove(Known::XEnvoyInternal);
    sanitize_referer(fields);
    let (found, single) = trusted_address(fields, rules, peer);
    if rules.use_remote_address {
        // "Downstream x-forwarded-proto headers will only be trusted if xff_num_trusted_hops is non-zero."
        if rules.xff_trusted_hops == 0 {
            fields.remove(Known::XForwardedProto);
        }
        if !rules.skip_xff_append {
            append_xff(fields, rules, peer);
        }
    }
    if !fields.contains(Known::XForwardedProto) {
        fields.append_known(Known::XForwardedProto, by_connection);
    }
    let is_internal = single && found.is_some_and(rules.is_internal);
    let is_edge = rules.use_remote_address && !is_internal;
    let client = found.unwrap_or(peer.address);
    if is_internal {
        fields.append_known(Known::XEnvoyInternal, b"true");
    } else {
        remove_internal_fields(fields, is_edge);
    }
    if let Some(via) = rules.via {
        fields.extend_list(Known::Via, b", ", via);
    }
    if is_edge {
        let mut text = AddressText::new();
        fields.set(Known::XEnvoyExternalAddress, text.write(client));
    }
    if rules.generate_request_id {
        let replace = is_edge && !rules.preserve_external_request_id;
        if replace || !fields.contains(Known::XRequestId) {
            fields.set(Known::XRequestId, &uuid_v4(random));
        }
    }
    set_scheme(head, rules, by_connection)?;
    Ok(Origin { client, is_internal })
}

/// Envoy drops a Referer that is there twice or is no absolute URL.
fn sanitize_referer(fields: &mut Fields) {
    let mut values = fields.get_all(Known::Referer);
    let Some(value) = values.next() else { return };
    let scheme = memchr::memmem::find(value, b"://").unwrap_or(0);
    let is_scheme = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    let has_host = value.get(scheme + 3).is_some_and(|b| !matches!(b, b'/' | b'?' | b'#'));
    let valid = scheme > 0 && value[..scheme].iter().all(is_scheme) && has_host && values.next().is_none();
    if !valid {
        drop(values);
        fields.remove(Known::Referer);
    }
}

fn set_scheme(
    head: &mut RequestHead,
    rules: &ForwardedRules<'_>,
    by_connection: &[u8],
) -> Result<(), HttpError> {
    if let Some(scheme) = rules.scheme_overwrite {
        head.fields.set(Known::XForwardedProto, scheme);
        return head.set_scheme(scheme);
    }
    if !head.scheme().is_empty() {
        return Ok(());
    }
    match head.fields.get(Known::XForwardedProto) {
        Some(proto) if proto.eq_ignore_ascii_case(b"https") => head.set_scheme(b"https"),
        Some(proto) if proto.eq_ignore_ascii_case(b"http") => head.set_scheme(b"http"),
        _ => head.set_scheme(by_connection),
    }
}

/// The trusted client address, if there is one by these rules, and whether it is the only one known.
fn trusted_address(fields: &Fields, rules: &ForwardedRules<'_>, peer: &Peer) -> (Option<IpAddr>, bool) {
    let hops = rules.xff_trusted_hops as usize;
    if rules.use_remote_address {
        // "the trusted client address is the Nth address from the right end of XFF", else the peer's.
        let from_xff = hops.checked_sub(1).and_then(|skip| xff_from_right(fields, skip).0);
        return (from_xff.or(Some(peer.address)), !fields.contains(Known::XForwardedFor));
    }
    // "the trusted client address is the (N+1)th address from the right end of XFF".
    xff_from_right(fields, hops)
}

/// The address after `skip` others from the right, and whether it is the only one; all lines are one list.
fn xff_from_right(fields: &Fields, skip: usize) -> (Option<IpAddr>, bool) {
    let count = fields.get_all(Known::XForwardedFor).flat_map(list::elements).count();
    let Some(index) = count.checked_sub(skip + 1) else {
        return (None, false);
    };
    let element = fields.get_all(Known::XForwardedFor).flat_map(list::elements).nth(index);
    let address = element.and_then(|e| std::str::from_utf8(e).ok()).and_then(|text| text.parse().ok());
    (address, count == 1)
}

fn append_xff(fields: &mut Fields, rules: &ForwardedRules<'_>, peer: &Peer) {
    let address = match rules.node_address {
        Some(node) if peer.address.to_canonical().is_loopback() => node,
        _ => peer.address,
    };
    let mut text = AddressText::new();
    // Envoy's separator has no space.
    fields.extend_list(Known::XForwardedFor, b",", text.write(address));
}

/// Fields by which an internal caller steers the proxy.
fn remove_internal_fields(fields: &mut Fields, is_edge: bool) {
    const EDGE: [Known; 4] = [
        Known::XEnvoyDecoratorOperation,
        Known::XEnvoyDownstreamServiceCluster,
        Known::XEnvoyDownstreamServiceNode,
        Known::XEnvoyOriginalPath,
    ];
    const EXTERNAL: [Known; 14] = [
        Known::XEnvoyRetriableStatusCodes,
        Known::XEnvoyRetriableHeaderNames,
        Known::XEnvoyRetryOn,
        Known::XEnvoyRetryGrpcOn,
        Known::XEnvoyMaxRetries,
        Known::XEnvoyUpstreamAltStatName,
        Known::XEnvoyUpstreamRqTimeoutMs,
        Known::XEnvoyUpstreamRqPerTryTimeoutMs,
        Known::XEnvoyUpstreamRqTimeoutAltResponse,
        Known::XEnvoyExpectedRqTimeoutMs,
        Known::XEnvoyForceTrace,
        Known::XEnvoyIpTags,
        Known::XEnvoyOriginalUrl,
        Known::XEnvoyHedgeOnPerTryTimeout,
    ];
    for known in EXTERNAL {
        fields.remove(known);
    }
    for known in EDGE {
        if is_edge {
            fields.remove(known);
        }
    }
}

/// The text of an address, without allocation.
struct AddressText {
    // The longest is an IPv6 address with an embedded IPv4 one: 45 bytes.
    bytes: [u8; 48],
    len: usize,
}

impl AddressText {
    fn new() -> AddressText {
        AddressText { bytes: [0; 48], len: 0 }
    }

    fn write(&mut self, address: IpAddr) -> &[u8] {
        self.len = 0;
        match address.to_canonical() {
            // The formatting machinery costs ten times this, and nearly every address is one.
            IpAddr::V4(v4) => v4.octets().into_iter().for_each(|octet| self.push_octet(octet)),
            // Its own writer cannot fail on 45 bytes.
            v6 => drop(std::fmt::write(self, format_args!("{v6}"))),
        }
        &self.bytes[..self.len]
    }
}

impl AddressText {
    fn push_octet(&mut self, octet: u8) {
        let digits = [octet / 100, octet / 10 % 10, octet % 10].map(|d| d + b'0');
        let leading = usize::from(octet < 100) + usize::from(octet < 10);
        let text = &digits[leading..];
        let dot = usize::from(self.len > 0);
        self.bytes[self.len] = b'.';
        let start = self.len + dot;
        self.bytes[start..start + text.len()].copy_from_slice(text);
        self.len = start + text.len();
    }
}

impl std::fmt::Write for AddressText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
#[path = "forwarded_tests.rs"]
mod tests;
