//! Role-based access control (envoy.config.rbac.v3.RBAC): may this peer do this? The rules are walked as they are;
//! nothing is allocated and nothing is looked up twice.
//!
//! The answer is safe by construction: what is not known about a request (no head on a TCP connection, no
//! certificate, no metadata) matches no rule about it.

mod san;

use crate::matching::{header, metadata};
use corelane_http::RequestHead;
use corelane_snapshot::{
    Metadata, MetadataMatcher, MetadataSource, Permission, Principal, Rbac, RbacAction, RbacPolicy,
    RbacRules, StringMatcher,
};
use std::net::{IpAddr, SocketAddr};

/// What a request or connection is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// None: a connection, not a request.
    pub head: Option<&'a RequestHead>,
    /// Where the client meant to go.
    pub destination: SocketAddr,
    /// Who holds the socket.
    pub direct_source: SocketAddr,
    /// Who the PROXY protocol says it is; else the same.
    pub source: SocketAddr,
    /// Who x-forwarded-for says it is, as far as it is trusted; else the source.
    pub remote: IpAddr,
    /// SNI.
    pub server_name: Option<&'a str>,
    /// Of a verified certificate only.
    pub peer: Option<Peer<'a>>,
    /// Of the route that was chosen.
    pub route_metadata: Option<&'a Metadata>,
}

/// The verified peer's names.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer<'a> {
    pub uri_sans: &'a [String],
    pub dns_sans: &'a [String],
    pub ip_sans: &'a [IpAddr],
    pub email_sans: &'a [String],
    /// RFC 2253 text.
    pub subject: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'r> {
    Allow,
    /// `policy`: the one that denies; None: no policy allows.
    Deny {
        policy: Option<&'r str>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'r> {
    /// What is enforced.
    pub decision: Decision<'r>,
    /// What the shadow rules would do; None: there are none.
    pub shadow: Option<Decision<'r>>,
    /// A LOG rule matched (`access_log_hint`).
    pub log: bool,
}

impl<'r> Verdict<'r> {
    pub fn is_allowed(&self) -> bool {
        self.decision == Decision::Allow
    }

    pub fn shadow_allowed(&self) -> Option<bool> {
        self.shadow.map(|decision| decision == Decision::Allow)
    }

    /// The policy that denies, where one does.
    pub fn policy(&self) -> Option<&'r str> {
        match self.decision {
            Decision::Deny { policy } => policy,
            Decision::Allow => None,
        }
    }
}

pub fn verdict<'r>(rbac: &'r Rbac, facts: &Facts<'_>) -> Verdict<'r> {
    let enforced = rbac.rules.as_ref().map(|rules| judge(rules, facts));
    let log = |judged: &(Decision<'_>, bool)| judged.1;
    Verdict {
        decision: enforced.map_or(Decision::Allow, |judged| judged.0),
        shadow: rbac.shadow_rules.as_ref().map(|rules| judge(rules, facts).0),
        log: enforced.as_ref().is_some_and(log),
    }
}

/// The decision, and whether a LOG rule matched.
fn judge<'r>(rules: &'r RbacRules, facts: &Facts<'_>) -> (Decision<'r>, bool) {
    let matched = rules.policies.iter().find(|policy| policy_matches(policy, facts));
    match (rules.action, matched) {
        (RbacAction::Allow, Some(_)) => (Decision::Allow, false),
        (RbacAction::Allow, None) => (Decision::Deny { policy: None }, false),
        (RbacAction::Deny, Some(policy)) => (Decision::Deny { policy: Some(&policy.name) }, false),
        (RbacAction::Deny, None) => (Decision::Allow, false),
        (RbacAction::Log, matched) => (Decision::Allow, matched.is_some()),
    }
}

fn policy_matches(policy: &RbacPolicy, facts: &Facts<'_>) -> bool {
    policy.permissions.iter().any(|permission| permits(permission, facts))
        && policy.principals.iter().any(|principal| is(principal, facts))
}

fn permits(permission: &Permission, facts: &Facts<'_>) -> bool {
    match permission {
        Permission::Any => true,
        Permission::And(all) => all.iter().all(|permission| permits(permission, facts)),
        Permission::Or(any) => any.iter().any(|permission| permits(permission, facts)),
        Permission::Not(not) => !permits(not, facts),
        Permission::Header(matcher) => has_header(matcher, facts),
        Permission::UrlPath(matcher) => has_path(matcher, facts),
        Permission::DestinationIp(range) => range.contains(facts.destination.ip()),
        Permission::DestinationPort(port) => facts.destination.port() == *port,
        Permission::DestinationPortRange(first, last) => (*first..=*last).contains(&facts.destination.port()),
        // Envoy: without SNI the name is empty, and a rule may match that
        Permission::RequestedServerName(matcher) => {
            matcher.matches(facts.server_name.unwrap_or("").as_bytes())
        }
        Permission::Metadata(matcher) => has_metadata(matcher, facts),
        Permission::UpstreamAddress => false,
    }
}

fn is(principal: &Principal, facts: &Facts<'_>) -> bool {
    match principal {
        Principal::Any => true,
        Principal::And(all) => all.iter().all(|principal| is(principal, facts)),
        Principal::Or(any) => any.iter().any(|principal| is(principal, facts)),
        Principal::Not(not) => !is(not, facts),
        Principal::Authenticated(matcher) => is_authenticated(matcher.as_ref(), facts.peer.as_ref()),
        Principal::DirectRemoteIp(range) => range.contains(facts.direct_source.ip()),
        Principal::RemoteIp(range) => range.contains(facts.remote),
        Principal::SourceIp(range) => range.contains(facts.source.ip()),
        Principal::Header(matcher) => has_header(matcher, facts),
        Principal::UrlPath(matcher) => has_path(matcher, facts),
        Principal::Metadata(matcher) => has_metadata(matcher, facts),
        Principal::FilterState => false,
        Principal::MtlsAuthenticated(san) => {
            facts.peer.is_some_and(|peer| san.as_ref().is_none_or(|san| san::accepts(san, &peer)))
        }
    }
}

fn has_header(matcher: &corelane_snapshot::HeaderMatcher, facts: &Facts<'_>) -> bool {
    facts.head.is_some_and(|head| header::matches_request(matcher, head))
}

/// No filter here leaves dynamic metadata for the rules to ask for: only an inverted rule matches what is absent.
fn has_metadata(matcher: &MetadataMatcher, facts: &Facts<'_>) -> bool {
    let source = match matcher.source {
        MetadataSource::Dynamic => None,
        MetadataSource::Route => facts.route_metadata,
    };
    metadata::matches(matcher, source)
}

fn has_path(matcher: &StringMatcher, facts: &Facts<'_>) -> bool {
    facts.head.is_some_and(|head| matcher.matches(head.path_without_query()))
}

/// Envoy: "the URI SAN or DNS SAN in that order is used from the certificate, otherwise the subject field". Any
/// one of the names of the first kind that is there may match.
fn is_authenticated(matcher: Option<&StringMatcher>, peer: Option<&Peer<'_>>) -> bool {
    let Some(peer) = peer else { return false };
    let Some(matcher) = matcher else { return true };
    let any = |names: &[String]| names.iter().any(|name| matcher.matches(name.as_bytes()));
    if !peer.uri_sans.is_empty() {
        return any(peer.uri_sans);
    }
    if !peer.dns_sans.is_empty() {
        return any(peer.dns_sans);
    }
    matcher.matches(peer.subject.as_bytes())
}

#[cfg(test)]
mod tests;
