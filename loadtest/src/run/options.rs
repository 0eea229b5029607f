//! What a run is asked to do: a scenario file, overridden by the command line, over defaults.

use std::{path::Path, time::Duration};

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Error, arrivals::Arrivals, target::Target, tls::ClientTls};

pub const CONNECTIONS_MAX: usize = 50_000;
pub const STREAMS_MAX: usize = 1_000;
pub const DURATION_MAX: Duration = Duration::from_secs(3_600);
pub const BODY_BYTES_MAX: usize = 64 << 20;
pub const RATE_MAX: f64 = 1e7;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1, one request at a time on a connection.
    H1,
    /// HTTP/2, by ALPN on https targets and by prior knowledge on http ones.
    H2,
    /// Messages of `--body-bytes` bytes that an echo server sends back.
    Tcp,
}

/// The part of the options that a scenario file may set; the command line overrides it field by field.
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct Overrides {
    /// What the scenario is for; shown in the report.
    #[arg(skip)]
    pub description: Option<String>,
    #[arg(long, value_enum)]
    pub protocol: Option<Protocol>,
    /// Requests a second in an open loop; without it (or with --saturate) every connection sends as soon as it can.
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<f64>,
    #[arg(long, value_enum)]
    pub arrivals: Option<Arrivals>,
    #[arg(long)]
    pub connections: Option<usize>,
    /// Concurrent HTTP/2 streams on each connection.
    #[arg(long)]
    pub streams: Option<usize>,
    /// Measured window, after the warm-up: `10s`, `500ms`.
    #[arg(long, value_parser = parse_duration)]
    #[serde(deserialize_with = "duration_text")]
    pub duration: Option<Duration>,
    #[arg(long, value_parser = parse_duration)]
    #[serde(deserialize_with = "duration_text")]
    pub warmup: Option<Duration>,
    #[arg(long)]
    pub method: Option<String>,
    /// Extra header `name: value`; may be repeated.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    pub headers: Option<Vec<String>>,
    /// Request body, or message size over tcp: `1024`, `64k`.
    #[arg(long, value_parser = parse_size)]
    pub body_bytes: Option<usize>,
}

impl Overrides {
    /// Reads a scenario file; an unknown field is an error.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let bad = |reason: String| Error::File { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
        serde_json::from_str(&text).map_err(|e| bad(e.to_string()))
    }

    /// `self` where it says something, `base` elsewhere.
    pub fn over(self, base: Overrides) -> Overrides {
        Overrides {
            description: self.description.or(base.description),
            protocol: self.protocol.or(base.protocol),
            rate: self.rate.or(base.rate),
            arrivals: self.arrivals.or(base.arrivals),
            connections: self.connections.or(base.connections),
            streams: self.streams.or(base.streams),
            duration: self.duration.or(base.duration),
            warmup: self.warmup.or(base.warmup),
            method: self.method.or(base.method),
            headers: self.headers.or(base.headers),
            body_bytes: self.body_bytes.or(base.body_bytes),
        }
    }
}

/// A run with every question answered.
#[derive(Debug, Clone)]
pub struct RunOptions {
    pub scenario: Option<String>,
    pub target: Target,
    pub protocol: Protocol,
    /// `None` is saturation.
    pub rate: Option<f64>,
    pub arrivals: Arrivals,
    pub seed: u64,
    pub connections: usize,
    pub streams: usize,
    pub duration: Duration,
    pub warmup: Duration,
    /// Longest that one request may take, and that the run waits for the last ones.
    pub timeout: Duration,
    /// The window closes early once so many requests have left in it.
    pub requests_max: u64,
    pub method: String,
    pub headers: Vec<(String, String)>,
    pub body_bytes: usize,
    pub cpu: Option<usize>,
    /// Poll instead of sleeping between sends: exact on a core of its own, harmful on a shared one.
    pub spin: bool,
    /// Source addresses 127.0.0.1 to 127.0.0.N; 0 leaves the choice to the kernel.
    pub sources: u8,
    pub tls: ClientTls,
    pub watch_pids: Vec<u32>,
    /// Lateness of the generator itself (p99) above which a run is invalid.
    pub lateness_max: Duration,
    pub progress: bool,
}

impl RunOptions {
    /// Defaults for a target, for callers that are not the command line.
    pub fn for_target(url: &str) -> Result<Self, Error> {
        Self::resolve(url, None, Overrides::default())
    }

