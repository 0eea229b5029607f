//! What can be wrong with a configuration once it is well-formed.

/// Every variant names the resource and the field, as the reader of the file knows them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{resource}: {field}: {reason}")]
    Invalid { resource: String, field: String, reason: String },
    #[error("{resource}: unknown cluster {cluster:?}; no cluster of that name is defined")]
    UnknownCluster { resource: String, cluster: String },
    #[error("too many {what}: {count}, the limit is {max}")]
    TooMany { what: &'static str, count: usize, max: usize },
    #[error("bad regular expression {pattern:?}: {reason}")]
    Regex { pattern: String, reason: String },
    #[error("bad format string at byte {offset}: {reason}")]
    Template { offset: usize, reason: String },
}
