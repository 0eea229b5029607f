//! Scalars and enums of the protobuf JSON mapping.

use super::suggest;
use crate::tree::Node;
use prost_reflect::{EnumDescriptor, EnumValueDescriptor, Kind, MapKey, Value};

pub(super) fn scalar(kind: &Kind, node: &Node) -> Result<Value, String> {
    Ok(match kind {
        Kind::Bool => match node {
            Node::Bool(value) => Value::Bool(*value),
            Node::Str(text) if text == "true" || text == "false" => {
                return Err(format!("expected a boolean, found a string: write {text} without quotes"));
            }
            _ => return Err(expected("a boolean", node)),
        },
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(integer(node, i32::MIN, i32::MAX)?),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(integer(node, u32::MIN, u32::MAX)?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(integer(node, i64::MIN, i64::MAX)?),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(integer(node, u64::MIN, u64::MAX)?),
        Kind::Float => Value::F32(float(node)? as f32),
        Kind::Double => Value::F64(float(node)?),
        Kind::String => match node {
            Node::Str(text) => Value::String(text.clone()),
            Node::Bool(_) | Node::Int(_) | Node::Float(_) => {
                return Err(format!("expected a string, found {}: put it in quotes", node.kind()));
            }
            _ => return Err(expected("a string", node)),
        },
        Kind::Bytes => match node {
            Node::Str(text) => match base64(text.as_bytes()) {
                Some(bytes) => Value::Bytes(bytes.into()),
                None => return Err("not base64".to_owned()),
            },
            _ => return Err(expected("a string in base64", node)),
        },
        Kind::Message(_) | Kind::Enum(_) => return Err(expected("a scalar", node)),
    })
}

pub(super) fn map_key(kind: &Kind, text: &str) -> Option<MapKey> {
    Some(match kind {
        Kind::String => MapKey::String(text.to_owned()),
        Kind::Bool => MapKey::Bool(text.parse().ok()?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => MapKey::I32(text.parse().ok()?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => MapKey::I64(text.parse().ok()?),
        Kind::Uint32 | Kind::Fixed32 => MapKey::U32(text.parse().ok()?),
        Kind::Uint64 | Kind::Fixed64 => MapKey::U64(text.parse().ok()?),
        _ => return None,
    })
}

pub(super) fn enumeration(descriptor: &EnumDescriptor, node: &Node) -> Result<i32, String> {
    let name = descriptor.name();
    match node {
        Node::Str(text) => match by_name(descriptor, text) {
            Some(value) => Ok(value.number()),
            None => Err(unknown_name(descriptor, text)),
        },
        Node::Int(number) => i32::try_from(*number)
            .ok()
            .filter(|number| descriptor.get_value(*number).is_some())
            .ok_or_else(|| format!("{number} is no value of {name}")),
        // the one enum that null is a value of
        Node::Null if descriptor.full_name() == "google.protobuf.NullValue" => Ok(0),
        _ => Err(expected(&format!("a value of {name}"), node)),
    }
}

/// In any case, as Envoy reads its files (`case_insensitive_enum_parsing`).
fn by_name(descriptor: &EnumDescriptor, text: &str) -> Option<EnumValueDescriptor> {
    descriptor
        .get_value_by_name(text)
        .or_else(|| descriptor.values().find(|value| value.name().eq_ignore_ascii_case(text)))
}

/// Values listed in a finding.
const LISTED_MAX: usize = 12;

fn unknown_name(descriptor: &EnumDescriptor, text: &str) -> String {
    let names: Vec<String> = descriptor.values().map(|value| value.name().to_owned()).collect();
    match suggest::nearest(text, names.iter().map(String::as_str)) {
        Some(near) => format!("`{text}` is no value of {} (did you mean `{near}`?)", descriptor.name()),
        None if names.len() <= LISTED_MAX => {
            format!("`{text}` is no value of {} (one of {})", descriptor.name(), names.join(", "))
        }
        None => format!("`{text}` is no value of {}", descriptor.name()),
    }
}

/// Numbers may stand in quotes (64-bit integers always do in canonical JSON) and may be written with a zero fraction.
fn integer<T>(node: &Node, min: T, max: T) -> Result<T, String>
where
    T: TryFrom<i128> + std::fmt::Display,
{
    let number = match node {
        Node::Int(number) => *number,
        Node::Float(number) if number.fract() == 0.0 && number.abs() < 1e19 => *number as i128,
        Node::Float(number) => return Err(format!("expected an integer, found {number}")),
        Node::Str(text) => text.parse().map_err(|_| expected("an integer", node))?,
        _ => return Err(expected("an integer", node)),
    };
    T::try_from(number).map_err(|_| format!("{number} is out of range ({min} to {max})"))
}

fn float(node: &Node) -> Result<f64, String> {
    match node {
        Node::Int(number) => Ok(*number as f64),
        Node::Float(number) => Ok(*number),
        Node::Str(text) => match text.as_str() {
            "NaN" => Ok(f64::NAN),
            "Infinity" => Ok(f64::INFINITY),
            "-Infinity" => Ok(f64::NEG_INFINITY),
            text => text
                .parse()
                .ok()
                .filter(|number: &f64| number.is_finite())
                .ok_or_else(|| expected("a number", node)),
        },
        _ => Err(expected("a number", node)),
    }
}

fn expected(what: &str, node: &Node) -> String {
    format!("expected {what}, found {}", node.kind())
}

/// RFC 4648, standard or URL-safe alphabet, with or without padding ("either ... is accepted").
pub(super) fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let end = text.iter().rposition(|b| *b != b'=').map_or(0, |last| last + 1);
    let (digits, padding) = text.split_at(end);
    if padding.len() > 2 || digits.len() % 4 == 1 || (!padding.is_empty() && !text.len().is_multiple_of(4)) {
        return None;
    }
    let mut out = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let mut bits = 0u32;
        for digit in group {
            bits = bits << 6 | u32::from(sextet(*digit)?);
        }
        bits <<= 6 * (4 - group.len());
        out.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(out)
}

fn sextet(digit: u8) -> Option<u8> {
    Some(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_rfc_4648() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
            ("Zm9vYg", "foob"),
        ] {
            assert_eq!(base64(text.as_bytes()).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(base64(b"-_-_"), base64(b"+/+/"));
        for bad in ["Z", "Zg=", "Zg===", "Zm 9", "====", "=Zg="] {
            assert_eq!(base64(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn integers_come_exact_quoted_or_with_a_zero_fraction() {
        let u64_max = Node::Str("18446744073709551615".into());
        assert_eq!(scalar(&Kind::Uint64, &u64_max), Ok(Value::U64(u64::MAX)));
        assert_eq!(scalar(&Kind::Uint32, &Node::Float(3.0)), Ok(Value::U32(3)));
        assert_eq!(scalar(&Kind::Uint32, &Node::Float(3.5)), Err("expected an integer, found 3.5".into()));
        let low = scalar(&Kind::Uint32, &Node::Int(-1));
        assert_eq!(low, Err("-1 is out of range (0 to 4294967295)".into()));
        assert!(matches!(scalar(&Kind::Double, &Node::Str("NaN".into())), Ok(Value::F64(n)) if n.is_nan()));
    }
}
