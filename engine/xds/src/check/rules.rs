//! The rules of one field, read from the `validate.rules` option that the API's files carry, and their meaning
//! (validate.proto). Rules on scalars without presence hold for the default too: `min_len: 1` makes a name
//! required.

use super::bounds::Bounds;
use crate::finding::{Findings, Path};
use corelane_snapshot::Regex;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, OneofDescriptor, ReflectMessage, Value};
use std::borrow::Cow;

#[derive(Debug, Default)]
pub(super) struct Rules {
    required: bool,
    bounds: Option<Bounds>,
    text: Option<Text>,
    choice: Option<Choice>,
    list: Option<List>,
    map: Option<Map>,
}

/// StringRules and BytesRules.
#[derive(Debug, Default)]
struct Text {
    min_len: Option<u64>,
    max_len: Option<u64>,
    min_bytes: Option<u64>,
    max_bytes: Option<u64>,
    prefix: Option<String>,
    suffix: Option<String>,
    allowed: Vec<String>,
    pattern: Option<Regex>,
    header: Option<Header>,
    ignore_empty: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Header {
    Name,
    Value,
}

/// EnumRules; `defined_only` over any enum.
#[derive(Debug, Default)]
struct Choice {
    defined_only: bool,
    allowed: Vec<i32>,
    refused: Vec<i32>,
}

#[derive(Debug, Default)]
struct List {
    min_items: Option<u64>,
    max_items: Option<u64>,
    unique: bool,
    items: Option<Box<Rules>>,
}

#[derive(Debug, Default)]
struct Map {
    min_pairs: Option<u64>,
    keys: Option<Box<Rules>>,
    values: Option<Box<Rules>>,
}

pub(super) fn is_required_oneof(oneof: &OneofDescriptor) -> bool {
    option(oneof.options(), "validate.required").and_then(|value| value.as_bool()).unwrap_or(false)
}

fn option(options: DynamicMessage, name: &str) -> Option<Value> {
    let extension = options.descriptor().parent_pool().get_extension_by_name(name)?;
    options.has_extension(&extension).then(|| options.get_extension(&extension).into_owned())
}

impl Rules {
    /// None: the field has no rules.
    pub(super) fn of(field: &FieldDescriptor) -> Option<Rules> {
        Some(Rules::parse(option(field.options(), "validate.rules")?.as_message()?))
    }

    /// From a `validate.FieldRules`.
    fn parse(rules: &DynamicMessage) -> Rules {
        let mut out = Rules::default();
        for (kind, value) in rules.fields() {
            let Some(rule) = value.as_message() else { continue };
            match kind.name() {
                "message" | "any" => out.required = flag(rule, "required"),
                "duration" => {
                    out.required = flag(rule, "required");
                    out.bounds = Some(Bounds::durations(rule));
                }
                "string" | "bytes" => out.text = Some(Text::parse(rule)),
                "enum" => {
                    out.choice = Some(Choice {
                        defined_only: flag(rule, "defined_only"),
                        allowed: numbers(rule, "in"),
                        refused: numbers(rule, "not_in"),
                    });
                }
                "repeated" => {
                    out.list = Some(List {
                        min_items: count(rule, "min_items"),
                        max_items: count(rule, "max_items"),
                        unique: flag(rule, "unique"),
                        items: nested(rule, "items"),
                    });
                }
                "map" => {
                    out.map = Some(Map {
                        min_pairs: count(rule, "min_pairs"),
                        keys: nested(rule, "keys"),
                        values: nested(rule, "values"),
                    });
                }
                "bool" | "timestamp" => {}
                _ => out.bounds = Some(Bounds::numbers(rule)),
            }
        }
        out
    }

    /// The path already names the field.
    pub(super) fn apply(
        &self,
        field: &FieldDescriptor,
        message: &DynamicMessage,
        path: &mut Path,
        to: &mut Findings,
    ) {
        let set = message.has_field(field);
        let is_message = !field.is_list() && !field.is_map() && matches!(field.kind(), Kind::Message(_));
        if is_message && !set {
            // a member of a oneof is only required where it is the chosen one
            if self.required && field.containing_oneof().is_none() {
                to.error(path.as_str(), "must be set");
            }
            return;
        }
        // a member of a oneof that is not the chosen one has no value to judge
        if !set && field.supports_presence() {
            return;
        }
        let value = message.get_field(field);
        match value.as_ref() {
            Value::List(items) => self.apply_to_list(field, items, path, to),
            Value::Map(entries) => {
                if let Some(map) = &self.map {
                    map.apply(entries, path, to);
                }
            }
            value => self.apply_to_value(value, Some(&field.kind()), path, to),
        }
    }

