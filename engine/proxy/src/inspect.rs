//! Listener filters: what the socket and the first bytes say about a connection, before a filter chain is chosen.
//! In Envoy's order: original destination, PROXY protocol, then TLS and HTTP by their first bytes. The bytes read
//! go on to whoever serves the connection.

use crate::{
    link::Facts,
    race::{First, race},
    state::CoreState,
    upstream::roomier,
};
use corelane_http::sniff::{
    self, Sniffed,
    client_hello::{Hello, parse_client_hello},
    proxy_protocol::{ProxyHeader, parse_proxy_header},
};
use corelane_runtime::{Buf, Deadline, Nanos, net::TcpStream};
use corelane_snapshot::{Listener, Pinned, TransportProtocol};
use corelane_telemetry::{Block, HttpInspectorStat, ListenerStat, TlsInspectorStat};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

/// First bytes that listener filters look at; Envoy's limit for a ClientHello.
const INSPECTED_BYTES_MAX: usize = 64 << 10;

pub(crate) struct Inspected {
    pub facts: Facts,
    /// Read already, to be served first.
    pub early: Option<Buf>,
    pub seen: Seen,
}

/// What the first bytes said.
#[derive(Default)]
pub(crate) struct Seen {
    pub transport: Option<TransportProtocol>,
    pub application_protocols: Vec<Vec<u8>>,
}

/// What the socket alone says. ipv4_compat: a mapped address means the IPv4 one, in rules and in logs.
pub(crate) fn socket_facts(tcp: &TcpStream, peer: SocketAddr) -> Option<Facts> {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (peer, local) = (canonical(peer), canonical(tcp.local_addr().ok()?));
    Some(Facts { direct_remote: peer, remote: peer, local, original_dst: None, server_name: None })
}

pub(crate) async fn inspect(
    state: &CoreState,
    snapshot: &Pinned,
    listener: &Listener,
    tcp: &TcpStream,
    peer: SocketAddr,
    deadline: &Deadline,
) -> Result<Inspected, ListenerStat> {
    let mut facts = socket_facts(tcp, peer).ok_or(ListenerStat::DownstreamListenerFilterRemoteClose)?;
    let original_dst = if listener.filters.original_dst || listener.use_original_dst {
        tcp.original_dst().filter(|destination| *destination != facts.local)
    } else {
        None
    };
    facts.local = original_dst.unwrap_or(facts.local);
    facts.original_dst = original_dst;
    let mut inspected = Inspected { facts, early: None, seen: Seen::default() };
    // the filters of the listener that the connection belongs to decide
    let target =
        original_dst.filter(|_| listener.use_original_dst).and_then(|dst| listener_for(snapshot, dst));
    let filters = target.as_deref().map_or(&listener.filters, |target| &target.filters);
    let port = inspected.facts.local.port();
    let off = |ranges: &[(u16, u16)]| ranges.iter().any(|(first, last)| (*first..=*last).contains(&port));
    let tls = filters.tls_inspector && !off(&filters.tls_inspector_off);
    let http = filters.http_inspector && !off(&filters.http_inspector_off);
    if !filters.proxy_protocol && !tls && !http {
        return Ok(inspected);
    }
    let (shard, block) = (&state.shard, Block::from_raw(listener.stats.listener.0));
    shard.gauge_add(block, ListenerStat::DownstreamPreCxActive, 1);
    deadline.arm(listener.filters_timeout.map_or(Nanos::MAX, |limit| state.now() + limit));
    let read = async {
        if filters.proxy_protocol {
            proxy_protocol(state, tcp, filters.proxy_protocol_optional, &mut inspected).await?;
        }
        if tls || http {
            first_bytes(state, tcp, tls, http, &mut inspected).await?;
        }
        Ok(())
    };
    let done = race(read, deadline.expired()).await;
    deadline.disarm();
    shard.gauge_sub(block, ListenerStat::DownstreamPreCxActive, 1);
    match done {
        First::Left(Ok(())) => Ok(inspected),
        First::Left(Err(why)) => Err(why),
        // a server that speaks first: nothing is known, and nothing was read
        First::Right(()) if listener.continue_on_filters_timeout => Ok(inspected),
        First::Right(()) => Err(ListenerStat::DownstreamPreCxTimeout),
    }
}

/// More bytes, without ever holding a read that giving up would lose.
async fn more(state: &CoreState, tcp: &TcpStream, early: &mut Option<Buf>) -> Result<(), ListenerStat> {
    let gone = ListenerStat::DownstreamListenerFilterRemoteClose;
    let buf = early.take().unwrap_or_else(|| state.buffer());
    if buf.len() >= INSPECTED_BYTES_MAX {
        return Err(ListenerStat::DownstreamListenerFilterError);
    }
    *early = Some(roomier(state, buf));
    tcp.readable().await.map_err(|_| gone)?;
    let Some(buf) = early.as_mut() else { return Err(gone) };
    match tcp.try_read(buf) {
        Ok(0) => Err(gone),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
        Err(_) => Err(gone),
    }
}

async fn proxy_protocol(
    state: &CoreState,
    tcp: &TcpStream,
    optional: bool,
    inspected: &mut Inspected,
) -> Result<(), ListenerStat> {
    loop {
        more(state, tcp, &mut inspected.early).await?;
        let Some(buf) = inspected.early.as_mut() else { continue };
        match parse_proxy_header(buf.filled()) {
            Ok(ProxyHeader::NeedMore) => {}
            Ok(ProxyHeader::Present { addresses, consumed }) => {
                if let Some(addresses) = addresses {
                    inspected.facts.remote = addresses.source;
                    inspected.facts.local = addresses.destination;
                }
                buf.advance(consumed);
                return Ok(());
            }
            Ok(ProxyHeader::Absent) if optional => return Ok(()),
            Ok(ProxyHeader::Absent) | Err(_) => return Err(ListenerStat::DownstreamListenerFilterError),
        }
    }
}

