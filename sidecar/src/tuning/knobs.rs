//! The table of knobs. One row a knob: the only place of its name, default, reader and documentation.

use super::parse::{self, CpuList};
use corelane_proxy::Limits;
use corelane_runtime::{CoreConfig, DriverChoice};
use std::{collections::BTreeMap, time::Duration};

/// One knob.
pub struct Knob {
    pub name: &'static str,
    /// What may be written, as the documentation and an error say it.
    pub values: &'static str,
    /// Read by the same reader as a value from a file.
    pub default: &'static str,
    pub scope: Scope,
    pub doc: &'static str,
}

/// What a knob holds for, with its reader.
pub enum Scope {
    Process(fn(&mut Tuning, &str) -> Result<(), String>),
    /// May be overridden for one core.
    Core(fn(&mut CoreConfig, &str) -> Result<(), String>),
}

/// How the cores of this process run.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// None: as many as the CPU quota, rounded up.
    pub workers: Option<usize>,
    /// None: every CPU that this process may use.
    pub cpus: Option<CpuList>,
    pub pin: Pin,
    pub stall_limit: Duration,
    pub limits: Limits,
    /// What holds for every core without settings of its own; the CPU is decided when the cores are laid out.
    pub core: CoreConfig,
    /// By core, counted from 0.
    pub cores: BTreeMap<u32, CoreConfig>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    Auto,
    Always,
    Never,
}

