//! The first route of a virtual host that matches a request.

use super::{header, path, query};
use corelane_http::{Fields, Known, Method, RequestHead};
use corelane_snapshot::{Route, VirtualHost};
use std::sync::Arc;

/// What routes match on besides the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// The client sent a certificate (TlsContextMatchOptions).
    pub tls_presented: bool,
    /// It was verified.
    pub tls_validated: bool,
}

/// The route and its number, in configured order. `draw` (uniform over u64) decides runtime fractions: one draw for
/// all routes, as in Envoy.
pub fn route<'h>(
    host: &'h VirtualHost,
    head: &RequestHead,
    facts: &RequestFacts,
    draw: u64,
) -> Option<(usize, &'h Arc<Route>)> {
    let bare = head.path_without_query();
    let matches = |number: &usize| {
        host.routes.get(*number).is_some_and(|route| route_matches(route, head, bare, facts, draw))
    };
    let number = match &host.index {
        Some(index) => index.candidates(bare).find(matches),
        None => (0..host.routes.len()).find(matches),
    }?;
    Some((number, &host.routes[number]))
}

/// `path`: the head's, without query.
pub fn route_matches(
    route: &Route,
    head: &RequestHead,
    path: &[u8],
    facts: &RequestFacts,
    draw: u64,
) -> bool {
    let rules = &route.matches;
    path::matches(&rules.path, path, head.method() == Method::Connect)
        && rules.fraction.is_none_or(|fraction| fraction.selects(draw))
        && (!rules.grpc || is_grpc(head))
        && rules.tls_presented.is_none_or(|presented| presented == facts.tls_presented)
        && rules.tls_validated.is_none_or(|validated| validated == facts.tls_validated)
        && header::all_match(&rules.headers, head)
        && (rules.query.is_empty() || {
            let sent = head.query();
            rules.query.iter().all(|matcher| query::matches(matcher, sent))
        })
}

/// gRPC over HTTP/2: `Content-Type: application/grpc [("+proto" / "+json" / {custom})]`.
pub fn is_grpc(head: &RequestHead) -> bool {
    is_grpc_message(&head.fields)
}

/// By the head of a request or an answer.
pub fn is_grpc_message(fields: &Fields) -> bool {
    let kind = fields.get(Known::ContentType).unwrap_or_default();
    kind.strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}
