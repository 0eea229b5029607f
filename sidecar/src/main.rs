use clap::Parser;
use corelane_sidecar::{flags::Flags, run};

fn main() -> std::process::ExitCode {
    run(Flags::parse())
}
