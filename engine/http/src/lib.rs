//! Bytes to messages and back, sans-io: HTTP/1 heads and bodies, the rules on headers and paths, and what the
//! first bytes of a connection say. Input is `&[u8]`, output a `Sink`; time, randomness and addresses are
//! arguments. No module here knows a runtime, a clock, a file or the environment.
//!
//! The way of a message: `sniff` (what speaks) - `h1::parse_request` into a `RequestHead` - `rules` on the head -
//! `h1::write_request`; the body beside it through `h1::BodyDecoder` and `h1::BodyEncoder`.

pub mod cookie;
pub mod date;
mod decimal;
mod error;
mod fields;
#[doc(hidden)]
pub mod fuzz;
pub mod h1;
pub mod head;
mod known;
pub mod list;
mod method;
pub mod query;
pub mod rules;
mod sink;
pub mod sniff;

pub use error::HttpError;
pub use fields::{ARENA_RETAIN_BYTES_MAX, Fields};
pub use h1::{
    BodyDecoder, BodyEncoder, BodyFraming, BodyLimits, Casing, ChunkHeader, Connection, Decoded, Limits,
    Parsed, RequestMeta, ResponseMeta, parse_request, parse_response, reason_phrase, write_request,
    write_response,
};
pub use head::{RequestHead, ResponseHead, Version};
pub use known::Known;
pub use method::Method;
pub use sink::{Full, Sink, SliceSink};
