//! What the connection manager does to every response, the upstream's and its own.

use super::hop_by_hop::remove_hop_by_hop;
use crate::{Known, ResponseHead};

/// server_header_transformation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ServerHeader {
    #[default]
    Overwrite,
    AppendIfAbsent,
    PassThrough,
}

#[derive(Clone, Copy, Debug)]
pub struct ResponseRules<'a> {
    pub server: ServerHeader,
    pub server_name: &'a [u8],
    pub via: Option<&'a [u8]>,
    /// The request's id, where it is to be told: forced traces, always_set_request_id_in_response.
    pub request_id: Option<&'a [u8]>,
    /// IMF-fixdate (RFC 9110 section 5.6.7) of now.
    pub date: &'a [u8],
    /// The response switches protocols: Upgrade is kept.
    pub keep_upgrade: bool,
}

pub fn apply_response_rules(head: &mut ResponseHead, rules: &ResponseRules<'_>) {
    let fields = &mut head.fields;
    remove_hop_by_hop(fields, rules.keep_upgrade);
    match rules.server {
        ServerHeader::Overwrite => fields.set(Known::Server, rules.server_name),
        ServerHeader::AppendIfAbsent if !fields.contains(Known::Server) => {
            fields.append_known(Known::Server, rules.server_name);
        }
        ServerHeader::AppendIfAbsent | ServerHeader::PassThrough => {}
    }
    // RFC 9110 section 6.6.1: "A recipient with a clock that receives a response message without a Date
    // header field MUST record the time it was received and append a corresponding Date header field".
    if !fields.contains(Known::Date) {
        fields.append_known(Known::Date, rules.date);
    }
    if let Some(via) = rules.via {
        fields.extend_list(Known::Via, b", ", via);
    }
    if let Some(id) = rules.request_id {
        fields.set(Known::XRequestId, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: ResponseRules<'static> = ResponseRules {
        server: ServerHeader::Overwrite,
        server_name: b"corelane",
        via: None,
        request_id: None,
        date: b"Sun, 06 Nov 1994 08:49:37 GMT",
        keep_upgrade: false,
    };

    fn apply(rules: &ResponseRules<'_>, lines: &[(Known, &[u8])]) -> ResponseHead {
        let mut head = ResponseHead::new();
        lines.iter().for_each(|(known, value)| head.fields.append_known(*known, value));
        apply_response_rules(&mut head, rules);
        head
    }

    #[test]
    fn server_names() {
        let server = |rules: ServerHeader, lines: &[(Known, &[u8])]| {
            let head = apply(&ResponseRules { server: rules, ..RULES }, lines);
            head.fields.get(Known::Server).map(<[u8]>::to_vec)
        };
        let theirs = [(Known::Server, &b"theirs"[..])];
        assert_eq!(server(ServerHeader::Overwrite, &theirs), Some(b"corelane".to_vec()));
        assert_eq!(server(ServerHeader::AppendIfAbsent, &theirs), Some(b"theirs".to_vec()));
        assert_eq!(server(ServerHeader::AppendIfAbsent, &[]), Some(b"corelane".to_vec()));
        assert_eq!(server(ServerHeader::PassThrough, &[]), None);
    }

    #[test]
    fn date_via_and_id() {
        let rules = ResponseRules { via: Some(b"1.1 us"), request_id: Some(b"id"), ..RULES };
        let head =
            apply(&rules, &[(Known::Date, b"theirs"), (Known::Via, b"1.1 them"), (Known::KeepAlive, b"1")]);
        assert_eq!(head.fields.get(Known::Date), Some(&b"theirs"[..]));
        assert_eq!(head.fields.get(Known::Via), Some(&b"1.1 them, 1.1 us"[..]));
        assert_eq!(head.fields.get(Known::XRequestId), Some(&b"id"[..]));
        assert!(!head.fields.contains(Known::KeepAlive));
        assert_eq!(apply(&RULES, &[]).fields.get(Known::Date), Some(RULES.date));
    }
}
