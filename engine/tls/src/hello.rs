//! A look into the ClientHello (RFC 8446 section 4.1.2) before rustls takes it: server name and ALPN.
//!
//! rustls ends a handshake whose ALPN offers do not overlap; Envoy goes on without ALPN, and meshes rely on that
//! (a TCP client offers `istio` to a listener that lists HTTP protocols). The offer must be known to choose. Nothing
//! is judged here: what does not parse is left for rustls to refuse with the right alert.

/// Extensions of one hello that are looked at.
const EXTENSIONS_MAX: usize = 256;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// What a ClientHello asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Hello<'a> {
    pub server_name: Option<&'a str>,
    /// The offer, in the client's order; empty when there is none.
    pub alpn: Vec<&'a [u8]>,
}

/// Reads a whole handshake message; `None` when it is cut short or no ClientHello.
pub(crate) fn parse(message: &[u8]) -> Option<Hello<'_>> {
    let mut message = Cursor(message);
    if message.u8()? != CLIENT_HELLO {
        return None;
    }
    let mut body = Cursor(message.vector(3)?);
    body.take(2 + 32)?; // legacy_version, random
    body.vector(1)?; // legacy_session_id
    body.vector(2)?; // cipher_suites
    body.vector(1)?; // legacy_compression_methods
    let mut hello = Hello::default();
    if body.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = Cursor(body.vector(2)?);
    for _ in 0..EXTENSIONS_MAX {
        if extensions.0.is_empty() {
            break;
        }
        let (kind, data) = (extensions.u16()?, extensions.vector(2)?);
        match kind {
            SERVER_NAME => hello.server_name = server_name(data),
            ALPN => hello.alpn = protocols(data).unwrap_or_default(),
            _ => {}
        }
    }
    Some(hello)
}

/// RFC 6066 section 3: the first entry of type host_name.
fn server_name(data: &[u8]) -> Option<&str> {
    const HOST_NAME: u8 = 0;
    let mut list = Cursor(Cursor(data).vector(2)?);
    while !list.0.is_empty() {
        let (kind, name) = (list.u8()?, list.vector(2)?);
        if kind == HOST_NAME {
            return std::str::from_utf8(name).ok();
        }
    }
    None
}

/// RFC 7301 section 3.1.
fn protocols(data: &[u8]) -> Option<Vec<&[u8]>> {
    let mut list = Cursor(Cursor(data).vector(2)?);
    let mut found = Vec::new();
    while !list.0.is_empty() {
        found.push(list.vector(1)?);
    }
    Some(found)
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, width: usize) -> Option<usize> {
        Some(self.take(width)?.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)))
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.number(2).map(|number| number as u16)
    }

    /// A vector with a length field of `width` bytes.
    fn vector(&mut self, width: usize) -> Option<&'a [u8]> {
        let len = self.number(width)?;
        self.take(len)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::client::UnbufferedClientConnection;
    use rustls::unbuffered::ConnectionState;
    use rustls::{ClientConfig, RootCertStore};

    use super::*;

    fn client_hello(alpn: &[&[u8]]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let name = "outbound_.80_._.payments.prod.svc.cluster.local".try_into().unwrap();
        let mut client = UnbufferedClientConnection::new(Arc::new(config), name).unwrap();
        let mut record = vec![0; 8192];
        let Ok(ConnectionState::EncodeTlsData(mut data)) = client.process_tls_records(&mut []).state else {
            panic!("a client begins by sending")
        };
        let len = data.encode(&mut record).unwrap();
        record[5..len].to_vec()
    }

    #[test]
    fn reads_name_and_protocols_of_a_real_hello() {
        let message = client_hello(&[b"istio", b"h2"]);
        let hello = parse(&message).unwrap();
        assert_eq!(hello.server_name, Some("outbound_.80_._.payments.prod.svc.cluster.local"));
        assert_eq!(hello.alpn, [&b"istio"[..], b"h2"]);
        assert!(parse(&client_hello(&[])).unwrap().alpn.is_empty());
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_is_survived() {
        let message = client_hello(&[b"h2", b"http/1.1"]);
        for len in 0..message.len() {
            assert_eq!(parse(&message[..len]), None, "{len}");
        }
        for position in 0..message.len() {
            for bit in [0x01, 0x80, 0xff] {
                let mut damaged = message.clone();
                damaged[position] ^= bit;
                let _ = parse(&damaged);
            }
        }
    }
}
