//! From the socket's bytes to whole records.
//!
//! A read takes what has arrived, as far as a buffer goes: a small record costs one receive, several cost one
//! together. Records are opened from where they were received. The buffer is held only while ciphertext lies in it;
//! when it holds one record and nothing else, that record is opened in place and the buffer itself is handed on.
//!
//! A record must lie in one piece to be opened. When the end of the buffer cuts one, its beginning moves to another
//! buffer; where records are large, it is placed such that the room ends with the header of the record after it, so
//! that of a long run of large records only the first is moved and then five bytes of each read:
//!
//! ```text
//! | unused ... | beginning | room for the rest | next header 5 |
//! '------------------- headroom to tailroom -----------------'
//! ```
//! Sans-io: [`Intake::prepare`] gives the buffer to read into, [`Intake::accept`] takes it back.
use corelane_runtime::buffer::{HEADROOM, TAILROOM};
use corelane_runtime::{Buf, BufferPool};

use crate::record::{HEADER_BYTES, Offence, record_bytes};

/// Records of which a buffer holds fewer than this are read exactly, as many as it holds; otherwise the beginning that
/// has to move is at most a twelfth of what is read, on average. A bulk buffer holds five of the largest.
const RECORDS_PER_READ_MIN: usize = 6;

/// The reading state of one connection.
#[derive(Default)]
pub(crate) struct Intake {
    /// Ciphertext, from the beginning of a record on; never an empty buffer.
    cipher: Option<Buf>,
    /// The last read used all the room it had, so there may be more at once.
    filled_up: bool,
    /// Ciphertext moved because the end of a buffer cut a record, since somebody took the count.
    pub(crate) moved_bytes: u64,
    /// After a TLS 1.3 handshake every record is protected.
    pub(crate) protected: bool,
}

impl Intake {
    /// `preload` holds bytes that somebody read before us, such as the sniffed ClientHello.
    pub(crate) fn new(preload: Option<Buf>) -> Self {
        Self { cipher: preload.filter(|buf| !buf.is_empty()), ..Self::default() }
    }

    /// Whether nothing of a record has arrived yet.
    pub(crate) fn is_idle(&self) -> bool {
        self.cipher.is_none()
    }

    /// Whether more bytes are likely to be there already.
    pub(crate) fn expects_more(&self) -> bool {
        self.filled_up || self.cipher.is_some()
    }

    /// The whole header of the next record, if it is known.
    pub(crate) fn next_header(&self) -> Option<&[u8; HEADER_BYTES]> {
        self.cipher.as_ref()?.filled().first_chunk()
    }

    /// The size of the next record, header included, once it has arrived whole.
    ///
    /// # Errors
    /// The record that has begun can only be refused.
    pub(crate) fn whole(&self) -> Result<Option<usize>, Offence> {
        let len = self.next_bytes()?;
        Ok(len.filter(|&len| self.cipher.as_ref().is_some_and(|cipher| len <= cipher.len())))
    }

    fn next_bytes(&self) -> Result<Option<usize>, Offence> {
        self.next_header().map(|header| record_bytes(header, self.protected)).transpose()
    }

    /// The first `len` bytes, which [`Intake::whole`] has told.
    pub(crate) fn record(&mut self, len: usize) -> &mut [u8] {
        self.cipher.as_mut().and_then(|cipher| cipher.filled_mut().get_mut(..len)).unwrap_or_default()
    }

    /// Forgets the first `len` bytes; the buffer goes back to its pool with the last.
    pub(crate) fn consume(&mut self, len: usize) {
        if let Some(cipher) = &mut self.cipher {
            cipher.advance(len);
            self.cipher.take_if(|cipher| cipher.is_empty());
        }
    }

    /// The buffer itself, if it holds a record of `len` bytes and nothing else, and no less than `capacity` otherwise.
    pub(crate) fn take_sole(&mut self, len: usize, capacity: usize) -> Option<Buf> {
        self.cipher.take_if(|cipher| cipher.len() == len && cipher.capacity() >= capacity)
    }