    fn apply_to_list(&self, field: &FieldDescriptor, items: &[Value], path: &mut Path, to: &mut Findings) {
        let Some(list) = &self.list else { return };
        let count = items.len() as u64;
        if list.min_items.is_some_and(|min| count < min) {
            to.error(path.as_str(), at_least(list.min_items.unwrap_or(0), "entry", "entries"));
        }
        if let Some(max) = list.max_items.filter(|max| count > *max) {
            to.error(path.as_str(), format!("must have at most {max} entries, has {count}"));
        }
        for (index, item) in items.iter().enumerate() {
            path.index(index);
            if list.unique && items[..index].contains(item) {
                to.error(path.as_str(), "given twice");
            }
            if let Some(rules) = &list.items {
                rules.apply_to_value(item, Some(&field.kind()), path, to);
            }
            path.pop();
        }
    }

    fn apply_to_value(&self, value: &Value, kind: Option<&Kind>, path: &Path, to: &mut Findings) {
        let value = unwrapped(value);
        if let Some(bounds) = &self.bounds
            && let Some(reason) = bounds.refuse(&value)
        {
            to.error(path.as_str(), reason);
        }
        if let (Some(text), Some(bytes)) = (&self.text, bytes_of(&value)) {
            text.apply(bytes, path, to);
        }
        if let (Some(choice), Value::EnumNumber(number), Some(Kind::Enum(descriptor))) =
            (&self.choice, &*value, kind)
        {
            let name = descriptor.get_value(*number).map(|value| value.name().to_owned());
            let refused = choice.refused.contains(number)
                || (!choice.allowed.is_empty() && !choice.allowed.contains(number))
                || (choice.defined_only && name.is_none());
            if refused {
                to.error(
                    path.as_str(),
                    format!("must not be {}", name.unwrap_or_else(|| number.to_string())),
                );
            }
        }
    }
}

impl Map {
    fn apply(
        &self,
        entries: &std::collections::HashMap<prost_reflect::MapKey, Value>,
        path: &mut Path,
        to: &mut Findings,
    ) {
        if self.min_pairs.is_some_and(|min| (entries.len() as u64) < min) {
            to.error(path.as_str(), at_least(self.min_pairs.unwrap_or(0), "entry", "entries"));
        }
        for (key, value) in crate::read::sorted(entries) {
            path.key(&super::key_text(key));
            if let Some(rules) = &self.keys {
                rules.apply_to_value(&Value::from(key.clone()), None, path, to);
            }
            if let Some(rules) = &self.values {
                rules.apply_to_value(value, None, path, to);
            }
            path.pop();
        }
    }
}

impl Text {
    fn parse(rule: &DynamicMessage) -> Text {
        let strings = |name: &str| -> Vec<String> {
            let value = rule.get_field_by_name(name);
            let list = value.as_ref().and_then(|value| value.as_list()).unwrap_or_default();
            list.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
        };
        let string = |name: &str| {
            let value = rule.has_field_by_name(name).then(|| rule.get_field_by_name(name)).flatten()?;
            value.as_str().map(str::to_owned)
        };
        Text {
            min_len: count(rule, "min_len"),
            max_len: count(rule, "max_len"),
            min_bytes: count(rule, "min_bytes"),
            max_bytes: count(rule, "max_bytes"),
            prefix: string("prefix"),
            suffix: string("suffix"),
            allowed: strings("in"),
            pattern: string("pattern").and_then(|pattern| Regex::unanchored(&pattern).ok()),
            header: match number(rule, "well_known_regex") {
                Some(1) => Some(Header::Name),
                Some(2) => Some(Header::Value),
                _ => None,
            },
            ignore_empty: flag(rule, "ignore_empty"),
        }
    }

