//! Matchers of strings, headers, query parameters and paths.

use super::{Context, api};
use api::{
    matcher::string_matcher::MatchPattern,
    route::{header_matcher::HeaderMatchSpecifier, query_parameter_matcher::QueryParameterMatchSpecifier},
};
use corelane_snapshot::{
    Error, HeaderMatch, HeaderMatcher, QueryMatch, QueryMatcher, RangeI64, Regex, StringMatcher, ValueMatcher,
};

/// Expressions longer than this are refused before they are compiled.
const REGEX_TEXT_MAX: usize = 16 << 10;

/// The reason in a snapshot error, without what the finding's path says already.
pub(super) fn reason(error: Error) -> String {
    match error {
        // the engine prints the whole expression with carets over several lines; its last line is the reason
        Error::Regex { reason, .. } => {
            let last = reason.lines().last().unwrap_or_default();
            format!("bad regular expression: {}", last.trim_start_matches("error: "))
        }
        other => other.to_string(),
    }
}

pub(super) fn regex(cx: &mut Context<'_>, matcher: &api::matcher::RegexMatcher) -> Option<Regex> {
    compile(cx, matcher, Regex::new)
}

/// For a substitution: where a part of the value may match.
pub(super) fn search_regex(cx: &mut Context<'_>, matcher: &api::matcher::RegexMatcher) -> Option<Regex> {
    compile(cx, matcher, Regex::unanchored)
}

fn compile(
    cx: &mut Context<'_>,
    matcher: &api::matcher::RegexMatcher,
    build: impl Fn(&str) -> Result<Regex, Error>,
) -> Option<Regex> {
    if matcher.regex.len() > REGEX_TEXT_MAX {
        cx.error_at("regex", format!("longer than {REGEX_TEXT_MAX} bytes"));
        return None;
    }
    match build(&matcher.regex) {
        Ok(regex) => Some(regex),
        Err(error) => {
            cx.error_at("regex", reason(error));
            None
        }
    }
}

/// RegexMatchAndSubstitute.
pub(super) fn substitution(
    cx: &mut Context<'_>,
    rewrite: &api::matcher::RegexMatchAndSubstitute,
) -> Option<(Regex, Box<[u8]>)> {
    let pattern = cx.optional("pattern", &rewrite.pattern, search_regex)?;
    Some((pattern, Regex::substitution(&rewrite.substitution).into()))
}

pub(super) fn string(cx: &mut Context<'_>, matcher: &api::matcher::StringMatcher) -> Option<StringMatcher> {
    let ignore_case = matcher.ignore_case;
    let text = |text: &str| -> Box<[u8]> {
        if ignore_case { text.to_ascii_lowercase().into_bytes().into() } else { text.as_bytes().into() }
    };
    Some(match matcher.match_pattern.as_ref()? {
        MatchPattern::Exact(exact) => StringMatcher::Exact { text: text(exact), ignore_case },
        MatchPattern::Prefix(prefix) => StringMatcher::Prefix { text: text(prefix), ignore_case },
        MatchPattern::Suffix(suffix) => StringMatcher::Suffix { text: text(suffix), ignore_case },
        MatchPattern::Contains(part) => StringMatcher::Contains { text: text(part), ignore_case },
        MatchPattern::SafeRegex(regex) => {
            // string.proto: ignore_case "has no effect for the safe_regex match"
            StringMatcher::Regex(cx.within("safe_regex", |cx| self::regex(cx, regex))?)
        }
    })
}

/// Lists and alternatives inside each other.
const VALUE_DEPTH_MAX: usize = 16;

