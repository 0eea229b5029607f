//! What an HTTP connection manager does to a head between parsing and routing, and to a response before it is
//! written: pure functions, in the order in which the pipeline calls them. The behaviour is Envoy's ("HTTP
//! header manipulation" and the HttpConnectionManager proto).

pub mod forwarded;
pub mod hop_by_hop;
pub mod host;
pub mod path;
pub mod request_id;
pub mod response;
pub mod xfcc;
