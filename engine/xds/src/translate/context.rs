//! What every translation is handed: the builder, what is known of the rest of the configuration, and where the
//! reader is, so that a finding names its field.

use super::api;
use crate::finding::{Finding, Findings, Path, Severity};
use corelane_snapshot::{Builder, ClusterId, StatBlock, StatScope};
use std::collections::{HashMap, HashSet};

/// Where a resource came from decides what it may point at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file: there is no control stream, and everything it names must be in it.
    File,
    /// The control stream: routes, endpoints and secrets may come later.
    ControlStream,
}

pub(super) struct Context<'a> {
    pub builder: &'a mut Builder,
    pub origin: Origin,
    /// Names of the clusters that are defined.
    pub clusters: HashSet<String>,
    /// Static secrets by name.
    pub secrets: HashMap<String, api::tls::Secret>,
    /// Of the connection manager that is being read; per-route filters count with it.
    pub http_stat_prefix: String,
    path: Path,
    findings: Findings,
}

impl<'a> Context<'a> {
    pub fn new(builder: &'a mut Builder, origin: Origin) -> Self {
        Context {
            builder,
            origin,
            clusters: HashSet::new(),
            secrets: HashMap::new(),
            http_stat_prefix: String::new(),
            path: Path::default(),
            findings: Findings::default(),
        }
    }

    pub fn into_findings(self) -> Vec<Finding> {
        self.findings.into_vec()
    }

    /// A fault of the message or field that is being read.
    pub fn error(&mut self, message: impl Into<String>) {
        self.findings.error(self.path.as_str(), message);
    }

    /// A fault of one field of the message that is being read.
    pub fn error_at(&mut self, field: &str, message: impl Into<String>) {
        self.within(field, |cx| cx.error(message));
    }

    pub fn warn(&mut self, message: impl Into<String>) {
        self.findings.add(self.path.as_str(), None, Severity::Warning, message.into());
    }

    /// Reads inside a field. An empty name stays where it is.
    pub fn within<T>(&mut self, field: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        if field.is_empty() {
            return read(self);
        }
        self.path.field(field);
        let value = read(self);
        self.path.pop();
        value
    }

    /// Reads every entry of a list; entries that gave a finding instead of a value are left out.
    pub fn each<'i, I, T>(
        &mut self,
        field: &str,
        items: &'i [I],
        mut read: impl FnMut(&mut Self, &'i I) -> Option<T>,
    ) -> Vec<T> {
        self.path.field(field);
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            self.path.index(index);
            values.extend(read(self, item));
            self.path.pop();
        }
        self.path.pop();
        values
    }

    /// Reads one entry of a map.
    pub fn entry<T>(&mut self, field: &str, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.field(field);
        self.path.key(key);
        let value = read(self);
        self.path.pop();
        self.path.pop();
        value
    }

    /// Reads an optional message.
    pub fn optional<M, T>(
        &mut self,
        field: &str,
        message: &Option<M>,
        read: impl FnOnce(&mut Self, &M) -> Option<T>,
    ) -> Option<T> {
        let message = message.as_ref()?;
        self.within(field, |cx| read(cx, message))
    }

    pub fn stats(&mut self, scope: StatScope) -> StatBlock {
        self.builder.stat_block(scope)
    }

    /// The id of a cluster that a field names. `must_exist`: report a name that nothing defines; over the control
    /// stream it may still come.
    pub fn cluster(&mut self, field: &str, name: &str, must_exist: bool) -> ClusterId {
        if must_exist && self.origin == Origin::File && !self.clusters.contains(name) {
            self.error_at(field, format!("unknown cluster `{name}`: no cluster of that name is defined"));
        }
        self.builder.cluster_id(name)
    }
}
