//! What both sides of HTTP/2 share, over the h2 crate: one stream's sending and receiving halves, and heads from
//! and to the message interface of the HTTP/1 codec.

mod body;
mod head;
mod outgoing;

pub(crate) use body::{H2Body, StreamEnd};
pub(crate) use head::{read_request, read_response, write_request, write_response};
pub(crate) use outgoing::{Chunk, Outgoing, Queue};

/// Bytes of one stream that wait within h2 for their turn on the connection, at most (and one buffer more).
pub(crate) const SEND_BUFFER_BYTES_MAX: usize = 64 << 10;
/// Streams that we reset and whose late frames are still recognised.
pub(crate) const RESETS_REMEMBERED_MAX: usize = 1_024;
/// For how long they are.
pub(crate) const RESETS_REMEMBERED_FOR: std::time::Duration = std::time::Duration::from_secs(10);
/// Streams reset by us for errors of the peer, before the connection is given up.
pub(crate) const ERROR_RESETS_MAX: usize = 1_024;
/// Streams that the peer may have reset before we looked at them (CVE-2023-44487).
pub(crate) const PENDING_RESETS_MAX: usize = 64;
/// RFC 9113 section 6.9.1: the largest flow-control window.
pub(crate) const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;
