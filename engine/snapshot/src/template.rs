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
    RequestHeader { name: Box<str>, or: Option<Box<str>> },
    ResponseHeader { name: Box<str>, or: Option<Box<str>> },
    ResponseTrailer { name: Box<str>, or: Option<Box<str>> },
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
    UpstreamLocalAddress { port: bool },
    UpstreamRemoteAddress { port: bool },
    UpstreamRequestAttemptCount,
    UpstreamTransportFailureReason,
    UpstreamProtocol,
    DownstreamRemoteAddress { port: bool },
    DownstreamDirectRemoteAddress { port: bool },
    DownstreamLocalAddress { port: bool },
    DownstreamLocalPort,
    DownstreamRemotePort,
    DownstreamTransportFailureReason,
    DownstreamTlsVersion,
    DownstreamTlsCipher,
    DownstreamPeerUriSan,
    DownstreamPeerSubject,
    DownstreamPeerFingerprint256,
    DownstreamPeerSerial,
    DownstreamLocalUriSan,
    RequestedServerName,
    RouteName,
    VirtualClusterName,
    GrpcStatus { number: bool },
    RequestHeadersBytes,
    ResponseHeadersBytes,
    Hostname,
    ConnectionId,
    StreamId,
    UpstreamWireBytesSent,
    UpstreamWireBytesReceived,
    DownstreamWireBytesSent,
    DownstreamWireBytesReceived,
    /// DYNAMIC_METADATA, FILTER_STATE and the like, which nothing here sets: always absent.
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

    /// # Errors
    /// Names the byte at which an unknown or unfinished operator stands.
    pub fn parse(_format: &str) -> Result<Template, Error> {
        todo!("template helper")
    }
}
