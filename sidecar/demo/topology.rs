//! The processes of one run: orders' sidecar, two replicas of payments with a sidecar each.

use crate::support::{Answer, App, Identities, Proxy, Received, fill, flaky::Flaky};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

pub struct Topology {
    pub orders: Proxy,
    pub b1: Replica,
    pub b2: Replica,
    // removed last: the sidecars read from it
    pub folder: tempfile::TempDir,
}

/// One instance of payments: the app, its sidecar, and the network between it and the mesh.
pub struct Replica {
    pub app: App,
    pub sidecar: Proxy,
    pub network: Flaky,
    app_flaps: Arc<AtomicBool>,
}

impl Topology {
    pub fn start() -> Topology {
        let folder = tempfile::Builder::new().prefix("corelane-demo-").tempdir().expect("a temporary folder");
        Identities::issue(folder.path());
        let (b1, b2) = (Replica::start("B1", folder.path()), Replica::start("B2", folder.path()));
        let (b1_port, b2_port) = (b1.network.port(), b2.network.port());
        let config = fill(
            include_str!("orders.yaml"),
            &[("FOLDER", &folder.path().display()), ("B1_PORT", &b1_port), ("B2_PORT", &b2_port)],
        );
        let orders = Proxy::start(folder.path(), "orders", &config);
        Topology { orders, b1, b2, folder }
    }

    pub fn access_log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("orders.access.log")).unwrap_or_default()
    }
}

impl Replica {
    fn start(name: &'static str, folder: &std::path::Path) -> Replica {
        let app_flaps = Arc::new(AtomicBool::new(false));
        let flaps = app_flaps.clone();
        let app = App::start(move |request: &Received| {
            if flaps.load(SeqCst) {
                return Answer::reset();
            }
            let caller = request.head.get("x-forwarded-client-cert").unwrap_or("nobody");
            Answer::ok(format!("charged by {name} for {caller}\n"))
        });
        let config = fill(
            include_str!("payments.yaml"),
            &[("NAME", &name), ("FOLDER", &folder.display()), ("APP_PORT", &app.port())],
        );
        let sidecar = Proxy::start(folder, name, &config);
        let network = Flaky::before(sidecar.listener("inbound"));
        Replica { app, sidecar, network, app_flaps }
    }

    /// The app takes requests and resets the connection in place of an answer.
    pub fn app_flaps(&self, flaps: bool) {
        self.app_flaps.store(flaps, SeqCst);
    }
}
