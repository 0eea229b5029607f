//! A blocking HTTP/1.1 client that sends exactly the bytes it is told, over TCP or TLS.

use super::{Response, WITHIN};
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use std::{
    io::{self, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
};

pub struct Client {
    stream: BufReader<Stream>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

#[derive(Clone)]
pub struct Request {
    pub method: &'static str,
    pub path: String,
    pub host: String,
    pub fields: Vec<(&'static str, String)>,
    pub body: Option<Vec<u8>>,
}

impl Request {
    pub fn new(method: &'static str, path: &str) -> Request {
        Request { method, path: path.to_owned(), host: "payments".to_owned(), fields: Vec::new(), body: None }
    }

    pub fn get(path: &str) -> Request {
        Request::new("GET", path)
    }

    pub fn post(path: &str, body: impl Into<Vec<u8>>) -> Request {
        Request { body: Some(body.into()), ..Request::new("POST", path) }
    }

    pub fn field(mut self, name: &'static str, value: impl Into<String>) -> Request {
        self.fields.push((name, value.into()));
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes =
            format!("{} {} HTTP/1.1\r\nhost: {}\r\n", self.method, self.path, self.host).into_bytes();
        for (name, value) in &self.fields {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if let Some(body) = &self.body {
            bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        Client::try_connect(address).expect("the listener takes connections")
    }

    pub fn try_connect(address: SocketAddr) -> io::Result<Client> {
        dial(address).map(|stream| Client { stream: BufReader::new(Stream::Plain(stream)) })
    }

    /// Handshakes at once, so that a refusal shows here.
    pub fn connect_tls(address: SocketAddr, config: Arc<ClientConfig>) -> io::Result<Client> {
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, dial(address)?);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Client { stream: BufReader::new(Stream::Tls(Box::new(stream))) })
    }

    /// One request, one answer; for requests that are expected to get one.
    pub fn call(&mut self, request: &Request) -> Response {
        self.try_call(request).unwrap_or_else(|error| panic!("{} {}: {error}", request.method, request.path))
    }

    pub fn try_call(&mut self, request: &Request) -> io::Result<Response> {
        self.try_send(&request.bytes())?;
        self.try_read(request.method)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer"))
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the connection takes bytes");
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(bytes)?;
        stream.flush()
    }

    /// The next answer, which may be a 1xx one.
    pub fn read(&mut self, method: &str) -> Response {
        self.try_read(method).expect("a well-formed answer").expect("an answer")
    }

    pub fn try_read(&mut self, method: &str) -> io::Result<Option<Response>> {
        Response::read(&mut self.stream, method)
    }

    pub fn read_exact(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).expect("that many bytes");
        bytes
    }

    /// Everything up to the peer's end of stream.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).map(|_| bytes)
    }

    /// Says that nothing more will be sent; answers still arrive.
    pub fn half_close(&mut self) {
        match self.stream.get_mut() {
            Stream::Plain(stream) => stream.shutdown(Shutdown::Write).expect("a half close"),
            Stream::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush().expect("a close_notify");
            }
        }
    }

    /// The server's leaf certificate.
    pub fn peer_certificate(&self) -> &[u8] {
        match self.stream.get_ref() {
            Stream::Plain(_) => panic!("not a TLS connection"),
            Stream::Tls(stream) => &stream.conn.peer_certificates().expect("the handshake is over")[0],
        }
    }

    pub fn tcp(&self) -> &TcpStream {
        match self.stream.get_ref() {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => &stream.sock,
        }
    }
}

fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.set_write_timeout(Some(WITHIN))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(into),
            Stream::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}
