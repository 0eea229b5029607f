//! The optional stages between routing and forwarding, in the order in which they act: RBAC, local rate limit,
//! fault, CORS. A stage that is not configured costs the look at an Option; the most specific level that
//! configures one (weighted cluster, route, virtual host, table, manager) decides.

use crate::{
    exchange::LocalReply,
    headers::{self, Decimal},
    link::Link,
    record::Record,
    render::{self, Scene},
    reply,
    state::CoreState,
};
use corelane_http::{Fields, RequestHead, ResponseHead};
use corelane_snapshot::{
    ClusterId, Fault, HeaderEdit, HttpConnectionManager, LocalRateLimit, NetworkFilter, PerRouteFilters,
    Rbac, TokenBuckets, live::TokenBucket,
};
use corelane_telemetry::{
    Block, CorsStat, Details, FaultStat, HttpRbacStat, LocalRateLimitStat, NetworkRateLimitStat,
    NetworkRbacStat, ResponseFlags,
};
use corelane_traffic::{
    authorize,
    cors::{self, CorsVerdict, Policies},
    fault,
    rate_limit::{self, RateVerdict},
};
use std::{net::IpAddr, sync::Arc};

/// Where a request has got to: what the stages may look at.
pub(crate) struct Passage<'a> {
    pub state: &'a CoreState,
    pub link: &'a Link,
    pub hcm: &'a HttpConnectionManager,
    /// Weighted cluster, route, virtual host, table: the most specific first. None has any where no route matched.
    pub levels: [Option<&'a PerRouteFilters>; 4],
    pub cluster: Option<ClusterId>,
    /// Whom x-forwarded-for names, as far as it is trusted.
    pub client: IpAddr,
}

impl<'a> Passage<'a> {
    /// The configuration of a stage at the most specific level that has one.
    fn at<T>(&self, pick: impl Fn(&'a PerRouteFilters) -> Option<T>) -> Option<T> {
        self.levels.into_iter().flatten().find_map(pick)
    }

    /// # Errors
    /// The answer of the stage that ends the request here.
    pub fn pass(
        &self,
        head: &mut RequestHead,
        record: &mut Record,
    ) -> Result<Option<FilterFields<'a>>, Box<LocalReply>> {
        self.authorize(head, record)?;
        let rate = self.limit(head, record)?;
        match self.fault(head, record).and_then(|()| self.cors(head)) {
            Ok(cors) => Ok((cors.is_some() || rate.is_some()).then_some(FilterFields { cors, rate })),
            Err(mut local) => {
                // who answers after the rate limit says how much of it is left
                rate.iter().for_each(|rate| rate.write(&mut local.fields));
                Err(local)
            }
        }
    }

    fn authorize(&self, head: &RequestHead, record: &mut Record) -> Result<(), Box<LocalReply>> {
        let overridden: Option<Option<&Arc<Rbac>>> = self.at(|level| level.rbac.as_ref().map(Option::as_ref));
        let configured = self.hcm.filters.rbac.as_slice();
        let chain = match overridden {
            Some(Some(one)) => std::slice::from_ref(one),
            Some(None) => &[],
            None => configured,
        };
        // an override names one filter; where there are several, none may be switched off by another's
        let kept = if configured.len() > 1 && overridden.is_some() { configured } else { &[] };
        let facts = authorize::Facts {
            route_metadata: self.levels[1].and_then(|route| route.metadata.as_deref()),
            ..facts(self.link, Some(head), self.client)
        };
        for rbac in kept.iter().chain(chain) {
            let verdict = authorize::verdict(rbac, &facts);
            let shard = &self.state.shard;
            let stats = Block::from_raw(rbac.stats.0);
            if let Some(allowed) = verdict.shadow_allowed() {
                shard.inc(
                    Block::from_raw(rbac.shadow_stats.0),
                    if allowed { HttpRbacStat::ShadowAllowed } else { HttpRbacStat::ShadowDenied },
                );
            }
            if verdict.is_allowed() {
                // as Envoy: without rules nothing was decided
                if rbac.rules.is_some() {
                    shard.inc(stats, HttpRbacStat::Allowed);
                }
                continue;
            }
            shard.inc(stats, HttpRbacStat::Denied);
            let details = denied_by(verdict.policy());
            record.denied();
            return Err(Box::new(LocalReply::new(403, "RBAC: access denied", details, ResponseFlags::NONE)));
        }
        Ok(())
    }

