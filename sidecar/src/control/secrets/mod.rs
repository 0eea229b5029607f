//! Certificates, keys and trust bundles: read from the files that TLS specifications name, built into the table that
//! handshakes read, and built again when a file changes. Connections that stand are not touched; a pair that does not
//! fit (one half already replaced) leaves the last good one in use until its other half arrives.

pub mod expiries;
mod spec;
mod watch;

pub use spec::SECRET_BYTES_MAX;
pub use watch::{Watch, follow_files};

use corelane_snapshot::{DownstreamTls, Listener, Snapshot, TlsContextId, TransportSocket, UpstreamTls};
use corelane_tls::{CertificateInfo, ContextId, ContextTable};
use spec::Files;
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    sync::Arc,
};

/// What a context is made from.
#[derive(Clone)]
enum Origin {
    Server(Arc<DownstreamTls>),
    Client(Arc<UpstreamTls>),
}

type Named = BTreeMap<TlsContextId, (String, Origin)>;

struct Context {
    /// As messages call it: "listener `ingress`", "cluster `payments`".
    name: String,
    origin: Origin,
    files: Vec<PathBuf>,
    /// Of the files' contents when they were last tried, whether that succeeded or not.
    tried: u64,
}

/// A context that could not be built, or built anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub resource: String,
    pub message: String,
    /// None: the fault is not of one part alone.
    pub part: Option<Part>,
}

/// A certificate chain, key, bundle or list, as a configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// `certificate_chain`, `private_key`, `trusted_ca` or `crl`.
    pub field: &'static str,
    /// The file, or `<inline>`.
    pub value: String,
}

/// What a look at the files led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Names of the contexts that handshakes find new from now on.
    pub rotated: Vec<String>,
    pub faults: Vec<Fault>,
}

/// One certificate for `/certs`.
pub struct Shown<'a> {
    pub path: String,
    pub info: &'a CertificateInfo,
}

/// All TLS contexts of the process and the files behind them. Lives on the control thread.
pub struct Secrets {
    table: Arc<ContextTable>,
    contexts: BTreeMap<TlsContextId, Context>,
    /// Contexts built so far, the same one again included.
    built: Cell<u64>,
}

impl Secrets {
    pub fn new(table: Arc<ContextTable>) -> Secrets {
        Secrets { table, contexts: BTreeMap::new(), built: Cell::new(0) }
    }

    pub fn table(&self) -> &Arc<ContextTable> {
        &self.table
    }

    /// Builds the contexts that `snapshot` names and this does not have yet, and empties those that it no longer
    /// names. Call it before the snapshot is published: a context that is not there fails handshakes.
    pub fn follow(&mut self, snapshot: &Snapshot) -> Vec<Fault> {
        self.follow_named(named(snapshot))
    }

    fn follow_named(&mut self, named: Named) -> Vec<Fault> {
        let gone: Vec<TlsContextId> =
            self.contexts.keys().filter(|id| !named.contains_key(id)).copied().collect();
        for id in gone {
            self.contexts.remove(&id);
            self.table.remove(ContextId(id.0));
        }
        let files = Files::default();
        let mut faults = Vec::new();
        for (id, (name, origin)) in named {
            if self.contexts.contains_key(&id) {
                continue;
            }
            let context = Context { files: origin.files(), tried: 0, name, origin };
            let tried = digest(&context.files, &files);
            if let Err(message) = self.build(id, &context, &files) {
                faults.extend(self.faults_of(&context, message, &files));
            }
            self.contexts.insert(id, Context { tried, ..context });
        }
        faults
    }

    /// Builds anew what was made from files that have changed since.
    pub fn recheck(&mut self) -> Rotation {
        let files = Files::default();
        let mut rotation = Rotation::default();
        let changed: Vec<(TlsContextId, u64)> = self
            .contexts
            .iter()
            .filter(|(_, context)| !context.files.is_empty())
            .map(|(id, context)| (*id, digest(&context.files, &files)))
            .filter(|(id, now)| self.contexts.get(id).is_some_and(|context| context.tried != *now))
            .collect();
        for (id, now) in changed {
            let Some(context) = self.contexts.get(&id) else { continue };
            let name = context.name.clone();
            match self.build(id, context, &files) {
                Ok(()) => rotation.rotated.push(name),
                Err(message) => rotation.faults.push(Fault { resource: name, message, part: None }),
            }
            if let Some(context) = self.contexts.get_mut(&id) {
                context.tried = now;
            }
        }
        rotation
    }

    /// All that is wrong with a context's parts. `message`: why it could not be built, where no part is at fault.
    fn faults_of(&self, context: &Context, message: String, files: &Files) -> Vec<Fault> {
        let (certificates, validation) = match &context.origin {
            Origin::Server(tls) => (&tls.certificates[..], tls.validation.as_ref()),
            Origin::Client(tls) => (tls.certificate.as_slice(), tls.validation.as_ref()),
        };
        let fault = |(part, message)| Fault { resource: context.name.clone(), message, part: Some(part) };
        let environment = self.table.environment();
        let mut faults: Vec<Fault> =
            spec::faults(certificates, validation, files, environment).into_iter().map(fault).collect();
        if faults.is_empty() {
            faults.push(Fault { resource: context.name.clone(), message, part: None });
        }
        faults
    }

