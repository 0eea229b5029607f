//! A bootstrap file into a builder.

use super::{
    Context, Origin, api, cluster,
    endpoint::DnsCluster,
    extension, listener,
    values::{any_type, decode, ip_and_port, misplaced, socket_address},
};
use crate::{Document, Finding, Severity, finding::merge};
use corelane_snapshot::{Builder, Locality};
use std::net::SocketAddr;

/// What a file configures besides the resources that went into the builder.
#[derive(Debug, Default)]
pub struct Translation {
    pub node: Node,
    /// None: the file has no admin section.
    pub admin: Option<Admin>,
    /// Clusters whose names are still to be resolved; their endpoints in the builder are those given by address.
    pub dns_clusters: Vec<DnsCluster>,
    pub dns: Dns,
    /// All findings: of reading the file and of translating it, by line. Warnings too.
    pub findings: Vec<Finding>,
}

impl Translation {
    /// No error among the findings.
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity != Severity::Error)
    }
}

/// Who this proxy is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    pub id: String,
    pub cluster: String,
    pub locality: Locality,
    pub metadata: Option<prost_types::Struct>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admin {
    pub address: SocketAddr,
}

/// Whom to ask for names; empty: as the system is set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    pub servers: Vec<SocketAddr>,
    pub use_tcp: bool,
    pub no_search_domain: bool,
}

/// Translates everything, whatever the document's findings: one run finds all faults. The builder may only be built
/// from if [`Translation::is_sound`].
pub fn bootstrap(document: &Document<'_>, builder: &mut Builder) -> Translation {
    let mut cx = Context::new(builder, Origin::File);
    let mut out = Translation::default();
    translate(&mut cx, &document.bootstrap, &mut out);
    let mut late = cx.into_findings();
    document.locate(&mut late);
    out.findings = merge(document.findings().to_vec(), late);
    out.findings.sort_by_key(|finding| (finding.line, finding.column));
    out
}

fn translate(cx: &mut Context<'_>, bootstrap: &api::bootstrap::Bootstrap, out: &mut Translation) {
    if let Some(node) = &bootstrap.node {
        out.node = self::node(node);
    }
    out.admin = cx.optional("admin", &bootstrap.admin, admin);
    out.dns = cx
        .optional("typed_dns_resolver_config", &bootstrap.typed_dns_resolver_config, dns)
        .unwrap_or_default();
    let Some(resources) = &bootstrap.static_resources else { return };
    cx.within("static_resources", |cx| {
        secrets(cx, &resources.secrets);
        cluster_names(cx, &resources.clusters);
        cx.each("clusters", &resources.clusters, |cx, found| {
            out.dns_clusters.extend(cluster::cluster(cx, found));
            if let Some(own) = cx.optional("typed_dns_resolver_config", &found.typed_dns_resolver_config, dns)
                && own != out.dns
                && own != Dns::default()
            {
                cx.error_at(
                    "typed_dns_resolver_config",
                    "servers of a cluster's own are not implemented; set them for the whole bootstrap",
                );
            }
            Some(())
        });
        listener_names(cx, &resources.listeners);
        cx.each("listeners", &resources.listeners, listener::listener);
    });
}

fn node(node: &api::core::Node) -> Node {
    let locality = node.locality.clone().unwrap_or_default();
    Node {
        id: node.id.clone(),
        cluster: node.cluster.clone(),
        locality: Locality {
            region: locality.region.into(),
            zone: locality.zone.into(),
            sub_zone: locality.sub_zone.into(),
            weight: None,
            priority: 0,
        },
        metadata: node.metadata.clone(),
    }
}

fn admin(cx: &mut Context<'_>, admin: &api::bootstrap::Admin) -> Option<Admin> {
    const NOWHERE: &str = "/dev/null";
    if !admin.access_log_path.is_empty() && admin.access_log_path != NOWHERE {
        cx.error_at(
            "access_log_path",
            format!("only {NOWHERE} is implemented: admin requests are not logged"),
        );
    }
    cx.each("access_log", &admin.access_log, |cx, log| {
        use api::accesslog::access_log::ConfigType;
        let Some(ConfigType::TypedConfig(any)) = &log.config_type else { return None };
        let file: Option<api::file_log::FileAccessLog> =
            (any_type(any) == extension::FILE_LOG).then(|| decode(cx, any)).flatten();
        if file.is_none_or(|file| file.path != NOWHERE) {
            cx.error(format!("only {NOWHERE} is implemented: admin requests are not logged"));
        }
        Some(())
    });
    Some(Admin { address: cx.optional("address", &admin.address, socket_address)? })
}

fn dns(cx: &mut Context<'_>, config: &api::core::TypedExtensionConfig) -> Option<Dns> {
    let any = config.typed_config.as_ref()?;
    cx.within("typed_config", |cx| match any_type(any) {
        extension::GETADDRINFO => Some(Dns::default()),
        extension::CARES => {
            let config: api::cares::CaresDnsResolverConfig = decode(cx, any)?;
            let options = config.dns_resolver_options.unwrap_or_default();
            Some(Dns {
                servers: cx.each("resolvers", &config.resolvers, |cx, server| {
                    use api::core::address::Address;
                    let Some(Address::SocketAddress(address)) = &server.address else { return None };
                    cx.within("socket_address", |cx| {
                        // DNS servers are spoken to over UDP whatever the protocol field says
                        let address = api::core::SocketAddress { protocol: 0, ..address.clone() };
                        ip_and_port(cx, &address)
                    })
                }),
                use_tcp: options.use_tcp_for_dns_lookups,
                no_search_domain: options.no_default_search_domain,
            })
        }
        _ => {
            misplaced(cx, any, "DNS resolver");
            None
        }
    })
}

fn secrets(cx: &mut Context<'_>, secrets: &[api::tls::Secret]) {
    cx.each("secrets", secrets, |cx, secret| {
        if cx.secrets.insert(secret.name.clone(), secret.clone()).is_some() {
            cx.error_at("name", format!("a second secret `{}`", secret.name));
        }
        Some(())
    });
}

/// Before any cluster is translated, so that routes and clusters can point at later ones.
fn cluster_names(cx: &mut Context<'_>, clusters: &[api::cluster::Cluster]) {
    cx.each("clusters", clusters, |cx, cluster| {
        if !cluster.name.is_empty() && !cx.clusters.insert(cluster.name.clone()) {
            cx.error_at("name", format!("a second cluster `{}`", cluster.name));
        }
        Some(())
    });
}

fn listener_names(cx: &mut Context<'_>, listeners: &[api::listener::Listener]) {
    let mut seen = std::collections::HashSet::new();
    cx.each("listeners", listeners, |cx, listener| {
        if !listener.name.is_empty() && !seen.insert(listener.name.as_str()) {
            cx.error_at("name", format!("a second listener `{}`", listener.name));
        }
        Some(())
    });
}
