//! From a head to a decision: what the connection manager does to every request, then route, authorize, limit,
//! fault, rewrite. Nothing here waits.

use crate::{
    exchange::{LocalReply, Request},
    failure,
    filters::{FilterFields, Passage},
    headers,
    link::Link,
    record::Record,
    state::CoreState,
};
use corelane_http::{
    HttpError, Known, Method, RequestHead, Version,
    head::split_port,
    rules::{forwarded, hop_by_hop, host, path, xfcc},
};
use corelane_snapshot::{
    Action, Cluster, ClusterSpecifier, Forward as ForwardAction, HttpConnectionManager, LbPolicy, Pinned,
    RetryPolicy, Route, RouteSource, RouteTable, UpgradeConfig, VirtualHost, WeightedCluster,
};
use corelane_telemetry::{Block, Details, HttpStat, ResponseFlags};
use corelane_traffic::{Failure, deadline, matching};
use std::time::Duration;

// boxing what nearly every request takes would allocate for it
#[expect(clippy::large_enum_variant)]
pub(crate) enum Plan<'s> {
    Local(Box<LocalReply>),
    Forward(Forward<'s>),
}

/// The route of a request and the levels above it: whoever answers, their header rules hold.
#[derive(Clone, Copy)]
pub(crate) struct Matched<'s> {
    pub table: &'s RouteTable,
    pub host: &'s VirtualHost,
    pub route: &'s Route,
    pub weighted: Option<&'s WeightedCluster>,
    /// None: it does not exist, or the route leads to none.
    pub cluster: Option<&'s Cluster>,
}

/// Where a request goes and within which limits.
pub(crate) struct Forward<'s> {
    pub cluster: &'s Cluster,
    pub matched: Matched<'s>,
    pub action: &'s ForwardAction,
    pub retry: Option<&'s RetryPolicy>,
    pub limits: deadline::Limits,
    /// Fields of the answer, where another origin may read it.
    pub cors: Option<FilterFields<'s>>,
    pub stream_idle: Option<Duration>,
    pub duration_max: Option<Duration>,
    pub hash: Option<u64>,
    /// To be set on the answer, so that the client comes back to the same endpoint.
    pub cookie: Option<matching::hash_policy::NewCookie>,
    pub is_internal: bool,
    /// The router adds no x-envoy-* field of its own.
    pub suppress_envoy_headers: bool,
}

/// What is to be done, and the route by which, where one matched.
pub(crate) fn prepare<'s>(
    state: &'s CoreState,
    link: &'s Link,
    hcm: &'s HttpConnectionManager,
    snapshot: &'s Pinned,
    request: &mut Request<'_>,
    record: &mut Record,
) -> (Plan<'s>, Option<Matched<'s>>) {
    let mut route = None;
    match decide(state, link, hcm, snapshot, request, record, &mut route) {
        Ok(forward) => (Plan::Forward(forward), route),
        Err(local) => (Plan::Local(local), route),
    }
}

