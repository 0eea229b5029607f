//! `backend`: answers at once, from prebuilt bytes, on one thread; misbehaves when told to.

mod connection;
mod h2;
mod server;

use std::{
    io::Write,
    net::SocketAddr,
    os::unix::net::UnixStream,
    sync::atomic::{AtomicU64, Ordering},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use serde::Serialize;

use crate::{Error, machine, tls::ServerTls};

/// What is spoken on the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// HTTP/1.1, and HTTP/2 by prior knowledge or ALPN.
    Http,
    /// Sends every byte back.
    Echo,
    /// Reads and forgets.
    Discard,
}

/// The moment at which a connection chosen by `reset_probability` is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ResetAt {
    /// At accept, before a byte is read.
    Accept,
    /// When the first bytes have arrived: under TLS, in the middle of the handshake.
    Handshake,
    /// When a whole request has been read, before any byte of the answer.
    Request,
    /// When half of the answer is written.
    Body,
}

#[derive(Debug, Clone)]
pub struct BackendOptions {
    /// Port 0 lets the kernel choose.
    pub listen: SocketAddr,
    pub mode: Mode,
    pub body_bytes: usize,
    pub status: u16,
    /// Added to every response.
    pub headers: Vec<(String, String)>,
    pub delay: Duration,
    pub reset_probability: f64,
    pub reset_at: ResetAt,
    pub seed: u64,
    /// Closes a connection after so many answers; 0 never does.
    pub close_after: u64,
    pub cpu: Option<usize>,
    pub tls: ServerTls,
    /// The backend ends by itself after this long.
    pub lifetime: Duration,
}

impl Default for BackendOptions {
    fn default() -> Self {
        BackendOptions {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            mode: Mode::Http,
            body_bytes: 1024,
            status: 200,
            headers: Vec::new(),
            delay: Duration::ZERO,
            reset_probability: 0.0,
            reset_at: ResetAt::Request,
            seed: 1,
            close_after: 0,
            cpu: None,
            tls: ServerTls::default(),
            lifetime: Duration::from_secs(600),
        }
    }
}

/// What a backend has done, in counts.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Served {
    pub connections: u64,
    /// Requests answered, or echo messages' reads.
    pub answered: u64,
    /// Connections (HTTP/2: streams) reset on purpose.
    pub resets: u64,
    /// Connections dropped for bytes that are not HTTP, or a failed handshake.
    pub malformed: u64,
}

#[derive(Default)]
struct Counters {
    connections: AtomicU64,
    answered: AtomicU64,
    resets: AtomicU64,
    malformed: AtomicU64,
}

impl Counters {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn served(&self) -> Served {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Served {
            connections: read(&self.connections),
            answered: read(&self.answered),
            resets: read(&self.resets),
            malformed: read(&self.malformed),
        }
    }
}

/// A backend on a thread of its own, for tests and demos in one process.
pub struct Backend {
    address: SocketAddr,
    stop: UnixStream,
    thread: JoinHandle<Result<Served, Error>>,
    counters: Arc<Counters>,
}

impl Backend {
    /// Listens, then returns; connections are accepted from here on.
    pub fn start(options: BackendOptions) -> Result<Self, Error> {
        let (stop, stopped) = UnixStream::pair().map_err(|e| Error::io("creating a stop pipe", e))?;
        let (ready, address) = mpsc::channel();
        let counters = Arc::new(Counters::default());
        let shared = counters.clone();
        let thread = std::thread::spawn(move || {
            server::serve(&options, stopped, shared, |address| {
                // whoever started this thread waits for the address, or has gone
                let _ = ready.send(address);
            })
        });
        match address.recv() {
            Ok(address) => Ok(Backend { address, stop, thread, counters }),
            Err(_) => match thread.join() {
                Ok(Err(error)) => Err(error),
                _ => Err(Error::usage("the backend ended before it listened")),
            },
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Counts so far.
    pub fn served(&self) -> Served {
        self.counters.served()
    }

    /// Closes everything and returns the final counts.
    pub fn stop(mut self) -> Result<Served, Error> {
        // when it has ended by itself there is nobody to tell
        let _ = self.stop.write_all(b"x");
        self.thread.join().map_err(|_| Error::usage("the backend panicked"))?
    }
}

/// Serves on this thread until SIGTERM, SIGINT or the lifetime's end. `on_ready` gets the bound address.
pub fn serve(options: &BackendOptions, on_ready: impl FnOnce(SocketAddr)) -> Result<Served, Error> {
    let stop = machine::stop_signal()?;
    server::serve(options, stop, Arc::new(Counters::default()), on_ready)
}
