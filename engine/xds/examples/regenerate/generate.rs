//! Prunes the FileDescriptorSet to the listed messages and fields and has prost write Rust for what is left.

use crate::supported;
use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::Path,
};

/// Name of the file that nests the packages as modules.
pub const INCLUDE: &str = "packages.rs";

pub fn generate(descriptors: &[u8], out: &Path) -> io::Result<()> {
    let mut set = FileDescriptorSet::decode(descriptors).map_err(io::Error::other)?;
    prune(&mut set);
    prost_build::Config::new()
        .out_dir(out)
        .include_file(INCLUDE)
        .btree_map(["."])
        .disable_comments(["."])
        .compile_fds(set)
}

/// Full name of a message -> the fields to keep.
fn listed() -> HashMap<&'static str, BTreeSet<&'static str>> {
    supported::table()
        .map(|entry| {
            let accepted = entry.accepted.iter().map(|(field, _)| *field);
            (
                entry.message,
                entry.read.split_whitespace().filter(|f| !accepted.clone().any(|a| a == *f)).collect(),
            )
        })
        .collect()
}

fn prune(set: &mut FileDescriptorSet) {
    let listed = listed();
    let mut messages = BTreeMap::new();
    for file in &set.file {
        for message in &file.message_type {
            index(&mut messages, file.package(), message);
        }
    }
    let mut kept = BTreeSet::new();
    let mut open: Vec<String> = supported::ROOTS.iter().map(|root| (*root).to_owned()).collect();
    while let Some(name) = open.pop() {
        if kept.contains(&name) {
            continue;
        }
        if let Some(message) = messages.get(&name) {
            let keep = listed.get(name.as_str());
            let entry = message.options.as_ref().is_some_and(|options| options.map_entry());
            for field in &message.field {
                if entry || keep.is_some_and(|keep| keep.contains(field.name())) {
                    open.extend(
                        field.type_name.as_deref().map(|name| name.trim_start_matches('.').to_owned()),
                    );
                }
            }
        }
        kept.insert(name);
    }
    for file in &mut set.file {
        file.service.clear();
        file.extension.clear();
        let package = file.package().to_owned();
        if package.starts_with("google.protobuf") {
            continue;
        }
        file.message_type.retain_mut(|message| retain(message, &package, &kept, &listed));
        file.enum_type.retain(|e| kept.contains(&format!("{package}.{}", e.name())));
    }
    set.file.retain(|file| {
        file.package().starts_with("google.protobuf")
            || !file.message_type.is_empty()
            || !file.enum_type.is_empty()
    });
}

fn index(into: &mut BTreeMap<String, DescriptorProto>, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    for nested in &message.nested_type {
        index(into, &name, nested);
    }
    into.insert(name, message.clone());
}

/// Keeps a message where it or one nested in it is needed; of its fields the listed ones, none if only its name
/// is needed as a scope.
fn retain(
    message: &mut DescriptorProto,
    scope: &str,
    kept: &BTreeSet<String>,
    listed: &HashMap<&'static str, BTreeSet<&'static str>>,
) -> bool {
    let name = format!("{scope}.{}", message.name());
    message.nested_type.retain_mut(|nested| retain(nested, &name, kept, listed));
    message.enum_type.retain(|e| kept.contains(&format!("{name}.{}", e.name())));
    if message.options.as_ref().is_some_and(|options| options.map_entry()) {
        return kept.contains(&name);
    }
    let fields = listed.get(name.as_str());
    message.field.retain(|field| fields.is_some_and(|fields| fields.contains(field.name())));
    for options in message.field.iter_mut().filter_map(|field| field.options.as_mut()) {
        // what Envoy advises against is still read
        options.deprecated = None;
    }
    drop_empty_oneofs(message);
    kept.contains(&name) || !message.nested_type.is_empty() || !message.enum_type.is_empty()
}

fn drop_empty_oneofs(message: &mut DescriptorProto) {
    let used: Vec<bool> = (0..message.oneof_decl.len())
        .map(|i| message.field.iter().any(|field| field.oneof_index == Some(i as i32)))
        .collect();
    let renumbered: Vec<i32> = used
        .iter()
        .scan(0, |next, used| {
            let here = *next;
            *next += i32::from(*used);
            Some(here)
        })
        .collect();
    for field in &mut message.field {
        field.oneof_index = field.oneof_index.map(|i| renumbered[i as usize]);
        debug_assert!(field.r#type() != Type::Group, "proto2 groups do not occur");
    }
    let mut used = used.into_iter();
    message.oneof_decl.retain(|_| used.next().unwrap_or(false));
}
