//! The backend's event loop: accept, delay, stop, and one [`Connection`] per slot.

use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    sync::Arc,
    time::Duration,
};

use rustls::ServerConfig;

use super::{
    BackendOptions, Counters, Mode, ResetAt, Served,
    connection::{Connection, Next, Response, Shared},
    h2::H2Thread,
};
use crate::{
    Error,
    arrivals::Random,
    clock::Clock,
    machine,
    poller::{Poller, READY_MAX},
    tls,
    transport::{self, Transport},
};

/// Connections open at once; further ones wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 50_000;
/// Connections accepted before others get their turn.
const ACCEPT_MAX: usize = 64;
/// Pause of the accept loop when descriptors have run out.
const ACCEPT_PAUSE_NS: u64 = 10_000_000;
const LISTENER: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;

pub fn serve(
    options: &BackendOptions,
    stop: UnixStream,
    counters: Arc<Counters>,
    on_ready: impl FnOnce(SocketAddr),
) -> Result<Served, Error> {
    if !(0.0..=1.0).contains(&options.reset_probability) || !(200..=599).contains(&options.status) {
        return Err(Error::usage(
            "backend: expected a reset probability of 0 to 1 and a status of 200 to 599",
        ));
    }
    machine::settle(options.cpu)?;
    let listener = transport::listen(options.listen)
        .map_err(|e| Error::io(format!("listening on {}", options.listen), e))?;
    let address = listener.local_addr().map_err(|e| Error::io("reading the bound address", e))?;
    let mut server = Server::new(options, listener, counters)?;
    server.poller.add_listener(&stop, STOP).map_err(|e| Error::io("watching the stop pipe", e))?;
    on_ready(address);
    server.run()?;
    Ok(server.shared.counters.served())
}

struct Slot {
    connection: Option<Connection>,
    /// Tells an event or a delayed answer for an earlier tenant from one for this.
    generation: u32,
}

struct Server<'a> {
    options: &'a BackendOptions,
    poller: Poller,
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Answers held back by `--delay`; the delay is one, so the order of arrival is the order of leaving.
    delayed: VecDeque<(u64, u64)>,
    shared: Shared<'a>,
    h2: H2Thread,
    clock: Clock,
    accept_paused_until: Option<u64>,
}

impl<'a> Server<'a> {
    fn new(
        options: &'a BackendOptions,
        listener: TcpListener,
        counters: Arc<Counters>,
    ) -> Result<Self, Error> {
        let alpn: &[&[u8]] = if options.mode == Mode::Http { &[b"h2", b"http/1.1"] } else { &[] };
        let poller = Poller::new().map_err(|e| Error::io("creating an epoll", e))?;
        poller.add_listener(&listener, LISTENER).map_err(|e| Error::io("watching the listener", e))?;
        Ok(Server {
            options,
            poller,
            listener,
            tls: tls::server_config(&options.tls, alpn)?,
            slots: Vec::new(),
            free: Vec::new(),
            delayed: VecDeque::new(),
            shared: Shared {
                options,
                response: Response::new(options),
                counters: counters.clone(),
                random: Random::new(options.seed),
                scratch: vec![0; 64 * 1024],
            },
            h2: H2Thread::new(options, counters),
            clock: Clock::start(),
            accept_paused_until: None,
        })
    }

    fn run(&mut self) -> Result<(), Error> {
        let ends = self.options.lifetime.as_nanos() as u64;
        let mut ready = Vec::with_capacity(READY_MAX);
        loop {
            let now = self.clock.now_ns();
            if now >= ends {
                return Ok(());
            }
            self.answer_delayed(now);
            self.resume_accepting(now)?;
            let until = [Some(ends), self.delayed.front().map(|held| held.0), self.accept_paused_until];
            let until = until.into_iter().flatten().min().unwrap_or(ends);
            let timeout = Duration::from_nanos(until.saturating_sub(now));
            self.poller.wait(Some(timeout), &mut ready).map_err(|e| Error::io("waiting on epoll", e))?;
            for event in &ready {
                match event.token {
                    STOP => return Ok(()),
                    LISTENER => self.accept()?,
                    token => {
                        let Some(connection) = self.tenant(token) else { continue };
                        connection.woken(event.ended());
                        self.advance(token);
                    }
                }
            }
        }
    }

