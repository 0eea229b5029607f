//! Heads of the h2 crate's shape from and to the message interface that HTTP/1 shares.

use corelane_http::{
    BodyFraming, Fields, HttpError, Known, Method, RequestHead, ResponseHead, Version, head::split_port, list,
};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, uri};

/// Fills `head` and says how the body comes. `end`: nothing follows the head.
///
/// # Errors
/// What makes the request malformed (RFC 9113 section 8.1.1).
pub(crate) fn read_request(
    parts: &http::request::Parts,
    end: bool,
    fields_max: usize,
    head: &mut RequestHead,
) -> Result<BodyFraming, HttpError> {
    head.clear();
    head.version = Version::H2;
    head.set_method(parts.method.as_str().as_bytes())?;
    if parts.headers.len() > fields_max {
        return Err(HttpError::TooManyFields);
    }
    read_fields(&parts.headers, &mut head.fields)?;
    if let Some(scheme) = parts.uri.scheme_str() {
        head.set_scheme(scheme.as_bytes())?;
    }
    read_authority(&parts.uri, head)?;
    if let Some(target) = parts.uri.path_and_query() {
        head.set_path(target.as_str().as_bytes())?;
    } else if head.method() != Method::Connect {
        return Err(HttpError::InvalidTarget);
    }
    join_cookies(&mut head.fields);
    let length = content_length(&head.fields)?;
    Ok(match (end, length) {
        (false, Some(length)) => BodyFraming::Length(length),
        (false, None) => BodyFraming::Chunked,
        // RFC 9110 section 8.6: a request without content says so where its method expects some
        (true, _) if matches!(head.method(), Method::Post | Method::Put | Method::Patch) => {
            BodyFraming::Length(0)
        }
        (true, _) => BodyFraming::None,
    })
}

/// RFC 9113 section 8.3.1: "A server SHOULD treat a request as malformed if it contains a Host header field that
/// identifies an entity that differs from the entity in the ":authority" pseudo-header field."
fn read_authority(uri: &Uri, head: &mut RequestHead) -> Result<(), HttpError> {
    let mut hosts = head.fields.get_all(Known::Host);
    let host = hosts.next().map(<[u8]>::to_vec);
    if hosts.next().is_some() {
        return Err(HttpError::DuplicateHost);
    }
    drop(hosts);
    head.fields.remove(Known::Host);
    match (uri.authority(), host) {
        (Some(authority), host) => {
            let authority = authority.as_str().as_bytes();
            let differs = |host: Vec<u8>| !split_port(&host).0.eq_ignore_ascii_case(split_port(authority).0);
            if host.is_some_and(differs) {
                return Err(HttpError::DuplicateHost);
            }
            head.set_authority(authority)
        }
        (None, Some(host)) => head.set_authority(&host),
        (None, None) => Err(HttpError::MissingHost),
    }
}

/// Copies a field section; connection-specific fields make the message malformed.
fn read_fields(map: &HeaderMap, fields: &mut Fields) -> Result<(), HttpError> {
    for (name, value) in map {
        let known = Known::of(name.as_str().as_bytes());
        // RFC 9113 section 8.2.2: "An endpoint MUST NOT generate an HTTP/2 message containing connection-specific
        // header fields. ... Any message containing connection-specific header fields MUST be treated as malformed".
        // The one exception is TE, which "MUST NOT contain any value other than "trailers"".
        let malformed = match known {
            Known::Te => !value.as_bytes().eq_ignore_ascii_case(b"trailers"),
            known => known.is_hop_by_hop(),
        };
        if malformed {
            return Err(HttpError::TransferEncodingNotAllowed);
        }
        match known {
            Known::Other => fields.append(name.as_str().as_bytes(), value.as_bytes())?,
            known => fields.append_known(known, value.as_bytes()),
        }
    }
    Ok(())
}

