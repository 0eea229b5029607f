//! Certificates change on disk while requests flow: each connection keeps what it began with, each new one gets the
//! newest, and not a request is lost.

use crate::support::{Answer, App, Client, Identities, Proxy, Request, WITHIN, fill, wait_for};
use std::{
    collections::HashSet,
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Instant,
};

const CALLERS: usize = 4;
const CALLS_PER_CONNECTION: usize = 5;
const GENERATIONS: usize = 5;

/// Each generation is a root of its own; the bundle trusts all of them, as while a mesh changes its root.
struct Generations {
    all: Vec<(tempfile::TempDir, Identities)>,
}

impl Generations {
    fn issue() -> Generations {
        let one = || {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let identities = Identities::issue(folder.path());
            (folder, identities)
        };
        let all: Vec<_> = (0..GENERATIONS).map(|_| one()).collect();
        let bundle: String =
            all.iter().map(|(_, i)| fs::read_to_string(i.file("ca.pem")).expect("a root")).collect();
        for (_, identities) in &all {
            fs::write(identities.file("ca.pem"), &bundle).expect("a writable folder");
        }
        Generations { all }
    }

    /// As a certificate agent does it: new files beside the old ones, then renamed over them, the key first.
    fn install(&self, generation: usize, whose: &str, folder: &Path) {
        for name in ["ca.pem", &format!("{whose}.key"), &format!("{whose}.pem")] {
            let fresh = folder.join(format!("{name}.new"));
            fs::copy(self.all[generation].1.file(name), &fresh).expect("a writable folder");
            fs::rename(&fresh, folder.join(name)).expect("a rename in one folder");
        }
    }
}

#[derive(Default)]
struct Account {
    ended: AtomicBool,
    answered: AtomicU64,
    /// Leaf certificates that servers have shown.
    shown: Mutex<HashSet<Vec<u8>>>,
}

fn call_on(address: SocketAddr, config: Arc<rustls::ClientConfig>, account: &Account) {
    while !account.ended.load(SeqCst) {
        let mut client = Client::connect_tls(address, config.clone()).expect("a handshake at any moment");
        account.shown.lock().expect("no caller panics with it").insert(client.peer_certificate().to_vec());
        for _ in 0..CALLS_PER_CONNECTION {
            let answer = client.call(&Request::post("/charge", "amount=1"));
            assert_eq!((answer.status, answer.text()), (200, "charged"));
            account.answered.fetch_add(1, SeqCst);
        }
    }
}

#[test]
fn certificates_rotate_under_load_and_every_request_is_accounted_for() {
    let generations = Generations::issue();
    let folder = tempfile::tempdir().expect("a temporary folder");
    generations.install(0, "payments", folder.path());
    let app = App::start(|_| Answer::ok("charged"));
    let config = fill(
        include_str!("../../demo/payments.yaml"),
        &[("NAME", &"payments"), ("FOLDER", &folder.path().display()), ("APP_PORT", &app.port())],
    );
    let payments = Proxy::start(folder.path(), "payments", &config);
    let address = payments.listener("inbound");
    let mut held = Client::connect_tls(address, generations.all[0].1.client(Some("orders"), "http/1.1"))
        .expect("a handshake");
    let account = Account::default();
    std::thread::scope(|scope| {
        // ended even where an assertion below fails, or the scope would wait for ever
        let _ends = Ends(&account.ended);
        for caller in 0..CALLERS {
            // callers of different roots
            let config = generations.all[caller % GENERATIONS].1.client(Some("orders"), "http/1.1");
            let account = &account;
            scope.spawn(move || call_on(address, config, account));
        }
        for generation in 1..GENERATIONS {
            generations.install(generation, "payments", folder.path());
            wait_for(&format!("generation {generation} on new connections"), || {
                let shown = account.shown.lock().expect("no caller panics with it").len();
                if shown > generation { Ok(()) } else { Err(shown) }
            });
        }
    });
    let held_answer = held.call(&Request::post("/charge", "amount=1"));
    assert_eq!(held_answer.text(), "charged", "a connection outlives the certificate that it began with");
    assert_eq!(account.shown.into_inner().expect("no caller panicked").len(), GENERATIONS);
    let answered = account.answered.into_inner() + 1;
    assert_eq!(app.requests(), answered, "each request reached the app once");
    shows_the_expiry_of(&payments, &folder.path().join("payments.pem"));
    payments.wait_stat("http.inbound.downstream_rq_2xx", answered);
    payments.wait_stat("http.inbound.downstream_rq_total", answered);
}

