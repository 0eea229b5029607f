//! Access logs of connections. A TCP proxy's tells of the connections that it carried or refused; a listener's of
//! every connection when it ends, whatever served it, and of those that nothing served. Reference: Envoy, "Access
//! logging", where it says TCP.

use crate::{
    link::{Facts, Link},
    record::Logged,
    render::{self, Scene},
    state::CoreState,
};
use corelane_runtime::Nanos;
use corelane_snapshot::{Listener, TcpProxy, Terminal};
use corelane_telemetry::{Details, Outcome, ResponseFlags};

/// What a TCP proxy's connection came to; what only a log shows is noted only where there is one.
#[derive(Default)]
pub(crate) struct Relayed {
    pub outcome: Outcome,
    pub logged: Option<Box<Logged>>,
}

impl Relayed {
    pub fn start(link: &Link, proxy: &TcpProxy) -> Self {
        let logs = !proxy.access_log.is_empty() || !link.listener.access_log.is_empty();
        Relayed { outcome: Outcome::default(), logged: logs.then(Box::default) }
    }

    pub fn carried(&mut self, up: u64, down: u64) {
        let outcome = &mut self.outcome;
        (outcome.bytes_received, outcome.upstream_bytes_sent) = (up, up);
        (outcome.bytes_sent, outcome.upstream_bytes_received) = (down, down);
    }

    /// To the proxy's logs and the listener's.
    pub fn finish(mut self, state: &CoreState, link: &Link, proxy: &TcpProxy) {
        let Some(logged) = &self.logged else { return };
        close(state, &mut self.outcome, link.accepted);
        let scene = of_link(state, link, &self.outcome, Some(logged));
        render::lines(&proxy.access_log, &scene);
        render::lines(&link.listener.access_log, &scene);
    }
}

/// The end of a connection whose requests had records of their own.
pub(crate) fn ended(state: &CoreState, link: &Link) {
    if link.listener.access_log.is_empty() {
        return;
    }
    let mut outcome = Outcome::default();
    close(state, &mut outcome, link.accepted);
    render::lines(&link.listener.access_log, &of_link(state, link, &outcome, None));
}

/// A network filter refused the connection, and this is the policy.
pub(crate) fn refused(state: &CoreState, link: &Link, policy: Details) {
    let mut outcome = Outcome { details: policy, ..Outcome::default() };
    close(state, &mut outcome, link.accepted);
    let scene = Scene { refused_by: Some(policy), ..of_link(state, link, &outcome, None) };
    if let Terminal::Tcp(proxy) = &link.chain.terminal {
        render::lines(&proxy.access_log, &scene);
    }
    render::lines(&link.listener.access_log, &scene);
}

/// No filter chain matches.
pub(crate) fn unmatched(state: &CoreState, listener: &Listener, facts: &Facts, accepted: Nanos) {
    let details = Details::FILTER_CHAIN_NOT_FOUND;
    unserved(state, listener, facts, accepted, ResponseFlags::NO_ROUTE_FOUND, details);
}

/// The connection failed in the listener filters.
pub(crate) fn failed(state: &CoreState, listener: &Listener, facts: &Facts, accepted: Nanos) {
    unserved(state, listener, facts, accepted, ResponseFlags::NONE, Details::NONE);
}

/// To be called at once: the reason is the core's last.
pub(crate) fn handshake_failed(state: &CoreState, listener: &Listener, facts: &Facts, accepted: Nanos) {
    if listener.access_log.is_empty() {
        return;
    }
    let mut outcome = Outcome::default();
    close(state, &mut outcome, accepted);
    let failure = state.transport_failure.borrow();
    let scene = Scene { handshake_failure: failure.of(None), ..Scene::nothing(state, facts, &outcome) };
    render::lines(&listener.access_log, &scene);
}

fn unserved(
    state: &CoreState,
    listener: &Listener,
    facts: &Facts,
    accepted: Nanos,
    flags: ResponseFlags,
    details: Details,
) {
    if listener.access_log.is_empty() {
        return;
    }
    let mut outcome = Outcome { flags, details, ..Outcome::default() };
    close(state, &mut outcome, accepted);
    render::lines(&listener.access_log, &Scene::nothing(state, facts, &outcome));
}

fn close(state: &CoreState, outcome: &mut Outcome, accepted: Nanos) {
    let now = state.now();
    outcome.timings.start = accepted.as_u64();
    outcome.timings.end = now.as_u64();
    let lived = now.since(accepted).as_nanos() as u64;
    outcome.start_unix_ns = state.core.clock().unix_nanos().saturating_sub(lived);
}

fn of_link<'a>(
    state: &'a CoreState,
    link: &'a Link,
    outcome: &'a Outcome,
    logged: Option<&'a Logged>,
) -> Scene<'a> {
    Scene { link: Some(link), ..Scene::nothing(state, &link.facts, outcome) }.logged(logged)
}
