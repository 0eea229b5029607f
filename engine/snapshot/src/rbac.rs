//! envoy.config.rbac.v3.RBAC: rules over who calls (principals) and what is called (permissions).

use crate::{Cidr, HeaderMatcher, MetadataMatcher, SanMatcher, StatBlock, StringMatcher};

#[derive(Debug)]
pub struct Rbac {
    /// None: everything passes (RBAC filter without rules).
    pub rules: Option<RbacRules>,
    /// Counted, never enforced.
    pub shadow_rules: Option<RbacRules>,
    /// Apart where the rules have a prefix of their own; families of one table, so that either name indexes.
    pub stats: StatBlock,
    pub shadow_stats: StatBlock,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RbacRules {
    pub action: RbacAction,
    /// Sorted by name, as Envoy's map is evaluated; the first that matches names the verdict.
    pub policies: Vec<RbacPolicy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RbacAction {
    Allow,
    Deny,
    Log,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RbacPolicy {
    pub name: String,
    /// Any one must match.
    pub permissions: Vec<Permission>,
    pub principals: Vec<Principal>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Permission {
    Any,
    And(Vec<Permission>),
    Or(Vec<Permission>),
    Not(Box<Permission>),
    Header(HeaderMatcher),
    /// PathMatcher or a URI template: the path without query and fragment.
    UrlPath(StringMatcher),
    DestinationIp(Cidr),
    DestinationPort(u16),
    /// The first and the last.
    DestinationPortRange(u16, u16),
    RequestedServerName(StringMatcher),
    Metadata(MetadataMatcher),
    /// The upstream's address, which none has when the rules are asked: matches nothing, as in Envoy where no filter
    /// before this one has chosen an upstream.
    UpstreamAddress,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Principal {
    Any,
    And(Vec<Principal>),
    Or(Vec<Principal>),
    Not(Box<Principal>),
    /// `authenticated`: a verified peer certificate, whose URI SAN, else DNS SAN, else subject matches; None: any.
    Authenticated(Option<StringMatcher>),
    DirectRemoteIp(Cidr),
    RemoteIp(Cidr),
    /// source_ip, deprecated by Envoy: the direct peer unless rewritten by a filter.
    SourceIp(Cidr),
    Header(HeaderMatcher),
    UrlPath(StringMatcher),
    Metadata(MetadataMatcher),
    /// An object that no filter here stores: matches nothing, an inverted address match neither.
    FilterState,
    /// envoy.extensions.rbac.principals.mtls_authenticated.v3: a validated certificate, with such a name; None: any.
    MtlsAuthenticated(Option<SanMatcher>),
}
