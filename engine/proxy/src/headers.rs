//! What is written into heads on their way: header rules of table, host, route and weighted cluster, rewrites,
//! the fields Envoy adds, and the heads of redirects and direct responses.

use crate::{
    attempt::Try,
    exchange::{LocalBody, LocalReply},
    link::Link,
    prepare::{self, Forward, Matched},
    record::Record,
    render::{self, Scene},
    state::CoreState,
    tries::Tries,
};
use corelane_http::{
    Fields, Known, RequestHead, ResponseHead, list,
    rules::{
        request_id::{self, TraceReason},
        response, xfcc,
    },
};
use corelane_snapshot::{
    DirectResponse, Endpoint, Fraction, HashPolicy, HeaderAppend, HeaderEdit, HeaderRules, HostRewrite,
    HttpConnectionManager, Redirect, Route, ServerHeader, TraceSampling,
};
use corelane_telemetry::{Details, ResponseFlags};
use corelane_traffic::{
    deadline,
    matching::{redirect, rewrite},
};
use std::time::Duration;

/// Header rules from the most specific level to the least, as Envoy applies them; with
/// most_specific_header_mutations_wins the other way round but for a weighted cluster's, which come first in either case.
fn levels<'f>(matched: &Matched<'f>) -> [Option<&'f HeaderRules>; 4] {
    let mut levels = [
        matched.weighted.map(|part| &part.headers),
        Some(&matched.route.headers),
        Some(&matched.host.headers),
        Some(&matched.table.headers),
    ];
    if matched.table.most_specific_header_mutations_wins {
        levels[1..].reverse();
    }
    levels
}

/// The request as every try sends it.
pub(crate) fn prepare_request(
    state: &CoreState,
    link: &Link,
    forward: &Forward<'_>,
    head: &mut RequestHead,
    record: &Record,
) {
    for rules in levels(&forward.matched).into_iter().flatten().filter(|rules| !rules.is_empty()) {
        rules.request_remove.iter().for_each(|name| {
            head.fields.remove_name(name.as_bytes());
        });
        for edit in &rules.request_add {
            let mut value = state.scratch();
            let scene = Scene::request(state, link, head, record).on(&forward.matched);
            render::template(&edit.value, &scene, &mut value);
            apply_request_edit(head, edit, &value);
            state.keep_scratch(value);
        }
    }
    let literal = forward.matched.weighted.and_then(|part| part.host_rewrite.as_deref());
    rewrite_host(state, forward, literal, head);
    rewrite_path(state, forward, head);
}

/// Host and :authority name one thing here; other pseudo-fields can't be set by header rules.
fn apply_request_edit(head: &mut RequestHead, edit: &HeaderEdit, value: &[u8]) {
    if value.is_empty() && !edit.keep_empty_value {
        return;
    }
    match &*edit.name {
        // a value that is no host or path leaves the head as it was
        ":authority" | "host" => drop(head.set_authority(value)),
        ":path" => drop(head.set_path(value)),
        ":method" => drop(head.set_method(value)),
        ":scheme" => drop(head.set_scheme(value)),
        name => apply_edit(&mut head.fields, name, edit.append, value),
    }
}

pub(crate) fn apply_edit(fields: &mut Fields, name: &str, append: HeaderAppend, value: &[u8]) {
    let name = name.as_bytes();
    let exists = fields.get_name(name).is_some();
    // names were checked when the configuration was built
    let _ = match append {
        HeaderAppend::AppendIfExistsOrAdd => fields.append(name, value),
        HeaderAppend::AddIfAbsent if exists => Ok(()),
        HeaderAppend::OverwriteIfExists if !exists => Ok(()),
        _ => fields.set_name(name, value),
    };
}

fn rewrite_host(state: &CoreState, forward: &Forward<'_>, literal: Option<&str>, head: &mut RequestHead) {
    let mut value = state.scratch();
    let changed = match (literal, &forward.action.host_rewrite) {
        // a weighted cluster's keeps no trace of the host that came
        (Some(literal), _) => {
            let _ = head.set_authority(literal.as_bytes());
            false
        }
        // the endpoint is not chosen yet
        (None, Some(HostRewrite::Auto) | None) => false,
        (None, Some(rewrite)) => rewrite::host(rewrite, head, "", &mut value),
    };
    if changed {
        set_host(state, forward, head, &value);
    }
    state.keep_scratch(value);
}

