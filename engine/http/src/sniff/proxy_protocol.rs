//! The PROXY protocol, versions 1 and 2 (haproxy's proxy-protocol.txt): where a connection came from before it
//! passed a load balancer. Only a listener that is configured for it may look: "The receiver MUST be configured
//! to only receive the protocol described in this specification and MUST not try to guess".

use crate::{HttpError, Sink, sink::Full};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// "If the CRLF sequence is not found in the first 107 characters, the receiver should declare the line
/// invalid."
pub const V1_BYTES_MAX: usize = 107;
/// Bytes of a version 2 header with its TLVs that are waited for.
pub const V2_BYTES_MAX: usize = 8 * 1024;

const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED_BYTES: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    NeedMore,
    /// The first bytes are no PROXY header; a listener may allow that
    /// (allow_requests_without_proxy_protocol) or close.
    Absent,
    Present {
        /// None: the proxy speaks for itself, or for something that is not TCP: use the connection's own.
        addresses: Option<Addresses>,
        /// Bytes of the header; the connection's data follow.
        consumed: usize,
    },
}

/// Parses the header at the start of a connection.
///
/// # Errors
/// `ProxyHeader` if it begins as one and is malformed, `ProxyHeaderTooLarge`: close the connection.
pub fn parse_proxy_header(bytes: &[u8]) -> Result<ProxyHeader, HttpError> {
    if bytes.starts_with(V1_SIGNATURE) {
        return parse_v1(bytes);
    }
    if bytes.starts_with(V2_SIGNATURE) {
        return parse_v2(bytes);
    }
    if V1_SIGNATURE.starts_with(bytes) || V2_SIGNATURE.starts_with(bytes) {
        return Ok(ProxyHeader::NeedMore);
    }
    Ok(ProxyHeader::Absent)
}

fn parse_v1(bytes: &[u8]) -> Result<ProxyHeader, HttpError> {
    let window = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(newline) = memchr::memchr(b'\n', window) else {
        return if window.len() < V1_BYTES_MAX {
            Ok(ProxyHeader::NeedMore)
        } else {
            Err(HttpError::ProxyHeader)
        };
    };
    // "The receiver must not tolerate a single CR or LF character to end the line".
    let line = window[V1_SIGNATURE.len()..newline].strip_suffix(b"\r").ok_or(HttpError::ProxyHeader)?;
    let consumed = newline + 1;
    // "the receiver must ignore anything presented before the CRLF is found".
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Ok(ProxyHeader::Present { addresses: None, consumed });
    }
    let addresses = parse_v1_addresses(line).ok_or(HttpError::ProxyHeader)?;
    Ok(ProxyHeader::Present { addresses: Some(addresses), consumed })
}

fn parse_v1_addresses(line: &[u8]) -> Option<Addresses> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let family = words.next()?;
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, destination) = (address()?, address()?);
    let mut port = || -> Option<u16> {
        let word = words.next()?;
        // "Heading zeroes are not permitted in front of numbers".
        let valid = word.bytes().all(|b| b.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
        valid.then(|| word.parse().ok())?
    };
    let (source_port, destination_port) = (port()?, port()?);
    words.next().is_none().then(|| Addresses {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    })
}

fn parse_v2(bytes: &[u8]) -> Result<ProxyHeader, HttpError> {
    let Some((fixed, rest)) = bytes.split_at_checked(V2_FIXED_BYTES) else {
        // What is here already may be wrong: do not wait for the rest of it.
        let wrong = bytes.get(12).is_some_and(|b| !matches!(b, 0x20 | 0x21));
        return if wrong { Err(HttpError::ProxyHeader) } else { Ok(ProxyHeader::NeedMore) };
    };
    // "The highest four bits contains the version. As of this specification, it must always be sent as \x2
    // and the receiver must only accept this value." Commands: LOCAL 0, PROXY 1, "Receivers must drop
    // connections presenting unexpected values here."
    let is_proxy = match fixed[12] {
        0x20 => false,
        0x21 => true,
        _ => return Err(HttpError::ProxyHeader),
    };
    let len = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if V2_FIXED_BYTES + len > V2_BYTES_MAX {
        return Err(HttpError::ProxyHeaderTooLarge);
    }
    let Some(block) = rest.get(..len) else {
        return Ok(ProxyHeader::NeedMore);
    };
    let consumed = V2_FIXED_BYTES + len;
    if !is_proxy {
        return Ok(ProxyHeader::Present { addresses: None, consumed });
    }
    let addresses = match fixed[13] {
        0x11 => Some(v2_addresses::<4>(block).ok_or(HttpError::ProxyHeader)?),
        0x21 => Some(v2_addresses::<16>(block).ok_or(HttpError::ProxyHeader)?),
        // Valid combinations that are not TCP fall back to the connection's own addresses.
        0x00..=0x02 | 0x10 | 0x12 | 0x20 | 0x22 | 0x30..=0x32 => None,
        // "other values are unspecified [...] and must be rejected as invalid by receivers".
        _ => return Err(HttpError::ProxyHeader),
    };
    Ok(ProxyHeader::Present { addresses, consumed })
}

