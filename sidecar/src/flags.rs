//! The command line. Names are Envoy's where Envoy has the flag, so that a start script needs no change; a flag of
//! Envoy's that would promise something this process does not do is refused by name, never ignored.

use crate::tuning::Settings;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::{path::PathBuf, time::Duration};

#[derive(Parser, Debug, Clone)]
#[command(
    name = "corelane-sidecar",
    version,
    about = "A service mesh sidecar: runs an Envoy v3 configuration on one event loop per core",
    after_help = "Exit codes: 0 ended as asked, 1 findings in the configuration, 2 wrong usage, 3 could not start.\n\
                  Signals: TERM or INT drains and exits (a second one exits at once), USR1 reopens log files.",
    args_conflicts_with_subcommands = true
)]
pub struct Flags {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Envoy v3 bootstrap, YAML or JSON; it may carry a `corelane:` section (docs/tuning.md)
    #[arg(short = 'c', long, value_name = "FILE")]
    pub config_path: Option<PathBuf>,

    /// Bootstrap text; with --config-path it is laid over the file, field by field, lists appended
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub config_yaml: Option<String>,

    /// What to do with the configuration
    #[arg(long, value_enum, default_value_t = Mode::Serve)]
    pub mode: Mode,

    /// How `--mode validate` prints its findings
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// File with the `corelane:` section, for a bootstrap that Envoy must also accept
    #[arg(long, value_name = "FILE")]
    pub tuning: Option<PathBuf>,

    /// Number of event loops [default: the CPU quota, rounded up]
    #[arg(long, value_name = "N")]
    pub concurrency: Option<u32>,

    /// CPUs to run on, one event loop each and pinned, as in `0,2-3`
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<String>,

    /// Event loop driver [default: io_uring where the kernel allows it, else epoll]
    #[arg(long, value_name = "DRIVER", value_parser = ["auto", "io_uring", "epoll"])]
    pub driver: Option<String>,

    /// Write the bound admin address to this file
    #[arg(long, value_name = "FILE")]
    pub admin_address_path: Option<PathBuf>,

    #[command(flatten)]
    pub log: LogFlags,

    /// Cluster of this node, where the file's `node` does not say
    #[arg(long, value_name = "NAME")]
    pub service_cluster: Option<String>,

    /// Id of this node, where the file's `node` does not say
    #[arg(long, value_name = "ID")]
    pub service_node: Option<String>,

    /// Zone of this node, where the file's `node` does not say
    #[arg(long, value_name = "ZONE")]
    pub service_zone: Option<String>,

    /// Seconds for which connections are asked to close before the process exits
    #[arg(long, value_name = "S", default_value_t = 600)]
    pub drain_time_s: u64,

    #[command(flatten)]
    pub foreign: ForeignFlags,
}

#[derive(Args, Debug, Clone)]
pub struct LogFlags {
    /// Level of the process's own log: trace, debug, info, warning, error, critical or off
    #[arg(short = 'l', long, value_name = "LEVEL", default_value = "info", value_parser = crate::logging::Level::parse)]
    pub log_level: crate::logging::Level,

    /// Levels per logger, as in `dns:debug,secret:trace`
    #[arg(long, value_name = "LIST", value_parser = crate::logging::parse_components)]
    pub component_log_level: Option<crate::logging::Components>,

    /// Lines of text, or one JSON object a line
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    pub log_format: Format,

    /// Append the log to this file instead of standard error
    #[arg(long, value_name = "FILE")]
    pub log_path: Option<PathBuf>,
}

