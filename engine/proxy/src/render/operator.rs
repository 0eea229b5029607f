//! One command operator. False: the value is absent, and what was written is to be forgotten.

use super::Scene;
use corelane_http::{RequestHead, ResponseHead, Version};
use corelane_snapshot::template::{Operator, TimeFormat};
use corelane_telemetry::{
    ResponseFlags,
    access_log::{write_millis, write_rfc3339_millis, write_strftime, write_uint},
};
use std::{io::Write, net::SocketAddr};

pub(super) fn write(operator: &Operator, scene: &Scene<'_>, out: &mut Vec<u8>) -> bool {
    let Scene { outcome, logged, .. } = *scene;
    let timings = &outcome.timings;
    match operator {
        Operator::RequestHeader { name, or } => request_header(scene.request, name, or.as_deref(), out),
        Operator::ResponseHeader { name, or } => response_header(scene.response, name, or.as_deref(), out),
        Operator::StartTime(format) => {
            let start = match outcome.start_unix_ns {
                0 => scene.state.core.clock().unix_nanos(),
                start => start,
            };
            match format {
                TimeFormat::Rfc3339Millis => write_rfc3339_millis(out, start),
                TimeFormat::Strftime(format) => write_strftime(out, format, start),
            }
            true
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
        Operator::UpstreamHost => address(outcome.upstream_address, true, out),
        Operator::UpstreamCluster => text(scene.cluster.as_bytes(), out),
        Operator::UpstreamLocalAddress { port } => address(outcome.upstream_local_address, *port, out),
        Operator::UpstreamRemoteAddress { port } => address(outcome.upstream_address, *port, out),
        Operator::UpstreamRequestAttemptCount => number(outcome.attempts.into(), out),
        Operator::UpstreamProtocol => {
            let version = logged.map_or(Version::H11, |logged| logged.upstream_version);
            let spoken = scene.request.is_some() && outcome.upstream_address.is_some();
            spoken && text(version.name().as_bytes(), out)
        }
        Operator::RouteName => text(scene.route.as_bytes(), out),
        Operator::GrpcStatus { number: as_number } => grpc_status(outcome.grpc_status, *as_number, out),
        Operator::RequestHeadersBytes => number(logged.map_or(0, |logged| logged.request_bytes), out),
        Operator::ResponseHeadersBytes => number(logged.map_or(0, |logged| logged.response_head_bytes), out),
        Operator::UpstreamWireBytesSent => number(outcome.upstream_bytes_sent, out),
        Operator::UpstreamWireBytesReceived => number(outcome.upstream_bytes_received, out),
        Operator::DownstreamWireBytesSent => number(outcome.bytes_sent, out),
        Operator::DownstreamWireBytesReceived => number(outcome.bytes_received, out),
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
        Operator::ConnectionId | Operator::StreamId => match scene.link {
            Some(link) => number(link.id, out),
            None => false,
        },
        _ => certificate(operator, scene, out),
    }
}

/// What is known of the TLS connection with the client.
fn certificate(operator: &Operator, scene: &Scene<'_>, out: &mut Vec<u8>) -> bool {
    let Some(link) = scene.link else { return false };
    let Some(tls) = link.conn.tls() else { return false };
    let peer = link.peer();
    match operator {
        Operator::DownstreamTlsVersion => text(tls.version().name().as_bytes(), out),
        Operator::DownstreamTlsCipher => text(tls.cipher().as_bytes(), out),
        Operator::DownstreamPeerUriSan => names(peer.map_or(&[], |peer| peer.uri_sans()), out),
        Operator::DownstreamLocalUriSan => names(&link.local_uri_sans, out),
        Operator::DownstreamPeerSubject => text(peer.map_or("", |peer| peer.subject()).as_bytes(), out),
        Operator::DownstreamPeerFingerprint256 => {
            text(peer.map_or("", |peer| &peer.sha256_hex).as_bytes(), out)
        }
        Operator::DownstreamPeerSerial => text(peer.map_or("", |peer| peer.serial()).as_bytes(), out),
        _ => false,
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
            | Operator::GrpcStatus { number: true }
            | Operator::RequestHeadersBytes
            | Operator::ResponseHeadersBytes
            | Operator::ConnectionId
            | Operator::StreamId
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
    let value = |name: &str| head.fields.get_name(name.as_bytes()).filter(|value| !value.is_empty());
    match value(name).or_else(|| value(or?)) {
        Some(found) => text(found, out),
        None => false,
    }
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

fn grpc_status(status: Option<u8>, as_number: bool, out: &mut Vec<u8>) -> bool {
    let Some(status) = status else { return false };
    match GRPC_NAMES.get(usize::from(status)) {
        Some(name) if !as_number => text(name.as_bytes(), out),
        _ => number(status.into(), out),
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

fn names(names: &[String], out: &mut Vec<u8>) -> bool {
    for (number, name) in names.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        out.extend_from_slice(name.as_bytes());
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
