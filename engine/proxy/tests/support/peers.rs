//! Scripted peers on loopback: a client that reads messages one by one, an upstream that follows a script.

use super::PATIENCE;
use corelane_snapshot::{BackOff, OutlierDetection, RetryOn, RetryPolicy};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

/// A client that reads messages one by one.
pub struct Client {
    pub stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    pub fn of(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Client { stream, read: Vec::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("send");
    }

    /// More bytes; false at the end of the stream.
    pub fn more(&mut self) -> bool {
        self.try_read().expect("read") > 0
    }

    fn try_read(&mut self) -> std::io::Result<usize> {
        let mut chunk = [0; 65536];
        loop {
            match self.stream.read(&mut chunk) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => {
                    let n = read?;
                    self.read.extend_from_slice(&chunk[..n]);
                    return Ok(n);
                }
            }
        }
    }

    pub fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = self.read.drain(..end + 4).collect();
                return String::from_utf8(head).expect("head");
            }
            assert!(self.more(), "connection ended within a head: {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    pub fn exactly(&mut self, n: usize) -> Vec<u8> {
        while self.read.len() < n {
            assert!(self.more(), "connection ended {} bytes early", n - self.read.len());
        }
        self.read.drain(..n).collect()
    }

    pub fn read_to_end(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.read)
    }

    fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.read.drain(..end + 2).collect();
                return String::from_utf8_lossy(&line[..end]).into_owned();
            }
            assert!(self.more(), "connection ended within a line");
        }
    }

    pub fn chunked(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let size =
                usize::from_str_radix(self.line().split(';').next().unwrap_or(""), 16).expect("chunk size");
            if size == 0 {
                while !self.line().is_empty() {}
                return body;
            }
            body.extend(self.exactly(size));
            self.exactly(2);
        }
    }

    /// A whole response.
    pub fn answer(&mut self) -> Answer {
        let head = self.head();
        let status = head[9..12].parse().expect("status");
        let mut answer = Answer { status, head, body: Vec::new() };
        answer.body = match (answer.field("content-length"), answer.field("transfer-encoding")) {
            _ if status == 101 || status == 204 || status == 304 => Vec::new(),
            (Some(length), _) => self.exactly(length.parse().expect("length")),
            (_, Some(_)) => self.chunked(),
            _ => self.read_to_end(),
        };
        answer
    }

    /// Nothing waits to be read.
    pub fn peek_is_empty(&self) -> bool {
        self.stream.set_nonblocking(true).expect("nonblocking");
        let peeked = self.stream.peek(&mut [0; 1]);
        self.stream.set_nonblocking(false).expect("blocking");
        peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// The status of an answer that may break off; None: not even that.
    pub fn try_answer(&mut self) -> Option<u16> {
        while self.read.len() < 12 && self.try_more() {}
        std::str::from_utf8(self.read.get(9..12)?).ok()?.parse().ok()
    }

    /// A whole request: its head and body.
    pub fn request(&mut self) -> (String, Vec<u8>) {
        let head = self.head();
        let answer = Answer { status: 0, head: head.clone(), body: Vec::new() };
        let body = match (answer.field("content-length"), answer.field("transfer-encoding")) {
            (Some(length), _) => self.exactly(length.parse().expect("length")),
            (_, Some(_)) => self.chunked(),
            _ => Vec::new(),
        };
        (head, body)
    }

    pub fn half_close(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("shutdown");
    }

    /// Ends with a reset.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("linger");
    }
}

/// A scripted upstream: each accepted connection is served by `script(number, client)` on a thread of its own.
pub struct Upstream {
    pub address: SocketAddr,
    _thread: JoinHandle<()>,
}

impl Upstream {
    pub fn start(script: impl Fn(usize, Client) + Send + Sync + 'static) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let script = Arc::new(script);
        let thread = std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { return };
                let script = script.clone();
                std::thread::spawn(move || script(number, Client::of(stream)));
            }
        });
        Upstream { address, _thread: thread }
    }

    /// Answers every request on every connection like this, until the peer ends.
    pub fn answering(answer: impl Fn(&str, &[u8]) -> String + Send + Sync + 'static) -> Upstream {
        Upstream::start(move |_, mut client| {
            loop {
                if client.read.is_empty() && !client.try_more() {
                    return;
                }
                let (head, body) = client.request();
                if client.stream.write_all(answer(&head, &body).as_bytes()).is_err() {
                    return;
                }
            }
        })
    }
}

impl Client {
    /// What comes until the stream ends, in whichever way.
    pub fn read_to_end_or_reset(&mut self) -> Vec<u8> {
        while self.try_more() {}
        std::mem::take(&mut self.read)
    }

    /// Whether a byte of a next message is there, or comes before the end.
    pub fn waiting(&mut self) -> bool {
        !self.read.is_empty() || self.try_more()
    }

    /// More bytes; false at the end of the stream or a reset.
    pub fn try_more(&mut self) -> bool {
        self.try_read().is_ok_and(|n| n > 0)
    }
}

pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

pub fn outlier() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: 5,
        enforcing_consecutive_5xx: 100,
        consecutive_gateway_failure: 5,
        enforcing_consecutive_gateway_failure: 0,
        split_external_local_origin_errors: false,
        consecutive_local_origin_failure: 5,
        enforcing_consecutive_local_origin_failure: 100,
        enforcing_local_origin_success_rate: 100,
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_time: Duration::from_secs(300),
        max_ejection_time_jitter: Duration::ZERO,
        max_ejection_percent: None,
        always_eject_one_host: false,
        success_rate_minimum_hosts: 5,
        success_rate_request_volume: 100,
        success_rate_stdev_factor: 1900,
        enforcing_success_rate: 100,
        failure_percentage_threshold: 85,
        enforcing_failure_percentage: 0,
        enforcing_failure_percentage_local_origin: 0,
        failure_percentage_minimum_hosts: 5,
        failure_percentage_request_volume: 50,
        successful_active_health_check_uneject_host: true,
    }
}

/// The policy of the story: `connect-failure,5xx,reset`, two retries, 250 ms a try.
pub fn policy() -> RetryPolicy {
    RetryPolicy {
        on: RetryOn::CONNECT_FAILURE.with(RetryOn::SERVER_ERROR).with(RetryOn::RESET),
        retries_max: 2,
        per_try_timeout: Some(Duration::from_millis(250)),
        per_try_idle_timeout: None,
        retriable_status_codes: Vec::new(),
        retriable_headers: Vec::new(),
        retriable_request_headers: Vec::new(),
        back_off: BackOff { base: Duration::from_millis(1), max: Duration::from_millis(2) },
        avoid_previous_hosts: false,
        omit_canary_hosts: false,
        host_selection_attempts_max: 1,
        avoid_previous_priorities: None,
    }
}

impl super::Proxy {
    /// How often a histogram of the cluster was written, and the sum of what was, in its unit.
    pub fn cluster_records(&self, stat: corelane_telemetry::ClusterStat) -> (u64, u64) {
        let block = corelane_telemetry::Block::from_raw(self.cluster().config.stats.cluster.0);
        let records = self.registry.histogram(block, stat);
        (records.count(), records.sum / 1_000)
    }
}
