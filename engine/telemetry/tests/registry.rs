//! Blocks live and die with their scopes, and counts survive what configuration does to them.

use corelane_telemetry::{
    Block, ClusterStat, EndpointStat, Error, Family, HttpStat, OVERFLOW_LABEL, ProcessStat, Registry, Scope,
};

#[test]
fn a_scope_keeps_its_block_and_its_counts_across_configurations() {
    let mut registry = Registry::new(2);
    let core0 = registry.shard(0).expect("core 0");
    let core1 = registry.shard(1).expect("core 1");
    let payments = registry.block(Scope::cluster("payments"));
    core0.inc(payments, ClusterStat::UpstreamRqTotal);
    core1.add(payments, ClusterStat::UpstreamRqTotal, 4);
    assert_eq!(registry.block(Scope::cluster("payments")), payments);
    let kept = Scope::cluster("payments");
    registry.retain(|scope| scope.is(&kept));
    registry.reclaim(u64::MAX);
    assert_eq!(registry.block(Scope::cluster("payments")), payments);
    assert_eq!(registry.value(payments, ClusterStat::UpstreamRqTotal), 5);
}

#[test]
fn scopes_of_different_families_and_labels_do_not_share_slots() {
    let mut registry = Registry::new(1);
    let core = registry.shard(0).expect("core 0");
    let a = registry.block(Scope::endpoint("payments", "10.0.0.1:80"));
    let b = registry.block(Scope::endpoint("payments", "10.0.0.2:80"));
    let cluster = registry.block(Scope::cluster("payments"));
    core.inc(a, EndpointStat::RqTotal);
    assert_eq!(registry.value(a, EndpointStat::RqTotal), 1);
    assert_eq!(registry.value(b, EndpointStat::RqTotal), 0);
    assert_eq!(registry.value(cluster, ClusterStat::UpstreamRqTotal), 0);
}

#[test]
fn a_scope_that_comes_back_before_it_is_reclaimed_has_its_counts() {
    let mut registry = Registry::new(1);
    let core = registry.shard(0).expect("core 0");
    let block = registry.block(Scope::cluster("payments"));
    core.inc(block, ClusterStat::UpstreamRqTotal);
    let generation = registry.retain(|_| false);
    assert_eq!(registry.block(Scope::cluster("payments")), block);
    assert_eq!(registry.reclaim(generation), 0);
    assert_eq!(registry.value(block, ClusterStat::UpstreamRqTotal), 1);
}

#[test]
fn a_reclaimed_block_is_zero_on_every_core_and_goes_to_the_next_scope_of_its_family() {
    let mut registry = Registry::new(2);
    let (core0, core1) = (registry.shard(0).expect("core 0"), registry.shard(1).expect("core 1"));
    let old = registry.block(Scope::cluster("old"));
    core0.inc(old, ClusterStat::UpstreamRqTotal);
    core1.record(old, ClusterStat::UpstreamRqTime, 700);
    core1.code(old, ClusterStat::UpstreamRq, 503);
    registry.control().gauge_set(old, ClusterStat::MembershipTotal, 3);
    let generation = registry.retain(|scope| scope.label(0) != "old");
    let http = registry.block(Scope::http("ingress"));
    assert_eq!(registry.reclaim(generation), 1);
    let new = registry.block(Scope::cluster("new"));
    assert_eq!(new, old, "slots are used again");
    assert_ne!(http.raw(), old.raw());
    assert_eq!(registry.value(new, ClusterStat::UpstreamRqTotal), 0);
    assert_eq!(registry.value(new, ClusterStat::MembershipTotal), 0);
    assert_eq!(registry.code(new, ClusterStat::UpstreamRq, 503), Some(0));
    assert_eq!(registry.histogram(new, ClusterStat::UpstreamRqTime).count(), 0);
}

#[test]
fn a_later_generation_is_not_reclaimed_with_an_earlier_one() {
    let mut registry = Registry::new(1);
    let first = registry.block(Scope::cluster("first"));
    let second = registry.block(Scope::cluster("second"));
    let keep = Scope::cluster("second");
    let earlier = registry.retain(|scope| scope.is(&keep));
    registry.retain(|_| false);
    assert_eq!(registry.reclaim(earlier), 1);
    assert_eq!(registry.block(Scope::cluster("third")), first);
    assert_eq!(registry.block(Scope::cluster("second")), second);
}

#[test]
fn the_process_own_scope_is_never_retired() {
    let mut registry = Registry::new(1);
    registry.control().inc(registry.process(), ProcessStat::StatsScrapes);
    let generation = registry.retain(|_| false);
    assert_eq!(registry.reclaim(generation), 0);
    assert_eq!(registry.value(registry.process(), ProcessStat::StatsScrapes), 1);
    assert_eq!(registry.value(registry.process(), ProcessStat::StatsScopes), 1);
}

#[test]
fn a_full_table_counts_in_the_overflow_scope_and_says_so() {
    // one is the process's own
    let mut registry = Registry::with_scopes_max(1, 2);
    let core = registry.shard(0).expect("core 0");
    let fits = registry.block(Scope::cluster("fits"));
    let (over, over_too) =
        (registry.block(Scope::cluster("over")), registry.block(Scope::cluster("over too")));
    let http = registry.block(Scope::http("ingress"));
    assert_eq!(over, over_too);
    assert_ne!(over, fits);
    core.inc(over, ClusterStat::UpstreamRqTotal);
    core.inc(http, HttpStat::RqTotal);
    assert_eq!(registry.block(Scope::cluster(OVERFLOW_LABEL)), over);
    assert_eq!(registry.value(over, ClusterStat::UpstreamRqTotal), 1);
    assert_eq!(registry.value(registry.process(), ProcessStat::StatsScopesOverflowed), 3);
    registry.retain(|scope| scope.family != Family::Cluster);
    registry.reclaim(u64::MAX);
    assert_eq!(registry.value(over, ClusterStat::UpstreamRqTotal), 1, "the overflow scope stays");
    assert_eq!(registry.block(Scope::cluster("over")), fits, "and the freed place is taken");
}