pub const KNOBS: &[Knob] = &[
    Knob {
        name: "workers",
        values: "`auto` or a number from 1 to 256",
        default: "auto",
        scope: Scope::Process(|tuning, text| {
            tuning.workers = if text == "auto" { None } else { Some(parse::number(text, 1..=256)? as usize) };
            Ok(())
        }),
        doc: "Event loops, one thread each. `auto` is the number of named CPUs, else the CPU quota of the control \
              group rounded up, and never more than the CPUs this process may use. `--concurrency` sets it.",
    },
    Knob {
        name: "cpus",
        values: "`auto` or a list as in `0,2-3`",
        default: "auto",
        scope: Scope::Process(|tuning, text| {
            tuning.cpus = if text == "auto" { None } else { Some(CpuList::parse(text)?) };
            Ok(())
        }),
        doc: "CPUs to run on; the first core gets the first. Naming them pins each core to its CPU. `--cpus` sets it.",
    },
    Knob {
        name: "pin",
        values: "`auto`, `always` or `never`",
        default: "auto",
        scope: Scope::Process(|tuning, text| {
            tuning.pin = match text {
                "auto" => Pin::Auto,
                "always" => Pin::Always,
                "never" => Pin::Never,
                _ => return Err(format!("unknown value {text:?}")),
            };
            Ok(())
        }),
        doc: "Whether each core stays on one CPU. `auto` pins where CPUs are named, or where this process's CPU set is \
              smaller than the machine's and so its own; sidecars that all pinned themselves to CPU 0 would be worse \
              than none.",
    },
    Knob {
        name: "stall_limit",
        values: "a duration from 10ms to 60s, as in `500ms`",
        default: "500ms",
        scope: Scope::Process(|tuning, text| {
            tuning.stall_limit = parse::duration(text, Duration::from_secs(60))?;
            if tuning.stall_limit < Duration::from_millis(10) {
                return Err(format!(
                    "{text} is out of range: below 10ms the scheduler alone would look like a stall"
                ));
            }
            Ok(())
        }),
        doc: "A core whose loop does not turn for this long is named in the log and counted in \
              `server.worker_N.watchdog_miss`.",
    },
    Knob {
        name: "downstream_connections_max",
        values: "a number from 1 to 4000000",
        default: "100000",
        scope: Scope::Process(|tuning, text| {
            tuning.limits.downstream_connections_max = parse::number(text, 1..=4_000_000)? as u32;
            Ok(())
        }),
        doc: "Connections accepted at once over all listeners and cores; one more is closed at accept and counted.",
    },
    Knob {
        name: "idle_per_endpoint_max",
        values: "a number up to 1000000",
        default: "1024",
        scope: Scope::Process(|tuning, text| {
            tuning.limits.idle_per_endpoint_max = parse::number(text, 0..=1_000_000)? as u32;
            Ok(())
        }),
        doc: "Idle upstream connections that one core keeps for an endpoint; one more is closed.",
    },
    Knob {
        name: "park_after",
        values: "a duration from 10ms to 3600s",
        default: "1s",
        scope: Scope::Process(|tuning, text| {
            tuning.limits.park_after = parse::duration(text, Duration::from_secs(3600))?;
            if tuning.limits.park_after < Duration::from_millis(10) {
                return Err(format!("{text} is out of range"));
            }
            Ok(())
        }),
        doc: "Time without a byte after which a connection gives its buffer back and waits for readiness alone.",
    },
    Knob {
        name: "replay_bytes_max",
        values: "a size up to 16MiB",
        default: "64KiB",
        scope: Scope::Process(|tuning, text| {
            tuning.limits.replay_bytes_max = parse::bytes(text, 0..=16 << 20)? as usize;
            Ok(())
        }),
        doc: "Bytes of a request's body that are kept for a retry; with a larger body the try under way is the last.",
    },
    Knob {
        name: "driver",
        values: "`auto`, `io_uring` or `epoll`",
        default: "auto",
        scope: Scope::Core(|core, text| {
            core.driver = match text {
                "auto" => DriverChoice::Auto,
                "io_uring" => DriverChoice::IoUring,
                "epoll" => DriverChoice::Epoll,
                _ => return Err(format!("unknown value {text:?}")),
            };
            Ok(())
        }),
        doc: "What the loop waits with. `auto` is io_uring, and epoll where the kernel or a seccomp profile denies it; \
              `io_uring` refuses to start then. `--driver` sets it.",
    },
    Knob {
        name: "ring_entries",
        values: "a power of two from 256 to 32768",
        default: "1024",
        scope: Scope::Core(|core, text| {
            let entries = parse::number(text, 256..=32_768)? as u32;
            if !entries.is_power_of_two() {
                return Err(format!("{entries} is not a power of two"));
            }
            core.ring_entries = entries;
            Ok(())
        }),
        doc: "Submission queue entries of the core's io_uring. More lets one system call carry more operations; it \
              takes locked memory.",
    },
    Knob {
        name: "coop_taskrun",
        values: "`true` or `false`",
        default: "true",
        scope: Scope::Core(|core, text| {
            core.coop_taskrun = parse::boolean(text)?;
            Ok(())
        }),
        doc: "Ring flag IORING_SETUP_COOP_TASKRUN: completions do not interrupt the core.",
    },
    Knob {
        name: "single_issuer",
        values: "`true` or `false`",
        default: "true",
        scope: Scope::Core(|core, text| {
            core.single_issuer = parse::boolean(text)?;
            Ok(())
        }),
        doc: "Ring flag IORING_SETUP_SINGLE_ISSUER: the kernel need not expect other threads at the ring.",
    },
    Knob {
        name: "defer_taskrun",
        values: "`true` or `false`",
        default: "true",
        scope: Scope::Core(|core, text| {
            core.defer_taskrun = parse::boolean(text)?;
            Ok(())
        }),
        doc: "Ring flag IORING_SETUP_DEFER_TASKRUN: completions are handled only when the core asks for them, in \
              batches. Implies `single_issuer`; has no effect with `busy_poll`. A kernel that is too old for a flag \
              gets a ring without any.",
    },
    Knob {
        name: "busy_poll",
        values: "a duration up to 100ms, as in `50us`; `0`: off",
        default: "0",
        scope: Scope::Core(|core, text| {
            let spin = parse::duration(text, Duration::from_millis(100))?;
            core.busy_poll_us = spin.as_micros() as u32;
            Ok(())
        }),
        doc: "How long a core with nothing to do looks for work before it sleeps. It saves the wake-up, at the price \
              of the CPU it burns; only for cores of their own.",
    },
    Knob {
        name: "buffer_bytes",
        values: "a size from 4KiB to 1MiB",
        default: "16KiB",
        scope: Scope::Core(|core, text| {
            core.buffer_bytes = parse::bytes(text, 4 << 10..=1 << 20)? as usize;
            Ok(())
        }),
        doc: "Usable bytes of a buffer. A TLS record is up to 16 KiB; smaller buffers cost system calls, larger ones \
              memory for each connection that is in the middle of something.",
    },
    Knob {
        name: "buffers_kept_max",
        values: "a number up to 65536",
        default: "1024",
        scope: Scope::Core(|core, text| {
            core.buffers_kept_max = parse::number(text, 0..=65_536)? as usize;
            Ok(())
        }),
        doc: "Free buffers kept for reuse on a core. What the busiest second did not need is given back anyway.",
    },
    Knob {
        name: "mails_max",
        values: "a number from 64 to 65536",
        default: "4096",
        scope: Scope::Core(|core, text| {
            core.mails_max = parse::number(text, 64..=65_536)? as usize;
            Ok(())
        }),
        doc: "Letters from other threads, connections handed over among them, that can wait for a core.",
    },
];

impl Default for Tuning {
    /// What the table's defaults say, read by the table's readers.
    fn default() -> Self {
        let mut tuning = Tuning {
            workers: None,
            cpus: None,
            pin: Pin::Auto,
            stall_limit: Duration::ZERO,
            limits: Limits::default(),
            core: CoreConfig::default(),
            cores: BTreeMap::new(),
        };
        for knob in KNOBS {
            let read = match knob.scope {
                Scope::Process(read) => read(&mut tuning, knob.default),
                Scope::Core(read) => read(&mut tuning.core, knob.default),
            };
            debug_assert_eq!(read, Ok(()), "the default of {}", knob.name);
        }
        tuning
    }
}

impl Tuning {
    pub fn for_core(&self, core: usize) -> &CoreConfig {
        u32::try_from(core).ok().and_then(|core| self.cores.get(&core)).unwrap_or(&self.core)
    }
}
