//! Bodies, incrementally and without copying: the decoder says which range of the input is data. Chunked
//! coding is RFC 9112 section 7.1.

use super::framing::BodyFraming;
use crate::{
    HttpError, Known,
    fields::{Field, Fields, Span, is_token},
    list,
};
use std::ops::Range;

/// What a chunked body may cost beside its data.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Bytes of a chunk-size line with its extensions.
    pub chunk_line_bytes_max: usize,
    /// Bytes of the trailer section.
    pub trailer_bytes_max: usize,
    /// Fields of the trailer section.
    pub trailer_fields_max: usize,
}

impl Default for BodyLimits {
    fn default() -> Self {
        BodyLimits { chunk_line_bytes_max: 1024, trailer_bytes_max: 8 * 1024, trailer_fields_max: 64 }
    }
}

/// What one call of `BodyDecoder::decode` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Body bytes, as a range of the input; may be empty.
    pub data: Range<usize>,
    /// Bytes of the input that are done with (including `data`): call again with the rest if it is less than
    /// the input and `done` is false.
    pub consumed: usize,
    /// The body is complete; what follows `consumed` belongs to the next message.
    pub done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    /// Before the first digit of a chunk size.
    SizeStart,
    Size(u64),
    /// White space between size and extension.
    SizeSpace(u64),
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    Trailer,
    Done,
}

/// Finds the data of one body. It needs no memory of its own; trailers go to the caller's `Fields`, which must
/// be the same, and untouched, from call to call.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
    limits: BodyLimits,
    /// Bytes of the current chunk-size line.
    line_bytes: usize,
    trailer_bytes: usize,
    /// Where the current trailer line begins in the arena.
    line_start: usize,
    /// The arena was taken note of.
    in_line: bool,
}

impl BodyDecoder {
    pub fn new(framing: BodyFraming, limits: BodyLimits) -> BodyDecoder {
        let state = match framing {
            BodyFraming::None | BodyFraming::Length(0) => State::Done,
            BodyFraming::Length(length) => State::Length(length),
            BodyFraming::Chunked => State::SizeStart,
            BodyFraming::UntilClose => State::UntilClose,
        };
        BodyDecoder { state, limits, line_bytes: 0, trailer_bytes: 0, line_start: 0, in_line: false }
    }

    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of data known to be still to come: of the body, or of the current chunk. A hint for read sizes.
    pub fn known_remaining(&self) -> u64 {
        match self.state {
            State::Length(left) | State::Data(left) => left,
            _ => 0,
        }
    }

    /// The peer has closed its side.
    ///
    /// # Errors
    /// `Incomplete` if the body should have gone on: RFC 9112 section 8, such a message is incomplete and must
    /// not look complete to whom it is forwarded.
    pub fn finish(&mut self) -> Result<(), HttpError> {
        match self.state {
            State::Done | State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(HttpError::Incomplete),
        }
    }

    /// Takes the next bytes of the body: at most one range of data a call, and all framing around it.
    ///
    /// # Errors
    /// Malformed or oversized chunk framing or trailers; the connection is lost.
    pub fn decode(&mut self, input: &[u8], trailers: &mut Fields) -> Result<Decoded, HttpError> {
        let mut data = 0..0;
        let mut at = 0;
        while at < input.len() {
            let rest = &input[at..];
            match self.state {
                State::Done => break,
                State::Length(left) | State::Data(left) => {
                    if !data.is_empty() {
                        break;
                    }
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    data = at..at + take;
                    at += take;
                    self.state = self.after_data(left - take as u64);
                }
                State::UntilClose => {
                    data = at..input.len();
                    at = input.len();
                }
                State::Trailer => at += self.trailer_line(rest, trailers)?,
                _ => {
                    self.state = self.chunk_byte(rest[0])?;
                    at += 1;
                }
            }
        }
        Ok(Decoded { data, consumed: at, done: self.is_done() })
    }

    fn after_data(&self, left: u64) -> State {
        match self.state {
            State::Length(_) if left == 0 => State::Done,
            State::Length(_) => State::Length(left),
            _ if left == 0 => State::DataCr,
            _ => State::Data(left),
        }
    }