#[test]
fn blocks_fill_many_chunks_without_overlap() {
    let mut registry = Registry::new(1);
    let core = registry.shard(0).expect("core 0");
    let blocks: Vec<_> = (0..2_000).map(|i| registry.block(Scope::cluster(&format!("c{i}")))).collect();
    for (i, block) in blocks.iter().enumerate() {
        core.add(*block, ClusterStat::BindErrors, i as u64);
        // the first and the last slot of a block
        core.record(*block, ClusterStat::UpstreamRqTime, u64::from(u32::MAX) + i as u64);
    }
    for (i, block) in blocks.iter().enumerate() {
        assert_eq!(registry.value(*block, ClusterStat::BindErrors), i as u64);
        assert_eq!(
            registry.histogram(*block, ClusterStat::UpstreamRqTime).sum,
            u64::from(u32::MAX) + i as u64
        );
    }
}

#[test]
fn a_gauge_raised_on_one_core_and_lowered_on_another_is_their_sum_and_never_below_zero() {
    let mut registry = Registry::new(2);
    let (core0, core1) = (registry.shard(0).expect("core 0"), registry.shard(1).expect("core 1"));
    let block = registry.block(Scope::http("ingress"));
    core0.gauge_add(block, HttpStat::DownstreamCxActive, 3);
    core1.gauge_sub(block, HttpStat::DownstreamCxActive, 2);
    assert_eq!(registry.value(block, HttpStat::DownstreamCxActive), 1);
    core1.gauge_sub(block, HttpStat::DownstreamCxActive, 2);
    assert_eq!(registry.value(block, HttpStat::DownstreamCxActive), 0);
    core1.gauge_set(block, HttpStat::DownstreamCxActive, 5);
    assert_eq!(registry.value(block, HttpStat::DownstreamCxActive), 8);
}

#[test]
fn codes_count_by_class_and_exactly_where_they_have_a_slot() {
    let mut registry = Registry::new(1);
    let core = registry.shard(0).expect("core 0");
    let block = registry.block(Scope::cluster("payments"));
    for code in [200, 200, 503, 599, 42, 700, 0] {
        core.code(block, ClusterStat::UpstreamRq, code);
    }
    assert_eq!(registry.code(block, ClusterStat::UpstreamRq, 200), Some(2));
    assert_eq!(registry.code(block, ClusterStat::UpstreamRq, 503), Some(1));
    assert_eq!(registry.code(block, ClusterStat::UpstreamRq, 599), None);
}

#[test]
fn a_shard_has_one_writer() {
    let mut registry = Registry::new(1);
    assert!(registry.shard(0).is_ok());
    assert_eq!(registry.shard(0).expect_err("taken"), Error::ShardTaken { core: 0 });
    assert_eq!(registry.shard(1).expect_err("unknown"), Error::NoSuchCore { core: 1, cores: 1 });
}

#[test]
fn counting_in_a_default_block_is_lost_and_harmless() {
    let mut registry = Registry::new(1);
    let core = registry.shard(0).expect("core 0");
    // the first block of all is where a number that wraps around would end
    let blocks = [registry.block(Scope::cluster("payments")), registry.block(Scope::cluster("ledger"))];
    core.inc(Block::default(), ClusterStat::UpstreamRqTotal);
    core.record(Block::default(), ClusterStat::UpstreamRqTime, 1);
    core.code(Block::default(), ClusterStat::UpstreamRq, 200);
    core.gauge_set(Block::default(), ClusterStat::MembershipTotal, 1);
    for block in blocks.map(|block| Block::from_raw(block.raw())) {
        assert_eq!(registry.value(block, ClusterStat::UpstreamRqTotal), 0);
        assert_eq!(registry.code(block, ClusterStat::UpstreamRq, 200), Some(0));
    }
    assert_eq!(registry.histogram(Block::default(), ClusterStat::UpstreamRqTime).count(), 0);
    assert_eq!(registry.value(registry.process(), ProcessStat::ConfigSnapshotsLive), 0);
}

#[test]
fn what_a_core_counted_and_what_a_block_is_for_can_be_asked() {
    let mut registry = Registry::new(2);
    let payments = registry.block(Scope::cluster("payments"));
    let cores = [0, 1].map(|core| registry.shard(core).expect("shard"));
    cores[0].add(payments, ClusterStat::UpstreamRqTotal, 2);
    cores[1].add(payments, ClusterStat::UpstreamRqTotal, 3);
    let of = |core| registry.of_core(core, payments, ClusterStat::UpstreamRqTotal);
    assert_eq!([of(0), of(1), of(9)], [2, 3, 0]);
    assert_eq!(registry.scope_of(payments).map(|scope| scope.label(0)), Some("payments"));
    assert!(registry.scope_of(Block::<ClusterStat>::default()).is_none());
    registry.retain(|_| false);
    assert!(registry.scope_of(payments).is_none(), "retired");
}