/// The host that came is kept, as Envoy keeps it: whatever the client says it was.
fn set_host(state: &CoreState, forward: &Forward<'_>, head: &mut RequestHead, host: &[u8]) {
    let mut original = state.scratch();
    original.extend_from_slice(head.authority());
    // a rewrite to what is no host leaves the one that came
    if head.set_authority(host).is_ok() {
        if !forward.suppress_envoy_headers {
            head.fields.set(Known::XEnvoyOriginalHost, &original);
        }
        let forwarded = head.fields.get_all(Known::XForwardedHost).flat_map(list::elements).last();
        if forward.action.append_x_forwarded_host && forwarded != Some(&original) {
            head.fields.extend_list(Known::XForwardedHost, b",", &original);
        }
    }
    state.keep_scratch(original);
}

fn rewrite_path(state: &CoreState, forward: &Forward<'_>, head: &mut RequestHead) {
    let Some(rewrite) = &forward.action.path_rewrite else { return };
    let mut path = state.scratch();
    if rewrite::path(rewrite, &forward.matched.route.matches.path, head, &mut path) {
        let mut original = state.scratch();
        original.extend_from_slice(head.path());
        let kept = forward.suppress_envoy_headers || head.fields.contains(Known::XEnvoyOriginalPath);
        if head.set_path(&path).is_ok() && !kept {
            head.fields.append_known(Known::XEnvoyOriginalPath, &original);
        }
        state.keep_scratch(original);
    }
    state.keep_scratch(path);
}

/// What differs from try to try.
pub(crate) fn prepare_try(
    state: &CoreState,
    forward: &Forward<'_>,
    endpoint: &Endpoint,
    head: &mut RequestHead,
    tries: &Tries<'_>,
    elapsed: Duration,
) {
    // what is left of the time goes to the next hop, which may be one of ours
    if let Some(expected) = deadline::expected(&forward.limits, elapsed) {
        let mut text = [0; deadline::TEXT_BYTES_MAX];
        if !forward.suppress_envoy_headers {
            head.fields.set(Known::XEnvoyExpectedRqTimeoutMs, deadline::write_ms(expected, &mut text));
        }
        if forward.limits.grpc {
            head.fields.set(Known::GrpcTimeout, deadline::write_grpc(expected, &mut text));
        }
    }
    if forward.matched.host.include_request_attempt_count {
        head.fields.set(Known::XEnvoyAttemptCount, Decimal::default().write(tries.number.into()));
    }
    if forward.action.host_rewrite == Some(HostRewrite::Auto) && !endpoint.hostname.is_empty() {
        match tries.is_first() {
            true => set_host(state, forward, head, endpoint.hostname.as_bytes()),
            // the host that came is kept already
            false => drop(head.set_authority(endpoint.hostname.as_bytes())),
        }
    }
}

/// An upstream's head on its way downstream.
pub(crate) fn finish_upstream_response(
    state: &CoreState,
    cx: &Try<'_>,
    request: &RequestHead,
    head: &mut ResponseHead,
    record: &mut Record,
    attempts: u32,
) {
    let forward = cx.forward;
    record.outcome.response_code = head.status;
    if !cx.hcm.suppress_envoy_headers {
        let timings = &record.outcome.timings;
        let waited =
            timings.upstream_rx_start.saturating_sub(timings.upstream_tx_end.max(timings.upstream_tx_start));
        head.fields.set(Known::XEnvoyUpstreamServiceTime, Decimal::default().write(waited / 1_000_000));
    }
    if forward.matched.host.include_attempt_count_in_response {
        head.fields.set(Known::XEnvoyAttemptCount, Decimal::default().write(attempts.into()));
    }
    apply_response_rules(state, cx.link, &forward.matched, request, head, record);
    if let Some(cors) = &forward.cors {
        cors.write(head);
    }
    set_affinity_cookie(state, forward, head);
    finish_response(state, cx.hcm, head, request);
}

fn apply_response_rules(
    state: &CoreState,
    link: &Link,
    matched: &Matched<'_>,
    request: &RequestHead,
    head: &mut ResponseHead,
    record: &Record,
) {
    for rules in levels(matched).into_iter().flatten().filter(|rules| !rules.is_empty()) {
        rules.response_remove.iter().for_each(|name| {
            head.fields.remove_name(name.as_bytes());
        });
        for edit in &rules.response_add {
            let mut value = state.scratch();
            let scene = Scene::response(state, link, request, head, record).on(matched);
            render::template(&edit.value, &scene, &mut value);
            if !value.is_empty() || edit.keep_empty_value {
                apply_edit(&mut head.fields, &edit.name, edit.append, &value);
            }
            state.keep_scratch(value);
        }
    }
}

