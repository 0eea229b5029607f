//! HTTP/2 clients and servers over the h2 crate and tokio, on threads of their own.
#![allow(dead_code)]

use super::support::PATIENCE;
use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{self, SendRequest},
    server::{self, SendResponse},
};
use http::{HeaderMap, Request, Response};
use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    rc::Rc,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, LocalSet, spawn_local},
};

/// Runs a client's side to its end, within patience.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(
        LocalSet::new().run_until(async {
            tokio::time::timeout(PATIENCE, work).await.expect("the test takes too long")
        }),
    )
}

pub struct H2Client {
    pub requests: SendRequest<Bytes>,
    /// Ends with the connection.
    pub connection: JoinHandle<Result<(), h2::Error>>,
}

impl H2Client {
    pub async fn connect(address: SocketAddr) -> H2Client {
        H2Client::with(address, &client::Builder::new()).await
    }

    pub async fn with(address: SocketAddr, settings: &client::Builder) -> H2Client {
        let stream = TcpStream::connect(address).await.expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        let (requests, connection) = settings.handshake(stream).await.expect("handshake");
        H2Client { requests, connection: spawn_local(connection) }
    }

    pub async fn send(&self, request: Request<()>, end: bool) -> (client::ResponseFuture, SendStream<Bytes>) {
        self.requests.clone().ready().await.expect("ready").send_request(request, end).expect("send")
    }

    pub async fn get(&self, path: &str) -> Whole {
        let (response, _) = self.send(get(path), true).await;
        whole(response.await.expect("response")).await
    }

    /// Sends a body in pieces, as flow control allows, while the answer is read.
    pub async fn post(&self, request: Request<()>, body: Vec<u8>, trailers: Option<HeaderMap>) -> Whole {
        let (response, stream) = self.send(request, false).await;
        let sending = spawn_local(send_all(stream, body, trailers));
        let answer = whole(response.await.expect("response")).await;
        sending.await.expect("sender").expect("sent");
        answer
    }
}

pub fn get(path: &str) -> Request<()> {
    Request::builder().uri(format!("http://payments{path}")).body(()).expect("request")
}

pub fn post(path: &str) -> Request<()> {
    Request::builder().method("POST").uri(format!("http://payments{path}")).body(()).expect("request")
}

/// A message with all that belongs to it.
#[derive(Debug)]
pub struct Whole {
    pub status: u16,
    pub fields: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
}

impl Whole {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|value| value.to_str().expect("text"))
    }
}

pub async fn whole(response: Response<RecvStream>) -> Whole {
    let (parts, mut body) = response.into_parts();
    let bytes = read_all(&mut body).await.expect("body");
    let trailers = body.trailers().await.expect("trailers").unwrap_or_default();
    Whole { status: parts.status.as_u16(), fields: parts.headers, body: bytes, trailers }
}

pub async fn read_all(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        bytes.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len())?;
    }
    Ok(bytes)
}

/// Sends in pieces of odd size.
pub async fn send_all(
    mut stream: SendStream<Bytes>,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
) -> Result<(), h2::Error> {
    let mut body = Bytes::from(body);
    while !body.is_empty() {
        stream.reserve_capacity(body.len().min(7_777));
        if stream.capacity() == 0 {
            poll_fn(|context| stream.poll_capacity(context)).await.ok_or(h2::Reason::CANCEL)??;
        }
        let room = stream.capacity();
        stream.send_data(body.split_to(room.min(body.len())), false)?;
    }
    match trailers {
        Some(trailers) => stream.send_trailers(trailers),
        None => stream.send_data(Bytes::new(), true),
    }
}

/// An HTTP/2 upstream: each connection is served by `script(number, socket)`.
pub struct H2Upstream {
    pub address: SocketAddr,
    _thread: std::thread::JoinHandle<()>,
}

impl H2Upstream {
    pub fn scripted<F, Fut>(script: F) -> H2Upstream
    where
        F: Fn(usize, TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let (bound, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(LocalSet::new().run_until(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
                bound.send(listener.local_addr().expect("address")).expect("test waits");
                for number in 0.. {
                    let Ok((stream, _)) = listener.accept().await else { return };
                    stream.set_nodelay(true).expect("nodelay");
                    spawn_local(script(number, stream));
                }
            }));
        });
        H2Upstream { address: address.recv_timeout(PATIENCE).expect("upstream"), _thread: thread }
    }

    /// Serves every stream of every connection like this.
    pub fn answering<F, Fut>(settings: server::Builder, answer: F) -> H2Upstream
    where
        F: Fn(usize, Request<RecvStream>, SendResponse<Bytes>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let answer = std::sync::Arc::new(answer);
        H2Upstream::scripted(move |number, stream| {
            let (settings, answer) = (settings.clone(), answer.clone());
            async move {
                let Ok(mut connection) = settings.handshake(stream).await else { return };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    spawn_local(answer(number, request, respond));
                }
            }
        })
    }
}

pub fn settings() -> server::Builder {
    server::Builder::new()
}

/// 200 with this body.
pub async fn answer_with(mut respond: SendResponse<Bytes>, body: impl Into<Vec<u8>>) {
    let stream = respond.send_response(Response::new(()), false).expect("head");
    // a proxy that has lost interest is no failure of the upstream
    let _ = send_all(stream, body.into(), None).await;
}

pub fn trailers(fields: &[(&'static str, &str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().expect("value")))
        .collect()
}

/// Something a test may hold for as long as it wants.
pub type Shared<T> = Rc<T>;
