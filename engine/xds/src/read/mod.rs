//! A file's tree becomes a protobuf message by the protobuf JSON mapping, over descriptors, so that every fault is
//! found in one pass and carries line, column and field path.
//!
//! Names may be lowerCamelCase or as in the .proto file; null means unset; an Any is resolved by its `@type`.
//! Reference: Protocol Buffers, "ProtoJSON format".

mod scalar;
mod suggest;
mod well_known;

pub(crate) use well_known::sorted;

use crate::{
    check::not_implemented,
    finding::{Findings, Path, Severity},
    schema::Schema,
    tree::{Node, Spanned},
};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};
use std::collections::HashMap;

/// Messages inside messages, entries of maps included; deep honest files stay below 40, and protobuf decoders stop
/// at 100.
pub const DEPTH_MAX: usize = 90;

/// A tree mapped to a message: what could be read, and what could not.
pub(crate) struct Mapped {
    pub message: DynamicMessage,
    pub findings: Findings,
}

/// The root must be a mapping; anything else gives an empty message and a finding.
pub(crate) fn map(schema: &Schema, descriptor: MessageDescriptor, tree: &Spanned<Node>) -> Mapped {
    let mut mapper =
        Mapper { schema, path: Path::default(), findings: Findings::default(), depth: 0, accepted: 0 };
    let empty = DynamicMessage::new(descriptor.clone());
    let message = mapper.message(&descriptor, tree).unwrap_or(empty);
    Mapped { message, findings: mapper.findings }
}

struct Mapper<'a> {
    schema: &'a Schema,
    path: Path,
    findings: Findings,
    depth: usize,
    /// Accepted fields that are open; inside one nothing is refused.
    accepted: usize,
}

type Entries = [(Spanned<String>, Spanned<Node>)];

