//! The endpoints of a cluster by priority, and how one of them is found.

use super::{
    Entry, Membership, PickContext, SCAN_MAX,
    healthy::{Counts, Load, Source, Usability, loads, usability},
    hosts::{Hosts, slow_start_of},
    locality::Localities,
    maglev::Maglev,
    ring_hash::Ring,
    slow_start,
};
use crate::Rng;
use corelane_snapshot::{ClusterConfig, EndpointSet, LbPolicy};

/// Priorities that a retry can avoid, lest a bit is missing; more than any cluster has.
const AVOIDABLE_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Priorities {
    /// By index into the set.
    usable: Vec<Usability>,
    /// Members of each priority, by index into the set.
    members: Vec<Vec<u32>>,
    loads: Vec<Load>,
    /// One for each load.
    groups: Vec<Group>,
    /// The healthy of each priority, for retries that avoid priorities; empty where there is only one.
    healthy: Vec<Group>,
    /// By priority; built when first asked for.
    tables: Vec<Option<Table>>,
    /// Weights change by themselves until then.
    slow_until_ns: u64,
    membership: Membership,
}

#[derive(Debug)]
struct Group {
    hosts: Hosts,
    localities: Option<Localities>,
}

#[derive(Debug)]
enum Table {
    Ring(Ring),
    Maglev(Maglev),
}

impl Priorities {
    pub fn new(
        config: &ClusterConfig,
        set: &EndpointSet,
        all: Vec<u32>,
        now_ns: u64,
        rng: &mut Rng,
    ) -> Priorities {
        let usable: Vec<Usability> =
            set.endpoints.iter().map(|endpoint| usability(config, endpoint)).collect();
        let mut members = vec![Vec::new(); set.priorities.max(1) as usize];
        for index in all {
            if let Some(priority) = members.get_mut(set.endpoints[index as usize].priority as usize) {
                priority.push(index);
            }
        }
        let counts: Vec<Counts> = members.iter().map(|members| count(members, &usable)).collect();
        let loads = loads(config, set.overprovisioning_factor, &counts);
        let group =
            |load: &Load| Group::new(config, set, &members[load.priority], &usable, load, now_ns, rng);
        let groups = loads.iter().map(group).collect();
        let whole = |priority| Load { below: 100, priority, source: Some(Source::Healthy) };
        let healthy: Vec<Load> = match members.len() {
            1 => Vec::new(),
            priorities => (0..priorities.min(AVOIDABLE_MAX)).map(whole).collect(),
        };
        let healthy = healthy
            .iter()
            .map(|load| Group::new(config, set, &members[load.priority], &usable, load, now_ns, rng))
            .collect();
        let slow_until = |index: &u32| match slow_start_of(&config.lb) {
            Some(slow) => slow_start::until_ns(slow, &set.endpoints[*index as usize].live),
            None => 0,
        };
        let slow_until_ns = members.iter().flatten().map(slow_until).filter(|&until| until > now_ns).max();
        Priorities {
            membership: membership(&members, &usable, &loads),
            tables: members.iter().map(|_| None).collect(),
            slow_until_ns: slow_until_ns.unwrap_or(u64::MAX),
            usable,
            members,
            loads,
            groups,
            healthy,
        }
    }

    /// Slow start is over and even turns may come back.
    #[inline]
    pub fn is_stale(&self, now_ns: u64) -> bool {
        now_ns >= self.slow_until_ns
    }

    pub fn take_tables(&mut self, old: &mut Priorities) {
        std::mem::swap(&mut self.tables, &mut old.tables);
    }

    pub fn membership(&self) -> Membership {
        self.membership
    }

