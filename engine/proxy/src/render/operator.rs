//! One command operator. False: the value is absent, and what was written is to be forgotten.

use super::Scene;
use crate::conn::Conn;
use corelane_http::{
    Fields, Known, RequestHead, ResponseHead, Version, head::split_port, rules::request_id::uuid_v4,
};
use corelane_snapshot::template::{GrpcName, Operator, PathOf, TimeFormat, TimePoint, TimeUnit, TlsPart};
use corelane_telemetry::{
    ResponseFlags, Timings,
    access_log::{write_millis, write_rfc3339_millis, write_strftime, write_uint},
};
use std::{fmt::Display, io::Write, net::SocketAddr};

pub(super) fn write(operator: &Operator, scene: &Scene<'_>, out: &mut Vec<u8>) -> bool {
    let Scene { outcome, logged, .. } = *scene;
    let timings = &outcome.timings;
    match operator {
        Operator::RequestHeader { name, or } => request_header(scene.request, name, or.as_deref(), out),
        Operator::ResponseHeader { name, or } => response_header(scene.response, name, or.as_deref(), out),
        Operator::StartTime(format) => match outcome.start_unix_ns {
            0 => time(format, scene.state.core.clock().unix_nanos(), out),
            start => time(format, start, out),
        },
        Operator::EmitTime(format) => time(format, scene.state.core.clock().unix_nanos(), out),
        Operator::RequestTxDuration => millis(timings.request_tx(), out),
        Operator::CommonDuration { from, to, unit } => {
            common_duration(point(timings, *from), point(timings, *to), *unit, out)
        }
        Operator::RequestDuration => millis(timings.request(), out),
        Operator::ResponseDuration => millis(timings.response(), out),
        Operator::ResponseTxDuration => millis(timings.response_tx(), out),
        Operator::Duration => millis(timings.total(), out),
        Operator::BytesReceived => number(outcome.bytes_received, out),
        Operator::BytesSent => number(outcome.bytes_sent, out),
        Operator::Protocol => match scene.request {
            Some(request) => text(request.version.name().as_bytes(), out),
            None => false,
        },
        Operator::ResponseCode => number(outcome.response_code.into(), out),
        Operator::ResponseCodeDetails => text(outcome.details.as_str().as_bytes(), out),
        Operator::ResponseFlags => {
            flags(scene, ResponseFlags::write_short, out);
            true
        }
        Operator::ResponseFlagsLong => {
            flags(scene, ResponseFlags::write_long, out);
            true
        }
        Operator::ConnectionTerminationDetails => match &scene.refused_by {
            Some(policy) => text(policy.as_str().as_bytes(), out),
            None => false,
        },
        Operator::UpstreamTransportFailureReason => {
            text(logged.map_or("", |logged| &logged.transport_failure).as_bytes(), out)
        }
        Operator::DownstreamTransportFailureReason => text(scene.handshake_failure.as_bytes(), out),
        Operator::UpstreamCluster => text(scene.cluster.as_bytes(), out),
        Operator::UpstreamRequestAttemptCount => number(outcome.attempts.into(), out),
        Operator::RouteName => text(scene.route.as_bytes(), out),
        Operator::GrpcStatus(name) => grpc_status(outcome.grpc_status, *name, out),
        Operator::RequestHeadersBytes => number(scene.request.map_or(0, request_bytes), out),
        Operator::ResponseHeadersBytes => number(scene.response.map_or(0, response_bytes), out),
        Operator::UpstreamWireBytesSent => number(outcome.upstream_bytes_sent, out),
        Operator::UpstreamWireBytesReceived => number(outcome.upstream_bytes_received, out),
        Operator::DownstreamWireBytesSent => number(scene.wire_bytes().1, out),
        Operator::DownstreamWireBytesReceived => number(scene.wire_bytes().0, out),
        Operator::AccessLogType => match scene.request {
            Some(_) => text(b"DownstreamEnd", out),
            None => text(b"TcpConnectionEnd", out),
        },
        _ => message(operator, scene, out),
    }
}

