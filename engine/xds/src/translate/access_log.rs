//! envoy.config.accesslog.v3.AccessLog.

use super::{
    Context, api, extension,
    matcher::{header, reason},
    values::{any_type, decode, misplaced, required, runtime_fraction},
};
use api::accesslog::{access_log::ConfigType, access_log_filter::FilterSpecifier, comparison_filter::Op};
use corelane_snapshot::{
    AccessLog, AccessLogFilter, AccessLogSink, Fraction, JsonField, JsonTemplate, LogFormat,
    template::Template,
};
use prost_types::{Struct, Value, value::Kind};
use std::sync::Arc;

/// Envoy's default format ("Access logging: default format string").
const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
     %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
     %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
     \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// Nested And and Or filters, nested JSON objects.
const DEPTH_MAX: usize = 32;

pub(super) fn access_log(cx: &mut Context<'_>, log: &api::accesslog::AccessLog) -> Option<Arc<AccessLog>> {
    let filter = match &log.filter {
        Some(found) => Some(cx.within("filter", |cx| filter(cx, found, 0))?),
        None => None,
    };
    let any = required(cx, "typed_config", log.config_type.as_ref())?;
    let ConfigType::TypedConfig(any) = any;
    let (sink, format) = cx.within("typed_config", |cx| sink(cx, any))?;
    match cx.builder.sink_id(&sink) {
        Ok(sink_id) => Some(Arc::new(AccessLog { sink, sink_id, format, filter })),
        Err(error) => {
            cx.error(error.to_string());
            None
        }
    }
}

fn sink(cx: &mut Context<'_>, any: &prost_types::Any) -> Option<(AccessLogSink, LogFormat)> {
    use api::{file_log::file_access_log::AccessLogFormat as File, stream_log};
    Some(match any_type(any) {
        extension::FILE_LOG => {
            let log: api::file_log::FileAccessLog = decode(cx, any)?;
            let format = match &log.access_log_format {
                None => default_format(cx)?,
                Some(File::Format(text)) => text_format(cx, "format", text)?,
                Some(File::JsonFormat(json)) => json_format(cx, "json_format", json)?,
                Some(File::TypedJsonFormat(json)) => json_format(cx, "typed_json_format", json)?,
                Some(File::LogFormat(format)) => cx.within("log_format", |cx| substitution(cx, format))?,
            };
            let sink = match log.path.as_str() {
                "/dev/stdout" => AccessLogSink::Stdout,
                "/dev/stderr" => AccessLogSink::Stderr,
                path => AccessLogSink::File(path.into()),
            };
            (sink, format)
        }
        extension::STDOUT_LOG => {
            let log: stream_log::StdoutAccessLog = decode(cx, any)?;
            let format =
                log.access_log_format.map(|stream_log::stdout_access_log::AccessLogFormat::LogFormat(f)| f);
            (AccessLogSink::Stdout, stream_format(cx, format)?)
        }
        extension::STDERR_LOG => {
            let log: stream_log::StderrAccessLog = decode(cx, any)?;
            let format =
                log.access_log_format.map(|stream_log::stderr_access_log::AccessLogFormat::LogFormat(f)| f);
            (AccessLogSink::Stderr, stream_format(cx, format)?)
        }
        _ => {
            misplaced(cx, any, "access log");
            return None;
        }
    })
}

fn stream_format(
    cx: &mut Context<'_>,
    format: Option<api::core::SubstitutionFormatString>,
) -> Option<LogFormat> {
    match format {
        Some(format) => cx.within("log_format", |cx| substitution(cx, &format)),
        None => default_format(cx),
    }
}

fn default_format(cx: &mut Context<'_>) -> Option<LogFormat> {
    text_format(cx, "", DEFAULT_FORMAT)
}

fn substitution(cx: &mut Context<'_>, format: &api::core::SubstitutionFormatString) -> Option<LogFormat> {
    use api::core::{data_source::Specifier, substitution_format_string::Format};
    let mut out = match format.format.as_ref()? {
        Format::TextFormat(text) => text_format(cx, "text_format", text)?,
        Format::JsonFormat(json) => json_format(cx, "json_format", json)?,
        Format::TextFormatSource(source) => match &source.specifier {
            Some(Specifier::InlineString(text)) => text_format(cx, "text_format_source", text)?,
            Some(Specifier::InlineBytes(bytes)) => {
                text_format(cx, "text_format_source", &String::from_utf8_lossy(bytes))?
            }
            Some(Specifier::Filename(_)) => {
                cx.error_at("text_format_source", "a format in a file of its own is not implemented");
                return None;
            }
            None => return None,
        },
    };
    if format.omit_empty_values {
        omit_empty(&mut out);
    }
    Some(out)
}

fn omit_empty(format: &mut LogFormat) {
    fn walk(json: &mut JsonTemplate) {
        match json {
            JsonTemplate::Template(template) => template.omit_empty = true,
            JsonTemplate::Object(fields) => fields.iter_mut().for_each(|field| walk(&mut field.value)),
            JsonTemplate::List(items) => items.iter_mut().for_each(walk),
            JsonTemplate::Number(_) | JsonTemplate::Bool(_) | JsonTemplate::Null => {}
        }
    }
    match format {
        LogFormat::Text(template) => template.omit_empty = true,
        LogFormat::Json(fields) => fields.iter_mut().for_each(|field| walk(&mut field.value)),
    }
}

