//! A process made from a configuration text, with nothing running.

use super::{
    configuration::Configuration,
    log_writer::LogFiles,
    process::{Node, Parts, Process},
    resolver::Resolver,
};
use crate::{bootstrap, flags::Flags};
use clap::Parser;
use corelane_xds::translate::DnsCluster;
use std::rc::Rc;

pub(crate) fn process(text: &str) -> Rc<Process> {
    with_resolver(text, None).0
}

pub(crate) fn with_resolver(text: &str, resolver: Option<Resolver>) -> (Rc<Process>, Vec<DnsCluster>) {
    let flags = Flags::parse_from(["corelane-sidecar", "--config-yaml", text]);
    let loaded = bootstrap::load(&flags).expect("load");
    let said = loaded.findings.text(&loaded.sources);
    let Some(loaded) = loaded.configuration else { panic!("{said}") };
    let logs = LogFiles::open(loaded.builder.sinks(), loaded.stats.clone()).expect("log files");
    let process = Process::new(Parts {
        flags,
        tuning: loaded.tuning,
        node: Node {
            id: loaded.translation.node.id.clone(),
            cluster: loaded.translation.node.cluster.clone(),
            zone: loaded.translation.node.locality.zone.to_string(),
        },
        bootstrap: loaded.bootstrap,
        configuration: Configuration::new(loaded.builder, loaded.snapshot, loaded.stats.clone()),
        stats: loaded.stats,
        secrets: loaded.secrets,
        logs,
        log: None,
        resolver,
    });
    (process, loaded.translation.dns_clusters)
}
