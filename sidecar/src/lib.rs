//! The sidecar process around the engine: command line, configuration files, the control thread and the admin pages.
//! Nothing here is on the path of a request.

pub mod admin;
pub mod bootstrap;
pub mod control;
pub mod engine;
pub mod findings;
pub mod flags;
pub mod fuzz;
pub mod logging;
pub mod memory;
pub mod sources;
pub mod stats;
pub mod tuning;
pub mod validate;
pub mod yaml;

use flags::{Command, Flags, Mode};
use std::{
    io::{ErrorKind, Write as _},
    process::ExitCode,
};

/// The configuration has findings; nothing was started.
pub const EXIT_FINDINGS: u8 = 1;
/// Wrong usage; clap's own errors end the process with it too.
pub const EXIT_USAGE: u8 = 2;
/// The configuration is sound, but the process could not start.
pub const EXIT_START: u8 = 3;

/// The whole process: what the flags ask for, to the exit code that docs/operations.md names.
pub fn run(flags: Flags) -> ExitCode {
    corelane_runtime::memory::prepare();
    match &flags.command {
        Some(Command::Completions { shell }) => {
            print(&Flags::completions(*shell));
            return ExitCode::SUCCESS;
        }
        Some(Command::TuningDoc) => {
            print(tuning::page().as_bytes());
            return ExitCode::SUCCESS;
        }
        None => {}
    }
    if let Err(reason) = flags.check() {
        eprintln!("error: {reason}\n\nFor more information, try '--help'.");
        return ExitCode::from(EXIT_USAGE);
    }
    let log = match logging::init(&flags.log) {
        Ok(log) => log,
        Err(reason) => {
            eprintln!("error: {reason}");
            return ExitCode::from(EXIT_START);
        }
    };
    match bootstrap::load(&flags) {
        Ok(loaded) if flags.mode == Mode::Validate => validate(&flags, &loaded),
        Ok(loaded) => serve(flags, loaded, log),
        Err(reason) => {
            tracing::error!("{reason}");
            ExitCode::from(EXIT_START)
        }
    }
}

/// A reader that has seen enough, as `head` has, is no fault: what was found decides the exit code.
fn print(text: &[u8]) {
    match std::io::stdout().write_all(text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => eprintln!("error: standard output: {error}"),
        _ => {}
    }
}

fn validate(flags: &Flags, loaded: &bootstrap::Loaded) -> ExitCode {
    let (text, is_sound) = bootstrap::verdict(flags, loaded);
    print(text.as_bytes());
    if is_sound { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FINDINGS) }
}

fn serve(flags: Flags, loaded: bootstrap::Loaded, log: logging::Handle) -> ExitCode {
    for finding in
        loaded.findings.list.iter().filter(|finding| finding.severity == findings::Severity::Warning)
    {
        tracing::warn!("{}", findings::line(finding, &loaded.sources));
    }
    let Some(configuration) = loaded.configuration else {
        // people read this one: with excerpts, not as log lines
        eprint!("{}", bootstrap::verdict(&flags, &loaded).0);
        return ExitCode::from(EXIT_FINDINGS);
    };
    // the texts are megabytes where there are thousands of routes
    drop(loaded.sources);
    match control::server::run(flags, configuration, log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reasons) => {
            for reason in reasons {
                tracing::error!("{reason}");
            }
            ExitCode::from(EXIT_START)
        }
    }
}
