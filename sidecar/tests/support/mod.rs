//! What end-to-end tests and the demo stand on: processes that end with their owner, bounded waits, a plain HTTP/1.1
//! client and scripted upstreams. It shares no code with the engine, so that both cannot be wrong in the same way.

// the demo needs a part of it
#![allow(dead_code, unused_imports)]

pub mod app;
pub mod client;
pub mod flaky;
pub mod identity;
pub mod message;
pub mod network;
pub mod process;
pub mod proxy;
pub mod skip;
pub mod template;
pub mod wait;

pub use app::{Answer, App, Received};
pub use client::{Client, Request};
pub use identity::{Identities, NAMESPACE_IDS};
pub use message::Response;
pub use network::NetworkNamespace;
pub use process::Process;
pub use proxy::{Kind, Proxy};
pub use template::fill;
pub use wait::{WITHIN, wait_for};
