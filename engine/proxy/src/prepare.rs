//! From a head to a decision: what the connection manager does to every request, then route, authorize, limit,
//! fault, rewrite. Nothing here waits.

use crate::{
    exchange::{LocalReply, Request},
    failure,
    filters::{CorsAnswer, Passage},
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
    Action, Cluster, ClusterSpecifier, Forward as ForwardAction, HeaderRules, HttpConnectionManager,
    LbPolicy, Pinned, RetryPolicy, Route, RouteSource, RouteTable, VirtualHost,
};
use corelane_telemetry::{Block, Details, HttpStat, ResponseFlags};
use corelane_traffic::{Failure, deadline, matching};
use std::{net::IpAddr, time::Duration};

// boxing what nearly every request takes would allocate for it
#[expect(clippy::large_enum_variant)]
pub(crate) enum Plan<'s> {
    Local(Box<LocalReply>),
    Forward(Forward<'s>),
}

/// Where a request goes and within which limits.
pub(crate) struct Forward<'s> {
    pub cluster: &'s Cluster,
    pub table: &'s RouteTable,
    pub host: &'s VirtualHost,
    pub route: &'s Route,
    pub action: &'s ForwardAction,
    pub weighted: Option<&'s HeaderRules>,
    pub retry: Option<&'s RetryPolicy>,
    pub limits: deadline::Limits,
    /// Fields of the answer, where another origin may read it.
    pub cors: Option<CorsAnswer<'s>>,
    pub stream_idle: Option<Duration>,
    pub duration_max: Option<Duration>,
    pub hash: Option<u64>,
    /// To be set on the answer, so that the client comes back to the same endpoint.
    pub cookie: Option<matching::hash_policy::NewCookie>,
    pub is_internal: bool,
}

pub(crate) fn prepare<'s>(
    state: &'s CoreState,
    link: &'s Link,
    hcm: &'s HttpConnectionManager,
    snapshot: &'s Pinned,
    request: &mut Request<'_>,
    record: &mut Record,
) -> Plan<'s> {
    match decide(state, link, hcm, snapshot, request, record) {
        Ok(forward) => Plan::Forward(forward),
        Err(local) => Plan::Local(local),
    }
}

fn decide<'s>(
    state: &'s CoreState,
    link: &'s Link,
    hcm: &'s HttpConnectionManager,
    snapshot: &'s Pinned,
    request: &mut Request<'_>,
    record: &mut Record,
) -> Result<Forward<'s>, Box<LocalReply>> {
    let origin = admit(state, link, hcm, request)?;
    let head = &mut *request.head;
    let passage = Passage { state, link, hcm, levels: [None; 4], cluster: None, client: origin.client };
    let (table, host, route) = match matched(state, link, hcm, snapshot, head, origin.is_internal) {
        Ok(matched) => matched,
        Err(unmatched) => {
            // as in Envoy the chain comes first, and the answer from its end: whom a filter denies learns nothing else
            passage.pass(head, record)?;
            return Err(match unmatched {
                Unmatched::NoRoute => no_route(state, hcm, record),
                Unmatched::ToHttps => to_https(state, hcm, head),
            });
        }
    };
    record.route(route);
    let target = match &route.action {
        Action::Forward(action) => {
            // every core's draws are spread over its own weighted requests alone
            let weighted = matches!(action.target, ClusterSpecifier::Weighted { .. });
            let draw = if weighted { state.draw_evenly() } else { 0 };
            matching::target(action, snapshot, head, draw)
        }
        _ => None,
    };
    let weighted = target.as_ref().and_then(|target| target.weighted).map(|part| &part.filters);
    let passage = Passage {
        levels: [weighted, Some(&route.filters), Some(&host.filters), Some(&table.filters)],
        cluster: target.as_ref().map(|target| target.cluster),
        ..passage
    };
    let cors = passage.pass(head, record)?;
    let action = match &route.action {
        Action::Forward(action) => &**action,
        Action::Redirect(redirect) => {
            state.shard.inc(Block::from_raw(hcm.stats.http.0), HttpStat::RqRedirect);
            return Err(headers::redirected(redirect, route, head));
        }
        Action::Direct(direct) => {
            state.shard.inc(Block::from_raw(hcm.stats.http.0), HttpStat::RqDirectResponse);
            return Err(headers::direct_response(direct));
        }
        Action::None => return Err(no_route(state, hcm, record)),
    };
    forward(state, link, hcm, snapshot, table, host, route, action, target, cors, origin, request, record)
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
    if host.require_tls && link.conn.tls().is_none() {
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
        is_internal: &|address: IpAddr| forwarded::is_private(address),
    };
    let peer = forwarded::Peer { address: link.facts.remote.ip(), is_tls: link.conn.tls().is_some() };
    let mut random = [0; 16];
    random[..8].copy_from_slice(&state.draw().to_le_bytes());
    random[8..].copy_from_slice(&state.draw().to_le_bytes());
    let origin = forwarded::apply_forwarded_rules(head, &rules, &peer, random).map_err(refused)?;
    headers::client_certificate(state, link, hcm, head);
    if request.upgrade && !upgrade_allowed(&hcm.upgrades, head) {
        state.shard.inc(Block::from_raw(hcm.stats.http.0), HttpStat::DownstreamRqWsOnNonWsRoute);
        return Err(Box::new(LocalReply::new(403, "", Details::UPGRADE_FAILED, ResponseFlags::NONE)));
    }
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

