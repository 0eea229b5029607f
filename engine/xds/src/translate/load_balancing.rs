//! Load balancing policies, from `lb_policy` or from a LoadBalancingPolicy of typed extensions.

use super::{
    Context, api, extension,
    values::{any_type, decode, duration, misplaced},
};
use api::{
    cluster::cluster::{LbConfig, LbPolicy as Policy, common_lb_config::LocalityConfigSpecifier},
    lb::common::v3::locality_lb_config::LocalityConfigSpecifier as TypedLocality,
};
use corelane_snapshot::{ClusterKind, CommonLb, HashLb, LbPolicy, SlowStart};

/// cluster.proto: defaults of the policies.
const CHOICES: u32 = 2;
const RING_SIZE_MIN: u64 = 1024;
const RING_SIZE_MAX: u64 = 8 << 20;
const MAGLEV_TABLE_SIZE: u64 = 65_537;
const PANIC_THRESHOLD: f64 = 50.0;

pub(super) fn load_balancing(
    cx: &mut Context<'_>,
    cluster: &api::cluster::Cluster,
    kind: Option<&ClusterKind>,
) -> (LbPolicy, CommonLb) {
    let mut common = common(cx, cluster);
    let policy = match &cluster.load_balancing_policy {
        // cluster.proto: "If the field is set ... it supersedes lb_policy"
        Some(typed) => cx.within("load_balancing_policy", |cx| self::typed(cx, typed, &mut common)),
        None => named(cx, cluster),
    };
    let policy = policy.unwrap_or(LbPolicy::RoundRobin { slow_start: None });
    let Some(kind) = kind else { return (policy, common) };
    let is_original_dst = matches!(kind, ClusterKind::OriginalDst { .. });
    match (is_original_dst, policy == LbPolicy::ClusterProvided) {
        (true, false) => cx.error_at("lb_policy", "must be CLUSTER_PROVIDED for an ORIGINAL_DST cluster"),
        (false, true) => cx.error_at("lb_policy", "CLUSTER_PROVIDED is for ORIGINAL_DST clusters only"),
        _ => {}
    }
    (policy, common)
}

fn common(cx: &mut Context<'_>, cluster: &api::cluster::Cluster) -> CommonLb {
    let mut out = CommonLb {
        healthy_panic_threshold: PANIC_THRESHOLD,
        fail_traffic_on_panic: false,
        locality_weighted: false,
        ignore_new_hosts_until_first_hc: false,
    };
    let Some(config) = &cluster.common_lb_config else { return out };
    if let Some(percent) = &config.healthy_panic_threshold {
        out.healthy_panic_threshold = percent.value;
    }
    match &config.locality_config_specifier {
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zone)) => {
            out.fail_traffic_on_panic = zone.fail_traffic_on_panic;
        }
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => out.locality_weighted = true,
        None => {}
    }
    out.ignore_new_hosts_until_first_hc = config.ignore_new_hosts_until_first_hc;
    if config.ignore_new_hosts_until_first_hc && cluster.health_checks.is_empty() {
        cx.warn("`ignore_new_hosts_until_first_hc` has no effect without health checks");
    }
    out
}