/// RFC 9113 section 8.2.3: cookies that came in several lines "MUST be concatenated into a single octet string using
/// the two-octet delimiter of 0x3b, 0x20 (the ASCII string "; ") before being passed into a non-HTTP/2 context".
fn join_cookies(fields: &mut Fields) {
    if fields.get_all(Known::Cookie).nth(1).is_none() {
        return;
    }
    let mut joined = Vec::new();
    for crumb in fields.get_all(Known::Cookie) {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(crumb);
    }
    fields.set(Known::Cookie, &joined);
}

fn content_length(fields: &Fields) -> Result<Option<u64>, HttpError> {
    let mut values = fields.get_all(Known::ContentLength);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(HttpError::DuplicateContentLength);
    }
    let digits = value.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(value).ok()).flatten();
    let length = digits.and_then(|digits| digits.parse().ok()).filter(|length| *length <= i64::MAX as u64);
    length.map(Some).ok_or(HttpError::InvalidContentLength)
}

/// # Errors
/// A response whose length cannot be known for sure, or with connection-specific fields.
pub(crate) fn read_response(
    parts: &http::response::Parts,
    end: bool,
    fields_max: usize,
    head: &mut ResponseHead,
) -> Result<BodyFraming, HttpError> {
    head.clear();
    head.version = Version::H2;
    head.status = parts.status.as_u16();
    if parts.headers.len() > fields_max {
        return Err(HttpError::TooManyFields);
    }
    read_fields(&parts.headers, &mut head.fields)?;
    let length = content_length(&head.fields)?;
    Ok(match length {
        _ if end => BodyFraming::None,
        Some(length) => BodyFraming::Length(length),
        None => BodyFraming::Chunked,
    })
}

/// What must not stand in a trailer section is left out: it was checked by nobody.
pub(super) fn read_trailers(map: &HeaderMap, trailers: &mut Fields) {
    for (name, value) in map {
        let known = Known::of(name.as_str().as_bytes());
        if !is_forbidden_trailer(known) {
            // a name from h2 is a token
            let _ = trailers.append(name.as_str().as_bytes(), value.as_bytes());
        }
    }
}

/// RFC 9110 section 6.5.1: what frames or routes a message is no trailer.
fn is_forbidden_trailer(known: Known) -> bool {
    known.is_hop_by_hop() || matches!(known, Known::Host | Known::ContentLength)
}

pub(super) fn write_trailers(trailers: &Fields) -> Option<HeaderMap> {
    if trailers.is_empty() {
        return None;
    }
    let mut map = HeaderMap::with_capacity(trailers.count());
    for (known, name, value) in trailers.iter_known().filter(|(known, ..)| !is_forbidden_trailer(*known)) {
        // one that HTTP/2 cannot carry is left out rather than the whole
        let _ = append(&mut map, known, name, value);
    }
    (!map.is_empty()).then_some(map)
}

/// A field that HTTP/2 has no way to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unwritable;

fn append(map: &mut HeaderMap, known: Known, name: &[u8], value: &[u8]) -> Result<(), Unwritable> {
    let name = match standard(known) {
        Some(name) => name,
        None => HeaderName::from_lowercase(name).map_err(|_| Unwritable)?,
    };
    let value = HeaderValue::from_bytes(value).map_err(|_| Unwritable)?;
    map.try_append(name, value).map(drop).map_err(|_| Unwritable)
}

/// The names that almost every message has, without a look-up.
fn standard(known: Known) -> Option<HeaderName> {
    use http::header;
    Some(match known {
        Known::ContentType => header::CONTENT_TYPE,
        Known::Date => header::DATE,
        Known::Server => header::SERVER,
        Known::UserAgent => header::USER_AGENT,
        Known::Accept => header::ACCEPT,
        Known::Te => header::TE,
        _ => return None,
    })
}

