//! How a cluster is spoken to: HttpProtocolOptions, else the deprecated fields of the cluster.

use super::{
    Context, api, extension,
    values::{any_type, decode, duration, misplaced, timeout},
};
use api::upstream_http::http_protocol_options::{
    UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
};
use corelane_snapshot::{Http2Options, PoolLimits, UpstreamProtocol};
use std::time::Duration;

/// protocol.proto, idle_timeout: "If not specified, this defaults to 1 hour."
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// protocol.proto, max_headers_count: "If unconfigured, the default maximum ... is 100."
const HEADER_FIELDS: u32 = 100;
/// The parser's table is of that size.
const HEADER_FIELDS_MAX: u32 = 1024;
/// Idle connections kept per endpoint and core. Envoy has no such limit; circuit breakers bound all connections.
pub const IDLE_PER_ENDPOINT_MAX: u32 = 1024;

pub(super) struct Upstream {
    pub protocol: UpstreamProtocol,
    pub http2: Http2Options,
    pub pool: PoolLimits,
}

pub(super) fn upstream_protocol(cx: &mut Context<'_>, cluster: &api::cluster::Cluster) -> Upstream {
    let mut upstream = Upstream {
        protocol: UpstreamProtocol::Http1,
        http2: Http2Options::default(),
        pool: cx.within("common_http_protocol_options", |cx| {
            pool(cx, cluster.common_http_protocol_options.as_ref())
        }),
    };
    // the last of the deprecated fields: http2_protocol_options alone chose HTTP/2
    if let Some(options) = &cluster.http2_protocol_options {
        upstream.protocol = UpstreamProtocol::Http2;
        upstream.http2 = http2(options);
    }
    if let Some(options) = &cluster.http_protocol_options {
        cx.within("http_protocol_options", |cx| check_http1(cx, options));
    }
    for (key, any) in &cluster.typed_extension_protocol_options {
        cx.entry("typed_extension_protocol_options", key, |cx| {
            if key != extension::UPSTREAM_HTTP {
                return cx.error(format!("protocol options of `{key}` are not implemented"));
            }
            if any_type(any) != extension::UPSTREAM_HTTP {
                return misplaced(cx, any, "set of HTTP protocol options");
            }
            if let Some(options) = decode::<api::upstream_http::HttpProtocolOptions>(cx, any) {
                typed(cx, &options, &mut upstream);
            }
        });
    }
    if let Some(max) = cluster.max_requests_per_connection {
        upstream.pool.requests_per_connection_max = max;
    }
    upstream
}

fn typed(cx: &mut Context<'_>, options: &api::upstream_http::HttpProtocolOptions, upstream: &mut Upstream) {
    if options.common_http_protocol_options.is_some() {
        upstream.pool = cx.within("common_http_protocol_options", |cx| {
            pool(cx, options.common_http_protocol_options.as_ref())
        });
    }
    let (name, protocol, http1, http2) = match options.upstream_protocol_options.as_ref() {
        None => return,
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => {
            match explicit.protocol_config.as_ref() {
                Some(ProtocolConfig::Http2ProtocolOptions(http2)) => {
                    ("explicit_http_config", UpstreamProtocol::Http2, None, Some(http2))
                }
                Some(ProtocolConfig::HttpProtocolOptions(http1)) => {
                    ("explicit_http_config", UpstreamProtocol::Http1, Some(http1), None)
                }
                None => return,
            }
        }
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(config)) => (
            "use_downstream_protocol_config",
            UpstreamProtocol::UseDownstream,
            config.http_protocol_options.as_ref(),
            config.http2_protocol_options.as_ref(),
        ),
        Some(UpstreamProtocolOptions::AutoConfig(config)) => (
            "auto_config",
            UpstreamProtocol::Auto,
            config.http_protocol_options.as_ref(),
            config.http2_protocol_options.as_ref(),
        ),
    };
    upstream.protocol = protocol;
    upstream.http2 = http2.map(self::http2).unwrap_or_default();
    if let Some(http1) = http1 {
        cx.within(name, |cx| cx.within("http_protocol_options", |cx| check_http1(cx, http1)));
    }
}

fn pool(cx: &mut Context<'_>, common: Option<&api::core::HttpProtocolOptions>) -> PoolLimits {
    let none = api::core::HttpProtocolOptions::default();
    let common = common.unwrap_or(&none);
    PoolLimits {
        idle_timeout: timeout(cx, "idle_timeout", &common.idle_timeout, Some(IDLE_TIMEOUT)),
        requests_per_connection_max: common.max_requests_per_connection.unwrap_or(0),
        connection_duration_max: timeout(
            cx,
            "max_connection_duration",
            &common.max_connection_duration,
            None,
        ),
        stream_duration_max: duration(cx, "max_stream_duration", &common.max_stream_duration),
        idle_per_endpoint_max: IDLE_PER_ENDPOINT_MAX,
        header_fields_max: header_fields_max(cx, common),
    }
}

pub(super) fn header_fields_max(cx: &mut Context<'_>, common: &api::core::HttpProtocolOptions) -> u32 {
    let max = common.max_headers_count.unwrap_or(HEADER_FIELDS);
    if max > HEADER_FIELDS_MAX {
        cx.error_at("max_headers_count", format!("must be at most {HEADER_FIELDS_MAX}, is {max}"));
    }
    max
}

pub(super) fn http2(options: &api::core::Http2ProtocolOptions) -> Http2Options {
    let default = Http2Options::default();
    Http2Options {
        streams_max: options.max_concurrent_streams.unwrap_or(default.streams_max),
        stream_window: options.initial_stream_window_size.unwrap_or(default.stream_window),
        connection_window: options.initial_connection_window_size.unwrap_or(default.connection_window),
    }
}

/// HTTP/1 options that only a server side can have.
fn check_http1(cx: &mut Context<'_>, options: &api::core::Http1ProtocolOptions) {
    if options.accept_http_10 {
        cx.error_at("accept_http_10", "is a server's option; upstream responses of HTTP/1.0 are always read");
    }
    if !options.default_host_for_http_10.is_empty() {
        cx.error_at("default_host_for_http_10", "is a server's option; an upstream is always told a host");
    }
    if options.header_key_format.is_some() {
        cx.error_at("header_key_format", "is not implemented upstream; set it on the connection manager");
    }
}
