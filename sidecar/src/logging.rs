//! The process's own log: events of the `tracing` macros as lines of text or JSON, levels per logger that change at
//! run time (`POST /logging`). Never used on the request path; one line is one `write`, so lines never mix.

use std::{
    fmt::{self, Write as _},
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::Interest,
};

/// A longer line is cut here.
pub const LINE_BYTES_MAX: usize = 16 << 10;

/// Envoy's names; `critical` is there so that the flag may ask for it, nothing here logs above error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warning,
    Error,
    Critical,
    Off,
}

pub const LEVEL_NAMES: [&str; 7] = ["trace", "debug", "info", "warning", "error", "critical", "off"];

impl Level {
    const ALL: [Level; 7] =
        [Level::Trace, Level::Debug, Level::Info, Level::Warning, Level::Error, Level::Critical, Level::Off];

    /// # Errors
    /// Lists the levels there are.
    pub fn parse(text: &str) -> Result<Level, String> {
        let text = if text == "warn" { "warning" } else { text };
        match LEVEL_NAMES.iter().position(|name| *name == text) {
            Some(at) => Ok(Level::ALL[at]),
            None => Err(format!("unknown level {text:?}; one of {}", LEVEL_NAMES.join(", "))),
        }
    }

    pub fn name(self) -> &'static str {
        LEVEL_NAMES[self as usize]
    }

    fn of(level: &tracing::Level) -> Level {
        match *level {
            tracing::Level::TRACE => Level::Trace,
            tracing::Level::DEBUG => Level::Debug,
            tracing::Level::INFO => Level::Info,
            tracing::Level::WARN => Level::Warning,
            tracing::Level::ERROR => Level::Error,
        }
    }
}

/// Loggers by name and the module paths whose events are theirs; the longest path that fits wins, `main` takes the rest.
/// The engine's crates log nothing: what happens there is counted, and told by the access log.
const LOGGERS: [(&str, &[&str]); 9] = [
    ("access_log", &["corelane_sidecar::control::log_writer"]),
    ("admin", &["corelane_sidecar::admin", "hyper"]),
    ("config", &["corelane_sidecar::bootstrap", "corelane_sidecar::control::configuration"]),
    (
        "dns",
        &[
            "corelane_sidecar::control::dns",
            "corelane_sidecar::control::resolver",
            "hickory_net",
            "hickory_proto",
            "hickory_resolver",
        ],
    ),
    ("drain", &["corelane_sidecar::control::drain"]),
    ("main", &["corelane_sidecar"]),
    ("outlier", &["corelane_sidecar::control::outlier"]),
    ("secret", &["corelane_sidecar::control::secrets", "notify"]),
    ("watchdog", &["corelane_sidecar::control::watchdog"]),
];
const MAIN: usize = 5;

static LEVELS: [AtomicU8; LOGGERS.len()] = [const { AtomicU8::new(Level::Info as u8) }; LOGGERS.len()];

fn logger_of(target: &str) -> usize {
    let fits =
        |path: &str| target.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    let longest = |paths: &[&str]| paths.iter().filter(|path| fits(path)).map(|path| path.len()).max();
    let fitting = LOGGERS.iter().enumerate().filter_map(|(index, (_, paths))| Some((longest(paths)?, index)));
    fitting.max().map_or(MAIN, |(_, index)| index)
}

/// Every logger and its level now, by name.
pub fn levels() -> impl Iterator<Item = (&'static str, Level)> {
    LOGGERS
        .iter()
        .zip(&LEVELS)
        .map(|((name, _), level)| (*name, Level::ALL[level.load(Ordering::Relaxed) as usize]))
}

pub fn set_all(level: Level) {
    for slot in &LEVELS {
        slot.store(level as u8, Ordering::Relaxed);
    }
    tracing::callsite::rebuild_interest_cache();
}

