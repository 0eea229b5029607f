//! Messages that the protobuf JSON mapping writes specially: Any, Duration, Struct, wrappers.

use super::{Entries, Mapper};
use crate::{
    schema::type_name,
    tree::{Node, Spanned},
};
use prost_reflect::{DynamicMessage, MapKey, MessageDescriptor, Value, prost::Message};
use std::collections::HashMap;

/// Messages that hold the fields of another message as a struct. They map to that other message.
const TYPED_STRUCTS: [&str; 2] = ["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"];

impl Mapper<'_> {
    /// None: not one of these messages.
    pub(super) fn well_known(
        &mut self,
        descriptor: &MessageDescriptor,
        node: &Spanned<Node>,
    ) -> Option<Option<DynamicMessage>> {
        let name = descriptor.full_name().strip_prefix("google.protobuf.")?;
        Some(match name {
            "Any" => self.any(descriptor, node),
            "Duration" => self.duration(descriptor, node),
            "Timestamp" => {
                self.error(node.at(), "a timestamp cannot be given in a file");
                None
            }
            "Struct" => self.structure(descriptor, node),
            "Value" => self.dynamic(descriptor, node),
            "ListValue" => self.list_value(descriptor, node),
            "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value"
            | "BoolValue" | "StringValue" | "BytesValue" => self.wrapper(descriptor, node),
            _ => return None,
        })
    }

    fn wrapper(&mut self, descriptor: &MessageDescriptor, node: &Spanned<Node>) -> Option<DynamicMessage> {
        let field = descriptor.get_field_by_name("value")?;
        let value = self.value(&field.kind(), node)?;
        let mut message = DynamicMessage::new(descriptor.clone());
        message.set_field(&field, value);
        Some(message)
    }

    fn duration(&mut self, descriptor: &MessageDescriptor, node: &Spanned<Node>) -> Option<DynamicMessage> {
        let parsed = match &node.value {
            Node::Str(text) => parse_duration(text),
            other => Err(format!("expected a duration such as `0.25s`, found {}", other.kind())),
        };
        match parsed {
            Ok((seconds, nanos)) => {
                let mut message = DynamicMessage::new(descriptor.clone());
                message.set_field_by_name("seconds", Value::I64(seconds));
                message.set_field_by_name("nanos", Value::I32(nanos));
                Some(message)
            }
            Err(reason) => {
                self.error(node.at(), reason);
                None
            }
        }
    }

    fn structure(&mut self, descriptor: &MessageDescriptor, node: &Spanned<Node>) -> Option<DynamicMessage> {
        let Node::Map(_) = &node.value else {
            self.error(node.at(), format!("expected a mapping, found {}", node.value.kind()));
            return None;
        };
        let field = descriptor.get_field_by_name("fields")?;
        let value = self.map(&field, node)?;
        let mut message = DynamicMessage::new(descriptor.clone());
        message.set_field(&field, value);
        Some(message)
    }

    fn list_value(&mut self, descriptor: &MessageDescriptor, node: &Spanned<Node>) -> Option<DynamicMessage> {
        let field = descriptor.get_field_by_name("values")?;
        let value = self.list(&field, node)?;
        let mut message = DynamicMessage::new(descriptor.clone());
        message.set_field(&field, value);
        Some(message)
    }

    fn dynamic(&mut self, descriptor: &MessageDescriptor, node: &Spanned<Node>) -> Option<DynamicMessage> {
        let (name, value) = match &node.value {
            Node::Null => ("null_value", Value::EnumNumber(0)),
            Node::Bool(value) => ("bool_value", Value::Bool(*value)),
            Node::Int(number) => ("number_value", Value::F64(*number as f64)),
            Node::Float(number) => ("number_value", Value::F64(*number)),
            Node::Str(text) => ("string_value", Value::String(text.clone())),
            Node::Seq(_) => ("list_value", self.nested(descriptor, "list_value", node)?),
            Node::Map(_) => ("struct_value", self.nested(descriptor, "struct_value", node)?),
        };
        let mut message = DynamicMessage::new(descriptor.clone());
        message.set_field_by_name(name, value);
        Some(message)
    }

    /// Goes through [`Mapper::message`], which bounds the depth.
    fn nested(&mut self, descriptor: &MessageDescriptor, field: &str, node: &Spanned<Node>) -> Option<Value> {
        let kind = descriptor.get_field_by_name(field)?.kind();
        self.value(&kind, node)
    }

    fn any(&mut self, descriptor: &MessageDescriptor, node: &Spanned<Node>) -> Option<DynamicMessage> {
        let Node::Map(entries) = &node.value else {
            self.error(node.at(), format!("expected a mapping with `@type`, found {}", node.value.kind()));
            return None;
        };
        let mut types = entries.iter().filter(|(key, _)| key.value == "@type");
        let Some((_, url)) = types.next() else {
            self.error(node.at(), "`@type` is missing");
            return None;
        };
        if let Some((again, _)) = types.next() {
            self.error(again.at(), "duplicate `@type`");
        }
        let Node::Str(text) = &url.value else {
            self.error(url.at(), format!("expected `@type` to be a string, found {}", url.value.kind()));
            return None;
        };
        let (name, entries, skip) = match typed_struct(type_name(text), entries) {
            Some((inner, value)) => (inner, value, None),
            None => (text.as_str(), entries.as_slice(), Some("@type")),
        };
        let Some(inner) = self.schema.message(name) else {
            if self.accepted > 0 {
                // nobody would have read it
                return None;
            }
            let wrapper = if skip.is_none() { format!(" (in a {})", type_name(text)) } else { String::new() };
            self.error(url.at(), format!("extension type `{}`{wrapper} is not implemented", type_name(name)));
            return None;
        };
        let is_special = inner.full_name().starts_with("google.protobuf.") && inner.name() != "Empty";
        let payload = if is_special {
            let (_, value) = entries.iter().find(|(key, _)| key.value == "value")?;
            self.message(&inner, value)?
        } else {
            self.fields(&inner, entries, skip)
        };
        let mut message = DynamicMessage::new(descriptor.clone());
        message.set_field_by_name(
            "type_url",
            Value::String(format!("type.googleapis.com/{}", inner.full_name())),
        );
        message.set_field_by_name("value", Value::Bytes(payload.encode_to_vec().into()));
        Some(message)
    }
}

