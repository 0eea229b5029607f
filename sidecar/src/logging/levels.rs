//! Loggers and their levels, which change at run time.

use std::sync::atomic::{AtomicU8, Ordering};

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

    pub(super) fn of(level: &tracing::Level) -> Level {
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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

/// The name of the logger whose events `target` has.
pub(super) fn name_of(target: &str) -> &'static str {
    LOGGERS[logger_of(target)].0
}

/// Whether an event of `target` is to be written.
pub(super) fn is_written(target: &str, level: Level) -> bool {
    level as u8 >= LEVELS[logger_of(target)].load(Ordering::Relaxed)
}
