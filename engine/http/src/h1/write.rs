//! Serializing heads. Framing and persistence are the caller's decision: the fields of the head that speak of
//! them are never copied, so a message cannot say one thing and be another.

use super::framing::BodyFraming;
use crate::{
    Fields, HttpError, Known, Method, RequestHead, ResponseHead, Sink, Version, decimal::put_decimal,
    fields::Field, sink::Full,
};

/// What the message says about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It persists; said aloud to an HTTP/1.0 peer only.
    KeepAlive,
    Close,
    /// `connection: upgrade`, and the Upgrade fields of the head.
    Upgrade,
}

/// http_protocol_options.header_key_format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Casing {
    #[default]
    Lower,
    /// `Content-Type`: the first letter, and each after a byte that is no letter or digit.
    Proper,
    /// As it came, for names up to 64 bytes from a head parsed with `Limits::preserve_case`.
    Preserve,
}

/// Writes a request head in HTTP/1.1.
///
/// # Errors
/// `OutputFull`: what was written so far must be discarded. `MissingHost`: there is no authority.
pub fn write_request(
    head: &RequestHead,
    framing: BodyFraming,
    connection: Connection,
    casing: Casing,
    out: &mut impl Sink,
) -> Result<(), HttpError> {
    let authority = match head.authority() {
        b"" => head.fields.get(Known::Host).unwrap_or_default(),
        authority => authority,
    };
    if authority.is_empty() {
        return Err(HttpError::MissingHost);
    }
    let target = match (head.method(), head.path()) {
        (Method::Connect, _) => authority,
        (_, b"") => b"/",
        (_, path) => path,
    };
    out.put(head.method_bytes())?;
    out.put(b" ")?;
    out.put(target)?;
    // RFC 9110 section 7.2: "A user agent that sends Host SHOULD send it as the first field".
    out.put(if casing == Casing::Lower { b" HTTP/1.1\r\nhost: " } else { b" HTTP/1.1\r\nHost: " })?;
    out.put(authority)?;
    out.put(b"\r\n")?;
    put_fields(&head.fields, false, casing, out)?;
    let framing = announced(head.method(), framing, connection);
    put_framing(&head.fields, framing, false, casing, out)?;
    put_connection(&head.fields, connection, Version::H11, casing, out)?;
    Ok(out.put(b"\r\n")?)
}

/// RFC 9110 section 8.6: "A user agent SHOULD send Content-Length in a request when the method defines a meaning for
/// enclosed content and it is not sending Transfer-Encoding." Some servers refuse such a request without (411).
fn announced(method: Method, framing: BodyFraming, connection: Connection) -> BodyFraming {
    let expects_content = matches!(method, Method::Post | Method::Put | Method::Patch | Method::Options);
    match framing {
        BodyFraming::None if expects_content && connection != Connection::Upgrade => BodyFraming::Length(0),
        framing => framing,
    }
}

