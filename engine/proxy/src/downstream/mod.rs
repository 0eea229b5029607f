//! The codecs that take requests in: each turns bytes into requests for `exchange`, one at a time (HTTP/1.1) or
//! many at once (HTTP/2).

pub(crate) mod h1;
pub(crate) mod h2;
