//! What a certificate says: serial, names, validity, issuer; for `/certs`, XFCC and access logs.
use std::fmt::Write as _;
use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::der::{self, Der};

/// SAN entries of one certificate that are kept; a peer may present any number.
pub const SUBJECT_ALT_NAMES_MAX: usize = 256;

/// The readable fields of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Lower-case hex without separators or leading zero bytes, as Envoy's `/certs` prints it.
    pub serial: String,
    /// RFC 2253 text, most specific part first, such as `CN=edge,O=Example`.
    pub subject: String,
    /// RFC 2253 text of the issuer.
    pub issuer: String,
    /// Unix seconds.
    pub not_before_s: u64,
    /// Unix seconds.
    pub not_after_s: u64,
    pub uri_sans: Vec<String>,
    pub dns_sans: Vec<String>,
    pub ip_sans: Vec<IpAddr>,
    pub email_sans: Vec<String>,
}

impl CertificateInfo {
    /// Reads one DER certificate; `None` when its shape is not RFC 5280's.
    pub fn from_der(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parsed = EndEntityCert::try_from(certificate).ok()?;
        let mut info = Self {
            serial: hex_serial(parsed.serial()),
            subject: distinguished_name(parsed.subject()),
            issuer: distinguished_name(parsed.issuer()),
            not_before_s: 0,
            not_after_s: 0,
            // the names that authorization depends on come from the parser that verified the chain
            uri_sans: parsed.valid_uri_names().take(SUBJECT_ALT_NAMES_MAX).map(str::to_owned).collect(),
            dns_sans: parsed.valid_dns_names().take(SUBJECT_ALT_NAMES_MAX).map(str::to_owned).collect(),
            ip_sans: Vec::new(),
            email_sans: Vec::new(),
        };
        info.read_rest(certificate)?;
        Some(info)
    }

    /// Seconds until expiry at `now_s` (unix seconds), 0 when it has passed.
    pub fn seconds_left(&self, now_s: u64) -> u64 {
        self.not_after_s.saturating_sub(now_s)
    }

    /// Walks `TBSCertificate` (RFC 5280 section 4.1) for what webpki does not hand out.
    fn read_rest(&mut self, certificate: &[u8]) -> Option<()> {
        const VERSION: u8 = 0xa0;
        const EXTENSIONS: u8 = 0xa3;
        let mut outer = Der::new(Der::new(certificate).expect(der::SEQUENCE)?);
        let mut tbs = Der::new(outer.expect(der::SEQUENCE)?);
        tbs.optional(VERSION);
        tbs.expect(der::INTEGER)?; // serialNumber
        tbs.expect(der::SEQUENCE)?; // signature
        tbs.expect(der::SEQUENCE)?; // issuer
        let mut validity = Der::new(tbs.expect(der::SEQUENCE)?);
        let (tag, contents) = validity.next()?;
        self.not_before_s = der::time(tag, contents)?;
        let (tag, contents) = validity.next()?;
        self.not_after_s = der::time(tag, contents)?;
        while let Some((tag, contents)) = tbs.next() {
            if tag == EXTENSIONS {
                let mut extensions = Der::new(Der::new(contents).expect(der::SEQUENCE)?);
                while let Some(extension) = extensions.optional(der::SEQUENCE) {
                    self.read_extension(Der::new(extension));
                }
            }
        }
        Some(())
    }

    fn read_extension(&mut self, mut extension: Der<'_>) -> Option<()> {
        const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
        // RFC 5280 4.2.1.6 GeneralName: rfc822Name [1], iPAddress [7]
        const RFC822_NAME: u8 = 0x81;
        const IP_ADDRESS: u8 = 0x87;
        if extension.expect(der::OID)? != SUBJECT_ALT_NAME {
            return None;
        }
        extension.optional(der::BOOLEAN);
        let mut names = Der::new(Der::new(extension.expect(der::OCTET_STRING)?).expect(der::SEQUENCE)?);
        for _ in 0..SUBJECT_ALT_NAMES_MAX {
            match names.next()? {
                (RFC822_NAME, text) => {
                    self.email_sans.extend(std::str::from_utf8(text).ok().map(str::to_owned));
                }
                (IP_ADDRESS, octets) => {
                    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
                        self.ip_sans.push(v4.into());
                    } else if let Ok(v6) = <[u8; 16]>::try_from(octets) {
                        self.ip_sans.push(v6.into());
                    }
                }
                _ => {}
            }
        }
        Some(())
    }
}

/// Lower-case hex of any bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn hex_serial(serial: &[u8]) -> String {
    // DER pads a positive integer whose top bit is set
    let digits = serial.iter().position(|&byte| byte != 0).map_or(&serial[..0], |first| &serial[first..]);
    hex(digits)
}

