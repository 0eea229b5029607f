//! Truth tables of permissions, principals, policies and actions.

use super::*;
use corelane_http::RequestHead;
use corelane_snapshot::{
    Cidr, HeaderMatch, HeaderMatcher, SanKind, SanMatcher, StatBlock, Value, ValueMatcher,
};

const ORDERS: &str = "spiffe://cluster.local/ns/prod/sa/orders";

struct Call {
    head: RequestHead,
    uri_sans: Vec<String>,
    dns_sans: Vec<String>,
    ip_sans: Vec<IpAddr>,
    metadata: Metadata,
    subject: &'static str,
    verified: bool,
    sni: Option<&'static str>,
}

/// orders calls GET /read on payments.
fn call() -> Call {
    let mut head = RequestHead::new();
    head.set_path(b"/read?x=1").unwrap();
    head.set_authority(b"payments").unwrap();
    head.fields.append(b"x-role", b"admin").unwrap();
    Call {
        head,
        uri_sans: vec![ORDERS.into()],
        dns_sans: vec!["orders.prod".into(), "*.orders.example".into()],
        ip_sans: vec!["10.1.0.7".parse().unwrap()],
        metadata: Metadata([("x".into(), Value::Struct([("k".into(), Value::Bool(true))].into()))].into()),
        subject: "CN=orders",
        verified: true,
        sni: Some("payments.prod"),
    }
}

impl Call {
    fn facts(&self) -> Facts<'_> {
        let peer = Peer {
            uri_sans: &self.uri_sans,
            dns_sans: &self.dns_sans,
            subject: self.subject,
            ip_sans: &self.ip_sans,
            ..Peer::default()
        };
        Facts {
            head: Some(&self.head),
            destination: "10.0.0.5:8080".parse().unwrap(),
            direct_source: "10.1.0.7:40000".parse().unwrap(),
            source: "10.2.0.7:40000".parse().unwrap(),
            remote: "203.0.113.9".parse().unwrap(),
            server_name: self.sni,
            peer: self.verified.then_some(peer),
            route_metadata: Some(&self.metadata),
        }
    }
}

fn cidr(text: &str) -> Cidr {
    Cidr(text.parse().unwrap())
}

fn exact(text: &str) -> StringMatcher {
    StringMatcher::exact(text)
}

fn header(name: &str, value: &str) -> HeaderMatcher {
    let matcher = HeaderMatch::Text(exact(value));
    HeaderMatcher { name: name.into(), matcher, invert: false, treat_missing_as_empty: false }
}

fn not(permission: Permission) -> Permission {
    Permission::Not(Box::new(permission))
}

#[test]
fn permissions() {
    let (call, yes, no) = (call(), || Permission::Any, || not(Permission::Any));
    for (permission, holds) in [
        (yes(), true),
        (no(), false),
        (Permission::And(vec![yes(), yes()]), true),
        (Permission::And(vec![yes(), no()]), false),
        (Permission::And(vec![]), true),
        (Permission::Or(vec![no(), yes()]), true),
        (Permission::Or(vec![no(), no()]), false),
        (Permission::Or(vec![]), false),
        (Permission::Header(header(":method", "GET")), true),
        (Permission::Header(header(":method", "POST")), false),
        (Permission::Header(header("x-role", "admin")), true),
        (Permission::Header(header("x-none", "admin")), false),
        (Permission::UrlPath(exact("/read")), true),
        (Permission::UrlPath(exact("/read?x=1")), false),
        (Permission::UrlPath(StringMatcher::prefix("/re")), true),
        (Permission::DestinationIp(cidr("10.0.0.0/24")), true),
        (Permission::DestinationIp(cidr("10.1.0.0/24")), false),
        (Permission::DestinationPort(8080), true),
        (Permission::DestinationPort(8081), false),
        (Permission::DestinationPortRange(8080, 8080), true),
        (Permission::DestinationPortRange(8081, u16::MAX), false),
        (Permission::RequestedServerName(exact("payments.prod")), true),
        (Permission::RequestedServerName(exact("other")), false),
        (metadata(false), false),
        (metadata(true), true),
    ] {
        assert_eq!(permits(&permission, &call.facts()), holds, "{permission:?}");
    }
}

fn metadata(invert: bool) -> Permission {
    let matcher = ValueMatcher::Text(StringMatcher::Any);
    let (source, path) = (MetadataSource::Dynamic, vec!["iss".into()]);
    Permission::Metadata(MetadataMatcher { source, filter: "jwt".into(), path, matcher, invert })
}

