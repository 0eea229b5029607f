//! Numeric and duration bounds: `lt`, `lte`, `gt`, `gte`, `const`, `in`, `not_in`.

use prost_reflect::{DynamicMessage, Value};

/// Integers and durations (in nanoseconds) are exact; floats compare as they are.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Number {
    Int(i128),
    Float(f64),
}

#[derive(Debug)]
pub(super) struct Bounds {
    unit: Unit,
    below: Option<Number>,
    at_most: Option<Number>,
    above: Option<Number>,
    at_least: Option<Number>,
    exactly: Option<Number>,
    allowed: Vec<Number>,
    refused: Vec<Number>,
    ignore_empty: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Unit {
    None,
    Duration,
}

impl Bounds {
    pub(super) fn numbers(rule: &DynamicMessage) -> Bounds {
        Bounds::parse(rule, Unit::None)
    }

    pub(super) fn durations(rule: &DynamicMessage) -> Bounds {
        Bounds::parse(rule, Unit::Duration)
    }

    fn parse(rule: &DynamicMessage, unit: Unit) -> Bounds {
        let one = |name: &str| {
            rule.has_field_by_name(name)
                .then(|| rule.get_field_by_name(name))
                .flatten()
                .and_then(|value| number(&value))
        };
        let many = |name: &str| -> Vec<Number> {
            let value = rule.get_field_by_name(name);
            let list = value.as_ref().and_then(|value| value.as_list()).unwrap_or_default();
            list.iter().filter_map(number).collect()
        };
        Bounds {
            unit,
            below: one("lt"),
            at_most: one("lte"),
            above: one("gt"),
            at_least: one("gte"),
            exactly: one("const"),
            allowed: many("in"),
            refused: many("not_in"),
            ignore_empty: super::rules::flag(rule, "ignore_empty"),
        }
    }

    /// The reason why a value is out of bounds. Values of another kind are not judged.
    pub(super) fn refuse(&self, value: &Value) -> Option<String> {
        let value = number(value)?;
        if self.ignore_empty && (value == Number::Int(0) || value == Number::Float(0.0)) {
            return None;
        }
        if let Number::Float(float) = value
            && float.is_nan()
        {
            return Some("must be a number, is NaN".into());
        }
        let refuse = |bad: bool, what: &str, bound: Option<Number>| {
            bad.then(|| format!("must be {what} {}, is {}", self.show(bound), self.show(Some(value))))
        };
        refuse(self.exactly.is_some_and(|bound| value != bound), "exactly", self.exactly)
            .or_else(|| refuse(self.below.is_some_and(|bound| value >= bound), "below", self.below))
            .or_else(|| refuse(self.at_most.is_some_and(|bound| value > bound), "at most", self.at_most))
            .or_else(|| refuse(self.above.is_some_and(|bound| value <= bound), "above", self.above))
            .or_else(|| refuse(self.at_least.is_some_and(|bound| value < bound), "at least", self.at_least))
            .or_else(|| self.refuse_member(value))
    }

    fn refuse_member(&self, value: Number) -> Option<String> {
        if self.refused.contains(&value) {
            return Some(format!("must not be {}", self.show(Some(value))));
        }
        if self.allowed.is_empty() || self.allowed.contains(&value) {
            return None;
        }
        let allowed: Vec<String> = self.allowed.iter().map(|number| self.show(Some(*number))).collect();
        Some(format!("must be one of {}, is {}", allowed.join(", "), self.show(Some(value))))
    }

    fn show(&self, number: Option<Number>) -> String {
        match (number, self.unit) {
            (Some(Number::Int(nanos)), Unit::Duration) => format!("{}s", nanos as f64 / 1e9),
            (Some(Number::Int(number)), Unit::None) => number.to_string(),
            (Some(Number::Float(number)), _) => number.to_string(),
            (None, _) => String::new(),
        }
    }
}

fn number(value: &Value) -> Option<Number> {
    Some(match value {
        Value::I32(number) => Number::Int((*number).into()),
        Value::I64(number) => Number::Int((*number).into()),
        Value::U32(number) => Number::Int((*number).into()),
        Value::U64(number) => Number::Int((*number).into()),
        Value::F32(number) => Number::Float((*number).into()),
        Value::F64(number) => Number::Float(*number),
        Value::Message(message) => {
            let seconds = message.get_field_by_name("seconds")?.as_i64()?;
            let nanos = message.get_field_by_name("nanos")?.as_i32()?;
            Number::Int(i128::from(seconds) * 1_000_000_000 + i128::from(nanos))
        }
        _ => return None,
    })
}
