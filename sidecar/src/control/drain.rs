//! The way out. While a process drains it goes on accepting: whoever still connects is served and asked to go with the
//! answer. It ends when nobody is connected any more, when all that are have been idle for a while, or when the drain
//! time is over, whichever comes first.

use super::{
    lifecycle::{Listeners, State, Stop, Wish},
    process::Process,
};
use std::{rc::Rc, time::Duration};
use tokio::{
    task::spawn_local,
    time::{Instant, sleep},
};

/// Between two looks at what is still open.
const LOOK: Duration = Duration::from_millis(50);

/// Connections on which nothing happened for this long are taken to be idle.
const QUIET: Duration = Duration::from_secs(5);

/// What is closed at the end gets this long to be closed.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    NobodyLeft,
    AllIdle,
    TimeOver,
    /// A second signal, or `/quitquitquit`.
    Cut,
}

/// Drains and returns when the cores may be stopped.
pub async fn shutdown(process: &Rc<Process>) -> Ended {
    let time = process.flags.drain_time();
    tracing::info!("draining for up to {} s; {} connections", time.as_secs(), process.plane().connections());
    process.lifecycle.enter(State::Draining);
    process.plane().drain(Listeners::All);
    let ended = tokio::select! {
        ended = until_empty(process, time) => ended,
        () = cut(process) => Ended::Cut,
    };
    let plane = process.plane();
    let (connections, requests) = (plane.connections(), plane.requests());
    match ended {
        Ended::NobodyLeft => tracing::info!("drained: no connection is left"),
        Ended::AllIdle => tracing::info!("drained: {connections} connections are left, all idle"),
        Ended::TimeOver => {
            tracing::warn!("drain time is over with {requests} requests on {connections} connections")
        }
        Ended::Cut => tracing::warn!("ending at once with {requests} requests on {connections} connections"),
    }
    if ended != Ended::Cut {
        close(process).await;
    }
    ended
}

async fn until_empty(process: &Rc<Process>, time: Duration) -> Ended {
    let start = Instant::now();
    let mut busy = start;
    loop {
        let plane = process.plane();
        if plane.connections() == 0 {
            return Ended::NobodyLeft;
        }
        let now = Instant::now();
        if plane.requests() > 0 {
            busy = now;
        }
        if now - busy >= QUIET {
            return Ended::AllIdle;
        }
        if now - start >= time {
            return Ended::TimeOver;
        }
        sleep(LOOK.min(time)).await;
    }
}

/// Nobody new but those who wait to be accepted, and what is idle is closed; what is under way may end for a moment.
async fn close(process: &Rc<Process>) {
    process.stop_listening(Listeners::All);
    let plane = process.plane();
    plane.close_idle();
    let start = Instant::now();
    while !plane.is_deserted() && start.elapsed() < CLOSE_WAIT {
        sleep(LOOK).await;
    }
}

async fn cut(process: &Rc<Process>) {
    // a second wish to shut down means: at once
    while process.lifecycle.wished().await < Wish::Shutdown {}
}

