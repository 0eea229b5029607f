//! The optional stages between routing and forwarding, in the order in which they act: RBAC, local rate limit,
//! fault, CORS. A stage that is not configured costs the look at an Option; the most specific level that
//! configures one (weighted cluster, route, virtual host, table, manager) decides.

use crate::{exchange::LocalReply, headers::Decimal, link::Link, record::Record, reply, state::CoreState};
use corelane_http::{RequestHead, ResponseHead};
use corelane_snapshot::{
    ClusterId, CorsPolicy, Fault, HttpConnectionManager, LocalRateLimit, NetworkFilter, PerRouteFilters, Rbac,
};
use corelane_telemetry::{
    Block, CorsStat, Details, FaultStat, HttpRbacStat, LocalRateLimitStat, NetworkRateLimitStat,
    NetworkRbacStat, ResponseFlags,
};
use corelane_traffic::{
    authorize,
    cors::{self, CorsVerdict},
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
        head: &RequestHead,
        record: &mut Record,
    ) -> Result<Option<CorsAnswer<'a>>, Box<LocalReply>> {
        self.authorize(head, record)?;
        self.limit()?;
        self.fault(head, record)?;
        self.cors(head)
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
                shard.inc(stats, HttpRbacStat::Allowed);
                continue;
            }
            shard.inc(stats, HttpRbacStat::Denied);
            let details = denied_by(verdict.policy());
            record.denied();
            return Err(Box::new(LocalReply::new(403, "RBAC: access denied", details, ResponseFlags::NONE)));
        }
        Ok(())
    }

    fn limit(&self) -> Result<(), Box<LocalReply>> {
        let limit: Option<&Arc<LocalRateLimit>> = self.at(|level| level.local_rate_limit.as_ref());
        let Some(limit) = limit.or(self.hcm.filters.local_rate_limit.as_ref()) else { return Ok(()) };
        let now_ns = self.state.now().as_u64();
        let shard = &self.state.shard;
        let stats = Block::from_raw(limit.stats.0);
        let verdict = rate_limit::check(limit, now_ns, &mut self.state.rng.borrow_mut());
        if verdict != RateVerdict::NotSampled {
            shard.inc(stats, LocalRateLimitStat::Enabled);
        }
        match verdict {
            RateVerdict::NotSampled => Ok(()),
            RateVerdict::Allowed => {
                shard.inc(stats, LocalRateLimitStat::Ok);
                Ok(())
            }
            RateVerdict::Limited { enforced } => {
                shard.inc(stats, LocalRateLimitStat::RateLimited);
                if !enforced {
                    return Ok(());
                }
                shard.inc(stats, LocalRateLimitStat::Enforced);
                Err(self.limited(limit, now_ns))
            }
        }
    }

    fn limited(&self, limit: &LocalRateLimit, now_ns: u64) -> Box<LocalReply> {
        let flags = ResponseFlags::RATE_LIMITED;
        let mut local =
            LocalReply::new(limit.status, "local_rate_limited", Details::LOCAL_RATE_LIMITED, flags);
        let mut number = |name: &[u8], value: u64| {
            // the names are tokens
            let _ = local.fields.append(name, Decimal::default().write(value));
        };
        if limit.rate_limit_headers {
            number(b"x-ratelimit-limit", limit.bucket.tokens_max.into());
            number(b"x-ratelimit-remaining", rate_limit::remaining(&limit.bucket, now_ns).into());
            number(b"x-ratelimit-reset", rate_limit::reset_s(&limit.bucket, now_ns));
        }
        for edit in &limit.response_headers {
            if let [corelane_snapshot::template::Part::Literal(value)] = &edit.value.parts[..] {
                let _ = local.fields.append(edit.name.as_bytes(), value);
            }
        }
        local.grpc_status = limit.grpc_resource_exhausted.then_some(reply::GRPC_RESOURCE_EXHAUSTED);
        Box::new(local)
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

    fn cors_policy(&self) -> Option<&'a Arc<CorsPolicy>> {
        if self.hcm.filters.cors { self.at(|level| level.cors.as_ref()) } else { None }
    }

    fn cors(&self, head: &RequestHead) -> Result<Option<CorsAnswer<'a>>, Box<LocalReply>> {
        let Some(policy) = self.cors_policy() else { return Ok(None) };
        let shard = &self.state.shard;
        let stats = Block::from_raw(self.hcm.stats.cors.0);
        let verdict = cors::check(policy, head, &mut self.state.rng.borrow_mut());
        match verdict {
            CorsVerdict::NotCors => Ok(None),
            CorsVerdict::Watched { allowed } => {
                shard.inc(stats, if allowed { CorsStat::OriginValid } else { CorsStat::OriginInvalid });
                Ok(None)
            }
            CorsVerdict::Allowed { origin } => {
                shard.inc(stats, CorsStat::OriginValid);
                Ok(Some(CorsAnswer { policy, origin: origin.into() }))
            }
            CorsVerdict::NotAllowed => {
                shard.inc(stats, CorsStat::OriginInvalid);
                Ok(None)
            }
            CorsVerdict::Preflight { origin, private_network } => {
                shard.inc(stats, CorsStat::OriginValid);
                let mut local = LocalReply::new(200, "", Details::new("cors_response"), ResponseFlags::NONE);
                cors::preflight_fields(policy, origin, private_network, |known, value| {
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

/// What the verdict on a request adds to its answer. The origin is the one that came: header rules may change the
/// request's afterwards.
pub(crate) struct CorsAnswer<'a> {
    policy: &'a CorsPolicy,
    origin: Box<[u8]>,
}

impl CorsAnswer<'_> {
    pub fn write(&self, head: &mut ResponseHead) {
        cors::response_fields(self.policy, &self.origin, |known, value| head.fields.set(known, value));
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
                let verdict = rate_limit::check(limit, state.now().as_u64(), &mut state.rng.borrow_mut());
                if matches!(verdict, RateVerdict::Limited { enforced: true }) {
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
        state.shard.inc(stats, NetworkRbacStat::Allowed);
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