/// What is in the request and its answer, beyond fields.
fn message(operator: &Operator, scene: &Scene<'_>, out: &mut Vec<u8>) -> bool {
    match operator {
        Operator::Path { query, of } => match scene.request {
            Some(head) => path(head, *query, *of, out),
            None => false,
        },
        Operator::QueryParameter(name) => {
            let mut parameters = original_query(scene).split(|byte| *byte == b'&');
            let value = parameters.find_map(|part| part.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
            text(value.unwrap_or_default(), out)
        }
        Operator::QueryParameters => text(original_query(scene), out),
        Operator::ResponseTrailer { name, or } => {
            let Some(trailers) = scene.logged.and_then(|logged| logged.trailers.as_ref()) else {
                return false;
            };
            field(trailers, name, or.as_deref(), out)
        }
        // Envoy's id of a stream is the request's
        Operator::StreamId => match scene.request {
            Some(head) => text(head.fields.get(Known::XRequestId).unwrap_or_default(), out),
            None => uuid([scene.link.map_or(0, |link| link.id), scene.outcome.start_unix_ns], out),
        },
        Operator::UniqueId => uuid([scene.state.draw(), scene.state.draw()], out),
        _ => upstream(operator, scene, out),
    }
}

/// Who answered, and over what.
fn upstream(operator: &Operator, scene: &Scene<'_>, out: &mut Vec<u8>) -> bool {
    let Scene { outcome, logged, .. } = *scene;
    let port = |address: Option<SocketAddr>, out: &mut Vec<u8>| match address {
        Some(address) => number(address.port().into(), out),
        None => false,
    };
    match operator {
        Operator::UpstreamHost => address(outcome.upstream_address, true, out),
        Operator::UpstreamHostName { port } => match logged.map_or("", |logged| &logged.endpoint) {
            "" => address(outcome.upstream_address, *port, out),
            name if *port => text(name.as_bytes(), out),
            name => text(split_port(name.as_bytes()).0, out),
        },
        Operator::UpstreamLocalAddress { port } => address(outcome.upstream_local_address, *port, out),
        Operator::UpstreamRemoteAddress { port } => address(outcome.upstream_address, *port, out),
        Operator::UpstreamLocalPort => port(outcome.upstream_local_address, out),
        Operator::UpstreamRemotePort => port(outcome.upstream_address, out),
        Operator::UpstreamProtocol => {
            let version = logged.map_or(Version::H11, |logged| logged.upstream_version);
            let spoken = scene.request.is_some() && outcome.upstream_address.is_some();
            spoken && text(version.name().as_bytes(), out)
        }
        Operator::UpstreamTls(part) => {
            let conn = logged.and_then(|logged| logged.upstream.as_deref());
            conn.is_some_and(|conn| tls(part, conn, out))
        }
        _ => connection(operator, scene, out),
    }
}

/// Whose connection it is, and to where.
fn connection(operator: &Operator, scene: &Scene<'_>, out: &mut Vec<u8>) -> bool {
    let facts = scene.facts;
    match operator {
        Operator::DownstreamRemoteAddress { port } => address(Some(facts.remote), *port, out),
        Operator::DownstreamDirectRemoteAddress { port } => address(Some(facts.direct_remote), *port, out),
        Operator::DownstreamLocalAddress { port } => address(Some(facts.local), *port, out),
        Operator::DownstreamLocalPort => number(facts.local.port().into(), out),
        Operator::DownstreamRemotePort => number(facts.remote.port().into(), out),
        Operator::RequestedServerName => {
            let tls = || scene.link.and_then(|link| link.conn.tls()).and_then(|tls| tls.sni());
            let name = facts.server_name.as_deref().or_else(tls);
            text(name.unwrap_or_default().as_bytes(), out)
        }
        Operator::Hostname => text(scene.state.shared.hostname.as_bytes(), out),
        Operator::ConnectionId => match scene.link {
            Some(link) => number(link.id, out),
            None => false,
        },
        Operator::FilterChainName => match scene.link {
            Some(link) => text(link.chain.name.as_bytes(), out),
            None => false,
        },
        Operator::DownstreamLocalUriSan => match scene.link {
            Some(link) => names(&link.local_uri_sans, out),
            None => false,
        },
        Operator::DownstreamTls(part) => scene.link.is_some_and(|link| tls(part, &link.conn, out)),
        _ => false,
    }
}

/// What is known of a TLS connection.
fn tls(part: &TlsPart, conn: &Conn, out: &mut Vec<u8>) -> bool {
    let Some(tls) = conn.tls() else { return false };
    match part {
        TlsPart::Version => return text(tls.version().name().as_bytes(), out),
        TlsPart::Cipher => return text(tls.cipher().as_bytes(), out),
        _ => {}
    }
    let Some(peer) = tls.peer() else { return false };
    match part {
        TlsPart::PeerUriSan => names(peer.uri_sans(), out),
        TlsPart::PeerDnsSan => names(peer.dns_sans(), out),
        TlsPart::PeerIpSan => names(&peer.info.ip_sans, out),
        TlsPart::PeerEmailSan => names(&peer.info.email_sans, out),
        TlsPart::PeerSubject => text(peer.subject().as_bytes(), out),
        TlsPart::PeerIssuer => text(peer.info.issuer.as_bytes(), out),
        TlsPart::PeerSerial => text(peer.serial().as_bytes(), out),
        TlsPart::PeerFingerprint256 => text(peer.sha256_hex.as_bytes(), out),
        TlsPart::PeerCertificate => text(peer.certificate_url_encoded_pem().as_bytes(), out),
        TlsPart::PeerValidFrom(format) => {
            time(format, peer.info.not_before_s.saturating_mul(1_000_000_000), out)
        }
        TlsPart::PeerValidUntil(format) => {
            // beyond the year 2554, as certificates without an end have it, there is no nanosecond to count
            time(format, peer.info.not_after_s.saturating_mul(1_000_000_000), out)
        }
        TlsPart::Version | TlsPart::Cipher => false,
    }
}

/// Whether JSON shows it without quotes.
pub(super) fn is_number(operator: &Operator) -> bool {
    matches!(
        operator,
        Operator::RequestDuration
            | Operator::ResponseDuration
            | Operator::ResponseTxDuration
            | Operator::Duration
            | Operator::BytesReceived
            | Operator::BytesSent
            | Operator::ResponseCode
            | Operator::UpstreamRequestAttemptCount
            | Operator::DownstreamLocalPort
            | Operator::DownstreamRemotePort
            | Operator::UpstreamLocalPort
            | Operator::UpstreamRemotePort
            | Operator::RequestTxDuration
            | Operator::CommonDuration { .. }
            | Operator::GrpcStatus(GrpcName::Number)
            | Operator::RequestHeadersBytes
            | Operator::ResponseHeadersBytes
            | Operator::ConnectionId
            | Operator::UpstreamWireBytesSent
            | Operator::UpstreamWireBytesReceived
            | Operator::DownstreamWireBytesSent
            | Operator::DownstreamWireBytesReceived
    )
}

fn request_header(head: Option<&RequestHead>, name: &str, or: Option<&str>, out: &mut Vec<u8>) -> bool {
    let Some(head) = head else { return false };
    let value = |name: &str| head.get_name(name.as_bytes()).filter(|value| !value.is_empty());
    match value(name).or_else(|| value(or?)) {
        Some(found) => text(found, out),
        None => false,
    }
}

fn response_header(head: Option<&ResponseHead>, name: &str, or: Option<&str>, out: &mut Vec<u8>) -> bool {
    let Some(head) = head else { return false };
    if name == ":status" {
        return number(head.status.into(), out);
    }
    field(&head.fields, name, or, out)
}

fn field(fields: &Fields, name: &str, or: Option<&str>, out: &mut Vec<u8>) -> bool {
    let value = |name: &str| fields.get_name(name.as_bytes()).filter(|value| !value.is_empty());
    match value(name).or_else(|| value(or?)) {
        Some(found) => text(found, out),
        None => false,
    }
}

/// Envoy counts names and values, pseudo-headers among them.
pub(super) fn request_bytes(head: &RequestHead) -> u64 {
    let names = ":authority:path:method:scheme".len();
    let values = head.authority().len() + head.path().len() + head.method_bytes().len() + head.scheme().len();
    (names + values + head.fields.total_bytes()) as u64
}

fn response_bytes(head: &ResponseHead) -> u64 {
    (":status200".len() + head.fields.total_bytes()) as u64
}

fn path(head: &RequestHead, query: bool, of: PathOf, out: &mut Vec<u8>) -> bool {
    let original = head.fields.get(Known::XEnvoyOriginalPath);
    let path = match of {
        PathOf::OriginalOrCurrent => original.unwrap_or(head.path()),
        PathOf::Original => original.unwrap_or_default(),
        PathOf::Current => head.path(),
    };
    let end = query_at(path).filter(|_| !query).unwrap_or(path.len());
    text(&path[..end], out)
}

/// Of the path that came.
fn original_query<'a>(scene: &Scene<'a>) -> &'a [u8] {
    let Some(head) = scene.request else { return b"" };
    let path = head.fields.get(Known::XEnvoyOriginalPath).unwrap_or(head.path());
    query_at(path).map_or(b"", |at| &path[at + 1..])
}

