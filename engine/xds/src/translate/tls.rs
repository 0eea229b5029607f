//! Transport sockets: what is presented, what is believed.

use super::{
    Context, Origin, api, matcher,
    values::{decode, duration},
};
use api::tls::{
    common_tls_context::ValidationContextType, downstream_tls_context::SessionTicketKeysType, secret,
    tls_parameters::TlsProtocol,
};
use corelane_snapshot::{
    DataSource, DownstreamTls, SanKind, SanMatcher, TlsCertificate, TlsParams, TlsValidation, TlsVersion,
    UpstreamTls,
};
use std::sync::Arc;

/// tls.proto, max_session_keys: "Defaults to 1".
const SESSION_KEYS_MAX: u32 = 1;
/// How long tickets can be opened for certain.
const SESSION_TIMEOUT_MAX_S: u64 = 6 * 60 * 60;
/// Certificates presented by one context: one a key type is what makes sense.
const CERTIFICATES_MAX: usize = 16;

pub(super) fn downstream(cx: &mut Context<'_>, any: &prost_types::Any) -> Option<Arc<DownstreamTls>> {
    let tls: api::tls::DownstreamTlsContext = decode(cx, any)?;
    let none = api::tls::CommonTlsContext::default();
    let common = tls.common_tls_context.as_ref().unwrap_or(&none);
    let require_client_certificate = tls.require_client_certificate.unwrap_or(false);
    let (certificates, validation, params) = cx.within("common_tls_context", |cx| {
        let certificates = certificates(cx, common);
        if common.tls_certificates.is_empty() && common.tls_certificate_sds_secret_configs.is_empty() {
            cx.error_at("tls_certificates", "a server must have a certificate");
        }
        (certificates, validation(cx, common), params(cx, common))
    });
    check_names(cx, validation.as_ref());
    // a context that is configured and None has been reported
    let can_verify = match &validation {
        Some(validation) => validation.trusted_ca.is_some(),
        None => common.validation_context_type.is_some(),
    };
    if require_client_certificate && !can_verify {
        let message = "needs a `validation_context` with a `trusted_ca` to verify client certificates by";
        cx.error_at("require_client_certificate", message);
    }
    let stateless_off = matches!(
        tls.session_ticket_keys_type,
        Some(SessionTicketKeysType::DisableStatelessSessionResumption(true))
    );
    Some(Arc::new(DownstreamTls {
        context: cx.builder.tls_context_id(),
        certificates,
        validation,
        require_client_certificate,
        alpn: alpn(common),
        params,
        session_tickets: !stateless_off,
        session_timeout_s: session_timeout_s(cx, &tls),
    }))
}

/// tls.proto: "Only seconds can be specified (fractional seconds are ignored)".
fn session_timeout_s(cx: &mut Context<'_>, tls: &api::tls::DownstreamTlsContext) -> Option<u32> {
    let timeout = duration(cx, "session_timeout", &tls.session_timeout)?.as_secs();
    if timeout > SESSION_TIMEOUT_MAX_S {
        cx.within("session_timeout", |cx| {
            cx.warn(format!(
                "the keys of tickets change every {SESSION_TIMEOUT_MAX_S}s: no session lasts much longer"
            ));
        });
    }
    Some(u32::try_from(timeout).unwrap_or(u32::MAX))
}

pub(super) fn upstream(cx: &mut Context<'_>, any: &prost_types::Any) -> Option<Arc<UpstreamTls>> {
    let tls: api::tls::UpstreamTlsContext = decode(cx, any)?;
    let none = api::tls::CommonTlsContext::default();
    let common = tls.common_tls_context.as_ref().unwrap_or(&none);
    let (certificate, validation, params) = cx.within("common_tls_context", |cx| {
        let mut certificates = certificates(cx, common);
        if certificates.len() > 1 {
            cx.error_at("tls_certificates", "a client presents one certificate");
        }
        (certificates.pop(), validation(cx, common), params(cx, common))
    });
    if tls.enforce_rsa_key_usage == Some(true) {
        cx.error_at(
            "enforce_rsa_key_usage",
            "true is not implemented: the key usage extension is not looked at",
        );
    }
    check_names(cx, validation.as_ref());
    let verifies = match &validation {
        Some(validation) => validation.trusted_ca.is_some() || validation.accept_untrusted,
        None => common.validation_context_type.is_some(),
    };
    if !verifies {
        cx.warn("without a `trusted_ca` the server's certificate is not verified");
    }
    Some(Arc::new(UpstreamTls {
        context: cx.builder.tls_context_id(),
        sni: (!tls.sni.is_empty()).then(|| tls.sni.clone()),
        certificate,
        validation,
        alpn: alpn(common),
        params,
        session_keys_max: tls.max_session_keys.unwrap_or(SESSION_KEYS_MAX),
    }))
}

