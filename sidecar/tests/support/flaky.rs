//! A relay in front of a real endpoint that can be told to flap: from then on it resets what is open, and each new
//! connection as soon as the peer has said something, which for TLS is in the middle of the handshake.

use super::app::reset;
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

pub struct Flaky {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    target: SocketAddr,
    flapping: AtomicBool,
    stopped: AtomicBool,
    resets: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

impl Flaky {
    pub fn before(target: SocketAddr) -> Flaky {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("a bound socket");
        let state = Arc::new(State {
            target,
            flapping: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            resets: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let accepting = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.stopped.load(SeqCst) {
                    return;
                }
                let state = accepting.clone();
                std::thread::spawn(move || state.serve(stream));
            }
        });
        Flaky { address, state }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn flap(&self) {
        self.state.flapping.store(true, SeqCst);
        self.state.cut();
    }

    pub fn recover(&self) {
        self.state.flapping.store(false, SeqCst);
    }

    /// Connections that were reset after the peer had begun to speak.
    pub fn resets(&self) -> u64 {
        self.state.resets.load(SeqCst)
    }
}

impl Drop for Flaky {
    fn drop(&mut self) {
        self.state.stopped.store(true, SeqCst);
        self.state.cut();
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

impl State {
    /// Ends what is open; the threads that copy see it and let go.
    fn cut(&self) {
        for stream in self.open.lock().expect("nobody panics with it").drain(..) {
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            let _ = stream.shutdown(Shutdown::Read);
        }
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut first = [0; 1024];
        let Ok(count) = stream.read(&mut first) else { return };
        if count == 0 {
            return;
        }
        if self.flapping.load(SeqCst) {
            self.resets.fetch_add(1, SeqCst);
            return reset(stream);
        }
        let Ok(mut onward) = TcpStream::connect(self.target) else { return reset(stream) };
        let (Ok(cut), Ok(mut back), Ok(mut from)) =
            (stream.try_clone(), stream.try_clone(), onward.try_clone())
        else {
            return;
        };
        let _ = (stream.set_nodelay(true), onward.set_nodelay(true));
        self.open.lock().expect("nobody panics with it").push(cut);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let _ = std::io::copy(&mut from, &mut back);
                // a stream that was cut ends by a reset, once its last handle is gone
                if !self.flapping.load(SeqCst) {
                    let _ = back.shutdown(Shutdown::Write);
                }
            });
            if onward.write_all(&first[..count]).is_ok() {
                let _ = std::io::copy(&mut stream, &mut onward);
            }
            let _ = onward.shutdown(Shutdown::Both);
        });
    }
}
