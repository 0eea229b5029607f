//! Why the last connection or handshake on this core failed, for logs. A failure itself is a small number; its text waits here until
//! the log line is written, and another failure in between leaves the line without it.

use corelane_snapshot::EndpointId;
use std::{
    fmt::{Display, Write},
    io,
};

/// Longer texts are cut.
const BYTES_MAX: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct TransportFailure {
    /// None: of a client.
    endpoint: Option<EndpointId>,
    reason: String,
}

impl TransportFailure {
    pub fn note(&mut self, endpoint: Option<EndpointId>, reason: &impl Display) {
        self.endpoint = endpoint;
        self.reason.clear();
        // a String takes all that is written
        let _ = write!(Words(&mut self.reason), "{reason}");
    }

    /// There was no connection to encrypt; in Envoy's words, which end with the system's.
    pub fn note_connect(&mut self, endpoint: EndpointId, error: &io::Error) {
        self.note(Some(endpoint), &format_args!("delayed connect error: {error}"));
        // how Rust shows an error's number
        if let Some(end) = self.reason.find("_(os_error_") {
            self.reason.truncate(end);
        }
    }

    /// Of that endpoint, or of a client; empty where it is not known.
    pub fn of(&self, endpoint: Option<EndpointId>) -> &str {
        if self.endpoint == endpoint { &self.reason } else { "" }
    }
}

/// One word without quotes, as Envoy logs it: formats put it between spaces or quotes.
struct Words<'a>(&'a mut String);

impl Write for Words<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = BYTES_MAX.saturating_sub(self.0.len());
        let word = |c: char| if c.is_ascii_graphic() && c != '"' && c != '\\' { c } else { '_' };
        self.0.extend(text.chars().map(word).take(room));
        Ok(())
    }
}

#[test]
fn a_reason_is_one_word_of_the_side_that_failed() {
    let (one, other) = (EndpointId(1), EndpointId(2));
    let mut failure = TransportFailure::default();
    failure.note(Some(one), &"bad\n\"name\" \\ \u{e9}");
    assert_eq!(failure.of(Some(one)), "bad__name_____");
    assert_eq!((failure.of(Some(other)), failure.of(None)), ("", ""));
    failure.note_connect(one, &io::Error::from_raw_os_error(111));
    assert_eq!(failure.of(Some(one)), "delayed_connect_error:_Connection_refused");
    failure.note(None, &"x".repeat(BYTES_MAX + 1));
    assert_eq!((failure.of(None).len(), failure.of(Some(one))), (BYTES_MAX, ""));
}
