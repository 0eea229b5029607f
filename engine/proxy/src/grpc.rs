//! What is counted of gRPC calls (envoy.filters.http.grpc_stats).

use crate::state::CoreState;
use corelane_http::{RequestHead, Version};
use corelane_snapshot::{ClusterId, GrpcStats};
use corelane_telemetry::{Block, ClusterGrpcStat, Outcome};
use corelane_traffic::matching;

/// One call that is counted, from its head on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// Number of the method, where it is counted by itself.
    method: Option<u32>,
    upstream_time: bool,
    /// Once one is chosen; what never got so far is not counted.
    pub cluster: Option<ClusterId>,
    pub answered_messages: u64,
}

impl Call {
    /// None: no gRPC, or a path that is no `/service/method`.
    pub fn of(stats: &GrpcStats, head: &RequestHead) -> Option<Call> {
        // HTTP/1.1 pays nothing
        if head.version != Version::H2 || !matching::is_grpc(head) {
            return None;
        }
        let path = head.path();
        let mut parts = path.split(|byte| *byte == b'/');
        let (before, service, method) = (parts.next()?, parts.next()?, parts.next()?);
        if !before.is_empty() || service.is_empty() || method.is_empty() || parts.next().is_some() {
            return None;
        }
        Some(Call {
            method: stats.methods.get(path).copied(),
            upstream_time: stats.upstream_time,
            cluster: None,
            answered_messages: 0,
        })
    }

    /// At the call's end.
    pub fn count(&self, state: &CoreState, outcome: &Outcome, asked_messages: u64) {
        let Some(cluster) = self.cluster else { return };
        let shard = &state.shard;
        let block = Block::from_raw(state.pin().grpc.of(cluster, self.method).0);
        shard.add(block, ClusterGrpcStat::RequestMessageCount, asked_messages);
        shard.add(block, ClusterGrpcStat::ResponseMessageCount, self.answered_messages);
        if let Some(status) = outcome.grpc_status {
            if let Some(stat) = ClusterGrpcStat::of_status(status) {
                shard.inc(block, stat);
            }
            let result = if status == 0 { ClusterGrpcStat::Success } else { ClusterGrpcStat::Failure };
            shard.inc(block, result);
            shard.inc(block, ClusterGrpcStat::Total);
        }
        if let Some(upstream) = outcome.timings.upstream().filter(|_| self.upstream_time) {
            shard.record(block, ClusterGrpcStat::UpstreamRqTime, upstream / 1_000);
        }
    }
}

/// Counts messages as their bytes go by: gRPC over HTTP/2, "Length-Prefixed-Message": a byte of flags, four of length
/// in network order, then that many bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Messages {
    pub count: u64,
    /// Bytes of the next prefix that have come, and their value so far.
    prefix: u8,
    length: u32,
    /// Bytes of the message that are still to come.
    rest: u32,
}

const PREFIX_BYTES: u8 = 5;

impl Messages {
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let [first, ..] = bytes {
            if self.rest > 0 {
                let taken = bytes.len().min(self.rest as usize);
                self.rest -= taken as u32;
                bytes = &bytes[taken..];
                continue;
            }
            // the first byte is flags
            self.length = if self.prefix == 0 { 0 } else { self.length << 8 | u32::from(*first) };
            self.prefix += 1;
            bytes = &bytes[1..];
            if self.prefix == PREFIX_BYTES {
                self.count += 1;
                (self.prefix, self.rest) = (0, self.length);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let mut bytes = Vec::new();
        for length in [0u32, 3, 300, 1] {
            bytes.push(1);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend(std::iter::repeat_n(0xff, length as usize));
        }
        for piece in [1, 2, 7, bytes.len()] {
            let mut messages = Messages::default();
            bytes.chunks(piece).for_each(|piece| messages.feed(piece));
            assert_eq!((messages.count, messages.rest, messages.prefix), (4, 0, 0), "{piece}");
        }
    }

    #[test]
    fn only_a_service_and_its_method_are_a_call() {
        let stats =
            GrpcStats { methods: [(b"/pay.Pay/Charge".as_slice().into(), 7)].into(), upstream_time: false };
        let call = |path: &str, kind: &str| {
            let mut head = RequestHead::new();
            head.version = Version::H2;
            head.set_method(b"POST").expect("method");
            head.set_path(path.as_bytes()).expect("path");
            head.fields.append(b"content-type", kind.as_bytes()).expect("field");
            Call::of(&stats, &head).map(|call| call.method)
        };
        assert_eq!(call("/pay.Pay/Charge", "application/grpc+proto"), Some(Some(7)));
        assert_eq!(call("/pay.Pay/Refund", "application/grpc"), Some(None));
        assert_eq!(call("/pay.Pay/Charge", "application/json"), None);
        for path in ["/pay.Pay", "//Charge", "/a/b/c", "/"] {
            assert_eq!(call(path, "application/grpc"), None, "{path}");
        }
    }
}
