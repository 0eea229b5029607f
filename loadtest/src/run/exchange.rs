//! The receiving half of one request: knows when its answer is whole.

use super::{Protocol, RunOptions, tally::Fault};
use crate::{
    framing::Body,
    heads::{self, ResponseHead},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub keep_alive: bool,
}

pub enum Exchange {
    Http1(Http1),
    /// Bytes of the echo still missing.
    Echo(usize),
}

#[derive(Default)]
pub struct Http1 {
    to_head_request: bool,
    /// What has arrived of a head that came in pieces.
    partial: Vec<u8>,
    reading: Option<(Answer, Body)>,
}

impl Exchange {
    pub fn new(options: &RunOptions) -> Self {
        match options.protocol {
            Protocol::Tcp => Exchange::Echo(0),
            _ => Exchange::Http1(Http1 { to_head_request: options.method == "HEAD", ..Default::default() }),
        }
    }

    pub fn begin(&mut self, options: &RunOptions) {
        match self {
            Exchange::Echo(left) => *left = options.body_bytes,
            Exchange::Http1(http1) => {
                http1.partial.clear();
                http1.reading = None;
            }
        }
    }

    /// Takes the next bytes of the connection.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<Answer>, Fault> {
        match self {
            Exchange::Http1(http1) => http1.feed(bytes),
            Exchange::Echo(left) => {
                *left = left.checked_sub(bytes.len()).ok_or(Fault::Protocol)?;
                // an echo has no status; 200 lets it count as answered
                Ok((*left == 0).then_some(Answer { status: 200, keep_alive: true }))
            }
        }
    }

    /// The connection has ended: that completes a response which has no other end.
    pub fn ended(&mut self) -> Result<Answer, Fault> {
        match self {
            Exchange::Http1(Http1 { reading: Some((answer, body)), .. }) if body.ends_with_connection() => {
                Ok(*answer)
            }
            _ => Err(Fault::Closed),
        }
    }
}

impl Http1 {
    fn feed(&mut self, mut bytes: &[u8]) -> Result<Option<Answer>, Fault> {
        if self.reading.is_none() {
            let known = self.partial.len();
            if known == 0 {
                match self.head(bytes)? {
                    None => self.partial.extend_from_slice(bytes),
                    Some(taken) => bytes = &bytes[taken..],
                }
            } else {
                self.partial.extend_from_slice(bytes);
                let collected = std::mem::take(&mut self.partial);
                match self.head(&collected)? {
                    None => self.partial = collected,
                    Some(taken) => bytes = &bytes[taken.saturating_sub(known)..],
                }
            }
        }
        let Some((answer, body)) = &mut self.reading else { return Ok(None) };
        let taken = body.feed(bytes)?;
        if !body.done() {
            return Ok(None);
        }
        // nothing was pipelined, so nothing may follow
        if taken == bytes.len() { Ok(Some(*answer)) } else { Err(Fault::Protocol) }
    }

    /// Reads one final head, skipping interim ones; returns the bytes taken.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let mut at = 0;
        loop {
            let Some(head) = heads::response(&bytes[at..], self.to_head_request)? else { return Ok(None) };
            let ResponseHead { bytes: size, status, framing, keep_alive } = head;
            at += size;
            if matches!(status, 100..=199) && status != 101 {
                continue;
            }
            self.reading = Some((Answer { status, keep_alive }, Body::new(framing)));
            return Ok(Some(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange() -> Exchange {
        Exchange::Http1(Http1::default())
    }

    const RESPONSE: &[u8] =
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

    #[test]
    fn an_answer_completes_at_its_last_byte_however_it_is_cut() {
        for cut in 1..RESPONSE.len() {
            let mut exchange = exchange();
            assert_eq!(exchange.feed(&RESPONSE[..cut]), Ok(None), "cut at {cut}");
            let answer = exchange.feed(&RESPONSE[cut..]).unwrap();
            assert_eq!(answer, Some(Answer { status: 200, keep_alive: true }), "cut at {cut}");
        }
        let mut bytewise = exchange();
        let answers: Vec<_> = RESPONSE.iter().filter_map(|&byte| bytewise.feed(&[byte]).unwrap()).collect();
        assert_eq!(answers.len(), 1);
    }

    #[test]
    fn bytes_after_an_answer_are_a_fault() {
        let mut surplus = RESPONSE.to_vec();
        surplus.push(b'x');
        assert_eq!(exchange().feed(&surplus), Err(Fault::Protocol));
        assert_eq!(exchange().feed(b"hello\r\n\r\n"), Err(Fault::Protocol));
    }

    #[test]
    fn an_early_end_is_a_fault_unless_it_is_the_framing() {
        let mut cut_short = exchange();
        cut_short.feed(&RESPONSE[..RESPONSE.len() - 1]).unwrap();
        assert_eq!(cut_short.ended(), Err(Fault::Closed));
        let mut until_close = exchange();
        assert_eq!(until_close.feed(b"HTTP/1.1 200 OK\r\n\r\nabc"), Ok(None));
        assert_eq!(until_close.ended(), Ok(Answer { status: 200, keep_alive: false }));
    }

    #[test]
    fn an_echo_counts_bytes() {
        let mut echo = Exchange::Echo(4);
        assert_eq!(echo.feed(b"abc"), Ok(None));
        assert_eq!(echo.feed(b"d").unwrap().map(|answer| answer.status), Some(200));
        assert_eq!(echo.feed(b"e"), Err(Fault::Protocol));
    }
}
