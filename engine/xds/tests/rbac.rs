//! Every kind of permission and principal, as an operator writes it, and what none can be.

#![allow(clippy::unwrap_used)]

mod support;

use corelane_snapshot::*;
use corelane_xds::translate;
use support::{
    NoStats, lines, read,
    refusal::{refused, route},
};

const PLACE: &str =
    "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.";

/// A file with an RBAC filter of one policy, and metadata on its route.
fn file(permission: &str, principal: &str) -> String {
    const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
    let rules = format!(
        "policies: {{ p: {{ permissions: [{{ {permission} }}], principals: [{{ {principal} }}] }} }}"
    );
    let filter =
        format!("http_filters: [{{ name: r, typed_config: {{ '@type': {RBAC}, rules: {{ {rules} }} }} }}, ");
    let metadata = "metadata: { filter_metadata: { x: { a: b, n: 5, l: [true, null] } } }";
    route(&format!("{{ match: {{ prefix: / }}, route: {{ cluster: c }}, {metadata} }}")).replacen(
        "http_filters: [",
        &filter,
        1,
    )
}

fn built(permission: &str, principal: &str) -> (Permission, Principal, Metadata) {
    let mut builder = Builder::new(Box::new(NoStats));
    let translation = translate::bootstrap(&read(&file(permission, principal)), &mut builder);
    assert_eq!(lines(&translation.findings), Vec::<String>::new());
    let snapshot = builder.build().unwrap();
    let Terminal::Http(manager) = &snapshot.listeners[0].chains[0].terminal else { panic!("not HTTP") };
    let RouteSource::Inline(table) = &manager.routes else { panic!("not inline") };
    let metadata = table.hosts.hosts[0].routes[0].filters.metadata.as_deref().unwrap().clone();
    let policy = &manager.filters.rbac[0].rules.as_ref().unwrap().policies[0];
    (policy.permissions[0].clone(), policy.principals[0].clone(), metadata)
}

#[test]
fn metadata_is_matched_by_every_kind_of_value() {
    let rule = |source: &str, value: &str| {
        let matcher =
            format!("metadata_matcher: {{ filter: x, path: [{{ key: a }}], value: {{ {value} }} }}");
        format!("sourced_metadata: {{ {matcher}{source} }}")
    };
    for (value, expected) in [
        ("string_match: { exact: b }", ValueMatcher::Text(StringMatcher::exact("b"))),
        ("bool_match: true", ValueMatcher::Bool(true)),
        ("present_match: true", ValueMatcher::Present(true)),
        ("null_match: {}", ValueMatcher::Null),
        ("double_match: { exact: 5 }", ValueMatcher::Number(5.0)),
        ("double_match: { range: { start: 1, end: 2.5 } }", ValueMatcher::NumberRange(1.0, 2.5)),
        (
            "list_match: { one_of: { bool_match: true } }",
            ValueMatcher::OneOf(Box::new(ValueMatcher::Bool(true))),
        ),
        (
            "or_match: { value_matchers: [{ bool_match: true }, { null_match: {} }] }",
            ValueMatcher::Or(vec![ValueMatcher::Bool(true), ValueMatcher::Null]),
        ),
    ] {
        let (permission, principal, metadata) =
            built(&rule(", metadata_source: ROUTE", value), &rule("", value));
        let matcher = |source| MetadataMatcher {
            source,
            filter: "x".into(),
            path: vec!["a".into()],
            matcher: expected.clone(),
            invert: false,
        };
        assert_eq!(permission, Permission::Metadata(matcher(MetadataSource::Route)), "{value}");
        assert_eq!(principal, Principal::Metadata(matcher(MetadataSource::Dynamic)), "{value}");
        let Some(Value::Struct(fields)) = metadata.0.get("x") else { panic!("no struct") };
        assert_eq!(fields.get("n"), Some(&Value::Number(5.0)));
    }
}

#[test]
fn extensions_of_rules() {
    let typed = |kind: &str, fields: &str| {
        format!(
            "{{ name: e, typed_config: {{ '@type': type.googleapis.com/envoy.extensions.{kind}, {fields} }} }}"
        )
    };
    let template = typed("path.match.uri_template.v3.UriTemplateMatchConfig", "path_template: '/a/{x}'");
    let upstream = typed(
        "rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher",
        "upstream_port_range: { start: 1, end: 2 }",
    );
    let mtls = |fields| format!("custom: {}", typed("rbac.principals.mtls_authenticated.v3.Config", fields));
    let any = mtls("any_validated_client_certificate: true");
    let (permission, principal, _) = built(&format!("uri_template: {template}"), &any);
    let Permission::UrlPath(matcher) = permission else { panic!("no path") };
    assert!(matcher.matches(b"/a/b") && !matcher.matches(b"/a/b/c"));
    assert_eq!(principal, Principal::MtlsAuthenticated(None));
    let named = mtls("san_matcher: { san_type: IP_ADDRESS, matcher: { exact: '2001:DB8:0::1' } }");
    let (permission, principal, _) = built(&format!("matcher: {upstream}"), &named);
    assert_eq!(permission, Permission::UpstreamAddress);
    let matcher = StringMatcher::exact("2001:db8::1");
    assert_eq!(
        principal,
        Principal::MtlsAuthenticated(Some(SanMatcher { kind: Some(SanKind::Ip), matcher }))
    );
    let state =
        "filter_state: { key: k, address_match: { ranges: [{ address_prefix: 1.1.1.1, prefix_len: 32 }] } }";
    assert_eq!(built("any: true", state).1, Principal::FilterState);
    // a principal that forgot its name is refused, as by Envoy: it would be one that takes any
    let nameless =
        file("any: true", &mtls("§").replace("typed_config: {", "§typed_config: {").replace(", § }", " }"));
    refused(
        &nameless,
        &[format!(
            "{PLACE}rules.policies[p].principals[0].custom.typed_config: `san_matcher` or \
             `any_validated_client_certificate` must be set"
        )],
    );
}

/// What is not implemented is named: an audit that silently never happens would be worse than a file that won't load.
#[test]
fn what_is_not_implemented_is_refused_by_name() {
    let text = file("any: true", "any: true");
    for (field, message) in [("condition", "Policy"), ("checked_condition", "Policy")] {
        let text = text.replacen("p: {", &format!("p: {{ §{field}: {{}}, "), 1);
        let place = format!("{PLACE}rules.policies[p].{field}");
        refused(&text, &[format!("{place}: field `{field}` of {message} is not implemented")]);
    }
    let audit = text.replacen("rules: {", "rules: { §audit_logging_options: {}, ", 1);
    let message = "rules.audit_logging_options: field `audit_logging_options` of RBAC is not implemented";
    refused(&audit, &[format!("{PLACE}{message}")]);
    for field in ["matcher", "shadow_matcher"] {
        let text = text.replacen("rules: {", &format!("§{field}: {{}}, rules: {{"), 1);
        refused(&text, &[format!("{PLACE}{field}: field `{field}` of RBAC is not implemented")]);
    }
}
