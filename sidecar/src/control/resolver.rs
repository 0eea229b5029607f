//! Names to addresses, asynchronously, on the control thread. Every call asks the network: the refresh rate of the
//! cluster decides how old an answer may be, not a cache in between.

use corelane_snapshot::DnsFamily;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{op::ResponseCode, rr::RecordType},
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

/// Addresses taken from one answer; a longer one is cut.
pub const ADDRESSES_MAX: usize = 4096;

/// What a name stands for now. No address at all is an answer too: the name says that nothing is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub addresses: BTreeSet<IpAddr>,
    /// The shortest lifetime of the records; None: the answer came from the hosts file or was empty.
    pub ttl: Option<Duration>,
}

impl Answer {
    fn nothing() -> Answer {
        Answer { addresses: BTreeSet::new(), ttl: None }
    }
}

pub struct Resolver(TokioResolver);

impl Resolver {
    /// As /etc/resolv.conf and /etc/hosts say.
    ///
    /// # Errors
    /// They can't be read.
    pub fn system() -> Result<Resolver, String> {
        let (config, options) = hickory_resolver::system_conf::read_system_conf()
            .map_err(|e| format!("/etc/resolv.conf: cannot set up name resolution: {e}"))?;
        Resolver::with(config, options)
    }

    /// These servers instead of the system's; the system's search domains unless they are off.
    ///
    /// # Errors
    /// No resolver can be made of them.
    pub fn of(servers: &[SocketAddr], use_tcp: bool, no_search_domain: bool) -> Result<Resolver, String> {
        let (system, options) = hickory_resolver::system_conf::read_system_conf().unwrap_or_default();
        let (domain, search, system_servers) = system.into_parts();
        let named = |server: &SocketAddr| {
            let mut connection = if use_tcp { ConnectionConfig::tcp() } else { ConnectionConfig::udp() };
            connection.port = server.port();
            NameServerConfig::new(server.ip(), true, vec![connection])
        };
        let servers = if servers.is_empty() { system_servers } else { servers.iter().map(named).collect() };
        let (domain, search) = if no_search_domain { (None, Vec::new()) } else { (domain, search) };
        Resolver::with(ResolverConfig::from_parts(domain, search, servers), options)
    }

