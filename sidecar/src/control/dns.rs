//! Clusters whose endpoints are names: STRICT_DNS and LOGICAL_DNS. Each name is asked for again at the cluster's refresh
//! rate or when its records expire; a new set of endpoints is made only where an answer differs. What was known stays
//! when a question fails. An answer that says nothing is there empties the name, as in Envoy.

use super::{process::Process, resolver::Answer};
use corelane_snapshot::{ClusterKind, DnsFamily};
use corelane_telemetry::{Block, ClusterManagerStat, ClusterStat};
use corelane_xds::translate::DnsCluster;
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::IpAddr,
    rc::Rc,
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore},
    time::{sleep, timeout},
};

/// Questions under way at once.
const QUESTIONS_MAX: usize = 64;

/// Whatever a record's lifetime is, it is not asked for more often.
const REFRESH_MIN: Duration = Duration::from_secs(1);

/// The cores start after this, resolved or not: endpoints come when they come.
const FIRST_ANSWERS_WAIT: Duration = Duration::from_secs(5);

/// How a cluster's names are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Schedule {
    refresh: Duration,
    respect_ttl: bool,
    family: DnsFamily,
    jitter: Duration,
    failure: Option<(Duration, Duration)>,
}

impl Schedule {
    fn of(cluster: &DnsCluster) -> Option<Schedule> {
        let (refresh, respect_ttl, family) = match cluster.config.kind {
            ClusterKind::StrictDns { refresh, respect_ttl, family }
            | ClusterKind::LogicalDns { refresh, respect_ttl, family } => (refresh, respect_ttl, family),
            _ => return None,
        };
        Some(Schedule {
            refresh,
            respect_ttl,
            family,
            jitter: cluster.jitter,
            failure: cluster.failure_refresh,
        })
    }

    /// The wait after an answer, or after `failures` failures in a row. `draw` is uniform over u64.
    fn wait(&self, ttl: Option<Duration>, failures: u32, draw: u64) -> Duration {
        let base = match (failures, self.failure) {
            // cluster.proto, dns_failure_refresh_rate: "exponential backoff"
            (1.., Some((first, longest))) => first.saturating_mul(1 << (failures - 1).min(16)).min(longest),
            (0, _) if self.respect_ttl => ttl.unwrap_or(self.refresh),
            _ => self.refresh,
        };
        let jitter_ns = u64::try_from(self.jitter.as_nanos()).unwrap_or(u64::MAX);
        base.max(REFRESH_MIN) + Duration::from_nanos(draw.checked_rem(jitter_ns).unwrap_or(0))
    }
}

/// One cluster and what its names stand for now.
struct Resolved {
    cluster: DnsCluster,
    answers: RefCell<HashMap<String, Vec<IpAddr>>>,
}

/// Counts the names that were not asked for yet.
struct FirstAnswers {
    open: Cell<usize>,
    all: Notify,
}

impl FirstAnswers {
    fn one(&self) {
        self.open.set(self.open.get().saturating_sub(1));
        if self.open.get() == 0 {
            self.all.notify_one();
        }
    }
}

/// Follows the names of all clusters, for ever, each in a task of its own. Returns when every name was asked for once,
/// or after a few seconds. Runs inside a `LocalSet`.
pub async fn follow(process: &Rc<Process>, clusters: Vec<DnsCluster>) {
    let clusters: Vec<Rc<Resolved>> = clusters
        .into_iter()
        .filter(|cluster| Schedule::of(cluster).is_some())
        .map(|cluster| Rc::new(Resolved { cluster, answers: RefCell::default() }))
        .collect();
    let names: usize = clusters.iter().map(|resolved| resolved.cluster.names().len()).sum();
    if names == 0 {
        return;
    }
    let first = Rc::new(FirstAnswers { open: Cell::new(names), all: Notify::new() });
    let questions = Rc::new(Semaphore::new(QUESTIONS_MAX));
    for resolved in clusters {
        let Some(schedule) = Schedule::of(&resolved.cluster) else { continue };
        let names: Vec<String> = resolved.cluster.names().into_iter().map(str::to_owned).collect();
        for name in names {
            let follower = Follower {
                process: process.clone(),
                resolved: resolved.clone(),
                questions: questions.clone(),
                first: first.clone(),
                schedule,
                name,
            };
            tokio::task::spawn_local(follower.run());
        }
    }
    if timeout(FIRST_ANSWERS_WAIT, first.all.notified()).await.is_err() {
        tracing::warn!(
            "{} names are not resolved after {} s; starting without their endpoints",
            first.open.get(),
            FIRST_ANSWERS_WAIT.as_secs()
        );
    }
    process.configuration.publish();
}

