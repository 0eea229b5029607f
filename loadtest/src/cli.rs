//! The command line: options in, JSON or a table out.

use std::{
    io::{IsTerminal, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use serde::Serialize;

use crate::{
    Error,
    backend::{self, BackendOptions, Mode, ResetAt},
    certs, handshakes, idle, machine,
    run::{self, Overrides, RunOptions, parse_duration, parse_size},
    target::Target,
    tls::{ClientTls, ServerTls},
};

/// Loads a proxy and measures it, without sharing a line of code with it.
#[derive(Parser)]
#[command(name = "corelane-loadtest", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send requests on a schedule, or as fast as they are answered, and report latencies.
    Run(RunArgs),
    /// Answer requests (HTTP/1.1, HTTP/2) or echo bytes.
    Backend(BackendArgs),
    /// Open TLS connections as fast as the server lets them in.
    Handshakes(HandshakeArgs),
    /// Hold many idle keep-alive connections.
    Idle(IdleArgs),
    /// Issue a small CA and SPIFFE leaf certificates.
    Certs(CertsArgs),
}

#[derive(Args)]
struct TargetArgs {
    /// http://HOST:PORT/PATH, https://... or tcp://HOST:PORT
    #[arg(long, value_name = "URL")]
    target: String,
    /// Pin to this CPU.
    #[arg(long)]
    cpu: Option<usize>,
    /// Connect from 127.0.0.1 to 127.0.0.N in turn, when one address's ports run short.
    #[arg(long, default_value_t = 0, value_name = "N")]
    sources: u8,
    /// Longest wait for one answer.
    #[arg(long, value_parser = parse_duration, default_value = "10s")]
    timeout: Duration,
    /// Also account for this process's CPU time over the window; may be repeated.
    #[arg(long = "watch-pid", value_name = "PID")]
    watch_pids: Vec<u32>,
    #[command(flatten)]
    tls: ClientTls,
}

#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Options from a file of loadtest/scenarios; the command line overrides them.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    #[command(flatten)]
    chosen: Overrides,
    /// Ignore any rate: every connection sends as soon as it has its answer.
    #[arg(long, conflicts_with = "rate")]
    saturate: bool,
    /// Seed of Poisson arrivals.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// End the window after so many requests.
    #[arg(long = "requests", default_value_t = 1_000_000_000)]
    requests_max: u64,
    /// Poll instead of sleeping: exact, but needs a core of its own.
    #[arg(long)]
    spin: bool,
    /// Lateness of the generator (p99) above which the run is invalid.
    #[arg(long, value_parser = parse_duration, default_value = "1ms")]
    lateness_max: Duration,
    /// Write the JSON report here instead of to the standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Args)]
struct BackendArgs {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[arg(long, value_enum, default_value = "http")]
    mode: Mode,
    /// Response body: `1024`, `64k`.
    #[arg(long, value_parser = parse_size, default_value = "1024")]
    body_bytes: usize,
    #[arg(long, default_value_t = 200)]
    status: u16,
    /// Response header `name: value`; may be repeated.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Wait before every answer.
    #[arg(long, value_parser = parse_duration, default_value = "0s")]
    delay: Duration,
    /// Share of connections (accept, handshake) or requests (request, body) to reset.
    #[arg(long, default_value_t = 0.0)]
    reset_probability: f64,
    #[arg(long, value_enum, default_value = "request")]
    reset_at: ResetAt,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Close each connection after so many answers; 0 never does.
    #[arg(long, default_value_t = 0)]
    close_after: u64,
    #[arg(long)]
    cpu: Option<usize>,
    /// End after so many seconds, whatever happens.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    #[command(flatten)]
    tls: ServerTls,
}

#[derive(Args)]
struct HandshakeArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Resume sessions instead of shaking hands in full.
    #[arg(long)]
    resume: bool,
    #[arg(long, default_value_t = 16)]
    concurrency: usize,
    #[arg(long, value_parser = parse_duration, default_value = "5s")]
    duration: Duration,
    #[arg(long, value_parser = parse_duration, default_value = "500ms")]
    warmup: Duration,
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Args)]
struct IdleArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Hold them this long, or until SIGTERM.
    #[arg(long, value_parser = parse_duration, default_value = "60s")]
    duration: Duration,
}

#[derive(Args)]
struct CertsArgs {
    /// Directory for ca.pem, ca.key and NAME.pem, NAME.key.
    #[arg(long)]
    out: PathBuf,
    /// Service accounts.
    #[arg(default_values_t = ["orders".to_owned(), "payments".to_owned()])]
    names: Vec<String>,
    #[arg(long, default_value = "cluster.local")]
    trust_domain: String,
    #[arg(long, default_value = "prod")]
    namespace: String,
    /// DNS or IP names in every leaf.
    #[arg(long = "host", default_values_t = ["localhost".to_owned(), "127.0.0.1".to_owned()])]
    hosts: Vec<String>,
    /// Validity in hours; negative for leaves that have expired.
    #[arg(long, default_value_t = 24, allow_negative_numbers = true)]
    hours: i64,
}