fn alpn(common: &api::tls::CommonTlsContext) -> Vec<Vec<u8>> {
    common.alpn_protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect()
}

fn params(cx: &mut Context<'_>, common: &api::tls::CommonTlsContext) -> TlsParams {
    let mut out = TlsParams::default();
    let Some(params) = &common.tls_params else { return out };
    cx.within("tls_params", |cx| {
        let mut version = |field: &str, protocol: TlsProtocol, default| match protocol {
            TlsProtocol::TlsAuto => default,
            TlsProtocol::TlSv12 => TlsVersion::V1_2,
            TlsProtocol::TlSv13 => TlsVersion::V1_3,
            TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => {
                cx.error_at(field, "TLS 1.0 and 1.1 are not implemented (RFC 8996)");
                default
            }
        };
        let (min, max) = (params.tls_minimum_protocol_version(), params.tls_maximum_protocol_version());
        out.version_min = version("tls_minimum_protocol_version", min, TlsVersion::V1_2);
        out.version_max = version("tls_maximum_protocol_version", max, TlsVersion::V1_3);
        if out.version_min > out.version_max {
            cx.error_at("tls_maximum_protocol_version", "is below the minimum");
        }
    });
    out.cipher_suites.clone_from(&params.cipher_suites);
    out.curves.clone_from(&params.ecdh_curves);
    out
}

fn certificates(cx: &mut Context<'_>, common: &api::tls::CommonTlsContext) -> Vec<TlsCertificate> {
    let mut out = cx.each("tls_certificates", &common.tls_certificates, certificate);
    let secrets = &common.tls_certificate_sds_secret_configs;
    out.extend(cx.each("tls_certificate_sds_secret_configs", secrets, |cx, config| {
        match secret(cx, config)? {
            Found::Later(name) => {
                let source = DataSource::Secret(name);
                Some(TlsCertificate { chain: source.clone(), key: source })
            }
            Found::Static(secret::Type::TlsCertificate(found)) => certificate(cx, &found),
            Found::Static(secret::Type::ValidationContext(_)) => {
                cx.error_at("name", format!("the secret `{}` is no certificate", config.name));
                None
            }
        }
    }));
    if out.len() > CERTIFICATES_MAX {
        cx.error_at("tls_certificates", format!("more than {CERTIFICATES_MAX} certificates"));
        out.truncate(CERTIFICATES_MAX);
    }
    out
}

/// Envoy: "SAN-based verification of peer certificates without trusted CA is insecure and not allowed".
fn check_names(cx: &mut Context<'_>, validation: Option<&TlsValidation>) {
    let is_blind = |v: &TlsValidation| !v.sans.is_empty() && v.trusted_ca.is_none() && !v.accept_untrusted;
    if validation.is_some_and(is_blind) {
        cx.error_at("common_tls_context", "names can only be verified against a `trusted_ca`");
    }
}

/// Where a secret is: in the file, or to come over the control stream.
enum Found {
    Static(secret::Type),
    Later(String),
}

/// secret.proto: "If only name is specified, then secret will be loaded from static resources."
fn secret(cx: &mut Context<'_>, config: &api::tls::SdsSecretConfig) -> Option<Found> {
    if let Some(found) = cx.secrets.get(&config.name).and_then(|secret| secret.r#type.clone()) {
        return Some(Found::Static(found));
    }
    match (cx.origin, config.sds_config.is_some()) {
        (Origin::ControlStream, true) => return Some(Found::Later(config.name.clone())),
        (Origin::File, true) => {
            cx.error_at("sds_config", "SDS needs a control stream, which a static file does not have");
        }
        (_, false) => {
            cx.error_at("name", format!("unknown secret `{}`: none of that name is defined", config.name))
        }
    }
    None
}

pub(super) fn certificate(cx: &mut Context<'_>, found: &api::tls::TlsCertificate) -> Option<TlsCertificate> {
    let chain = source(cx, "certificate_chain", &found.certificate_chain);
    let key = source(cx, "private_key", &found.private_key);
    for (field, part) in [("certificate_chain", &chain), ("private_key", &key)] {
        if part.is_none() {
            cx.error_at(field, "must be set");
        }
    }
    Some(TlsCertificate { chain: chain?, key: key? })
}

fn source(_cx: &mut Context<'_>, _field: &str, source: &Option<api::core::DataSource>) -> Option<DataSource> {
    use api::core::data_source::Specifier;
    Some(match source.as_ref()?.specifier.as_ref()? {
        Specifier::Filename(path) => DataSource::File(path.into()),
        Specifier::InlineBytes(bytes) => DataSource::Inline(bytes.clone()),
        Specifier::InlineString(text) => DataSource::Inline(text.as_bytes().to_vec()),
    })
}

