//! From the socket's bytes to whole records, without ever moving a record's contents.
//!
//! A record must lie in one piece to be opened. Reading as much as fits would leave the beginning of some record at
//! the end of the buffer, and it would have to be moved. So a read never goes further than the header of the record
//! after the current one: while nothing is known, five bytes are asked for, into a buffer of that size, which is all
//! that an idle connection holds; then the record is laid out such that the buffer's room ends with the next header.
//!
//! ```text
//! | unused ... | header 5 | contents ... tag | next header 5 |
//! '------------------- headroom to tailroom ----------------'
//! ```
//! Sans-io: [`Intake::prepare`] gives the buffer to read into, [`Intake::accept`] takes it back.
use corelane_runtime::buffer::{HEADROOM, TAILROOM};
use corelane_runtime::{Buf, BufferPool};

use crate::record::{HEADER_BYTES, Offence, record_bytes};

/// The reading state of one connection; a few bytes unless a record is under way.
#[derive(Default)]
pub(crate) struct Intake {
    header: [u8; HEADER_BYTES],
    header_len: usize,
    /// What headers are read into, once the first was.
    header_buf: Option<Buf>,
    /// A record under way, its header included.
    record: Option<Buf>,
    /// Bytes that somebody read before us, such as the sniffed ClientHello.
    preload: Option<Buf>,
    /// After a TLS 1.3 handshake every record is protected.
    pub(crate) protected: bool,
}

impl Intake {
    pub(crate) fn new(preload: Option<Buf>) -> Self {
        Self { preload: preload.filter(|buf| !buf.is_empty()), ..Self::default() }
    }

    /// Whether nothing of a record has arrived yet.
    pub(crate) fn is_idle(&self) -> bool {
        self.header_len == 0 && self.record.is_none() && self.preload.is_none()
    }

    /// Whether the next step needs nothing from the socket: bytes were read before, or a header can only be refused.
    pub(crate) fn is_ready(&self) -> bool {
        self.preload.is_some()
            || self.next_header().is_some_and(|header| record_bytes(header, self.protected).is_err())
    }

    /// The whole header of the next record, if it is known.
    pub(crate) fn next_header(&self) -> Option<&[u8; HEADER_BYTES]> {
        (self.header_len == HEADER_BYTES && self.record.is_none()).then_some(&self.header)
    }

    /// A buffer whose spare room is what may be read now.
    ///
    /// # Errors
    /// The record that has begun can only be refused.
    pub(crate) fn prepare(&mut self, headers: &BufferPool, records: &BufferPool) -> Result<Buf, Offence> {
        if let Some(record) = self.record.take() {
            return Ok(record);
        }
        let known = &self.header[..self.header_len];
        if known.len() < HEADER_BYTES {
            let mut buf = self.header_buf.take().unwrap_or_else(|| headers.take_sized(HEADER_BYTES));
            buf.clear();
            buf.extend_from_slice(known);
            return Ok(buf);
        }
        let len = record_bytes(&self.header, self.protected)?;
        let mut buf = records.take_sized((len + HEADER_BYTES).saturating_sub(HEADROOM + TAILROOM));
        let end = buf.capacity() + HEADROOM + TAILROOM - HEADER_BYTES;
        let placed = buf.set_filled(end - len, end - len + HEADER_BYTES);
        debug_assert!(placed, "the buffer was taken for this size");
        buf.filled_mut().copy_from_slice(&self.header);
        buf.open_tailroom();
        Ok(buf)
    }

    /// Takes a buffer from [`Intake::prepare`] back, with what was read into it. Returns a record when it is whole.
    pub(crate) fn accept(&mut self, mut buf: Buf) -> Option<Buf> {
        if self.header_len < HEADER_BYTES {
            self.header_len = buf.len().min(HEADER_BYTES);
            self.header[..self.header_len].copy_from_slice(&buf.filled()[..self.header_len]);
            self.header_buf = Some(buf);
            return None;
        }
        let len = HEADER_BYTES + usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
        if buf.len() < len {
            self.record = Some(buf);
            return None;
        }
        let next = &buf.filled()[len..];
        self.header_len = next.len().min(HEADER_BYTES);
        self.header[..self.header_len].copy_from_slice(&next[..self.header_len]);
        buf.truncate(len);
        Some(buf)
    }