/// Envoy's flags that are understood in order to be accepted without effect, or refused.
#[derive(Args, Debug, Clone)]
pub struct ForeignFlags {
    /// Accepted: processes share nothing, whatever their id
    #[arg(long, hide = true)]
    pub base_id: Option<u32>,
    #[arg(long, hide = true)]
    pub use_dynamic_base_id: bool,
    /// Accepted: there is no hot restart
    #[arg(long, hide = true)]
    pub disable_hot_restart: bool,
    #[arg(long, hide = true)]
    pub skip_deprecated_logs: bool,
    /// Accepted: the default already counts the CPUs that this process may use
    #[arg(long, hide = true)]
    pub cpuset_threads: bool,
    /// Accepted where it is `immediate`, which is how it is done here
    #[arg(long, hide = true, value_parser = ["immediate", "gradual"])]
    pub drain_strategy: Option<String>,
    /// Accepted where it is 0
    #[arg(long, hide = true)]
    pub restart_epoch: Option<u32>,
    #[arg(long, hide = true)]
    pub parent_shutdown_time_s: Option<u64>,
    #[arg(long, hide = true)]
    pub allow_unknown_static_fields: bool,
    #[arg(long, hide = true)]
    pub allow_unknown_fields: bool,
    #[arg(long, hide = true)]
    pub local_address_ip_version: Option<String>,
    #[arg(long, hide = true)]
    pub stats_tag: Vec<String>,
    #[arg(long, hide = true)]
    pub enable_mutex_tracing: bool,
    #[arg(long, hide = true)]
    pub enable_core_dump: bool,
    #[arg(long, hide = true)]
    pub file_flush_interval_msec: Option<u64>,
    #[arg(long, hide = true)]
    pub file_flush_min_size_kb: Option<u64>,
}

#[derive(Subcommand, Debug, Clone)]
pub enum Command {
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
    /// Print the tuning knobs as the page docs/tuning.md has them
    #[command(hide = true)]
    TuningDoc,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[value(rename_all = "snake_case")]
pub enum Mode {
    /// Check the configuration and carry traffic
    Serve,
    /// Print every finding and exit: 0 without findings, 1 with
    Validate,
    /// Check, bind, start everything, then exit
    InitOnly,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

impl Flags {
    /// What clap can't check: which flags go together, and which of Envoy's mean nothing here.
    ///
    /// # Errors
    /// The reason, in the words of the usage message.
    pub fn check(&self) -> Result<(), String> {
        if self.command.is_none() && self.config_path.is_none() && self.config_yaml.is_none() {
            return Err("no configuration: give --config-path FILE or --config-yaml TEXT".to_owned());
        }
        self.foreign.check()
    }

    pub fn drain_time(&self) -> Duration {
        Duration::from_secs(self.drain_time_s)
    }

    /// The flags that set knobs, as settings that win over every file.
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        let workers = self.concurrency.map(|n| n.to_string());
        for (knob, flag, value) in [
            ("workers", "--concurrency", workers.as_deref()),
            ("cpus", "--cpus", self.cpus.as_deref()),
            ("driver", "--driver", self.driver.as_deref()),
        ] {
            if let Some(value) = value {
                settings.flag(knob, flag, value);
            }
        }
        settings
    }

    /// The script, whole: clap panics where a reader goes while it writes.
    pub fn completions(shell: clap_complete::Shell) -> Vec<u8> {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Flags::command(), "corelane-sidecar", &mut script);
        script
    }
}