fn upgrade_allowed(configured: &[corelane_snapshot::UpgradeConfig], head: &RequestHead) -> bool {
    let asked = head.fields.get(Known::Upgrade).unwrap_or_default();
    configured.iter().any(|upgrade| upgrade.enabled && upgrade.kind.as_bytes().eq_ignore_ascii_case(asked))
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

#[allow(clippy::too_many_arguments)]
fn forward<'s>(
    state: &CoreState,
    link: &Link,
    hcm: &'s HttpConnectionManager,
    snapshot: &'s Pinned,
    table: &'s RouteTable,
    host: &'s VirtualHost,
    route: &'s Route,
    action: &'s ForwardAction,
    target: Option<matching::Target<'s>>,
    cors: Option<CorsAnswer<'s>>,
    origin: forwarded::Origin,
    request: &mut Request<'_>,
    record: &mut Record,
) -> Result<Forward<'s>, Box<LocalReply>> {
    let head = &mut *request.head;
    if request.upgrade && !action.upgrades.is_empty() && !upgrade_allowed(&action.upgrades, head) {
        return Err(Box::new(LocalReply::new(403, "", Details::UPGRADE_FAILED, ResponseFlags::NONE)));
    }
    let weighted = target.as_ref().and_then(|target| target.weighted);
    let cluster = target.and_then(|target| snapshot.cluster(target.cluster));
    let Some(cluster) = cluster else {
        state.shard.inc(Block::from_raw(hcm.stats.http.0), HttpStat::NoCluster);
        record.failed(Failure::NoCluster, false);
        let (details, flags) = failure::describe(Failure::NoCluster);
        return Err(Box::new(LocalReply::new(action.cluster_not_found_status, "", details, flags)));
    };
    record.cluster(cluster);
    state.shard.inc(Block::from_raw(hcm.stats.http.0), HttpStat::RqTotal);
    let retry = action.retry.as_deref().or(host.retry.as_deref());
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
        table,
        host,
        route,
        action,
        weighted: weighted.map(|part| &part.headers),
        retry,
        limits,
        cors,
        stream_idle: action.idle_timeout.unwrap_or(hcm.stream_idle_timeout),
        duration_max: action.stream_duration_max.unwrap_or(hcm.stream_duration_max),
        hash: hashed.hash,
        cookie: hashed.cookie,
        is_internal: origin.is_internal,
    };
    let host_literal = weighted.and_then(|part| part.host_rewrite.as_deref());
    headers::prepare_request(state, link, &forward, host_literal, head, record);
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
