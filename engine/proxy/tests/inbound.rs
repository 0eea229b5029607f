//! The way in ends before the way out: Istio's agent asks for it (`/drain_listeners?inboundonly`) when a pod is to go.

mod support;

use corelane_snapshot::TrafficDirection;
use std::net::TcpStream;
use support::{Drained, Setup, Upstream, ok};

#[test]
fn inbound_listeners_stop_and_others_go_on() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    for direction in [TrafficDirection::Inbound, TrafficDirection::Outbound, TrafficDirection::Unspecified] {
        let mut setup = Setup::to(&[upstream.address]);
        setup.listener = match direction {
            TrafficDirection::Inbound => |listener| listener.direction = TrafficDirection::Inbound,
            TrafficDirection::Outbound => |listener| listener.direction = TrafficDirection::Outbound,
            TrafficDirection::Unspecified => |_| {},
        };
        let proxy = setup.start();
        let mut client = proxy.connect();
        let mut ask = || {
            client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            client.answer().status
        };
        assert_eq!(ask(), 200);
        // a configuration that is followed later brings none back
        let reconciled = proxy.on_core(|worker| {
            worker.stop_accepting(Drained::Inbound);
            worker.reconcile().is_ok()
        });
        assert!(reconciled);
        if direction == TrafficDirection::Inbound {
            proxy.until("nobody listens", || TcpStream::connect(proxy.address).is_err());
        } else {
            assert_eq!(proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status, 200);
        }
        assert_eq!(ask(), 200, "who is connected goes on");
    }
}