/// typed_struct.proto: "Convert value to the type described in type_url": the type and its fields.
fn typed_struct<'n>(name: &str, entries: &'n Entries) -> Option<(&'n str, &'n Entries)> {
    if !TYPED_STRUCTS.contains(&name) {
        return None;
    }
    let find = |names: [&str; 2]| entries.iter().find(|(key, _)| names.contains(&key.value.as_str()));
    let Node::Str(url) = &find(["type_url", "typeUrl"])?.1.value else { return None };
    match find(["value", "value"]).map(|(_, node)| &node.value) {
        Some(Node::Map(fields)) => Some((url, fields)),
        None | Some(Node::Null) => Some((url, &[])),
        Some(_) => None,
    }
}

/// Seconds either way that a Duration can hold (duration.proto: about 10,000 years).
const SECONDS_MAX: i64 = 315_576_000_000;

/// `-1.5s` -> (-1, -500_000_000).
fn parse_duration(text: &str) -> Result<(i64, i32), String> {
    let refuse = || format!("`{text}` is no duration: write seconds with the suffix `s`, such as `0.25s`");
    let body = text.strip_suffix('s').ok_or_else(refuse)?;
    let (negative, body) = match body.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, body),
    };
    let (whole, fraction) = body.split_once('.').unwrap_or((body, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return Err(refuse());
    }
    let seconds: i64 = whole.parse().map_err(|_| refuse())?;
    if seconds > SECONDS_MAX {
        return Err(format!("`{text}` is out of range (at most {SECONDS_MAX}s)"));
    }
    let nanos: i32 = format!("{fraction:0<9}").parse().map_err(|_| refuse())?;
    Ok(if negative { (-seconds, -nanos) } else { (seconds, nanos) })
}

/// For callers that hold a Struct already: its fields in the order of their names.
pub(crate) fn sorted(fields: &HashMap<MapKey, Value>) -> Vec<(&MapKey, &Value)> {
    let mut list: Vec<_> = fields.iter().collect();
    list.sort_by(|a, b| a.0.cmp(b.0));
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("0.25s"), Ok((0, 250_000_000)));
        assert_eq!(parse_duration("-1.5s"), Ok((-1, -500_000_000)));
        assert_eq!(parse_duration("3600s"), Ok((3600, 0)));
        assert_eq!(parse_duration("0.000000001s"), Ok((0, 1)));
        for bad in [
            "",
            "s",
            "1",
            "250ms",
            ".5s",
            "1.s",
            "1.0000000001s",
            "+1s",
            "--1s",
            "1 s",
            "99999999999999999999s",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        let far = parse_duration("315576000001s");
        assert_eq!(far, Err("`315576000001s` is out of range (at most 315576000000s)".into()));
    }
}