fn named(cx: &mut Context<'_>, cluster: &api::cluster::Cluster) -> Option<LbPolicy> {
    let use_hostname = cluster
        .common_lb_config
        .as_ref()
        .and_then(|common| common.consistent_hashing_lb_config.as_ref())
        .is_some_and(|hashing| hashing.use_hostname_for_hashing);
    Some(match (cluster.lb_policy(), &cluster.lb_config) {
        (Policy::RoundRobin, Some(LbConfig::RoundRobinLbConfig(config))) => LbPolicy::RoundRobin {
            slow_start: cx.within("round_robin_lb_config", |cx| {
                cx.optional("slow_start_config", &config.slow_start_config, named_slow_start)
            }),
        },
        (Policy::RoundRobin, _) => LbPolicy::RoundRobin { slow_start: None },
        (Policy::LeastRequest, Some(LbConfig::LeastRequestLbConfig(config))) => LbPolicy::LeastRequest {
            choices: config.choice_count.unwrap_or(CHOICES),
            active_request_bias: config.active_request_bias.as_ref().map_or(1.0, |bias| bias.default_value),
            slow_start: cx.within("least_request_lb_config", |cx| {
                cx.optional("slow_start_config", &config.slow_start_config, named_slow_start)
            }),
        },
        (Policy::LeastRequest, _) => {
            LbPolicy::LeastRequest { choices: CHOICES, active_request_bias: 1.0, slow_start: None }
        }
        (Policy::Random, _) => LbPolicy::Random,
        (Policy::RingHash, config) => {
            let config = match config {
                Some(LbConfig::RingHashLbConfig(config)) => *config,
                _ => api::cluster::cluster::RingHashLbConfig::default(),
            };
            cx.within("ring_hash_lb_config", |cx| {
                use api::cluster::cluster::ring_hash_lb_config::HashFunction;
                let is_xx = config.hash_function() == HashFunction::XxHash;
                ring(cx, config.minimum_ring_size, config.maximum_ring_size, is_xx, use_hostname)
            })
        }
        (Policy::Maglev, config) => {
            let size = match config {
                Some(LbConfig::MaglevLbConfig(config)) => config.table_size,
                _ => None,
            };
            cx.within("maglev_lb_config", |cx| maglev(cx, size, use_hostname))
        }
        (Policy::ClusterProvided, _) => LbPolicy::ClusterProvided,
        (Policy::LoadBalancingPolicyConfig, _) => {
            cx.error_at(
                "load_balancing_policy",
                "must be set where `lb_policy` is LOAD_BALANCING_POLICY_CONFIG",
            );
            return None;
        }
    })
}

fn ring(
    cx: &mut Context<'_>,
    min: Option<u64>,
    max: Option<u64>,
    is_xx: bool,
    use_hostname: bool,
) -> LbPolicy {
    let (min, max) = (min.unwrap_or(RING_SIZE_MIN), max.unwrap_or(RING_SIZE_MAX));
    if min > max {
        cx.error_at("minimum_ring_size", format!("{min} is above the maximum of {max}"));
    }
    if !is_xx {
        cx.error_at("hash_function", "MURMUR_HASH_2 is not implemented");
    }
    LbPolicy::RingHash(HashLb {
        ring_size_min: min,
        ring_size_max: max,
        maglev_table_size: MAGLEV_TABLE_SIZE,
        use_hostname,
    })
}

fn maglev(cx: &mut Context<'_>, size: Option<u64>, use_hostname: bool) -> LbPolicy {
    let size = size.unwrap_or(MAGLEV_TABLE_SIZE);
    if size <= MAGLEV_TABLE_SIZE_MAX && !is_prime(size) {
        cx.error_at("table_size", format!("{size} is no prime number"));
    }
    LbPolicy::Maglev(HashLb {
        ring_size_min: RING_SIZE_MIN,
        ring_size_max: RING_SIZE_MAX,
        maglev_table_size: size,
        use_hostname,
    })
}

/// cluster.proto: "The table size must be prime number ... limited to 5000011", which the check holds it to.
const MAGLEV_TABLE_SIZE_MAX: u64 = 5_000_011;

/// Trial division: quick for such sizes.
fn is_prime(number: u64) -> bool {
    number >= 2
        && (2..)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|divisor| !number.is_multiple_of(divisor))
}

fn named_slow_start(
    cx: &mut Context<'_>,
    config: &api::cluster::cluster::SlowStartConfig,
) -> Option<SlowStart> {
    let window = duration(cx, "slow_start_window", &config.slow_start_window)?;
    slow_start(window, config.aggression.as_ref(), config.min_weight_percent.as_ref())
}

fn typed_slow_start(
    cx: &mut Context<'_>,
    config: &api::lb::common::v3::SlowStartConfig,
) -> Option<SlowStart> {
    let window = duration(cx, "slow_start_window", &config.slow_start_window)?;
    slow_start(window, config.aggression.as_ref(), config.min_weight_percent.as_ref())
}