/// An answer of the proxy's own on its way downstream: the rules of the route hold for it too. Envoy's filters write
/// their fields after the rules, its router before them, and its answer to a CORS preflight passes them by.
pub(crate) fn finish_local_response(
    state: &CoreState,
    link: &Link,
    matched: Option<&Matched<'_>>,
    request: &RequestHead,
    local: &LocalReply,
    head: &mut ResponseHead,
    record: &Record,
) {
    let routed = local.details == Details::DIRECT_RESPONSE;
    let own_fields = |head: &mut ResponseHead| {
        for (name, value) in local.fields.iter() {
            // the fields are ours: their names are tokens
            let _ = head.fields.append(name, value);
        }
    };
    if routed {
        own_fields(head);
    }
    if let Some(matched) = matched.filter(|_| local.details != Details::CORS_RESPONSE) {
        apply_response_rules(state, link, matched, request, head, record);
        if local.of_tries && matched.host.include_attempt_count_in_response {
            let attempts = record.outcome.attempts;
            head.fields.set(Known::XEnvoyAttemptCount, Decimal::default().write(attempts.into()));
        }
    }
    if !routed {
        own_fields(head);
    }
}

/// The cookie that a hash policy made, as Envoy writes it.
fn set_affinity_cookie(state: &CoreState, forward: &Forward<'_>, head: &mut ResponseHead) {
    let Some(cookie) = forward.cookie else { return };
    let Some(HashPolicy::Cookie { name, ttl, path, .. }) = forward.action.hash_policy.get(cookie.policy)
    else {
        return;
    };
    let mut value = state.scratch();
    value.extend_from_slice(name.as_bytes());
    value.extend_from_slice(b"=\"");
    value.extend_from_slice(&cookie.value);
    value.push(b'"');
    // "If the TTL is present and zero, the generated cookie will be a session cookie": no Max-Age
    if let Some(seconds) = ttl.map(|ttl| ttl.as_secs()).filter(|seconds| *seconds > 0) {
        value.extend_from_slice(b"; Max-Age=");
        value.extend_from_slice(Decimal::default().write(seconds));
    }
    if !path.is_empty() {
        value.extend_from_slice(b"; Path=");
        value.extend_from_slice(path.as_bytes());
    }
    value.extend_from_slice(b"; HttpOnly");
    head.fields.append_known(Known::SetCookie, &value);
    state.keep_scratch(value);
}

/// What the connection manager does to every answer.
pub(crate) fn finish_response(
    state: &CoreState,
    hcm: &HttpConnectionManager,
    head: &mut ResponseHead,
    request: &RequestHead,
) {
    let request_id =
        hcm.request_id.always_set_in_response.then(|| request.fields.get(Known::XRequestId)).flatten();
    let date = state.date();
    let rules = response::ResponseRules {
        server: match hcm.server_header {
            ServerHeader::Overwrite => response::ServerHeader::Overwrite,
            ServerHeader::AppendIfAbsent => response::ServerHeader::AppendIfAbsent,
            ServerHeader::PassThrough => response::ServerHeader::PassThrough,
        },
        server_name: hcm.server_name.as_bytes(),
        via: hcm.via.as_deref().map(str::as_bytes),
        request_id,
        date: &date,
        keep_upgrade: head.status == 101,
    };
    response::apply_response_rules(head, &rules);
}

/// Packs into the request's id whether it is to be traced, as Envoy does (`mutateTracingRequestHeader`): the next hops
/// go by it. An id that says so already, or is no UUID, is left as it came.
pub(crate) fn tell_trace_reason(state: &CoreState, sampling: &TraceSampling, head: &mut RequestHead) {
    let Some(id) = head.fields.get(Known::XRequestId) else { return };
    // the same draw wherever the id is seen
    let Some(draw) = request_id::stable_fraction(id, 10_000) else { return };
    if request_id::trace_reason(id) != Some(TraceReason::NotTraceable) {
        return;
    }
    let drawn = |fraction: Fraction| draw * 100 < u64::from(fraction.0);
    let reason = if head.fields.contains(Known::XClientTraceId) && sampling.client.selects(state.draw()) {
        TraceReason::ClientForced
    } else if head.fields.contains(Known::XEnvoyForceTrace) {
        TraceReason::ServiceForced
    } else if drawn(sampling.random) {
        TraceReason::Sampled
    } else {
        return;
    };
    if !drawn(sampling.overall) {
        return;
    }
    if let Some(told) = request_id::with_trace_reason(id, reason) {
        head.fields.set(Known::XRequestId, &told);
    }
}

