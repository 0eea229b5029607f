//! Cuts the FileDescriptorSet down to what reading a configuration needs: listed messages with all their fields, types
//! of refused fields as empty shells, of all options only the value rules and the mark of sensitive fields. A schema
//! made of it takes a fraction of the memory and the time.

use crate::supported;
use prost_reflect::{
    DescriptorPool, DynamicMessage, Kind, MessageDescriptor, ReflectMessage, Value, prost::Message,
};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Options that are kept, by full name of their extension.
const OPTIONS: [&str; 3] = ["validate.rules", "validate.required", "udpa.annotations.sensitive"];

/// How much of a message stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Extent {
    /// Its name: the type of a refused field.
    Shell,
    /// All fields; behind those that are read or accepted there is more.
    Listed,
    /// Everything: what is accepted is still dumped.
    Whole,
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

pub fn shrink(full: &[u8]) -> Result<Vec<u8>> {
    let pool = DescriptorPool::decode(full)?;
    let cutter = Cutter { extents: extents(&pool), enums: HashSet::new(), pool };
    cutter.cut(full)
}

type Fields = HashMap<&'static str, (BTreeSet<&'static str>, BTreeSet<&'static str>)>;

fn table() -> Fields {
    supported::table()
        .map(|entry| {
            let accepted = entry.accepted.iter().map(|(field, _)| *field).collect();
            (entry.message, (entry.read.split_whitespace().collect(), accepted))
        })
        .collect()
}

fn extents(pool: &DescriptorPool) -> HashMap<String, Extent> {
    let table = table();
    let mut extents: HashMap<String, Extent> = HashMap::new();
    let mut open: Vec<(MessageDescriptor, Extent)> = supported::ROOTS
        .iter()
        .filter_map(|root| pool.get_message_by_name(root))
        .map(|root| (root, Extent::Listed))
        .collect();
    while let Some((message, extent)) = open.pop() {
        let known = extents.get(message.full_name());
        if known.is_some_and(|known| *known >= extent) {
            continue;
        }
        extents.insert(message.full_name().to_owned(), extent);
        let listed = table.get(message.full_name());
        for field in message.fields() {
            let Kind::Message(inner) = field.kind() else { continue };
            let next = match extent {
                Extent::Whole => Extent::Whole,
                // a map's entry is always whole; its value is as much as the map
                _ if message.is_map_entry() => extent,
                Extent::Shell => continue,
                Extent::Listed => match listed {
                    Some((read, _)) if read.contains(field.name()) => Extent::Listed,
                    Some((_, accepted)) if accepted.contains(field.name()) => Extent::Whole,
                    _ => Extent::Shell,
                },
            };
            open.push((inner, next));
        }
    }
    extents
}

struct Cutter {
    pool: DescriptorPool,
    extents: HashMap<String, Extent>,
    enums: HashSet<String>,
}

impl Cutter {
    fn cut(mut self, full: &[u8]) -> Result<Vec<u8>> {
        let kind = self.pool.get_message_by_name("google.protobuf.FileDescriptorSet");
        let kind = kind.ok_or("no descriptor.proto among the files")?;
        let mut set = DynamicMessage::decode(kind, full)?;
        self.note_enums();
        for file in list(&mut set, "file") {
            self.file(file);
        }
        let is_kept = |file: &DynamicMessage| {
            is_basis(&text(file, "name"))
                || file.has_field_by_name("message_type")
                || file.has_field_by_name("enum_type")
        };
        let files = owned(&set, "file").into_iter().filter(is_kept).collect::<Vec<_>>();
        let names: HashSet<String> = files.iter().map(|file| text(file, "name")).collect();
        let files = files.into_iter().map(|mut file| {
            let kept = |value: &Value| value.as_str().is_some_and(|name| names.contains(name));
            if let Some(Value::List(imports)) = file.get_field_by_name_mut("dependency") {
                imports.retain(kept);
            }
            file.clear_field_by_name("public_dependency");
            Value::Message(file)
        });
        let files = Value::List(files.collect());
        set.set_field_by_name("file", files);
        Ok(set.encode_to_vec())
    }