    pub fn resolve(url: &str, scenario: Option<String>, chosen: Overrides) -> Result<Self, Error> {
        let target = Target::parse(url)?;
        let assumed = if url.starts_with("tcp:") { Protocol::Tcp } else { Protocol::H1 };
        let headers = chosen.headers.unwrap_or_default();
        let body_bytes = chosen.body_bytes.unwrap_or(0);
        Ok(RunOptions {
            scenario,
            target,
            protocol: chosen.protocol.unwrap_or(assumed),
            rate: chosen.rate,
            arrivals: chosen.arrivals.unwrap_or(Arrivals::Constant),
            seed: 1,
            connections: chosen.connections.unwrap_or(64),
            streams: chosen.streams.unwrap_or(16),
            duration: chosen.duration.unwrap_or(Duration::from_secs(10)),
            warmup: chosen.warmup.unwrap_or(Duration::from_secs(1)),
            timeout: Duration::from_secs(10),
            requests_max: 1_000_000_000,
            method: chosen
                .method
                .unwrap_or_else(|| if body_bytes > 0 { "POST".into() } else { "GET".into() }),
            headers: headers.iter().map(|header| parse_header(header)).collect::<Result<_, _>>()?,
            body_bytes,
            cpu: None,
            spin: false,
            sources: 0,
            tls: ClientTls::default(),
            watch_pids: Vec::new(),
            lateness_max: Duration::from_millis(1),
            progress: false,
        })
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let bound = |name: &str, value: usize, least: usize, most: usize| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(Error::usage(format!("--{name} {value}: expected {least} to {most}")))
        };
        bound("connections", self.connections, 1, CONNECTIONS_MAX)?;
        bound("streams", self.streams, 1, STREAMS_MAX)?;
        bound("body-bytes", self.body_bytes, usize::from(self.protocol == Protocol::Tcp), BODY_BYTES_MAX)?;
        if self.duration.is_zero() || self.duration > DURATION_MAX || self.warmup > DURATION_MAX {
            return Err(Error::usage(format!(
                "--duration: expected above 0 and at most {} s",
                DURATION_MAX.as_secs()
            )));
        }
        if let Some(rate) = self.rate
            && !(rate > 0.0 && rate <= RATE_MAX)
        {
            return Err(Error::usage(format!("--rate {rate}: expected above 0 and at most {RATE_MAX}")));
        }
        Ok(())
    }

    /// The request as HTTP/1.1 has it, head and body, or the message that the echo server returns.
    pub(crate) fn request_bytes(&self) -> Vec<u8> {
        let body = vec![b'x'; self.body_bytes];
        if self.protocol == Protocol::Tcp {
            return body;
        }
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target.path);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("host: {}\r\n", self.target.authority);
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            head += &format!("content-length: {}\r\n", body.len());
        }
        head += "\r\n";
        [head.as_bytes(), &body].concat()
    }
}

pub(crate) fn parse_header(text: &str) -> Result<(String, String), Error> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| Error::usage(format!("--header {text:?}: expected `name: value`")))?;
    if name.is_empty() || text.bytes().any(|byte| byte < b' ') {
        return Err(Error::usage(format!("--header {text:?}: not a header")));
    }
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// `10s`, `500ms`, `250us` or `2m`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "s" | "" => 1.0,
        "ms" => 1e-3,
        "us" => 1e-6,
        "m" => 60.0,
        _ => return Err(format!("{text:?}: expected a number with s, ms, us or m")),
    };
    let number: f64 =
        number.parse().map_err(|_| format!("{text:?}: expected a duration such as 10s or 500ms"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|e| format!("{text:?}: {e}"))
}

/// `1024`, `64k` or `1m`.
pub fn parse_size(text: &str) -> Result<usize, String> {
    let (number, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    let number: usize =
        number.parse().map_err(|_| format!("{text:?}: expected a size such as 1024 or 64k"))?;
    number.checked_mul(unit).ok_or_else(|| format!("{text:?}: too large"))
}

fn duration_text<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(source)?;
    text.map(|text| parse_duration(&text)).transpose().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stored_scenario_reads_and_the_command_line_wins() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let scenario = Overrides::from_file(&path).unwrap();
            assert!(scenario.description.is_some(), "{} does not say what it is for", path.display());
            let chosen = Overrides { connections: Some(3), ..Default::default() }.over(scenario);
            let options = RunOptions::resolve("http://127.0.0.1:1/", None, chosen).unwrap();
            assert_eq!(options.connections, 3);
            options.check().unwrap();
            seen += 1;
        }
        assert!(seen >= 4, "{seen} scenarios");
    }

    #[test]
    fn the_request_is_what_the_options_say() {
        let chosen = Overrides {
            body_bytes: Some(3),
            headers: Some(vec!["Host: payments".into(), "x-a: b: c".into()]),
            ..Default::default()
        };
        let options = RunOptions::resolve("http://127.0.0.1:1/charge", None, chosen).unwrap();
        let expected = "POST /charge HTTP/1.1\r\nHost: payments\r\nx-a: b: c\r\ncontent-length: 3\r\n\r\nxxx";
        assert_eq!(options.request_bytes(), expected.as_bytes());
    }

    #[test]
    fn durations_and_sizes_read_or_complain() {
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(parse_duration("250us"), Ok(Duration::from_micros(250)));
        assert!(parse_duration("5 parsecs").is_err());
        assert_eq!(parse_size("64k"), Ok(65_536));
        assert!(parse_size("k").is_err());
    }

    #[test]
    fn bounds_are_named() {
        let mut options = RunOptions::for_target("http://127.0.0.1:1/").unwrap();
        options.connections = CONNECTIONS_MAX + 1;
        assert!(options.check().unwrap_err().to_string().contains("--connections 50001"));
        options.connections = 1;
        options.rate = Some(0.0);
        assert!(options.check().unwrap_err().to_string().contains("--rate 0"));
    }
}
