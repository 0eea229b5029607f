//! envoy.config.rbac.v3.RBAC.

use super::{
    Context, api, extension, matcher, tls, uri_template,
    values::{any_type, cidr, decode, misplaced, port_number, port_range},
};
use api::rbac::{permission::Rule, principal::Identifier};
use corelane_snapshot::{
    MetadataMatcher, MetadataSource, Permission, Principal, RbacAction, RbacPolicy, RbacRules, SanKind,
    StringMatcher,
};

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
            let source = MetadataSource::Dynamic;
            Permission::Metadata(cx.within("metadata", |cx| self::metadata(cx, metadata, source))?)
        }
        Rule::SourcedMetadata(metadata) => {
            Permission::Metadata(cx.within("sourced_metadata", |cx| sourced(cx, metadata))?)
        }
        Rule::Matcher(found) => typed(cx, "matcher", found, permission_extension)?,
        Rule::UriTemplate(found) => typed(cx, "uri_template", found, path_template)?,
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
            let source = MetadataSource::Dynamic;
            Principal::Metadata(cx.within("metadata", |cx| self::metadata(cx, metadata, source))?)
        }
        Identifier::SourcedMetadata(metadata) => {
            Principal::Metadata(cx.within("sourced_metadata", |cx| sourced(cx, metadata))?)
        }
        Identifier::Custom(found) => typed(cx, "custom", found, custom)?,
        Identifier::FilterState(state) => cx.within("filter_state", |cx| filter_state(cx, state))?,
    })
}

fn sourced(cx: &mut Context<'_>, found: &api::rbac::SourcedMetadata) -> Option<MetadataMatcher> {
    use api::rbac::MetadataSource as Source;
    let source = match found.metadata_source() {
        Source::Dynamic => MetadataSource::Dynamic,
        Source::Route => MetadataSource::Route,
    };
    cx.optional("metadata_matcher", &found.metadata_matcher, |cx, found| metadata(cx, found, source))
}

fn metadata(
    cx: &mut Context<'_>,
    found: &api::matcher::MetadataMatcher,
    source: MetadataSource,
) -> Option<MetadataMatcher> {
    use api::matcher::metadata_matcher::path_segment::Segment;
    let keys = found.path.iter().filter_map(|segment| segment.segment.as_ref());
    let path = keys.map(|Segment::Key(key)| key.as_str().into()).collect();
    let matcher = cx.optional("value", &found.value, |cx, value| matcher::value(cx, value, 0))?;
    Some(MetadataMatcher {
        source,
        filter: found.filter.as_str().into(),
        path,
        matcher,
        invert: found.invert,
    })
}

fn filter_state(cx: &mut Context<'_>, state: &api::matcher::FilterStateMatcher) -> Option<Principal> {
    use api::matcher::filter_state_matcher::Matcher;
    if let Matcher::StringMatch(text) = state.matcher.as_ref()? {
        cx.within("string_match", |cx| matcher::string(cx, text))?;
    }
    Some(Principal::FilterState)
}

/// An extension of RBAC, inside its TypedExtensionConfig.
fn typed<T>(
    cx: &mut Context<'_>,
    field: &str,
    found: &api::core::TypedExtensionConfig,
    read: impl FnOnce(&mut Context<'_>, &prost_types::Any) -> Option<T>,
) -> Option<T> {
    cx.within(field, |cx| {
        let Some(any) = found.typed_config.as_ref() else {
            cx.error_at("typed_config", "must be set");
            return None;
        };
        cx.within("typed_config", |cx| read(cx, any))
    })
}

fn permission_extension(cx: &mut Context<'_>, any: &prost_types::Any) -> Option<Permission> {
    if any_type(any) != extension::UPSTREAM_IP_PORT {
        misplaced(cx, any, "matcher of permissions");
        return None;
    }
    Some(Permission::UpstreamAddress)
}

fn path_template(cx: &mut Context<'_>, any: &prost_types::Any) -> Option<Permission> {
    if any_type(any) != extension::URI_TEMPLATE {
        misplaced(cx, any, "matcher of paths");
        return None;
    }
    let config: api::uri_template::UriTemplateMatchConfig = decode(cx, any)?;
    match uri_template::compile(&config.path_template) {
        Ok(regex) => Some(Permission::UrlPath(StringMatcher::Regex(regex))),
        Err(reason) => {
            cx.error_at("path_template", reason);
            None
        }
    }
}

fn custom(cx: &mut Context<'_>, any: &prost_types::Any) -> Option<Principal> {
    if any_type(any) != extension::MTLS_AUTHENTICATED {
        misplaced(cx, any, "principal");
        return None;
    }
    let config: api::mtls_authenticated::Config = decode(cx, any)?;
    if config.san_matcher.is_none() && !config.any_validated_client_certificate {
        // as Envoy: a rule that forgot its name must not be one that takes any
        cx.error("`san_matcher` or `any_validated_client_certificate` must be set");
        return None;
    }
    let Some(found) = &config.san_matcher else { return Some(Principal::MtlsAuthenticated(None)) };
    let mut san = cx.within("san_matcher", |cx| tls::san(cx, found))?;
    if let (Some(SanKind::Ip), StringMatcher::Exact { text, .. }) = (san.kind, &mut san.matcher)
        && let Some(address) =
            std::str::from_utf8(text).ok().and_then(|text| text.parse::<std::net::IpAddr>().ok())
    {
        // compared as text, so in the one form that an address has
        *text = address.to_string().into_bytes().into();
    }
    Some(Principal::MtlsAuthenticated(Some(san)))
}
