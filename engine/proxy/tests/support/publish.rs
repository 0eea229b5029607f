//! Configurations that follow the first one.

use super::Proxy;
use corelane_snapshot::{Builder, ClusterId, Endpoint, EndpointSet, HealthStatus, Snapshot, StatBlock};
use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
};

impl Proxy {
    /// Publishes the cluster with these endpoints.
    pub fn publish_endpoints(&self, addresses: &[SocketAddr]) {
        self.publish_transport(addresses, 0);
    }

    /// Publishes the cluster with these endpoints, which are reached by its transport socket of this number.
    pub fn publish_transport(&self, addresses: &[SocketAddr], transport: u32) {
        let mut builder = self.builder.lock().expect("builder");
        let id = self.cluster().config.id;
        let set = endpoints(&mut builder, id, addresses, &[], transport);
        assert!(builder.put_endpoints(id, Arc::new(set)), "the cluster is known");
        self.publisher.publish(builder.build().expect("snapshot"));
    }

    /// Publishes the cluster with a configuration that is another one, though it says the same.
    pub fn publish_another_cluster(&self) {
        let mut builder = self.builder.lock().expect("builder");
        let another = self.another.cluster_by_name("upstream").expect("cluster");
        builder.put_cluster(another.config.clone(), self.cluster().endpoints);
        self.publisher.publish(builder.build().expect("snapshot"));
    }

    /// What was published last, without keeping it.
    pub fn snapshot(&self) -> Weak<Snapshot> {
        Arc::downgrade(&self.publisher.current())
    }

    /// Whether every core has let go of it.
    pub fn is_freed(&self, snapshot: &Weak<Snapshot>) -> bool {
        self.publisher.collect();
        snapshot.strong_count() == 0
    }
}

/// One healthy endpoint at each address.
pub(super) fn endpoints(
    builder: &mut Builder,
    cluster: ClusterId,
    addresses: &[SocketAddr],
    priorities: &[u32],
    transport: u32,
) -> EndpointSet {
    let endpoints = addresses.iter().enumerate().map(|(number, address)| {
        let (id, live) = builder.endpoint(cluster, *address);
        Arc::new(Endpoint {
            id,
            address: *address,
            hostname: "".into(),
            weight: 1,
            priority: priorities.get(number).copied().unwrap_or(0),
            locality: 0,
            health: HealthStatus::Healthy,
            canary: false,
            health_check_port: None,
            transport,
            live,
            stats: StatBlock::default(),
        })
    });
    EndpointSet {
        endpoints: endpoints.collect(),
        localities: vec![Default::default()],
        priorities: priorities.iter().max().map_or(1, |highest| highest + 1),
        overprovisioning_factor: 140,
    }
}