    fn apply(&self, bytes: &[u8], path: &Path, to: &mut Findings) {
        if bytes.is_empty() && self.ignore_empty {
            return;
        }
        if let Some(reason) = self.refuse(bytes) {
            to.error(path.as_str(), reason);
        }
    }

    fn refuse(&self, bytes: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(bytes);
        let (length, size) = (text.chars().count() as u64, bytes.len() as u64);
        if let Some(min) = self.min_len.max(self.min_bytes).filter(|min| length.min(size) < *min) {
            return Some(if min == 1 {
                "must not be empty".into()
            } else {
                at_least(min, "character", "characters")
            });
        }
        if let Some(max) =
            self.max_len.filter(|max| length > *max).or(self.max_bytes.filter(|max| size > *max))
        {
            return Some(format!("must have at most {max} characters, has {length}"));
        }
        if let Some(prefix) = self.prefix.as_ref().filter(|prefix| !text.starts_with(prefix.as_str())) {
            return Some(format!("must begin with `{prefix}`"));
        }
        if let Some(suffix) = self.suffix.as_ref().filter(|suffix| !text.ends_with(suffix.as_str())) {
            return Some(format!("must end with `{suffix}`"));
        }
        if !self.allowed.is_empty() && !self.allowed.iter().any(|allowed| *allowed == text) {
            return Some(format!("must be one of {}", self.allowed.join(", ")));
        }
        if let Some(pattern) = self.pattern.as_ref().filter(|pattern| !pattern.is_match(bytes)) {
            return Some(format!("must match `{}`", pattern.pattern()));
        }
        self.header.and_then(|header| refuse_header(header, bytes))
    }
}

/// RFC 9110 section 5.1 and 5.5. Names are held to the token rule even where the API's own rule is loose, because
/// they are written to the wire as given; format strings in values are judged after rendering.
fn refuse_header(header: Header, bytes: &[u8]) -> Option<String> {
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let refused = match header {
        Header::Name => !bytes.strip_prefix(b":").unwrap_or(bytes).iter().all(token),
        Header::Value => bytes.iter().any(|b| matches!(b, b'\0' | b'\r' | b'\n')),
    };
    refused.then(|| match header {
        Header::Name => "must be a header name (RFC 9110: letters, digits and !#$%&'*+-.^_`|~)".to_owned(),
        Header::Value => "must not contain NUL, CR or LF".to_owned(),
    })
}

fn at_least(count: u64, one: &str, many: &str) -> String {
    format!("must have at least {count} {}", if count == 1 { one } else { many })
}

/// A wrapper (google.protobuf.UInt32Value) counts as what it wraps.
fn unwrapped(value: &Value) -> Cow<'_, Value> {
    match value.as_message() {
        Some(message) if message.descriptor().full_name().ends_with("Value") => {
            message.get_field_by_name("value").unwrap_or(Cow::Borrowed(value))
        }
        _ => Cow::Borrowed(value),
    }
}

fn bytes_of(value: &Value) -> Option<&[u8]> {
    value.as_str().map(str::as_bytes).or_else(|| value.as_bytes().map(AsRef::as_ref))
}

pub(super) fn flag(rule: &DynamicMessage, name: &str) -> bool {
    rule.get_field_by_name(name).and_then(|value| value.as_bool()).unwrap_or(false)
}

fn count(rule: &DynamicMessage, name: &str) -> Option<u64> {
    rule.has_field_by_name(name).then(|| rule.get_field_by_name(name)?.as_u64()).flatten()
}

fn number(rule: &DynamicMessage, name: &str) -> Option<i32> {
    rule.has_field_by_name(name).then(|| rule.get_field_by_name(name)?.as_enum_number()).flatten()
}

fn numbers(rule: &DynamicMessage, name: &str) -> Vec<i32> {
    let value = rule.get_field_by_name(name);
    let list = value.as_ref().and_then(|value| value.as_list()).unwrap_or_default();
    list.iter().filter_map(Value::as_i32).collect()
}

fn nested(rule: &DynamicMessage, name: &str) -> Option<Box<Rules>> {
    let value = rule.has_field_by_name(name).then(|| rule.get_field_by_name(name)).flatten()?;
    value.as_message().map(|rules| Box::new(Rules::parse(rules)))
}
