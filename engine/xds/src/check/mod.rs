//! Refuses by name what is set and not implemented, and holds values against the rules of the API's own files
//! (protoc-gen-validate). Works on any message, from a file or from the control stream.

mod bounds;
mod rules;

use crate::{
    finding::{Findings, Path},
    schema::{Schema, type_name},
};
use prost_reflect::{DynamicMessage, FieldDescriptor, MapKey, MessageDescriptor, ReflectMessage, Value};
use rules::Rules;
use std::{collections::HashMap, rc::Rc};

/// Anys inside messages inside Anys, as [`crate::read::DEPTH_MAX`].
const DEPTH_MAX: usize = crate::read::DEPTH_MAX;

pub(crate) fn check(schema: &Schema, message: &DynamicMessage, path: Path) -> Findings {
    let mut checker =
        Checker { schema, rules: HashMap::new(), path, findings: Findings::default(), depth: 0 };
    checker.message(message);
    checker.findings
}

struct Checker<'a> {
    schema: &'a Schema,
    rules: HashMap<String, Rc<MessageRules>>,
    path: Path,
    findings: Findings,
    depth: usize,
}

/// The fields of a message that are read, each with its rules; oneofs of which one member must be set.
struct MessageRules {
    fields: Vec<(FieldDescriptor, Rules)>,
    required_oneofs: Vec<(Vec<FieldDescriptor>, String)>,
}

impl Checker<'_> {
    fn error(&mut self, message: impl Into<String>) {
        self.findings.error(self.path.as_str(), message);
    }

    fn message(&mut self, message: &DynamicMessage) {
        if self.depth >= DEPTH_MAX {
            return self.error(format!("nested deeper than {DEPTH_MAX} messages"));
        }
        self.depth += 1;
        let descriptor = message.descriptor();
        match descriptor.full_name() {
            "google.protobuf.Any" => self.any(message),
            name if name.starts_with("google.protobuf.") => {}
            _ => self.envoy_message(&descriptor, message),
        }
        self.depth -= 1;
    }

    fn any(&mut self, message: &DynamicMessage) {
        let url = message.get_field_by_name("type_url");
        let bytes = message.get_field_by_name("value");
        let (Some(url), Some(bytes)) =
            (url.as_ref().and_then(|url| url.as_str()), bytes.as_ref().and_then(|bytes| bytes.as_bytes()))
        else {
            return;
        };
        if self.schema.message(url).is_none() {
            return self.error(format!("extension type `{}` is not implemented", type_name(url)));
        }
        match self.schema.decode(url, bytes) {
            Ok(inner) => self.message(&inner),
            Err(error) => self.error(error.to_string()),
        }
    }

    fn envoy_message(&mut self, descriptor: &MessageDescriptor, message: &DynamicMessage) {
        let Some(fields) = self.schema.supported(descriptor.full_name()) else {
            return self.error(format!("{} is not implemented", descriptor.full_name()));
        };
        let mut refused = Vec::new();
        for (field, _) in message.fields().filter(|(field, _)| !fields.is_implemented(field.name())) {
            self.path.field(field.name());
            self.error(not_implemented(&field));
            self.path.pop();
            refused.push(field);
        }
        for unknown in message.unknown_fields() {
            let number = unknown.number();
            self.error(format!("field number {number} of {} is not known", descriptor.full_name()));
        }
        self.apply_rules(descriptor, message, &refused);
        for (field, value) in message.fields().filter(|(field, _)| fields.is_read(field.name())) {
            self.path.field(field.name());
            self.descend(value);
            self.path.pop();
        }
    }

    fn apply_rules(
        &mut self,
        descriptor: &MessageDescriptor,
        message: &DynamicMessage,
        refused: &[FieldDescriptor],
    ) {
        let rules = self.rules_of(descriptor);
        for (field, rules) in &rules.fields {
            self.path.field(field.name());
            rules.apply(field, message, &mut self.path, &mut self.findings);
            self.path.pop();
        }
        for (members, names) in &rules.required_oneofs {
            // a member that is refused is a finding already
            let set = members.iter().any(|member| message.has_field(member));
            if !set && !members.iter().any(|member| refused.contains(member)) {
                self.error(format!("one of {names} must be set"));
            }
        }
    }

    fn rules_of(&mut self, descriptor: &MessageDescriptor) -> Rc<MessageRules> {
        if let Some(rules) = self.rules.get(descriptor.full_name()) {
            return rules.clone();
        }
        let fields = self.schema.supported(descriptor.full_name());
        let is_read = |field: &FieldDescriptor| fields.is_some_and(|fields| fields.is_read(field.name()));
        let fields = descriptor
            .fields()
            .filter(is_read)
            .filter_map(|field| Rules::of(&field).map(|rules| (field, rules)))
            .collect();
        let required_oneofs = descriptor
            .oneofs()
            .filter(rules::is_required_oneof)
            .map(|oneof| {
                let names: Vec<String> =
                    oneof.fields().filter(is_read).map(|field| format!("`{}`", field.name())).collect();
                (oneof.fields().collect(), names.join(", "))
            })
            .collect();
        let rules = Rc::new(MessageRules { fields, required_oneofs });
        self.rules.insert(descriptor.full_name().to_owned(), rules.clone());
        rules
    }

    fn descend(&mut self, value: &Value) {
        match value {
            Value::Message(message) => self.message(message),
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    if let Value::Message(message) = item {
                        self.path.index(index);
                        self.message(message);
                        self.path.pop();
                    }
                }
            }
            Value::Map(entries) => {
                for (key, item) in crate::read::sorted(entries) {
                    if let Value::Message(message) = item {
                        self.path.key(&key_text(key));
                        self.message(message);
                        self.path.pop();
                    }
                }
            }
            _ => {}
        }
    }
}

pub(crate) fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::String(text) => text.clone(),
        MapKey::Bool(value) => value.to_string(),
        MapKey::I32(value) => value.to_string(),
        MapKey::I64(value) => value.to_string(),
        MapKey::U32(value) => value.to_string(),
        MapKey::U64(value) => value.to_string(),
    }
}

pub(crate) fn not_implemented(field: &FieldDescriptor) -> String {
    format!("field `{}` of {} is not implemented", field.name(), field.parent_message().name())
}
