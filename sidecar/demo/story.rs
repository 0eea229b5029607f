//! One run: all is well, then B1 flaps, and the caller must not notice.

use crate::{
    caller::{Caller, Seen},
    support::{Proxy, wait_for},
    topology::Topology,
};
use std::time::{Duration, Instant};

const CALLS_BEFORE: u64 = 40;
const CALLS_DURING: u64 = 400;
const LINES_SHOWN_MAX: usize = 8;
/// Between two calls while the mesh stays up for a look.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Story {
    DuringHandshake,
    AfterRequest,
}

pub struct Played {
    pub all_well: bool,
    topology: Topology,
    caller: Caller,
    ejected: Instant,
}

pub fn play(title: &str, story: Story) -> Played {
    println!("{title}");
    let topology = Topology::start();
    println!("  admin      {}, until this run is over", admin_pages(&topology).join(", "));
    let mut caller = Caller::new(topology.orders.listener("outbound"));
    let before = caller.call(CALLS_BEFORE);
    tell("before", &before, &topology);
    match story {
        Story::DuringHandshake => topology.b1.network.flap(),
        Story::AfterRequest => topology.b1.app_flaps(true),
    }
    let during = caller.call(CALLS_DURING);
    let ejected = Instant::now();
    tell("flapping", &during, &topology);
    println!("  payments   {:?}", during.last_body);
    println!("  retries    {}", retries(&topology.orders));
    println!("  ejection   {}", ejection(&topology));
    let retried = retried(&topology, CALLS_BEFORE + CALLS_DURING);
    for line in retried.iter().take(LINES_SHOWN_MAX) {
        println!("  access log {line}");
    }
    if retried.len() > LINES_SHOWN_MAX {
        println!("  access log ... and {} more with several attempts", retried.len() - LINES_SHOWN_MAX);
    }
    let is_ejected = topology.orders.stat("cluster.payments.outlier_detection.ejections_active") == 1;
    let all_well = before.is_all_200() && during.is_all_200() && is_ejected;
    println!("  {}\n", if all_well { "orders saw nothing but 200" } else { "NOT as it should be" });
    Played { all_well, topology, caller, ejected }
}

fn tell(phase: &str, seen: &Seen, topology: &Topology) {
    let (b1, b2) = (topology.b1.app.requests(), topology.b2.app.requests());
    println!(
        "  {phase:10} orders saw {}; {}; reached so far: B1 {b1}, B2 {b2}",
        seen.statuses(),
        seen.latencies()
    );
}

fn retries(orders: &Proxy) -> String {
    let stat = |name: &str| orders.stat(&format!("cluster.payments.{name}"));
    let (retries, good) = (stat("upstream_rq_retry"), stat("upstream_rq_retry_success"));
    format!("{retries} made, {good} of them answered with success")
}

fn ejection(topology: &Topology) -> String {
    let address = topology.b1.network.address;
    let flags = topology.orders.endpoint("payments", address, "health_flags");
    let out = if flags.contains("failed_outlier_check") { "is out for 30 s" } else { "has NOT been ejected" };
    format!("B1 ({address}) {out} after 5 failures in a row; /clusters: health_flags::{flags}")
}

/// The log's lines of requests that took more than one try; written off the request path, so waited for.
fn retried(topology: &Topology, expected: u64) -> Vec<String> {
    let log = wait_for("the access log", || {
        let log = topology.access_log();
        if log.lines().count() as u64 >= expected { Ok(log) } else { Err(log.lines().count()) }
    });
    log.lines().filter(|line| !line.contains("attempts=1 ")).map(str::to_owned).collect()
}

/// Where each sidecar shows what it does; it lives as long as the topology.
fn admin_pages(topology: &Topology) -> [String; 3] {
    let Topology { orders, b1, b2, .. } = topology;
    [("orders", orders), ("payments B1", &b1.sidecar), ("payments B2", &b2.sidecar)]
        .map(|(name, proxy)| format!("{name} http://{}/", proxy.admin))
}

impl Played {
    /// B1's deploy is over: goes on calling until B1 takes calls again, then until `ended`.
    pub fn stay(mut self, ended: &dyn Fn() -> bool) {
        let b1 = &self.topology.b1;
        b1.app_flaps(false);
        b1.network.recover();
        println!(
            "The mesh stays up; orders calls on. Ctrl-C ends it. Admin pages, try /clusters, /stats/prometheus, /config_dump:"
        );
        for page in admin_pages(&self.topology) {
            println!("  {page}");
        }
        println!(
            "B1 is well again; it is let back in at the first look after its 30 s (a look every 10 s, as in Envoy) ..."
        );
        let calls_of_b1 = b1.app.requests();
        let mut is_back = false;
        while !ended() {
            let seen = self.caller.call(1);
            if !seen.is_all_200() {
                println!("orders saw {}", seen.statuses());
            }
            if !is_back && self.topology.b1.app.requests() > calls_of_b1 {
                is_back = true;
                println!("... B1 takes calls again after {:.0} s", self.ejected.elapsed().as_secs_f64());
            }
            std::thread::sleep(PAUSE);
        }
        println!(
            "\nended after {} calls to B1 and {} to B2",
            self.topology.b1.app.requests(),
            self.topology.b2.app.requests()
        );
    }
}