    /// One byte of chunk framing:
    /// chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF
    /// chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )
    fn chunk_byte(&mut self, byte: u8) -> Result<State, HttpError> {
        if matches!(self.state, State::DataCr | State::DataLf) {
            return match (self.state, byte) {
                (State::DataCr, b'\r') => Ok(State::DataLf),
                (State::DataLf, b'\n') => Ok(State::SizeStart),
                _ => Err(HttpError::InvalidChunkEnd),
            };
        }
        self.line_bytes = if self.state == State::SizeStart { 1 } else { self.line_bytes + 1 };
        if self.line_bytes > self.limits.chunk_line_bytes_max {
            return Err(HttpError::ChunkLineTooLong);
        }
        match (self.state, byte) {
            (State::SizeStart, _) => hex(0, byte).map(State::Size),
            (State::Size(size), b'\r') => Ok(State::SizeLf(size)),
            (State::Size(size) | State::SizeSpace(size), b';') => Ok(State::Extension(size)),
            (State::Size(size) | State::SizeSpace(size), b' ' | b'\t') => Ok(State::SizeSpace(size)),
            (State::Size(size), _) => hex(size, byte).map(State::Size),
            // RFC 9112 section 7.1.1: "A recipient MUST ignore unrecognized chunk extensions." Nothing but
            // text may be in one: a peer that ends lines at LF would see another chunk there.
            (State::Extension(size), b'\r') => Ok(State::SizeLf(size)),
            (State::Extension(size), b'\t' | b' '..=b'~' | 0x80..) => Ok(State::Extension(size)),
            (State::Extension(_), _) => Err(HttpError::InvalidChunkExtension),
            (State::SizeLf(0), b'\n') => Ok(State::Trailer),
            (State::SizeLf(size), b'\n') => Ok(State::Data(size)),
            (State::SizeLf(_), _) => Err(HttpError::BareCr),
            _ => Err(HttpError::InvalidChunkSize),
        }
    }

    /// Takes the bytes of one trailer line, or of its beginning, into the arena; says how many.
    fn trailer_line(&mut self, input: &[u8], trailers: &mut Fields) -> Result<usize, HttpError> {
        if !self.in_line {
            self.line_start = trailers.bytes.len();
            self.in_line = true;
        }
        let newline = memchr::memchr(b'\n', input);
        let take = newline.map_or(input.len(), |at| at + 1);
        let left = self.limits.trailer_bytes_max - self.trailer_bytes;
        if take > left {
            return Err(HttpError::TrailersTooLarge);
        }
        self.trailer_bytes += take;
        trailers.bytes.extend_from_slice(&input[..take]);
        if newline.is_some() {
            self.in_line = false;
            let ended = push_trailer(trailers, self.line_start, self.limits.trailer_fields_max)?;
            self.state = if ended { State::Done } else { State::Trailer };
        }
        Ok(take)
    }
}

/// RFC 9112 section 7.1: "Recipients MUST anticipate potentially large hexadecimal numerals and prevent parsing
/// errors due to integer conversion overflows".
fn hex(size: u64, byte: u8) -> Result<u64, HttpError> {
    let digit = (byte as char).to_digit(16).ok_or(HttpError::InvalidChunkSize)?;
    if size > i64::MAX as u64 >> 4 {
        return Err(HttpError::InvalidChunkSize);
    }
    Ok(size << 4 | u64::from(digit))
}

/// Makes a field of the line that ends the arena; says whether it was the empty line.
fn push_trailer(trailers: &mut Fields, line_start: usize, fields_max: usize) -> Result<bool, HttpError> {
    let Some(line) = trailers.bytes.get(line_start..).and_then(|l| l.strip_suffix(b"\r\n")) else {
        return Err(HttpError::BareLf);
    };
    if line.is_empty() {
        return Ok(true);
    }
    if matches!(line[0], b' ' | b'\t') {
        return Err(HttpError::ObsFold);
    }
    let colon = memchr::memchr(b':', line).ok_or(HttpError::InvalidFieldName)?;
    let name = &line[..colon];
    if !is_token(name) {
        return Err(match name {
            [.., b' ' | b'\t'] => HttpError::SpaceBeforeColon,
            _ => HttpError::InvalidFieldName,
        });
    }
    let padded = &line[colon + 1..];
    let value = list::trim(padded);
    if value.iter().any(|&b| b.is_ascii_control() && b != b'\t') {
        return Err(HttpError::InvalidFieldValue);
    }
    let known = Known::of(name);
    // RFC 9110 section 6.5.1: a trailer field must not be one that is "necessary for message framing" or
    // "routing".
    if matches!(known, Known::ContentLength | Known::TransferEncoding | Known::Host) {
        return Err(HttpError::ForbiddenTrailer);
    }
    if trailers.count() >= fields_max {
        return Err(HttpError::TrailersTooLarge);
    }
    let lead = padded.len() - list::trim_start(padded).len();
    let value = Span::new(line_start + colon + 1 + lead.min(padded.len() - value.len()), value.len());
    let name = Span::new(line_start, colon);
    trailers.bytes[name.range()].make_ascii_lowercase();
    if !known.is_hop_by_hop() {
        trailers.push_field(Field { name, value, upper: 0, known });
    }
    Ok(false)
}
