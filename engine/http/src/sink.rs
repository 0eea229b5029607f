//! Where encoders write: a growing buffer, or a fixed one that can be full.

/// The output has no room; what was written before stays written and is to be discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl From<Full> for crate::HttpError {
    fn from(_: Full) -> Self {
        crate::HttpError::OutputFull
    }
}

pub trait Sink {
    /// Appends all of `bytes`, or nothing.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Full>;
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// Writes into a borrowed buffer from its start.
#[derive(Debug)]
pub struct SliceSink<'a> {
    buffer: &'a mut [u8],
    filled: usize,
}

impl<'a> SliceSink<'a> {
    pub fn new(buffer: &'a mut [u8]) -> SliceSink<'a> {
        SliceSink { buffer, filled: 0 }
    }

    /// Bytes written so far.
    pub fn filled(&self) -> usize {
        self.filled
    }
}

impl Sink for SliceSink<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let end = self.filled + bytes.len();
        self.buffer.get_mut(self.filled..end).ok_or(Full)?.copy_from_slice(bytes);
        self.filled = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_full_at_its_end() {
        let mut buffer = [0u8; 4];
        let mut out = SliceSink::new(&mut buffer);
        assert_eq!(out.put(b"abc"), Ok(()));
        assert_eq!(out.put(b"de"), Err(Full));
        assert_eq!(out.put(b"d"), Ok(()));
        assert_eq!(out.filled(), 4);
        assert_eq!(&buffer, b"abcd");
    }
}
