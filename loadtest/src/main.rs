//! `corelane-loadtest`: see `corelane-loadtest --help`.

use std::process::ExitCode;

use clap::Parser;
use corelane_loadtest::cli::{self, Cli};

fn main() -> ExitCode {
    match cli::execute(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("corelane-loadtest: {error}");
            ExitCode::from(2)
        }
    }
}