/// Two addresses of N bytes and two ports; TLVs follow and are not looked at.
fn v2_addresses<const N: usize>(block: &[u8]) -> Option<Addresses>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = block.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (ports, _) = rest.split_first_chunk::<4>()?;
    Some(Addresses {
        source: SocketAddr::new(IpAddr::from(*source), u16::from_be_bytes([ports[0], ports[1]])),
        destination: SocketAddr::new(IpAddr::from(*destination), u16::from_be_bytes([ports[2], ports[3]])),
    })
}

/// Both as IPv4, or both as IPv6 where one is: the header has one family.
fn one_family(addresses: &Addresses) -> (IpAddr, IpAddr) {
    match (addresses.source.ip().to_canonical(), addresses.destination.ip().to_canonical()) {
        (IpAddr::V4(s), IpAddr::V6(d)) => (IpAddr::V6(s.to_ipv6_mapped()), IpAddr::V6(d)),
        (IpAddr::V6(s), IpAddr::V4(d)) => (IpAddr::V6(s), IpAddr::V6(d.to_ipv6_mapped())),
        same => same,
    }
}

/// Writes a version 1 header; None writes `UNKNOWN`.
///
/// # Errors
/// `OutputFull`.
pub fn write_proxy_v1(addresses: Option<&Addresses>, out: &mut impl Sink) -> Result<(), HttpError> {
    let Some(addresses) = addresses else {
        return Ok(out.put(b"PROXY UNKNOWN\r\n")?);
    };
    let (source, destination) = one_family(addresses);
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (source_port, destination_port) = (addresses.source.port(), addresses.destination.port());
    let mut line = Line { bytes: [0; V1_BYTES_MAX], len: 0 };
    // An IPv4-mapped address is written in hexadecimal, as the specification has it.
    let written = match (source, destination) {
        (IpAddr::V6(s), IpAddr::V6(d)) => std::fmt::write(
            &mut line,
            format_args!("PROXY {family} {} {} {source_port} {destination_port}\r\n", Hex(s), Hex(d)),
        ),
        (s, d) => std::fmt::write(
            &mut line,
            format_args!("PROXY {family} {s} {d} {source_port} {destination_port}\r\n"),
        ),
    };
    written.map_err(|_| Full)?;
    Ok(out.put(&line.bytes[..line.len])?)
}

/// Writes a version 2 header without TLVs; None writes LOCAL.
///
/// # Errors
/// `OutputFull`.
pub fn write_proxy_v2(addresses: Option<&Addresses>, out: &mut impl Sink) -> Result<(), HttpError> {
    let mut header = [0u8; V2_FIXED_BYTES + 36];
    header[..12].copy_from_slice(V2_SIGNATURE);
    let Some(addresses) = addresses else {
        header[12] = 0x20;
        return Ok(out.put(&header[..V2_FIXED_BYTES])?);
    };
    header[12] = 0x21;
    let mut len = V2_FIXED_BYTES;
    let mut put = |bytes: &[u8]| {
        header[len..len + bytes.len()].copy_from_slice(bytes);
        len += bytes.len();
    };
    let family = match one_family(addresses) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            put(&s.octets());
            put(&d.octets());
            0x11
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            put(&s.octets());
            put(&d.octets());
            0x21
        }
        // `one_family` leaves no mixture.
        _ => return write_proxy_v2(None, out),
    };
    put(&addresses.source.port().to_be_bytes());
    put(&addresses.destination.port().to_be_bytes());
    header[13] = family;
    header[15] = (len - V2_FIXED_BYTES) as u8;
    Ok(out.put(&header[..len])?)
}

struct Hex(Ipv6Addr);

impl std::fmt::Display for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.to_ipv4_mapped().is_none() {
            return self.0.fmt(f);
        }
        let [.., a, b] = self.0.segments();
        write!(f, "::ffff:{a:x}:{b:x}")
    }
}

struct Line {
    bytes: [u8; V1_BYTES_MAX],
    len: usize,
}

impl std::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
#[path = "proxy_protocol_tests.rs"]
mod tests;
