//! Transport sockets, secrets, RBAC.

use super::{Supported, accepts, reads};

const NO_UPSTREAM: &str =
    "no filter chooses an upstream before the rules are asked, and without one they don't match";
const WATCHED: &str = "files of certificates are watched, and their directories with them";

pub(super) const TABLE: &[Supported] = &[
    reads("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer", ""),
    reads(
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context sni max_session_keys enforce_rsa_key_usage",
    ),
    accepts(
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context require_client_certificate disable_stateless_session_resumption session_timeout",
        &[
            ("disable_stateful_session_resumption", "sessions are resumed by ticket only"),
            ("prefer_client_ciphers", "both sides' safe suites agree on the first common one"),
        ],
    ),
    reads(
        "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext",
        "tls_params tls_certificates tls_certificate_sds_secret_configs validation_context \
         validation_context_sds_secret_config combined_validation_context alpn_protocols",
    ),
    reads(
        "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext",
        "default_validation_context validation_context_sds_secret_config",
    ),
    reads(
        "envoy.extensions.transport_sockets.tls.v3.TlsParameters",
        "tls_minimum_protocol_version tls_maximum_protocol_version cipher_suites ecdh_curves",
    ),
    accepts(
        "envoy.extensions.transport_sockets.tls.v3.TlsCertificate",
        "certificate_chain private_key",
        &[("watched_directory", WATCHED)],
    ),
    accepts(
        "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext",
        "trusted_ca verify_certificate_spki verify_certificate_hash match_typed_subject_alt_names \
         match_subject_alt_names crl trust_chain_verification",
        &[("watched_directory", WATCHED)],
    ),
    reads("envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher", "san_type matcher"),
    reads("envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig", "name sds_config"),
    reads("envoy.extensions.transport_sockets.tls.v3.Secret", "name tls_certificate validation_context"),
    // RBAC
    reads("envoy.config.rbac.v3.RBAC", "action policies"),
    reads("envoy.config.rbac.v3.Policy", "permissions principals"),
    reads(
        "envoy.config.rbac.v3.Permission",
        "and_rules or_rules any header url_path destination_ip destination_port destination_port_range metadata \
         not_rule requested_server_name matcher uri_template sourced_metadata",
    ),
    reads("envoy.config.rbac.v3.SourcedMetadata", "metadata_matcher metadata_source"),
    reads("envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig", "path_template"),
    accepts(
        "envoy.extensions.rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher",
        "",
        &[("upstream_ip", NO_UPSTREAM), ("upstream_port_range", NO_UPSTREAM)],
    ),
    reads(
        "envoy.extensions.rbac.principals.mtls_authenticated.v3.Config",
        "san_matcher any_validated_client_certificate",
    ),
    reads("envoy.config.rbac.v3.Permission.Set", "rules"),
    reads(
        "envoy.config.rbac.v3.Principal",
        "and_ids or_ids any authenticated source_ip direct_remote_ip remote_ip header url_path metadata \
         filter_state not_id sourced_metadata custom",
    ),
    reads("envoy.config.rbac.v3.Principal.Set", "ids"),
    reads("envoy.config.rbac.v3.Principal.Authenticated", "principal_name"),
];
