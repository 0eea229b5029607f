//! envoy.config.accesslog.v3.AccessLog: which requests are logged, as what, and where.

use crate::{Fraction, HeaderMatcher, template::Template};
use std::path::PathBuf;

#[derive(Debug)]
pub struct AccessLog {
    pub sink: AccessLogSink,
    /// Number of the sink, from [`crate::Builder::sink_id`]; who writes the lines opens them by it.
    pub sink_id: u16,
    pub format: LogFormat,
    pub filter: Option<AccessLogFilter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AccessLogSink {
    File(PathBuf),
    Stdout,
    Stderr,
}

#[derive(Debug)]
pub enum LogFormat {
    Text(Template),
    Json(Vec<JsonField>),
}

#[derive(Debug)]
pub struct JsonField {
    pub key: Box<str>,
    pub value: JsonTemplate,
}

#[derive(Debug)]
pub enum JsonTemplate {
    Template(Template),
    Object(Vec<JsonField>),
    List(Vec<JsonTemplate>),
    Number(f64),
    Bool(bool),
    Null,
}

#[derive(Debug)]
pub enum AccessLogFilter {
    /// Half-open range of status codes.
    Status {
        min: u32,
        max: u32,
    },
    DurationMs {
        min: u64,
        max: u64,
    },
    NotHealthCheck,
    Fraction(Fraction),
    Header(HeaderMatcher),
    /// Short names; empty: any flag at all.
    ResponseFlags(Vec<Box<str>>),
    And(Vec<AccessLogFilter>),
    Or(Vec<AccessLogFilter>),
    GrpcStatus {
        codes: Vec<u32>,
        exclude: bool,
    },
}
