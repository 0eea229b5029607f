//! Opens connections to one target, plain or TLS, from one or several source addresses.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use crate::{
    Error,
    target::Target,
    tls::{self, ClientTls},
    transport::{self, Transport},
};

/// Opens TLS or plain connections to one target.
pub struct Dialler {
    target: SocketAddr,
    sources: u8,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Dialler {
    pub fn new(
        target: &Target,
        tls: &ClientTls,
        sources: u8,
        alpn: &[u8],
        resumption: bool,
    ) -> Result<Self, Error> {
        let session = if target.tls {
            let name = tls.server_name.clone().unwrap_or_else(|| target.host.clone());
            let name =
                ServerName::try_from(name).map_err(|e| Error::usage(format!("--tls-server-name: {e}")))?;
            Some((tls::client_config(tls, alpn, resumption)?, name))
        } else {
            None
        };
        Ok(Dialler { target: target.address, sources, tls: session })
    }

    /// Starts connection number `index`; the sources take turns.
    pub fn dial(&self, index: usize) -> io::Result<Transport> {
        let source = (self.sources > 0).then(|| {
            SocketAddr::from((Ipv4Addr::new(127, 0, 0, 1 + (index % self.sources as usize) as u8), 0))
        });
        let socket = transport::connect(self.target, source)?;
        Ok(match &self.tls {
            None => Transport::plain(socket),
            Some((config, name)) => {
                let session =
                    rustls::ClientConnection::new(config.clone(), name.clone()).map_err(io::Error::other)?;
                Transport::tls(socket, session)
            }
        })
    }
}