    /// Enums of the fields that stay.
    fn note_enums(&mut self) {
        for (name, extent) in &self.extents {
            if let Some(message) = self.pool.get_message_by_name(name).filter(|_| *extent > Extent::Shell) {
                let enums =
                    message.fields().filter_map(|field| Some(field.kind().as_enum()?.full_name().to_owned()));
                self.enums.extend(enums);
            }
        }
    }

    fn file(&self, file: &mut DynamicMessage) {
        if is_basis(&text(file, "name")) {
            return;
        }
        for field in ["service", "extension", "options", "source_code_info"] {
            file.clear_field_by_name(field);
        }
        let package = text(file, "package");
        self.members(file, &package, "message_type");
    }

    /// The messages (`message_type` or `nested_type`) and enums of a scope.
    fn members(&self, scope: &mut DynamicMessage, name: &str, messages: &str) {
        for message in list(scope, messages) {
            let full = format!("{name}.{}", text(message, "name"));
            self.message(message, &full);
        }
        retain(scope, messages, |message| {
            let full = format!("{name}.{}", text(message, "name"));
            self.extents.contains_key(&full)
                || message.has_field_by_name("nested_type")
                || message.has_field_by_name("enum_type")
        });
        retain(scope, "enum_type", |e| self.enums.contains(&format!("{name}.{}", text(e, "name"))));
        for e in list(scope, "enum_type") {
            for field in ["options", "reserved_range", "reserved_name"] {
                e.clear_field_by_name(field);
            }
            for value in list(e, "value") {
                value.clear_field_by_name("options");
            }
        }
    }

    fn message(&self, message: &mut DynamicMessage, name: &str) {
        self.members(message, name, "nested_type");
        let extent = self.extents.get(name).copied();
        let is_entry = self.pool.get_message_by_name(name).is_some_and(|message| message.is_map_entry());
        for field in ["reserved_range", "extension_range"] {
            message.clear_field_by_name(field);
        }
        if is_entry {
            return;
        }
        message.clear_field_by_name("options");
        if extent.is_none_or(|extent| extent == Extent::Shell) {
            for field in ["field", "oneof_decl", "reserved_name"] {
                message.clear_field_by_name(field);
            }
        }
        for field in list(message, "field") {
            // the default is what the name gives
            field.clear_field_by_name("json_name");
            keep_options(field);
        }
        for oneof in list(message, "oneof_decl") {
            keep_options(oneof);
        }
    }
}

/// Files that stay as they are: protobuf's own and the options'.
fn is_basis(name: &str) -> bool {
    name.starts_with("google/protobuf/")
        || name == "validate/validate.proto"
        || name == "udpa/annotations/sensitive.proto"
}

fn keep_options(of: &mut DynamicMessage) {
    let Some(Value::Message(options)) = of.take_field_by_name("options") else { return };
    let mut kept = DynamicMessage::new(options.descriptor());
    for (extension, value) in
        options.extensions().filter(|(extension, _)| OPTIONS.contains(&extension.full_name()))
    {
        kept.set_extension(&extension, value.clone());
    }
    if kept.extensions().next().is_some() {
        of.set_field_by_name("options", Value::Message(kept));
    }
}

fn text(message: &DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn list<'m>(message: &'m mut DynamicMessage, field: &str) -> impl Iterator<Item = &'m mut DynamicMessage> {
    let values = match message.has_field_by_name(field) {
        true => message.get_field_by_name_mut(field).and_then(Value::as_list_mut),
        false => None,
    };
    values.into_iter().flatten().filter_map(Value::as_message_mut)
}

fn owned(message: &DynamicMessage, field: &str) -> Vec<DynamicMessage> {
    let value = message.get_field_by_name(field);
    let values = value.as_ref().and_then(|value| value.as_list()).unwrap_or_default();
    values.iter().filter_map(|value| value.as_message().cloned()).collect()
}

fn retain(message: &mut DynamicMessage, field: &str, keep: impl Fn(&DynamicMessage) -> bool) {
    if !message.has_field_by_name(field) {
        return;
    }
    if let Some(Value::List(values)) = message.get_field_by_name_mut(field) {
        values.retain(|value| value.as_message().is_some_and(&keep));
    }
}