fn decide<'s>(
    state: &'s CoreState,
    link: &'s Link,
    hcm: &'s HttpConnectionManager,
    snapshot: &'s Pinned,
    request: &mut Request<'_>,
    record: &mut Record,
    found: &mut Option<Matched<'s>>,
) -> Result<Forward<'s>, Box<LocalReply>> {
    let origin = admit(state, link, hcm, request)?;
    let head = &mut *request.head;
    let passage = Passage { state, link, hcm, levels: [None; 4], cluster: None, client: origin.client };
    let (table, host, route) = match matched(state, link, hcm, snapshot, head, origin.is_internal) {
        Ok(matched) => matched,
        Err(unmatched) => {
            upgrade_allowed(state, hcm, None, head, request.upgrade)?;
            // as in Envoy the chain comes first, and the answer from its end: whom a filter denies learns nothing else
            passage.pass(head, record)?;
            return Err(match unmatched {
                Unmatched::NoRoute => no_route(state, hcm, record),
                Unmatched::ToHttps => to_https(state, hcm, head),
            });
        }
    };
    let target = match &route.action {
        Action::Forward(action) => {
            // every core's draws are spread over its own weighted requests alone
            let weighted = matches!(action.target, ClusterSpecifier::Weighted { .. });
            let draw = if weighted { state.draw_evenly() } else { 0 };
            matching::target(action, snapshot, head, draw)
        }
        _ => None,
    };
    let weighted = target.as_ref().and_then(|target| target.weighted);
    let cluster = target.as_ref().and_then(|target| snapshot.cluster(target.cluster));
    let matched = *found.insert(Matched { table, host, route, weighted, cluster });
    record.matched(&matched);
    upgrade_allowed(state, hcm, Some(route), head, request.upgrade)?;
    let passage = Passage {
        levels: [
            weighted.map(|part| &part.filters),
            Some(&route.filters),
            Some(&host.filters),
            Some(&table.filters),
        ],
        cluster: target.as_ref().map(|target| target.cluster),
        ..passage
    };
    let cors = passage.pass(head, record)?;
    let http = Block::from_raw(hcm.stats.http.0);
    match &route.action {
        Action::Forward(action) => forward(state, link, hcm, &matched, action, cors, origin, request, record),
        Action::Redirect(redirect) => {
            state.shard.inc(http, HttpStat::RqRedirect);
            Err(headers::redirected(redirect, route, head))
        }
        Action::Direct(direct) => {
            state.shard.inc(http, HttpStat::RqDirectResponse);
            Err(headers::direct_response(direct))
        }
        // as Envoy answers for a route that leads nowhere
        Action::None => Err(no_cluster(state, hcm, record, Failure::NoCluster.status())),
    }
}

/// Why a request has no route.
enum Unmatched {
    NoRoute,
    /// VirtualHost.require_tls.
    ToHttps,
}

fn matched<'s>(
    state: &CoreState,
    link: &Link,
    hcm: &'s HttpConnectionManager,
    snapshot: &'s Pinned,
    head: &mut RequestHead,
    is_internal: bool,
) -> Result<(&'s RouteTable, &'s VirtualHost, &'s Route), Unmatched> {
    let table = match &hcm.routes {
        RouteSource::Inline(table) => &**table,
        RouteSource::Named(id) => &**snapshot.route_table(*id).ok_or(Unmatched::NoRoute)?,
    };
    if !is_internal {
        table.internal_only_headers.iter().for_each(|name| {
            head.fields.remove_name(name.as_bytes());
        });
    }
    let facts = matching::RequestFacts {
        tls_presented: link.peer().is_some(),
        tls_validated: link.peer().is_some_and(|peer| peer.validated),
    };
    let host = matching::virtual_host(table, head.authority()).ok_or(Unmatched::NoRoute)?;
    // a trusted proxy before us may have ended TLS: by then the field says what came
    let by_https =
        head.fields.get(Known::XForwardedProto).is_some_and(|by| by.eq_ignore_ascii_case(b"https"));
    if host.require_tls && !by_https {
        return Err(Unmatched::ToHttps);
    }
    let (_, route) = matching::route(host, head, &facts, state.draw()).ok_or(Unmatched::NoRoute)?;
    Ok((table, host, route))
}