/// The fields, without what belongs to one connection and without the length, which the framing says.
fn write_fields(fields: &Fields, keep_length: bool) -> Result<HeaderMap, Unwritable> {
    let mut map = HeaderMap::try_with_capacity(fields.count() + 1).map_err(|_| Unwritable)?;
    for (known, name, value) in fields.iter_known() {
        let left_out = match known {
            Known::Te => !list::field_has_token(fields, Known::Te, b"trailers"),
            Known::Host => true,
            Known::ContentLength => !keep_length,
            known => known.is_hop_by_hop(),
        };
        if !left_out {
            append(&mut map, known, name, value)?;
        }
    }
    Ok(map)
}

fn write_length(map: &mut HeaderMap, length: u64) -> Result<(), Unwritable> {
    map.try_append(http::header::CONTENT_LENGTH, HeaderValue::from(length)).map(drop).map_err(|_| Unwritable)
}

/// `default_scheme`: that of the connection, where the request has none of its own.
pub(crate) fn write_request(
    head: &RequestHead,
    framing: BodyFraming,
    default_scheme: &'static str,
) -> Result<http::Request<()>, Unwritable> {
    let mut parts = uri::Parts::default();
    parts.scheme = Some(match head.scheme() {
        b"http" => uri::Scheme::HTTP,
        b"https" => uri::Scheme::HTTPS,
        _ if default_scheme == "https" => uri::Scheme::HTTPS,
        _ => uri::Scheme::HTTP,
    });
    // RFC 9113 section 8.3.1: "An intermediary that forwards a request over HTTP/2 MUST construct an ":authority"
    // pseudo-header field using the authority information from the control data of the original request"
    parts.authority = Some(uri::Authority::try_from(head.authority()).map_err(|_| Unwritable)?);
    let path = if head.path().is_empty() { b"/" } else { head.path() };
    parts.path_and_query = Some(uri::PathAndQuery::try_from(path).map_err(|_| Unwritable)?);
    let mut request = http::Request::new(());
    *request.method_mut() = http::Method::from_bytes(head.method_bytes()).map_err(|_| Unwritable)?;
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Unwritable)?;
    *request.version_mut() = http::Version::HTTP_2;
    let mut fields = write_fields(&head.fields, false)?;
    if let BodyFraming::Length(length) = framing {
        write_length(&mut fields, length)?;
    }
    *request.headers_mut() = fields;
    Ok(request)
}