fn query_at(path: &[u8]) -> Option<usize> {
    path.iter().position(|byte| *byte == b'?')
}

fn uuid(random: [u64; 2], out: &mut Vec<u8>) -> bool {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&random[0].to_le_bytes());
    bytes[8..].copy_from_slice(&random[1].to_le_bytes());
    text(&uuid_v4(bytes), out)
}

fn time(format: &TimeFormat, unix_ns: u64, out: &mut Vec<u8>) -> bool {
    match format {
        TimeFormat::Rfc3339Millis => write_rfc3339_millis(out, unix_ns),
        TimeFormat::Strftime(format) => write_strftime(out, format, unix_ns),
    }
    true
}

fn point(timings: &Timings, point: TimePoint) -> u64 {
    match point {
        TimePoint::DownstreamRxBegin => timings.start,
        TimePoint::DownstreamRxEnd => timings.request_end,
        TimePoint::UpstreamTxBegin => timings.upstream_tx_start,
        TimePoint::UpstreamTxEnd => timings.upstream_tx_end,
        TimePoint::UpstreamRxBegin => timings.upstream_rx_start,
        TimePoint::UpstreamRxEnd => timings.upstream_rx_end,
        TimePoint::DownstreamTxBegin => timings.response_start,
        TimePoint::DownstreamTxEnd => timings.end,
    }
}