/// The manager's own rules: paths, hosts, forwarded fields, client certificates, upgrades.
fn admit(
    state: &CoreState,
    link: &Link,
    hcm: &HttpConnectionManager,
    request: &mut Request<'_>,
) -> Result<forwarded::Origin, Box<LocalReply>> {
    let head = &mut *request.head;
    let refused = |error: HttpError| {
        state.shard.inc(Block::from_raw(hcm.stats.http.0), HttpStat::DownstreamCxProtocolError);
        let flags = ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR;
        Box::new(LocalReply::new(error.status(), "", Details::new(error.detail()), flags))
    };
    if head.version == Version::H10 && head.authority().is_empty() {
        let host = hcm.http1.default_host_for_http_10.as_deref().unwrap_or_default();
        // a configured host that is none leaves the request without, and it is refused
        let _ = head.set_authority(host.as_bytes());
    }
    hop_by_hop::remove_hop_by_hop(&mut head.fields, request.upgrade);
    // else the proxy answers it itself when it reads the body (RFC 9110 section 10.1.1)
    if !hcm.proxy_100_continue {
        head.fields.remove(Known::Expect);
    }
    let action = path::apply_path_rules(head, &path_rules(hcm)).map_err(|error| {
        state.shard.inc(Block::from_raw(hcm.stats.http.0), HttpStat::DownstreamRqFailedPathNormalization);
        refused(error)
    })?;
    if action == path::PathAction::Redirect {
        state
            .shard
            .inc(Block::from_raw(hcm.stats.http.0), HttpStat::DownstreamRqRedirectedWithNormalizedPath);
        return Err(headers::to_normalized_path(head));
    }
    let strip = host::HostRules {
        strip_any_port: hcm.strip_any_host_port,
        strip_port: hcm.strip_matching_host_port.then(|| link.facts.local.port()),
        strip_trailing_dot: hcm.strip_trailing_host_dot,
    };
    host::apply_host_rules(head, &strip);
    let rules = forwarded::ForwardedRules {
        use_remote_address: hcm.use_remote_address,
        skip_xff_append: hcm.skip_xff_append,
        xff_trusted_hops: hcm.xff_trusted_hops,
        via: hcm.via.as_deref().map(str::as_bytes),
        generate_request_id: hcm.request_id.generate,
        preserve_external_request_id: hcm.request_id.preserve_external,
        scheme_overwrite: hcm.scheme_overwrite.as_deref().map(str::as_bytes),
        node_address: None,
        is_internal: &|address| hcm.internal_addresses.iter().any(|range| range.contains(address)),
    };
    let peer = forwarded::Peer { address: link.facts.remote.ip(), is_tls: link.conn.tls().is_some() };
    let mut random = [0; 16];
    random[..8].copy_from_slice(&state.draw().to_le_bytes());
    random[8..].copy_from_slice(&state.draw().to_le_bytes());
    let origin = forwarded::apply_forwarded_rules(head, &rules, &peer, random).map_err(refused)?;
    if let Some(sampling) = &hcm.trace_sampling {
        headers::tell_trace_reason(state, sampling, head);
    }
    headers::client_certificate(state, link, hcm, head);
    if head.method() == Method::Connect && !connect_allowed(hcm) {
        return Err(Box::new(LocalReply::new(
            404,
            "",
            Details::ROUTE_NOT_FOUND,
            ResponseFlags::NO_ROUTE_FOUND,
        )));
    }
    Ok(origin)
}

fn path_rules(hcm: &HttpConnectionManager) -> path::PathRules {
    use corelane_snapshot::EscapedSlashes as From;
    use path::EscapedSlashes as To;
    path::PathRules {
        normalize: hcm.path.normalize,
        merge_slashes: hcm.path.merge_slashes,
        escaped_slashes: match hcm.path.escaped_slashes {
            From::KeepUnchanged => To::KeepUnchanged,
            From::Reject => To::Reject,
            From::UnescapeAndRedirect => To::UnescapeAndRedirect,
            From::UnescapeAndForward => To::UnescapeAndForward,
        },
    }
}

/// What the route says of a protocol goes before what the manager says.
///
/// # Errors
/// The refusal of a protocol that neither allows.
fn upgrade_allowed(
    state: &CoreState,
    hcm: &HttpConnectionManager,
    route: Option<&Route>,
    head: &RequestHead,
    asked_for: bool,
) -> Result<(), Box<LocalReply>> {
    if !asked_for {
        return Ok(());
    }
    // one line, one protocol: of several the upstream could choose what is not allowed
    let mut lines = head.fields.get_all(Known::Upgrade);
    let asked = lines.next().filter(|_| lines.next().is_none()).unwrap_or_default();
    let says = |configured: &[UpgradeConfig]| {
        let named = configured.iter().find(|upgrade| upgrade.kind.as_bytes().eq_ignore_ascii_case(asked));
        named.map(|upgrade| upgrade.enabled)
    };
    let of_route = match route.map(|route| &route.action) {
        Some(Action::Forward(action)) => says(&action.upgrades),
        _ => None,
    };
    if of_route.or_else(|| says(&hcm.upgrades)) == Some(true) {
        return Ok(());
    }
    state.shard.inc(Block::from_raw(hcm.stats.http.0), HttpStat::DownstreamRqWsOnNonWsRoute);
    Err(Box::new(LocalReply::new(403, "", Details::UPGRADE_FAILED, ResponseFlags::NONE)))
}