pub(super) fn value(
    cx: &mut Context<'_>,
    matcher: &api::matcher::ValueMatcher,
    depth: usize,
) -> Option<ValueMatcher> {
    use api::matcher::{double_matcher, list_matcher, value_matcher::MatchPattern as Value};
    if depth >= VALUE_DEPTH_MAX {
        cx.error(format!("nested deeper than {VALUE_DEPTH_MAX}"));
        return None;
    }
    Some(match matcher.match_pattern.as_ref()? {
        Value::NullMatch(_) => ValueMatcher::Null,
        Value::BoolMatch(wanted) => ValueMatcher::Bool(*wanted),
        Value::PresentMatch(wanted) => ValueMatcher::Present(*wanted),
        Value::StringMatch(text) => ValueMatcher::Text(cx.within("string_match", |cx| string(cx, text))?),
        Value::DoubleMatch(number) => match number.match_pattern.as_ref()? {
            double_matcher::MatchPattern::Exact(number) => ValueMatcher::Number(*number),
            double_matcher::MatchPattern::Range(range) => ValueMatcher::NumberRange(range.start, range.end),
        },
        Value::ListMatch(list) => {
            let list_matcher::MatchPattern::OneOf(one) = list.match_pattern.as_ref()?;
            let one = cx.within("list_match", |cx| cx.within("one_of", |cx| value(cx, one, depth + 1)))?;
            ValueMatcher::OneOf(Box::new(one))
        }
        Value::OrMatch(any) => ValueMatcher::Or(cx.within("or_match", |cx| {
            cx.each("value_matchers", &any.value_matchers, |cx, one| value(cx, one, depth + 1))
        })),
    })
}

pub(super) fn path(cx: &mut Context<'_>, matcher: &api::matcher::PathMatcher) -> Option<StringMatcher> {
    use api::matcher::path_matcher::Rule;
    match matcher.rule.as_ref()? {
        Rule::Path(path) => cx.within("path", |cx| string(cx, path)),
    }
}

pub(super) fn header(cx: &mut Context<'_>, matcher: &api::route::HeaderMatcher) -> Option<HeaderMatcher> {
    let text = |text: &str| text.as_bytes().into();
    let ignore_case = false;
    let found = match matcher.header_match_specifier.as_ref() {
        // route_components.proto: without a specifier "a request that has the header will match"
        None => HeaderMatch::Present(true),
        Some(HeaderMatchSpecifier::PresentMatch(present)) => HeaderMatch::Present(*present),
        // the deprecated form without a value: any, as Envoy's header matcher still has it
        Some(HeaderMatchSpecifier::ExactMatch(exact)) if exact.is_empty() => {
            HeaderMatch::Text(StringMatcher::Any)
        }
        Some(HeaderMatchSpecifier::ExactMatch(exact)) => {
            HeaderMatch::Text(StringMatcher::Exact { text: text(exact), ignore_case })
        }
        Some(HeaderMatchSpecifier::PrefixMatch(prefix)) => {
            HeaderMatch::Text(StringMatcher::Prefix { text: text(prefix), ignore_case })
        }
        Some(HeaderMatchSpecifier::SuffixMatch(suffix)) => {
            HeaderMatch::Text(StringMatcher::Suffix { text: text(suffix), ignore_case })
        }
        Some(HeaderMatchSpecifier::ContainsMatch(part)) => {
            HeaderMatch::Text(StringMatcher::Contains { text: text(part), ignore_case })
        }
        Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => HeaderMatch::Text(StringMatcher::Regex(
            cx.within("safe_regex_match", |cx| self::regex(cx, regex))?,
        )),
        Some(HeaderMatchSpecifier::StringMatch(matcher)) => {
            HeaderMatch::Text(cx.within("string_match", |cx| string(cx, matcher))?)
        }
        Some(HeaderMatchSpecifier::RangeMatch(range)) => {
            HeaderMatch::Range(RangeI64 { start: range.start, end: range.end })
        }
    };
    Some(HeaderMatcher {
        name: matcher.name.to_ascii_lowercase().into(),
        matcher: found,
        invert: matcher.invert_match,
        treat_missing_as_empty: matcher.treat_missing_header_as_empty,
    })
}

pub(super) fn query(
    cx: &mut Context<'_>,
    matcher: &api::route::QueryParameterMatcher,
) -> Option<QueryMatcher> {
    let found = match matcher.query_parameter_match_specifier.as_ref() {
        None => QueryMatch::Present(true),
        Some(QueryParameterMatchSpecifier::PresentMatch(present)) => QueryMatch::Present(*present),
        Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => {
            QueryMatch::Text(cx.within("string_match", |cx| string(cx, matcher))?)
        }
    };
    Some(QueryMatcher { name: matcher.name.as_str().into(), matcher: found })
}
