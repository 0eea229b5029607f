//! Everything this crate refuses, and what that means to the peer: each variant has one HTTP status and one
//! stable detail string (counters, `%RESPONSE_CODE_DETAILS%`), in the shape of Envoy's `http1.` details.

use thiserror::Error;

/// A message, a header or a first flight that is not acceptable. After any error from a head or a body the
/// connection cannot be reused: where the next message starts is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HttpError {
    #[error("request line is not `method SP target SP version CRLF`")]
    RequestLine,
    #[error("status line is not `version SP status SP [reason] CRLF`")]
    StatusLine,
    #[error("method has a byte that is not a token character")]
    InvalidMethod,
    #[error("request target is empty, in the wrong form for its method, or has a forbidden byte")]
    InvalidTarget,
    #[error("HTTP version is not supported")]
    Version,
    #[error("HTTP/1.0 is not accepted by this listener")]
    Http10NotAccepted,
    #[error("field name is empty or has a byte that is not a token character")]
    InvalidFieldName,
    #[error("field name is followed by white space before the colon")]
    SpaceBeforeColon,
    #[error("field value continues on the next line (obs-fold)")]
    ObsFold,
    #[error("field value has a control byte")]
    InvalidFieldValue,
    #[error("line ends in LF without CR")]
    BareLf,
    #[error("CR is not followed by LF")]
    BareCr,
    #[error("too many empty lines before the message")]
    LeadingEmptyLines,
    #[error("head is larger than the limit of the listener or cluster")]
    HeadTooLarge,
    #[error("request target is larger than the limit of the listener")]
    TargetTooLong,
    #[error("head has more fields than the limit of the listener or cluster")]
    TooManyFields,
    #[error("request has no Host")]
    MissingHost,
    #[error("request has more than one Host")]
    DuplicateHost,
    #[error("Host or authority is not `host [\":\" port]`")]
    InvalidHost,
    #[error("Content-Length is not one decimal number below 2^63")]
    InvalidContentLength,
    #[error("message has more than one Content-Length")]
    DuplicateContentLength,
    #[error("message has both Content-Length and Transfer-Encoding")]
    LengthAndTransferEncoding,
    #[error("Transfer-Encoding does not end in one `chunked`")]
    InvalidTransferEncoding,
    #[error("Transfer-Encoding names a coding other than `chunked`")]
    UnsupportedTransferEncoding,
    #[error("Transfer-Encoding is not allowed in this message")]
    TransferEncodingNotAllowed,
    #[error("Content-Length is not allowed in this message")]
    ContentLengthNotAllowed,
    #[error("chunk size is not a hexadecimal number below 2^63")]
    InvalidChunkSize,
    #[error("chunk-size line is longer than its limit")]
    ChunkLineTooLong,
    #[error("chunk extension has a forbidden byte")]
    InvalidChunkExtension,
    #[error("chunk data is not followed by CRLF")]
    InvalidChunkEnd,
    #[error("trailer section is larger than its limit")]
    TrailersTooLarge,
    #[error("trailer section has a field that must not be in one")]
    ForbiddenTrailer,
    #[error("connection closed before the end of the message")]
    Incomplete,
    #[error("body has more bytes than its Content-Length")]
    BodyTooLong,
    #[error("output buffer is too small for the head")]
    OutputFull,
    #[error("path cannot be normalized")]
    PathNotNormalizable,
    #[error("path has an escaped slash")]
    EscapedSlash,
    #[error("path has a fragment")]
    PathFragment,
    #[error("TLS ClientHello is malformed")]
    ClientHello,
    #[error("TLS ClientHello is larger than the limit")]
    ClientHelloTooLarge,
    #[error("PROXY protocol header is malformed")]
    ProxyHeader,
    #[error("PROXY protocol header is larger than the limit")]
    ProxyHeaderTooLarge,
}

impl HttpError {
    /// The status of the local reply when a request caused the error. When a response caused it the peer is
    /// at fault and the caller answers 502, whatever this says.
    pub fn status(self) -> u16 {
        use HttpError::*;
        match self {
            Version => 505,
            // Envoy answers 426 where http_protocol_options.accept_http_10 is off.
            Http10NotAccepted => 426,
            HeadTooLarge | TooManyFields | TrailersTooLarge => 431,
            TargetTooLong => 414,
            // RFC 9112 section 6.1: "A server that receives a request message with a transfer coding it does
            // not understand SHOULD respond with 501 (Not Implemented)."
            UnsupportedTransferEncoding => 501,
            OutputFull => 500,
            _ => 400,
        }
    }

    /// Stable name for counters and response code details.
    pub fn detail(self) -> &'static str {
        use HttpError::*;
        match self {
            RequestLine => "http1.invalid_request_line",
            StatusLine => "http1.invalid_status_line",
            InvalidMethod => "http1.invalid_method",
            InvalidTarget => "http1.invalid_url",
            Version => "http1.invalid_version",
            Http10NotAccepted => "low_version",
            InvalidFieldName => "http1.invalid_header_name",
            SpaceBeforeColon => "http1.space_before_colon",
            ObsFold => "http1.obs_fold",
            InvalidFieldValue => "http1.invalid_characters",
            BareLf => "http1.bare_lf",
            BareCr => "http1.bare_cr",
            LeadingEmptyLines => "http1.leading_empty_lines",
            HeadTooLarge => "http1.headers_too_large",
            TargetTooLong => "http1.url_too_long",
            TooManyFields => "http1.too_many_headers",
            MissingHost => "missing_host_header",
            DuplicateHost => "http1.duplicate_host",
            InvalidHost => "http1.invalid_host",
            InvalidContentLength => "http1.invalid_content_length",
            DuplicateContentLength => "http1.duplicate_content_length",
            LengthAndTransferEncoding => "http1.content_length_and_transfer_encoding",
            InvalidTransferEncoding => "http1.invalid_transfer_encoding",
            UnsupportedTransferEncoding => "http1.unsupported_transfer_encoding",
            TransferEncodingNotAllowed => "http1.transfer_encoding_not_allowed",
            ContentLengthNotAllowed => "http1.content_length_not_allowed",
            InvalidChunkSize => "http1.invalid_chunk_size",
            ChunkLineTooLong => "http1.chunk_line_too_long",
            InvalidChunkExtension => "http1.invalid_chunk_extension",
            InvalidChunkEnd => "http1.invalid_chunk_end",
            TrailersTooLarge => "http1.trailers_too_large",
            ForbiddenTrailer => "http1.forbidden_trailer",
            Incomplete => "http1.incomplete_message",
            BodyTooLong => "http1.body_too_long",
            OutputFull => "http1.output_full",
            PathNotNormalizable => "path_normalization_failed",
            EscapedSlash => "path_with_escaped_slash",
            PathFragment => "path_with_fragment",
            ClientHello => "tls.invalid_client_hello",
            ClientHelloTooLarge => "tls.client_hello_too_large",
            ProxyHeader => "proxy_protocol.invalid_header",
            ProxyHeaderTooLarge => "proxy_protocol.header_too_large",
        }
    }
}