fn template(cx: &mut Context<'_>, field: &str, text: &str) -> Option<Template> {
    match Template::parse(text) {
        Ok(template) => Some(template),
        Err(error) => {
            cx.error_at(field, reason(error));
            None
        }
    }
}

fn text_format(cx: &mut Context<'_>, field: &str, text: &str) -> Option<LogFormat> {
    template(cx, field, text).map(LogFormat::Text)
}

fn json_format(cx: &mut Context<'_>, field: &str, json: &Struct) -> Option<LogFormat> {
    cx.within(field, |cx| json_fields(cx, json, 0)).map(LogFormat::Json)
}

/// A faulty entry is reported and left out: the file is refused anyway.
fn json_fields(cx: &mut Context<'_>, json: &Struct, depth: usize) -> Option<Vec<JsonField>> {
    if depth >= DEPTH_MAX {
        cx.error(format!("nested deeper than {DEPTH_MAX}"));
        return None;
    }
    let mut fields = Vec::with_capacity(json.fields.len());
    for (key, value) in &json.fields {
        let value = cx.within(key, |cx| json_value(cx, value, depth));
        fields.extend(value.map(|value| JsonField { key: key.as_str().into(), value }));
    }
    Some(fields)
}

fn json_value(cx: &mut Context<'_>, value: &Value, depth: usize) -> Option<JsonTemplate> {
    Some(match value.kind.as_ref() {
        None | Some(Kind::NullValue(_)) => JsonTemplate::Null,
        Some(Kind::NumberValue(number)) => JsonTemplate::Number(*number),
        Some(Kind::BoolValue(value)) => JsonTemplate::Bool(*value),
        Some(Kind::StringValue(text)) => JsonTemplate::Template(template(cx, "", text)?),
        Some(Kind::StructValue(json)) => JsonTemplate::Object(json_fields(cx, json, depth + 1)?),
        Some(Kind::ListValue(list)) => {
            if depth >= DEPTH_MAX {
                cx.error(format!("nested deeper than {DEPTH_MAX}"));
                return None;
            }
            JsonTemplate::List(
                list.values.iter().filter_map(|item| json_value(cx, item, depth + 1)).collect(),
            )
        }
    })
}

fn filter(
    cx: &mut Context<'_>,
    filter: &api::accesslog::AccessLogFilter,
    depth: usize,
) -> Option<AccessLogFilter> {
    if depth >= DEPTH_MAX {
        cx.error(format!("nested deeper than {DEPTH_MAX}"));
        return None;
    }
    Some(match required(cx, "", filter.filter_specifier.as_ref())? {
        FilterSpecifier::StatusCodeFilter(status) => {
            comparison(status.comparison.as_ref()?, |min, max| AccessLogFilter::Status { min, max })
        }
        FilterSpecifier::DurationFilter(duration) => {
            comparison(duration.comparison.as_ref()?, |min, max| AccessLogFilter::DurationMs {
                min: min.into(),
                max: if max == u32::MAX { u64::MAX } else { max.into() },
            })
        }
        FilterSpecifier::NotHealthCheckFilter(_) => AccessLogFilter::NotHealthCheck,
        FilterSpecifier::RuntimeFilter(runtime) => {
            // accesslog.proto: percent_sampled is the default of the runtime key; without either nothing is logged
            let percent = api::core::RuntimeFractionalPercent { default_value: runtime.percent_sampled };
            AccessLogFilter::Fraction(runtime_fraction(cx, "runtime_filter", &Some(percent), Fraction::NONE))
        }
        FilterSpecifier::AndFilter(and) => AccessLogFilter::And(cx.within("and_filter", |cx| {
            cx.each("filters", &and.filters, |cx, f| self::filter(cx, f, depth + 1))
        })),
        FilterSpecifier::OrFilter(or) => AccessLogFilter::Or(cx.within("or_filter", |cx| {
            cx.each("filters", &or.filters, |cx, f| self::filter(cx, f, depth + 1))
        })),
        FilterSpecifier::HeaderFilter(found) => {
            let matcher = cx.within("header_filter", |cx| cx.optional("header", &found.header, header))?;
            AccessLogFilter::Header(matcher)
        }
        FilterSpecifier::ResponseFlagFilter(flags) => {
            AccessLogFilter::ResponseFlags(flags.flags.iter().map(|flag| flag.as_str().into()).collect())
        }
        FilterSpecifier::GrpcStatusFilter(grpc) => AccessLogFilter::GrpcStatus {
            codes: grpc.statuses.iter().filter_map(|code| u32::try_from(*code).ok()).collect(),
            exclude: grpc.exclude,
        },
    })
}

/// Half-open ranges; "not equal" is two of them.
fn comparison(
    comparison: &api::accesslog::ComparisonFilter,
    range: impl Fn(u32, u32) -> AccessLogFilter,
) -> AccessLogFilter {
    let value = comparison.value.as_ref().map_or(0, |value| value.default_value);
    let after = value.saturating_add(1);
    match comparison.op() {
        Op::Eq => range(value, after),
        Op::Ge => range(value, u32::MAX),
        Op::Le => range(0, after),
        Op::Ne => AccessLogFilter::Or(vec![range(0, value), range(after, u32::MAX)]),
    }
}
