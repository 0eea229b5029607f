//! A list of endpoints that one policy picks from, and what they weigh at this moment.

use super::{least_request::LeastRequest, random, round_robin::RoundRobin, slow_start};
use crate::Rng;
use corelane_snapshot::{EndpointSet, LbPolicy, SlowStart};
use std::sync::atomic::Ordering::Relaxed;

/// Indices into the endpoint set.
#[derive(Debug)]
pub(super) struct Hosts {
    members: Vec<u32>,
    even: bool,
    /// Somebody starts slowly: weights change with time, until the view is built anew.
    starting: bool,
    greatest: f64,
    picker: Picker,
}

#[derive(Debug)]
enum Picker {
    RoundRobin(RoundRobin),
    LeastRequest(LeastRequest),
    Random,
}

/// Weights of a list's members, by number in the list.
pub(super) struct Weights<'a> {
    set: &'a EndpointSet,
    members: &'a [u32],
    slow_start: Option<&'a SlowStart>,
    now_ns: u64,
    even: bool,
    greatest: f64,
}

impl Weights<'_> {
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// All the same, now and until the view is built anew.
    pub fn are_even(&self) -> bool {
        self.even
    }

    /// Time changes them.
    pub fn are_changing(&self) -> bool {
        self.slow_start.is_some()
    }

    pub fn greatest(&self) -> f64 {
        self.greatest
    }

    pub fn of(&self, member: u32) -> f64 {
        let endpoint = &self.set.endpoints[self.members[member as usize] as usize];
        let weight = f64::from(endpoint.weight.max(1));
        match self.slow_start {
            Some(config) => weight * slow_start::factor(config, &endpoint.live, self.now_ns),
            None => weight,
        }
    }

    pub fn active(&self, member: u32) -> u32 {
        self.set.endpoints[self.members[member as usize] as usize].live.requests_active.load(Relaxed)
    }
}

pub(super) fn slow_start_of(policy: &LbPolicy) -> Option<&SlowStart> {
    match policy {
        LbPolicy::RoundRobin { slow_start } | LbPolicy::LeastRequest { slow_start, .. } => {
            slow_start.as_ref()
        }
        _ => None,
    }
}

impl Hosts {
    pub fn new(set: &EndpointSet, members: Vec<u32>, policy: &LbPolicy, now_ns: u64, rng: &mut Rng) -> Hosts {
        let weight = |&member: &u32| set.endpoints[member as usize].weight.max(1);
        let starting = slow_start_of(policy).is_some_and(|config| {
            members.iter().any(|&m| slow_start::until_ns(config, &set.endpoints[m as usize].live) > now_ns)
        });
        let greatest = members.iter().map(weight).max().unwrap_or(1);
        let least = members.iter().map(weight).min().unwrap_or(1);
        let mut hosts = Hosts {
            members,
            even: greatest == least && !starting,
            starting,
            greatest: f64::from(greatest),
            picker: Picker::Random,
        };
        let weights = hosts.weights(set, policy, now_ns);
        hosts.picker = match policy {
            LbPolicy::LeastRequest { choices, active_request_bias, .. } => {
                Picker::LeastRequest(LeastRequest::new(*choices, *active_request_bias, &weights, rng))
            }
            LbPolicy::Random => Picker::Random,
            // tables are asked first; this is for what they do not decide
            LbPolicy::RingHash(_) | LbPolicy::Maglev(_) => Picker::Random,
            LbPolicy::RoundRobin { .. } | LbPolicy::ClusterProvided => {
                Picker::RoundRobin(RoundRobin::new(&weights, rng))
            }
        };
        hosts
    }

    pub fn members(&self) -> &[u32] {
        &self.members
    }

    fn weights<'a>(&'a self, set: &'a EndpointSet, policy: &'a LbPolicy, now_ns: u64) -> Weights<'a> {
        Weights {
            set,
            members: &self.members,
            slow_start: slow_start_of(policy).filter(|_| self.starting),
            now_ns,
            even: self.even,
            greatest: self.greatest,
        }
    }

    /// Index into the set.
    #[inline]
    pub fn pick(&mut self, set: &EndpointSet, policy: &LbPolicy, now_ns: u64, rng: &mut Rng) -> Option<u32> {
        let Hosts { members, even, starting, greatest, picker } = self;
        let weights = Weights {
            set,
            members,
            slow_start: if *starting { slow_start_of(policy) } else { None },
            now_ns,
            even: *even,
            greatest: *greatest,
        };
        let member = match picker {
            Picker::RoundRobin(picker) => picker.pick(&weights),
            Picker::LeastRequest(picker) => picker.pick(&weights, rng),
            Picker::Random => random::pick(&weights, rng),
        };
        member.map(|member| members[member as usize])
    }

    /// For a retry: by weight, without taking anybody's turn. Otherwise a retry of each request that met a broken
    /// endpoint would bring the next request to that same endpoint.
    pub fn pick_other(
        &self,
        set: &EndpointSet,
        policy: &LbPolicy,
        now_ns: u64,
        rng: &mut Rng,
    ) -> Option<u32> {
        let weights = self.weights(set, policy, now_ns);
        random::pick(&weights, rng).map(|member| self.members[member as usize])
    }
}