fn connect_allowed(hcm: &HttpConnectionManager) -> bool {
    hcm.upgrades.iter().any(|upgrade| upgrade.enabled && &*upgrade.kind == "connect")
}

fn no_route(state: &CoreState, hcm: &HttpConnectionManager, record: &mut Record) -> Box<LocalReply> {
    state.shard.inc(Block::from_raw(hcm.stats.http.0), HttpStat::NoRoute);
    record.failed(Failure::NoRoute, false);
    Box::new(LocalReply::of(Failure::NoRoute))
}

/// VirtualHost.require_tls: the same place, by https.
fn to_https(state: &CoreState, hcm: &HttpConnectionManager, head: &RequestHead) -> Box<LocalReply> {
    state.shard.inc(Block::from_raw(hcm.stats.http.0), HttpStat::RqRedirect);
    headers::moved(301, b"https", split_port(head.authority()).0, head.path())
}

fn no_cluster(
    state: &CoreState,
    hcm: &HttpConnectionManager,
    record: &mut Record,
    status: u16,
) -> Box<LocalReply> {
    state.shard.inc(Block::from_raw(hcm.stats.http.0), HttpStat::NoCluster);
    record.failed(Failure::NoCluster, false);
    let (details, flags) = failure::describe(Failure::NoCluster);
    Box::new(LocalReply::new(status, "", details, flags))
}

#[allow(clippy::too_many_arguments)]
fn forward<'s>(
    state: &CoreState,
    link: &Link,
    hcm: &'s HttpConnectionManager,
    matched: &Matched<'s>,
    action: &'s ForwardAction,
    cors: Option<FilterFields<'s>>,
    origin: forwarded::Origin,
    request: &mut Request<'_>,
    record: &mut Record,
) -> Result<Forward<'s>, Box<LocalReply>> {
    let head = &mut *request.head;
    let Some(cluster) = matched.cluster else {
        return Err(no_cluster(state, hcm, record, action.cluster_not_found_status));
    };
    record.cluster(cluster);
    state.shard.inc(Block::from_raw(hcm.stats.http.0), HttpStat::RqTotal);
    let retry = action.retry.as_deref().or(matched.host.retry.as_deref());
    let limits = deadline::effective(action, retry, head, origin.is_internal);
    for consumed in deadline::CONSUMED {
        head.fields.remove(consumed);
    }
    let source = link.facts.remote.ip();
    let hashed = match cluster.config.lb {
        LbPolicy::RingHash(_) | LbPolicy::Maglev(_) => {
            matching::hash(&action.hash_policy, head, source, &mut state.rng.borrow_mut())
        }
        _ => matching::Hashed::default(),
    };
    let forward = Forward {
        cluster,
        matched: *matched,
        action,
        retry,
        limits,
        cors,
        stream_idle: action.idle_timeout.unwrap_or(hcm.stream_idle_timeout),
        duration_max: action.stream_duration_max.unwrap_or(hcm.stream_duration_max),
        hash: hashed.hash,
        cookie: hashed.cookie,
        is_internal: origin.is_internal,
        suppress_envoy_headers: hcm.suppress_envoy_headers,
    };
    headers::prepare_request(state, link, &forward, head, record);
    if head.version == Version::H10 {
        // what goes on is HTTP/1.1
        head.version = Version::H11;
    }
    Ok(forward)
}

/// The client certificate as XFCC shows it.
pub(crate) fn xfcc_mode(hcm: &HttpConnectionManager) -> (xfcc::ForwardClientCert, xfcc::ClientCertDetails) {
    use corelane_snapshot::ForwardClientCert as From;
    use xfcc::ForwardClientCert as To;
    let mode = match hcm.forward_client_cert {
        From::Sanitize => To::Sanitize,
        From::ForwardOnly => To::ForwardOnly,
        From::AppendForward => To::AppendForward,
        From::SanitizeSet => To::SanitizeSet,
        From::AlwaysForwardOnly => To::AlwaysForwardOnly,
    };
    let set = hcm.client_cert_details;
    let details = xfcc::ClientCertDetails {
        subject: set.subject,
        cert: set.cert,
        chain: set.chain,
        dns: set.dns,
        uri: set.uri,
    };
    (mode, details)
}