    fn build(&self, id: TlsContextId, context: &Context, files: &Files) -> Result<(), String> {
        let slot = ContextId(id.0);
        let findings = match &context.origin {
            Origin::Server(tls) => {
                let spec = spec::server(&context.name, tls, files)?;
                self.table.set_server(slot, &spec).map_err(|e| e.to_string())?.findings().to_vec()
            }
            Origin::Client(tls) => {
                let spec = spec::client(&context.name, tls, files)?;
                self.table.set_client(slot, &spec).map_err(|e| e.to_string())?.findings().to_vec()
            }
        };
        self.built.set(self.built.get() + 1);
        for finding in findings {
            tracing::warn!("{}: {}", finding.resource, finding.message);
        }
        Ok(())
    }

    /// The directories in which a change can concern a context: where each file is named, and where it really lies.
    pub fn directories(&self) -> BTreeSet<PathBuf> {
        let mut directories = BTreeSet::new();
        for file in self.contexts.values().flat_map(|context| &context.files) {
            let named = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            directories.insert(named.to_owned());
            if let Some(real) =
                std::fs::canonicalize(file).ok().and_then(|real| real.parent().map(Path::to_owned))
            {
                directories.insert(real);
            }
        }
        directories
    }

    /// For each context its trust roots and its own chain, once for each set of files.
    pub fn show(&self, mut each: impl FnMut(&[Shown<'_>], &[Shown<'_>])) {
        let mut seen = BTreeSet::new();
        for (id, context) in &self.contexts {
            if !context.files.is_empty() && !seen.insert(context.files.clone()) {
                continue;
            }
            let bundle = context.origin.bundle_name();
            let names = context.origin.chain_names();
            let roots = |infos: &[CertificateInfo], each: &mut dyn FnMut(&[Shown<'_>])| {
                each(&infos.iter().map(|info| Shown { path: bundle.clone(), info }).collect::<Vec<_>>());
            };
            match &context.origin {
                Origin::Server(_) => {
                    let Some(built) = self.table.server(ContextId(id.0)) else { continue };
                    let chain: Vec<Shown<'_>> = built
                        .identities()
                        .iter()
                        .zip(&names)
                        .flat_map(|(identity, name)| {
                            identity.chain().iter().map(|info| Shown { path: name.clone(), info })
                        })
                        .collect();
                    roots(built.trust_roots(), &mut |roots| each(roots, &chain));
                }
                Origin::Client(_) => {
                    let Some(built) = self.table.client(ContextId(id.0)) else { continue };
                    let chain: Vec<Shown<'_>> = built
                        .identity()
                        .into_iter()
                        .zip(&names)
                        .flat_map(|(identity, name)| {
                            identity.chain().iter().map(|info| Shown { path: name.clone(), info })
                        })
                        .collect();
                    roots(built.trust_roots(), &mut |roots| each(roots, &chain));
                }
            }
        }
    }

    /// Unix second at which the first of our own certificates or roots expires.
    pub fn first_expiry_s(&self) -> Option<u64> {
        let mut first: Option<u64> = None;
        self.show(|roots, chain| {
            let soonest = roots.iter().chain(chain).map(|shown| shown.info.not_after_s).min();
            first = match (first, soonest) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        });
        first
    }
}

impl Origin {
    fn files(&self) -> Vec<PathBuf> {
        match self {
            Origin::Server(tls) => spec::files_of(&tls.certificates, tls.validation.as_ref()),
            Origin::Client(tls) => spec::files_of(tls.certificate.as_slice(), tls.validation.as_ref()),
        }
    }

    fn bundle_name(&self) -> String {
        let validation = match self {
            Origin::Server(tls) => tls.validation.as_ref(),
            Origin::Client(tls) => tls.validation.as_ref(),
        };
        validation.and_then(|v| v.trusted_ca.as_ref()).map(spec::name_of).unwrap_or_default()
    }

    fn chain_names(&self) -> Vec<String> {
        match self {
            Origin::Server(tls) => tls.certificates.iter().map(|pair| spec::name_of(&pair.chain)).collect(),
            Origin::Client(tls) => tls.certificate.iter().map(|pair| spec::name_of(&pair.chain)).collect(),
        }
    }
}

/// Every context that a snapshot names, with what messages call it.
fn named(snapshot: &Snapshot) -> Named {
    let mut named = Named::new();
    for listener in &snapshot.listeners {
        for tls in chains_of(listener) {
            named.insert(tls.context, (format!("listener `{}`", listener.name), Origin::Server(tls.clone())));
        }
    }
    for cluster in snapshot.clusters.iter().flatten() {
        for socket in &cluster.config.transport.sockets {
            if let TransportSocket::Tls(tls) = socket {
                named.insert(
                    tls.context,
                    (format!("cluster `{}`", cluster.config.name), Origin::Client(tls.clone())),
                );
            }
        }
    }
    named
}

fn chains_of(listener: &Listener) -> impl Iterator<Item = &Arc<DownstreamTls>> {
    listener.chains.iter().chain(&listener.default_chain).filter_map(|chain| chain.tls.as_ref())
}

/// Of the contents, only to tell a change.
fn digest(paths: &[PathBuf], files: &Files) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in paths {
        files.read(path).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests;
