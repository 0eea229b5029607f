//! Protobuf as JSON, for `/config_dump`: field names as in the .proto files, unset fields left out, Anys opened.
//! Values whose field is marked sensitive (`udpa.annotations.sensitive`: private keys) are replaced, as Envoy does.

use crate::{Error, Schema, check::key_text, read::sorted};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, ReflectMessage, Value};
use std::fmt::Write as _;

/// What stands for a sensitive value.
const REDACTED: &str = "[redacted]";

/// The message as one JSON object.
///
/// # Errors
/// An unknown type, or bytes that are no such message.
pub fn to_json(schema: &Schema, type_url: &str, bytes: &[u8]) -> Result<String, Error> {
    let message = schema.decode(type_url, bytes)?;
    let mut writer = Writer { schema, out: String::with_capacity(bytes.len() * 4) };
    writer.message(&message, false);
    Ok(writer.out)
}

/// RFC 8259 section 7.
fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

struct Writer<'a> {
    schema: &'a Schema,
    out: String,
}

impl Writer<'_> {
    fn message(&mut self, message: &DynamicMessage, hide: bool) {
        let descriptor = message.descriptor();
        match descriptor.full_name() {
            "google.protobuf.Any" => self.any(message, hide),
            "google.protobuf.Duration" => self.duration(message),
            "google.protobuf.Struct" => self.only_field(message, "fields", hide),
            "google.protobuf.ListValue" => self.only_field(message, "values", hide),
            "google.protobuf.Value" => match message.fields().next() {
                Some((field, value)) => self.value(&field, value, hide),
                None => self.out.push_str("null"),
            },
            name if name.starts_with("google.protobuf.") && name.ends_with("Value") => {
                self.only_field(message, "value", hide);
            }
            _ => {
                self.out.push('{');
                self.members(message, false, hide);
                self.out.push('}');
            }
        }
    }

    fn members(&mut self, message: &DynamicMessage, mut comma: bool, hide: bool) {
        for (field, value) in message.fields() {
            self.comma(&mut comma);
            self.string(field.name());
            self.out.push(':');
            self.value(&field, value, hide || is_sensitive(&field));
        }
    }

    /// For messages that JSON writes as the value of their one field, set or not.
    fn only_field(&mut self, message: &DynamicMessage, name: &str, hide: bool) {
        if let Some(field) = message.descriptor().get_field_by_name(name) {
            let value = message.get_field(&field);
            self.value(&field, &value, hide);
        }
    }

    fn any(&mut self, message: &DynamicMessage, hide: bool) {
        let url = message.get_field_by_name("type_url").and_then(|url| url.as_str().map(str::to_owned));
        let bytes = message.get_field_by_name("value").and_then(|bytes| bytes.as_bytes().cloned());
        let (Some(url), Some(bytes)) = (url, bytes) else { return self.out.push_str("{}") };
        self.out.push_str("{\"@type\":");
        self.string(&url);
        match self.schema.decode(&url, &bytes) {
            Ok(inner) if inner.descriptor().full_name().starts_with("google.protobuf.") => {
                self.out.push_str(",\"value\":");
                self.message(&inner, hide);
            }
            Ok(inner) => self.members(&inner, true, hide),
            // a type we have no descriptor of: its bytes are all there is to show
            Err(_) => {
                self.out.push_str(",\"value\":");
                self.bytes(&bytes);
            }
        }
        self.out.push('}');
    }

    fn duration(&mut self, message: &DynamicMessage) {
        let part = |name: &str| message.get_field_by_name(name).map(std::borrow::Cow::into_owned);
        let seconds = part("seconds").and_then(|value| value.as_i64()).unwrap_or(0);
        let nanos = part("nanos").and_then(|value| value.as_i32()).unwrap_or(0);
        let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
        let _ = write!(self.out, "\"{sign}{}", seconds.unsigned_abs());
        if nanos != 0 {
            let digits = format!("{:09}", nanos.unsigned_abs());
            let _ = write!(self.out, ".{}", digits.trim_end_matches('0'));
        }
        self.out.push_str("s\"");
    }

    fn value(&mut self, field: &FieldDescriptor, value: &Value, hide: bool) {
        match value {
            Value::List(items) => {
                self.out.push('[');
                let mut comma = false;
                for item in items {
                    self.comma(&mut comma);
                    self.single(&field.kind(), item, hide);
                }
                self.out.push(']');
            }
            Value::Map(entries) => {
                let kind = match field.kind() {
                    Kind::Message(entry) if entry.is_map_entry() => entry.map_entry_value_field().kind(),
                    kind => kind,
                };
                self.out.push('{');
                let mut comma = false;
                for (key, item) in sorted(entries) {
                    self.comma(&mut comma);
                    self.string(&key_text(key));
                    self.out.push(':');
                    self.single(&kind, item, hide);
                }
                self.out.push('}');
            }
            single => self.single(&field.kind(), single, hide),
        }
    }

    fn single(&mut self, kind: &Kind, value: &Value, hide: bool) {
        match value {
            Value::String(_) if hide => self.string(REDACTED),
            Value::Bytes(_) if hide => self.bytes(REDACTED.as_bytes()),
            Value::Message(message) => self.message(message, hide),
            Value::String(text) => self.string(text),
            Value::Bytes(bytes) => self.bytes(bytes),
            Value::EnumNumber(number) => self.enumeration(kind, *number),
            Value::Bool(value) => self.out.push_str(if *value { "true" } else { "false" }),
            Value::I32(number) => self.display(number),
            Value::U32(number) => self.display(number),
            // JSON numbers are doubles: 64-bit integers stand in quotes
            Value::I64(number) => self.quoted(number),
            Value::U64(number) => self.quoted(number),
            Value::F32(number) => self.float(f64::from(*number)),
            Value::F64(number) => self.float(*number),
            Value::List(_) | Value::Map(_) => self.out.push_str("null"),
        }
    }

    fn enumeration(&mut self, kind: &Kind, number: i32) {
        match kind {
            Kind::Enum(descriptor) if descriptor.full_name() == "google.protobuf.NullValue" => {
                self.out.push_str("null");
            }
            Kind::Enum(descriptor) => match descriptor.get_value(number) {
                Some(value) => self.string(value.name()),
                None => self.display(&number),
            },
            _ => self.display(&number),
        }
    }

    fn float(&mut self, number: f64) {
        if number.is_nan() {
            self.out.push_str("\"NaN\"");
        } else if number.is_infinite() {
            self.out.push_str(if number > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" });
        } else {
            self.display(&number);
        }
    }

    fn display(&mut self, value: &impl std::fmt::Display) {
        // writing to a String can't fail
        let _ = write!(self.out, "{value}");
    }

    fn quoted(&mut self, value: &impl std::fmt::Display) {
        let _ = write!(self.out, "\"{value}\"");
    }

    fn comma(&mut self, needed: &mut bool) {
        if *needed {
            self.out.push(',');
        }
        *needed = true;
    }

    fn string(&mut self, text: &str) {
        string(&mut self.out, text);
    }

    /// RFC 4648 section 4.
    fn bytes(&mut self, bytes: &[u8]) {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        self.out.push('"');
        for group in bytes.chunks(3) {
            let mut word = [0u8; 4];
            word[1..=group.len()].copy_from_slice(group);
            let bits = u32::from_be_bytes(word);
            for digit in 0..4 {
                let sextet = (bits >> (18 - 6 * digit)) & 0x3f;
                let padding = digit > group.len();
                self.out.push(if padding { '=' } else { char::from(ALPHABET[sextet as usize]) });
            }
        }
        self.out.push('"');
    }
}

fn is_sensitive(field: &FieldDescriptor) -> bool {
    let Some(extension) = field.parent_pool().get_extension_by_name("udpa.annotations.sensitive") else {
        return false;
    };
    field.options().get_extension(&extension).as_bool().unwrap_or(false)
}
