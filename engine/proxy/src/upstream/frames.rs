//! The frames of one upstream HTTP/2 connection: what is agreed at its start, and the task that moves them to its end.

use super::streams::Usage;
use crate::{
    http2::{self, Chunk},
    poll_io::PollIo,
    pool::Of,
    state::CoreState,
};
use corelane_runtime::Nanos;
use corelane_snapshot::ClusterConfig;
use corelane_telemetry::{Block, ClusterStat};
use h2::client;
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::Poll,
};

/// Streams on a connection whose SETTINGS have not come yet (RFC 9113 section 6.5.2 recommends no less for a limit).
const FIRST_STREAMS_MAX: usize = 100;

pub(super) fn settings(config: &ClusterConfig) -> client::Builder {
    let mut settings = client::Builder::new();
    settings
        // RFC 9113 section 8.4: an intermediary need not take pushes, and this one has nowhere to put them
        .enable_push(false)
        .initial_max_send_streams(FIRST_STREAMS_MAX)
        .initial_window_size(config.http2.stream_window.min(http2::WINDOW_BYTES_MAX))
        .initial_connection_window_size(config.http2.connection_window.min(http2::WINDOW_BYTES_MAX))
        .max_header_list_size(super::RESPONSE_HEAD_BYTES_MAX as u32)
        .max_send_buffer_size(http2::SEND_BUFFER_BYTES_MAX)
        .max_concurrent_reset_streams(http2::RESETS_REMEMBERED_MAX)
        .reset_stream_duration(http2::RESETS_REMEMBERED_FOR)
        .max_local_error_reset_streams(Some(http2::ERROR_RESETS_MAX))
        .max_pending_accept_reset_streams(http2::PENDING_RESETS_MAX);
    settings
}

/// Moves the frames of one connection until it ends: by the peer, by an error, or, when it takes no more streams,
/// with the last of them. False: it was the peer who broke the protocol, and we who ended it.
pub(super) async fn drive(
    state: &Rc<CoreState>,
    config: &ClusterConfig,
    endpoint: Of,
    usage: &Rc<Usage>,
    opened: Nanos,
    mut frames: client::Connection<PollIo, Chunk>,
) -> bool {
    let block = Block::from_raw(config.stats.cluster.0);
    let deadline = state.core.timers().deadline();
    let idle = config.pool.idle_timeout;
    let old = config.pool.connection_duration_max.map(|max| opened + max);
    let mut leaving = false;
    loop {
        let now = state.now();
        if !leaving {
            let unused =
                idle.is_some_and(|max| usage.streams.get() == 0 && now.since(usage.idle_since.get()) >= max);
            let worn = old.is_some_and(|at| now >= at);
            if unused || worn {
                state.shard.inc(
                    block,
                    if unused {
                        ClusterStat::UpstreamCxIdleTimeout
                    } else {
                        ClusterStat::UpstreamCxMaxDurationReached
                    },
                );
                // nobody can open a stream any more: the last to end closes the connection
                state.streams.remove(endpoint, usage);
                leaving = true;
            }
        }
        let from = if usage.streams.get() > 0 { now } else { usage.idle_since.get() };
        let next = [idle.map(|max| from + max), old].into_iter().flatten().min().filter(|_| !leaving);
        deadline.arm(next.unwrap_or(Nanos::MAX));
        let ended = poll_fn(|context| {
            if let Poll::Ready(ended) = Pin::new(&mut frames).poll(context) {
                return Poll::Ready(Some(ended));
            }
            deadline.poll_expired(context).map(|()| None)
        })
        .await;
        if let Some(ended) = ended {
            let broken = ended.is_err_and(|error| error.is_library());
            if broken {
                state.shard.inc(block, ClusterStat::UpstreamCxProtocolError);
            }
            return !broken;
        }
    }
}
