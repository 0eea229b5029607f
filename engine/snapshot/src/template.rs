//! Envoy's format strings (`%REQ(:PATH)%`), compiled once. They fill access log lines and header values; the
//! proxy crate renders them. Reference: Envoy, "Access logging: command operators".

use crate::Error;

#[derive(Clone, Debug, PartialEq, Default)]
pub struct Template {
    pub parts: Vec<Part>,
    /// Absent values are left out instead of written as `-` (omit_empty_values).
    pub omit_empty: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    Literal(Box<[u8]>),
    Operator { operator: Operator, length_max: Option<u32> },
}

/// A command operator. Header names are lower case.
#[derive(Clone, Debug, PartialEq)]
pub enum Operator {
    RequestHeader {
        name: Box<str>,
        or: Option<Box<str>>,
    },
    ResponseHeader {
        name: Box<str>,
        or: Option<Box<str>>,
    },
    StartTime(TimeFormat),
    RequestDuration,
    ResponseDuration,
    ResponseTxDuration,
    Duration,
    BytesReceived,
    BytesSent,
    Protocol,
    ResponseCode,
    ResponseCodeDetails,
    ConnectionTerminationDetails,
    ResponseFlags,
    ResponseFlagsLong,
    UpstreamHost,
    UpstreamCluster,
    UpstreamLocalAddress {
        port: bool,
    },
    UpstreamRemoteAddress {
        port: bool,
    },
    UpstreamRequestAttemptCount,
    UpstreamProtocol,
    DownstreamRemoteAddress {
        port: bool,
    },
    DownstreamDirectRemoteAddress {
        port: bool,
    },
    DownstreamLocalAddress {
        port: bool,
    },
    DownstreamLocalPort,
    DownstreamRemotePort,
    DownstreamTlsVersion,
    DownstreamTlsCipher,
    DownstreamPeerUriSan,
    DownstreamPeerSubject,
    DownstreamPeerFingerprint256,
    DownstreamPeerSerial,
    DownstreamLocalUriSan,
    RequestedServerName,
    RouteName,
    GrpcStatus {
        number: bool,
    },
    RequestHeadersBytes,
    ResponseHeadersBytes,
    Hostname,
    ConnectionId,
    StreamId,
    UpstreamWireBytesSent,
    UpstreamWireBytesReceived,
    DownstreamWireBytesSent,
    DownstreamWireBytesReceived,
    UpstreamTransportFailureReason,
    DownstreamTransportFailureReason,
    /// What nothing here sets: dynamic metadata, filter state, virtual clusters.
    Absent,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TimeFormat {
    /// RFC 3339 with milliseconds, Envoy's default.
    Rfc3339Millis,
    /// strftime with Envoy's %s, %3f, %6f, %9f.
    Strftime(Box<str>),
}

impl Template {
    pub fn literal(text: &str) -> Template {
        Template { parts: vec![Part::Literal(text.as_bytes().into())], omit_empty: false }
    }

    /// Compiles a format string. `%%` is a percent sign.
    ///
    /// # Errors
    /// Names the byte at which an unknown or unfinished operator stands.
    pub fn parse(format: &str) -> Result<Template, Error> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut at = 0;
        while let Some(found) = format[at..].find('%') {
            let start = at + found;
            literal.extend_from_slice(&format.as_bytes()[at..start]);
            if format[start + 1..].starts_with('%') {
                literal.push(b'%');
                at = start + 2;
                continue;
            }
            let (part, end) = operator_at(format, start)?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into()));
            }
            parts.push(part);
            at = end;
        }
        literal.extend_from_slice(&format.as_bytes()[at..]);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Ok(Template { parts, omit_empty: false })
    }
}

