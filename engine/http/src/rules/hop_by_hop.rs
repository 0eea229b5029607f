//! Removing what was meant for one connection (RFC 9110 section 7.6.1). It runs on a head as received, before
//! any rule adds a field, so that a peer cannot name a field of ours for removal.

use crate::{Fields, Known, list};

/// Names in one Connection line that are acted on; a peer that sends more gets them forwarded, which is what
/// it would get had it not named them.
const CONNECTION_OPTIONS_MAX: usize = 32;

/// Removes Connection, the fields it names and the fixed hop-by-hop fields. `te: trailers` stays (RFC 9110
/// section 10.1.4; gRPC needs it), and Upgrade where `keep_upgrade`: the writer says `connection: upgrade`.
pub fn remove_hop_by_hop(fields: &mut Fields, keep_upgrade: bool) {
    let te_trailers = list::field_has_token(fields, Known::Te, b"trailers");
    let upgrade = keep_upgrade && fields.contains(Known::Upgrade);
    if fields.contains(Known::Connection) {
        remove_named(fields, upgrade);
    }
    for known in [
        Known::Connection,
        Known::KeepAlive,
        Known::ProxyConnection,
        Known::TransferEncoding,
        Known::Http2Settings,
    ] {
        fields.remove(known);
    }
    if !upgrade {
        fields.remove(Known::Upgrade);
    }
    if te_trailers {
        fields.set(Known::Te, b"trailers");
    } else {
        fields.remove(Known::Te);
    }
}

/// RFC 9110 section 7.6.1: "Intermediaries MUST parse a received Connection header field before a message is
/// forwarded and, for each connection-option in this field, remove any header or trailer field(s) from the
/// message with the same name as the connection-option".
fn remove_named(fields: &mut Fields, keep_upgrade: bool) {
    let mut doomed: u128 = 0;
    let mut unknown = false;
    for option in
        fields.get_all(Known::Connection).flat_map(|line| list::elements(line).take(CONNECTION_OPTIONS_MAX))
    {
        match Known::of(option) {
            Known::Other => unknown |= fields.get_name(option).is_some(),
            // The length is the framing's, which was decided when the head was parsed.
            Known::ContentLength | Known::Connection => {}
            Known::Upgrade if keep_upgrade => {}
            known => doomed |= 1 << (known as u8),
        }
    }
    if unknown {
        remove_unknown(fields);
    }
    if doomed != 0 {
        fields.remove_if(|known, _, _| known != Known::Other && doomed >> (known as u8) & 1 == 1);
    }
}

/// Names that are not `Known`, which hardly anybody sends.
#[cold]
fn remove_unknown(fields: &mut Fields) {
    let mut index = 0;
    while index < fields.count() {
        let (known, name) = fields.name_at(index);
        let named =
            |value| list::elements(value).take(CONNECTION_OPTIONS_MAX).any(|o| o.eq_ignore_ascii_case(name));
        if known == Known::Other && fields.get_all(Known::Connection).any(named) {
            fields.remove_at(index);
        } else {
            index += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(lines: &[(&str, &str)], keep_upgrade: bool) -> Vec<(String, String)> {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.append(name.as_bytes(), value.as_bytes()).unwrap();
        }
        remove_hop_by_hop(&mut fields, keep_upgrade);
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        fields.iter().map(|(n, v)| (text(n), text(v))).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect()
    }

    #[test]
    fn fixed_and_named_fields_go() {
        let lines = [
            ("connection", "keep-alive, X-Private, authorization"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("x-private", "1"),
            ("authorization", "secret"),
            ("te", "gzip, trailers;q=0.5, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("x-kept", "2"),
            ("connection", "x-second"),
            ("x-second", "3"),
        ];
        assert_eq!(after(&lines, false), pairs(&[("te", "trailers"), ("x-kept", "2")]));
    }

    #[test]
    fn an_upgrade_is_kept_where_asked_for() {
        let lines = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "k")];
        assert_eq!(after(&lines, true), pairs(&[("upgrade", "websocket"), ("sec-websocket-key", "k")]));
        assert_eq!(after(&lines, false), pairs(&[("sec-websocket-key", "k")]));
    }

    #[test]
    fn the_length_of_a_body_cannot_be_named_away() {
        let lines = [("connection", "content-length, te"), ("content-length", "5"), ("te", "trailers")];
        assert_eq!(after(&lines, false), pairs(&[("content-length", "5"), ("te", "trailers")]));
    }
}
