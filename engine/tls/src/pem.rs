//! PEM texts, read strictly: a file that is being written is seen half done, and what is left of it may say less, or
//! more, than was meant. So a text is taken whole or not at all.
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::TlsError;

/// A PEM text and what error messages call it: the field and the file, or a secret's name.
#[derive(Clone, PartialEq, Eq)]
pub struct NamedPem {
    pub name: String,
    pub text: Vec<u8>,
}

impl NamedPem {
    pub fn new(name: impl Into<String>, text: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), text: text.into() }
    }
}

// the text may be a private key
impl std::fmt::Debug for NamedPem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("NamedPem").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Every block of one kind; others are passed over.
///
/// # Errors
/// Names the text where any of its blocks is not whole.
pub(crate) fn blocks<T: PemObject>(name: &str, text: &[u8]) -> Result<Vec<T>, TlsError> {
    let bad = |cause: String| TlsError::BadPem { resource: name.to_owned(), cause };
    check_whole(text).map_err(|cause| bad(cause.to_owned()))?;
    T::pem_slice_iter(text).collect::<Result<_, _>>().map_err(|error: pem::Error| bad(error.to_string()))
}

/// Every certificate, at least one.
///
/// # Errors
/// Names the text.
pub(crate) fn certificates(name: &str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = blocks(name, text)?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate { resource: name.to_owned() });
    }
    Ok(found)
}

/// # Errors
/// Names the text, and says so where the key is encrypted.
pub(crate) fn private_key(name: &str, text: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    if is_encrypted(text) {
        return Err(TlsError::EncryptedPrivateKey { resource: name.to_owned() });
    }
    let first = blocks::<PrivateKeyDer<'static>>(name, text)?.into_iter().next();
    first.ok_or_else(|| TlsError::NoPrivateKey { resource: name.to_owned() })
}

/// PKCS#8 says it in the label (RFC 7468, 11), the older forms in a header (RFC 1421, 4.6.1.1).
fn is_encrypted(text: &[u8]) -> bool {
    lines(text).any(|line| {
        line.starts_with(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
            || line.starts_with(b"Proc-Type: 4,ENCRYPTED")
    })
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii_end)
}

/// RFC 7468, 2: a block begins with one line and ends with another of the same label. What stands between blocks is for
/// readers, unless it is what a writer has got of such a line so far.
fn check_whole(text: &[u8]) -> Result<(), &'static str> {
    const CUT: &str = "a line that marks a block is cut short; is it still being written?";
    if text.contains(&0) {
        return Err("it has a zero byte; is it still being written?");
    }
    let mut open: Option<&[u8]> = None;
    let mut last: &[u8] = b"";
    for line in lines(text) {
        last = line;
        let label =
            |begin: &[u8]| line.strip_prefix(begin).map(|rest| rest.strip_suffix(b"-----").ok_or(CUT));
        if let Some(label) = label(b"-----BEGIN ") {
            if open.replace(label?).is_some() {
                return Err("a block begins inside another; was its end lost?");
            }
        } else if let Some(label) = label(b"-----END ")
            && open.take() != Some(label?)
        {
            return Err("a block ends that did not begin");
        }
    }
    match open {
        Some(_) => Err("its last block has no end; is it still being written?"),
        None if !last.is_empty() && b"-----BEGIN ".starts_with(last) => Err(CUT),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    fn found(text: &str) -> Result<usize, String> {
        certificates("ca.pem", text.as_bytes()).map(|found| found.len()).map_err(|e| e.to_string())
    }

    #[test]
    fn what_stands_around_blocks_is_passed_over() {
        let key = ONE.replace("CERTIFICATE", "PUBLIC KEY");
        let text =
            format!("# a root\r\n{}- x\n----------\n{key}{}", ONE.replace('\n', "\r\n"), ONE.trim_end());
        assert_eq!(found(&text), Ok(2));
    }

    #[test]
    fn a_text_cut_anywhere_gives_whole_blocks_or_an_error() {
        let two = [ONE, ONE].concat();
        for cut in 0..two.len() {
            let whole = match cut {
                // of the last line feed nothing depends
                _ if cut == two.len() - 1 => Ok(2),
                _ if cut == ONE.len() || cut == ONE.len() - 1 => Ok(1),
                _ => Err(()),
            };
            assert_eq!(found(&two[..cut]).map_err(drop), whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_text_that_lost_its_beginning_is_an_error() {
        let two = [ONE, ONE].concat();
        for cut in 1..ONE.find("-----END").expect("end") {
            assert!(found(&two[cut..]).is_err(), "from {cut}");
        }
    }

    #[test]
    fn holes_and_stray_marks_are_errors() {
        let begun = ONE.replace("-----END CERTIFICATE-----\n", ONE);
        for text in [&format!("{ONE}\0\0\0"), &begun, &ONE.replace("END C", "END X")] {
            assert!(found(text).expect_err(text).starts_with("ca.pem: not valid PEM ("), "{text}");
        }
    }

    #[test]
    fn an_empty_text_holds_no_certificate() {
        let said = "ca.pem: holds no certificate; is the file empty, or the key given in its place?";
        assert_eq!(found("").expect_err("empty"), said);
        assert_eq!(found("# nothing\n").expect_err("comment"), said);
    }

    #[test]
    fn an_encrypted_key_is_said_to_be_encrypted() {
        let pkcs8 = ONE.replace("CERTIFICATE", "ENCRYPTED PRIVATE KEY");
        let headers = "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n";
        let sec1 = ONE.replace("CERTIFICATE", "EC PRIVATE KEY").replacen("KEY-----\n", headers, 1);
        for text in [pkcs8, sec1] {
            let said = private_key("tls.key", text.as_bytes()).expect_err("encrypted").to_string();
            assert!(said.starts_with("tls.key: the private key is encrypted"), "{said}");
        }
    }
}