    fn limit(&self, head: &mut RequestHead, record: &Record) -> Result<Option<RateFields>, Box<LocalReply>> {
        let limit: Option<&Arc<LocalRateLimit>> = self.at(|level| level.local_rate_limit.as_ref());
        let Some(limit) = limit.or(self.hcm.filters.local_rate_limit.as_ref()) else { return Ok(None) };
        let shard = &self.state.shard;
        let stats = Block::from_raw(limit.stats.0);
        let (verdict, told) = self.judged(limit, head);
        if verdict != RateVerdict::NotSampled {
            shard.inc(stats, LocalRateLimitStat::Enabled);
        }
        let shown = told.filter(|_| limit.rate_limit_headers);
        match verdict {
            RateVerdict::NotSampled => {}
            RateVerdict::Allowed => shard.inc(stats, LocalRateLimitStat::Ok),
            RateVerdict::Limited { enforced } => {
                shard.inc(stats, LocalRateLimitStat::RateLimited);
                if enforced {
                    shard.inc(stats, LocalRateLimitStat::Enforced);
                    return Err(self.limited(limit, told, head, record));
                }
                for edit in &limit.unenforced_request_headers {
                    let value = self.rendered(edit, head, record);
                    add_field(&mut head.fields, edit, &value);
                    self.state.keep_scratch(value);
                }
            }
        }
        Ok(shown)
    }

    /// The verdict, and what may be told of the bucket that decided.
    fn judged(&self, limit: &Arc<LocalRateLimit>, head: &RequestHead) -> (RateVerdict, Option<RateFields>) {
        let of = |level: usize| self.levels[level].map_or(&[][..], |filters| &filters.rate_limits);
        let asked = rate_limit::Asked { head, client: self.client, route: of(1), virtual_host: of(2) };
        let now_ns = self.state.now().as_u64();
        let judge = |buckets: &TokenBuckets| {
            let mut rng = self.state.rng.borrow_mut();
            let judged = rate_limit::check(limit, buckets, Some(&asked), now_ns, &mut rng);
            let told = judged.bucket.filter(|_| limit.rate_limit_headers || limit.retry_after);
            (judged.verdict, told.map(|bucket| RateFields::of(bucket, now_ns)))
        };
        if limit.per_connection { self.link.rate_limits.with(limit, judge) } else { judge(&limit.buckets) }
    }

    fn limited(
        &self,
        limit: &LocalRateLimit,
        told: Option<RateFields>,
        head: &RequestHead,
        record: &Record,
    ) -> Box<LocalReply> {
        let flags = ResponseFlags::RATE_LIMITED;
        let mut local =
            LocalReply::new(limit.status, "local_rate_limited", Details::LOCAL_RATE_LIMITED, flags);
        for edit in &limit.response_headers {
            let value = self.rendered(edit, head, record);
            add_field(&mut local.fields, edit, &value);
            self.state.keep_scratch(value);
        }
        if let Some(told) = told {
            if limit.retry_after {
                append_number(&mut local.fields, b"retry-after", told.reset_s);
            }
            if limit.rate_limit_headers {
                told.write(&mut local.fields);
            }
        }
        local.grpc_status = limit.grpc_resource_exhausted.then_some(reply::GRPC_RESOURCE_EXHAUSTED);
        Box::new(local)
    }

    /// In a scratch buffer, to be given back.
    fn rendered(&self, edit: &HeaderEdit, head: &RequestHead, record: &Record) -> Vec<u8> {
        let mut value = self.state.scratch();
        let scene = Scene::request(self.state, self.link, head, record);
        render::template(&edit.value, &scene, &mut value);
        value
    }

