//! When our certificates and roots expire, as gauges of the listeners and clusters that use them. Written when a
//! context was built anew, not at every scrape: thousands of clusters may share one certificate.

use super::{Origin, chains_of};
use crate::control::process::Process;
use corelane_snapshot::TransportSocket;
use corelane_telemetry::{
    Block, ClusterCertificateStat, ListenerCertificateStat, ListenerStat, Registry, Scope,
};
use corelane_tls::{ContextId, ContextTable};
use std::cell::Cell;

/// What is shown already.
#[derive(Default)]
pub struct Expiries {
    /// How often contexts were built then, and for which snapshot.
    at: Cell<Option<(u64, u64)>>,
}

impl Expiries {
    pub fn refresh(&self, process: &Process) {
        let secrets = process.secrets.borrow();
        let snapshot = process.configuration.current();
        let now = Some((secrets.built.get(), snapshot.version));
        if self.at.replace(now) == now {
            return;
        }
        let table = secrets.table();
        process.stats.with(|registry| {
            for listener in &snapshot.listeners {
                let block: Block<ListenerStat> = Block::from_raw(listener.stats.listener.0);
                let Some(address) = registry.scope_of(block).map(|scope| scope.label(0).to_owned()) else {
                    continue;
                };
                for tls in chains_of(listener) {
                    let of = |name: &str| Scope::listener_certificate(&address, name);
                    for (name, expiry) in
                        expiries(table, ContextId(tls.context.0), &Origin::Server(tls.clone()))
                    {
                        let block = registry.block(of(&name));
                        let stat = ListenerCertificateStat::ExpirationUnixTimeSeconds;
                        registry.control().gauge_set(block, stat, expiry);
                    }
                }
            }
            for cluster in snapshot.clusters.iter().flatten() {
                for socket in &cluster.config.transport.sockets {
                    let TransportSocket::Tls(tls) = socket else { continue };
                    let origin = Origin::Client(tls.clone());
                    for (name, expiry) in expiries(table, ContextId(tls.context.0), &origin) {
                        show_for_cluster(registry, &cluster.config.stat_name, &name, expiry);
                    }
                }
            }
        });
    }
}

fn show_for_cluster(registry: &mut Registry, cluster: &str, name: &str, expiry: u64) {
    let block = registry.block(Scope::cluster_certificate(cluster, name));
    registry.control().gauge_set(block, ClusterCertificateStat::ExpirationUnixTimeSeconds, expiry);
}

/// Names as `/certs` has them, with the Unix second: of a chain its leaf's, of trust roots the first to expire.
fn expiries(table: &ContextTable, id: ContextId, origin: &Origin) -> Vec<(String, u64)> {
    let names = origin.chain_names();
    let (leaves, roots): (Vec<u64>, Option<u64>) = match origin {
        Origin::Server(_) => table.server(id).map(|built| {
            let leaves = built.identities().iter().map(|identity| identity.leaf().not_after_s).collect();
            (leaves, built.trust_roots().iter().map(|root| root.not_after_s).min())
        }),
        Origin::Client(_) => table.client(id).map(|built| {
            let leaves = built.identity().iter().map(|identity| identity.leaf().not_after_s).collect();
            (leaves, built.trust_roots().iter().map(|root| root.not_after_s).min())
        }),
    }
    .unwrap_or_default();
    let own = names.into_iter().zip(leaves);
    own.chain(roots.map(|expiry| (origin.bundle_name(), expiry))).collect()
}
