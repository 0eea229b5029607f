//! Header rules: what is added to and removed from requests and responses.

use super::{Context, api, matcher::reason};
use corelane_snapshot::{HeaderAppend, HeaderEdit, HeaderRules, template::Template};

/// The four lists that stand at each level of a route table.
pub(super) struct Lists<'m> {
    pub request_add: &'m [api::core::HeaderValueOption],
    pub request_remove: &'m [String],
    pub response_add: &'m [api::core::HeaderValueOption],
    pub response_remove: &'m [String],
}

pub(super) fn rules(cx: &mut Context<'_>, lists: Lists<'_>) -> HeaderRules {
    HeaderRules {
        request_add: cx.each("request_headers_to_add", lists.request_add, edit),
        request_remove: removals(cx, "request_headers_to_remove", lists.request_remove),
        response_add: cx.each("response_headers_to_add", lists.response_add, edit),
        response_remove: removals(cx, "response_headers_to_remove", lists.response_remove),
    }
}

pub(super) fn edit(cx: &mut Context<'_>, option: &api::core::HeaderValueOption) -> Option<HeaderEdit> {
    let append = append(cx, option);
    let header = option.header.as_ref()?;
    cx.within("header", |cx| {
        let name = changeable(cx, "key", &header.key)?;
        let value = match Template::parse(&header.value) {
            Ok(value) => value,
            Err(error) => {
                cx.error_at("value", reason(error));
                return None;
            }
        };
        Some(HeaderEdit { name, value, append, keep_empty_value: option.keep_empty_value })
    })
}

/// base.proto: `append` is deprecated; true is APPEND_IF_EXISTS_OR_ADD and false OVERWRITE_IF_EXISTS_OR_ADD, and
/// both may not be set unless they agree.
fn append(cx: &mut Context<'_>, option: &api::core::HeaderValueOption) -> HeaderAppend {
    use api::core::header_value_option::HeaderAppendAction;
    let action = match option.append_action() {
        HeaderAppendAction::AppendIfExistsOrAdd => HeaderAppend::AppendIfExistsOrAdd,
        HeaderAppendAction::AddIfAbsent => HeaderAppend::AddIfAbsent,
        HeaderAppendAction::OverwriteIfExistsOrAdd => HeaderAppend::OverwriteIfExistsOrAdd,
        HeaderAppendAction::OverwriteIfExists => HeaderAppend::OverwriteIfExists,
    };
    match option.append {
        None => action,
        Some(true) if action == HeaderAppend::AppendIfExistsOrAdd => action,
        Some(false)
            if matches!(action, HeaderAppend::AppendIfExistsOrAdd | HeaderAppend::OverwriteIfExistsOrAdd) =>
        {
            HeaderAppend::OverwriteIfExistsOrAdd
        }
        Some(_) => {
            cx.error_at("append", "contradicts `append_action`");
            action
        }
    }
}

pub(super) fn removals(cx: &mut Context<'_>, field: &str, names: &[String]) -> Vec<Box<str>> {
    cx.each(field, names, |cx, name| changeable(cx, "", name))
}

/// Envoy: pseudo-headers and Host may not be changed this way; the rewrite options are for that.
fn changeable(cx: &mut Context<'_>, field: &str, name: &str) -> Option<Box<str>> {
    let lower = name.to_ascii_lowercase();
    if lower.starts_with(':') || lower == "host" {
        cx.error_at(field, format!("`{name}` can't be changed by a header rule"));
        return None;
    }
    Some(lower.into())
}
