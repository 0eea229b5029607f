//! TCP on a core: streams, connecting, listening, and the socket options that interception needs.

pub(crate) mod burst;
mod connect;
mod listener;
mod operation;
mod option;
mod parking;
mod tcp;

pub use connect::{ConnectOptions, Keepalive};
pub use listener::{Accepted, ListenOptions, Listener, is_exhaustion};
pub use tcp::{PeerState, TcpStream};