fn slow_start(
    window: std::time::Duration,
    aggression: Option<&api::core::RuntimeDouble>,
    min_weight: Option<&api::types::Percent>,
) -> Option<SlowStart> {
    Some(SlowStart {
        window,
        aggression: aggression.map_or(1.0, |aggression| aggression.default_value),
        min_weight_percent: min_weight.map_or(10.0, |percent| percent.value),
    })
}

/// "The first policy that is supported will be used": every policy that the check let through is.
fn typed(
    cx: &mut Context<'_>,
    policy: &api::cluster::LoadBalancingPolicy,
    common: &mut CommonLb,
) -> Option<LbPolicy> {
    let mut found = cx.each("policies", &policy.policies, |cx, policy| {
        let any = policy.typed_extension_config.as_ref()?.typed_config.as_ref()?;
        cx.within("typed_extension_config", |cx| {
            cx.within("typed_config", |cx| typed_policy(cx, any, common))
        })
    });
    if found.is_empty() {
        cx.error_at("policies", "must have at least 1 entry");
        return None;
    }
    Some(found.swap_remove(0))
}

fn typed_policy(cx: &mut Context<'_>, any: &prost_types::Any, common: &mut CommonLb) -> Option<LbPolicy> {
    use api::lb;
    Some(match any_type(any) {
        extension::ROUND_ROBIN => {
            let config: lb::round_robin::v3::RoundRobin = decode(cx, any)?;
            locality(&config.locality_lb_config, common);
            LbPolicy::RoundRobin {
                slow_start: cx.optional("slow_start_config", &config.slow_start_config, typed_slow_start),
            }
        }
        extension::LEAST_REQUEST => {
            let config: lb::least_request::v3::LeastRequest = decode(cx, any)?;
            locality(&config.locality_lb_config, common);
            LbPolicy::LeastRequest {
                choices: config.choice_count.unwrap_or(CHOICES),
                active_request_bias: config
                    .active_request_bias
                    .as_ref()
                    .map_or(1.0, |bias| bias.default_value),
                slow_start: cx.optional("slow_start_config", &config.slow_start_config, typed_slow_start),
            }
        }
        extension::RANDOM => {
            let config: lb::random::v3::Random = decode(cx, any)?;
            locality(&config.locality_lb_config, common);
            LbPolicy::Random
        }
        extension::RING_HASH => {
            use lb::ring_hash::v3::ring_hash::HashFunction;
            let config: lb::ring_hash::v3::RingHash = decode(cx, any)?;
            common.locality_weighted |= config.locality_weighted_lb_config.is_some();
            let is_xx = config.hash_function() != HashFunction::MurmurHash2;
            let use_hostname = config.use_hostname_for_hashing
                || config
                    .consistent_hashing_lb_config
                    .is_some_and(|hashing| hashing.use_hostname_for_hashing);
            ring(cx, config.minimum_ring_size, config.maximum_ring_size, is_xx, use_hostname)
        }
        extension::MAGLEV => {
            let config: lb::maglev::v3::Maglev = decode(cx, any)?;
            common.locality_weighted |= config.locality_weighted_lb_config.is_some();
            let hashing = config.consistent_hashing_lb_config;
            maglev(cx, config.table_size, hashing.is_some_and(|hashing| hashing.use_hostname_for_hashing))
        }
        extension::CLUSTER_PROVIDED => LbPolicy::ClusterProvided,
        _ => {
            misplaced(cx, any, "load balancing policy");
            return None;
        }
    })
}

fn locality(config: &Option<api::lb::common::v3::LocalityLbConfig>, common: &mut CommonLb) {
    match config.as_ref().and_then(|config| config.locality_config_specifier.as_ref()) {
        Some(TypedLocality::ZoneAwareLbConfig(zone)) => {
            common.fail_traffic_on_panic = zone.fail_traffic_on_panic;
        }
        Some(TypedLocality::LocalityWeightedLbConfig(_)) => common.locality_weighted = true,
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::is_prime;

    #[test]
    fn primes() {
        for (number, prime) in
            [(0, false), (1, false), (2, true), (9, false), (65_537, true), (5_000_011, true)]
        {
            assert_eq!(is_prime(number), prime, "{number}");
        }
    }
}
