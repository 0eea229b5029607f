//! Fills compiled format strings: header values and access log lines. Reference: Envoy, "Access logging" and
//! "Custom request/response headers".

mod operator;

use crate::{
    link::{Facts, Link},
    prepare::Matched,
    record::{Logged, Record},
    state::CoreState,
};
use corelane_http::{RequestHead, ResponseHead};
use corelane_snapshot::{
    AccessLog, AccessLogFilter, HttpConnectionManager, JsonField, JsonTemplate, LogFormat,
    template::{Part, Template},
};
use corelane_telemetry::{CoreStat, Details, Outcome, ResponseFlags, access_log::write_escaped_json};
use corelane_traffic::matching::header;
use std::sync::Arc;

/// What a format string can speak of. Parts that are not there yet are None.
pub(crate) struct Scene<'a> {
    pub state: &'a CoreState,
    pub facts: &'a Facts,
    /// None: no filter chain was found for the connection, or its handshake failed.
    pub link: Option<&'a Link>,
    /// None: it is about a connection.
    pub request: Option<&'a RequestHead>,
    pub response: Option<&'a ResponseHead>,
    pub outcome: &'a Outcome,
    pub logged: Option<&'a Logged>,
    /// Of the route and the cluster; empty where there is none, or none is named.
    pub route: &'a str,
    pub cluster: &'a str,
    /// The policy of the network filter that closed the connection.
    pub refused_by: Option<Details>,
    /// Why the client's handshake failed; else empty.
    pub handshake_failure: &'a str,
}

impl<'a> Scene<'a> {
    pub fn request(
        state: &'a CoreState,
        link: &'a Link,
        request: &'a RequestHead,
        record: &'a Record,
    ) -> Self {
        let about = Scene::nothing(state, &link.facts, &record.outcome);
        Scene { link: Some(link), request: Some(request), ..about }.logged(record.logged.as_deref())
    }

    /// From and to downstream. A connection that carries no messages has no framing of ours.
    pub fn wire_bytes(&self) -> (u64, u64) {
        match (self.request, self.logged) {
            (Some(_), Some(logged)) => logged.wire_bytes,
            _ => (self.outcome.bytes_received, self.outcome.bytes_sent),
        }
    }

    pub fn logged(self, logged: Option<&'a Logged>) -> Self {
        let (route, cluster) = logged.map_or(("", ""), |logged| (&logged.route, &logged.cluster));
        Scene { logged, route, cluster, ..self }
    }

    /// While the route is at hand: header values need no access log.
    pub fn on(self, matched: &Matched<'a>) -> Self {
        let cluster = matched.cluster.map_or("", |cluster| &cluster.config.name);
        Scene { route: &matched.route.name, cluster, ..self }
    }

    /// A connection of which no more is known.
    pub fn nothing(state: &'a CoreState, facts: &'a Facts, outcome: &'a Outcome) -> Self {
        let (link, request, response, logged, refused_by) = (None, None, None, None, None);
        let (route, cluster, handshake_failure) = ("", "", "");
        Scene {
            state,
            facts,
            link,
            request,
            response,
            outcome,
            logged,
            route,
            cluster,
            refused_by,
            handshake_failure,
        }
    }

    pub fn response(
        state: &'a CoreState,
        link: &'a Link,
        request: &'a RequestHead,
        response: &'a ResponseHead,
        record: &'a Record,
    ) -> Self {
        Scene { response: Some(response), ..Scene::request(state, link, request, record) }
    }
}

/// Appends the text of a header value: what is absent leaves nothing.
pub(crate) fn template(template: &Template, scene: &Scene<'_>, out: &mut Vec<u8>) {
    fill(template, scene, b"", out);
}

fn fill(template: &Template, scene: &Scene<'_>, absent: &[u8], out: &mut Vec<u8>) {
    for part in &template.parts {
        match part {
            Part::Literal(text) => out.extend_from_slice(text),
            Part::Operator { operator, length_max } => {
                let start = out.len();
                if !operator::write(operator, scene, out) {
                    out.truncate(start);
                    out.extend_from_slice(if template.omit_empty { b"" } else { absent });
                }
                if let Some(max) = length_max {
                    out.truncate(out.len().min(start + *max as usize));
                }
            }
        }
    }
}

/// Writes a line to every access log of the manager whose filter lets the request through.
pub(crate) fn access_log(
    state: &CoreState,
    link: &Link,
    hcm: &HttpConnectionManager,
    request: &RequestHead,
    record: &Record,
) {
    let response = record.logged.as_ref().and_then(|logged| logged.response.as_deref());
    lines(&hcm.access_log, &Scene { response, ..Scene::request(state, link, request, record) });
}

