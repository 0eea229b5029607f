//! HTTP/1 heads. httparse finds the lines; everything that it lets through and RFC 9112 lets a recipient refuse
//! is refused here. The verdict does not depend on how the bytes were cut into reads.

use super::{
    framing::{self, BodyFraming},
    target::{self, Path},
};
use crate::{
    HttpError, Known, Method, RequestHead, ResponseHead, Version,
    fields::{Field, Fields, Span, is_token_byte},
    known::lower_in_place,
};
use httparse::{Header, Status};
use std::mem::MaybeUninit;

/// Ceiling of `Limits::fields_max`: the parser's table is on the stack.
pub const FIELDS_MAX: usize = 1024;
/// An incomplete head up to this size is examined for errors at each read; a longer one only for its end, so
/// that a peer that trickles a large head costs a scan, not a parse, for each byte.
const EAGER_BYTES_MAX: usize = 4096;
/// RFC 9112 section 2.2: "a server that is expecting to receive and parse a request-line SHOULD ignore at
/// least one empty line (CRLF) received prior to the request-line."
const EMPTY_LINES_MAX: usize = 4;

#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a head, from the first of its start line to the last of its empty line.
    pub head_bytes_max: usize,
    /// Field lines of a head; at most `FIELDS_MAX`.
    pub fields_max: usize,
    /// http1_options.accept_http_10: otherwise an HTTP/1.0 request is answered with 426.
    pub accept_http_10: bool,
    /// Remember the case of names, for `Casing::Preserve`.
    pub preserve_case: bool,
}

