//! HTTP/2 connections of the backend, on a tokio thread that starts with the first of them.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response};
use tokio::{runtime, sync::mpsc, task::LocalSet};

use super::{BackendOptions, Counters, ResetAt};
use crate::{arrivals::Random, async_transport::AsyncTransport, transport::Transport};

/// Connections on their way to the thread.
const HANDOVER_MAX: usize = 1_024;
const STREAMS_MAX: u32 = 1_000;
const WINDOW_BYTES: u32 = 1 << 20;

type Handover = (Transport, Vec<u8>);

pub struct H2Thread {
    behaviour: Behaviour,
    counters: Arc<Counters>,
    cpu: Option<usize>,
    sender: Option<mpsc::Sender<Handover>>,
}

#[derive(Clone)]
struct Behaviour {
    status: u16,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    delay: Duration,
    reset_probability: f64,
    seed: u64,
}

impl H2Thread {
    pub fn new(options: &BackendOptions, counters: Arc<Counters>) -> Self {
        let resets = matches!(options.reset_at, ResetAt::Request | ResetAt::Body);
        let headers = options.headers.iter().filter_map(|(name, value)| {
            Some((HeaderName::try_from(name.as_str()).ok()?, HeaderValue::try_from(value.as_str()).ok()?))
        });
        H2Thread {
            behaviour: Behaviour {
                status: options.status,
                headers: headers.collect(),
                body: Bytes::from(vec![b'y'; options.body_bytes]),
                delay: options.delay,
                reset_probability: if resets { options.reset_probability } else { 0.0 },
                seed: options.seed,
            },
            counters,
            cpu: options.cpu,
            sender: None,
        }
    }

    /// Takes a connection whose preface is in `prefix`, or whose ALPN chose h2. Drops it when too many wait.
    pub fn hand_over(&mut self, transport: Transport, prefix: Vec<u8>) {
        let sender = self.sender.get_or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(HANDOVER_MAX);
            let (behaviour, counters, cpu) = (self.behaviour.clone(), self.counters.clone(), self.cpu);
            std::thread::spawn(move || {
                if crate::machine::settle(cpu).is_ok() {
                    serve_all(receiver, &behaviour, &counters);
                }
            });
            sender
        });
        if sender.try_send((transport, prefix)).is_err() {
            Counters::add(&self.counters.malformed);
        }
    }
}

fn serve_all(mut receiver: mpsc::Receiver<Handover>, behaviour: &Behaviour, counters: &Arc<Counters>) {
    let Ok(runtime) = runtime::Builder::new_current_thread().enable_all().build() else { return };
    // ends, and drops every connection, when the server lets go of the sender
    LocalSet::new().block_on(&runtime, async {
        let mut seed = behaviour.seed;
        while let Some((transport, prefix)) = receiver.recv().await {
            seed = seed.wrapping_add(1);
            let (behaviour, counters) = (behaviour.clone(), counters.clone());
            tokio::task::spawn_local(async move {
                if serve_one(transport, prefix, behaviour, &counters, seed).await.is_err() {
                    Counters::add(&counters.malformed);
                }
            });
        }
    });
}

async fn serve_one(
    transport: Transport,
    prefix: Vec<u8>,
    behaviour: Behaviour,
    counters: &Arc<Counters>,
    seed: u64,
) -> Result<(), h2::Error> {
    let io = AsyncTransport::new(transport, prefix)
        .map_err(|_: io::Error| h2::Error::from(h2::Reason::INTERNAL_ERROR))?;
    let mut connection = h2::server::Builder::new()
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES * 16)
        .max_concurrent_streams(STREAMS_MAX)
        .handshake::<_, Bytes>(io)
        .await?;
    let mut random = Random::new(seed);
    while let Some(request) = connection.accept().await {
        let (request, mut respond) = request?;
        if behaviour.reset_probability > 0.0 && random.unit() < behaviour.reset_probability {
            Counters::add(&counters.resets);
            respond.send_reset(h2::Reason::INTERNAL_ERROR);
            continue;
        }
        let (behaviour, counters) = (behaviour.clone(), counters.clone());
        tokio::task::spawn_local(async move {
            // the peer may reset the stream at any time; the next one is unaffected
            if answer(request.into_body(), respond, &behaviour).await.is_ok() {
                Counters::add(&counters.answered);
            }
        });
    }
    Ok(())
}

async fn answer(
    mut body: h2::RecvStream,
    mut respond: h2::server::SendResponse<Bytes>,
    behaviour: &Behaviour,
) -> Result<(), h2::Error> {
    while let Some(piece) = body.data().await {
        body.flow_control().release_capacity(piece?.len())?;
    }
    if !behaviour.delay.is_zero() {
        tokio::time::sleep(behaviour.delay).await;
    }
    let mut response = Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(behaviour.status).unwrap_or(http::StatusCode::OK);
    response.headers_mut().extend(behaviour.headers.iter().cloned());
    response.headers_mut().insert(http::header::CONTENT_LENGTH, behaviour.body.len().into());
    let mut stream = respond.send_response(response, behaviour.body.is_empty())?;
    if !behaviour.body.is_empty() {
        stream.send_data(behaviour.body.clone(), true)?;
    }
    Ok(())
}