    /// Index into the set.
    #[inline]
    pub fn pick(
        &mut self,
        config: &ClusterConfig,
        set: &EndpointSet,
        context: &PickContext<'_>,
        rng: &mut Rng,
    ) -> Option<u32> {
        if context.avoid_priorities != 0
            && let Some(index) = self.pick_elsewhere(config, set, context, rng)
        {
            return Some(index);
        }
        let at = match self.loads.len() {
            0 => return None,
            1 => 0,
            _ => {
                // a key stays in its priority while health does not change
                let draw = context.hash.map_or_else(|| rng.below(100), |hash| hash % 100) as u32;
                self.loads.iter().position(|load| draw < load.below)?
            }
        };
        let load = self.loads[at];
        let source = load.source?;
        if let LbPolicy::RingHash(_) | LbPolicy::Maglev(_) = config.lb {
            let hash = context.hash.unwrap_or_else(|| rng.next_u64());
            return self.pick_by_hash(config, set, load.priority, source, hash, context);
        }
        let group = &mut self.groups[at];
        if context.tried.is_empty() && !context.omit_canary {
            return group.pick(config, set, context.now_ns, rng);
        }
        group.pick_other(config, set, context, rng)
    }

    /// In the first priority that was not tried and has somebody healthy.
    fn pick_elsewhere(
        &mut self,
        config: &ClusterConfig,
        set: &EndpointSet,
        context: &PickContext<'_>,
        rng: &mut Rng,
    ) -> Option<u32> {
        let mut untried = (0..)
            .zip(&mut self.healthy)
            .filter(|(priority, _)| context.avoid_priorities >> priority & 1 == 0);
        untried.find_map(|(_, group)| group.pick_other(config, set, context, rng))
    }

