//! The HTTP connection manager, its defaults (http_connection_manager.proto) filled in.

use super::{
    Context, Origin,
    access_log::access_log,
    api, extension, http_filters, route,
    upstream_protocol::{header_fields_max, http2},
    values::{any_type, cidr, decode, duration, misplaced, timeout},
};
use api::hcm::{
    HttpConnectionManager as Manager,
    http_connection_manager::{
        CodecType, ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier,
        ServerHeaderTransformation, StripPortMode,
    },
};
use api::uuid::UuidRequestIdConfig as Uuid;
use corelane_snapshot::{
    Cidr, ClientCertDetails, Codec, EscapedSlashes, ForwardClientCert, Fraction, HeaderCasing, Http1Options,
    HttpConnectionManager, HttpStats, PathRules, RequestId, RouteSource, ServerHeader, StatBlock, StatScope,
    TraceSampling, UpgradeConfig,
};
use std::{sync::Arc, time::Duration};

const SERVER_NAME: &str = "envoy";
const REQUEST_HEAD_KB_MAX: u32 = 60;
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const DELAYED_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// `address`: the listener's name in statistics.
pub(super) fn manager(
    cx: &mut Context<'_>,
    any: &prost_types::Any,
    address: &str,
) -> Option<Arc<HttpConnectionManager>> {
    let manager: Manager = decode(cx, any)?;
    cx.http_stat_prefix.clone_from(&manager.stat_prefix);
    let routes = route_source(cx, &manager);
    let filters = http_filters::http_filters(cx, &manager.http_filters);
    let common = manager.common_http_protocol_options.unwrap_or_default();
    let http2 = manager.http2_protocol_options.as_ref().map(http2).unwrap_or_default();
    let timeouts = timeouts(cx, &manager);
    let stats = stats(cx, &manager.stat_prefix, address, filters.as_ref().map(|(filters, _)| filters));
    let strip_any_host_port = matches!(manager.strip_port_mode, Some(StripPortMode::StripAnyHostPort(true)));
    if strip_any_host_port && manager.strip_matching_host_port {
        cx.error_at("strip_any_host_port", "excludes `strip_matching_host_port`");
    }
    let built = HttpConnectionManager {
        codec: codec(cx, &manager),
        server_name: or(&manager.server_name, SERVER_NAME).into(),
        server_header: server_header(&manager),
        via: (!manager.via.is_empty()).then(|| manager.via.as_str().into()),
        use_remote_address: manager.use_remote_address.unwrap_or(false),
        skip_xff_append: manager.skip_xff_append,
        xff_trusted_hops: manager.xff_num_trusted_hops,
        internal_addresses: internal_addresses(cx, &manager),
        trace_sampling: trace_sampling(cx, &manager),
        request_id: request_id(cx, &manager),
        forward_client_cert: forward_client_cert(&manager),
        client_cert_details: client_cert_details(&manager),
        path: path_rules(&manager),
        strip_any_host_port,
        strip_matching_host_port: manager.strip_matching_host_port,
        strip_trailing_host_dot: manager.strip_trailing_host_dot,
        scheme_overwrite: scheme(&manager),
        request_headers_timeout: timeouts.request_headers,
        request_timeout: timeouts.request,
        stream_idle_timeout: timeouts.stream_idle,
        idle_timeout: timeouts.idle,
        connection_duration_max: timeouts.connection_duration,
        stream_duration_max: timeouts.stream_duration,
        delayed_close_timeout: timeouts.delayed_close,
        request_head_bytes_max: manager
            .max_request_headers_kb
            .unwrap_or(REQUEST_HEAD_KB_MAX)
            .saturating_mul(1024),
        header_fields_max: cx.within("common_http_protocol_options", |cx| header_fields_max(cx, &common)),
        requests_per_connection_max: common.max_requests_per_connection.unwrap_or(0),
        upgrades: cx.each("upgrade_configs", &manager.upgrade_configs, |_, upgrade| {
            Some(UpgradeConfig {
                kind: upgrade.upgrade_type.to_ascii_lowercase().into(),
                enabled: upgrade.enabled.unwrap_or(true),
            })
        }),
        proxy_100_continue: manager.proxy_100_continue,
        http1: cx
            .optional("http_protocol_options", &manager.http_protocol_options, http1)
            .unwrap_or(HTTP1_DEFAULT),
        http2_streams_max: http2.streams_max,
        http2_stream_window: http2.stream_window,
        http2_connection_window: http2.connection_window,
        suppress_envoy_headers: filters.as_ref().is_some_and(|(_, router)| router.suppress_envoy_headers),
        access_log: cx.each("access_log", &manager.access_log, access_log),
        stats,
        routes: routes?,
        filters: filters?.0,
    };
    Some(Arc::new(built))
}