    fn fault(&self, head: &RequestHead, record: &mut Record) -> Result<(), Box<LocalReply>> {
        let fault: Option<&Arc<Fault>> = self.at(|level| level.fault.as_ref());
        let Some(fault) = fault.or(self.hcm.filters.fault.as_ref()) else { return Ok(()) };
        let state = self.state;
        let active = &state.shared.faults_active;
        let asked = fault::FaultFacts { head, cluster: self.cluster };
        let injected = fault::inject(fault, &asked, active, &mut state.rng.borrow_mut());
        let stats = Block::from_raw(self.hcm.stats.fault.0);
        if injected.overflow {
            state.shard.inc(stats, FaultStat::FaultsOverflow);
        }
        if !injected.is_active() {
            return Ok(());
        }
        // given back when the delay is over; an abort without delay is over at once
        let held = record.fault(stats, injected.delay.unwrap_or_default());
        if injected.delay.is_some() {
            state.shard.inc(stats, FaultStat::DelaysInjected);
            record.outcome.flags |= ResponseFlags::DELAY_INJECTED;
            record.fault_delay = Some(held);
        }
        let Some(abort) = injected.abort else { return Ok(()) };
        state.shard.inc(stats, FaultStat::AbortsInjected);
        let (status, grpc) = match abort {
            fault::Abort::Http(status) => (status, None),
            fault::Abort::Grpc(code) => (200, Some(code as u8)),
        };
        let details = Details::FAULT_FILTER_ABORT;
        let mut local = LocalReply::new(status, "fault filter abort", details, ResponseFlags::FAULT_INJECTED);
        local.grpc_status = grpc;
        Err(Box::new(local))
    }

    fn cors(&self, head: &RequestHead) -> Result<Option<Readable<'a>>, Box<LocalReply>> {
        if !self.hcm.filters.cors {
            return Ok(None);
        }
        let policies = Policies(self.levels.map(|level| level.and_then(|level| level.cors.as_deref())));
        let shard = &self.state.shard;
        let stats = Block::from_raw(self.hcm.stats.cors.0);
        let verdict = cors::check(&policies, head, &mut self.state.rng.borrow_mut());
        match verdict {
            CorsVerdict::NotCors => Ok(None),
            CorsVerdict::Watched { allowed } => {
                shard.inc(stats, if allowed { CorsStat::OriginValid } else { CorsStat::OriginInvalid });
                Ok(None)
            }
            CorsVerdict::Allowed { origin } => {
                shard.inc(stats, CorsStat::OriginValid);
                Ok(Some((policies, origin.into())))
            }
            CorsVerdict::NotAllowed => {
                shard.inc(stats, CorsStat::OriginInvalid);
                Ok(None)
            }
            CorsVerdict::Preflight { origin, private_network } => {
                shard.inc(stats, CorsStat::OriginValid);
                let mut local = LocalReply::new(200, "", Details::new("cors_response"), ResponseFlags::NONE);
                cors::preflight_fields(&policies, head, origin, private_network, |known, value| {
                    local.fields.set(known, value)
                });
                Err(Box::new(local))
            }
            CorsVerdict::PreflightRefused => {
                shard.inc(stats, CorsStat::OriginInvalid);
                Err(Box::new(LocalReply::new(200, "", Details::new("cors_response"), ResponseFlags::NONE)))
            }
        }
    }
}

/// What the filters add to an upstream's answer. The origin is the one that came: header rules may change the
/// request's afterwards.
pub(crate) struct FilterFields<'a> {
    cors: Option<Readable<'a>>,
    rate: Option<RateFields>,
}

impl FilterFields<'_> {
    pub fn write(&self, head: &mut ResponseHead) {
        if let Some((policies, origin)) = &self.cors {
            cors::response_fields(policies, origin, |known, value| head.fields.set(known, value));
        }
        self.rate.iter().for_each(|rate| rate.write(&mut head.fields));
    }
}

/// By what policies, and for which origin.
type Readable<'a> = (Policies<'a>, Box<[u8]>);

