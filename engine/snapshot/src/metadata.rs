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

/// envoy.type.matcher.v3.ValueMatcher.
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
