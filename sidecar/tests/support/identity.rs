//! Certificates of the examples' services, issued for one test.

use corelane_loadtest::{
    certs::{self, Order},
    tls::{self, ClientTls, ServerTls},
};
use rustls::{ClientConfig, ServerConfig};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// What `orders` and `payments` are called by their certificates.
pub const NAMESPACE_IDS: [&str; 2] =
    ["spiffe://cluster.local/ns/prod/sa/orders", "spiffe://cluster.local/ns/prod/sa/payments"];

pub struct Identities {
    pub folder: PathBuf,
}

impl Identities {
    /// A new root with leaves for orders, payments and ledger, in `folder`.
    pub fn issue(folder: &Path) -> Identities {
        let names = ["orders", "payments", "ledger"].map(str::to_owned).to_vec();
        certs::issue(&Order { names, ..Order::example(folder) }).expect("certificates");
        Identities { folder: folder.to_owned() }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn client(&self, name: Option<&str>, alpn: &str) -> Arc<ClientConfig> {
        let tls = ClientTls {
            ca: Some(self.file("ca.pem")),
            cert: name.map(|name| self.file(&format!("{name}.pem"))),
            key: name.map(|name| self.file(&format!("{name}.key"))),
            ..ClientTls::default()
        };
        tls::client_config(&tls, alpn.as_bytes(), false).expect("a client configuration")
    }

    pub fn server(&self, name: &str) -> Arc<ServerConfig> {
        let tls = ServerTls {
            cert: Some(self.file(&format!("{name}.pem"))),
            key: Some(self.file(&format!("{name}.key"))),
            ca: Some(self.file("ca.pem")),
        };
        tls::server_config(&tls, &[b"http/1.1"])
            .expect("a server configuration")
            .expect("a certificate was named")
    }
}