/// enable_x_ratelimit_headers: Envoy has them on every answer, of the upstream's too.
#[derive(Clone, Copy)]
struct RateFields {
    limit: u32,
    remaining: u32,
    reset_s: u64,
}

impl RateFields {
    fn of(bucket: &TokenBucket, now_ns: u64) -> Self {
        RateFields {
            limit: bucket.tokens_max,
            remaining: rate_limit::remaining(bucket, now_ns),
            reset_s: rate_limit::reset_s(bucket, now_ns),
        }
    }

    fn write(&self, fields: &mut Fields) {
        append_number(fields, b"x-ratelimit-limit", self.limit.into());
        append_number(fields, b"x-ratelimit-remaining", self.remaining.into());
        append_number(fields, b"x-ratelimit-reset", self.reset_s);
    }
}

fn append_number(fields: &mut Fields, name: &[u8], value: u64) {
    // the names are tokens
    let _ = fields.append(name, Decimal::default().write(value));
}

fn add_field(fields: &mut Fields, edit: &HeaderEdit, value: &[u8]) {
    if !value.is_empty() || edit.keep_empty_value {
        headers::apply_edit(fields, &edit.name, edit.append, value);
    }
}

/// The network filters of a connection's chain, in their order.
///
/// # Errors
/// The connection is refused, and counted; by what, in Envoy's words, where there are any.
pub(crate) fn admit(state: &CoreState, link: &Link) -> Result<(), Details> {
    for filter in &link.chain.network_filters {
        match filter {
            NetworkFilter::LocalRateLimit(limit) => {
                let mut rng = state.rng.borrow_mut();
                let judged = rate_limit::check(limit, &limit.buckets, None, state.now().as_u64(), &mut rng);
                if matches!(judged.verdict, RateVerdict::Limited { enforced: true }) {
                    let stats = Block::from_raw(limit.stats.0);
                    state.shard.inc(stats, NetworkRateLimitStat::RateLimited);
                    return Err(Details::NONE);
                }
            }
            NetworkFilter::Rbac(rbac) => admit_by_rules(state, link, rbac)?,
        }
    }
    Ok(())
}

fn admit_by_rules(state: &CoreState, link: &Link, rbac: &Rbac) -> Result<(), Details> {
    let stats = Block::from_raw(rbac.stats.0);
    let verdict = authorize::verdict(rbac, &facts(link, None, link.facts.remote.ip()));
    if let Some(allowed) = verdict.shadow_allowed() {
        let stat = if allowed { NetworkRbacStat::ShadowAllowed } else { NetworkRbacStat::ShadowDenied };
        state.shard.inc(Block::from_raw(rbac.shadow_stats.0), stat);
    }
    if verdict.is_allowed() {
        if rbac.rules.is_some() {
            state.shard.inc(stats, NetworkRbacStat::Allowed);
        }
        return Ok(());
    }
    state.shard.inc(stats, NetworkRbacStat::Denied);
    Err(denied_by(verdict.policy()))
}

fn denied_by(policy: Option<&str>) -> Details {
    Details::concat(&["rbac_access_denied_matched_policy[", policy.unwrap_or("none"), "]"])
}

/// What RBAC judges by.
pub(crate) fn facts<'a>(
    link: &'a Link,
    head: Option<&'a RequestHead>,
    client: IpAddr,
) -> authorize::Facts<'a> {
    authorize::Facts {
        head,
        destination: link.facts.local,
        direct_source: link.facts.direct_remote,
        source: link.facts.remote,
        remote: client,
        server_name: link.facts.server_name.as_deref().or_else(|| link.conn.tls().and_then(|tls| tls.sni())),
        peer: link.peer().filter(|peer| peer.validated).map(|peer| authorize::Peer {
            uri_sans: peer.uri_sans(),
            dns_sans: peer.dns_sans(),
            subject: peer.subject(),
            ip_sans: &peer.info.ip_sans,
            email_sans: &peer.info.email_sans,
        }),
        route_metadata: None,
    }
}
