//! SNI and ALPN out of a TLS ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3, RFC 7301 section 3.1),
//! without answering it. The handshake proper, which follows on the same bytes, checks the rest.

use crate::HttpError;

/// Bytes of a ClientHello with its record headers; Envoy's tls_inspector reads as much.
pub const CLIENT_HELLO_BYTES_MAX: usize = 64 * 1024;
/// Records that one may be spread over; real ones use a handful. It bounds the work of a look at a trickle.
const RECORDS_MAX: usize = 256;
/// RFC 6066 section 3: the name is a DNS host name.
const HOST_NAME_BYTES_MAX: usize = 255;
/// RFC 8446 section 5.1: "The length MUST NOT exceed 2^14 bytes."
const RECORD_BYTES_MAX: usize = 1 << 14;

const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ClientHello<'a> {
    /// The host name as sent: visible ASCII, in any case, without a port.
    pub server_name: Option<&'a [u8]>,
    /// The protocol_name_list, well-formed.
    alpn: &'a [u8],
}

impl<'a> ClientHello<'a> {
    /// Application protocols in the client's order; none if the extension is absent.
    pub fn alpn(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.alpn;
        std::iter::from_fn(move || {
            let (&len, tail) = rest.split_first()?;
            let (name, tail) = tail.split_at_checked(usize::from(len))?;
            rest = tail;
            Some(name)
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello<'a> {
    NeedMore,
    Complete(ClientHello<'a>),
}

/// Parses the first flight of a TLS client from its first byte. `scratch` takes the message where it is spread
/// over several records.
///
/// # Errors
/// `ClientHello`: it is none; `ClientHelloTooLarge`. Envoy counts these and goes on without SNI and ALPN.
pub fn parse_client_hello<'a>(bytes: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<Hello<'a>, HttpError> {
    let (message, enough) = match first_record(bytes)? {
        Some(fragment) if whole_message(fragment)?.is_some() => (fragment, true),
        _ => {
            let enough = reassemble(bytes, scratch)?;
            (scratch.as_slice(), enough)
        }
    };
    match whole_message(message)? {
        Some(body) => parse_body(body).map(Hello::Complete).ok_or(HttpError::ClientHello),
        None if enough || bytes.len() >= CLIENT_HELLO_BYTES_MAX => Err(HttpError::ClientHelloTooLarge),
        None => Ok(Hello::NeedMore),
    }
}

/// Length of the record at the start, if its header is here.
fn record_len(bytes: &[u8]) -> Result<Option<usize>, HttpError> {
    let header = &bytes[..bytes.len().min(5)];
    let valid = match header {
        [] | [22] | [22, 3] => true,
        [22, 3, minor, ..] => *minor <= 4,
        _ => false,
    };
    if !valid {
        return Err(HttpError::ClientHello);
    }
    let [_, _, _, high, low] = *header else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([high, low]));
    // RFC 8446 section 5.1: "Implementations MUST NOT send zero-length fragments of Handshake types".
    if len == 0 || len > RECORD_BYTES_MAX {
        return Err(HttpError::ClientHello);
    }
    Ok(Some(len))
}

/// The fragment of the first record, as much of it as is here.
fn first_record(bytes: &[u8]) -> Result<Option<&[u8]>, HttpError> {
    let Some(len) = record_len(bytes)? else { return Ok(None) };
    Ok(bytes.get(5..bytes.len().min(5 + len)))
}

/// Joins the fragments of all records into `scratch`; says whether that is all a ClientHello may have.
fn reassemble(bytes: &[u8], scratch: &mut Vec<u8>) -> Result<bool, HttpError> {
    scratch.clear();
    let mut rest = &bytes[..bytes.len().min(CLIENT_HELLO_BYTES_MAX)];
    let mut records = 0;
    while let Some(len) = record_len(rest)? {
        records += 1;
        if records > RECORDS_MAX {
            return Err(HttpError::ClientHelloTooLarge);
        }
        let fragment = &rest[5..rest.len().min(5 + len)];
        scratch.extend_from_slice(fragment);
        rest = &rest[5 + fragment.len()..];
        if whole_message(scratch)?.is_some() {
            break;
        }
    }
    Ok(bytes.len() > CLIENT_HELLO_BYTES_MAX)
}

/// The body of the handshake message at the start, if all of it is here.
fn whole_message(message: &[u8]) -> Result<Option<&[u8]>, HttpError> {
    match message {
        [] => Ok(None),
        [1, high, mid, low, body @ ..] => {
            let len = usize::from(*high) << 16 | usize::from(*mid) << 8 | usize::from(*low);
            if len > CLIENT_HELLO_BYTES_MAX {
                return Err(HttpError::ClientHelloTooLarge);
            }
            Ok(body.get(..len))
        }
        [1, ..] => Ok(None),
        _ => Err(HttpError::ClientHello),
    }
}

/// A cursor over vectors with a length before them (RFC 8446 section 3.4).
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
    fn vec8(&mut self) -> Option<&'a [u8]> {
        let len = self.take(1)?[0];
        self.take(usize::from(len))
    }
    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }
    fn vec16(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }
}

