//! The real binary, real sockets, real peers. Runs on the driver that CORELANE_TEST_DRIVER names, else on the default.

#[path = "../support/mod.rs"]
mod support;

mod hop;

// the demo is a test too
#[path = "../../demo/caller.rs"]
mod caller;
#[path = "../../demo/story.rs"]
mod story;
#[path = "../../demo/topology.rs"]
mod topology;

mod admin;
mod bad_input;
mod configuration;
mod http1;
mod http2;
mod interception;
mod listener;
mod mtls;
mod policy;
mod resilience;
mod rotation;
mod shutdown;

mod tcp;
mod upgrade;
