//! envoy.config.core.v3.HealthCheck: active checks over HTTP and TCP.

use super::{Context, api, headers, matcher, values::duration};
use api::core::health_check::{HealthChecker, HttpHealthCheck, Payload, TcpHealthCheck, payload};
use corelane_snapshot::{HealthCheck, HealthCheckKind, RangeI64};
use std::time::Duration;

/// health_check.proto: "The default value for 'no traffic interval' is 60 seconds."
const NO_TRAFFIC_INTERVAL: Duration = Duration::from_secs(60);

pub(super) fn health_check(cx: &mut Context<'_>, check: &api::core::HealthCheck) -> Option<HealthCheck> {
    let kind = match check.health_checker.as_ref()? {
        HealthChecker::HttpHealthCheck(http) => cx.within("http_health_check", |cx| self::http(cx, http))?,
        HealthChecker::TcpHealthCheck(tcp) => cx.within("tcp_health_check", |cx| self::tcp(cx, tcp))?,
    };
    let interval = duration(cx, "interval", &check.interval)?;
    Some(HealthCheck {
        kind,
        timeout: duration(cx, "timeout", &check.timeout)?,
        interval,
        initial_jitter: duration(cx, "initial_jitter", &check.initial_jitter).unwrap_or_default(),
        interval_jitter: duration(cx, "interval_jitter", &check.interval_jitter).unwrap_or_default(),
        interval_jitter_percent: check.interval_jitter_percent,
        unhealthy_threshold: check.unhealthy_threshold?,
        healthy_threshold: check.healthy_threshold?,
        unhealthy_interval: duration(cx, "unhealthy_interval", &check.unhealthy_interval).unwrap_or(interval),
        no_traffic_interval: duration(cx, "no_traffic_interval", &check.no_traffic_interval)
            .unwrap_or(NO_TRAFFIC_INTERVAL),
        reuse_connection: check.reuse_connection.unwrap_or(true),
    })
}

fn http(cx: &mut Context<'_>, check: &HttpHealthCheck) -> Option<HealthCheckKind> {
    use api::{core::RequestMethod, types::CodecClientType};
    let method = match check.method() {
        RequestMethod::MethodUnspecified => "GET",
        RequestMethod::Connect => {
            cx.error_at("method", "CONNECT can't be a health check");
            return None;
        }
        method => method.as_str_name(),
    };
    let http2 = match check.codec_client_type() {
        CodecClientType::Http1 => false,
        CodecClientType::Http2 => true,
        CodecClientType::Http3 => {
            cx.error_at("codec_client_type", "HTTP/3 is not implemented");
            return None;
        }
    };
    // "If this field is not set, defaults to [200, 201)", that is 200 alone
    let expected = match check.expected_statuses.is_empty() {
        true => vec![RangeI64 { start: 200, end: 201 }],
        false => cx.each("expected_statuses", &check.expected_statuses, statuses),
    };
    Some(HealthCheckKind::Http {
        host: check.host.as_str().into(),
        path: check.path.as_str().into(),
        method: method.into(),
        request_headers_add: cx.each("request_headers_to_add", &check.request_headers_to_add, headers::edit),
        request_headers_remove: headers::removals(
            cx,
            "request_headers_to_remove",
            &check.request_headers_to_remove,
        ),
        expected_statuses: expected,
        retriable_statuses: cx.each("retriable_statuses", &check.retriable_statuses, statuses),
        service_name: cx.optional("service_name_matcher", &check.service_name_matcher, matcher::string),
        http2,
    })
}

/// "Start and end of each range are required. Only statuses in the range [100, 600) are allowed."
fn statuses(cx: &mut Context<'_>, range: &api::types::Int64Range) -> Option<RangeI64> {
    if !(100 <= range.start && range.start < range.end && range.end <= 600) {
        cx.error(format!("{}..{} is no range of statuses within 100..600", range.start, range.end));
        return None;
    }
    Some(RangeI64 { start: range.start, end: range.end })
}

fn tcp(cx: &mut Context<'_>, check: &TcpHealthCheck) -> Option<HealthCheckKind> {
    Some(HealthCheckKind::Tcp {
        send: cx.optional("send", &check.send, bytes).unwrap_or_default(),
        receive: cx.each("receive", &check.receive, bytes),
    })
}

/// "Hex encoded payload. E.g., "000000FF"."
fn bytes(cx: &mut Context<'_>, found: &Payload) -> Option<Box<[u8]>> {
    match found.payload.as_ref()? {
        payload::Payload::Binary(bytes) => Some(bytes.as_slice().into()),
        payload::Payload::Text(text) => {
            let bytes = unhex(text);
            if bytes.is_none() {
                cx.error_at("text", "must be hexadecimal, two digits a byte");
            }
            bytes
        }
    }
}

pub(super) fn unhex(text: &str) -> Option<Box<[u8]>> {
    let digit = |b: u8| char::from(b).to_digit(16).map(|digit| digit as u8);
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::unhex;

    #[test]
    fn hexadecimal() {
        assert_eq!(unhex("00ffA1").as_deref(), Some(&[0, 0xff, 0xa1][..]));
        assert_eq!(unhex("").as_deref(), Some(&[][..]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("0g"), None);
        assert_eq!(unhex("é"), None);
    }
}
