//! envoy.config.listener.v3.FilterChainMatch. Criteria are applied one after the other, each keeping only the
//! chains that match it most specifically; there is no way back, so a chain that was best at one step and does not
//! match a later one leaves the connection to the default chain, as in Envoy.

use corelane_snapshot::{Cidr, FilterChain, FilterChainMatch, Listener, SourceType, TransportProtocol};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// What is known of a connection when its filter chain is chosen.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionFacts<'a> {
    /// Where the client meant to go: the original destination where traffic was redirected.
    pub destination: SocketAddr,
    /// Who the PROXY protocol says it is; else who holds the socket.
    pub source: SocketAddr,
    /// Who holds the socket.
    pub direct_source: SocketAddr,
    /// SNI; in any case.
    pub server_name: Option<&'a str>,
    /// None: nothing was detected, which is `raw_buffer`.
    pub transport: Option<TransportProtocol>,
    /// ALPN or the sniffed protocol, in the client's order.
    pub application_protocols: &'a [Vec<u8>],
}

/// How specifically a chain matches at one step; None: not at all. 0: it does not care.
type Score = Option<u32>;

const STEPS: [fn(&FilterChainMatch, &ConnectionFacts<'_>) -> Score; 9] = [
    destination_port,
    destination,
    server_name,
    transport_protocol,
    application_protocol,
    direct_source,
    source_type,
    source,
    source_port,
];

/// None: no chain matches and there is no default one (`no_filter_chain_match`).
pub fn pick_chain<'l>(listener: &'l Listener, facts: &ConnectionFacts<'_>) -> Option<&'l Arc<FilterChain>> {
    let mut best = [0u32; STEPS.len()];
    for step in 0..STEPS.len() {
        let left = listener.chains.iter().filter(|chain| survives(&chain.matches, facts, &best[..step]));
        match left.filter_map(|chain| STEPS[step](&chain.matches, facts)).max() {
            Some(score) => best[step] = score,
            None => return listener.default_chain.as_ref(),
        }
    }
    listener.chains.iter().find(|chain| survives(&chain.matches, facts, &best))
}

fn survives(matches: &FilterChainMatch, facts: &ConnectionFacts<'_>, best: &[u32]) -> bool {
    STEPS.iter().zip(best).all(|(step, &best)| step(matches, facts) == Some(best))
}

fn destination_port(matches: &FilterChainMatch, facts: &ConnectionFacts<'_>) -> Score {
    match matches.destination_port {
        None => Some(0),
        Some(port) => (port == facts.destination.port()).then_some(1),
    }
}

fn destination(matches: &FilterChainMatch, facts: &ConnectionFacts<'_>) -> Score {
    longest_prefix(&matches.destination, facts.destination.ip())
}

fn longest_prefix(ranges: &[Cidr], address: IpAddr) -> Score {
    if ranges.is_empty() {
        return Some(0);
    }
    let matching = ranges.iter().filter(|range| range.contains(address));
    // a range of length 0 is still more than none at all
    matching.map(|range| u32::from(range.prefix_len()) + 1).max()
}

/// Exact, then the longest wildcard, then none.
fn server_name(matches: &FilterChainMatch, facts: &ConnectionFacts<'_>) -> Score {
    if matches.server_names.is_empty() {
        return Some(0);
    }
    let asked = facts.server_name?.as_bytes();
    let score = |name: &String| match name.as_bytes() {
        // `*.example.com` stands for any depth of subdomains
        [b'*', suffix @ ..] => {
            let rest = asked.len().checked_sub(suffix.len())?;
            (rest > 0 && asked[rest..].eq_ignore_ascii_case(suffix)).then_some(suffix.len() as u32 + 1)
        }
        exact => exact.eq_ignore_ascii_case(asked).then_some(u32::MAX),
    };
    matches.server_names.iter().filter_map(score).max()
}

fn transport_protocol(matches: &FilterChainMatch, facts: &ConnectionFacts<'_>) -> Score {
    match matches.transport_protocol {
        None => Some(0),
        Some(wanted) => (wanted == facts.transport.unwrap_or(TransportProtocol::RawBuffer)).then_some(1),
    }
}

/// The client's first protocol that any chain has.
fn application_protocol(matches: &FilterChainMatch, facts: &ConnectionFacts<'_>) -> Score {
    if matches.application_protocols.is_empty() {
        return Some(0);
    }
    let offered = facts.application_protocols;
    let first = offered.iter().position(|protocol| matches.application_protocols.contains(protocol))?;
    Some((offered.len() - first) as u32)
}

fn direct_source(matches: &FilterChainMatch, facts: &ConnectionFacts<'_>) -> Score {
    longest_prefix(&matches.direct_source, facts.direct_source.ip())
}

fn source_type(matches: &FilterChainMatch, facts: &ConnectionFacts<'_>) -> Score {
    let source = facts.source.ip().to_canonical();
    let local = source.is_loopback() || source == facts.destination.ip().to_canonical();
    match matches.source_type {
        SourceType::Any => Some(0),
        SourceType::SameIpOrLoopback => local.then_some(1),
        SourceType::External => (!local).then_some(1),
    }
}

fn source(matches: &FilterChainMatch, facts: &ConnectionFacts<'_>) -> Score {
    longest_prefix(&matches.source, facts.source.ip())
}

fn source_port(matches: &FilterChainMatch, facts: &ConnectionFacts<'_>) -> Score {
    if matches.source_ports.is_empty() {
        return Some(0);
    }
    matches.source_ports.contains(&facts.source.port()).then_some(1)
}
