//! How long a body is (RFC 9112 section 6), decided once, from the fields of a parsed head. Where the RFC
//! leaves a choice between an error and a guess, it is the error.

use crate::{Fields, HttpError, Known, Method, RequestHead, ResponseHead, Version, decimal::decimal, list};

/// Where the body that follows a head ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BodyFraming {
    /// No body, and none was announced.
    #[default]
    None,
    /// Exactly so many bytes; may be 0.
    Length(u64),
    Chunked,
    /// Responses only: the body ends where the connection does.
    UntilClose,
}

/// RFC 9110 section 8.6: Content-Length = 1*DIGIT. A list of identical numbers may be collapsed or refused: it
/// is refused, because a peer may read it otherwise.
fn content_length(fields: &Fields) -> Result<Option<u64>, HttpError> {
    let mut values = fields.get_all(Known::ContentLength);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(HttpError::DuplicateContentLength);
    }
    decimal(value).map(Some).ok_or(HttpError::InvalidContentLength)
}

/// Whether the message is chunked: Transfer-Encoding must be exactly one `chunked`.
fn is_chunked(fields: &Fields, version: Version) -> Result<bool, HttpError> {
    if !fields.contains(Known::TransferEncoding) {
        return Ok(false);
    }
    // RFC 9112 section 6.1: "A server or client that receives an HTTP/1.0 message containing a
    // Transfer-Encoding header field MUST treat the message as if the framing is faulty".
    if version != Version::H11 {
        return Err(HttpError::TransferEncodingNotAllowed);
    }
    let mut count = 0;
    let mut others = false;
    let mut last_is_chunked = false;
    for coding in fields.get_all(Known::TransferEncoding).flat_map(|v| v.split(|&b| b == b',')) {
        last_is_chunked = list::trim(coding).eq_ignore_ascii_case(b"chunked");
        count += usize::from(last_is_chunked);
        others |= !last_is_chunked;
    }
    match (count, last_is_chunked, others) {
        (1, true, false) => Ok(true),
        (1, true, true) => Err(HttpError::UnsupportedTransferEncoding),
        // RFC 9112 section 6.3: "If a Transfer-Encoding header field is present in a request and the chunked
        // transfer coding is not the final encoding, the message body length cannot be determined reliably;
        // the server MUST respond with the 400 (Bad Request) status code and then close the connection."
        // Section 6.1: "A sender MUST NOT apply the chunked transfer coding more than once".
        _ => Err(HttpError::InvalidTransferEncoding),
    }
}

/// Length or chunked, never both.
fn announced(fields: &Fields, version: Version) -> Result<BodyFraming, HttpError> {
    let chunked = is_chunked(fields, version)?;
    match (content_length(fields)?, chunked) {
        // RFC 9112 section 6.3: "Such a message might indicate an attempt to perform request smuggling
        // (Section 11.2) or response splitting (Section 11.1) and ought to be handled as an error."
        (Some(_), true) => Err(HttpError::LengthAndTransferEncoding),
        (Some(length), false) => Ok(BodyFraming::Length(length)),
        (None, true) => Ok(BodyFraming::Chunked),
        (None, false) => Ok(BodyFraming::None),
    }
}

pub(crate) fn request_framing(head: &RequestHead) -> Result<BodyFraming, HttpError> {
    // RFC 9112 section 6.3: a request with neither field has no body.
    let framing = announced(&head.fields, head.version)?;
    match (head.method(), framing) {
        // RFC 9110 section 9.3.6: "A CONNECT request message does not have content."
        (Method::Connect, BodyFraming::Chunked) => Err(HttpError::TransferEncodingNotAllowed),
        (Method::Connect, BodyFraming::Length(1..)) => Err(HttpError::ContentLengthNotAllowed),
        (Method::Connect, _) => Ok(BodyFraming::None),
        (_, framing) => Ok(framing),
    }
}

