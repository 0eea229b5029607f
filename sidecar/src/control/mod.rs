//! The control thread: everything that is not on the path of a request.

pub mod log_writer;
pub mod resolver;
pub mod secrets;
