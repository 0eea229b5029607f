//! HTTP/1.1 message bodies (RFC 9112 section 6 and 7): finds where one ends and keeps none of it.

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    /// The connection's end is the body's end (responses only).
    UntilClose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// A chunk's size line may carry extensions; nobody needs more than this.
const CHUNK_LINE_MAX: u32 = 4_096;
const TRAILERS_MAX: u32 = 16_384;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    Size { value: u64, digits: u32 },
    Extension { value: u64, seen: u32 },
    SizeLf { value: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    Trailer { line: u32, total: u32 },
    TrailerLf { empty: bool, total: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Length(u64),
    Chunked(Chunk),
    UntilClose,
    Done,
}

/// Follows one body through as many pieces as it arrives in.
#[derive(Debug)]
pub struct Body {
    state: State,
}

impl Body {
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(left) => State::Length(left),
            Framing::Chunked => State::Chunked(Chunk::Size { value: 0, digits: 0 }),
            Framing::UntilClose => State::UntilClose,
        };
        Body { state }
    }

    pub fn done(&self) -> bool {
        self.state == State::Done
    }

    pub fn ends_with_connection(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Takes from the front of `bytes` what belongs to the body and returns how much that was.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                State::Done => break,
                State::UntilClose => at = bytes.len(),
                State::Length(left) => {
                    let taken = left.min((bytes.len() - at) as u64);
                    at += taken as usize;
                    self.state = if left == taken { State::Done } else { State::Length(left - taken) };
                }
                State::Chunked(Chunk::Data { left }) => {
                    let taken = left.min((bytes.len() - at) as u64);
                    at += taken as usize;
                    self.state = State::Chunked(if left == taken {
                        Chunk::DataCr
                    } else {
                        Chunk::Data { left: left - taken }
                    });
                }
                State::Chunked(chunk) => {
                    self.state = step(chunk, bytes[at])?;
                    at += 1;
                }
            }
        }
        Ok(at)
    }
}

fn step(chunk: Chunk, byte: u8) -> Result<State, Malformed> {
    let next = match (chunk, byte) {
        (Chunk::Size { value, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < 15 => {
            let digit = (byte as char).to_digit(16).unwrap_or(0);
            Chunk::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
        }
        (Chunk::Size { value, digits: 1.. }, b'\r') => Chunk::SizeLf { value },
        (Chunk::Size { value, digits: 1.. }, b';') => Chunk::Extension { value, seen: 0 },
        (Chunk::Size { .. }, _) => return Err(Malformed("chunk size")),
        (Chunk::Extension { value, .. }, b'\r') => Chunk::SizeLf { value },
        (Chunk::Extension { value, seen }, _) if seen < CHUNK_LINE_MAX => {
            Chunk::Extension { value, seen: seen + 1 }
        }
        (Chunk::Extension { .. }, _) => return Err(Malformed("chunk extension too long")),
        (Chunk::SizeLf { value: 0 }, b'\n') => Chunk::Trailer { line: 0, total: 0 },
        (Chunk::SizeLf { value }, b'\n') => Chunk::Data { left: value },
        (Chunk::DataCr, b'\r') => Chunk::DataLf,
        (Chunk::DataLf, b'\n') => Chunk::Size { value: 0, digits: 0 },
        (Chunk::Trailer { .. }, b'\n') => return Err(Malformed("bare line feed in trailers")),
        (Chunk::Trailer { line, total }, b'\r') => Chunk::TrailerLf { empty: line == 0, total },
        (Chunk::Trailer { line, total }, _) if total < TRAILERS_MAX => {
            Chunk::Trailer { line: line + 1, total: total + 1 }
        }
        (Chunk::Trailer { .. }, _) => return Err(Malformed("trailers too long")),
        (Chunk::TrailerLf { empty: true, .. }, b'\n') => return Ok(State::Done),
        (Chunk::TrailerLf { empty: false, total }, b'\n') => Chunk::Trailer { line: 0, total },
        _ => return Err(Malformed("chunk framing")),
    };
    Ok(State::Chunked(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKED: &[u8] =
        b"5\r\nhello\r\n1a;name=value\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nx-sum: 1\r\n\r\n";

    #[test]
    fn a_chunked_body_ends_at_the_same_byte_however_it_is_cut() {
        for cut in 0..=CHUNKED.len() {
            let mut message = CHUNKED.to_vec();
            message.extend_from_slice(b"NEXT");
            let mut body = Body::new(Framing::Chunked);
            let mut taken = body.feed(&message[..cut]).unwrap();
            assert_eq!(taken, cut);
            taken += body.feed(&message[cut..]).unwrap();
            assert_eq!((taken, body.done()), (CHUNKED.len(), true), "cut at {cut}");
        }
    }

    #[test]
    fn lengths_are_exact() {
        let mut body = Body::new(Framing::Length(5));
        assert_eq!((body.feed(b"abc"), body.done()), (Ok(3), false));
        assert_eq!((body.feed(b"defg"), body.done()), (Ok(2), true));
        assert!(Body::new(Framing::Length(0)).done());
    }

    #[test]
    fn bad_chunks_are_named() {
        for bad in [&b"\r\n"[..], b"g\r\n", b"5\n", b"1\r\nab", b"0\r\n\n", b"1111111111111111\r\n"] {
            assert!(Body::new(Framing::Chunked).feed(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
