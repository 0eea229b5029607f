//! The control thread: everything that is not on the path of a request.

pub mod resolver;
pub mod secrets;