impl ForeignFlags {
    fn check(&self) -> Result<(), String> {
        let refused = [
            (
                self.parent_shutdown_time_s.is_some(),
                "--parent-shutdown-time-s",
                "there is no hot restart, so no parent; --drain-time-s bounds the way out",
            ),
            (
                self.restart_epoch.is_some_and(|epoch| epoch > 0),
                "--restart-epoch",
                "there is no hot restart; start a new process and send TERM to the old one",
            ),
            (
                self.drain_strategy.as_deref() == Some("gradual"),
                "--drain-strategy gradual",
                "every connection is asked to close at its next response; give `immediate`",
            ),
            (
                self.allow_unknown_static_fields || self.allow_unknown_fields,
                "--allow-unknown-static-fields",
                "a field that is not implemented is always refused, never ignored",
            ),
            (
                self.local_address_ip_version.as_deref().is_some_and(|v| v != "v4" && v != "v6"),
                "--local-address-ip-version",
                "one of v4, v6",
            ),
            (!self.stats_tag.is_empty(), "--stats-tag", "tags on every metric are not implemented"),
            (self.enable_mutex_tracing, "--enable-mutex-tracing", "no lock is taken on a core"),
            (self.enable_core_dump, "--enable-core-dump", "set the limit with `ulimit -c` before starting"),
            (
                self.file_flush_interval_msec.is_some_and(|interval| interval < 1000),
                "--file-flush-interval-msec",
                "cores hand over their lines once a second, or when they have 64 KiB",
            ),
            (
                self.file_flush_min_size_kb.is_some(),
                "--file-flush-min-size-kb",
                "log lines are written as soon as the control thread takes them from a core",
            ),
        ];
        match refused.iter().find(|(given, ..)| *given) {
            Some((_, flag, reason)) => Err(format!("{flag}: not supported: {reason}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Flags {
        Flags::try_parse_from([&["corelane-sidecar"], args].concat()).expect("usage")
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Flags::command().debug_assert();
    }

    #[test]
    fn a_start_line_written_for_envoy_is_taken() {
        let flags = parse(&[
            "-c",
            "envoy.yaml",
            "--concurrency",
            "2",
            "-l",
            "warning",
            "--component-log-level",
            "dns:debug",
            "--drain-time-s",
            "45",
            "--drain-strategy",
            "immediate",
            "--base-id",
            "3",
            "--disable-hot-restart",
            "--service-cluster",
            "orders.prod",
            "--service-node",
            "sidecar~10.0.0.1~orders~local",
            "--local-address-ip-version",
            "v4",
            "--skip-deprecated-logs",
        ]);
        assert_eq!(flags.check(), Ok(()));
        assert_eq!(flags.config_path, Some(PathBuf::from("envoy.yaml")));
        assert_eq!(flags.drain_time(), Duration::from_secs(45));
        assert_eq!(flags.mode, Mode::Serve);
    }

    #[test]
    fn a_flag_that_would_promise_too_much_is_refused_by_name() {
        for (args, flag) in [
            (vec!["--parent-shutdown-time-s", "900"], "--parent-shutdown-time-s"),
            (vec!["--restart-epoch", "1"], "--restart-epoch"),
            (vec!["--allow-unknown-static-fields"], "--allow-unknown-static-fields"),
            (vec!["--stats-tag", "a:b"], "--stats-tag"),
            (vec!["--drain-strategy", "gradual"], "--drain-strategy gradual"),
        ] {
            let reason = parse(&[&["-c", "x"][..], &args].concat()).check().expect_err(flag);
            assert!(reason.starts_with(&format!("{flag}: not supported: ")), "{reason}");
        }
        assert_eq!(parse(&["-c", "x", "--restart-epoch", "0"]).check(), Ok(()));
    }

    #[test]
    fn no_configuration_at_all_is_a_usage_error() {
        let reason = parse(&["--mode", "init_only"]).check().expect_err("nothing to run");
        assert_eq!(reason, "no configuration: give --config-path FILE or --config-yaml TEXT");
        assert_eq!(parse(&["--config-yaml", "{}"]).check(), Ok(()));
    }

    #[test]
    fn an_unknown_value_ends_with_the_usage_code() {
        for args in
            [["--mode", "dance"], ["--driver", "kqueue"], ["--log-level", "loud"], ["--concurrency", "-1"]]
        {
            let error = Flags::try_parse_from([&["x", "-c", "f"][..], &args].concat()).expect_err("refused");
            assert_eq!(error.exit_code(), i32::from(crate::EXIT_USAGE), "{args:?}");
        }
    }

    #[test]
    fn completions_name_the_flags() {
        let script = String::from_utf8(Flags::completions(clap_complete::Shell::Bash)).expect("utf-8");
        assert!(script.contains("--config-path") && script.contains("--admin-address-path"), "{script}");
    }
}