/// x-forwarded-client-cert.
pub(crate) fn client_certificate(
    state: &CoreState,
    link: &Link,
    hcm: &HttpConnectionManager,
    head: &mut RequestHead,
) {
    let (mode, details) = prepare::xfcc_mode(hcm);
    let Some(peer) = link.peer() else {
        let mut scratch = state.scratch();
        xfcc::apply_xfcc(&mut head.fields, mode, details, None, &mut scratch);
        return state.keep_scratch(scratch);
    };
    let by = first_texts(&link.local_uri_sans);
    let uris = first_texts(peer.uri_sans());
    let dns = first_texts(peer.dns_sans());
    let cert = if details.cert { peer.certificate_url_encoded_pem() } else { String::new() };
    let chain = if details.chain { peer.chain_url_encoded_pem() } else { String::new() };
    let client = xfcc::ClientCert {
        by: by.as_slice(),
        hash: &peer.sha256_hex,
        cert: &cert,
        chain: &chain,
        subject: peer.subject(),
        uris: uris.as_slice(),
        dns: dns.as_slice(),
    };
    let mut scratch = state.scratch();
    xfcc::apply_xfcc(&mut head.fields, mode, details, Some(&client), &mut scratch);
    state.keep_scratch(scratch);
}

/// Names of one kind that XFCC shows; a certificate with more is shown in part.
const NAMES_SHOWN_MAX: usize = 8;

struct Texts<'a> {
    texts: [&'a str; NAMES_SHOWN_MAX],
    len: usize,
}

impl<'a> Texts<'a> {
    fn as_slice(&self) -> &[&'a str] {
        &self.texts[..self.len]
    }
}

/// Borrowed without allocation.
fn first_texts(names: &[String]) -> Texts<'_> {
    let mut texts = [""; NAMES_SHOWN_MAX];
    let len = names.len().min(NAMES_SHOWN_MAX);
    texts.iter_mut().zip(names).for_each(|(slot, name)| *slot = name);
    Texts { texts, len }
}

fn redirecting(status: u16, location: &[u8], details: Details) -> Box<LocalReply> {
    let mut local = LocalReply::new(status, "", details, ResponseFlags::NONE);
    local.fields.append_known(Known::Location, location);
    Box::new(local)
}

pub(crate) fn to_normalized_path(head: &RequestHead) -> Box<LocalReply> {
    redirecting(307, head.path(), Details::new("path_normalization_redirect"))
}

pub(crate) fn moved(status: u16, scheme: &[u8], authority: &[u8], path: &[u8]) -> Box<LocalReply> {
    let location = [scheme, b"://", authority, path].concat();
    redirecting(status, &location, Details::DIRECT_RESPONSE)
}

pub(crate) fn redirected(redirect: &Redirect, route: &Route, head: &RequestHead) -> Box<LocalReply> {
    let mut location = Vec::new();
    redirect::location(redirect, &route.matches.path, head, head.scheme(), &mut location);
    redirecting(redirect.status, &location, Details::DIRECT_RESPONSE)
}

pub(crate) fn direct_response(direct: &DirectResponse) -> Box<LocalReply> {
    let mut local = LocalReply::new(direct.status, "", Details::DIRECT_RESPONSE, ResponseFlags::NONE);
    local.body = LocalBody::Bytes(direct.body.clone());
    Box::new(local)
}

/// A number as text, on the stack.
#[derive(Default)]
pub(crate) struct Decimal {
    digits: [u8; 20],
}

impl Decimal {
    pub fn write(&mut self, mut value: u64) -> &[u8] {
        let mut at = self.digits.len();
        // twenty digits hold every u64
        for digit in self.digits.iter_mut().rev() {
            at -= 1;
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                break;
            }
        }
        &self.digits[at..]
    }
}
