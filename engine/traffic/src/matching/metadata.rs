//! envoy.type.matcher.v3.MetadataMatcher: what rules ask of metadata.

use corelane_snapshot::{Metadata, MetadataMatcher, Value, ValueMatcher};

/// No matcher matches a value that is not there, `present_match: false` as little as in Envoy; an inverted one does.
pub fn matches(matcher: &MetadataMatcher, metadata: Option<&Metadata>) -> bool {
    let value = metadata.and_then(|metadata| find(metadata, &matcher.filter, &matcher.path));
    value.is_some_and(|value| accepts(&matcher.matcher, value)) != matcher.invert
}

/// Each key of the path leads into a struct.
fn find<'m>(metadata: &'m Metadata, filter: &str, path: &[Box<str>]) -> Option<&'m Value> {
    path.iter().try_fold(metadata.0.get(filter)?, |value, key| match value {
        Value::Struct(fields) => fields.get(key),
        _ => None,
    })
}

fn accepts(matcher: &ValueMatcher, value: &Value) -> bool {
    match (matcher, value) {
        (ValueMatcher::Present(present), _) => *present,
        (ValueMatcher::Or(any), _) => any.iter().any(|matcher| accepts(matcher, value)),
        (ValueMatcher::Null, Value::Null) => true,
        (ValueMatcher::Bool(wanted), Value::Bool(value)) => wanted == value,
        (ValueMatcher::Number(wanted), Value::Number(value)) => wanted == value,
        (ValueMatcher::NumberRange(start, end), Value::Number(value)) => (*start..*end).contains(value),
        (ValueMatcher::Text(matcher), Value::Text(text)) => matcher.matches(text.as_bytes()),
        (ValueMatcher::OneOf(matcher), Value::List(values)) => {
            values.iter().any(|value| accepts(matcher, value))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_snapshot::{MetadataSource, StringMatcher};
    use std::collections::BTreeMap;

    fn text(text: &str) -> ValueMatcher {
        ValueMatcher::Text(StringMatcher::exact(text))
    }

    /// Which of these values Envoy 1.40 lets each kind of matcher match.
    #[test]
    fn each_kind_matches_its_own() {
        let struct_of = |key: &str, value| Value::Struct(BTreeMap::from([(key.into(), value)]));
        let values = [
            ("text", Value::Text("b".into())),
            ("true", Value::Bool(true)),
            ("false", Value::Bool(false)),
            ("number", Value::Number(5.0)),
            ("null", Value::Null),
            ("list", Value::List(vec![Value::Text("p".into()), Value::Text("q".into())])),
            ("struct", struct_of("k", Value::Text("v".into()))),
        ];
        let either = ValueMatcher::Or(vec![text("b"), ValueMatcher::Bool(true)]);
        for (matcher, expected) in [
            (text("b"), &["text"][..]),
            (ValueMatcher::Bool(true), &["true"]),
            (ValueMatcher::Bool(false), &["false"]),
            (ValueMatcher::Null, &["null"]),
            (ValueMatcher::Number(5.0), &["number"]),
            (ValueMatcher::NumberRange(5.0, 6.0), &["number"]),
            (ValueMatcher::NumberRange(4.0, 5.0), &[]),
            (ValueMatcher::OneOf(Box::new(text("q"))), &["list"]),
            (either, &["text", "true"]),
            (ValueMatcher::Present(true), &["text", "true", "false", "number", "null", "list", "struct"]),
            (ValueMatcher::Present(false), &[]),
        ] {
            let matched: Vec<&str> =
                values.iter().filter(|(_, value)| accepts(&matcher, value)).map(|(name, _)| *name).collect();
            assert_eq!(matched, expected, "{matcher:?}");
        }
    }

    #[test]
    fn a_path_leads_into_structs() {
        let inner = Value::Struct(BTreeMap::from([("k".into(), Value::Bool(true))]));
        let metadata =
            Metadata(BTreeMap::from([("x".into(), Value::Struct(BTreeMap::from([("s".into(), inner)])))]));
        let ask = |filter: &str, path: &[&str], invert| {
            let path = path.iter().map(|&key| key.into()).collect();
            let (source, matcher) = (MetadataSource::Route, ValueMatcher::Bool(true));
            let asked = MetadataMatcher { source, filter: filter.into(), path, matcher, invert };
            matches(&asked, Some(&metadata))
        };
        assert!(ask("x", &["s", "k"], false));
        assert!(!ask("x", &["s"], false));
        assert!(!ask("x", &["s", "k", "k"], false));
        assert!(!ask("y", &["s", "k"], false));
        assert!(ask("y", &["s", "k"], true));
    }
}