/// `/drain_listeners`: these listeners' clients are asked to go; the process stays. Runs inside a `LocalSet`.
pub fn begin(process: &Rc<Process>, listeners: Listeners, stop: Stop) {
    let which = match listeners {
        Listeners::Inbound => "inbound",
        Listeners::All => "all",
    };
    let begun = process.plane().draining().is_some_and(|under_way| under_way >= listeners);
    process.plane().drain(listeners);
    match stop {
        // as Envoy has it: what drains already is not stopped later than it was to be, nor at all if it was not
        Stop::Later if begun => {}
        Stop::Later => {
            let time = process.flags.drain_time();
            tracing::info!("{which} listeners drain; they stop in {} s", time.as_secs());
            let process = process.clone();
            spawn_local(async move {
                sleep(time).await;
                tracing::info!("drain time is over: {which} listeners stop");
                process.stop_listening(listeners);
            });
        }
        Stop::Never => tracing::info!("{which} listeners drain, and go on accepting"),
        Stop::Now => {
            tracing::info!("{which} listeners stop");
            process.stop_listening(listeners);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{
        process::{CoreShown, DataPlane},
        testing,
    };
    use corelane_snapshot::ListenerId;
    use corelane_telemetry::ListenerManagerStat;
    use std::{
        cell::{Cell, RefCell},
        net::SocketAddr,
    };

    const LISTENER: &str = "\
static_resources:
  listeners:
  - name: relay
    address: {socket_address: {address: 127.0.0.1, port_value: 15001}}
    filter_chains:
    - filters:
      - name: relay
        typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy,
          stat_prefix: relay, cluster: payments}
  clusters: [{name: payments, load_assignment: {cluster_name: payments}}]
";

    /// A few looks, and well within [`CLOSE_WAIT`].
    const QUEUED: u64 = 3;

    /// Connections and requests over time, and what was asked of the cores.
    struct Scripted {
        start: Instant,
        /// (until, connections, requests)
        script: Vec<(u64, u64, u64)>,
        asked: RefCell<Vec<String>>,
        drains: Cell<Option<Listeners>>,
        closed: Cell<bool>,
        /// Looks until what waited to be accepted has been served.
        queued: Cell<u64>,
    }

    impl Scripted {
        fn now(&self) -> (u64, u64) {
            if self.closed.get() {
                return (0, 0);
            }
            let ms = self.start.elapsed().as_millis() as u64;
            let step = self.script.iter().find(|(until, ..)| ms < *until);
            step.map_or((0, 0), |(_, connections, requests)| (*connections, *requests))
        }
    }

    impl DataPlane for Scripted {
        fn cores(&self) -> Vec<CoreShown> {
            Vec::new()
        }
        fn ring_denied(&self) -> Option<String> {
            None
        }
        fn bound(&self, _: ListenerId) -> Option<SocketAddr> {
            None
        }
        fn connections(&self) -> u64 {
            self.now().0
        }
        fn requests(&self) -> u64 {
            self.now().1
        }
        fn drain(&self, listeners: Listeners) {
            self.asked.borrow_mut().push(format!("drain {listeners:?}"));
            self.drains.set(self.drains.get().max(Some(listeners)));
        }
        fn draining(&self) -> Option<Listeners> {
            self.drains.get()
        }
        fn stop_accepting(&self, listeners: Listeners) {
            self.asked.borrow_mut().push(format!("stop {listeners:?}"));
        }
        fn is_deserted(&self) -> bool {
            let left = self.queued.get();
            self.queued.set(left.saturating_sub(1));
            left == 0 && self.connections() == 0
        }
        fn close_idle(&self) {
            self.asked.borrow_mut().push("close".to_owned());
            self.closed.set(true);
        }
        fn stalled(&self) -> Vec<(usize, Duration)> {
            Vec::new()
        }
        fn turns(&self) -> u64 {
            0
        }
    }

    fn scripted(script: &[(u64, u64, u64)]) -> (Rc<Process>, Rc<Scripted>) {
        let process = testing::process(LISTENER);
        let plane = Rc::new(Scripted {
            start: Instant::now(),
            script: script.to_vec(),
            asked: RefCell::default(),
            drains: Cell::default(),
            closed: Cell::new(false),
            queued: Cell::new(0),
        });
        process.set_plane(plane.clone());
        (process, plane)
    }

    async fn drained(script: &[(u64, u64, u64)]) -> (Ended, u64, Vec<String>) {
        let (process, plane) = scripted(script);
        let start = plane.start;
        let ended = shutdown(&process).await;
        assert_eq!(process.lifecycle.state(), State::Draining);
        process.stop_listening(Listeners::All);
        let stopped = process.stats.value(process.stats.listeners, ListenerManagerStat::ListenerStopped);
        assert_eq!(stopped, 1, "stopped again, it is the same listener");
        assert_eq!(plane.asked.borrow_mut().pop(), Some("stop All".to_owned()));
        let asked = plane.asked.borrow().clone();
        (ended, start.elapsed().as_secs(), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_with_the_last_connection() {
        let (ended, seconds, asked) = drained(&[(30_000, 5, 2), (40_000, 1, 1)]).await;
        assert_eq!((ended, seconds), (Ended::NobodyLeft, 40));
        assert_eq!(asked, ["drain All", "stop All", "close"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_to_be_accepted_is_waited_for_though_nobody_is_connected() {
        let (process, plane) = scripted(&[]);
        plane.queued.set(QUEUED);
        assert_eq!(shutdown(&process).await, Ended::NobodyLeft);
        assert_eq!(plane.queued.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_hold_it_only_for_a_while() {
        let (ended, seconds, _) =
            drained(&[(3_000, 5, 2), (4_000, 5, 0), (5_000, 5, 1), (u64::MAX, 5, 0)]).await;
        assert_eq!((ended, seconds), (Ended::AllIdle, 9), "five seconds after the last request");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_end_is_cut_when_the_time_is_over() {
        let (ended, seconds, _) = drained(&[(u64::MAX, 1, 1)]).await;
        assert_eq!((ended, seconds), (Ended::TimeOver, 600));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_wish_ends_it_at_once() {
        let (process, plane) = scripted(&[(u64::MAX, 1, 1)]);
        let start = plane.start;
        process.lifecycle.wish(Wish::Drain(Listeners::All, Stop::Now));
        let again = async {
            sleep(Duration::from_secs(1)).await;
            process.lifecycle.wish(Wish::Shutdown);
        };
        let (ended, ()) = tokio::join!(shutdown(&process), again);
        assert_eq!((ended, start.elapsed().as_secs()), (Ended::Cut, 1));
    }

    async fn asked_after(wishes: &[(Listeners, Stop)], time: Duration) -> Vec<String> {
        let (process, plane) = scripted(&[]);
        let all = async {
            for (listeners, stop) in wishes {
                begin(&process, *listeners, *stop);
            }
            sleep(time).await;
        };
        tokio::task::LocalSet::new().run_until(all).await;
        plane.asked.take()
    }

    #[tokio::test(start_paused = true)]
    async fn listeners_drain_in_the_direction_and_stop_at_the_time_asked_for() {
        use Listeners::{All, Inbound};
        let (soon, over) = (Duration::from_secs(599), Duration::from_secs(601));
        for (wishes, time, expected) in [
            (&[(Inbound, Stop::Now)][..], soon, &["drain Inbound", "stop Inbound"][..]),
            (&[(All, Stop::Never)], over, &["drain All"]),
            (&[(Inbound, Stop::Later)], soon, &["drain Inbound"]),
            (&[(Inbound, Stop::Later)], over, &["drain Inbound", "stop Inbound"]),
            // asked again, it is not counted from then on; asked for more, the rest has its own time
            (
                &[(All, Stop::Later), (Inbound, Stop::Later)],
                over,
                &["drain All", "drain Inbound", "stop All"],
            ),
            (
                &[(Inbound, Stop::Later), (All, Stop::Later)],
                over,
                &["drain Inbound", "drain All", "stop Inbound", "stop All"],
            ),
            (&[(All, Stop::Later), (All, Stop::Now)], soon, &["drain All", "drain All", "stop All"]),
        ] {
            assert_eq!(asked_after(wishes, time).await, expected, "{wishes:?} after {time:?}");
        }
    }
}
