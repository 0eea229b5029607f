//! From what a snapshot says about TLS to what the TLS crate builds contexts from: named files read, names and pins
//! decoded.

use super::Part;
use corelane_snapshot::{
    DataSource, DownstreamTls, SanKind, SanMatcher, StringMatcher, TlsCertificate, TlsParams, TlsValidation,
    TlsVersion, UpstreamTls,
};
use corelane_tls::{
    CertifiedPem, ClientSpec, ContextEnvironment, NamedPem, PairPart, ProtocolSpec, SanMatch, ServerSpec,
    TextMatcher, TlsError, ValidationSpec, check_pair, check_revocation_lists, check_trust_bundle,
};
use std::{
    cell::RefCell,
    collections::HashMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Bytes of one certificate, key or bundle file.
pub const SECRET_BYTES_MAX: usize = 4 << 20;

/// Reads each file once for all the contexts of one pass; clear it for the next.
#[derive(Default)]
pub struct Files(RefCell<HashMap<PathBuf, Contents>>);

type Contents = Result<Arc<[u8]>, String>;

impl Files {
    pub fn read(&self, path: &Path) -> Result<Arc<[u8]>, String> {
        self.0.borrow_mut().entry(path.to_owned()).or_insert_with(|| read(path)).clone()
    }
}

fn read(path: &Path) -> Result<Arc<[u8]>, String> {
    let name = path.display();
    // to open a pipe waits for its writer, and a device may have no end
    if !std::fs::metadata(path).map_err(|e| unreadable(path, &e))?.is_file() {
        return Err(format!("{name}: not a regular file; a certificate, key or list is read from one"));
    }
    let mut bytes = Vec::new();
    // the file may have grown since, or never said how long it is
    let mut file = File::open(path).map_err(|e| unreadable(path, &e))?.take(SECRET_BYTES_MAX as u64 + 1);
    file.read_to_end(&mut bytes).map_err(|e| unreadable(path, &e))?;
    if bytes.len() > SECRET_BYTES_MAX {
        return Err(format!(
            "{name}: more than {SECRET_BYTES_MAX} bytes, the limit for a certificate, key or list"
        ));
    }
    Ok(bytes.into())
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound => "; is the volume mounted?",
        std::io::ErrorKind::PermissionDenied => "; is it readable for the proxy's user?",
        _ => "",
    };
    format!("{}: cannot read: {error}{hint}", path.display())
}

/// Every file that the context is made from.
pub fn files_of(certificates: &[TlsCertificate], validation: Option<&TlsValidation>) -> Vec<PathBuf> {
    let mut sources: Vec<&DataSource> =
        certificates.iter().flat_map(|pair| [&pair.chain, &pair.key]).collect();
    sources.extend(validation.and_then(|validation| validation.trusted_ca.as_ref()));
    sources.extend(validation.and_then(|validation| validation.crl.as_ref()));
    let file = |source: &DataSource| match source {
        DataSource::File(path) => Some(path.clone()),
        DataSource::Inline(_) | DataSource::Secret(_) => None,
    };
    sources.into_iter().filter_map(file).collect()
}

/// # Errors
/// Names the file or the value that can't be used.
pub fn server(name: &str, tls: &DownstreamTls, files: &Files) -> Result<ServerSpec, String> {
    let certificates =
        tls.certificates.iter().map(|pair| certificate(pair, files)).collect::<Result<Vec<_>, _>>()?;
    Ok(ServerSpec {
        name: name.to_owned(),
        certificates,
        client_validation: tls.validation.as_ref().map(|v| validation(v, files)).transpose()?,
        require_client_certificate: tls.require_client_certificate,
        alpn: tls.alpn.clone(),
        protocol: protocol(&tls.params),
        session_tickets: tls.session_tickets,
        session_timeout_s: tls.session_timeout_s,
        record_path: Default::default(),
    })
}

/// # Errors
/// Names the file or the value that can't be used.
pub fn client(name: &str, tls: &UpstreamTls, files: &Files) -> Result<ClientSpec, String> {
    let mut spec = ClientSpec::new(name);
    spec.sni.clone_from(&tls.sni);
    spec.alpn.clone_from(&tls.alpn);
    spec.certificate = tls.certificate.as_ref().map(|pair| certificate(pair, files)).transpose()?;
    spec.validation = tls.validation.as_ref().map(|v| validation(v, files)).transpose()?;
    spec.protocol = protocol(&tls.params);
    spec.session_keys_max = tls.session_keys_max as usize;
    Ok(spec)
}

