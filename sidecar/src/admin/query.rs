//! The parameters behind the question mark.

use std::borrow::Cow;

/// Parameters of one request; more are ignored.
const PARAMETERS_MAX: usize = 64;

/// In order; a name without `=` has an empty value.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(query: Option<&str>) -> Query {
        let parts = query.unwrap_or_default().split('&').filter(|part| !part.is_empty()).take(PARAMETERS_MAX);
        let pair = |part: &str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(name), decode(value))
        };
        Query(parts.map(pair).collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// RFC 3986, 2.1; what is no escape stays as it is. A plus is a plus, as Envoy has it.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).filter(|_| *byte == b'%');
        let escaped = digits.and_then(|digits| {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            Some((digit(digits[0])? * 16 + digit(digits[1])?) as u8)
        });
        out.push(escaped.unwrap_or(*byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    match String::from_utf8_lossy(&out) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_split_and_decoded() {
        let query = Query::parse(Some("usedonly&filter=a%2eb%&format=json&=x&&filter=second"));
        assert!(query.has("usedonly") && !query.has("other"));
        assert_eq!(query.get("filter"), Some("a.b%"));
        assert_eq!(query.get("format"), Some("json"));
        assert_eq!(query.pairs().count(), 5);
        assert_eq!(Query::parse(None), Query::default());
        assert_eq!(Query::parse(Some("a=%ff%zz")).get("a"), Some("\u{fffd}%zz"));
    }
}