/// RFC 2253 text of a Name's contents: parts in reverse order, escapes of section 2.4.
fn distinguished_name(contents: &[u8]) -> String {
    let mut parts = Vec::new();
    let mut names = Der::new(contents);
    // webpki gives the contents of the outer SEQUENCE
    while let Some(set) = names.optional(der::SET) {
        let mut set = Der::new(set);
        while let Some(pair) = set.optional(der::SEQUENCE) {
            let mut pair = Der::new(pair);
            let (Some(oid), Some((_, value))) = (pair.expect(der::OID), pair.next()) else { continue };
            parts.push((attribute_name(oid), String::from_utf8_lossy(value).into_owned()));
        }
    }
    let mut text = String::new();
    for (name, value) in parts.iter().rev() {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push('=');
        for (index, letter) in value.chars().enumerate() {
            let special = matches!(letter, ',' | '+' | '"' | '\\' | '<' | '>' | ';');
            if special || (index == 0 && matches!(letter, '#' | ' ')) {
                text.push('\\');
            }
            text.push(letter);
        }
    }
    text
}

fn attribute_name(oid: &[u8]) -> String {
    let name = match oid {
        [0x55, 0x04, 0x03] => "CN",
        [0x55, 0x04, 0x05] => "serialNumber",
        [0x55, 0x04, 0x06] => "C",
        [0x55, 0x04, 0x07] => "L",
        [0x55, 0x04, 0x08] => "ST",
        [0x55, 0x04, 0x09] => "street",
        [0x55, 0x04, 0x0a] => "O",
        [0x55, 0x04, 0x0b] => "OU",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19] => "DC",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01] => "emailAddress",
        other => return dotted(other),
    };
    name.to_owned()
}

/// Dotted decimal of an OID (X.690 section 8.19).
fn dotted(oid: &[u8]) -> String {
    let mut text = String::new();
    let mut value = 0u64;
    for &byte in oid {
        value = value.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        let _ = if text.is_empty() {
            let first = (value / 40).min(2);
            write!(text, "{first}.{}", value - first * 40)
        } else {
            write!(text, ".{value}")
        };
        value = 0;
    }
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, SerialNumber};

    use super::*;

    #[test]
    fn reads_every_field_of_a_generated_certificate() {
        let mut params = CertificateParams::new(vec!["payments.prod.svc".to_owned()]).unwrap();
        params
            .subject_alt_names
            .push(SanType::URI("spiffe://cluster.local/ns/prod/sa/payments".try_into().unwrap()));
        params.subject_alt_names.push(SanType::IpAddress("10.1.2.3".parse().unwrap()));
        params.subject_alt_names.push(SanType::IpAddress("fd00::7".parse().unwrap()));
        params.subject_alt_names.push(SanType::Rfc822Name("ops@example.com".try_into().unwrap()));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Example, Inc");
        params.distinguished_name.push(DnType::CommonName, "payments");
        params.serial_number = Some(SerialNumber::from_slice(&[0x9a, 0x01, 0x00]));
        params.not_before = rcgen::date_time_ymd(2024, 2, 29);
        params.not_after = rcgen::date_time_ymd(2051, 1, 1);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();

        let info = CertificateInfo::from_der(certificate.der()).unwrap();
        assert_eq!(info.serial, "9a0100");
        assert_eq!(info.subject, "CN=payments,O=Example\\, Inc");
        assert_eq!(info.issuer, info.subject);
        assert_eq!(info.not_before_s, 1_709_164_800);
        assert_eq!(info.not_after_s, 2_556_144_000);
        assert_eq!(info.uri_sans, ["spiffe://cluster.local/ns/prod/sa/payments"]);
        assert_eq!(info.dns_sans, ["payments.prod.svc"]);
        assert_eq!(info.ip_sans, ["10.1.2.3".parse::<IpAddr>().unwrap(), "fd00::7".parse().unwrap()]);
        assert_eq!(info.email_sans, ["ops@example.com"]);
        assert_eq!(info.seconds_left(info.not_after_s - 9), 9);
        assert_eq!(info.seconds_left(u64::MAX), 0);
    }

    #[test]
    fn garbage_and_truncation_are_refused_without_panic() {
        let certificate = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap().cert;
        let der = certificate.der();
        for len in 0..der.len() {
            assert_eq!(CertificateInfo::from_der(&CertificateDer::from(&der[..len])), None);
        }
    }

    #[test]
    fn unknown_attributes_are_dotted() {
        assert_eq!(dotted(&[0x2a, 0x86, 0x48]), "1.2.840");
        assert_eq!(dotted(&[0x88, 0x37]), "2.999");
    }
}