/// What is wrong with each part of a context by itself, and with pairs.
pub fn faults(
    certificates: &[TlsCertificate],
    validation: Option<&TlsValidation>,
    files: &Files,
    environment: &ContextEnvironment,
) -> Vec<(Part, String)> {
    let part = |field, source: &DataSource| Part { field, value: name_of(source) };
    let mut faults = Vec::new();
    for pair in certificates {
        let (chain, key) = (part("certificate_chain", &pair.chain), part("private_key", &pair.key));
        match certificate(pair, files) {
            Ok(pem) => {
                for (at, error) in check_pair(&pem, environment) {
                    let part = if at == PairPart::Chain { &chain } else { &key };
                    faults.push((part.clone(), error.to_string()));
                }
            }
            Err(_) => {
                faults.extend(bytes(&pair.chain, files).err().map(|error| (chain, error)));
                faults.extend(bytes(&pair.key, files).err().map(|error| (key, error)));
            }
        }
    }
    let mut check = |field, source: &Option<DataSource>, check: fn(&NamedPem) -> Result<(), TlsError>| {
        let Some(source) = source else { return };
        let checked = pem(source, files).and_then(|pem| check(&pem).map_err(|error| error.to_string()));
        faults.extend(checked.err().map(|error| (part(field, source), error)));
    };
    if let Some(validation) = validation {
        check("trusted_ca", &validation.trusted_ca, check_trust_bundle);
        check("crl", &validation.crl, check_revocation_lists);
    }
    faults
}

fn certificate(pair: &TlsCertificate, files: &Files) -> Result<CertifiedPem, String> {
    Ok(CertifiedPem {
        name: name_of(&pair.chain),
        key_name: name_of(&pair.key),
        chain: bytes(&pair.chain, files)?,
        key: bytes(&pair.key, files)?,
    })
}

/// What Envoy calls it in `/certs` too.
pub fn name_of(source: &DataSource) -> String {
    match source {
        DataSource::File(path) => path.display().to_string(),
        DataSource::Inline(_) => "<inline>".to_owned(),
        DataSource::Secret(name) => format!("secret {name}"),
    }
}

fn bytes(source: &DataSource, files: &Files) -> Result<Vec<u8>, String> {
    match source {
        DataSource::File(path) => files.read(path).map(|bytes| bytes.to_vec()),
        DataSource::Inline(bytes) => Ok(bytes.clone()),
        DataSource::Secret(name) => {
            Err(format!("secret {name:?} is not defined; no static secret has that name"))
        }
    }
}

fn pem(source: &DataSource, files: &Files) -> Result<NamedPem, String> {
    Ok(NamedPem::new(name_of(source), bytes(source, files)?))
}

fn protocol(params: &TlsParams) -> ProtocolSpec {
    let version = |version: TlsVersion| match version {
        TlsVersion::V1_2 => corelane_tls::TlsVersion::Tls12,
        TlsVersion::V1_3 => corelane_tls::TlsVersion::Tls13,
    };
    ProtocolSpec {
        version_min: version(params.version_min),
        version_max: version(params.version_max),
        cipher_suites: params.cipher_suites.clone(),
        curves: params.curves.clone(),
    }
}

fn validation(tls: &TlsValidation, files: &Files) -> Result<ValidationSpec, String> {
    let optional = |source: &Option<DataSource>| source.as_ref().map(|source| pem(source, files)).transpose();
    Ok(ValidationSpec {
        trust_bundle: optional(&tls.trusted_ca)?,
        sans: tls.sans.iter().map(san).collect(),
        accept_untrusted: tls.accept_untrusted,
        crl: optional(&tls.crl)?,
        crl_leaf_only: false,
        certificate_sha256: tls
            .certificate_hashes
            .iter()
            .map(|text| hex_digest(text))
            .collect::<Result<_, _>>()?,
        spki_sha256: tls.spki_pins.iter().map(|text| base64_digest(text)).collect::<Result<_, _>>()?,
    })
}

fn san(san: &SanMatcher) -> SanMatch {
    use corelane_tls::SanKind as Kind;
    let kind = match san.kind {
        Some(SanKind::Uri) => Kind::Uri,
        Some(SanKind::Dns) => Kind::Dns,
        Some(SanKind::Ip) => Kind::Ip,
        Some(SanKind::Email) => Kind::Email,
        None => Kind::Any,
    };
    // the matchers were made from UTF-8 text
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (matcher, ignore_case) = match &san.matcher {
        StringMatcher::Any => (TextMatcher::Prefix(String::new()), false),
        StringMatcher::Exact { text: bytes, ignore_case } => (TextMatcher::Exact(text(bytes)), *ignore_case),
        StringMatcher::Prefix { text: bytes, ignore_case } => {
            (TextMatcher::Prefix(text(bytes)), *ignore_case)
        }
        StringMatcher::Suffix { text: bytes, ignore_case } => {
            (TextMatcher::Suffix(text(bytes)), *ignore_case)
        }
        StringMatcher::Contains { text: bytes, ignore_case } => {
            (TextMatcher::Contains(text(bytes)), *ignore_case)
        }
        StringMatcher::Regex(regex) => {
            let compiled = regex.clone();
            let is_match = Arc::new(move |value: &str| compiled.is_match(value.as_bytes()));
            (TextMatcher::Regex { pattern: regex.pattern().to_owned(), is_match }, false)
        }
    };
    SanMatch { kind, matcher, ignore_case }
}