fn validation(cx: &mut Context<'_>, common: &api::tls::CommonTlsContext) -> Option<TlsValidation> {
    match common.validation_context_type.as_ref()? {
        ValidationContextType::ValidationContext(context) => {
            cx.within("validation_context", |cx| Some(validation_context(cx, context)))
        }
        ValidationContextType::ValidationContextSdsSecretConfig(config) => {
            cx.within("validation_context_sds_secret_config", |cx| validation_secret(cx, config))
        }
        ValidationContextType::CombinedValidationContext(combined) => {
            cx.within("combined_validation_context", |cx| combine(cx, combined))
        }
    }
}

fn validation_secret(cx: &mut Context<'_>, config: &api::tls::SdsSecretConfig) -> Option<TlsValidation> {
    match secret(cx, config)? {
        Found::Later(name) => {
            Some(TlsValidation { trusted_ca: Some(DataSource::Secret(name)), ..TlsValidation::default() })
        }
        Found::Static(secret::Type::ValidationContext(context)) => Some(validation_context(cx, &context)),
        Found::Static(secret::Type::TlsCertificate(_)) => {
            cx.error_at("name", format!("the secret `{}` is no validation context", config.name));
            None
        }
    }
}

/// common.proto, CombinedCertificateValidationContext: the secret is merged into the default as protobuf's MergeFrom
/// does: single fields replace, lists append.
fn combine(
    cx: &mut Context<'_>,
    combined: &api::tls::common_tls_context::CombinedCertificateValidationContext,
) -> Option<TlsValidation> {
    let default = match &combined.default_validation_context {
        Some(context) => cx.within("default_validation_context", |cx| validation_context(cx, context)),
        None => TlsValidation::default(),
    };
    let config = &combined.validation_context_sds_secret_config;
    let mut merged = cx.optional("validation_context_sds_secret_config", config, validation_secret)?;
    merged.trusted_ca = merged.trusted_ca.or(default.trusted_ca);
    merged.crl = merged.crl.or(default.crl);
    merged.accept_untrusted |= default.accept_untrusted;
    let append = |from: Vec<String>, to: &mut Vec<String>| {
        let later = std::mem::replace(to, from);
        to.extend(later);
    };
    append(default.certificate_hashes, &mut merged.certificate_hashes);
    append(default.spki_pins, &mut merged.spki_pins);
    let later = std::mem::replace(&mut merged.sans, default.sans);
    merged.sans.extend(later);
    Some(merged)
}

fn validation_context(
    cx: &mut Context<'_>,
    context: &api::tls::CertificateValidationContext,
) -> TlsValidation {
    use api::tls::certificate_validation_context::TrustChainVerification;
    let typed = &context.match_typed_subject_alt_names;
    let mut sans = cx.each("match_typed_subject_alt_names", typed, san);
    // "deprecated ... if match_typed_subject_alt_names is set, this is ignored"
    if typed.is_empty() {
        sans = cx.each("match_subject_alt_names", &context.match_subject_alt_names, |cx, found| {
            Some(SanMatcher { kind: None, matcher: matcher::string(cx, found)? })
        });
    }
    let trusted_ca = source(cx, "trusted_ca", &context.trusted_ca);
    let accept_untrusted = context.trust_chain_verification() == TrustChainVerification::AcceptUntrusted;
    TlsValidation {
        trusted_ca,
        sans,
        crl: source(cx, "crl", &context.crl),
        certificate_hashes: cx.each(
            "verify_certificate_hash",
            &context.verify_certificate_hash,
            |cx, hash| certificate_hash(cx, hash),
        ),
        spki_pins: context.verify_certificate_spki.clone(),
        accept_untrusted,
    }
}

pub(super) fn san(cx: &mut Context<'_>, found: &api::tls::SubjectAltNameMatcher) -> Option<SanMatcher> {
    use api::tls::subject_alt_name_matcher::SanType;
    let kind = match found.san_type() {
        SanType::Email => SanKind::Email,
        SanType::Dns => SanKind::Dns,
        SanType::Uri => SanKind::Uri,
        SanType::IpAddress => SanKind::Ip,
        SanType::OtherName | SanType::Unspecified => {
            cx.error_at("san_type", "must be DNS, URI, EMAIL or IP_ADDRESS");
            return None;
        }
    };
    let matcher = cx.optional("matcher", &found.matcher, matcher::string)?;
    Some(SanMatcher { kind: Some(kind), matcher })
}

/// "A hex-encoded SHA-256 ... may be colon-separated": kept lower case without colons.
fn certificate_hash(cx: &mut Context<'_>, hash: &str) -> Option<String> {
    let digits: String = hash.chars().filter(|c| *c != ':').collect::<String>().to_ascii_lowercase();
    if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        cx.error("must be a SHA-256 in hexadecimal");
        return None;
    }
    Some(digits)
}