fn common_duration(from: u64, to: u64, unit: TimeUnit, out: &mut Vec<u8>) -> bool {
    let Some(nanos) = Timings::between(from, to) else { return false };
    number(
        match unit {
            TimeUnit::Millis => nanos / 1_000_000,
            TimeUnit::Micros => nanos / 1_000,
            TimeUnit::Nanos => nanos,
        },
        out,
    )
}

/// gRPC, "Status codes and their use in gRPC", spelled as Envoy does.
const GRPC_NAMES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

fn grpc_status(status: Option<u8>, form: GrpcName, out: &mut Vec<u8>) -> bool {
    let Some(status) = status else { return false };
    let name = GRPC_NAMES.get(usize::from(status));
    match (form, name) {
        (GrpcName::Camel, Some(name)) => text(name.as_bytes(), out),
        (GrpcName::Snake, Some(name)) => {
            for (at, letter) in name.bytes().enumerate() {
                // `OK` is one word
                if *name != "OK" && letter.is_ascii_uppercase() && at > 0 {
                    out.push(b'_');
                }
                out.push(letter.to_ascii_uppercase());
            }
            true
        }
        (GrpcName::Number, _) | (_, None) => number(status.into(), out),
    }
}

/// Envoy writes flags in the order in which they were set. Its router finds that there is no further try before it says
/// what became of the last; its TCP proxy the other way round.
fn flags(scene: &Scene<'_>, write: fn(ResponseFlags, &mut Vec<u8>), out: &mut Vec<u8>) {
    let early = ResponseFlags::DELAY_INJECTED | ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED;
    let (first, rest) = match scene.request {
        Some(_) => scene.outcome.flags.split(early),
        None => (ResponseFlags::NONE, scene.outcome.flags),
    };
    if !first.is_empty() {
        write(first, out);
        if rest.is_empty() {
            return;
        }
        out.push(b',');
    }
    write(rest, out);
}

fn text(value: &[u8], out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(value);
    !value.is_empty()
}

fn names<T: Display>(names: &[T], out: &mut Vec<u8>) -> bool {
    for (number, name) in names.iter().enumerate() {
        let comma = if number > 0 { "," } else { "" };
        // a Vec takes all that is written
        let _ = write!(out, "{comma}{name}");
    }
    !names.is_empty()
}

fn number(value: u64, out: &mut Vec<u8>) -> bool {
    write_uint(out, value);
    true
}

fn millis(nanos: Option<u64>, out: &mut Vec<u8>) -> bool {
    write_millis(out, nanos);
    nanos.is_some()
}

fn address(address: Option<SocketAddr>, port: bool, out: &mut Vec<u8>) -> bool {
    let Some(address) = address else { return false };
    // a Vec takes all that is written
    let _ = match port {
        true => write!(out, "{address}"),
        false => write!(out, "{}", address.ip()),
    };
    true
}