    fn pick_by_hash(
        &mut self,
        config: &ClusterConfig,
        set: &EndpointSet,
        priority: usize,
        source: Source,
        hash: u64,
        context: &PickContext<'_>,
    ) -> Option<u32> {
        let Priorities { tables, members, usable, .. } = self;
        let table = tables[priority].get_or_insert_with(|| Table::new(config, set, &members[priority]));
        let is_usable = |index: &u32| source.admits(usable[*index as usize]);
        let is_wanted = |index: &u32| is_usable(index) && is_new(set, *index, context);
        match table {
            Table::Ring(ring) => {
                ring.order(hash).find(is_wanted).or_else(|| ring.order(hash).find(is_usable))
            }
            Table::Maglev(maglev) => {
                // each further probe is another slot of the same key
                let probe = |n: usize| maglev.at(hash ^ (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
                let probed = (0..SCAN_MAX).filter_map(probe).find(is_wanted);
                let scanned = || members[priority].iter().copied().find(is_wanted);
                probed.or_else(scanned).or_else(|| (0..SCAN_MAX).filter_map(probe).find(is_usable))
            }
        }
    }
}

fn membership(members: &[Vec<u32>], usable: &[Usability], loads: &[Load]) -> Membership {
    let mut membership = Membership {
        panic: loads.iter().any(|load| !matches!(load.source, Some(Source::Healthy | Source::Degraded))),
        ..Membership::default()
    };
    for &index in members.iter().flatten() {
        membership.total += 1;
        match usable[index as usize] {
            Usability::Healthy => membership.healthy += 1,
            Usability::Degraded => membership.degraded += 1,
            Usability::Excluded => membership.excluded += 1,
            Usability::Unhealthy => {}
        }
    }
    membership
}

fn count(members: &[u32], usable: &[Usability]) -> Counts {
    members.iter().fold(Counts::default(), |counts, &index| {
        let usability = usable[index as usize];
        Counts {
            healthy: counts.healthy + u32::from(usability == Usability::Healthy),
            degraded: counts.degraded + u32::from(usability == Usability::Degraded),
            total: counts.total + u32::from(usability != Usability::Excluded),
        }
    })
}

fn is_new(set: &EndpointSet, index: u32, context: &PickContext<'_>) -> bool {
    let endpoint = &set.endpoints[index as usize];
    let unwanted = context.omit_canary && endpoint.canary;
    !unwanted && !context.tried.contains(&endpoint.id)
}

impl Group {
    fn new(
        config: &ClusterConfig,
        set: &EndpointSet,
        all: &[u32],
        usable: &[Usability],
        load: &Load,
        now_ns: u64,
        rng: &mut Rng,
    ) -> Group {
        let admitted = |index: &u32| load.source.is_some_and(|source| source.admits(usable[*index as usize]));
        let members: Vec<u32> = all.iter().copied().filter(admitted).collect();
        // Envoy: in panic localities do not count
        let weighted = config.common_lb.locality_weighted && load.source != Some(Source::All);
        let counted: Vec<u32> =
            all.iter().copied().filter(|&index| usable[index as usize] != Usability::Excluded).collect();
        let localities = match weighted {
            true => Localities::new(set, &members, &counted, &config.lb, now_ns, rng),
            false => None,
        };
        Group { hosts: Hosts::new(set, members, &config.lb, now_ns, rng), localities }
    }

    #[inline]
    fn pick(&mut self, config: &ClusterConfig, set: &EndpointSet, now_ns: u64, rng: &mut Rng) -> Option<u32> {
        let hosts = match &mut self.localities {
            Some(localities) => localities.next()?,
            None => &mut self.hosts,
        };
        hosts.pick(set, &config.lb, now_ns, rng)
    }

    /// For a retry: one that was not tried, or failing that anybody.
    fn pick_other(
        &mut self,
        config: &ClusterConfig,
        set: &EndpointSet,
        context: &PickContext<'_>,
        rng: &mut Rng,
    ) -> Option<u32> {
        let mut picked = None;
        for _ in 0..=context.attempts_max.max(1) {
            let hosts = match &mut self.localities {
                Some(localities) => localities.next()?,
                None => &mut self.hosts,
            };
            picked = hosts.pick_other(set, &config.lb, context.now_ns, rng);
            if picked.is_some_and(|index| is_new(set, index, context)) {
                return picked;
            }
        }
        let members = self.hosts.members();
        let start = rng.below(members.len() as u64) as usize;
        let scan = members[start..].iter().chain(&members[..start]).take(SCAN_MAX);
        scan.copied().find(|&index| is_new(set, index, context)).or(picked)
    }
}

impl Table {
    fn new(config: &ClusterConfig, set: &EndpointSet, members: &[u32]) -> Table {
        let entries = entries(config, set, members);
        match &config.lb {
            LbPolicy::Maglev(hash) => Table::Maglev(Maglev::new(set, hash, &entries)),
            LbPolicy::RingHash(hash) => Table::Ring(Ring::new(set, hash, &entries)),
            // only asked for by the two above
            _ => Table::Maglev(Maglev::empty()),
        }
    }
}

/// Shares of the keys: weight, within the locality's weight where localities have them. They sum to 1.
fn entries(config: &ClusterConfig, set: &EndpointSet, members: &[u32]) -> Vec<Entry> {
    let host_weight = |index: u32| f64::from(set.endpoints[index as usize].weight.max(1));
    let locality = |index: u32| set.endpoints[index as usize].locality;
    let mut entries = Vec::with_capacity(members.len());
    for part in members.chunk_by(|&a, &b| locality(a) == locality(b)) {
        let configured = set.localities.get(locality(part[0]) as usize).and_then(|l| l.weight);
        let in_part: f64 = part.iter().map(|&index| host_weight(index)).sum();
        let scale = match configured {
            Some(weight) if config.common_lb.locality_weighted => f64::from(weight) / in_part,
            None if config.common_lb.locality_weighted => 0.0,
            _ => 1.0,
        };
        entries.extend(part.iter().map(|&index| Entry { index, weight: host_weight(index) * scale }));
    }
    if entries.iter().all(|entry| entry.weight <= 0.0) {
        entries.iter_mut().for_each(|entry| entry.weight = host_weight(entry.index));
    }
    entries.retain(|entry| entry.weight > 0.0);
    let sum: f64 = entries.iter().map(|entry| entry.weight).sum();
    entries.iter_mut().for_each(|entry| entry.weight /= sum);
    entries
}
