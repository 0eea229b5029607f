//! Hands finished log lines from one core to the control thread, in whole buffers that come back empty.
//!
//! The core fills a buffer of its own and passes it on when it is full or a timer says so; the control thread takes it, writes the
//! lines out, and returns it. There are never more than `CHUNKS_MAX` buffers, so when the control thread falls behind, the core has
//! none left: it drops the line, says so, and never waits.

use crossbeam_channel::{Receiver, Sender, bounded};

/// Bytes of a core's lines that wait to be written; lines beyond are dropped and counted.
pub const ACCESS_LOG_BYTES_MAX: usize = CHUNKS_MAX * CHUNK_BYTES;

/// The longest line; one that is longer is dropped and counted.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// A buffer with this much in it is handed over.
const CHUNK_BYTES: usize = 64 << 10;

/// Buffers of one core.
const CHUNKS_MAX: usize = 16;

/// Before each line: its sink and its length.
const FRAME_BYTES: usize = 6;

/// The file or stream that a line is for; numbered by whoever opens them.
pub type SinkId = u16;

/// The core's end.
#[derive(Debug)]
pub struct LogWriter {
    chunk: Option<Vec<u8>>,
    allocated: usize,
    full: Sender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
}

/// The control thread's end.
#[derive(Debug)]
pub struct LogReader {
    full: Receiver<Vec<u8>>,
    empty: Sender<Vec<u8>>,
}

/// Both ends of one core's hand-over.
pub fn log_ring() -> (LogWriter, LogReader) {
    let (full, full_out) = bounded(CHUNKS_MAX);
    let (empty, empty_out) = bounded(CHUNKS_MAX);
    (LogWriter { chunk: None, allocated: 0, full, empty: empty_out }, LogReader { full: full_out, empty })
}

impl LogWriter {
    /// Appends one line for `sink`, line end included, as `write` writes it. False where it was dropped: the caller counts that.
    #[must_use]
    pub fn line(&mut self, sink: SinkId, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Some(chunk) = self.chunk.take().or_else(|| self.take_empty()) else { return false };
        let chunk = self.chunk.insert(chunk);
        let start = chunk.len();
        chunk.extend_from_slice(&[0; FRAME_BYTES]);
        write(chunk);
        let body = start + FRAME_BYTES;
        // `write` only appends by contract; a shorter buffer or a line over the limit is cut back to what was there before
        let len = chunk.len().saturating_sub(body);
        if len == 0 || len > LINE_BYTES_MAX {
            chunk.truncate(start);
            return false;
        }
        chunk[start..start + 2].copy_from_slice(&sink.to_le_bytes());
        chunk[start + 2..body].copy_from_slice(&(len as u32).to_le_bytes());
        if chunk.len() >= CHUNK_BYTES {
            self.flush();
        }
        true
    }

    /// Hands over what there is. For a timer of some hundred milliseconds: every call spends one of few buffers.
    pub fn flush(&mut self) {
        if let Some(chunk) = self.chunk.take_if(|chunk| !chunk.is_empty()) {
            // there are no more buffers than places, so this fails only when the reader is gone, and its lines with it
            if let Err(unsent) = self.full.try_send(chunk) {
                let mut chunk = unsent.into_inner();
                chunk.clear();
                self.chunk = Some(chunk);
            }
        }
    }

    fn take_empty(&mut self) -> Option<Vec<u8>> {
        if let Ok(chunk) = self.empty.try_recv() {
            return Some(chunk);
        }
        if self.allocated == CHUNKS_MAX {
            return None;
        }
        self.allocated += 1;
        Some(Vec::with_capacity(CHUNK_BYTES + FRAME_BYTES + LINE_BYTES_MAX))
    }
}

impl LogReader {
    /// Calls `write` for every line that was handed over, in order, and returns how many there were.
    ///
    /// Takes at most the buffers that a core can have filled, so it ends while the core goes on.
    pub fn drain(&self, mut write: impl FnMut(SinkId, &[u8])) -> usize {
        let mut lines = 0;
        for mut chunk in self.full.try_iter().take(CHUNKS_MAX) {
            let mut rest = &chunk[..];
            while let Some((sink, line, after)) = next_line(rest) {
                write(sink, line);
                lines += 1;
                rest = after;
            }
            chunk.clear();
            chunk.shrink_to(CHUNK_BYTES + FRAME_BYTES + LINE_BYTES_MAX);
            // fails only when the core is gone
            let _ = self.empty.try_send(chunk);
        }
        lines
    }
}

fn next_line(bytes: &[u8]) -> Option<(SinkId, &[u8], &[u8])> {
    let (sink, bytes) = bytes.split_first_chunk()?;
    let (len, bytes) = bytes.split_first_chunk()?;
    let (line, after) = bytes.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    Some((SinkId::from_le_bytes(*sink), line, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(reader: &LogReader) -> Vec<(SinkId, Vec<u8>)> {
        let mut lines = Vec::new();
        reader.drain(|sink, line| lines.push((sink, line.to_vec())));
        lines
    }

    #[test]
    fn lines_arrive_whole_in_order_and_for_their_sink() {
        let (mut writer, reader) = log_ring();
        assert!(writer.line(1, |out| out.extend_from_slice(b"first\n")));
        assert!(writer.line(7, |out| out.extend_from_slice(b"second\n")));
        assert_eq!(drained(&reader), []);
        writer.flush();
        assert_eq!(drained(&reader), [(1, b"first\n".to_vec()), (7, b"second\n".to_vec())]);
    }

    #[test]
    fn a_reader_that_sleeps_costs_lines_and_never_more_memory_than_the_bound() {
        let (mut writer, reader) = log_ring();
        let line = [b'x'; 1 << 10];
        let mut kept = 0;
        while writer.line(0, |out| out.extend_from_slice(&line)) {
            kept += line.len() + FRAME_BYTES;
        }
        assert!((ACCESS_LOG_BYTES_MAX..ACCESS_LOG_BYTES_MAX + CHUNKS_MAX * 2 * line.len()).contains(&kept));
        assert!(!writer.line(0, |out| out.push(b'x')));
        assert_eq!(reader.drain(|_, _| ()), kept / (line.len() + FRAME_BYTES));
        assert!(writer.line(0, |out| out.push(b'y')), "buffers come back");
        assert_eq!(writer.allocated, CHUNKS_MAX);
    }

    #[test]
    fn empty_and_oversized_lines_leave_no_trace() {
        let (mut writer, reader) = log_ring();
        assert!(!writer.line(0, |_| ()));
        assert!(!writer.line(0, |out| out.resize(out.len() + LINE_BYTES_MAX + 1, b'x')));
        assert!(!writer.line(0, Vec::clear));
        assert!(writer.line(0, |out| out.push(b'z')));
        writer.flush();
        assert_eq!(drained(&reader), [(0, b"z".to_vec())]);
    }

    #[test]
    fn without_a_reader_lines_are_lost_and_nothing_grows() {
        let (mut writer, reader) = log_ring();
        drop(reader);
        for _ in 0..10_000 {
            let _ = writer.line(0, |out| out.extend_from_slice(&[b'x'; 100]));
        }
        assert_eq!(writer.allocated, 1);
    }
}