/// The operator that starts with the `%` at `start`, and the byte after its closing `%`.
fn operator_at(format: &str, start: usize) -> Result<(Part, usize), Error> {
    let fail = |reason: String| Error::Template { offset: start, reason };
    let rest = &format[start + 1..];
    let name_len =
        rest.bytes().take_while(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_').count();
    let name = &rest[..name_len];
    let mut tail = &rest[name_len..];
    let mut argument = None;
    if let Some(inner) = tail.strip_prefix('(') {
        let close = inner.find(')').ok_or_else(|| fail(format!("`%{name}(` has no closing parenthesis")))?;
        argument = Some(&inner[..close]);
        tail = &inner[close + 1..];
    }
    let mut length_max = None;
    if let Some(after) = tail.strip_prefix(':') {
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let length =
            after[..digits].parse().map_err(|_| fail(format!("`%{name}:` wants a length in characters")))?;
        length_max = Some(length);
        tail = &after[digits..];
    }
    let after =
        tail.strip_prefix('%').ok_or_else(|| fail(format!("operator `{name}` has no closing `%`")))?;
    let operator = operator(name, argument).map_err(fail)?;
    Ok((Part::Operator { operator, length_max }, format.len() - after.len()))
}

fn operator(name: &str, argument: Option<&str>) -> Result<Operator, String> {
    let header = || -> Result<(Box<str>, Option<Box<str>>), String> {
        let text = argument.filter(|text| !text.is_empty()).ok_or(format!("`{name}` wants a header name"))?;
        let (first, second) = text.split_once('?').map_or((text, None), |(a, b)| (a, Some(b)));
        Ok((first.to_ascii_lowercase().into(), second.map(|name| name.to_ascii_lowercase().into())))
    };
    Ok(match name {
        "REQ" => header().map(|(name, or)| Operator::RequestHeader { name, or })?,
        "RESP" => header().map(|(name, or)| Operator::ResponseHeader { name, or })?,
        "START_TIME" => Operator::StartTime(match argument {
            None | Some("") => TimeFormat::Rfc3339Millis,
            Some(format) => TimeFormat::Strftime(format.into()),
        }),
        "GRPC_STATUS" => match argument {
            None | Some("" | "CAMEL_STRING") => Operator::GrpcStatus { number: false },
            Some("NUMBER") => Operator::GrpcStatus { number: true },
            Some(other) => return Err(format!("`{name}({other})` is not implemented")),
        },
        "GRPC_STATUS_NUMBER" => Operator::GrpcStatus { number: true },
        "DYNAMIC_METADATA" | "FILTER_STATE" | "UPSTREAM_FILTER_STATE" => Operator::Absent,
        _ => match (plain_operator(name), argument) {
            (Some(operator), None) => operator,
            (Some(_), Some(_)) => return Err(format!("`{name}` with an argument is not implemented")),
            (None, _) => return Err(format!("unknown operator `%{name}%`")),
        },
    })
}

fn plain_operator(name: &str) -> Option<Operator> {
    Some(match name {
        "REQUEST_DURATION" => Operator::RequestDuration,
        "RESPONSE_DURATION" => Operator::ResponseDuration,
        "RESPONSE_TX_DURATION" => Operator::ResponseTxDuration,
        "DURATION" => Operator::Duration,
        "BYTES_RECEIVED" => Operator::BytesReceived,
        "BYTES_SENT" => Operator::BytesSent,
        "PROTOCOL" => Operator::Protocol,
        "RESPONSE_CODE" => Operator::ResponseCode,
        "RESPONSE_CODE_DETAILS" => Operator::ResponseCodeDetails,
        "CONNECTION_TERMINATION_DETAILS" => Operator::ConnectionTerminationDetails,
        "RESPONSE_FLAGS" => Operator::ResponseFlags,
        "RESPONSE_FLAGS_LONG" => Operator::ResponseFlagsLong,
        "UPSTREAM_HOST" => Operator::UpstreamHost,
        "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => Operator::UpstreamCluster,
        "UPSTREAM_LOCAL_ADDRESS" => Operator::UpstreamLocalAddress { port: true },
        "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Operator::UpstreamLocalAddress { port: false },
        "UPSTREAM_REMOTE_ADDRESS" => Operator::UpstreamRemoteAddress { port: true },
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Operator::UpstreamRemoteAddress { port: false },
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Operator::UpstreamRequestAttemptCount,
        "UPSTREAM_PROTOCOL" => Operator::UpstreamProtocol,
        "DOWNSTREAM_REMOTE_ADDRESS" => Operator::DownstreamRemoteAddress { port: true },
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Operator::DownstreamRemoteAddress { port: false },
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Operator::DownstreamDirectRemoteAddress { port: true },
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => {
            Operator::DownstreamDirectRemoteAddress { port: false }
        }
        "DOWNSTREAM_LOCAL_ADDRESS" => Operator::DownstreamLocalAddress { port: true },
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Operator::DownstreamLocalAddress { port: false },
        "DOWNSTREAM_LOCAL_PORT" => Operator::DownstreamLocalPort,
        "DOWNSTREAM_REMOTE_PORT" => Operator::DownstreamRemotePort,
        "DOWNSTREAM_TLS_VERSION" => Operator::DownstreamTlsVersion,
        "DOWNSTREAM_TLS_CIPHER" => Operator::DownstreamTlsCipher,
        "DOWNSTREAM_PEER_URI_SAN" => Operator::DownstreamPeerUriSan,
        "DOWNSTREAM_PEER_SUBJECT" => Operator::DownstreamPeerSubject,
        "DOWNSTREAM_PEER_FINGERPRINT_256" => Operator::DownstreamPeerFingerprint256,
        "DOWNSTREAM_PEER_SERIAL" => Operator::DownstreamPeerSerial,
        "DOWNSTREAM_LOCAL_URI_SAN" => Operator::DownstreamLocalUriSan,
        "REQUESTED_SERVER_NAME" => Operator::RequestedServerName,
        "ROUTE_NAME" => Operator::RouteName,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Operator::UpstreamTransportFailureReason,
        "DOWNSTREAM_TRANSPORT_FAILURE_REASON" => Operator::DownstreamTransportFailureReason,
        "VIRTUAL_CLUSTER_NAME" => Operator::Absent,
        "REQUEST_HEADERS_BYTES" => Operator::RequestHeadersBytes,
        "RESPONSE_HEADERS_BYTES" => Operator::ResponseHeadersBytes,
        "HOSTNAME" => Operator::Hostname,
        "CONNECTION_ID" => Operator::ConnectionId,
        "STREAM_ID" => Operator::StreamId,
        "UPSTREAM_WIRE_BYTES_SENT" => Operator::UpstreamWireBytesSent,
        "UPSTREAM_WIRE_BYTES_RECEIVED" => Operator::UpstreamWireBytesReceived,
        "DOWNSTREAM_WIRE_BYTES_SENT" => Operator::DownstreamWireBytesSent,
        "DOWNSTREAM_WIRE_BYTES_RECEIVED" => Operator::DownstreamWireBytesReceived,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(operator: Operator) -> Vec<Part> {
        vec![Part::Operator { operator, length_max: None }]
    }

    #[test]
    fn operators_and_literals_alternate() {
        let template = Template::parse("a %REQ(:PATH?X-Path):12%%% %RESPONSE_CODE%\n").expect("valid");
        assert_eq!(
            template.parts,
            vec![
                Part::Literal(b"a ".as_slice().into()),
                Part::Operator {
                    operator: Operator::RequestHeader { name: ":path".into(), or: Some("x-path".into()) },
                    length_max: Some(12)
                },
                Part::Literal(b"% ".as_slice().into()),
                Part::Operator { operator: Operator::ResponseCode, length_max: None },
                Part::Literal(b"\n".as_slice().into()),
            ]
        );
    }

    #[test]
    fn arguments_are_understood() {
        let time = Template::parse("%START_TIME(%Y/%m/%dT%H:%M:%S%z)%").expect("valid");
        assert_eq!(time.parts, one(Operator::StartTime(TimeFormat::Strftime("%Y/%m/%dT%H:%M:%S%z".into()))));
        let grpc = Template::parse("%GRPC_STATUS(NUMBER)%").expect("valid");
        assert_eq!(grpc.parts, one(Operator::GrpcStatus { number: true }));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let reason = |format: &str| Template::parse(format).expect_err("invalid").to_string();
        assert_eq!(reason("ab%NOPE%"), "bad format string at byte 2: unknown operator `%NOPE%`");
        assert_eq!(reason("%TRAILER(a)%"), "bad format string at byte 0: unknown operator `%TRAILER%`");
        assert_eq!(
            reason("%GRPC_STATUS(SNAKE_STRING)%"),
            "bad format string at byte 0: `GRPC_STATUS(SNAKE_STRING)` is not implemented"
        );
        assert_eq!(
            reason("%PROTOCOL(x)%"),
            "bad format string at byte 0: `PROTOCOL` with an argument is not implemented"
        );
        assert_eq!(reason("%REQ()%"), "bad format string at byte 0: `REQ` wants a header name");
        assert_eq!(reason("%REQ(a%"), "bad format string at byte 0: `%REQ(` has no closing parenthesis");
        assert_eq!(
            reason("x%PROTOCOL"),
            "bad format string at byte 1: operator `PROTOCOL` has no closing `%`"
        );
        assert_eq!(
            reason("%PROTOCOL:x%"),
            "bad format string at byte 0: `%PROTOCOL:` wants a length in characters"
        );
    }
}