/// CertificateValidationContext.verify_certificate_hash: 64 hex digits, with or without colons.
fn hex_digest(text: &str) -> Result<[u8; 32], String> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let wrong = || format!("{text:?} is not the hex SHA-256 of a certificate (64 digits)");
    if digits.len() != 64 {
        return Err(wrong());
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(digest)
}

/// CertificateValidationContext.verify_certificate_spki: base64 of 32 bytes.
fn base64_digest(text: &str) -> Result<[u8; 32], String> {
    let wrong = || format!("{text:?} is not the base64 SHA-256 of a public key (44 characters)");
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let body = text.strip_suffix('=').filter(|body| body.len() == 43).ok_or_else(wrong)?;
    let mut digest = Vec::with_capacity(33);
    let (mut bits, mut held) = (0_u32, 0);
    for byte in body.bytes() {
        bits = bits << 6 | u32::from(value(byte).ok_or_else(wrong)?);
        held += 6;
        if held >= 8 {
            held -= 8;
            digest.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    digest.try_into().map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_decode_and_anything_else_is_named() {
        let zeros = [0_u8; 32];
        assert_eq!(hex_digest(&"00".repeat(32)), Ok(zeros));
        assert_eq!(hex_digest(&["ff"; 32].join(":")), Ok([255; 32]));
        assert!(hex_digest("00").expect_err("short").contains("64 digits"));
        assert!(hex_digest(&"zz".repeat(32)).is_err());
        // RFC 4648, 4: 32 zero bytes are 43 A and one pad
        assert_eq!(base64_digest(&format!("{}=", "A".repeat(43))), Ok(zeros));
        assert_eq!(base64_digest("//////////////////////////////////////////8="), Ok([255; 32]));
        assert!(base64_digest(&"A".repeat(44)).expect_err("no pad").contains("44 characters"));
        assert!(base64_digest(&format!("{}=", "*".repeat(43))).is_err());
    }

    #[test]
    fn an_unreadable_file_is_named_with_the_likely_cause() {
        let reason = Files::default().read(Path::new("/nowhere/tls.crt")).expect_err("missing");
        assert_eq!(
            reason,
            "/nowhere/tls.crt: cannot read: No such file or directory (os error 2); is the volume mounted?"
        );
    }

    #[test]
    fn what_is_no_regular_file_or_too_long_is_refused_without_being_read() {
        let dir = tempfile::tempdir().expect("tempdir");
        let long = dir.path().join("long.pem");
        File::create(&long).expect("create").set_len(SECRET_BYTES_MAX as u64 + 1).expect("grow");
        let read = |path: &Path| Files::default().read(path).expect_err("refused");
        let limit = format!("{}: more than 4194304 bytes, the limit for", long.display());
        assert!(read(&long).starts_with(&limit), "{}", read(&long));
        // a listening socket is never readable as a file; a device would be, for ever
        let socket = dir.path().join("socket");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).expect("bind");
        for path in [Path::new("/dev/zero"), dir.path(), &socket] {
            let expected = format!("{}: not a regular file;", path.display());
            assert!(read(path).starts_with(&expected), "{}", read(path));
        }
    }

    #[test]
    fn protocol_parameters_go_through() {
        let params = TlsParams {
            cipher_suites: vec!["ECDHE-RSA-AES256-GCM-SHA384".to_owned()],
            curves: vec!["P-256".to_owned()],
            ..TlsParams::default()
        };
        let spec = protocol(&params);
        assert_eq!((spec.cipher_suites, spec.curves), (params.cipher_suites, params.curves));
    }

    #[test]
    fn a_secret_without_definition_is_named() {
        let pair = TlsCertificate {
            chain: DataSource::Secret("own".to_owned()),
            key: DataSource::Inline(Vec::new()),
        };
        let reason = certificate(&pair, &Files::default()).expect_err("undefined");
        assert_eq!(reason, "secret \"own\" is not defined; no static secret has that name");
    }
}
