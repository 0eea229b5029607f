//! The descriptors of Envoy's API: every message of the files we know, whether we implement it or not, so that
//! a field can be told apart as unknown, known but not implemented, or implemented.

use crate::Error;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

static DESCRIPTORS: &[u8] = include_bytes!("../proto/descriptors.bin");

pub(crate) const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

/// Takes a millisecond to make and a few megabytes while it lives: make one to read or dump configuration, and
/// let go of it.
#[derive(Clone, Debug)]
pub struct Schema {
    pool: DescriptorPool,
}

impl Schema {
    /// # Errors
    /// [`Error::Descriptors`], if the binary is damaged.
    pub fn load() -> Result<Schema, Error> {
        let pool = DescriptorPool::decode(DESCRIPTORS).map_err(|e| Error::Descriptors(e.to_string()))?;
        Ok(Schema { pool })
    }

    /// By full name or type URL (`type.googleapis.com/envoy...`).
    pub(crate) fn message(&self, name_or_url: &str) -> Option<MessageDescriptor> {
        self.pool.get_message_by_name(type_name(name_or_url))
    }

    pub(crate) fn decode(&self, name_or_url: &str, bytes: &[u8]) -> Result<DynamicMessage, Error> {
        let descriptor =
            self.message(name_or_url).ok_or_else(|| Error::UnknownType(type_name(name_or_url).to_owned()))?;
        DynamicMessage::decode(descriptor, bytes).map_err(|e| Error::Decode {
            type_name: type_name(name_or_url).to_owned(),
            reason: e.to_string(),
        })
    }
}

/// The full name at the end of a type URL.
pub(crate) fn type_name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}
