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
    UpstreamLocalPort,
    UpstreamRemotePort,
    /// The endpoint's configured name, or its address where it has none.
    UpstreamHostName {
        port: bool,
    },
    /// Of the connection with the client.
    DownstreamTls(TlsPart),
    /// Of the connection that carried the last try.
    UpstreamTls(TlsPart),
    DownstreamLocalUriSan,
    RequestedServerName,
    FilterChainName,
    RouteName,
    GrpcStatus(GrpcName),
    Path {
        query: bool,
        of: PathOf,
    },
    QueryParameter(Box<str>),
    QueryParameters,
    ResponseTrailer {
        name: Box<str>,
        or: Option<Box<str>>,
    },
    /// A UUID of this line alone.
    UniqueId,
    EmitTime(TimeFormat),
    /// Between two points of the request.
    CommonDuration {
        from: TimePoint,
        to: TimePoint,
        unit: TimeUnit,
    },
    RequestTxDuration,
    AccessLogType,
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
    /// What nothing here sets: dynamic metadata, filter state, virtual clusters, spans.
    Absent,
}

/// What is told of a TLS connection.
#[derive(Clone, Debug, PartialEq)]
pub enum TlsPart {
    Version,
    Cipher,
    PeerUriSan,
    PeerDnsSan,
    PeerIpSan,
    PeerEmailSan,
    PeerSubject,
    PeerIssuer,
    PeerSerial,
    PeerFingerprint256,
    /// URL-encoded PEM.
    PeerCertificate,
    PeerValidFrom(TimeFormat),
    PeerValidUntil(TimeFormat),
}

/// Which of a request's paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathOf {
    /// As it came, where a rewrite kept it; else as it is.
    OriginalOrCurrent,
    Current,
    Original,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcName {
    Camel,
    Snake,
    Number,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    Millis,
    Micros,
    Nanos,
}

/// A point in the life of a request: first or last byte, from (RX) or to (TX) downstream or upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimePoint {
    DownstreamRxBegin,
    DownstreamRxEnd,
    UpstreamTxBegin,
    UpstreamTxEnd,
    UpstreamRxBegin,
    UpstreamRxEnd,
    DownstreamTxBegin,
    DownstreamTxEnd,
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

fn time_format(argument: Option<&str>) -> TimeFormat {
    match argument {
        None | Some("") => TimeFormat::Rfc3339Millis,
        Some(format) => TimeFormat::Strftime(format.into()),
    }
}

fn operator(name: &str, argument: Option<&str>) -> Result<Operator, String> {
    let header = || -> Result<(Box<str>, Option<Box<str>>), String> {
        let text = argument.filter(|text| !text.is_empty()).ok_or(format!("`{name}` wants a header name"))?;
        let (first, second) = text.split_once('?').map_or((text, None), |(a, b)| (a, Some(b)));
        Ok((first.to_ascii_lowercase().into(), second.map(|name| name.to_ascii_lowercase().into())))
    };
    Ok(match name {
        "REQ" | "REQUEST_HEADER" => header().map(|(name, or)| Operator::RequestHeader { name, or })?,
        "RESP" | "RESPONSE_HEADER" => header().map(|(name, or)| Operator::ResponseHeader { name, or })?,
        "TRAILER" => header().map(|(name, or)| Operator::ResponseTrailer { name, or })?,
        "START_TIME" => Operator::StartTime(time_format(argument)),
        "EMIT_TIME" => Operator::EmitTime(time_format(argument)),
        "GRPC_STATUS" => Operator::GrpcStatus(match argument {
            None | Some("" | "CAMEL_STRING") => GrpcName::Camel,
            Some("SNAKE_STRING") => GrpcName::Snake,
            Some("NUMBER") => GrpcName::Number,
            Some(other) => return Err(format!("`{name}({other})` is not implemented")),
        }),
        "GRPC_STATUS_NUMBER" => Operator::GrpcStatus(GrpcName::Number),
        "PATH" => path(argument).ok_or(format!("`{name}` takes WQ or NQ, and ORIG, PATH or ORIG_OR_PATH"))?,
        "QUERY_PARAM" => match argument {
            Some(parameter) if !parameter.is_empty() => Operator::QueryParameter(parameter.into()),
            _ => return Err(format!("`{name}` wants a parameter's name")),
        },
        "COMMON_DURATION" => {
            common_duration(argument).ok_or(format!("`{name}` wants two points of time and ms, us or ns"))?
        }
        "DYNAMIC_METADATA" | "FILTER_STATE" | "UPSTREAM_FILTER_STATE" => Operator::Absent,
        _ => match (plain_operator(name).or_else(|| tls_operator(name, argument)), argument) {
            (Some(operator), None) => operator,
            (Some(operator), Some(_)) if takes_time_format(&operator) => operator,
            (Some(_), Some(_)) => return Err(format!("`{name}` with an argument is not implemented")),
            (None, _) => return Err(format!("unknown operator `%{name}%`")),
        },
    })
}

fn takes_time_format(operator: &Operator) -> bool {
    matches!(
        operator,
        Operator::DownstreamTls(TlsPart::PeerValidFrom(_) | TlsPart::PeerValidUntil(_))
            | Operator::UpstreamTls(TlsPart::PeerValidFrom(_) | TlsPart::PeerValidUntil(_))
    )
}