#[test]
fn principals() {
    let (call, yes, no) = (call(), || Principal::Any, || Principal::Not(Box::new(Principal::Any)));
    for (principal, holds) in [
        (yes(), true),
        (no(), false),
        (Principal::And(vec![yes(), no()]), false),
        (Principal::Or(vec![no(), yes()]), true),
        (Principal::Authenticated(None), true),
        (Principal::Authenticated(Some(exact(ORDERS))), true),
        (Principal::Authenticated(Some(StringMatcher::prefix("spiffe://cluster.local/ns/prod/"))), true),
        (Principal::Authenticated(Some(exact("orders.prod"))), false),
        (Principal::DirectRemoteIp(cidr("10.1.0.7/32")), true),
        (Principal::DirectRemoteIp(cidr("10.2.0.7/32")), false),
        (Principal::SourceIp(cidr("10.2.0.7/32")), true),
        (Principal::SourceIp(cidr("10.1.0.7/32")), false),
        (Principal::RemoteIp(cidr("203.0.113.0/24")), true),
        (Principal::RemoteIp(cidr("10.0.0.0/8")), false),
        (Principal::Header(header("x-role", "admin")), true),
        (Principal::UrlPath(exact("/read")), true),
        (Principal::FilterState, false),
    ] {
        assert_eq!(is(&principal, &call.facts()), holds, "{principal:?}");
    }
}

#[test]
fn whose_name_it_is() {
    let named = |text: &str| Principal::Authenticated(Some(exact(text)));
    let mut call = call();
    for name in [ORDERS, "orders.prod", "CN=orders"] {
        let others: Vec<_> =
            [ORDERS, "orders.prod", "CN=orders"].into_iter().filter(|n| *n != name).collect();
        assert!(is(&named(name), &call.facts()), "{name}");
        assert!(others.iter().all(|other| !is(&named(other), &call.facts())), "only {name}");
        // the next kind of name speaks where the one before is absent
        if call.uri_sans.is_empty() { call.dns_sans.clear() } else { call.uri_sans.clear() }
    }
    call.verified = false;
    assert!(!is(&Principal::Authenticated(None), &call.facts()));
    assert!(!is(&Principal::Authenticated(Some(StringMatcher::Any)), &call.facts()));
}

#[test]
fn a_connection_has_no_head() {
    let call = call();
    let facts = Facts { head: None, ..call.facts() };
    assert!(!permits(&Permission::UrlPath(StringMatcher::Any), &facts));
    assert!(!permits(&Permission::Header(header(":method", "GET")), &facts));
    assert!(permits(&Permission::DestinationPort(8080), &facts));
}

fn policy(name: &str, permission: Permission, principal: Principal) -> RbacPolicy {
    RbacPolicy { name: name.into(), permissions: vec![permission], principals: vec![principal] }
}

fn rbac(rules: Option<(RbacAction, Vec<RbacPolicy>)>, shadow: Option<(RbacAction, Vec<RbacPolicy>)>) -> Rbac {
    let rules_of = |rules: Option<(RbacAction, Vec<RbacPolicy>)>| {
        rules.map(|(action, policies)| RbacRules { action, policies })
    };
    Rbac {
        rules: rules_of(rules),
        shadow_rules: rules_of(shadow),
        shadow_stats: StatBlock::default(),
        stats: StatBlock::default(),
    }
}

#[test]
fn actions() {
    let call = call();
    let hit = || {
        vec![
            policy("other", not(Permission::Any), Principal::Any),
            policy("hit", Permission::Any, Principal::Any),
        ]
    };
    let miss = || vec![policy("no permission", not(Permission::Any), Principal::Any)];
    let allow = Decision::Allow;
    for (action, policies, decision, log) in [
        (RbacAction::Allow, hit(), allow, false),
        (RbacAction::Allow, miss(), Decision::Deny { policy: None }, false),
        (RbacAction::Allow, vec![], Decision::Deny { policy: None }, false),
        (RbacAction::Deny, hit(), Decision::Deny { policy: Some("hit") }, false),
        (RbacAction::Deny, miss(), allow, false),
        (RbacAction::Deny, vec![], allow, false),
        (RbacAction::Log, hit(), allow, true),
        (RbacAction::Log, miss(), allow, false),
    ] {
        let rbac = rbac(Some((action, policies)), None);
        assert_eq!(verdict(&rbac, &call.facts()), Verdict { decision, shadow: None, log }, "{rbac:?}");
    }
    let none = rbac(None, None);
    assert_eq!(verdict(&none, &call.facts()), Verdict { decision: allow, shadow: None, log: false });
}

