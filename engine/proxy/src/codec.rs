//! Which HTTP a connection speaks: by configuration, by ALPN, or by its first bytes.

use crate::{
    link::Link,
    race::{First, race},
    state::CoreState,
    upstream::roomier,
};
use corelane_http::sniff::HTTP2_PREFACE;
use corelane_runtime::{Buf, Nanos};
use corelane_snapshot::{Codec, HttpConnectionManager};
use corelane_telemetry::{Block, HttpStat};

/// The codec, with what was read to find out.
pub(crate) enum Chosen {
    Http1(Option<Buf>),
    Http2(Option<Buf>),
    /// Nothing came within the idle timeout, or before the end of a drain.
    Silent,
}

pub(crate) async fn choose(
    state: &CoreState,
    link: &Link,
    hcm: &HttpConnectionManager,
    first: Option<Buf>,
) -> Chosen {
    match hcm.codec {
        Codec::Http1 => Chosen::Http1(first),
        Codec::Http2 => Chosen::Http2(first),
        Codec::Auto => match link.conn.tls().and_then(|tls| tls.alpn()) {
            Some(b"h2") => Chosen::Http2(first),
            Some(b"http/1.1" | b"http/1.0") => Chosen::Http1(first),
            // Istio's own names, or no ALPN: the preface tells
            _ => state.core.frames().place(by_preface(state, link, hcm, first)).await,
        },
    }
}

/// RFC 9113 section 3.4: "In HTTP/2, each endpoint is required to send a connection preface"; no HTTP/1 request
/// begins like the client's. An end or an error is left to the HTTP/1 codec, which meets it again.
async fn by_preface(
    state: &CoreState,
    link: &Link,
    hcm: &HttpConnectionManager,
    mut first: Option<Buf>,
) -> Chosen {
    let mut began = false;
    loop {
        let seen = first.as_ref().map_or(&[][..], Buf::filled);
        let compared = seen.len().min(HTTP2_PREFACE.len());
        if seen[..compared] != HTTP2_PREFACE[..compared] {
            return Chosen::Http1(first);
        }
        if compared == HTTP2_PREFACE.len() {
            return Chosen::Http2(first);
        }
        if !began {
            began = !seen.is_empty();
            // a part of a preface is a request that has begun
            let stream = hcm.stream_idle_timeout.filter(|_| began);
            link.deadline.arm(stream.or(hcm.idle_timeout).map_or(Nanos::MAX, |limit| state.now() + limit));
        }
        let more = async {
            match first.take() {
                None => link.conn.read_parking(&state.core, state.shared.limits.park_after).await.ok(),
                Some(buf) => {
                    let (read, buf) = link.conn.read(roomier(state, buf)).await;
                    matches!(read, Ok(1..)).then_some(buf)
                }
            }
        };
        let waited =
            race(link.deadline.expired(), state.drain.over_unasked(&state.shared, link.id, &link.conn));
        match race(more, waited).await {
            First::Left(Some(buf)) if !buf.is_empty() => first = Some(buf),
            // a part of a preface and no more is no request either
            First::Left(_) => return Chosen::Http1(None),
            First::Right(why) => {
                let stat = match why {
                    First::Left(()) => HttpStat::DownstreamCxIdleTimeout,
                    First::Right(()) => HttpStat::DownstreamCxDrainClose,
                };
                let http = Block::from_raw(hcm.stats.http.0);
                state.shard.inc(http, HttpStat::DownstreamCxTotal);
                state.shard.inc(http, stat);
                state.shard.inc(http, HttpStat::DownstreamCxDestroy);
                state.shard.inc(http, HttpStat::DownstreamCxDestroyLocal);
                return Chosen::Silent;
            }
        }
    }
}
