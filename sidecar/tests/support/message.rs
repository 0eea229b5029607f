//! HTTP/1.1 messages off a blocking stream, as a simple peer reads them: head, then a body by length, chunks or close.

use std::io::{self, BufRead, Read};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// Request line or status line.
    pub first: String,
    pub fields: Vec<(String, String)>,
}

#[derive(Debug, Clone, Default)]
pub struct Response {
    pub status: u16,
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Head {
    /// `None` at a clean end of the stream.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Head>> {
        let first = match line(from)? {
            Some(first) => first,
            None => return Ok(None),
        };
        Ok(Some(Head { first, fields: fields(from)? }))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let same = move |(field, _): &&(String, String)| field.eq_ignore_ascii_case(name);
        self.fields.iter().filter(same).map(|(_, value)| value.as_str())
    }

    fn is_chunked(&self) -> bool {
        self.get("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
    }

    fn length(&self) -> io::Result<Option<u64>> {
        let parse = |text: &str| text.parse().map_err(|_| bad(format!("content-length {text:?}")));
        self.get("content-length").map(parse).transpose()
    }
}

impl Response {
    /// One answer to a request with that method, 1xx ones included. `None` when the peer closed instead.
    pub fn read(from: &mut impl BufRead, method: &str) -> io::Result<Option<Response>> {
        let Some(head) = Head::read(from)? else { return Ok(None) };
        let status = head.first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| bad(format!("status line {:?}", head.first)))?;
        let mut response = Response { status, head, ..Response::default() };
        if method != "HEAD" && status >= 200 && status != 204 && status != 304 {
            (response.body, response.trailers) = read_body(from, &response.head, true)?;
        }
        Ok(Some(response))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text body")
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }
}

type Body = (Vec<u8>, Vec<(String, String)>);

/// A request's body ends with its length; an answer's may also end with the connection.
pub fn read_body(from: &mut impl BufRead, head: &Head, until_close: bool) -> io::Result<Body> {
    let mut body = Vec::new();
    if head.is_chunked() {
        return Ok((chunks(from)?, fields(from)?));
    }
    match head.length()? {
        Some(length) => {
            let read = from.take(length).read_to_end(&mut body)? as u64;
            if read < length {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("{read} of {length} bytes of the body"),
                ));
            }
        }
        None if until_close => {
            from.read_to_end(&mut body)?;
        }
        None => {}
    }
    Ok((body, Vec::new()))
}

fn chunks(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(from)?.ok_or_else(|| cut("a chunk's size"))?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| bad(format!("chunk size {size:?}")))?;
        if size == 0 {
            return Ok(body);
        }
        let start = body.len();
        body.resize(start + size, 0);
        from.read_exact(&mut body[start..])?;
        if line(from)?.as_deref() != Some("") {
            return Err(bad("no line end after a chunk".to_owned()));
        }
    }
}

fn fields(from: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = line(from)?.ok_or_else(|| cut("a head"))?;
        if line.is_empty() {
            return Ok(fields);
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad(format!("field {line:?}")))?;
        fields.push((name.to_owned(), value.trim().to_owned()));
    }
}

/// A line without its CRLF; `None` at the end of the stream.
fn line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    let line = line.strip_suffix(b"\r\n").ok_or_else(|| cut("a line"))?;
    String::from_utf8(line.to_vec()).map(Some).map_err(|_| bad("a line that is not text".to_owned()))
}

fn bad(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn cut(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("the stream ended in {what}"))
}
