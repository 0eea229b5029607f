//! The optional stages between routing and forwarding, in the order in which they act: RBAC, local rate limit,
//! fault, CORS. A stage that is not configured costs the look at an Option.

use crate::{
    exchange::{LocalReply, Request},
    link::Link,
    record::Record,
    state::CoreState,
};
use corelane_snapshot::{HttpConnectionManager, Route, RouteTable, VirtualHost};
use std::net::IpAddr;

#[allow(clippy::too_many_arguments)]
pub(crate) fn before_routing(
    _state: &CoreState,
    _link: &Link,
    _hcm: &HttpConnectionManager,
    _table: &RouteTable,
    _host: &VirtualHost,
    _route: &Route,
    _client: IpAddr,
    _request: &mut Request<'_>,
    _record: &mut Record,
) -> Result<(), Box<LocalReply>> {
    Ok(())
}
