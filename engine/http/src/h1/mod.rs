//! HTTP/1.0 and HTTP/1.1 (RFC 9112), strict: what two implementations could frame differently is refused.

pub mod body;
pub mod encoder;
pub mod framing;
pub mod parse;
pub(crate) mod target;
pub mod write;

pub use body::{BodyDecoder, BodyLimits, Decoded};
pub use encoder::{BodyEncoder, ChunkHeader};
pub use framing::BodyFraming;
pub use parse::{Limits, Parsed, RequestMeta, ResponseMeta, parse_request, parse_response};
pub use write::{Casing, Connection, reason_phrase, write_request, write_response};