pub(crate) fn response_framing(head: &ResponseHead, request: Method) -> Result<BodyFraming, HttpError> {
    // RFC 9112 section 6.3: "Any 2xx (Successful) response to a CONNECT request implies that the connection
    // will become a tunnel immediately after the empty line that concludes the header fields. A client MUST
    // ignore any Content-Length or Transfer-Encoding header fields received in such a message."
    if request == Method::Connect && (200..300).contains(&head.status) {
        return Ok(BodyFraming::None);
    }
    let framing = announced(&head.fields, head.version)?;
    if head.status < 200 || head.status == 204 {
        // RFC 9112 section 6.1: "A server MUST NOT send a Transfer-Encoding header field in any response with
        // a status code of 1xx (Informational) or 204 (No Content)." RFC 9110 section 8.6 says the same of
        // Content-Length; a 0 does no harm and is sent by real servers.
        return match framing {
            BodyFraming::Chunked => Err(HttpError::TransferEncodingNotAllowed),
            BodyFraming::Length(1..) => Err(HttpError::ContentLengthNotAllowed),
            _ => Ok(BodyFraming::None),
        };
    }
    // RFC 9112 section 6.3: "Any response to a HEAD request and any response with a 1xx, 204, or 304 status
    // code is always terminated by the first empty line after the header fields".
    if request == Method::Head || head.status == 304 {
        return Ok(BodyFraming::None);
    }
    Ok(match framing {
        BodyFraming::None => BodyFraming::UntilClose,
        framing => framing,
    })
}

/// RFC 9112 section 9.3, without the part on framing.
pub(crate) fn keep_alive(fields: &Fields, version: Version) -> bool {
    if !fields.contains(Known::Connection) {
        return version != Version::H10;
    }
    !list::field_has_token(fields, Known::Connection, b"close")
        && (version != Version::H10 || list::field_has_token(fields, Known::Connection, b"keep-alive"))
}

/// Whether the message asks for, or accepts, another protocol on its connection.
pub(crate) fn is_upgrade(fields: &Fields, version: Version) -> bool {
    // RFC 9110 section 7.8: "A server MUST ignore an Upgrade header field that is received in an HTTP/1.0
    // request", and "A sender of Upgrade MUST also send an 'Upgrade' connection option".
    version == Version::H11
        && fields.contains(Known::Upgrade)
        && list::field_has_token(fields, Known::Connection, b"upgrade")
        // RFC 9113 section 3.1 deprecated h2c by upgrade; ignoring the offer is allowed and what Envoy does.
        && fields.get_all(Known::Upgrade).flat_map(list::elements).any(|p| !p.eq_ignore_ascii_case(b"h2c"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.append(name.as_bytes(), value.as_bytes()).unwrap();
        }
        fields
    }

    #[test]
    fn persistence() {
        for (version, connection, expected) in [
            (Version::H11, None, true),
            (Version::H11, Some("close"), false),
            (Version::H11, Some("foo, Close"), false),
            (Version::H11, Some("keep-alive"), true),
            (Version::H10, None, false),
            (Version::H10, Some("Keep-Alive"), true),
            (Version::H10, Some("keep-alive, close"), false),
            (Version::H10, Some("foo"), false),
        ] {
            let fields = connection.map_or_else(Fields::new, |c| fields(&[("connection", c)]));
            assert_eq!(keep_alive(&fields, version), expected, "{version:?} {connection:?}");
        }
    }

    #[test]
    fn upgrades() {
        let websocket = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
        assert!(is_upgrade(&fields(&websocket), Version::H11));
        assert!(!is_upgrade(&fields(&websocket), Version::H10));
        assert!(!is_upgrade(&fields(&websocket[..1]), Version::H11));
        assert!(!is_upgrade(&fields(&websocket[1..]), Version::H11));
        assert!(!is_upgrade(&fields(&[("connection", "upgrade"), ("upgrade", "h2c")]), Version::H11));
    }
}
