use super::super::{
    resolver::tests::{Say, Server},
    testing,
};
use super::*;
use hickory_resolver::proto::op::ResponseCode;
use tokio::task::LocalSet;

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|text| text.parse().expect("address")).collect()
}

fn answer(list: &[&str]) -> Answer {
    Answer { addresses: addresses(list).into_iter().collect(), ttl: None }
}

const CONFIG: &str = "\
static_resources:
  clusters:
  - name: payments
    type: STRICT_DNS
    dns_refresh_rate: 3600s
    dns_lookup_family: V4_ONLY
    load_assignment:
      cluster_name: payments
      endpoints:
      - lb_endpoints:
        - {endpoint: {address: {socket_address: {address: a.test., port_value: 80}}}}
        - {endpoint: {address: {socket_address: {address: b.test., port_value: 81}}}}
        - {endpoint: {address: {socket_address: {address: 192.0.2.1, port_value: 82}}}}
";

fn endpoints(process: &Process) -> Vec<String> {
    let snapshot = process.configuration.current();
    let cluster = snapshot.cluster_by_name("payments").expect("cluster");
    cluster.endpoints.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect()
}

fn counted(process: &Process, stat: ClusterStat) -> u64 {
    let snapshot = process.configuration.current();
    let block = snapshot.cluster_by_name("payments").expect("cluster").config.stats.cluster;
    process.stats.value(Block::from_raw(block.0), stat)
}

#[tokio::test]
async fn the_first_answers_are_published_before_the_cores_start() {
    let server = Server::start();
    server.say("a.test", Say::Addresses(addresses(&["10.0.0.2", "10.0.0.1"]), 30));
    server.say("b.test", Say::Code(ResponseCode::ServFail));
    let (process, clusters) = testing::with_resolver(CONFIG, Some(server.resolver()));
    assert_eq!(endpoints(&process), ["192.0.2.1:82"]);
    LocalSet::new().run_until(follow(&process, clusters)).await;
    assert_eq!(endpoints(&process), ["10.0.0.1:80", "10.0.0.2:80", "192.0.2.1:82"]);
    assert_eq!(counted(&process, ClusterStat::UpdateAttempt), 2);
    assert_eq!(counted(&process, ClusterStat::UpdateSuccess), 1);
    assert_eq!(counted(&process, ClusterStat::UpdateFailure), 1);
}

fn follower(process: &Rc<Process>, clusters: Vec<DnsCluster>) -> Follower {
    let cluster = clusters.into_iter().next().expect("a cluster");
    Follower {
        process: process.clone(),
        schedule: Schedule::of(&cluster).expect("dns"),
        resolved: Rc::new(Resolved { cluster, answers: RefCell::default() }),
        questions: Rc::new(Semaphore::new(1)),
        first: Rc::new(FirstAnswers { open: Cell::new(1), all: Notify::new() }),
        name: "a.test.".to_owned(),
    }
}

#[test]
fn endpoints_change_only_where_the_answer_does_and_keep_their_identity() {
    let (process, clusters) = testing::with_resolver(CONFIG, None);
    let follower = follower(&process, clusters);
    let take = |list: &[&str]| {
        follower.take(&answer(list));
        process.configuration.publish();
        process.configuration.current()
    };
    let first = take(&["10.0.0.1"]);
    assert_eq!(take(&["10.0.0.1"]).version, first.version, "nothing is published for the same answer");
    assert_eq!(counted(&process, ClusterStat::UpdateNoRebuild), 1);
    let both = take(&["10.0.0.2", "10.0.0.1"]);
    let of = |snapshot: &corelane_snapshot::Snapshot| {
        snapshot.cluster_by_name("payments").expect("cluster").endpoints.endpoints[0].id
    };
    assert_eq!(of(&both), of(&first), "10.0.0.1 is the endpoint it was");
    take(&[]);
    assert_eq!(endpoints(&process), ["192.0.2.1:82"], "an answer without addresses empties the name");
    assert_eq!(counted(&process, ClusterStat::UpdateEmpty), 1);
    let updated = process.stats.value(process.stats.clusters, ClusterManagerStat::ClusterUpdated);
    assert_eq!((updated, counted(&process, ClusterStat::MembershipChange)), (3, 4), "and the first endpoint");
}

#[test]
fn a_logical_cluster_keeps_the_address_in_use_while_it_is_answered() {
    assert_eq!(order(&[], &answer(&["10.0.0.2", "10.0.0.1"]), true), addresses(&["10.0.0.1"]));
    let used = addresses(&["10.0.0.2"]);
    assert_eq!(order(&used, &answer(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]), true), used);
    assert_eq!(order(&used, &answer(&["10.0.0.1", "10.0.0.3"]), true), addresses(&["10.0.0.1"]));
    assert_eq!(order(&used, &answer(&["10.0.0.2", "10.0.0.1"]), false), addresses(&["10.0.0.1", "10.0.0.2"]));
}

#[test]
fn waits_follow_the_refresh_rate_the_lifetime_and_the_back_off() {
    let s = Duration::from_secs;
    let plain = Schedule {
        refresh: s(5),
        respect_ttl: false,
        family: DnsFamily::Auto,
        jitter: Duration::ZERO,
        failure: None,
    };
    let ttl = Schedule { respect_ttl: true, ..plain };
    let backing_off = Schedule { failure: Some((s(2), s(7))), ..plain };
    let jittery = Schedule { jitter: s(1), ..plain };
    for (schedule, lifetime, failures, draw, expected) in [
        (plain, Some(s(30)), 0, 9, s(5)),
        (plain, None, 3, 9, s(5)),
        (ttl, Some(s(30)), 0, 9, s(30)),
        (ttl, Some(s(0)), 0, 9, REFRESH_MIN),
        (ttl, None, 0, 9, s(5)),
        (backing_off, None, 1, 9, s(2)),
        (backing_off, None, 2, 9, s(4)),
        (backing_off, None, 99, 9, s(7)),
        (jittery, None, 0, 1_250_000_000, s(5) + Duration::from_millis(250)),
    ] {
        assert_eq!(schedule.wait(lifetime, failures, draw), expected, "{schedule:?} {lifetime:?} {failures}");
    }
}