impl Default for Limits {
    /// Envoy's defaults: max_request_headers_kb 60, max_headers_count 100, accept_http_10 off.
    fn default() -> Self {
        Limits { head_bytes_max: 60 * 1024, fields_max: 100, accept_http_10: false, preserve_case: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<M> {
    /// The head goes on after these bytes: read more and parse again from its first byte.
    Partial,
    Complete(M),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestMeta {
    /// Bytes of the input that the head takes; the body follows.
    pub consumed: usize,
    pub framing: BodyFraming,
    /// Whether the client lets the connection persist.
    pub keep_alive: bool,
    /// The client offers another protocol (never `h2c`) on this connection.
    pub upgrade: bool,
    /// The client waits for 100 (Continue) before it sends its body.
    pub expect_continue: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseMeta {
    pub consumed: usize,
    pub framing: BodyFraming,
    /// Whether the connection can carry another request after this response.
    pub keep_alive: bool,
    /// What follows is no longer HTTP: a 101, or a 2xx to CONNECT.
    pub tunnel: bool,
    /// A 1xx other than 101: the final response follows.
    pub interim: bool,
}

type Table<'b> = [MaybeUninit<Header<'b>>; FIELDS_MAX];

/// Parses the head at the start of `buf` into `into`, which is cleared first; on `Partial` and on an error its
/// content is unspecified.
///
/// # Errors
/// Any syntax or framing that RFC 9112 forbids or leaves ambiguous: answer with `status()` and close.
pub fn parse_request(
    buf: &[u8],
    limits: &Limits,
    into: &mut RequestHead,
) -> Result<Parsed<RequestMeta>, HttpError> {
    into.clear();
    let Some(skipped) = skip_empty_lines(buf)? else {
        return Ok(Parsed::Partial);
    };
    let buf = &buf[skipped..];
    let window = window(buf, limits);
    let mut table: Table<'_> = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let table = &mut table[..limits.fields_max.min(FIELDS_MAX)];
    let mut request = httparse::Request::new(&mut []);
    let head = match request.parse_with_uninit_headers(window, table) {
        Ok(Status::Complete(len)) => &window[..len],
        Ok(Status::Partial) => return partial(buf, limits, HttpError::TargetTooLong),
        Err(error) => return Err(classify(error, window, HttpError::RequestLine)),
    };
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(HttpError::RequestLine);
    };
    let version = if minor == 0 { Version::H10 } else { Version::H11 };
    if version == Version::H10 && !limits.accept_http_10 {
        return Err(HttpError::Http10NotAccepted);
    }
    let target_at = offset(head, target.as_bytes());
    // Method, SP, target, SP and eight bytes of version: CRLF must come next.
    check_lines(head, target_at + target.len() + 9, request.headers)?;
    let target = target::parse_target(Method::of(method.as_bytes()), target.as_bytes(), target_at)?;
    fill_request(into, head, method, target, version, request.headers, limits)?;

    let framing = framing::request_framing(into)?;
    Ok(Parsed::Complete(RequestMeta {
        consumed: skipped + head.len(),
        framing,
        keep_alive: framing::keep_alive(&into.fields, version),
        upgrade: framing::is_upgrade(&into.fields, version),
        // RFC 9110 section 10.1.1: "A server that receives a 100-continue expectation in an HTTP/1.0 request
        // MUST ignore that expectation", and may "if it has already received some or all of the content" or
        // if there is none.
        expect_continue: version == Version::H11
            && !matches!(framing, BodyFraming::None | BodyFraming::Length(0))
            && into.fields.get(Known::Expect).is_some_and(|e| e.eq_ignore_ascii_case(b"100-continue")),
    }))
}

/// Parses the head of a response to a request of that method; otherwise as `parse_request`.
///
/// # Errors
/// As `parse_request`; the fault is the upstream's: answer 502 and close its connection.
pub fn parse_response(
    buf: &[u8],
    limits: &Limits,
    request_method: Method,
    into: &mut ResponseHead,
) -> Result<Parsed<ResponseMeta>, HttpError> {
    into.clear();
    // httparse would skip empty lines; RFC 9112 section 2.2 allows that before a request only.
    if matches!(buf.first(), Some(b'\r' | b'\n')) {
        return Err(HttpError::StatusLine);
    }
    let window = window(buf, limits);
    let mut table: Table<'_> = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let table = &mut table[..limits.fields_max.min(FIELDS_MAX)];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let head = match config.parse_response_with_uninit_headers(&mut response, window, table) {
        Ok(Status::Complete(len)) => &window[..len],
        Ok(Status::Partial) => return partial(buf, limits, HttpError::HeadTooLarge),
        Err(error) => return Err(classify(error, window, HttpError::StatusLine)),
    };
    let (Some(status), Some(minor)) = (response.code, response.version) else {
        return Err(HttpError::StatusLine);
    };
    // RFC 9110 section 15: "values outside the range 100..599 are invalid"; up to 999 is relayed, as Envoy does.
    if status < 100 {
        return Err(HttpError::StatusLine);
    }
    let version = if minor == 0 { Version::H10 } else { Version::H11 };
    // `HTTP/1.1 200`; httparse leaves the reason empty where it is not ASCII, so its end is looked for.
    let line_end = memchr::memchr(b'\n', head).unwrap_or(0);
    let reason = head.get(13..line_end.saturating_sub(1)).unwrap_or_default();
    check_lines(head, line_end.saturating_sub(1), response.headers)?;
    into.status = status;
    into.version = version;
    into.fields.push_bytes(head);
    into.set_reason(Span::new(offset(head, reason), reason.len()));
    for header in response.headers.iter() {
        push_header(&mut into.fields, head, header, limits.preserve_case);
    }
    let framing = framing::response_framing(into, request_method)?;
    let tunnel = status == 101 || request_method == Method::Connect && (200..300).contains(&status);
    Ok(Parsed::Complete(ResponseMeta {
        consumed: head.len(),
        framing,
        keep_alive: !tunnel
            && framing != BodyFraming::UntilClose
            && framing::keep_alive(&into.fields, version),
        tunnel,
        interim: into.is_interim(),
    }))
}

/// Bytes of leading empty lines; None if the input ends within them.
fn skip_empty_lines(buf: &[u8]) -> Result<Option<usize>, HttpError> {
    for line in 0..=EMPTY_LINES_MAX {
        match &buf[line * 2..] {
            [b'\r', b'\n', ..] => {}
            [b'\r', _, ..] => return Err(HttpError::BareCr),
            [b'\n', ..] => return Err(HttpError::BareLf),
            [] | [b'\r'] => return Ok(None),
            _ => return Ok(Some(line * 2)),
        }
    }
    Err(HttpError::LeadingEmptyLines)
}

/// The part of the input to examine; see `EAGER_BYTES_MAX`.
fn window<'b>(buf: &'b [u8], limits: &Limits) -> &'b [u8] {
    let window = &buf[..buf.len().min(limits.head_bytes_max)];
    if window.len() <= EAGER_BYTES_MAX {
        return window;
    }
    match memchr::memmem::find(window, b"\r\n\r\n") {
        Some(at) => &window[..at + 4],
        None => &window[..EAGER_BYTES_MAX],
    }
}

