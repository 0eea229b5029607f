//! The codecs that take requests in: each turns bytes into requests for `exchange`, one at a time (HTTP/1.1) or
//! many at once (HTTP/2).

pub(crate) mod h1;
pub(crate) mod h2;

use crate::{link::Link, state::CoreState};
use corelane_telemetry::{Block, HttpStat};

/// Counts that hold while an HTTP connection is open, and what its end adds.
pub(crate) struct Counted<'a> {
    state: &'a CoreState,
    link: &'a Link,
    http: Block<HttpStat>,
    active: [HttpStat; 2],
}

impl<'a> Counted<'a> {
    /// `by_codec`: the codec's own total and gauge.
    pub fn opened(
        state: &'a CoreState,
        link: &'a Link,
        http: Block<HttpStat>,
        by_codec: (HttpStat, HttpStat),
    ) -> Self {
        let shard = &state.shard;
        shard.inc(http, HttpStat::DownstreamCxTotal);
        shard.inc(http, by_codec.0);
        let active = [HttpStat::DownstreamCxActive, by_codec.1];
        for gauge in active {
            shard.gauge_add(http, gauge, 1);
        }
        if link.conn.tls().is_some() {
            shard.inc(http, HttpStat::DownstreamCxSslTotal);
            shard.gauge_add(http, HttpStat::DownstreamCxSslActive, 1);
        }
        Counted { state, link, http, active }
    }

    /// `busy`: with a request under way.
    pub fn closed(self, by_peer: bool, busy: bool) {
        let Counted { state, link, http, active } = self;
        let shard = &state.shard;
        for gauge in active {
            shard.gauge_sub(http, gauge, 1);
        }
        if link.conn.tls().is_some() {
            shard.gauge_sub(http, HttpStat::DownstreamCxSslActive, 1);
        }
        let (destroyed, with_request) = match by_peer {
            true => (HttpStat::DownstreamCxDestroyRemote, HttpStat::DownstreamCxDestroyRemoteActiveRq),
            false => (HttpStat::DownstreamCxDestroyLocal, HttpStat::DownstreamCxDestroyLocalActiveRq),
        };
        shard.inc(http, HttpStat::DownstreamCxDestroy);
        shard.inc(http, destroyed);
        if busy {
            shard.inc(http, HttpStat::DownstreamCxDestroyActiveRq);
            shard.inc(http, with_request);
        }
        let lived = state.now().since(link.accepted);
        shard.record(http, HttpStat::DownstreamCxLengthMs, lived.as_micros() as u64);
    }
}