#[test]
fn metadata_of_the_route() {
    let call = call();
    for (source, wanted, invert, holds) in [
        (MetadataSource::Route, true, false, true),
        (MetadataSource::Route, false, false, false),
        (MetadataSource::Route, false, true, true),
        // absent: only an inverted rule matches, as in Envoy
        (MetadataSource::Dynamic, true, false, false),
        (MetadataSource::Dynamic, true, true, true),
    ] {
        let matcher = ValueMatcher::Bool(wanted);
        let rule = MetadataMatcher { source, filter: "x".into(), path: vec!["k".into()], matcher, invert };
        assert_eq!(permits(&Permission::Metadata(rule.clone()), &call.facts()), holds, "{rule:?}");
        assert_eq!(is(&Principal::Metadata(rule.clone()), &call.facts()), holds, "{rule:?}");
    }
    assert!(!permits(&Permission::UpstreamAddress, &call.facts()));
    assert!(!is(&Principal::FilterState, &call.facts()));
}

/// mtls_authenticated looks at names of one kind, whatever others the certificate has.
#[test]
fn a_validated_certificate_and_its_names() {
    let mut call = call();
    let san = |kind, matcher| Principal::MtlsAuthenticated(Some(SanMatcher { kind: Some(kind), matcher }));
    for (principal, holds) in [
        (Principal::MtlsAuthenticated(None), true),
        (san(SanKind::Uri, exact(ORDERS)), true),
        (san(SanKind::Uri, exact("orders.prod")), false),
        (san(SanKind::Dns, exact("orders.prod")), true),
        (san(SanKind::Dns, exact("Orders.PROD")), true),
        (san(SanKind::Uri, exact(&ORDERS.to_uppercase())), false),
        (san(SanKind::Dns, exact("a.orders.example")), true),
        (san(SanKind::Dns, exact("a.b.orders.example")), false),
        (san(SanKind::Ip, exact("10.1.0.7")), true),
        (san(SanKind::Ip, exact("10.1.0.70")), false),
        (san(SanKind::Email, StringMatcher::Any), false),
    ] {
        assert_eq!(is(&principal, &call.facts()), holds, "{principal:?}");
    }
    call.verified = false;
    assert!(!is(&Principal::MtlsAuthenticated(None), &call.facts()));
}

/// A field sent twice is no way past a rule that denies one of its values (Envoy: rbac_match_headers_individually).
#[test]
fn a_repeated_header_is_still_denied() {
    let rule = policy("admins", Permission::Header(header("x-role", "admin")), Principal::Any);
    let rbac = rbac(Some((RbacAction::Deny, vec![rule])), None);
    let mut call = call();
    call.head.fields.append(b"x-role", b"user").unwrap();
    assert_eq!(verdict(&rbac, &call.facts()).policy(), Some("admins"));
}

#[test]
fn a_policy_needs_one_of_each() {
    let call = call();
    let both = RbacPolicy {
        name: "p".into(),
        permissions: vec![not(Permission::Any), Permission::Any],
        principals: vec![Principal::Not(Box::new(Principal::Any)), Principal::Any],
    };
    assert!(policy_matches(&both, &call.facts()));
    assert!(!policy_matches(&RbacPolicy { principals: vec![], ..both.clone() }, &call.facts()));
    assert!(!policy_matches(&RbacPolicy { permissions: vec![], ..both }, &call.facts()));
}

#[test]
fn shadow_rules_are_counted_and_not_enforced() {
    let call = call();
    let rbac = rbac(None, Some((RbacAction::Allow, vec![])));
    let verdict = verdict(&rbac, &call.facts());
    assert!(verdict.is_allowed());
    assert_eq!((verdict.shadow_allowed(), verdict.policy()), (Some(false), None));
}

/// mission.md: "payments may call ledger; nothing else may", "A may call B's /read only".
#[test]
fn the_policies_of_the_story() {
    let rule = policy(
        "orders-read",
        Permission::And(vec![
            Permission::UrlPath(exact("/read")),
            Permission::Header(header(":method", "GET")),
        ]),
        Principal::Authenticated(Some(exact(ORDERS))),
    );
    let rbac = rbac(Some((RbacAction::Allow, vec![rule])), None);
    let mut call = call();
    assert!(verdict(&rbac, &call.facts()).is_allowed());
    call.head.set_path(b"/write").unwrap();
    assert!(!verdict(&rbac, &call.facts()).is_allowed());
    call.head.set_path(b"/read").unwrap();
    call.uri_sans = vec!["spiffe://cluster.local/ns/prod/sa/other".into()];
    assert!(!verdict(&rbac, &call.facts()).is_allowed());
}
