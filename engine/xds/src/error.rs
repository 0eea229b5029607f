//! What can fail besides the configuration itself, whose faults are [`crate::Finding`]s.

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("built-in protobuf descriptors are damaged: {0}")]
    Descriptors(String),
    #[error("unknown protobuf type {0:?}")]
    UnknownType(String),
    #[error("{type_name} does not decode: {reason}")]
    Decode { type_name: String, reason: String },
}