    /// A buffer whose spare room is what may be read now: `own`, if that is given and nothing has begun.
    ///
    /// # Errors
    /// The record that has begun can only be refused.
    pub(crate) fn prepare(&mut self, own: Option<Buf>, pool: &BufferPool) -> Result<Buf, Offence> {
        let record = self.next_bytes()?;
        let mut buf = match self.cipher.take() {
            None => own.unwrap_or_else(|| pool.take()),
            Some(cipher) => {
                let (start, _) = cipher.range();
                let end = span(&cipher);
                let fits = match record {
                    Some(len) => start + len <= end,
                    None => start <= HEADROOM + HEADER_BYTES,
                };
                if fits { cipher } else { self.moved(&cipher, record.unwrap_or(HEADER_BYTES), pool) }
            }
        };
        // what lies behind the payload is room for a record's tag
        buf.open_tailroom();
        Ok(buf)
    }

    /// Moves the beginning of a record of `len` bytes to where the whole has room.
    #[cold]
    fn moved(&mut self, cipher: &Buf, len: usize, pool: &BufferPool) -> Buf {
        let with_next = len + HEADER_BYTES;
        let mut buf = pool.take_sized(with_next.saturating_sub(TAILROOM));
        let end = span(&buf);
        let exact = RECORDS_PER_READ_MIN * with_next > end - HEADROOM;
        let records = (end - HEADER_BYTES) / len;
        let start = if exact { end - (records * len + HEADER_BYTES) } else { HEADROOM };
        let placed = buf.set_filled(start, start + cipher.len());
        debug_assert!(placed, "the buffer was taken for this size");
        buf.filled_mut().copy_from_slice(cipher.filled());
        self.moved_bytes += cipher.len() as u64;
        buf
    }

    /// Takes a buffer from [`Intake::prepare`] back, with what was read into it.
    pub(crate) fn accept(&mut self, buf: Buf) {
        self.filled_up = buf.spare_len() == 0;
        self.cipher = Some(buf).filter(|buf| !buf.is_empty());
    }
}

