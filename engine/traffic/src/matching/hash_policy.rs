//! The key of a request for ring hash and maglev (envoy.config.route.v3.RouteAction.HashPolicy), with Envoy's hash
//! and Envoy's way to combine: a mesh of both keeps its affinities.

use crate::{Rng, balance::xxh64};
use corelane_http::{RequestHead, cookie::cookie, query::parameter};
use corelane_snapshot::HashPolicy;
use std::{io::Write, net::IpAddr};

/// Values of one header that are combined; further ones are left out.
const VALUES_MAX: usize = 32;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hashed {
    /// None: no policy found anything to hash.
    pub hash: Option<u64>,
    /// A cookie with a ttl was absent: the response must set it, to this text in hexadecimal.
    pub cookie: Option<NewCookie>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewCookie {
    /// Index of the policy that wants it.
    pub policy: usize,
    /// 16 lower-case hexadecimal digits.
    pub value: [u8; 16],
}

/// `source`: the client's address.
pub fn hash(policies: &[HashPolicy], head: &RequestHead, source: IpAddr, rng: &mut Rng) -> Hashed {
    let mut hashed = Hashed::default();
    for (number, policy) in policies.iter().enumerate() {
        let (one, terminal) = match policy {
            HashPolicy::Header { name, terminal } => (header(head, name.as_bytes()), *terminal),
            HashPolicy::SourceIp { terminal } => (Some(address(source)), *terminal),
            HashPolicy::Query { name, terminal } => {
                let value = head.query().and_then(|query| parameter(query, name.as_bytes()));
                (value.map(|value| xxh64(value, 0)), *terminal)
            }
            HashPolicy::Cookie { name, ttl, terminal, .. } => {
                let sent = cookie(&head.fields, name.as_bytes()).filter(|value| !value.is_empty());
                let one = match (sent, ttl) {
                    (Some(value), _) => Some(xxh64(value, 0)),
                    (None, None) => None,
                    (None, Some(_)) => {
                        let value = hexadecimal(rng.next_u64());
                        hashed.cookie = Some(NewCookie { policy: number, value });
                        Some(xxh64(&value, 0))
                    }
                };
                (one, *terminal)
            }
        };
        if let Some(one) = one {
            // Envoy: turned by a bit, so that two equal rules do not cancel each other out
            hashed.hash = Some(hashed.hash.map_or(0, |hash| hash.rotate_left(1)) ^ one);
        }
        if terminal && hashed.hash.is_some() {
            break;
        }
    }
    hashed
}

/// Of a connection, which has no head: only its source address can be hashed.
pub fn hash_connection(policies: &[HashPolicy], source: IpAddr) -> Option<u64> {
    let by_source = |policy: &HashPolicy| matches!(policy, HashPolicy::SourceIp { .. });
    policies.iter().any(by_source).then(|| address(source))
}

/// Several values hash alike in any order: they are sorted first.
fn header(head: &RequestHead, name: &[u8]) -> Option<u64> {
    if name.starts_with(b":") || name == b"host" {
        return head.get_name(name).map(|value| xxh64(value, 0));
    }
    let mut values = [&b""[..]; VALUES_MAX];
    let mut count = 0;
    for (slot, value) in values.iter_mut().zip(head.fields.get_all_name(name)) {
        *slot = value;
        count += 1;
    }
    let values = &mut values[..count];
    values.sort_unstable();
    values.iter().fold(None, |seed, value| Some(xxh64(value, seed.unwrap_or(0))))
}

/// Of its text, as Envoy hashes it.
fn address(address: IpAddr) -> u64 {
    // 39 bytes hold the longest text of an IPv6 address
    let mut text = [0u8; 48];
    let room = text.len();
    let mut rest = &mut text[..];
    // cannot fail: it fits
    let _ = write!(rest, "{address}");
    let len = room - rest.len();
    xxh64(&text[..len], 0)
}

fn hexadecimal(value: u64) -> [u8; 16] {
    std::array::from_fn(|at| b"0123456789abcdef"[(value >> (60 - 4 * at) & 15) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::Ipv4Addr, time::Duration};

    const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));

    fn hash_of(policies: &[HashPolicy], fields: &[(&str, &str)]) -> Hashed {
        let mut head = RequestHead::new();
        head.set_path(b"/?user=7").unwrap();
        for (name, value) in fields {
            head.fields.append(name.as_bytes(), value.as_bytes()).unwrap();
        }
        hash(policies, &head, SOURCE, &mut Rng::new(1))
    }

    fn header(name: &str, terminal: bool) -> HashPolicy {
        HashPolicy::Header { name: name.into(), terminal }
    }

    #[test]
    fn each_kind_hashes_its_text() {
        assert_eq!(hash_of(&[header("x-user", false)], &[("x-user", "foo")]).hash, Some(xxh64(b"foo", 0)));
        assert_eq!(hash_of(&[header("x-user", false)], &[]).hash, None);
        let source = HashPolicy::SourceIp { terminal: false };
        assert_eq!(hash_of(&[source], &[]).hash, Some(xxh64(b"10.0.0.7", 0)));
        let query = HashPolicy::Query { name: "user".into(), terminal: false };
        assert_eq!(hash_of(&[query], &[]).hash, Some(xxh64(b"7", 0)));
    }

    #[test]
    fn policies_combine_until_a_terminal_one_found_something() {
        let (a, b) = (xxh64(b"1", 0), xxh64(b"2", 0));
        let fields = [("a", "1"), ("b", "2")];
        let both = |terminal| [header("a", terminal), header("b", false)];
        assert_eq!(hash_of(&both(false), &fields).hash, Some(a.rotate_left(1) ^ b));
        assert_eq!(hash_of(&both(true), &fields).hash, Some(a));
        assert_eq!(hash_of(&both(true), &fields[1..]).hash, Some(b));
        assert_ne!(hash_of(&[header("a", false), header("a", false)], &fields).hash, Some(0));
    }

    #[test]
    fn values_hash_alike_in_any_order() {
        let policy = [header("x", false)];
        let one = hash_of(&policy, &[("x", "a"), ("x", "b")]).hash;
        assert_eq!(one, hash_of(&policy, &[("x", "b"), ("x", "a")]).hash);
        assert_ne!(one, hash_of(&policy, &[("x", "a")]).hash);
    }

    #[test]
    fn a_cookie_is_read_or_made() {
        let cookie = |ttl| HashPolicy::Cookie { name: "sid".into(), ttl, path: "/".into(), terminal: false };
        let sent = [("cookie", "a=1; sid=foo; b=2")];
        assert_eq!(hash_of(&[cookie(None)], &sent).hash, Some(xxh64(b"foo", 0)));
        assert_eq!(hash_of(&[cookie(None)], &[("cookie", "xsid=foo")]), Hashed::default());
        let made = hash_of(&[cookie(Some(Duration::ZERO))], &[]);
        let new = made.cookie.unwrap();
        assert_eq!((new.policy, made.hash), (0, Some(xxh64(&new.value, 0))));
        let again = [("cookie", format!("sid={}", std::str::from_utf8(&new.value).unwrap()))];
        let again: Vec<_> = again.iter().map(|(n, v)| (*n, v.as_str())).collect();
        assert_eq!(hash_of(&[cookie(Some(Duration::ZERO))], &again), Hashed { cookie: None, ..made });
    }
}
