//! Metadata (envoy.config.core.v3.Metadata) and what rules ask of it (envoy.type.matcher.v3.MetadataMatcher).

use crate::StringMatcher;
use std::collections::BTreeMap;

/// google.protobuf.Value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Number(f64),
    Text(Box<str>),
    List(Vec<Value>),
    Struct(BTreeMap<Box<str>, Value>),
}

/// filter_metadata: by the filter's name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata(pub BTreeMap<Box<str>, Value>);

impl Metadata {
    /// Each key of the path leads into a struct.
    pub fn get(&self, filter: &str, path: &[Box<str>]) -> Option<&Value> {
        path.iter().try_fold(self.0.get(filter)?, |value, key| match value {
            Value::Struct(fields) => fields.get(key),
            _ => None,
        })
    }
}

/// Where a rule looks (envoy.config.rbac.v3.MetadataSource).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataSource {
    /// What filters say of a request.
    Dynamic,
    /// What the configuration says of its route.
    Route,
}

#[derive(Clone, Debug, PartialEq)]
pub struct MetadataMatcher {
    pub source: MetadataSource,
    pub filter: Box<str>,
    pub path: Vec<Box<str>>,
    pub matcher: ValueMatcher,
    pub invert: bool,
}

impl MetadataMatcher {
    pub fn matches(&self, metadata: Option<&Metadata>) -> bool {
        let value = metadata.and_then(|metadata| metadata.get(&self.filter, &self.path));
        value.is_some_and(|value| self.matcher.matches(value)) != self.invert
    }
}

/// envoy.type.matcher.v3.ValueMatcher. None matches a value that is not there: `present_match: false` matches
/// nothing in Envoy either.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueMatcher {
    Null,
    Bool(bool),
    Number(f64),
    /// Half open: start <= value < end.
    NumberRange(f64, f64),
    Text(StringMatcher),
    Present(bool),
    /// Some element of a list.
    OneOf(Box<ValueMatcher>),
    Or(Vec<ValueMatcher>),
}

impl ValueMatcher {
    pub fn matches(&self, value: &Value) -> bool {
        match (self, value) {
            (ValueMatcher::Present(present), _) => *present,
            (ValueMatcher::Or(any), _) => any.iter().any(|matcher| matcher.matches(value)),
            (ValueMatcher::Null, Value::Null) => true,
            (ValueMatcher::Bool(wanted), Value::Bool(value)) => wanted == value,
            (ValueMatcher::Number(wanted), Value::Number(value)) => wanted == value,
            (ValueMatcher::NumberRange(start, end), Value::Number(value)) => (*start..*end).contains(value),
            (ValueMatcher::Text(matcher), Value::Text(text)) => matcher.matches(text.as_bytes()),
            (ValueMatcher::OneOf(matcher), Value::List(values)) => {
                values.iter().any(|value| matcher.matches(value))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
                values.iter().filter(|(_, value)| matcher.matches(value)).map(|(name, _)| *name).collect();
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
            let matcher = ValueMatcher::Bool(true);
            MetadataMatcher { source: MetadataSource::Route, filter: filter.into(), path, matcher, invert }
                .matches(Some(&metadata))
        };
        assert!(ask("x", &["s", "k"], false));
        assert!(!ask("x", &["s"], false));
        assert!(!ask("x", &["s", "k", "k"], false));
        assert!(!ask("y", &["s", "k"], false));
        assert!(ask("y", &["s", "k"], true));
    }
}