    /// # Errors
    /// The configuration names no usable server.
    pub fn with(config: ResolverConfig, mut options: ResolverOpts) -> Result<Resolver, String> {
        // our own schedule decides when to ask again
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Always;
        let built =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options);
        built.build().map(Resolver).map_err(|e| format!("cannot set up name resolution: {e}"))
    }

    /// Envoy's DnsLookupFamily: AUTO is IPv6 before IPv4, one family or the other, unless ALL asks for both.
    ///
    /// # Errors
    /// No server answered, or it answered with an error: what was known before should stay in use.
    pub async fn resolve(&self, name: &str, family: DnsFamily) -> Result<Answer, String> {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(Answer { addresses: BTreeSet::from([address]), ttl: None });
        }
        match family {
            DnsFamily::V4Only => self.lookup(name, RecordType::A).await,
            DnsFamily::V6Only => self.lookup(name, RecordType::AAAA).await,
            DnsFamily::Auto => self.first_of(name, RecordType::AAAA, RecordType::A).await,
            DnsFamily::V4Preferred => self.first_of(name, RecordType::A, RecordType::AAAA).await,
            DnsFamily::All => {
                let (v4, v6) =
                    tokio::join!(self.lookup(name, RecordType::A), self.lookup(name, RecordType::AAAA));
                both(v4, v6)
            }
        }
    }

    async fn first_of(&self, name: &str, first: RecordType, second: RecordType) -> Result<Answer, String> {
        let preferred = self.lookup(name, first).await;
        match &preferred {
            Ok(answer) if !answer.addresses.is_empty() => preferred,
            _ => {
                let other = self.lookup(name, second).await;
                // an answer of one family outweighs a failure of the other, an empty one does not
                if other.as_ref().is_ok_and(|answer| answer.addresses.is_empty()) {
                    preferred.and(other)
                } else {
                    other
                }
            }
        }
    }

    async fn lookup(&self, name: &str, kind: RecordType) -> Result<Answer, String> {
        let asked = Instant::now();
        match self.0.lookup(name, kind).await {
            Ok(found) => {
                let records = found.answers().iter().filter(|record| record.record_type() == kind);
                let ttl =
                    records.clone().map(|record| record.ttl).min().map(|ttl| Duration::from_secs(ttl.into()));
                // the hosts file has no lifetimes; the library fills in its longest
                let ttl = ttl.filter(|_| found.valid_until().saturating_duration_since(asked) < TTL_MAX);
                Ok(Answer {
                    addresses: records.filter_map(|r| r.data.ip_addr()).take(ADDRESSES_MAX).collect(),
                    ttl,
                })
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
            {
                Ok(Answer::nothing())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

/// RFC 2181, 8: a TTL is at most 2^31 - 1; what the library says for records without one is a day.
const TTL_MAX: Duration = Duration::from_secs(86_400);

/// One family's failure leaves the other's addresses; both failing is a failure.
fn both(v4: Result<Answer, String>, v6: Result<Answer, String>) -> Result<Answer, String> {
    match (v4, v6) {
        (Ok(mut v4), Ok(v6)) => {
            v4.addresses.extend(v6.addresses);
            v4.ttl = match (v4.ttl, v6.ttl) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            Ok(v4)
        }
        (Ok(one), Err(error)) | (Err(error), Ok(one)) => {
            if one.addresses.is_empty() {
                Err(error)
            } else {
                Ok(one)
            }
        }
        (Err(error), Err(_)) => Err(error),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use hickory_resolver::proto::{
        op::{Message, MessageType},
        rr::{RData, Record, rdata::A, rdata::AAAA},
    };
    use std::{
        collections::HashMap,
        net::{Ipv4Addr, UdpSocket},
        sync::{
            Arc, Mutex,
            atomic::{AtomicUsize, Ordering},
        },
    };

    /// What the test server says to a name.
    #[derive(Clone)]
    pub enum Say {
        Addresses(Vec<IpAddr>, u32),
        Code(ResponseCode),
    }

    /// A DNS server on a loopback socket; a thread of its own, ended by dropping it.
    pub struct Server {
        pub port: u16,
        pub zone: Arc<Mutex<HashMap<String, Say>>>,
        pub asked: Arc<AtomicUsize>,
        socket: UdpSocket,
        stop: Arc<std::sync::atomic::AtomicBool>,
        thread: Option<std::thread::JoinHandle<()>>,
    }

    impl Server {
        pub fn start() -> Server {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
            let port = socket.local_addr().expect("address").port();
            let zone: Arc<Mutex<HashMap<String, Say>>> = Arc::default();
            let asked = Arc::new(AtomicUsize::new(0));
            let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
            let thread = std::thread::spawn({
                let (socket, zone, asked, stop) =
                    (socket.try_clone().expect("clone"), zone.clone(), asked.clone(), stop.clone());
                move || serve(&socket, &zone, &asked, &stop)
            });
            Server { port, zone, asked, socket, stop, thread: Some(thread) }
        }

        pub fn say(&self, name: &str, say: Say) {
            self.zone.lock().expect("zone").insert(name.to_owned(), say);
        }

        pub fn resolver(&self) -> Resolver {
            let mut connection = ConnectionConfig::udp();
            connection.port = self.port;
            let server = NameServerConfig::new(Ipv4Addr::LOCALHOST.into(), true, vec![connection]);
            let mut options = ResolverOpts::default();
            options.attempts = 0;
            Resolver::with(ResolverConfig::from_name_servers(vec![server]), options).expect("resolver")
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.stop.store(true, Ordering::SeqCst);
            let _ = self.socket.send_to(&[], (Ipv4Addr::LOCALHOST, self.port));
            if let Some(thread) = self.thread.take() {
                let _ = thread.join();
            }
        }
    }

    fn serve(
        socket: &UdpSocket,
        zone: &Mutex<HashMap<String, Say>>,
        asked: &AtomicUsize,
        stop: &std::sync::atomic::AtomicBool,
    ) {
        let mut buffer = [0; 1500];
        loop {
            let (length, peer) = socket.recv_from(&mut buffer).expect("receive");
            if stop.load(Ordering::SeqCst) {
                return;
            }
            let query = Message::from_vec(&buffer[..length]).expect("query");
            asked.fetch_add(1, Ordering::SeqCst);
            let question = query.queries[0].clone();
            let name = question.name().to_ascii().trim_end_matches('.').to_owned();
            let say =
                zone.lock().expect("zone").get(&name).cloned().unwrap_or(Say::Code(ResponseCode::NXDomain));
            let mut response = Message::response(query.metadata.id, query.metadata.op_code);
            response.metadata.message_type = MessageType::Response;
            response.add_query(question.clone());
            match say {
                Say::Code(code) => response.metadata.response_code = code,
                Say::Addresses(addresses, ttl) => {
                    for address in addresses {
                        let data = match address {
                            IpAddr::V4(v4) => RData::A(A(v4)),
                            IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
                        };
                        if data.record_type() == question.query_type() {
                            response.add_answer(Record::from_rdata(question.name().clone(), ttl, data));
                        }
                    }
                }
            }
            socket.send_to(&response.to_vec().expect("encode"), peer).expect("send");
        }
    }

    fn addresses(list: &[&str]) -> BTreeSet<IpAddr> {
        list.iter().map(|text| text.parse().expect("address")).collect()
    }

    fn says(list: &[&str], ttl: u32) -> Say {
        Say::Addresses(addresses(list).into_iter().collect(), ttl)
    }

    #[tokio::test]
    async fn families_choose_as_envoy_does() {
        let server = Server::start();
        server.say("both.test", says(&["10.0.0.1", "fd00::1"], 30));
        server.say("four.test", says(&["10.0.0.4"], 30));
        let resolver = server.resolver();
        for (name, family, expected) in [
            ("both.test", DnsFamily::Auto, &["fd00::1"][..]),
            ("both.test", DnsFamily::V4Preferred, &["10.0.0.1"]),
            ("both.test", DnsFamily::V4Only, &["10.0.0.1"]),
            ("both.test", DnsFamily::V6Only, &["fd00::1"]),
            ("both.test", DnsFamily::All, &["10.0.0.1", "fd00::1"]),
            ("four.test", DnsFamily::Auto, &["10.0.0.4"]),
            ("four.test", DnsFamily::V6Only, &[]),
        ] {
            let answer = resolver.resolve(&format!("{name}."), family).await.expect("answer");
            assert_eq!(answer.addresses, addresses(expected), "{name} {family:?}");
        }
    }

    #[tokio::test]
    async fn every_call_asks_and_carries_the_lifetime() {
        let server = Server::start();
        server.say("payments.test", says(&["10.0.0.1"], 7));
        let resolver = server.resolver();
        for _ in 0..2 {
            let answer = resolver.resolve("payments.test.", DnsFamily::V4Only).await.expect("answer");
            assert_eq!(answer.ttl, Some(Duration::from_secs(7)));
        }
        assert_eq!(server.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn nothing_there_is_an_answer_and_a_broken_server_is_not() {
        let server = Server::start();
        server.say("broken.test", Say::Code(ResponseCode::ServFail));
        server.say("empty.test", Say::Addresses(Vec::new(), 0));
        let resolver = server.resolver();
        for name in ["gone.test.", "empty.test."] {
            assert_eq!(resolver.resolve(name, DnsFamily::Auto).await, Ok(Answer::nothing()), "{name}");
        }
        resolver.resolve("broken.test.", DnsFamily::Auto).await.expect_err("a failure");
        assert_eq!(server.asked.load(Ordering::SeqCst), 6, "each family was asked");
    }

    #[tokio::test]
    async fn an_address_is_not_looked_up() {
        let server = Server::start();
        let answer = server.resolver().resolve("192.0.2.7", DnsFamily::Auto).await.expect("answer");
        assert_eq!(answer.addresses, addresses(&["192.0.2.7"]));
        assert_eq!(server.asked.load(Ordering::SeqCst), 0);
    }
}
