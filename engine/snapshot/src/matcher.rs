//! Matchers of envoy.type.matcher.v3, compiled. What they match against is handed in; nothing here reads a head.

use crate::Error;
use std::net::IpAddr;

/// A linear-time regular expression that must match the whole value (RegexMatcher: "full match").
#[derive(Clone, Debug)]
pub struct Regex(regex::bytes::Regex, String);

/// Compiled size of one expression; a larger one is refused when the configuration is built.
pub const REGEX_BYTES_MAX: usize = 1 << 20;

impl Regex {
    pub fn new(pattern: &str) -> Result<Self, Error> {
        let fail = |e: regex::Error| Error::Regex { pattern: pattern.to_owned(), reason: e.to_string() };
        let anchored = format!("^(?:{pattern})$");
        let built = regex::bytes::RegexBuilder::new(&anchored)
            .size_limit(REGEX_BYTES_MAX)
            .dot_matches_new_line(true)
            .build()
            .map_err(fail)?;
        Ok(Regex(built, pattern.to_owned()))
    }

    /// For substitution (RegexMatchAndSubstitute), where a part of the value may match.
    pub fn unanchored(pattern: &str) -> Result<Self, Error> {
        let fail = |e: regex::Error| Error::Regex { pattern: pattern.to_owned(), reason: e.to_string() };
        let built =
            regex::bytes::RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).build().map_err(fail)?;
        Ok(Regex(built, pattern.to_owned()))
    }

    pub fn is_match(&self, value: &[u8]) -> bool {
        self.0.is_match(value)
    }

    /// `\1` in Envoy's substitution is `${1}` here; [`Regex::substitution`] translates once.
    pub fn replace<'a>(&self, value: &'a [u8], substitution: &[u8]) -> std::borrow::Cow<'a, [u8]> {
        self.0.replace_all(value, substitution)
    }

    /// RE2's `\N` and `\\` (RegexMatchAndSubstitute.substitution) as this engine writes them.
    pub fn substitution(envoy: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(envoy.len() + 8);
        let mut bytes = envoy.bytes().peekable();
        while let Some(b) = bytes.next() {
            match (b, bytes.peek().copied()) {
                (b'\\', Some(d)) if d.is_ascii_digit() => {
                    bytes.next();
                    out.extend_from_slice(&[b'$', b'{', d, b'}']);
                }
                (b'\\', Some(b'\\')) => {
                    bytes.next();
                    out.push(b'\\');
                }
                (b'$', _) => out.extend_from_slice(b"$$"),
                _ => out.push(b),
            }
        }
        out
    }

    pub fn pattern(&self) -> &str {
        &self.1
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.1 == other.1 && self.0.as_str() == other.0.as_str()
    }
}

/// envoy.type.matcher.v3.StringMatcher. With `ignore_case` the stored text is lower case already.
#[derive(Clone, Debug, PartialEq)]
pub enum StringMatcher {
    Any,
    Exact { text: Box<[u8]>, ignore_case: bool },
    Prefix { text: Box<[u8]>, ignore_case: bool },
    Suffix { text: Box<[u8]>, ignore_case: bool },
    Contains { text: Box<[u8]>, ignore_case: bool },
    Regex(Regex),
}

impl StringMatcher {
    pub fn exact(text: impl AsRef<[u8]>) -> Self {
        StringMatcher::Exact { text: text.as_ref().into(), ignore_case: false }
    }

    pub fn prefix(text: impl AsRef<[u8]>) -> Self {
        StringMatcher::Prefix { text: text.as_ref().into(), ignore_case: false }
    }

    pub fn matches(&self, value: &[u8]) -> bool {
        let same = |a: &[u8], b: &[u8], fold: bool| if fold { a.eq_ignore_ascii_case(b) } else { a == b };
        match self {
            StringMatcher::Any => true,
            StringMatcher::Exact { text, ignore_case } => same(value, text, *ignore_case),
            StringMatcher::Prefix { text, ignore_case } => {
                value.get(..text.len()).is_some_and(|head| same(head, text, *ignore_case))
            }
            StringMatcher::Suffix { text, ignore_case } => {
                value.len().checked_sub(text.len()).is_some_and(|at| same(&value[at..], text, *ignore_case))
            }
            StringMatcher::Contains { text, ignore_case } => {
                text.is_empty() || value.windows(text.len()).any(|window| same(window, text, *ignore_case))
            }
            StringMatcher::Regex(regex) => regex.is_match(value),
        }
    }
}

/// Half-open: start <= value < end (envoy.type.v3.Int64Range).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeI64 {
    pub start: i64,
    pub end: i64,
}

/// envoy.config.route.v3.HeaderMatcher; `name` is lower case, pseudo-headers keep their colon.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderMatcher {
    pub name: Box<str>,
    pub matcher: HeaderMatch,
    pub invert: bool,
    /// An absent header counts as the empty value instead of "no match".
    pub treat_missing_as_empty: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum HeaderMatch {
    Present(bool),
    Text(StringMatcher),
    Range(RangeI64),
}

/// envoy.config.route.v3.QueryParameterMatcher.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryMatcher {
    pub name: Box<str>,
    pub matcher: QueryMatch,
}

#[derive(Clone, Debug, PartialEq)]
pub enum QueryMatch {
    Present(bool),
    Text(StringMatcher),
}

/// A share of requests in millionths (envoy.type.v3.FractionalPercent, every denominator).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fraction(pub u32);

impl Fraction {
    pub const ALL: Fraction = Fraction(1_000_000);
    pub const NONE: Fraction = Fraction(0);

    /// `draw` is uniform over u64.
    pub fn selects(self, draw: u64) -> bool {
        draw % 1_000_000 < u64::from(self.0)
    }
}

/// envoy.config.core.v3.CidrRange. IPv4-mapped IPv6 addresses compare as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr(pub ipnet::IpNet);

impl Cidr {
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    pub fn prefix_len(&self) -> u8 {
        self.0.prefix_len()
    }
}