/// With `BodyFraming::None` a length in the fields stands for what another request would have got (HEAD, 304).
pub(crate) fn write_response(
    head: &ResponseHead,
    framing: BodyFraming,
) -> Result<http::Response<()>, Unwritable> {
    let mut response = http::Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(head.status).map_err(|_| Unwritable)?;
    // RFC 9110 section 8.6: no Content-Length with 1xx and 204
    let lengthless = head.status < 200 || head.status == 204;
    let keep_length = framing == BodyFraming::None && !lengthless;
    let mut fields = write_fields(&head.fields, keep_length)?;
    if let BodyFraming::Length(length) = framing {
        // gRPC's answers that are only trailers have no length
        let trailers_only = length == 0 && head.fields.contains(Known::GrpcStatus);
        if !lengthless && !trailers_only {
            write_length(&mut fields, length)?;
        }
    }
    *response.headers_mut() = fields;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, fields: &[(&str, &str)]) -> http::request::Parts {
        let mut request = http::Request::builder().method("POST").uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn read(uri: &str, fields: &[(&str, &str)]) -> Result<(RequestHead, BodyFraming), HttpError> {
        let mut head = RequestHead::new();
        let framing = read_request(&request(uri, fields), false, 100, &mut head)?;
        Ok((head, framing))
    }

    #[test]
    fn a_request_is_read_with_its_cookies_joined() {
        let fields =
            [("cookie", "a=1"), ("x-one", "1"), ("cookie", "b=2"), ("te", "trailers"), ("cookie", "c=3")];
        let (head, framing) = read("https://payments:8443/charge?x=1", &fields).unwrap();
        assert_eq!((head.scheme(), head.authority()), (&b"https"[..], &b"payments:8443"[..]));
        assert_eq!((head.path(), head.method()), (&b"/charge?x=1"[..], Method::Post));
        assert_eq!(head.fields.get_all(Known::Cookie).collect::<Vec<_>>(), [b"a=1; b=2; c=3"]);
        assert_eq!(head.fields.get(Known::Te), Some(&b"trailers"[..]));
        assert_eq!(framing, BodyFraming::Chunked);
    }

    #[test]
    fn what_belongs_to_one_connection_is_malformed() {
        let named = [
            ("connection", "close"),
            ("keep-alive", "5"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("te", "gzip"),
        ];
        for field in named {
            assert!(read("http://a/", &[field]).is_err(), "{field:?}");
        }
    }

    #[test]
    fn the_authority_wins_and_a_host_that_differs_is_malformed() {
        assert_eq!(read("http://a:80/", &[("host", "A")]).unwrap().0.authority(), b"a:80");
        assert_eq!(read("/only", &[("host", "b")]).unwrap().0.authority(), b"b");
        assert_eq!(read("http://a/", &[("host", "b")]).unwrap_err(), HttpError::DuplicateHost);
        assert_eq!(read("/none", &[]).unwrap_err(), HttpError::MissingHost);
    }

    #[test]
    fn lengths_are_read_strictly() {
        assert_eq!(read("http://a/", &[("content-length", "12")]).unwrap().1, BodyFraming::Length(12));
        for wrong in ["", "+1", "1,1", "99999999999999999999"] {
            assert!(read("http://a/", &[("content-length", wrong)]).is_err(), "{wrong}");
        }
        let twice = [("content-length", "1"), ("content-length", "1")];
        assert_eq!(read("http://a/", &twice).unwrap_err(), HttpError::DuplicateContentLength);
        let mut head = RequestHead::new();
        assert_eq!(
            read_request(&request("http://a/", &[]), true, 100, &mut head),
            Ok(BodyFraming::Length(0))
        );
        assert_eq!(
            read_request(&request("http://a/", &[("a", "b")]), true, 0, &mut head),
            Err(HttpError::TooManyFields)
        );
    }

    #[test]
    fn a_request_is_written_without_what_belonged_to_the_connection() {
        let mut head = RequestHead::new();
        head.set_method(b"PUT").unwrap();
        head.set_authority(b"payments").unwrap();
        head.set_path(b"/p?q").unwrap();
        for (name, value) in
            [("host", "x"), ("upgrade", "h2c"), ("te", "trailers"), ("x-a", "1"), ("content-length", "9")]
        {
            head.fields.append(name.as_bytes(), value.as_bytes()).unwrap();
        }
        let written = write_request(&head, BodyFraming::Length(3), "https").unwrap();
        assert_eq!(written.uri(), "https://payments/p?q");
        let mut fields: Vec<_> =
            written.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        fields.sort();
        assert_eq!(fields, [("content-length", &b"3"[..]), ("te", b"trailers"), ("x-a", b"1")]);
        head.set_path(b"/<").unwrap();
        assert_eq!(write_request(&head, BodyFraming::None, "http").unwrap_err(), Unwritable);
    }

    #[test]
    fn an_answer_says_its_length_where_it_may() {
        let length = |status, framing, field: Option<&str>| {
            let mut head = ResponseHead::new();
            head.status = status;
            if let Some(field) = field {
                head.fields.append_known(Known::ContentLength, field.as_bytes());
            }
            let written = write_response(&head, framing).unwrap();
            written.headers().get("content-length").map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(length(200, BodyFraming::Length(5), Some("5")).as_deref(), Some("5"));
        assert_eq!(length(200, BodyFraming::None, Some("77")).as_deref(), Some("77"));
        assert_eq!(length(200, BodyFraming::Chunked, None), None);
        assert_eq!(length(204, BodyFraming::None, Some("0")), None);
        assert_eq!(length(304, BodyFraming::None, Some("9")).as_deref(), Some("9"));
    }
}