/// Writes a line to each of the logs whose filter lets it through.
pub(crate) fn lines(logs: &[Arc<AccessLog>], scene: &Scene<'_>) {
    for log in logs {
        if log.filter.as_ref().is_none_or(|filter| passes(filter, scene)) {
            line(scene.state, log, scene);
        }
    }
}

fn line(state: &CoreState, log: &AccessLog, scene: &Scene<'_>) {
    let written = state.log.borrow_mut().line(log.sink_id, |out| match &log.format {
        LogFormat::Text(template) => fill(template, scene, b"-", out),
        LogFormat::Json(fields) => {
            object(fields, scene, out);
            out.push(b'\n');
        }
    });
    let stat = if written { CoreStat::AccessLogLines } else { CoreStat::AccessLogLinesDropped };
    state.shard.inc(state.stats.core, stat);
}

fn object(fields: &[JsonField], scene: &Scene<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut is_first = true;
    for field in fields {
        let start = out.len();
        if !is_first {
            out.push(b',');
        }
        out.push(b'"');
        write_escaped_json(out, field.key.as_bytes());
        out.extend_from_slice(b"\":");
        if json(&field.value, scene, out) {
            is_first = false;
        } else {
            out.truncate(start);
        }
    }
    out.push(b'}');
}

/// As deep as the configured format, which the configuration reader bounds. False: the value is to be left out.
fn json(value: &JsonTemplate, scene: &Scene<'_>, out: &mut Vec<u8>) -> bool {
    match value {
        JsonTemplate::Template(template) => return json_text(template, scene, out),
        JsonTemplate::Object(fields) => object(fields, scene, out),
        JsonTemplate::List(values) => {
            out.push(b'[');
            for (number, value) in values.iter().enumerate() {
                if number > 0 {
                    out.push(b',');
                }
                if !json(value, scene, out) {
                    out.extend_from_slice(b"null");
                }
            }
            out.push(b']');
        }
        JsonTemplate::Number(number) => {
            use std::io::Write;
            // a Vec takes all that is written
            let _ = write!(out, "{number}");
        }
        JsonTemplate::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        JsonTemplate::Null => out.extend_from_slice(b"null"),
    }
    true
}

/// As Envoy types values: one operator alone that is a number is a number, and where it is absent null, or with
/// omit_empty_values nothing (false).
fn json_text(template: &Template, scene: &Scene<'_>, out: &mut Vec<u8>) -> bool {
    if let [Part::Operator { operator, length_max: None }] = &template.parts[..] {
        let mut text = scene.state.scratch();
        let is_present = operator::write(operator, scene, &mut text);
        match is_present {
            false if template.omit_empty => {}
            false => out.extend_from_slice(b"null"),
            true if operator::is_number(operator) => out.extend_from_slice(&text),
            true => quoted(&text, out),
        }
        scene.state.keep_scratch(text);
        return is_present || !template.omit_empty;
    }
    let mut text = scene.state.scratch();
    fill(template, scene, b"-", &mut text);
    quoted(&text, out);
    scene.state.keep_scratch(text);
    true
}

fn quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    write_escaped_json(out, text);
    out.push(b'"');
}

fn passes(filter: &AccessLogFilter, scene: &Scene<'_>) -> bool {
    let outcome = scene.outcome;
    match filter {
        AccessLogFilter::Status { min, max } => (*min..*max).contains(&u32::from(outcome.response_code)),
        AccessLogFilter::DurationMs { min, max } => {
            (*min..*max).contains(&(outcome.timings.total().unwrap_or(0) / 1_000_000))
        }
        // Envoy's health_check filter alone says that a request is one, and that filter is refused
        AccessLogFilter::NotHealthCheck => true,
        AccessLogFilter::Fraction(fraction) => fraction.selects(scene.state.draw()),
        AccessLogFilter::Header(matcher) => match scene.request {
            Some(request) => header::matches_request(matcher, request),
            None => header::matches_request(matcher, &RequestHead::new()),
        },
        AccessLogFilter::ResponseFlags(names) if names.is_empty() => !outcome.flags.is_empty(),
        AccessLogFilter::ResponseFlags(names) => names
            .iter()
            .any(|name| ResponseFlags::from_short(name).is_some_and(|flag| outcome.flags.intersects(flag))),
        AccessLogFilter::And(all) => all.iter().all(|filter| passes(filter, scene)),
        AccessLogFilter::Or(any) => any.iter().any(|filter| passes(filter, scene)),
        AccessLogFilter::GrpcStatus { codes, exclude } => {
            let status = outcome.grpc_status.map_or(2, u32::from);
            codes.contains(&status) != *exclude
        }
    }
}