/// Each None: off.
struct Timeouts {
    request_headers: Option<Duration>,
    request: Option<Duration>,
    stream_idle: Option<Duration>,
    idle: Option<Duration>,
    connection_duration: Option<Duration>,
    stream_duration: Option<Duration>,
    delayed_close: Duration,
}

fn timeouts(cx: &mut Context<'_>, manager: &Manager) -> Timeouts {
    let common = manager.common_http_protocol_options.unwrap_or_default();
    let (idle, connection_duration, stream_duration) = cx.within("common_http_protocol_options", |cx| {
        (
            timeout(cx, "idle_timeout", &common.idle_timeout, Some(IDLE_TIMEOUT)),
            timeout(cx, "max_connection_duration", &common.max_connection_duration, None),
            timeout(cx, "max_stream_duration", &common.max_stream_duration, None),
        )
    });
    let default = Some(STREAM_IDLE_TIMEOUT);
    Timeouts {
        request_headers: timeout(cx, "request_headers_timeout", &manager.request_headers_timeout, None),
        request: timeout(cx, "request_timeout", &manager.request_timeout, None),
        stream_idle: timeout(cx, "stream_idle_timeout", &manager.stream_idle_timeout, default),
        idle,
        connection_duration,
        stream_duration,
        delayed_close: duration(cx, "delayed_close_timeout", &manager.delayed_close_timeout)
            .unwrap_or(DELAYED_CLOSE_TIMEOUT),
    }
}

/// Without internal_address_config nobody is internal, as in Envoy since `explicit_internal_address_config`.
fn internal_addresses(cx: &mut Context<'_>, manager: &Manager) -> Vec<Cidr> {
    let Some(config) = &manager.internal_address_config else { return Vec::new() };
    cx.within("internal_address_config", |cx| cx.each("cidr_ranges", &config.cidr_ranges, cidr))
}

/// None: request ids do not tell, for there is no `tracing` or pack_trace_reason is off.
fn trace_sampling(cx: &mut Context<'_>, manager: &Manager) -> Option<TraceSampling> {
    let tracing = manager.tracing.as_ref()?;
    let id = manager.request_id_extension.as_ref().and_then(|extension| extension.typed_config.as_ref());
    let uuid: Option<Uuid> =
        id.filter(|any| any_type(any) == extension::UUID).and_then(|any| decode(cx, any));
    if uuid.and_then(|uuid| uuid.pack_trace_reason) == Some(false) {
        return None;
    }
    // all three default to 100 %
    let percent = |percent: &Option<api::types::Percent>| {
        let value = percent.as_ref().map_or(100.0, |percent| percent.value);
        // a percentage has four decimals in a millionth; NaN and less than nothing are nothing
        Fraction((value.clamp(0.0, 100.0) * 10_000.0) as u32)
    };
    Some(TraceSampling {
        client: percent(&tracing.client_sampling),
        random: percent(&tracing.random_sampling),
        overall: percent(&tracing.overall_sampling),
    })
}

fn server_header(manager: &Manager) -> ServerHeader {
    match manager.server_header_transformation() {
        ServerHeaderTransformation::Overwrite => ServerHeader::Overwrite,
        ServerHeaderTransformation::AppendIfAbsent => ServerHeader::AppendIfAbsent,
        ServerHeaderTransformation::PassThrough => ServerHeader::PassThrough,
    }
}

const HTTP1_DEFAULT: Http1Options =
    Http1Options { accept_http_10: false, default_host_for_http_10: None, casing: HeaderCasing::Lower };

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

fn codec(cx: &mut Context<'_>, manager: &Manager) -> Codec {
    match manager.codec_type() {
        CodecType::Auto => Codec::Auto,
        CodecType::Http1 => Codec::Http1,
        CodecType::Http2 => Codec::Http2,
        CodecType::Http3 => {
            cx.error_at("codec_type", "HTTP/3 is not implemented");
            Codec::Auto
        }
    }
}

fn route_source(cx: &mut Context<'_>, manager: &Manager) -> Option<RouteSource> {
    match manager.route_specifier.as_ref()? {
        RouteSpecifier::RouteConfig(table) => {
            let id_name = format!("inline {} {}", manager.stat_prefix, table.name);
            Some(RouteSource::Inline(cx.within("route_config", |cx| route::route_table(cx, &id_name, table))))
        }
        RouteSpecifier::Rds(rds) if cx.origin == Origin::ControlStream => {
            Some(RouteSource::Named(cx.builder.route_table_id(&rds.route_config_name)))
        }
        RouteSpecifier::Rds(_) => {
            cx.error_at("rds", "RDS needs a control stream, which a static file does not have");
            None
        }
    }
}

