//! The sidecar process around the engine: command line, configuration files, the control thread and the admin pages.
//! Nothing here is on the path of a request.

pub mod admin;
pub mod bootstrap;
pub mod control;
pub mod findings;
pub mod flags;
pub mod logging;
pub mod memory;
pub mod sources;
pub mod stats;
pub mod tuning;
pub mod yaml;

use flags::{Command, EXIT_USAGE, Flags};
use std::process::ExitCode;

/// The whole process: what the flags ask for, to the exit code that docs/operations.md names.
pub fn run(flags: Flags) -> ExitCode {
    match &flags.command {
        Some(Command::Completions { shell }) => {
            Flags::print_completions(*shell, &mut std::io::stdout());
            return ExitCode::SUCCESS;
        }
        Some(Command::TuningDoc) => {
            print!("{}", tuning::page());
            return ExitCode::SUCCESS;
        }
        None => {}
    }
    if let Err(reason) = flags.check() {
        eprintln!("error: {reason}");
        return ExitCode::from(EXIT_USAGE);
    }
    ExitCode::SUCCESS
}
