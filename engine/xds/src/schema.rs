//! The descriptors of Envoy's API and the table of what is implemented of it, so that a field can be told apart as
//! unknown, known but not implemented, or implemented. Messages behind fields that are not implemented are shells.

use crate::{Error, supported};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

static DESCRIPTORS: &[u8] = include_bytes!("../proto/descriptors.bin");

pub(crate) const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

/// Takes a millisecond to make and a few megabytes while it lives: make one to read or dump configuration, and
/// let go of it.
#[derive(Clone, Debug)]
pub struct Schema {
    pool: DescriptorPool,
    supported: Arc<HashMap<&'static str, Fields>>,
}

/// Of one message.
#[derive(Debug)]
pub(crate) struct Fields {
    read: HashSet<&'static str>,
    accepted: HashSet<&'static str>,
}

impl Fields {
    pub fn is_read(&self, field: &str) -> bool {
        self.read.contains(field)
    }

    pub fn is_implemented(&self, field: &str) -> bool {
        self.read.contains(field) || self.accepted.contains(field)
    }
}

impl Schema {
    /// # Errors
    /// [`Error::Descriptors`], if the binary is damaged.
    pub fn load() -> Result<Schema, Error> {
        let pool = DescriptorPool::decode(DESCRIPTORS).map_err(|e| Error::Descriptors(e.to_string()))?;
        let fields = |entry: &'static supported::Supported| Fields {
            read: entry.read.split_whitespace().collect(),
            accepted: entry.accepted.iter().map(|(field, _)| *field).collect(),
        };
        let supported = supported::table().map(|entry| (entry.message, fields(entry))).collect();
        Ok(Schema { pool, supported: Arc::new(supported) })
    }

    /// None: the message is not implemented (or is protobuf's own).
    pub(crate) fn supported(&self, message: &str) -> Option<&Fields> {
        self.supported.get(message)
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