/// Writes a response head, to a peer whose request came in `version`. A Content-Length of the head is kept
/// where there is no body (`BodyFraming::None`: HEAD and 304 announce one), except in 1xx and 204.
///
/// # Errors
/// `OutputFull`: what was written so far must be discarded.
pub fn write_response(
    head: &ResponseHead,
    version: Version,
    framing: BodyFraming,
    connection: Connection,
    casing: Casing,
    out: &mut impl Sink,
) -> Result<(), HttpError> {
    out.put(if version == Version::H10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " })?;
    put_decimal(out, u64::from(head.status))?;
    out.put(b" ")?;
    out.put(reason_phrase(head.status).as_bytes())?;
    out.put(b"\r\n")?;
    // RFC 9110 section 8.6: "A server MUST NOT send a Content-Length header field in any response with a
    // status code of 1xx (Informational) or 204 (No Content)."
    let bodiless = head.status < 200 || head.status == 204;
    put_fields(&head.fields, framing == BodyFraming::None && !bodiless, casing, out)?;
    put_framing(&head.fields, framing, bodiless, casing, out)?;
    put_connection(&head.fields, connection, version, casing, out)?;
    Ok(out.put(b"\r\n")?)
}

/// Fields that `put_framing` and the start line stand for.
pub(crate) const fn is_framing(known: Known) -> bool {
    matches!(known, Known::Host | Known::ContentLength | Known::TransferEncoding)
}

pub(super) fn put_line(out: &mut impl Sink, name: &[u8], value: &[u8]) -> Result<(), Full> {
    out.put(name)?;
    out.put(b": ")?;
    out.put(value)?;
    out.put(b"\r\n")
}

fn put_fields(fields: &Fields, keep_length: bool, casing: Casing, out: &mut impl Sink) -> Result<(), Full> {
    let mut run = 0..0;
    for field in &fields.fields {
        if is_dropped(fields, field, keep_length) {
            continue;
        }
        if casing != Casing::Lower {
            put_cased(fields.slice(field.name), field.upper, casing, out)?;
            out.put(b": ")?;
            out.put(fields.slice(field.value))?;
            out.put(b"\r\n")?;
            continue;
        }
        // A field as the arena received it is already a line, and neighbours are one copy.
        let (start, end) = (field.name.start as usize, field.value.end() + 2);
        let is_line = fields.bytes.get(field.name.end()..field.value.start as usize) == Some(b": ")
            && fields.bytes.get(field.value.end()..end) == Some(b"\r\n");
        if is_line && start == run.end {
            run.end = end;
            continue;
        }
        out.put(fields.bytes.get(run).unwrap_or_default())?;
        run = if is_line { start..end } else { 0..0 };
        if !is_line {
            put_line(out, fields.slice(field.name), fields.slice(field.value))?;
        }
    }
    out.put(fields.bytes.get(run).unwrap_or_default())
}

fn is_dropped(fields: &Fields, field: &Field, keep_length: bool) -> bool {
    match field.known {
        Known::ContentLength => !keep_length,
        // RFC 9110 section 10.1.4: `trailers` is the one member that speaks for the whole way.
        Known::Te => !fields.slice(field.value).eq_ignore_ascii_case(b"trailers"),
        known => known.is_hop_by_hop() || is_framing(known),
    }
}

fn put_framing(
    fields: &Fields,
    framing: BodyFraming,
    bodiless: bool,
    casing: Casing,
    out: &mut impl Sink,
) -> Result<(), Full> {
    match framing {
        BodyFraming::Length(_) | BodyFraming::Chunked if bodiless => Ok(()),
        BodyFraming::Length(length) => {
            put_known(fields, Known::ContentLength, casing, out)?;
            put_decimal(out, length)?;
            out.put(b"\r\n")
        }
        BodyFraming::Chunked => {
            put_known(fields, Known::TransferEncoding, casing, out)?;
            out.put(b"chunked\r\n")
        }
        BodyFraming::None | BodyFraming::UntilClose => Ok(()),
    }
}

/// A name that we write by ourselves, as it came where it came and case is preserved; else that is lower case, as
/// Envoy writes what it adds.
fn put_known(fields: &Fields, known: Known, casing: Casing, out: &mut impl Sink) -> Result<(), Full> {
    match casing {
        Casing::Lower => out.put(known.name().as_bytes())?,
        Casing::Proper | Casing::Preserve => {
            let came = fields.fields.iter().find(|field| field.known == known);
            put_cased(known.name().as_bytes(), came.map_or(0, |field| field.upper), casing, out)?;
        }
    }
    out.put(b": ")
}

fn put_connection(
    fields: &Fields,
    connection: Connection,
    version: Version,
    casing: Casing,
    out: &mut impl Sink,
) -> Result<(), Full> {
    let value: &[u8] = match connection {
        Connection::KeepAlive if version != Version::H10 => return Ok(()),
        Connection::KeepAlive => b"keep-alive",
        Connection::Close => b"close",
        Connection::Upgrade => b"upgrade",
    };
    put_known(fields, Known::Connection, casing, out)?;
    out.put(value)?;
    out.put(b"\r\n")?;
    if connection == Connection::Upgrade {
        for protocol in fields.get_all(Known::Upgrade) {
            put_known(fields, Known::Upgrade, casing, out)?;
            out.put(protocol)?;
            out.put(b"\r\n")?;
        }
    }
    Ok(())
}

/// Writes a name of any length through a small buffer.
fn put_cased(name: &[u8], upper: u64, casing: Casing, out: &mut impl Sink) -> Result<(), Full> {
    let mut buffer = [0u8; 64];
    // As Envoy's proper-case formatter: the first letter and each that follows a special character.
    let mut after_special = true;
    for (index, piece) in name.chunks(buffer.len()).enumerate() {
        let copy = &mut buffer[..piece.len()];
        copy.copy_from_slice(piece);
        for (at, byte) in copy.iter_mut().enumerate() {
            let raise = match casing {
                Casing::Lower => false,
                Casing::Proper => after_special,
                Casing::Preserve => index == 0 && upper >> at & 1 == 1,
            };
            after_special = !byte.is_ascii_alphanumeric();
            if raise {
                byte.make_ascii_uppercase();
            }
        }
        out.put(copy)?;
    }
    Ok(())
}

/// The registered phrase (IANA HTTP status code registry); `Unknown` for others. Envoy writes its own phrases
/// too and does not forward the upstream's.
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Payload Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Entity",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => "Unknown",
    }
}
