//! envoy.config.rbac.v3.RBAC.

use super::{
    Context, api, matcher,
    values::{cidr, port_number, port_range},
};
use api::rbac::{permission::Rule, principal::Identifier};
use corelane_snapshot::{Permission, Principal, RbacAction, RbacPolicy, RbacRules, StringMatcher};

/// And, Or and Not inside each other.
const DEPTH_MAX: usize = 64;

pub(super) fn rules(cx: &mut Context<'_>, rbac: &api::rbac::Rbac) -> Option<RbacRules> {
    use api::rbac::rbac::Action;
    let action = match rbac.action() {
        Action::Allow => RbacAction::Allow,
        Action::Deny => RbacAction::Deny,
        Action::Log => RbacAction::Log,
    };
    let mut policies = Vec::with_capacity(rbac.policies.len());
    // a BTreeMap: in the order of their names, as Envoy evaluates them
    for (name, policy) in &rbac.policies {
        cx.entry("policies", name, |cx| {
            let permissions = cx.each("permissions", &policy.permissions, |cx, p| permission(cx, p, 0));
            let principals = cx.each("principals", &policy.principals, |cx, p| principal(cx, p, 0));
            policies.push(RbacPolicy { name: name.clone(), permissions, principals });
        });
    }
    Some(RbacRules { action, policies })
}

fn too_deep(cx: &mut Context<'_>, depth: usize) -> bool {
    if depth >= DEPTH_MAX {
        cx.error(format!("nested deeper than {DEPTH_MAX}"));
    }
    depth >= DEPTH_MAX
}

/// rbac.proto: `any` is const true. Left out in silence, it would widen the rule around it.
fn not_any<T>(cx: &mut Context<'_>) -> Option<T> {
    cx.error_at("any", "must be true where it is set");
    None
}

fn permission(cx: &mut Context<'_>, found: &api::rbac::Permission, depth: usize) -> Option<Permission> {
    if too_deep(cx, depth) {
        return None;
    }
    let set = |cx: &mut Context<'_>, field: &str, set: &api::rbac::permission::Set| {
        cx.within(field, |cx| cx.each("rules", &set.rules, |cx, rule| permission(cx, rule, depth + 1)))
    };
    Some(match found.rule.as_ref()? {
        Rule::Any(true) => Permission::Any,
        Rule::Any(false) => return not_any(cx),
        Rule::AndRules(rules) => Permission::And(set(cx, "and_rules", rules)),
        Rule::OrRules(rules) => Permission::Or(set(cx, "or_rules", rules)),
        Rule::NotRule(rule) => {
            Permission::Not(Box::new(cx.within("not_rule", |cx| permission(cx, rule, depth + 1))?))
        }
        Rule::Header(header) => Permission::Header(cx.within("header", |cx| matcher::header(cx, header))?),
        Rule::UrlPath(path) => Permission::UrlPath(cx.within("url_path", |cx| matcher::path(cx, path))?),
        Rule::DestinationIp(range) => {
            Permission::DestinationIp(cx.within("destination_ip", |cx| cidr(cx, range))?)
        }
        Rule::DestinationPort(port) => {
            Permission::DestinationPort(port_number(cx, "destination_port", *port)?)
        }
        Rule::DestinationPortRange(range) => {
            let (first, last) = cx.within("destination_port_range", |cx| port_range(cx, range))?;
            Permission::DestinationPortRange(first, last)
        }
        Rule::RequestedServerName(name) => Permission::RequestedServerName(
            cx.within("requested_server_name", |cx| matcher::string(cx, name))?,
        ),
        Rule::Metadata(metadata) => {
            let (filter, path, matcher, invert) = cx.within("metadata", |cx| self::metadata(cx, metadata))?;
            Permission::Metadata { filter, path, matcher, invert }
        }
    })
}

