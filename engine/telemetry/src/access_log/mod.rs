//! What the access log needs besides its format: a bounded hand-over of finished lines from a core to the control thread, and helpers
//! that append values to a line without allocating.
//!
//! Compiling `%REQ(:PATH)%` belongs to the snapshot, filling it in to the proxy, and writing files to the sidecar.

mod line;
mod ring;
mod timestamp;

pub use line::{write_escaped_json, write_millis, write_or_dash, write_thousandths, write_uint};
pub use ring::{ACCESS_LOG_BYTES_MAX, LINE_BYTES_MAX, LogReader, LogWriter, SinkId, log_ring};
pub use timestamp::{first_unknown_conversion, write_rfc3339_millis, write_strftime};