fn parse_body(body: &[u8]) -> Option<ClientHello<'_>> {
    let mut reader = Reader(body);
    reader.take(2 + 32)?; // legacy_version, random
    reader.vec8().filter(|id| id.len() <= 32)?;
    reader.vec16().filter(|suites| suites.len() >= 2 && suites.len() % 2 == 0)?;
    reader.vec8().filter(|methods| !methods.is_empty())?;
    let mut hello = ClientHello::default();
    // RFC 5246 section 7.4.1.2: the extensions may be missing altogether.
    if reader.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = Reader(reader.vec16()?);
    if !reader.0.is_empty() {
        return None;
    }
    let (mut seen_name, mut seen_alpn) = (false, false);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.vec16()?;
        // RFC 8446 section 4.2: "There MUST NOT be more than one extension of the same type".
        match kind {
            EXTENSION_SERVER_NAME if std::mem::replace(&mut seen_name, true) => return None,
            EXTENSION_ALPN if std::mem::replace(&mut seen_alpn, true) => return None,
            EXTENSION_SERVER_NAME => hello.server_name = parse_server_name(data)?,
            EXTENSION_ALPN => hello.alpn = parse_alpn(data)?,
            _ => {}
        }
    }
    Some(hello)
}

/// The outer Option is validity.
fn parse_server_name(data: &[u8]) -> Option<Option<&[u8]>> {
    let mut outer = Reader(data);
    let mut list = Reader(outer.vec16().filter(|list| !list.is_empty())?);
    if !outer.0.is_empty() {
        return None;
    }
    let mut host = None;
    while !list.0.is_empty() {
        let kind = list.take(1)?[0];
        let name = list.vec16()?;
        if kind != 0 {
            continue;
        }
        // RFC 6066 section 3: "The ServerNameList MUST NOT contain more than one name of the same name_type."
        let visible = name.iter().all(|b| matches!(b, 0x21..=0x7e));
        if host.is_some() || !visible || !(1..=HOST_NAME_BYTES_MAX).contains(&name.len()) {
            return None;
        }
        host = Some(name);
    }
    Some(host)
}

fn parse_alpn(data: &[u8]) -> Option<&[u8]> {
    let mut outer = Reader(data);
    let names = outer.vec16().filter(|names| names.len() >= 2)?;
    let mut list = Reader(names);
    while !list.0.is_empty() {
        // RFC 7301 section 3.1: "Empty strings MUST NOT be included".
        list.vec8().filter(|name| !name.is_empty())?;
    }
    outer.0.is_empty().then_some(names)
}

#[cfg(test)]
#[path = "client_hello_tests.rs"]
mod tests;
