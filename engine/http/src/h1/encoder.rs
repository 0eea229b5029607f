//! Writing bodies in the framing that the head announced.

use super::framing::BodyFraming;
use crate::{Fields, HttpError, Sink};

/// Puts the framing around the data of one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEncoder {
    /// Bytes that the Content-Length still promises; 0 also where there is no body.
    Length {
        left: u64,
    },
    Chunked,
    UntilClose,
    /// The end was written.
    Finished,
}

/// What goes before the data of one chunk: the size line, or nothing where the body is not chunked.
#[derive(Clone, Copy, Debug)]
pub struct ChunkHeader {
    bytes: [u8; 18],
    start: u8,
}

impl ChunkHeader {
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start as usize..]
    }
}

impl BodyEncoder {
    pub fn new(framing: BodyFraming) -> BodyEncoder {
        match framing {
            BodyFraming::None => BodyEncoder::Length { left: 0 },
            BodyFraming::Length(left) => BodyEncoder::Length { left },
            BodyFraming::Chunked => BodyEncoder::Chunked,
            BodyFraming::UntilClose => BodyEncoder::UntilClose,
        }
    }

    /// For writing without a copy: write the header, then `len` (> 0) bytes of data, then `chunk_end()`.
    ///
    /// # Errors
    /// `BodyTooLong` if the data exceed the Content-Length or come after the end.
    pub fn begin_chunk(&mut self, len: usize) -> Result<ChunkHeader, HttpError> {
        let mut header = ChunkHeader { bytes: *b"----------------\r\n", start: 18 };
        match self {
            BodyEncoder::Length { left } => {
                *left = left.checked_sub(len as u64).ok_or(HttpError::BodyTooLong)?;
            }
            BodyEncoder::UntilClose => {}
            BodyEncoder::Finished if len > 0 => return Err(HttpError::BodyTooLong),
            BodyEncoder::Finished => {}
            // A chunk of size 0 would end the body.
            BodyEncoder::Chunked if len == 0 => {}
            BodyEncoder::Chunked => {
                header.start = 16;
                let mut rest = len;
                while rest > 0 {
                    header.start -= 1;
                    header.bytes[header.start as usize] = b"0123456789abcdef"[rest & 15];
                    rest >>= 4;
                }
            }
        }
        Ok(header)
    }

    /// What goes after the data of one chunk.
    pub fn chunk_end(&self) -> &'static [u8] {
        match self {
            BodyEncoder::Chunked => b"\r\n",
            _ => b"",
        }
    }

    /// Writes a piece of the body with its framing; empty data write nothing.
    ///
    /// # Errors
    /// `BodyTooLong` as `begin_chunk`; `OutputFull`.
    pub fn data(&mut self, data: &[u8], out: &mut impl Sink) -> Result<(), HttpError> {
        if data.is_empty() {
            return Ok(());
        }
        let header = self.begin_chunk(data.len())?;
        out.put(header.as_bytes())?;
        out.put(data)?;
        out.put(self.chunk_end())?;
        Ok(())
    }

    /// Writes the end of the body, and the trailers where the framing has room for them.
    ///
    /// # Errors
    /// `Incomplete` if the Content-Length promised more: close the connection, for the peer must see it cut.
    pub fn finish(&mut self, trailers: Option<&Fields>, out: &mut impl Sink) -> Result<(), HttpError> {
        match std::mem::replace(self, BodyEncoder::Finished) {
            BodyEncoder::Length { left: 0 } | BodyEncoder::UntilClose | BodyEncoder::Finished => Ok(()),
            BodyEncoder::Length { .. } => Err(HttpError::Incomplete),
            BodyEncoder::Chunked => {
                out.put(b"0\r\n")?;
                for (known, name, value) in trailers.into_iter().flat_map(Fields::iter_known) {
                    if known.is_hop_by_hop() || super::write::is_framing(known) {
                        continue;
                    }
                    super::write::put_line(out, name, value)?;
                }
                out.put(b"\r\n")?;
                Ok(())
            }
        }
    }

    /// Whether everything that the head promised was written.
    pub fn is_finished(&self) -> bool {
        matches!(self, BodyEncoder::Finished | BodyEncoder::Length { left: 0 })
    }
}