impl Mapper<'_> {
    fn error(&mut self, at: (u32, u32), message: impl Into<String>) {
        self.findings.add(self.path.as_str(), Some(at), Severity::Error, message.into());
    }

    fn message(&mut self, descriptor: &MessageDescriptor, node: &Spanned<Node>) -> Option<DynamicMessage> {
        if self.depth >= DEPTH_MAX {
            self.error(node.at(), format!("nested deeper than {DEPTH_MAX} messages"));
            return None;
        }
        self.depth += 1;
        let message = match self.well_known(descriptor, node) {
            Some(message) => message,
            None => self.plain_message(descriptor, node),
        };
        self.depth -= 1;
        message
    }

    fn plain_message(
        &mut self,
        descriptor: &MessageDescriptor,
        node: &Spanned<Node>,
    ) -> Option<DynamicMessage> {
        let Node::Map(entries) = &node.value else {
            self.error(
                node.at(),
                format!("expected a mapping ({}), found {}", descriptor.name(), node.value.kind()),
            );
            return None;
        };
        Some(self.fields(descriptor, entries, None))
    }

    /// The fields of a message; `skip` is the key that an Any adds (`@type`).
    fn fields(
        &mut self,
        descriptor: &MessageDescriptor,
        entries: &Entries,
        skip: Option<&str>,
    ) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        let mut seen: HashMap<u32, u32> = HashMap::new();
        for (key, node) in entries.iter().filter(|(key, _)| skip != Some(key.value.as_str())) {
            let Some(field) = find(descriptor, &key.value) else {
                self.unknown_field(descriptor, key);
                continue;
            };
            self.path.field(field.name());
            match seen.insert(field.number(), key.line) {
                Some(line) => self.error(key.at(), format!("duplicate field, first set in line {line}")),
                // what stands in it is not looked at: the schema may not know it
                None if !self.is_implemented(&field) => {
                    if node.value != Node::Null {
                        self.error(key.at(), not_implemented(&field));
                    }
                }
                None => self.field(&mut message, &field, key, node),
            }
            self.path.pop();
        }
        message
    }

    /// Messages of protobuf's own are not in the table.
    fn is_implemented(&self, field: &FieldDescriptor) -> bool {
        let supported = self.schema.supported(field.parent_message().full_name());
        self.accepted > 0 || supported.is_none_or(|fields| fields.is_implemented(field.name()))
    }

    fn is_accepted(&self, field: &FieldDescriptor) -> bool {
        let supported = self.schema.supported(field.parent_message().full_name());
        supported.is_some_and(|fields| fields.is_implemented(field.name()) && !fields.is_read(field.name()))
    }

    fn field(
        &mut self,
        message: &mut DynamicMessage,
        field: &FieldDescriptor,
        key: &Spanned<String>,
        node: &Spanned<Node>,
    ) {
        if node.value == Node::Null && !takes_null(field) {
            return;
        }
        if let Some(other) = field.containing_oneof().and_then(|oneof| {
            oneof.fields().find(|other| other.number() != field.number() && message.has_field(other))
        }) {
            self.error(key.at(), format!("only one of `{}` and `{}` may be set", other.name(), field.name()));
            return;
        }
        let is_accepted = self.is_accepted(field);
        self.accepted += usize::from(is_accepted);
        let value = if field.is_map() {
            self.map(field, node)
        } else if field.is_list() {
            self.list(field, node)
        } else {
            self.value(&field.kind(), node)
        };
        self.accepted -= usize::from(is_accepted);
        if let Some(value) = value {
            message.set_field(field, value);
        }
    }

    fn list(&mut self, field: &FieldDescriptor, node: &Spanned<Node>) -> Option<Value> {
        let Node::Seq(items) = &node.value else {
            self.error(node.at(), format!("expected a list, found {}", node.value.kind()));
            return None;
        };
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            self.path.index(index);
            values.extend(self.value(&field.kind(), item));
            self.path.pop();
        }
        Some(Value::List(values))
    }

    fn map(&mut self, field: &FieldDescriptor, node: &Spanned<Node>) -> Option<Value> {
        let (Node::Map(entries), Kind::Message(entry)) = (&node.value, field.kind()) else {
            self.error(node.at(), format!("expected a mapping, found {}", node.value.kind()));
            return None;
        };
        let (key_field, value_field) = (entry.map_entry_key_field(), entry.map_entry_value_field());
        // an entry is a message on the wire
        self.depth += 1;
        let mut values: HashMap<MapKey, Value> = HashMap::with_capacity(entries.len());
        for (key, item) in entries {
            self.path.key(&key.value);
            match scalar::map_key(&key_field.kind(), &key.value) {
                None => self.error(key.at(), "not a key of this mapping"),
                Some(map_key) if values.contains_key(&map_key) => self.error(key.at(), "duplicate key"),
                Some(map_key) => {
                    if let Some(value) = self.value(&value_field.kind(), item) {
                        values.insert(map_key, value);
                    }
                }
            }
            self.path.pop();
        }
        self.depth -= 1;
        Some(Value::Map(values))
    }

    fn value(&mut self, kind: &Kind, node: &Spanned<Node>) -> Option<Value> {
        match kind {
            Kind::Message(descriptor) => self.message(descriptor, node).map(Value::Message),
            Kind::Enum(descriptor) => match scalar::enumeration(descriptor, &node.value) {
                Ok(number) => Some(Value::EnumNumber(number)),
                Err(message) => {
                    self.error(node.at(), message);
                    None
                }
            },
            kind => match scalar::scalar(kind, &node.value) {
                Ok(value) => Some(value),
                Err(message) => {
                    self.error(node.at(), message);
                    None
                }
            },
        }
    }

    fn unknown_field(&mut self, descriptor: &MessageDescriptor, key: &Spanned<String>) {
        let name = &key.value;
        let message = if descriptor.reserved_names().any(|reserved| reserved == name) {
            format!("field `{name}` was removed from Envoy's API")
        } else {
            let names: Vec<String> = descriptor.fields().map(|field| field.name().to_owned()).collect();
            match suggest::nearest(name, names.iter().map(String::as_str)) {
                Some(near) => format!("unknown field `{name}` (did you mean `{near}`?)"),
                None => format!("unknown field `{name}` of {}", descriptor.name()),
            }
        };
        self.path.field(name);
        self.error(key.at(), message);
        self.path.pop();
    }
}

/// By the name in the .proto file or its lowerCamelCase form.
fn find(descriptor: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    descriptor.get_field_by_name(name).or_else(|| descriptor.get_field_by_json_name(name))
}

/// Null is a value of google.protobuf.Value and NullValue; for every other field it means unset.
fn takes_null(field: &FieldDescriptor) -> bool {
    match field.kind() {
        _ if field.is_list() || field.is_map() => false,
        Kind::Message(message) => message.full_name() == "google.protobuf.Value",
        Kind::Enum(descriptor) => descriptor.full_name() == "google.protobuf.NullValue",
        _ => false,
    }
}