struct Follower {
    process: Rc<Process>,
    resolved: Rc<Resolved>,
    questions: Rc<Semaphore>,
    first: Rc<FirstAnswers>,
    schedule: Schedule,
    name: String,
}

impl Follower {
    async fn run(self) {
        let mut failures = 0;
        let mut asked = false;
        loop {
            let answer = self.ask().await;
            let ttl = answer.as_ref().ok().and_then(|answer| answer.ttl);
            match answer {
                Ok(answer) => {
                    if failures > 0 {
                        tracing::info!(cluster = self.cluster_name(), "{}: resolved again", self.name);
                    }
                    failures = 0;
                    self.take(&answer);
                }
                Err(reason) => {
                    failures += 1;
                    self.count(ClusterStat::UpdateFailure);
                    if failures == 1 {
                        tracing::warn!(
                            cluster = self.cluster_name(),
                            "{}: cannot resolve: {reason}; keeping the endpoints known before",
                            self.name
                        );
                    }
                }
            }
            if !std::mem::replace(&mut asked, true) {
                self.first.one();
            }
            sleep(self.schedule.wait(ttl, failures, draw())).await;
        }
    }

    async fn ask(&self) -> Result<Answer, String> {
        let Some(resolver) = &self.process.resolver else {
            return Err("there is no resolver; is /etc/resolv.conf readable?".to_owned());
        };
        // never closed: an error can't come
        let _permit = self.questions.acquire().await.map_err(|e| e.to_string())?;
        self.count(ClusterStat::UpdateAttempt);
        resolver.resolve(&self.name, self.schedule.family).await
    }

    /// Makes new endpoints where the answer is another than before.
    fn take(&self, answer: &Answer) {
        self.count(ClusterStat::UpdateSuccess);
        if answer.addresses.is_empty() {
            self.count(ClusterStat::UpdateEmpty);
        }
        let is_logical = matches!(self.resolved.cluster.config.kind, ClusterKind::LogicalDns { .. });
        let mut answers = self.resolved.answers.borrow_mut();
        let before = answers.get(&self.name).map(Vec::as_slice);
        let now = order(before.unwrap_or_default(), answer, is_logical);
        if before == Some(now.as_slice()) {
            return self.count(ClusterStat::UpdateNoRebuild);
        }
        tracing::debug!(cluster = self.cluster_name(), "{}: {} addresses", self.name, now.len());
        answers.insert(self.name.clone(), now);
        let stats = &self.process.stats;
        stats.inc(stats.clusters, ClusterManagerStat::ClusterUpdated);
        let cluster = &self.resolved.cluster;
        self.process.configuration.change(|builder| {
            let endpoints = cluster.endpoints(builder, &answers);
            // false where the cluster was removed meanwhile: nothing to tell
            builder.put_endpoints(cluster.config.id, endpoints.into());
        });
    }

    fn cluster_name(&self) -> &str {
        &self.resolved.cluster.config.name
    }

    fn count(&self, stat: ClusterStat) {
        let block = Block::from_raw(self.resolved.cluster.config.stats.cluster.0);
        self.process.stats.inc(block, stat);
    }
}

/// Sorted, so that a server that rotates its answers changes nothing. Of a logical cluster the first address counts:
/// the one in use stays first as long as it is in the answer.
fn order(before: &[IpAddr], answer: &Answer, is_logical: bool) -> Vec<IpAddr> {
    let mut now: Vec<IpAddr> = answer.addresses.iter().copied().collect();
    if is_logical {
        let in_use = before.first().and_then(|used| now.iter().position(|address| address == used));
        if let Some(at) = in_use {
            now[..=at].rotate_right(1);
        }
        now.truncate(1);
    }
    now
}

/// For jitter only.
fn draw() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests;
