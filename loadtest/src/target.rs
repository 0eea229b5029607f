//! Where requests go: `http://host:port/path`, `https://...` or `tcp://host:port`.

use std::net::{SocketAddr, ToSocketAddrs};

use crate::Error;

#[derive(Debug, Clone)]
pub struct Target {
    pub url: String,
    pub tls: bool,
    pub host: String,
    /// `host:port`, as a Host header has it.
    pub authority: String,
    pub path: String,
    pub address: SocketAddr,
}

impl Target {
    pub fn parse(url: &str) -> Result<Self, Error> {
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| Error::usage(format!("target {url:?}: expected http://, https:// or tcp://")))?;
        let (tls, default_port) = match scheme {
            "http" => (false, Some(80)),
            "https" => (true, Some(443)),
            "tcp" => (false, None),
            _ => return Err(Error::usage(format!("target {url:?}: unknown scheme {scheme:?}"))),
        };
        let (authority, path) = match rest.find('/') {
            Some(slash) => (&rest[..slash], &rest[slash..]),
            None => (rest, "/"),
        };
        let (host, port) = split_port(authority, default_port)
            .ok_or_else(|| Error::usage(format!("target {url:?}: the port is missing or not a number")))?;
        let address = (host, port)
            .to_socket_addrs()
            .map_err(|e| Error::io(format!("resolving {host}"), e))?
            .next()
            .ok_or_else(|| Error::usage(format!("target {url:?}: {host} has no address")))?;
        Ok(Target {
            url: url.to_owned(),
            tls,
            host: host.to_owned(),
            authority: authority.to_owned(),
            path: path.to_owned(),
            address,
        })
    }
}

fn split_port(authority: &str, default: Option<u16>) -> Option<(&str, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(host, after)| (host, after.strip_prefix(':')))?,
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    match port {
        Some(port) => Some((host, port.parse().ok()?)),
        None => Some((host, default?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_three_schemes() {
        let target = Target::parse("http://127.0.0.1:8080/a/b?c=d").unwrap();
        assert_eq!((target.tls, target.path.as_str()), (false, "/a/b?c=d"));
        assert_eq!(target.address, "127.0.0.1:8080".parse().unwrap());
        let target = Target::parse("https://127.0.0.1").unwrap();
        assert_eq!((target.tls, target.address.port(), target.path.as_str()), (true, 443, "/"));
        let target = Target::parse("tcp://[::1]:9").unwrap();
        assert_eq!((target.host.as_str(), target.address.port()), ("::1", 9));
    }

    #[test]
    fn says_what_is_wrong_with_the_rest() {
        for (url, complaint) in [
            ("localhost:80", "expected http://"),
            ("ftp://a:1", "unknown scheme"),
            ("tcp://127.0.0.1", "port is missing"),
            ("http://127.0.0.1:http", "not a number"),
        ] {
            let message = Target::parse(url).unwrap_err().to_string();
            assert!(message.contains(complaint), "{url}: {message}");
        }
    }
}