    fn tenant(&mut self, token: u64) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(token as u32 as usize)?;
        if slot.generation == (token >> 32) as u32 { slot.connection.as_mut() } else { None }
    }

    fn accept(&mut self) -> Result<(), Error> {
        for _ in 0..ACCEPT_MAX {
            if self.slots.len() - self.free.len() >= CONNECTIONS_MAX {
                return self.pause_accepting();
            }
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                // out of descriptors: the level-triggered listener would spin
                Err(_) => return self.pause_accepting(),
            };
            Counters::add(&self.shared.counters.connections);
            let prepared = socket.set_nonblocking(true).and_then(|()| socket.set_nodelay(true));
            if prepared.is_err() {
                continue;
            }
            let transport = match &self.tls {
                None => Transport::plain(socket),
                Some(config) => Transport::tls(socket, rustls::ServerConnection::new(config.clone())?),
            };
            if self.options.reset_at == ResetAt::Accept && self.shared.toss() {
                transport.reset();
                continue;
            }
            self.settle(transport).map_err(|e| Error::io("watching a connection", e))?;
        }
        Ok(())
    }

    fn settle(&mut self, transport: Transport) -> io::Result<()> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { connection: None, generation: 0 });
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        self.poller.add_stream(&transport, u64::from(slot.generation) << 32 | u64::from(index))?;
        slot.connection = Some(Connection::new(transport));
        Ok(())
    }

    fn pause_accepting(&mut self) -> Result<(), Error> {
        self.poller.remove(&self.listener).map_err(|e| Error::io("pausing the listener", e))?;
        self.accept_paused_until = Some(self.clock.now_ns() + ACCEPT_PAUSE_NS);
        Ok(())
    }

    fn resume_accepting(&mut self, now: u64) -> Result<(), Error> {
        if self.accept_paused_until.is_some_and(|until| now >= until) {
            self.accept_paused_until = None;
            self.poller
                .add_listener(&self.listener, LISTENER)
                .map_err(|e| Error::io("watching the listener", e))?;
        }
        Ok(())
    }

    fn answer_delayed(&mut self, now: u64) {
        while let Some(&(due, token)) = self.delayed.front() {
            if due > now {
                return;
            }
            self.delayed.pop_front();
            if let Some(connection) = self.tenant(token) {
                connection.released();
                self.advance(token);
            }
        }
    }

    fn advance(&mut self, token: u64) {
        let index = token as u32 as usize;
        let Some(connection) = self.slots[index].connection.as_mut() else { return };
        match connection.advance(&mut self.shared) {
            Next::Wait => {}
            Next::Delay => {
                self.delayed.push_back((self.clock.now_ns() + self.options.delay.as_nanos() as u64, token));
            }
            Next::Close => self.vacate(index, |connection| connection.transport.close()),
            Next::Reset => {
                Counters::add(&self.shared.counters.resets);
                self.vacate(index, |connection| connection.transport.reset());
            }
            Next::Http2 => {
                let slot = &mut self.slots[index];
                if let Some(connection) = slot.connection.take() {
                    // the descriptor lives on elsewhere, so closing does not unregister it
                    let _ = self.poller.remove(&connection.transport);
                    self.h2.hand_over(connection.transport, connection.input);
                }
                self.release(index);
            }
        }
    }

    fn vacate(&mut self, index: usize, how: impl FnOnce(Connection)) {
        if let Some(connection) = self.slots[index].connection.take() {
            how(connection);
        }
        self.release(index);
    }

    fn release(&mut self, index: usize) {
        self.slots[index].generation = self.slots[index].generation.wrapping_add(1) & 0x7fff_ffff;
        self.free.push(index as u32);
    }
}
