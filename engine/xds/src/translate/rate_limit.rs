//! Local rate limits, and the rate limits of routes that make their descriptors.

use super::{
    Context, api, headers,
    matcher::{header, query},
    values::{duration, runtime_fraction},
};
use api::{ratelimit::LocalRateLimitDescriptor, route::rate_limit::action::ActionSpecifier};
use corelane_snapshot::{
    DESCRIPTORS_MAX, Descriptor, Fraction, LocalRateLimit, RateLimit, RateLimitAction, RateLimitValue,
    StatScope, TokenBuckets, VirtualHostRateLimits, live::TokenBucket,
};
use std::{
    collections::HashSet,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

/// local_rate_limit.proto: the status of a limited request without `status`.
const TOO_MANY_REQUESTS: u16 = 429;
/// local_rate_limit.proto: "The minimum fill interval is 50ms".
const FILL_INTERVAL_MIN: Duration = Duration::from_millis(50);

pub(super) fn http(
    cx: &mut Context<'_>,
    config: &api::http_rate_limit::LocalRateLimit,
) -> Option<Arc<LocalRateLimit>> {
    use api::ratelimit::{VhRateLimitsOptions, XRateLimitHeadersRfcVersion};
    if config.token_bucket.is_none() {
        cx.error_at("token_bucket", "must be set");
    }
    let default = cx.optional("token_bucket", &config.token_bucket, token_bucket);
    let (descriptors, own_buckets) = descriptors(cx, &config.descriptors);
    // "a status code below 400 is not allowed"; the filter then answers 429
    let status = config.status.as_ref().map(|status| status.code).filter(|code| *code >= 400);
    let unenforced = &config.request_headers_to_add_when_not_enforced;
    Some(Arc::new(LocalRateLimit {
        buckets: TokenBuckets { default: default?, descriptors: own_buckets },
        per_connection: config.local_rate_limit_per_downstream_connection,
        always_default: config.always_consume_default_token_bucket.unwrap_or(true),
        // "If not specified, defaults to 0% of requests": of filter_enabled and filter_enforced
        enabled: runtime_fraction(cx, "filter_enabled", &config.filter_enabled, Fraction::NONE),
        enforced: runtime_fraction(cx, "filter_enforced", &config.filter_enforced, Fraction::NONE),
        status: status.and_then(|code| u16::try_from(code).ok()).unwrap_or(TOO_MANY_REQUESTS),
        response_headers: cx.each("response_headers_to_add", &config.response_headers_to_add, headers::edit),
        unenforced_request_headers: cx.each(
            "request_headers_to_add_when_not_enforced",
            unenforced,
            headers::edit,
        ),
        grpc_resource_exhausted: config.rate_limited_as_resource_exhausted,
        rate_limit_headers: config.enable_x_ratelimit_headers()
            == XRateLimitHeadersRfcVersion::DraftVersion03,
        retry_after: config.enable_retry_after_header,
        descriptors,
        rate_limits: rate_limits(cx, &config.rate_limits),
        stage: config.stage,
        virtual_host: match config.vh_rate_limits() {
            VhRateLimitsOptions::Override => VirtualHostRateLimits::Override,
            VhRateLimitsOptions::Include => VirtualHostRateLimits::Include,
            VhRateLimitsOptions::Ignore => VirtualHostRateLimits::Ignore,
        },
        stats: cx.stats(StatScope::LocalRateLimit { stat_prefix: config.stat_prefix.clone() }),
    }))
}

pub(super) fn network(
    cx: &mut Context<'_>,
    config: &api::network_rate_limit::LocalRateLimit,
) -> Option<Arc<LocalRateLimit>> {
    let default = cx.optional("token_bucket", &config.token_bucket, token_bucket)?;
    // local_rate_limit.proto, runtime_enabled: a feature flag, on by default
    let enabled = config.runtime_enabled.as_ref().and_then(|flag| flag.default_value).unwrap_or(true);
    Some(Arc::new(LocalRateLimit {
        buckets: TokenBuckets { default, descriptors: Box::default() },
        per_connection: false,
        always_default: true,
        enabled: if enabled { Fraction::ALL } else { Fraction::NONE },
        enforced: Fraction::ALL,
        status: TOO_MANY_REQUESTS,
        response_headers: Vec::new(),
        unenforced_request_headers: Vec::new(),
        grpc_resource_exhausted: false,
        rate_limit_headers: false,
        retry_after: false,
        descriptors: Vec::new(),
        rate_limits: Vec::new(),
        stage: 0,
        virtual_host: VirtualHostRateLimits::default(),
        stats: cx.stats(StatScope::NetworkRateLimit { stat_prefix: config.stat_prefix.clone() }),
    }))
}

/// token_bucket.proto: "tokens_per_fill ... if not specified ... the default value of 1".
fn token_bucket(cx: &mut Context<'_>, config: &api::types::TokenBucket) -> Option<TokenBucket> {
    let interval = duration(cx, "fill_interval", &config.fill_interval)?;
    if interval < FILL_INTERVAL_MIN {
        cx.error_at("fill_interval", format!("must be at least 0.05s, is {}s", interval.as_secs_f64()));
    }
    let Ok(fill_interval_ns) = u64::try_from(interval.as_nanos()) else {
        cx.error_at("fill_interval", "must be less than 584 years");
        return None;
    };
    // state 0: the bucket begins full
    Some(TokenBucket {
        tokens_max: config.max_tokens,
        tokens_per_fill: config.tokens_per_fill.unwrap_or(1),
        fill_interval_ns,
        state: AtomicU64::new(0),
    })
}

/// The one that fills slowest first, as Envoy tries them.
fn descriptors(
    cx: &mut Context<'_>,
    found: &[LocalRateLimitDescriptor],
) -> (Vec<Descriptor>, Box<[TokenBucket]>) {
    if found.len() > DESCRIPTORS_MAX {
        cx.error_at("descriptors", format!("more than {DESCRIPTORS_MAX}"));
        return (Vec::new(), Box::default());
    }
    let mut seen = HashSet::new();
    let mut all = cx.each("descriptors", found, |cx, found| {
        let own = found.entries.iter().map(|entry| (&entry.key, &entry.value)).collect::<Vec<_>>();
        if !seen.insert(own) {
            cx.error_at("entries", "same as those of an earlier descriptor");
        }
        let entries = cx.each("entries", &found.entries, |cx, entry| {
            if entry.value.is_empty() {
                cx.error_at("value", "must be set: buckets for whatever value comes are not implemented");
            }
            Some((entry.key.as_str().into(), entry.value.as_str().into()))
        });
        let bucket = cx.optional("token_bucket", &found.token_bucket, token_bucket)?;
        Some((Descriptor { entries }, bucket))
    });
    let rate = |bucket: &TokenBucket| f64::from(bucket.tokens_per_fill) / bucket.fill_interval_ns as f64;
    all.sort_by(|one, other| rate(&one.1).total_cmp(&rate(&other.1)));
    let (descriptors, buckets): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    (descriptors, buckets.into())
}

/// Of a filter, a route or a virtual host.
pub(super) fn rate_limits(cx: &mut Context<'_>, found: &[api::route::RateLimit]) -> Vec<RateLimit> {
    cx.each("rate_limits", found, |cx, found| {
        Some(RateLimit {
            stage: found.stage.unwrap_or(0),
            actions: cx.each("actions", &found.actions, action),
        })
    })
}

fn action(cx: &mut Context<'_>, found: &api::route::rate_limit::Action) -> Option<RateLimitAction> {
    let or = |key: &str, default: &str| -> Box<str> { if key.is_empty() { default } else { key }.into() };
    Some(match found.action_specifier.as_ref()? {
        ActionSpecifier::GenericKey(generic) => RateLimitAction {
            key: or(&generic.descriptor_key, "generic_key"),
            value: RateLimitValue::Generic(generic.descriptor_value.as_str().into()),
        },
        ActionSpecifier::RequestHeaders(of) => RateLimitAction {
            key: of.descriptor_key.as_str().into(),
            value: RateLimitValue::RequestHeader {
                name: of.header_name.to_ascii_lowercase().into(),
                skip_if_absent: of.skip_if_absent,
            },
        },
        ActionSpecifier::QueryParameters(of) => RateLimitAction {
            key: of.descriptor_key.as_str().into(),
            value: RateLimitValue::QueryParameter {
                name: of.query_parameter_name.as_str().into(),
                skip_if_absent: of.skip_if_absent,
            },
        },
        ActionSpecifier::RemoteAddress(_) => {
            RateLimitAction { key: "remote_address".into(), value: RateLimitValue::RemoteAddress }
        }
        ActionSpecifier::HeaderValueMatch(of) => RateLimitAction {
            key: or(&of.descriptor_key, "header_match"),
            value: RateLimitValue::HeadersMatch {
                value: of.descriptor_value.as_str().into(),
                expect: of.expect_match.unwrap_or(true),
                headers: cx.within("header_value_match", |cx| cx.each("headers", &of.headers, header)),
            },
        },
        ActionSpecifier::QueryParameterValueMatch(of) => RateLimitAction {
            key: or(&of.descriptor_key, "query_match"),
            value: RateLimitValue::QueryMatches {
                value: of.descriptor_value.as_str().into(),
                expect: of.expect_match.unwrap_or(true),
                parameters: cx.within("query_parameter_value_match", |cx| {
                    cx.each("query_parameters", &of.query_parameters, query)
                }),
            },
        },
    })
}