/// # Errors
/// Lists the loggers there are.
pub fn set(logger: &str, level: Level) -> Result<(), String> {
    let index = logger_index(logger)?;
    LEVELS[index].store(level as u8, Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
    Ok(())
}

/// # Errors
/// Lists the loggers there are, if `logger` is none of them.
pub fn known(logger: &str) -> Result<(), String> {
    logger_index(logger).map(|_| ())
}

fn logger_index(logger: &str) -> Result<usize, String> {
    LOGGERS.iter().position(|(name, _)| *name == logger).ok_or_else(|| {
        let names: Vec<&str> = LOGGERS.iter().map(|(name, _)| *name).collect();
        format!("unknown logger {logger:?}; one of {}", names.join(", "))
    })
}

/// `dns:debug,secret:trace`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Components(Vec<(usize, Level)>);

/// # Errors
/// Names the entry that is wrong.
pub fn parse_components(text: &str) -> Result<Components, String> {
    let entry = |entry: &str| {
        let (logger, level) =
            entry.split_once(':').ok_or_else(|| format!("{entry:?} is not of the form logger:level"))?;
        Ok((logger_index(logger.trim())?, Level::parse(level.trim())?))
    };
    text.split(',')
        .filter(|part| !part.trim().is_empty())
        .map(|part| entry(part.trim()))
        .collect::<Result<_, _>>()
        .map(Components)
}

pub fn apply(components: &Components) {
    for (index, level) in &components.0 {
        LEVELS[*index].store(*level as u8, Ordering::Relaxed);
    }
    tracing::callsite::rebuild_interest_cache();
}

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
    for slot in &LEVELS {
        slot.store(flags.log_level as u8, Ordering::Relaxed);
    }
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
        let threshold = LEVELS[logger_of(metadata.target())].load(Ordering::Relaxed);
        metadata.is_event() && Level::of(metadata.level()) as u8 >= threshold
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
        let logger = LOGGERS[logger_of(metadata.target())].0;
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

fn cut(line: &mut String) {
    if line.len() > LINE_BYTES_MAX {
        let mut end = LINE_BYTES_MAX;
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
    }
}

/// RFC 3339, UTC, milliseconds.
pub fn timestamp(out: &mut impl fmt::Write, at: time::OffsetDateTime) {
    let _ = write!(
        out,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.millisecond()
    );
}

fn text_line(line: &mut String, level: Level, logger: &str, event: &Event<'_>) {
    timestamp(line, time::OffsetDateTime::now_utc());
    let _ = write!(line, " {:<7} {logger}: ", level.name());
    let mut fields = TextFields { message: String::new(), rest: String::new() };
    event.record(&mut fields);
    line.push_str(&fields.message);
    line.push_str(&fields.rest);
}

struct TextFields {
    message: String,
    rest: String,
}

impl TextFields {
    fn put(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if field.name() == "message" {
            // an embedded line break would forge a line
            for c in value.to_string().chars() {
                if c.is_control() { self.message.extend(c.escape_default()) } else { self.message.push(c) }
            }
        } else {
            let text = value.to_string();
            let plain = !text.is_empty() && !text.chars().any(|c| c.is_control() || c == ' ' || c == '"');
            let _ = if plain {
                write!(self.rest, " {}={text}", field.name())
            } else {
                write!(self.rest, " {}={text:?}", field.name())
            };
        }
    }
}

impl Visit for TextFields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, format_args!("{value}"));
    }
}

fn json_line(line: &mut String, level: Level, logger: &str, event: &Event<'_>) {
    line.push_str("{\"time\":\"");
    timestamp(line, time::OffsetDateTime::now_utc());
    let _ = write!(line, "\",\"level\":\"{}\",\"logger\":\"{logger}\"", level.name());
    event.record(&mut JsonFields(line));
    line.push('}');
}

struct JsonFields<'a>(&'a mut String);

impl JsonFields<'_> {
    fn text(&mut self, field: &Field, value: &str) {
        let mut end = value.len().min(LINE_BYTES_MAX / 8);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        let _ = write!(
            self.0,
            ",{}:{}",
            serde_json::Value::from(field.name()),
            serde_json::Value::from(&value[..end])
        );
    }
}

impl Visit for JsonFields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        let _ = write!(self.0, ",{}:{value}", serde_json::Value::from(field.name()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        let _ = write!(self.0, ",{}:{value}", serde_json::Value::from(field.name()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        let _ = write!(self.0, ",{}:{value}", serde_json::Value::from(field.name()));
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
            assert_eq!(LOGGERS[logger_of(target)].0, name, "{target}");
        }
    }

    #[test]
    fn levels_and_components_are_checked() {
        assert_eq!(Level::parse("warn"), Ok(Level::Warning));
        assert!(Level::parse("loud").expect_err("unknown").contains("trace, debug, info"));
        assert_eq!(parse_components("dns:debug, secret:off").expect("known").0.len(), 2);
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
