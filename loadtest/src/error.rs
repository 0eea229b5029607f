//! What can go wrong before or beside a measurement. What goes wrong *inside* one is counted in its report instead.

use std::{io, path::PathBuf};

/// A failure that ends the command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option, a scenario or a target that cannot be used as given.
    #[error("{0}")]
    Usage(String),
    /// The operating system refused something; `doing` names the resource.
    #[error("{doing}: {source}")]
    Io { doing: String, source: io::Error },
    /// A file that cannot be read, written or parsed.
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    /// Certificates that do not fit together, or a handshake that failed.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    /// A certificate that could not be issued.
    #[error("issuing certificates: {0}")]
    Issue(#[from] rcgen::Error),
    /// The target did not accept the connections the run needs.
    #[error(
        "{target} did not accept {wanted} connections within {seconds} s ({opened} opened, last failure: {last})"
    )]
    Unreachable { target: String, wanted: usize, opened: usize, seconds: u64, last: String },
}

impl Error {
    pub(crate) fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Error::Io { doing: doing.into(), source }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Error::Usage(text.into())
    }
}