    /// Fills a prepared buffer from bytes that were read before; returns how many that were.
    pub(crate) fn fill_from_preload(&mut self, buf: &mut Buf) -> usize {
        let Some(preload) = &mut self.preload else { return 0 };
        let n = buf.extend_from_slice(preload.filled());
        preload.advance(n);
        if preload.is_empty() {
            self.preload = None;
        }
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fill: u8, len: usize) -> Vec<u8> {
        let mut record = vec![23, 3, 3];
        record.extend((len as u16).to_be_bytes());
        record.resize(HEADER_BYTES + len, fill);
        record
    }

    /// Feeds `wire` in pieces of at most `piece` bytes and returns the records.
    fn run(wire: &[u8], piece: usize, records: &BufferPool) -> Vec<Vec<u8>> {
        let headers = BufferPool::new(HEADER_BYTES, 1);
        let mut intake = Intake { protected: true, ..Intake::default() };
        let mut found = Vec::new();
        let mut rest = wire;
        while !rest.is_empty() {
            let mut buf = intake.prepare(&headers, records).unwrap();
            assert!(buf.spare_len() > 0, "a read needs room");
            let n = rest.len().min(piece);
            let n = buf.extend_from_slice(&rest[..n]);
            rest = &rest[n..];
            found.extend(intake.accept(buf).map(|record| record.filled().to_vec()));
        }
        assert!(intake.is_idle());
        found
    }

    #[test]
    fn records_of_every_size_come_out_whole_at_every_split() {
        let sizes = [17, 18, 300, 16_384 + 17, 16_384 + 256, 21, 16_401];
        let expected: Vec<_> = sizes.iter().enumerate().map(|(fill, &len)| record(fill as u8, len)).collect();
        let wire = expected.concat();
        for buffer_bytes in [64, 4096, 16 * 1024, 64 * 1024] {
            let records = BufferPool::new(buffer_bytes, 4);
            for piece in [1, 2, 3, 4, 5, 6, 7, 1000, 16_411, 100_000] {
                assert_eq!(run(&wire, piece, &records), expected, "{buffer_bytes} {piece}");
            }
            assert_eq!(records.stats().in_use, 0);
        }
    }

    #[test]
    fn bytes_read_before_come_first() {
        let pool = BufferPool::new(16 * 1024, 4);
        let headers = BufferPool::new(HEADER_BYTES, 1);
        let mut sniffed = pool.take();
        sniffed.extend_from_slice(&[record(1, 40), record(2, 19)[..7].to_vec()].concat());
        let mut intake = Intake::new(Some(sniffed));
        assert!(!intake.is_idle());
        let mut found = Vec::new();
        loop {
            let mut buf = intake.prepare(&headers, &pool).unwrap();
            if intake.fill_from_preload(&mut buf) == 0 {
                buf.extend_from_slice(&record(2, 19)[7..]);
            }
            let whole = intake.accept(buf);
            let Some(whole) = whole else { continue };
            found.push(whole.filled().to_vec());
            if found.len() == 2 {
                break;
            }
        }
        assert_eq!(found, [record(1, 40), record(2, 19)]);
    }

    #[test]
    fn a_header_that_cannot_be_is_refused_before_its_record_is_read() {
        let headers = BufferPool::new(HEADER_BYTES, 1);
        let pool = BufferPool::new(16 * 1024, 1);
        let mut intake = Intake { protected: true, ..Intake::default() };
        let mut buf = intake.prepare(&headers, &pool).unwrap();
        buf.extend_from_slice(&[21, 3, 3, 0, 2]);
        assert!(intake.accept(buf).is_none());
        assert!(intake.prepare(&headers, &pool).is_err());
        assert_eq!(pool.stats().in_use, 0);
    }
}