fn stats(
    cx: &mut Context<'_>,
    stat_prefix: &str,
    address: &str,
    filters: Option<&corelane_snapshot::HttpFilters>,
) -> HttpStats {
    let stat_prefix = || stat_prefix.to_owned();
    HttpStats {
        http: cx.stats(StatScope::Http { stat_prefix: stat_prefix() }),
        listener_http: cx
            .stats(StatScope::ListenerHttp { address: address.to_owned(), stat_prefix: stat_prefix() }),
        fault: match filters.is_some_and(|filters| filters.fault.is_some()) {
            true => cx.stats(StatScope::Fault { stat_prefix: stat_prefix() }),
            false => StatBlock::default(),
        },
        cors: match filters.is_some_and(|filters| filters.cors) {
            true => cx.stats(StatScope::Cors { stat_prefix: stat_prefix() }),
            false => StatBlock::default(),
        },
        hop: cx.stats(StatScope::Hop { stat_prefix: stat_prefix() }),
    }
}

fn request_id(cx: &mut Context<'_>, manager: &Manager) -> RequestId {
    let out = RequestId {
        generate: manager.generate_request_id.unwrap_or(true),
        preserve_external: manager.preserve_external_request_id,
        always_set_in_response: manager.always_set_request_id_in_response,
    };
    let Some(any) =
        manager.request_id_extension.as_ref().and_then(|extension| extension.typed_config.as_ref())
    else {
        return out;
    };
    cx.within("request_id_extension", |cx| {
        cx.within("typed_config", |cx| {
            if any_type(any) != extension::UUID {
                misplaced(cx, any, "request id extension");
            }
        });
    });
    out
}

fn forward_client_cert(manager: &Manager) -> ForwardClientCert {
    match manager.forward_client_cert_details() {
        ForwardClientCertDetails::Sanitize => ForwardClientCert::Sanitize,
        ForwardClientCertDetails::ForwardOnly => ForwardClientCert::ForwardOnly,
        ForwardClientCertDetails::AppendForward => ForwardClientCert::AppendForward,
        ForwardClientCertDetails::SanitizeSet => ForwardClientCert::SanitizeSet,
        ForwardClientCertDetails::AlwaysForwardOnly => ForwardClientCert::AlwaysForwardOnly,
    }
}

fn client_cert_details(manager: &Manager) -> ClientCertDetails {
    manager.set_current_client_cert_details.as_ref().map_or(ClientCertDetails::default(), |details| {
        ClientCertDetails {
            subject: details.subject.unwrap_or(false),
            cert: details.cert,
            chain: details.chain,
            dns: details.dns,
            uri: details.uri,
        }
    })
}

fn path_rules(manager: &Manager) -> PathRules {
    PathRules {
        normalize: manager.normalize_path.unwrap_or(false),
        merge_slashes: manager.merge_slashes,
        escaped_slashes: match manager.path_with_escaped_slashes_action() {
            PathWithEscapedSlashesAction::ImplementationSpecificDefault
            | PathWithEscapedSlashesAction::KeepUnchanged => EscapedSlashes::KeepUnchanged,
            PathWithEscapedSlashesAction::RejectRequest => EscapedSlashes::Reject,
            PathWithEscapedSlashesAction::UnescapeAndRedirect => EscapedSlashes::UnescapeAndRedirect,
            PathWithEscapedSlashesAction::UnescapeAndForward => EscapedSlashes::UnescapeAndForward,
        },
    }
}

fn scheme(manager: &Manager) -> Option<Box<str>> {
    use api::core::scheme_header_transformation::Transformation;
    match manager.scheme_header_transformation.as_ref()?.transformation.as_ref()? {
        Transformation::SchemeToOverwrite(scheme) => Some(scheme.as_str().into()),
    }
}

fn http1(cx: &mut Context<'_>, options: &api::core::Http1ProtocolOptions) -> Option<Http1Options> {
    use api::core::http1_protocol_options::header_key_format::HeaderFormat;
    let casing = match options.header_key_format.as_ref().and_then(|format| format.header_format.as_ref()) {
        None => HeaderCasing::Lower,
        Some(HeaderFormat::ProperCaseWords(_)) => HeaderCasing::ProperCase,
        Some(HeaderFormat::StatefulFormatter(formatter)) => match formatter.typed_config.as_ref() {
            Some(any) if any_type(any) == extension::PRESERVE_CASE => HeaderCasing::Preserve,
            Some(any) => {
                cx.within("header_key_format", |cx| misplaced(cx, any, "header formatter"));
                HeaderCasing::Lower
            }
            None => HeaderCasing::Lower,
        },
    };
    if options.allow_absolute_url == Some(false) {
        // RFC 9112 section 3.2.2: "a server MUST accept the absolute-form in requests"
        cx.error_at("allow_absolute_url", "false is not implemented: absolute URLs are always taken");
    }
    let host = &options.default_host_for_http_10;
    Some(Http1Options {
        accept_http_10: options.accept_http_10,
        default_host_for_http_10: (!host.is_empty()).then(|| host.as_str().into()),
        casing,
    })
}