async fn first_bytes(
    state: &CoreState,
    tcp: &TcpStream,
    tls: bool,
    http: bool,
    inspected: &mut Inspected,
) -> Result<(), ListenerStat> {
    loop {
        let bytes = inspected.early.as_ref().map_or(&[][..], Buf::filled);
        let sniffed = if bytes.is_empty() { Sniffed::NeedMore } else { sniff::sniff(bytes) };
        match sniffed {
            Sniffed::NeedMore => {}
            Sniffed::Tls if tls => {
                let mut scratch = state.scratch();
                let hello = parse_client_hello(bytes, &mut scratch);
                let complete = match hello {
                    Ok(Hello::Complete(hello)) => {
                        let name = hello.server_name.and_then(|name| std::str::from_utf8(name).ok());
                        inspected.facts.server_name = name.map(|name| name.to_ascii_lowercase().into());
                        inspected.seen.application_protocols = hello.alpn().map(<[u8]>::to_vec).collect();
                        count_hello(state, name.is_some(), !inspected.seen.application_protocols.is_empty());
                        true
                    }
                    Ok(Hello::NeedMore) => false,
                    // not TLS after all: no transport is claimed, and the handshake will say what is wrong
                    Err(_) => {
                        state.shard.inc(state.stats.tls_inspector, TlsInspectorStat::TlsNotFound);
                        true
                    }
                };
                state.keep_scratch(scratch);
                if complete {
                    count_inspected(state, bytes);
                    inspected.seen.transport = Some(TransportProtocol::Tls);
                    return Ok(());
                }
            }
            found => {
                inspected.seen.transport = Some(TransportProtocol::RawBuffer);
                let protocol: Option<&[u8]> = match found {
                    // Envoy's http_inspector says h2c for prior knowledge
                    Sniffed::Http2 => Some(b"h2c"),
                    Sniffed::Http1 => Some(b"http/1.1"),
                    _ => None,
                };
                if tls {
                    state.shard.inc(state.stats.tls_inspector, TlsInspectorStat::TlsNotFound);
                    count_inspected(state, bytes);
                }
                if http {
                    count_protocol(state, found, bytes);
                    inspected.seen.application_protocols = protocol.map(<[u8]>::to_vec).into_iter().collect();
                }
                return Ok(());
            }
        }
        let hello_too_large = sniffed == Sniffed::Tls && bytes.len() >= INSPECTED_BYTES_MAX;
        if let Err(why) = more(state, tcp, &mut inspected.early).await {
            if hello_too_large {
                state.shard.inc(state.stats.tls_inspector, TlsInspectorStat::ClientHelloTooLarge);
            } else if http && why == ListenerStat::DownstreamListenerFilterRemoteClose {
                state.shard.inc(state.stats.http_inspector, HttpInspectorStat::ReadError);
            }
            return Err(why);
        }
    }
}

fn count_hello(state: &CoreState, name: bool, protocols: bool) {
    let (sni, alpn) = match (name, protocols) {
        (true, true) => (TlsInspectorStat::SniFound, TlsInspectorStat::AlpnFound),
        (true, false) => (TlsInspectorStat::SniFound, TlsInspectorStat::AlpnNotFound),
        (false, true) => (TlsInspectorStat::SniNotFound, TlsInspectorStat::AlpnFound),
        (false, false) => (TlsInspectorStat::SniNotFound, TlsInspectorStat::AlpnNotFound),
    };
    for stat in [TlsInspectorStat::TlsFound, sni, alpn] {
        state.shard.inc(state.stats.tls_inspector, stat);
    }
}

fn count_inspected(state: &CoreState, bytes: &[u8]) {
    state.shard.record(state.stats.tls_inspector, TlsInspectorStat::BytesProcessed, bytes.len() as u64);
}

fn count_protocol(state: &CoreState, found: Sniffed, bytes: &[u8]) {
    let version = || bytes.split(|byte| *byte == b' ').nth(2).unwrap_or_default();
    let stat = match found {
        Sniffed::Http2 => HttpInspectorStat::Http2Found,
        Sniffed::Http1 if version().starts_with(b"HTTP/1.0") => HttpInspectorStat::Http10Found,
        Sniffed::Http1 => HttpInspectorStat::Http11Found,
        _ => HttpInspectorStat::HttpNotFound,
    };
    state.shard.inc(state.stats.http_inspector, stat);
}

/// The listener for a redirected connection: that exact address, else any address on that port.
pub(crate) fn listener_for(snapshot: &Pinned, destination: SocketAddr) -> Option<Arc<Listener>> {
    let any = |address: IpAddr| match destination.ip().to_canonical() {
        IpAddr::V4(_) => {
            address == IpAddr::V4(Ipv4Addr::UNSPECIFIED) || address == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        }
        IpAddr::V6(_) => address == IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let on_port =
        || snapshot.listeners.iter().filter(|listener| listener.address.port() == destination.port());
    let exact = on_port().find(|listener| listener.address.ip() == destination.ip().to_canonical());
    exact.or_else(|| on_port().find(|listener| any(listener.address.ip()))).cloned()
}
