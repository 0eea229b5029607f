//! The process's own log: events of the `tracing` macros as lines of text or JSON, levels per logger that change at
//! run time (`POST /logging`). Never used on the request path; one line is one `write`, so lines never mix.

mod levels;
mod line;

pub use levels::{Components, LEVEL_NAMES, Level, apply, known, levels, parse_components, set, set_all};
pub use line::timestamp;

use line::{cut, json_line, text_line};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};
use tracing::{Event, Metadata, Subscriber, span, subscriber::Interest};

/// A longer line is cut here.
pub const LINE_BYTES_MAX: usize = 16 << 10;

enum Sink {
    Stderr,
    File { path: PathBuf, file: File },
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

struct Lines {
    json: bool,
    sink: Mutex<Sink>,
}

/// Lets the control thread reopen the log file after a rotation.
#[derive(Clone, Copy)]
pub struct Handle(&'static Lines);

impl Handle {
    /// # Errors
    /// The file can't be opened; the old one stays in use.
    pub fn reopen(self) -> io::Result<()> {
        let mut sink = self.0.sink.lock().unwrap_or_else(PoisonError::into_inner);
        if let Sink::File { path, file } = &mut *sink {
            *file = open(path)?;
        }
        Ok(())
    }
}

/// Takes over the process's log. Call once.
///
/// # Errors
/// The log file can't be opened, or a subscriber is already there.
pub fn init(flags: &crate::flags::LogFlags) -> Result<Handle, String> {
    let sink = match &flags.log_path {
        None => Sink::Stderr,
        Some(path) => {
            let file = open(path).map_err(|e| format!("log file {}: cannot open: {e}", path.display()))?;
            Sink::File { path: path.clone(), file }
        }
    };
    set_all(flags.log_level);
    if let Some(components) = &flags.component_log_level {
        apply(components);
    }
    let json = flags.log_format == crate::flags::Format::Json;
    // lives as long as the process: the subscriber and the handle both point at it
    let lines: &'static Lines = Box::leak(Box::new(Lines { json, sink: Mutex::new(sink) }));
    tracing::subscriber::set_global_default(lines).map_err(|_| "the log is already set up".to_owned())?;
    log_panics();
    Ok(Handle(lines))
}

/// A panic ends one task on a core; it is a line of the log like anything else.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text =
            text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        let thread = std::thread::current();
        let place = panic.location().map_or(String::new(), |at| format!(" at {}:{}", at.file(), at.line()));
        tracing::error!("thread `{}` panicked{place}: {text}", thread.name().unwrap_or("unnamed"));
    }));
}

impl Subscriber for &'static Lines {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && levels::is_written(metadata.target(), Level::of(metadata.level()))
    }

    // spans are not recorded: nothing here opens one
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = String::with_capacity(256);
        let metadata = event.metadata();
        let logger = levels::name_of(metadata.target());
        let level = Level::of(metadata.level());
        if self.json {
            json_line(&mut line, level, logger, event)
        } else {
            text_line(&mut line, level, logger, event)
        }
        cut(&mut line);
        line.push('\n');
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        // a full disk must not stop the proxy; there is nowhere left to say so
        let _ = match &mut *sink {
            Sink::Stderr => io::stderr().write_all(line.as_bytes()),
            Sink::File { file, .. } => file.write_all(line.as_bytes()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::subscriber::with_default;

    fn logged(json: bool, emit: impl FnOnce()) -> String {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("log");
        let sink = Sink::File { path: path.clone(), file: open(&path).expect("open") };
        let lines: &'static Lines = Box::leak(Box::new(Lines { json, sink: Mutex::new(sink) }));
        with_default(lines, emit);
        std::fs::read_to_string(&path).expect("read")
    }

    #[test]
    fn a_line_of_text_carries_level_logger_message_and_fields() {
        let log = logged(false, || {
            tracing::warn!(target: "corelane_sidecar::control::dns", cluster = "pay ments", tries = 3, "no answer\nforged");
        });
        assert_eq!(&log[23..], "Z warning dns: no answer\\nforged cluster=\"pay ments\" tries=3\n");
        assert_eq!(&log[4..5], "-");
    }

    #[test]
    fn a_line_of_json_parses_back() {
        let log = logged(true, || {
            tracing::error!(target: "corelane_sidecar::control::dns", address = "10.0.0.1:80", count = 2_u64, up = false, "said \"no\"");
        });
        let value: serde_json::Value = serde_json::from_str(&log).expect("json");
        assert_eq!(value["level"], "error");
        assert_eq!(value["logger"], "dns");
        assert_eq!(value["message"], "said \"no\"");
        assert_eq!(value["address"], "10.0.0.1:80");
        assert_eq!(value["count"], 2);
        assert_eq!(value["up"], false);
    }

    #[test]
    fn the_longest_path_names_the_logger() {
        for (target, name) in [
            ("corelane_sidecar", "main"),
            ("corelane_sidecar::control::secrets::watch", "secret"),
            ("corelane_sidecar::control", "main"),
            ("corelane_proxyish", "main"),
            ("hyper::proto", "admin"),
            ("hickory_net::udp", "dns"),
            ("somebody_else", "main"),
        ] {
            assert_eq!(levels::name_of(target), name, "{target}");
        }
    }

    #[test]
    fn levels_and_components_are_checked() {
        assert_eq!(Level::parse("warn"), Ok(Level::Warning));
        assert!(Level::parse("loud").expect_err("unknown").contains("trace, debug, info"));
        assert!(parse_components("dns:debug, secret:off").is_ok_and(|both| both != Components::default()));
        assert!(parse_components("dns").expect_err("no level").contains("logger:level"));
        assert!(parse_components("cheese:debug").expect_err("no logger").contains("access_log, admin"));
    }

    #[test]
    fn a_long_line_is_cut_at_a_character() {
        let mut line = "é".repeat(LINE_BYTES_MAX);
        cut(&mut line);
        assert!(line.len() <= LINE_BYTES_MAX && line.ends_with('é'));
    }
}