fn principal(cx: &mut Context<'_>, found: &api::rbac::Principal, depth: usize) -> Option<Principal> {
    if too_deep(cx, depth) {
        return None;
    }
    let set = |cx: &mut Context<'_>, field: &str, set: &api::rbac::principal::Set| {
        cx.within(field, |cx| cx.each("ids", &set.ids, |cx, id| principal(cx, id, depth + 1)))
    };
    Some(match found.identifier.as_ref()? {
        Identifier::Any(true) => Principal::Any,
        Identifier::Any(false) => return not_any(cx),
        Identifier::AndIds(ids) => Principal::And(set(cx, "and_ids", ids)),
        Identifier::OrIds(ids) => Principal::Or(set(cx, "or_ids", ids)),
        Identifier::NotId(id) => {
            Principal::Not(Box::new(cx.within("not_id", |cx| principal(cx, id, depth + 1))?))
        }
        Identifier::Authenticated(authenticated) => {
            let name = authenticated.principal_name.as_ref();
            Principal::Authenticated(match name {
                Some(name) => Some(cx.within("authenticated", |cx| {
                    cx.within("principal_name", |cx| matcher::string(cx, name))
                })?),
                None => None,
            })
        }
        Identifier::SourceIp(range) => Principal::SourceIp(cx.within("source_ip", |cx| cidr(cx, range))?),
        Identifier::DirectRemoteIp(range) => {
            Principal::DirectRemoteIp(cx.within("direct_remote_ip", |cx| cidr(cx, range))?)
        }
        Identifier::RemoteIp(range) => Principal::RemoteIp(cx.within("remote_ip", |cx| cidr(cx, range))?),
        Identifier::Header(header) => {
            Principal::Header(cx.within("header", |cx| matcher::header(cx, header))?)
        }
        Identifier::UrlPath(path) => Principal::UrlPath(cx.within("url_path", |cx| matcher::path(cx, path))?),
        Identifier::Metadata(metadata) => {
            let (filter, path, matcher, invert) = cx.within("metadata", |cx| self::metadata(cx, metadata))?;
            Principal::Metadata { filter, path, matcher, invert }
        }
        Identifier::FilterState(state) => cx.within("filter_state", |cx| filter_state(cx, state))?,
    })
}

type Metadata = (String, Vec<String>, StringMatcher, bool);

fn metadata(cx: &mut Context<'_>, found: &api::matcher::MetadataMatcher) -> Option<Metadata> {
    use api::matcher::{list_matcher, metadata_matcher::path_segment::Segment, value_matcher::MatchPattern};
    let path = found
        .path
        .iter()
        .filter_map(|segment| segment.segment.as_ref())
        .map(|Segment::Key(key)| key.clone())
        .collect();
    let pattern = found.value.as_ref()?.match_pattern.as_ref()?;
    let text = match pattern {
        MatchPattern::StringMatch(text) => Some(text),
        // ListMatcher.one_of: any element that matches; there is no metadata here that could tell the difference
        MatchPattern::ListMatch(list) => match list.match_pattern.as_ref() {
            Some(list_matcher::MatchPattern::OneOf(value)) => match value.match_pattern.as_ref() {
                Some(MatchPattern::StringMatch(text)) => Some(text),
                _ => None,
            },
            None => None,
        },
    };
    let Some(text) = text else {
        cx.error_at("value", "only a string, or a list of which one is a string, can be matched");
        return None;
    };
    let matcher = cx.within("value", |cx| matcher::string(cx, text))?;
    Some((found.filter.clone(), path, matcher, found.invert))
}

fn filter_state(cx: &mut Context<'_>, state: &api::matcher::FilterStateMatcher) -> Option<Principal> {
    use api::matcher::filter_state_matcher::Matcher;
    let Matcher::StringMatch(text) = state.matcher.as_ref()?;
    let matcher = cx.within("string_match", |cx| matcher::string(cx, text))?;
    Some(Principal::FilterState { key: state.key.clone(), matcher })
}