/// `%DOWNSTREAM_PEER_SUBJECT%` and its like, of either side.
fn tls_operator(name: &str, argument: Option<&str>) -> Option<Operator> {
    let (of, part): (fn(TlsPart) -> Operator, _) = match name.split_once('_')? {
        ("DOWNSTREAM", part) => (Operator::DownstreamTls, part),
        ("UPSTREAM", part) => (Operator::UpstreamTls, part),
        _ => return None,
    };
    Some(of(match part {
        "TLS_VERSION" => TlsPart::Version,
        "TLS_CIPHER" => TlsPart::Cipher,
        "PEER_URI_SAN" => TlsPart::PeerUriSan,
        "PEER_DNS_SAN" => TlsPart::PeerDnsSan,
        "PEER_IP_SAN" => TlsPart::PeerIpSan,
        "PEER_EMAIL_SAN" => TlsPart::PeerEmailSan,
        "PEER_SUBJECT" => TlsPart::PeerSubject,
        "PEER_ISSUER" => TlsPart::PeerIssuer,
        "PEER_SERIAL" => TlsPart::PeerSerial,
        "PEER_FINGERPRINT_256" => TlsPart::PeerFingerprint256,
        "PEER_CERT" => TlsPart::PeerCertificate,
        "PEER_CERT_V_START" => TlsPart::PeerValidFrom(time_format(argument)),
        "PEER_CERT_V_END" => TlsPart::PeerValidUntil(time_format(argument)),
        _ => return None,
    }))
}

fn path(argument: Option<&str>) -> Option<Operator> {
    let (query, of) = argument.map_or(("", ""), |text| text.split_once(':').unwrap_or((text, "")));
    let query = match query {
        "" | "WQ" => true,
        "NQ" => false,
        _ => return None,
    };
    let of = match of {
        "" | "ORIG_OR_PATH" => PathOf::OriginalOrCurrent,
        "PATH" => PathOf::Current,
        "ORIG" => PathOf::Original,
        _ => return None,
    };
    Some(Operator::Path { query, of })
}

fn common_duration(argument: Option<&str>) -> Option<Operator> {
    let mut parts = argument?.split(':');
    let point = |name: &str| {
        Some(match name {
            "DS_RX_BEG" => TimePoint::DownstreamRxBegin,
            "DS_RX_END" => TimePoint::DownstreamRxEnd,
            "US_TX_BEG" => TimePoint::UpstreamTxBegin,
            "US_TX_END" => TimePoint::UpstreamTxEnd,
            "US_RX_BEG" => TimePoint::UpstreamRxBegin,
            "US_RX_END" => TimePoint::UpstreamRxEnd,
            "DS_TX_BEG" => TimePoint::DownstreamTxBegin,
            "DS_TX_END" => TimePoint::DownstreamTxEnd,
            _ => return None,
        })
    };
    let (from, to) = (point(parts.next()?)?, point(parts.next()?)?);
    let unit = match (parts.next()?, parts.next()) {
        ("ms", None) => TimeUnit::Millis,
        ("us", None) => TimeUnit::Micros,
        ("ns", None) => TimeUnit::Nanos,
        _ => return None,
    };
    Some(Operator::CommonDuration { from, to, unit })
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
        "UPSTREAM_LOCAL_PORT" => Operator::UpstreamLocalPort,
        "UPSTREAM_REMOTE_PORT" => Operator::UpstreamRemotePort,
        "UPSTREAM_HOST_NAME" => Operator::UpstreamHostName { port: true },
        "UPSTREAM_HOST_NAME_WITHOUT_PORT" => Operator::UpstreamHostName { port: false },
        "DOWNSTREAM_LOCAL_URI_SAN" => Operator::DownstreamLocalUriSan,
        "REQUESTED_SERVER_NAME" => Operator::RequestedServerName,
        "FILTER_CHAIN_NAME" => Operator::FilterChainName,
        "ROUTE_NAME" => Operator::RouteName,
        "QUERY_PARAMS" => Operator::QueryParameters,
        "UNIQUE_ID" => Operator::UniqueId,
        "REQUEST_TX_DURATION" => Operator::RequestTxDuration,
        "ACCESS_LOG_TYPE" => Operator::AccessLogType,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Operator::UpstreamTransportFailureReason,
        "DOWNSTREAM_TRANSPORT_FAILURE_REASON" => Operator::DownstreamTransportFailureReason,
        "VIRTUAL_CLUSTER_NAME" | "TRACE_ID" | "SPAN_ID" => Operator::Absent,
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
        assert_eq!(grpc.parts, one(Operator::GrpcStatus(GrpcName::Number)));
        let path = |text: &str| Template::parse(text).expect("valid").parts;
        assert_eq!(path("%PATH%"), one(Operator::Path { query: true, of: PathOf::OriginalOrCurrent }));
        assert_eq!(path("%PATH(NQ:ORIG)%"), one(Operator::Path { query: false, of: PathOf::Original }));
        let until = TlsPart::PeerValidUntil(TimeFormat::Strftime("%b".into()));
        assert_eq!(path("%UPSTREAM_PEER_CERT_V_END(%b)%"), one(Operator::UpstreamTls(until)));
        let (from, to) = (TimePoint::DownstreamRxBegin, TimePoint::UpstreamTxEnd);
        let duration = Operator::CommonDuration { from, to, unit: TimeUnit::Micros };
        assert_eq!(path("%COMMON_DURATION(DS_RX_BEG:US_TX_END:us)%"), one(duration));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let reason = |format: &str| Template::parse(format).expect_err("invalid").to_string();
        assert_eq!(reason("ab%NOPE%"), "bad format string at byte 2: unknown operator `%NOPE%`");
        assert_eq!(reason("%SECRET(a)%"), "bad format string at byte 0: unknown operator `%SECRET%`");
        assert_eq!(
            reason("%GRPC_STATUS(KEBAB)%"),
            "bad format string at byte 0: `GRPC_STATUS(KEBAB)` is not implemented"
        );
        assert_eq!(
            reason("%UPSTREAM_PEER_SUBJECT(x)%"),
            "bad format string at byte 0: `UPSTREAM_PEER_SUBJECT` with an argument is not implemented"
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
