//! Stand-ins until the traffic crate has these; not for landing.
pub mod chains {
    use corelane_snapshot::{FilterChain, Listener, TransportProtocol};
    use std::{net::SocketAddr, sync::Arc};
    pub struct ConnectionFacts<'a> {
        pub destination: SocketAddr,
        pub source: SocketAddr,
        pub direct_source: SocketAddr,
        pub server_name: Option<&'a str>,
        pub transport: Option<TransportProtocol>,
        pub application_protocols: &'a [Vec<u8>],
    }
    pub fn pick_chain<'l>(listener: &'l Listener, _: &ConnectionFacts<'_>) -> Option<&'l Arc<FilterChain>> {
        listener.chains.first().or(listener.default_chain.as_ref())
    }
}
pub mod deadline {
    use corelane_http::RequestHead;
    use corelane_snapshot::{Forward, RetryPolicy};
    use std::time::Duration;
    pub struct Limits {
        pub timeout: Option<Duration>,
        pub per_try_timeout: Option<Duration>,
    }
    pub fn effective(action: &Forward, retry: Option<&RetryPolicy>, _: &RequestHead, _: bool) -> Limits {
        Limits { timeout: action.timeout, per_try_timeout: retry.and_then(|retry| retry.per_try_timeout) }
    }
}