/// Bytes from the start of the headroom to the end of the tailroom.
fn span(buf: &Buf) -> usize {
    buf.range().1 + buf.back_len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_runtime::buffer::BULK_BYTES;

    fn record(fill: u8, len: usize) -> Vec<u8> {
        let mut record = vec![23, 3, 3];
        record.extend((len as u16).to_be_bytes());
        record.resize(HEADER_BYTES + len, fill);
        record
    }

    fn take_whole(intake: &mut Intake) -> Option<Vec<u8>> {
        let len = intake.whole().unwrap()?;
        let record = intake.record(len).to_vec();
        intake.consume(len);
        Some(record)
    }

    /// Feeds `wire` in pieces of at most `piece` bytes; returns the records, the reads and the bytes moved.
    fn run(wire: &[u8], piece: usize, pool: &BufferPool) -> (Vec<Vec<u8>>, usize, u64) {
        let mut intake = Intake { protected: true, ..Intake::default() };
        let mut found = Vec::new();
        let (mut rest, mut reads) = (wire, 0);
        while !rest.is_empty() {
            let mut buf = intake.prepare(None, pool).unwrap();
            assert!(buf.spare_len() > 0, "a read needs room");
            let n = rest.len().min(piece);
            let n = buf.extend_from_slice(&rest[..n]);
            rest = &rest[n..];
            reads += 1;
            intake.accept(buf);
            while let Some(record) = take_whole(&mut intake) {
                found.push(record);
            }
        }
        assert!(intake.is_idle());
        (found, reads, intake.moved_bytes)
    }

    #[test]
    fn records_of_every_size_come_out_whole_at_every_split() {
        let sizes = [17, 18, 300, 16_384 + 17, 16_384 + 256, 21, 16_401];
        let expected: Vec<_> = sizes.iter().enumerate().map(|(fill, &len)| record(fill as u8, len)).collect();
        let wire = expected.concat();
        for buffer_bytes in [64, 4096, 16 * 1024, BULK_BYTES, 64 * 1024] {
            let pool = BufferPool::new(buffer_bytes, 4);
            for piece in [1, 2, 3, 4, 5, 6, 7, 1000, 16_411, 100_000] {
                assert_eq!(run(&wire, piece, &pool).0, expected, "{buffer_bytes} {piece}");
            }
            assert_eq!(pool.stats().in_use, 0);
        }
    }

    #[test]
    fn small_records_share_a_read_and_large_ones_hardly_move() {
        let pool = BufferPool::new(16 * 1024, 4);
        let small = record(1, 1000).repeat(16);
        assert_eq!(run(&small, usize::MAX, &pool).1, 1);
        for len in [16_384 + 17, 10_000, 5000] {
            let wire = record(7, len).repeat(100);
            let (found, reads, moved) = run(&wire, usize::MAX, &pool);
            assert!(found.len() == 100 && reads <= 101, "{len}: {reads} reads");
            // the beginning of one record, and the headers of the others
            assert!(moved as usize <= len + 100 * HEADER_BYTES, "{len}: {moved} moved");
        }
    }

    #[test]
    fn a_bulk_buffer_reads_five_of_the_largest_records_at_a_time() {
        let pool = BufferPool::new(BULK_BYTES, 4);
        let wire = record(7, 16_384 + 17).repeat(99);
        let (found, reads, moved) = run(&wire, usize::MAX, &pool);
        assert!(found.len() == 99 && reads <= 21, "{reads} reads");
        assert!(moved as usize <= 16_406 + 20 * HEADER_BYTES, "{moved} moved");
    }

    #[test]
    fn bytes_read_before_come_first() {
        let pool = BufferPool::new(16 * 1024, 4);
        let mut sniffed = pool.take();
        sniffed.extend_from_slice(&[record(1, 40), record(2, 19)[..7].to_vec()].concat());
        let mut intake = Intake::new(Some(sniffed));
        assert!(!intake.is_idle());
        assert_eq!(take_whole(&mut intake).unwrap(), record(1, 40));
        assert!(take_whole(&mut intake).is_none() && !intake.is_idle());
        let mut buf = intake.prepare(None, &pool).unwrap();
        buf.extend_from_slice(&record(2, 19)[7..]);
        intake.accept(buf);
        assert_eq!(take_whole(&mut intake).unwrap(), record(2, 19));
        assert!(intake.is_idle());
        assert_eq!(pool.stats().in_use, 0);
    }

    #[test]
    fn a_buffer_is_handed_on_only_with_one_whole_record() {
        let pool = BufferPool::new(16 * 1024, 4);
        let mut intake = Intake { protected: true, ..Intake::default() };
        let mut own = pool.take();
        own.extend_from_slice(b"x");
        own.clear();
        let mut buf = intake.prepare(Some(own), &pool).unwrap();
        assert_eq!(pool.stats().in_use, 1, "the buffer that was given is the one to read into");
        buf.extend_from_slice(&[record(1, 40), record(2, 20)].concat());
        intake.accept(buf);
        let len = intake.whole().unwrap().unwrap();
        assert!(intake.take_sole(len, 0).is_none());
        intake.consume(len);
        let len = intake.whole().unwrap().unwrap();
        assert!(intake.take_sole(len, usize::MAX).is_none());
        assert_eq!(intake.take_sole(len, 0).unwrap().filled(), record(2, 20));
        assert!(intake.is_idle());
    }

    #[test]
    fn a_header_that_cannot_be_is_refused_before_its_record_is_read() {
        let pool = BufferPool::new(16 * 1024, 1);
        let mut intake = Intake { protected: true, ..Intake::default() };
        let mut buf = intake.prepare(None, &pool).unwrap();
        buf.extend_from_slice(&[21, 3, 3, 0, 2]);
        intake.accept(buf);
        assert!(intake.whole().is_err());
        assert!(intake.prepare(None, &pool).is_err());
    }
}