fn partial<M>(buf: &[u8], limits: &Limits, without_line: HttpError) -> Result<Parsed<M>, HttpError> {
    if buf.len() < limits.head_bytes_max {
        return Ok(Parsed::Partial);
    }
    match memchr::memchr(b'\n', &buf[..limits.head_bytes_max]) {
        Some(_) => Err(HttpError::HeadTooLarge),
        None => Err(without_line),
    }
}

/// Position of a part within the whole it was cut from.
fn offset(whole: &[u8], part: &[u8]) -> usize {
    (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize)
}

/// httparse accepts LF as the end of a line. RFC 9112 section 2.2 says a recipient "MAY recognize a single LF
/// as a line terminator": it is refused, because not every peer does, and the two would frame differently.
fn check_lines(head: &[u8], start_line_end: usize, headers: &[Header<'_>]) -> Result<(), HttpError> {
    if !head.get(start_line_end..).is_some_and(|rest| rest.starts_with(b"\r\n")) || !head.ends_with(b"\r\n") {
        return Err(HttpError::BareLf);
    }
    for header in headers {
        let end = offset(head, header.value) + header.value.len();
        let rest = head.get(end..).unwrap_or_default();
        if !rest.starts_with(b"\r\n") && !crate::list::trim_start(rest).starts_with(b"\r\n") {
            return Err(HttpError::BareLf);
        }
    }
    Ok(())
}

fn fill_request(
    into: &mut RequestHead,
    head: &[u8],
    method: &str,
    target: target::Target,
    version: Version,
    headers: &[Header<'_>],
    limits: &Limits,
) -> Result<(), HttpError> {
    into.fields.push_bytes(head);
    into.set_parsed(
        Method::of(method.as_bytes()),
        Span::new(offset(head, method.as_bytes()), method.len()),
        version,
    );
    let mut host = None;
    for header in headers {
        let field = push_header(&mut into.fields, head, header, limits.preserve_case);
        if field.known != Known::Host {
            continue;
        }
        // RFC 9112 section 3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1
        // request message that lacks a Host header field and to any request message that contains more than
        // one Host header field line or a Host header field with an invalid field value."
        if host.replace(field.value).is_some() {
            return Err(HttpError::DuplicateHost);
        }
        if !target::is_authority(header.value) {
            return Err(HttpError::InvalidHost);
        }
    }
    into.fields.remove(Known::Host);
    if host.is_none() && version == Version::H11 {
        return Err(HttpError::MissingHost);
    }
    // RFC 9112 section 3.2.2: "the proxy MUST ignore the received Host header field (if any) and instead
    // replace it with the host information of the request-target."
    let authority = if target.authority.len > 0 { target.authority } else { host.unwrap_or_default() };
    let path = match target.path {
        Path::At(span) => span,
        Path::Implied(path) => into.fields.push_bytes(path),
    };
    into.fields.bytes[target.scheme.range()].make_ascii_lowercase();
    into.set_target(target.scheme, authority, path);
    Ok(())
}

/// Adds a field whose bytes are already in the arena, which begins with `head`.
fn push_header(fields: &mut Fields, head: &[u8], header: &Header<'_>, preserve_case: bool) -> Field {
    let name = Span::new(offset(head, header.name.as_bytes()), header.name.len());
    let value = Span::new(offset(head, header.value), header.value.len());
    let lower = &mut fields.bytes[name.range()];
    let upper = if preserve_case { upper_mask(lower) } else { 0 };
    lower_in_place(lower);
    let field = Field { name, value, upper, known: Known::of_lower(lower) };
    fields.push_field(field);
    field
}

fn upper_mask(name: &[u8]) -> u64 {
    name.iter().take(64).enumerate().fold(0, |mask, (i, b)| mask | u64::from(b.is_ascii_uppercase()) << i)
}

/// Names the first thing wrong, so that details do not depend on what follows it.
#[cold]
fn classify(error: httparse::Error, window: &[u8], start_line: HttpError) -> HttpError {
    use httparse::Error;
    match error {
        Error::TooManyHeaders => HttpError::TooManyFields,
        Error::HeaderValue => classify_value(window),
        Error::HeaderName => classify_name(window),
        Error::NewLine if start_line == HttpError::RequestLine => classify_line_end(window),
        Error::NewLine => HttpError::BareCr,
        Error::Version if start_line == HttpError::RequestLine => classify_version(window),
        Error::Version => HttpError::Version,
        Error::Status => HttpError::StatusLine,
        Error::Token => start_line,
    }
}

/// The third word of the start line.
fn version_word(window: &[u8]) -> &[u8] {
    let line = &window[..memchr::memchr(b'\n', window).unwrap_or(window.len())];
    line.split(|&b| b == b' ').nth(2).unwrap_or_default()
}

/// HTTP in a version we do not speak, or no HTTP at all.
fn classify_version(window: &[u8]) -> HttpError {
    match version_word(window) {
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', ..] => HttpError::Version,
        _ => HttpError::RequestLine,
    }
}

/// Something else where a line should end: the start line, or the empty line that ends the head.
fn classify_line_end(window: &[u8]) -> HttpError {
    let line = &window[..memchr::memchr(b'\n', window).unwrap_or(window.len())];
    let has_more_words = line.split(|&b| b == b' ').nth(3).is_some();
    match version_word(window).get(8) {
        Some(b'\r') => HttpError::BareCr,
        None if !has_more_words => HttpError::BareCr,
        _ => HttpError::RequestLine,
    }
}

fn lines(window: &[u8]) -> impl Iterator<Item = &[u8]> {
    window.split_inclusive(|&b| b == b'\n').skip(1)
}

fn classify_name(window: &[u8]) -> HttpError {
    for line in lines(window) {
        match line.iter().position(|&b| !is_token_byte(b)) {
            Some(0) if matches!(line[0], b' ' | b'\t') => return HttpError::ObsFold,
            Some(0) => return HttpError::InvalidFieldName,
            Some(at) if line[at] == b':' => {}
            Some(at) if matches!(line[at], b' ' | b'\t') => return HttpError::SpaceBeforeColon,
            _ => return HttpError::InvalidFieldName,
        }
    }
    HttpError::InvalidFieldName
}

fn classify_value(window: &[u8]) -> HttpError {
    for line in lines(window) {
        let control = line.iter().position(|b| b.is_ascii_control() && *b != b'\t');
        match control.map(|at| &line[at..]) {
            None | Some([b'\n'] | [b'\r', b'\n']) => {}
            Some([b'\r', ..]) => return HttpError::BareCr,
            Some(_) => return HttpError::InvalidFieldValue,
        }
    }
    HttpError::InvalidFieldValue
}
