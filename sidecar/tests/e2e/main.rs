//! The real binary, real sockets, real peers. Runs on the driver that CORELANE_TEST_DRIVER names, else on the default.

#[path = "../support/mod.rs"]
mod support;

mod hop;

// the demo is a test too, but for its staying up
#[path = "../../demo/caller.rs"]
mod caller;
#[allow(dead_code)]
#[path = "../../demo/story.rs"]
mod story;
#[allow(dead_code)]
#[path = "../../demo/topology.rs"]
mod topology;

mod admin;
mod bad_input;
mod configuration;
mod conformance;
mod grpc;
mod http1;
mod http2;
mod inbound;
mod interception;
mod listener;
mod mtls;
mod policy;
mod resilience;
mod rotation;
mod shutdown;
mod tcp;
mod upgrade;
