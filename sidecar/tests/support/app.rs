//! A scripted upstream: an HTTP/1.1 server, a thread a connection, that does to each request what the test says.

use super::{
    WITHIN,
    message::{Head, read_body},
};
use socket2::SockRef;
use std::{
    collections::HashMap,
    io::{BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

/// A request as the app got it.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    pub path: String,
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Counted from 1 over all connections.
    pub number: u64,
    /// Which connection brought it, counted from 1.
    pub connection: u64,
}

/// What becomes of a request.
pub enum Answer {
    Reply {
        status: u16,
        fields: Vec<(&'static str, String)>,
        body: Vec<u8>,
    },
    /// These bytes, then the next request.
    Bytes(Vec<u8>),
    /// These bytes, then a clean close.
    BytesThenClose(Vec<u8>),
    /// These bytes, then a reset.
    BytesThenReset(Vec<u8>),
    /// The script takes the connection over.
    Takeover(Box<dyn FnOnce(TcpStream) + Send>),
}

impl Answer {
    pub fn ok(body: impl Into<Vec<u8>>) -> Answer {
        Answer::status(200, body)
    }

    pub fn status(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer::Reply { status, fields: Vec::new(), body: body.into() }
    }

    pub fn reset() -> Answer {
        Answer::BytesThenReset(Vec::new())
    }
}

type Script = dyn Fn(&Received) -> Answer + Send + Sync;

pub struct App {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    script: Box<Script>,
    /// Answer before the body is read.
    early: bool,
    requests: AtomicU64,
    connections: AtomicU64,
    stopped: AtomicBool,
    open: Mutex<HashMap<u64, TcpStream>>,
}

impl App {
    pub fn start(script: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> App {
        App::listen("127.0.0.1:0", Box::new(script), false)
    }

    pub fn start_on(address: &str, script: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> App {
        App::listen(address, Box::new(script), false)
    }

    /// Looks at heads only: bodies are left unread, or to the script that takes over.
    pub fn start_early(script: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> App {
        App::listen("127.0.0.1:0", Box::new(script), true)
    }

    fn listen(address: &str, script: Box<Script>, early: bool) -> App {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared {
            script,
            early,
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.stopped.load(SeqCst) {
                    return;
                }
                let shared = accepting.clone();
                std::thread::spawn(move || serve(&shared, stream));
            }
        });
        App { address, shared }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn requests(&self) -> u64 {
        self.shared.requests.load(SeqCst)
    }

    pub fn connections(&self) -> u64 {
        self.shared.connections.load(SeqCst)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.shared.stopped.store(true, SeqCst);
        for (_, stream) in self.shared.open.lock().expect("no script panics with it").drain() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        // wakes the accepting thread, which sees that it has been stopped
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

fn serve(shared: &Shared, stream: TcpStream) {
    let connection = shared.connections.fetch_add(1, SeqCst) + 1;
    let _ = stream.set_nodelay(true);
    let handle = stream.try_clone().expect("another handle");
    shared.open.lock().expect("no script panics with it").insert(connection, handle);
    converse(shared, stream, connection);
    shared.open.lock().expect("no script panics with it").remove(&connection);
}

fn converse(shared: &Shared, stream: TcpStream, connection: u64) {
    let mut reader = BufReader::new(stream.try_clone().expect("another handle"));
    let mut stream = stream;
    while let Ok(Some(head)) = Head::read(&mut reader) {
        let body = if shared.early { Ok(Default::default()) } else { read_body(&mut reader, &head, false) };
        let Ok((body, trailers)) = body else { return };
        let mut words = head.first.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let number = shared.requests.fetch_add(1, SeqCst) + 1;
        let received = Received { method, path, head, body, trailers, number, connection };
        let written = match (shared.script)(&received) {
            Answer::Reply { status, fields, body } => stream.write_all(&reply(status, &fields, &body)),
            Answer::Bytes(bytes) => stream.write_all(&bytes),
            Answer::BytesThenClose(bytes) => return drop(stream.write_all(&bytes)),
            Answer::BytesThenReset(bytes) => {
                let _ = stream.write_all(&bytes);
                return reset(stream);
            }
            Answer::Takeover(takeover) => {
                let _ = stream.set_read_timeout(Some(WITHIN));
                assert!(reader.buffer().is_empty(), "the script would miss bytes that were read ahead");
                return takeover(stream);
            }
        };
        if written.is_err() {
            return;
        }
    }
}

fn reply(status: u16, fields: &[(&'static str, String)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status} Scripted\r\ncontent-length: {}\r\n", body.len()).into_bytes();
    for (name, value) in fields {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// Closes with RST in place of FIN: what a peer sees of a process that was killed.
pub fn reset(stream: TcpStream) {
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    // every other handle of the socket must be gone for the close to happen; shutting down would send FIN first
    drop(stream);
}

/// Reads until the peer ends its side.
pub fn drain(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    bytes
}