/// `/certs` and the gauge agree on the certificate that is in use now.
fn shows_the_expiry_of(proxy: &Proxy, certificate: &Path) {
    let name = format!("ssl.certificate.{}.expiration_unix_time_seconds", certificate.display());
    let page = proxy.page("/stats?filter=expiration_unix_time_seconds");
    let shown =
        page.lines().find_map(|line| line.split_once(&name)?.1.strip_prefix(": ")?.parse::<u64>().ok());
    let shown = shown.unwrap_or_else(|| panic!("{name} in\n{page}"));
    let now_s =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
    assert!(shown > now_s, "{shown} is not after {now_s}");
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn a_callers_certificates_rotate_under_load_and_every_request_is_accounted_for() {
    let generations = Generations::issue();
    let folders =
        [tempfile::tempdir(), tempfile::tempdir()].map(|folder| folder.expect("a temporary folder"));
    let [callee, caller] = [folders[0].path(), folders[1].path()];
    generations.install(0, "payments", callee);
    generations.install(0, "orders", caller);
    // what the callee's sidecar says of its caller: a hash for each certificate
    let shown = Arc::new(Mutex::new(HashSet::new()));
    let seen = shown.clone();
    let app = App::start(move |request| {
        let caller = request.head.get("x-forwarded-client-cert").expect("a verified caller").to_owned();
        seen.lock().expect("no answer panics with it").insert(caller);
        Answer::ok("charged")
    });
    // connections end soon, so that new certificates are shown soon
    let few =
        "stat_prefix: inbound\n          common_http_protocol_options: { max_requests_per_connection: 5 }";
    let config = include_str!("../../demo/payments.yaml").replace("stat_prefix: inbound", few);
    let config =
        fill(&config, &[("NAME", &"payments"), ("FOLDER", &callee.display()), ("APP_PORT", &app.port())]);
    let payments = Proxy::start(callee, "payments", &config);
    let port = payments.listener("inbound").port();
    let config = fill(
        include_str!("../../demo/orders.yaml"),
        &[("FOLDER", &caller.display()), ("B1_PORT", &port), ("B2_PORT", &port)],
    );
    let orders = Proxy::start(caller, "orders", &config);
    let address = orders.listener("outbound");
    let account = Account::default();
    std::thread::scope(|scope| {
        let _ends = Ends(&account.ended);
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let mut client = Client::connect(address);
                while !account.ended.load(SeqCst) {
                    let answer = client.call(&Request::post("/charge", "amount=1"));
                    assert_eq!((answer.status, answer.text()), (200, "charged"));
                    account.answered.fetch_add(1, SeqCst);
                }
            });
        }
        for generation in 1..GENERATIONS {
            generations.install(generation, "orders", caller);
            wait_for(&format!("generation {generation} on new connections"), || {
                let shown = shown.lock().expect("no answer panics with it").len();
                if shown > generation { Ok(()) } else { Err(shown) }
            });
        }
    });
    let answered = account.answered.into_inner();
    assert_eq!(app.requests(), answered, "each request reached the app once");
    orders.wait_stat("http.outbound.downstream_rq_2xx", answered);
    payments.wait_stat("http.inbound.downstream_rq_2xx", answered);
}

#[test]
fn half_a_change_or_rubbish_leaves_the_last_good_pair_in_force() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let identities = Identities::issue(folder.path());
    let app = App::start(|_| Answer::ok("charged"));
    let config = fill(
        include_str!("../../demo/payments.yaml"),
        &[("NAME", &"payments"), ("FOLDER", &folder.path().display()), ("APP_PORT", &app.port())],
    );
    let payments = Proxy::start(folder.path(), "payments", &config);
    let address = payments.listener("inbound");
    let client = identities.client(Some("orders"), "http/1.1");
    fs::write(identities.file("payments.pem"), "-----BEGIN CERTIFICATE-----\nrubbish\n")
        .expect("a writable folder");
    let began = Instant::now();
    // the refusal is told, and nothing else changes
    while !payments.process.log().contains("payments.pem") {
        assert!(began.elapsed() < WITHIN, "{}", payments.process.log_tail());
        let mut caller = Client::connect_tls(address, client.clone()).expect("a handshake");
        assert_eq!(caller.call(&Request::get("/")).status, 200);
    }
    let mut caller = Client::connect_tls(address, client).expect("a handshake after the refusal");
    assert_eq!(caller.call(&Request::get("/")).status, 200);
}

/// Whoever writes the bundle in place empties it first: that moment is no leave for everybody.
#[test]
fn a_trust_bundle_that_is_emptied_still_refuses_strangers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let other = tempfile::tempdir().expect("a temporary folder");
    let identities = Identities::issue(folder.path());
    let strangers = Identities::issue(other.path());
    fs::copy(identities.file("ca.pem"), strangers.file("ca.pem")).expect("a stranger that trusts us");
    let clients = [&identities, &strangers].map(|of| of.client(Some("orders"), "http/1.1"));
    let app = App::start(|_| Answer::ok("charged"));
    let config = fill(
        include_str!("../../demo/payments.yaml"),
        &[("NAME", &"payments"), ("FOLDER", &folder.path().display()), ("APP_PORT", &app.port())],
    );
    let payments = Proxy::start(folder.path(), "payments", &config);
    let address = payments.listener("inbound");
    let served = |client: &Arc<rustls::ClientConfig>| {
        let caller = Client::connect_tls(address, client.clone());
        caller
            .and_then(|mut caller| caller.try_call(&Request::get("/")))
            .is_ok_and(|answer| answer.status == 200)
    };
    assert_eq!(clients.each_ref().map(served), [true, false]);
    fs::write(identities.file("ca.pem"), "").expect("a writable folder");
    let began = Instant::now();
    while payments.stat("corelane.certificates.refused") == 0 {
        assert!(began.elapsed() < WITHIN, "{}", payments.process.log_tail());
        assert_eq!(clients.each_ref().map(served), [true, false]);
    }
    assert!(
        payments.process.log().contains("ca.pem: holds no certificate"),
        "{}",
        payments.process.log_tail()
    );
    assert_eq!(clients.each_ref().map(served), [true, false]);
    assert_eq!(payments.stat("corelane.certificates.rotated"), 0);
}