/// Runs one command. Exit status 1: measured, but with failures or an invalid run; 2 (an error): not measured.
pub fn execute(cli: Cli) -> Result<ExitCode, Error> {
    match cli.command {
        Command::Run(args) => run(args),
        Command::Backend(args) => backend(args),
        Command::Handshakes(args) => handshakes(args),
        Command::Idle(args) => idle(args),
        Command::Certs(args) => certs(args),
    }
}

fn run(args: RunArgs) -> Result<ExitCode, Error> {
    let base = args.scenario.as_deref().map(Overrides::from_file).transpose()?.unwrap_or_default();
    let name =
        args.scenario.as_deref().and_then(|path| path.file_stem()).map(|stem| stem.to_string_lossy().into());
    let mut options = RunOptions::resolve(&args.target.target, name, args.chosen.over(base))?;
    if args.saturate {
        options.rate = None;
    }
    options.seed = args.seed;
    options.requests_max = args.requests_max;
    options.spin = args.spin;
    options.lateness_max = args.lateness_max;
    options.progress = std::io::stderr().is_terminal() && options.duration > Duration::from_secs(1);
    args.target.apply(&mut options);
    let report = run::run(&options)?;
    if std::io::stdout().is_terminal() {
        print!("{}", run::table(&report));
    }
    emit(&report, args.json)?;
    Ok(if report.clean() && report.valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl TargetArgs {
    fn apply(self, options: &mut RunOptions) {
        options.cpu = self.cpu;
        options.sources = self.sources;
        options.timeout = self.timeout;
        options.watch_pids = self.watch_pids;
        options.tls = self.tls;
    }
}

fn backend(args: BackendArgs) -> Result<ExitCode, Error> {
    let options = BackendOptions {
        listen: args.listen,
        mode: args.mode,
        body_bytes: args.body_bytes,
        status: args.status,
        headers: args.headers.iter().map(|header| run::parse_header(header)).collect::<Result<_, _>>()?,
        delay: args.delay,
        reset_probability: args.reset_probability,
        reset_at: args.reset_at,
        seed: args.seed,
        close_after: args.close_after,
        cpu: args.cpu,
        tls: args.tls,
        lifetime: Duration::from_secs(args.seconds),
    };
    let served = backend::serve(&options, |address| {
        line(
            &serde_json::json!({ "event": "ready", "address": address.to_string(), "pid": std::process::id() }),
        );
    })?;
    line(&serde_json::json!({ "event": "done", "served": served }));
    Ok(ExitCode::SUCCESS)
}

fn handshakes(args: HandshakeArgs) -> Result<ExitCode, Error> {
    let report = handshakes::shake(&handshakes::HandshakeOptions {
        target: Target::parse(&args.target.target)?,
        tls: args.target.tls,
        resume: args.resume,
        concurrency: args.concurrency,
        duration: args.duration,
        warmup: args.warmup,
        timeout: args.target.timeout,
        sources: args.target.sources,
        cpu: args.target.cpu,
        watch_pids: args.target.watch_pids,
    })?;
    emit(&report, args.json)?;
    Ok(if report.failed == 0 && report.valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn idle(args: IdleArgs) -> Result<ExitCode, Error> {
    let mut options = RunOptions::for_target(&args.target.target)?;
    options.connections = args.connections;
    options.duration = args.duration;
    args.target.apply(&mut options);
    let stop: UnixStream = machine::stop_signal()?;
    let report = idle::hold(&options, &stop, line)?;
    line(&report);
    Ok(if report.closed_by_peer == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn certs(args: CertsArgs) -> Result<ExitCode, Error> {
    let order = certs::Order {
        directory: args.out,
        names: args.names,
        trust_domain: args.trust_domain,
        namespace: args.namespace,
        hosts: args.hosts,
        hours: args.hours,
    };
    let ids = certs::issue(&order)?;
    line(&serde_json::json!({ "event": "issued", "directory": order.directory, "spiffe_ids": ids }));
    Ok(ExitCode::SUCCESS)
}

/// One JSON object to a file, or to the standard output where that is not a terminal that has had a table.
fn emit(report: &impl Serialize, file: Option<PathBuf>) -> Result<(), Error> {
    let text = |value: &_| serde_json::to_string_pretty(value).map_err(|e| Error::usage(e.to_string()));
    match file {
        Some(path) => std::fs::write(&path, text(report)? + "\n")
            .map_err(|e| Error::File { path, reason: e.to_string() }),
        None => {
            println!("{}", text(report)?);
            Ok(())
        }
    }
}

/// One JSON object on one line, at once: a script is waiting for it.
fn line(value: &impl Serialize) {
    let mut out = std::io::stdout().lock();
    // with nobody reading there is nobody to tell
    let _ = serde_json::to_writer(&mut out, value);
    let _ = out.write_all(b"\n").and_then(|()| out.flush());
}
