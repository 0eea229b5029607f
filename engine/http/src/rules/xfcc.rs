//! x-forwarded-client-cert: what a proxy says of the certificate that its client showed. Elements, one a proxy,
//! are separated by commas; key-value pairs in one by semicolons.

use crate::{Fields, Known};

/// forward_client_cert_details.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ForwardClientCert {
    #[default]
    Sanitize,
    ForwardOnly,
    AppendForward,
    SanitizeSet,
    AlwaysForwardOnly,
}

/// set_current_client_cert_details: which keys to add besides By and Hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ClientCertDetails {
    pub subject: bool,
    pub cert: bool,
    pub chain: bool,
    pub dns: bool,
    pub uri: bool,
}

/// The client's certificate as the TLS layer knows it. Cheap to borrow once a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientCert<'a> {
    /// URI SANs of our own certificate.
    pub by: &'a [&'a str],
    /// SHA-256 of the client's certificate in lower-case hexadecimal.
    pub hash: &'a str,
    /// URL-encoded PEM.
    pub cert: &'a str,
    /// URL-encoded PEM, the leaf first.
    pub chain: &'a str,
    /// RFC 2253.
    pub subject: &'a str,
    pub uris: &'a [&'a str],
    pub dns: &'a [&'a str],
}

/// Applies the mode; `client` is None where the connection is not mutual TLS. `scratch` is the caller's, reused
/// from request to request, so that nothing is allocated.
pub fn apply_xfcc(
    fields: &mut Fields,
    mode: ForwardClientCert,
    details: ClientCertDetails,
    client: Option<&ClientCert<'_>>,
    scratch: &mut Vec<u8>,
) {
    let client = match (mode, client) {
        (ForwardClientCert::AlwaysForwardOnly, _) | (ForwardClientCert::ForwardOnly, Some(_)) => return,
        (ForwardClientCert::AppendForward | ForwardClientCert::SanitizeSet, Some(client)) => client,
        _ => {
            fields.remove(Known::XForwardedClientCert);
            return;
        }
    };
    scratch.clear();
    write_element(client, details, scratch);
    match mode {
        ForwardClientCert::AppendForward => fields.extend_list(Known::XForwardedClientCert, b",", scratch),
        _ => fields.set(Known::XForwardedClientCert, scratch),
    }
}

/// The order is Envoy's.
fn write_element(client: &ClientCert<'_>, details: ClientCertDetails, out: &mut Vec<u8>) {
    client.by.iter().for_each(|uri| pair(out, "By", uri, false));
    if !client.hash.is_empty() {
        pair(out, "Hash", client.hash, false);
    }
    if details.cert && !client.cert.is_empty() {
        pair(out, "Cert", client.cert, true);
    }
    if details.chain && !client.chain.is_empty() {
        pair(out, "Chain", client.chain, true);
    }
    if details.subject {
        pair(out, "Subject", client.subject, true);
    }
    if details.uri {
        // The key is there even if the certificate has no URI.
        if client.uris.is_empty() {
            pair(out, "URI", "", false);
        }
        client.uris.iter().for_each(|uri| pair(out, "URI", uri, false));
    }
    if details.dns {
        client.dns.iter().for_each(|name| pair(out, "DNS", name, false));
    }
}

/// "If ',', ';' or '=' appear in a value, the value should be double-quoted. Double-quotes in the value should
/// be replaced by backslash-double-quote." A backslash that would stand before a quote is doubled, or a
/// certificate could end its value early and write the next key itself.
fn pair(out: &mut Vec<u8>, key: &str, value: &str, always_quoted: bool) {
    if !out.is_empty() {
        out.push(b';');
    }
    out.extend_from_slice(key.as_bytes());
    out.push(b'=');
    let value = value.as_bytes();
    if !always_quoted && !value.iter().any(|b| matches!(b, b',' | b';' | b'=' | b'"')) {
        return out.extend_from_slice(value);
    }
    out.push(b'"');
    for (at, &byte) in value.iter().enumerate() {
        let before_quote = byte == b'\\' && matches!(value.get(at + 1), None | Some(b'"' | b'\\'));
        if byte == b'"' || before_quote {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: ClientCert<'static> = ClientCert {
        by: &["spiffe://cluster.local/ns/prod/sa/payments"],
        hash: "468ed33b",
        cert: "-----BEGIN%20CERTIFICATE",
        chain: "-----BEGIN%20CHAIN",
        subject: "CN=orders,O=\"Acme\"",
        uris: &["spiffe://cluster.local/ns/prod/sa/orders"],
        dns: &["orders.local", "www.orders.local"],
    };
    const URI: ClientCertDetails =
        ClientCertDetails { uri: true, subject: false, cert: false, chain: false, dns: false };
    const ELEMENT: &str = "By=spiffe://cluster.local/ns/prod/sa/payments;Hash=468ed33b;\
                           URI=spiffe://cluster.local/ns/prod/sa/orders";

    fn apply(mode: ForwardClientCert, client: Option<&ClientCert<'_>>, given: &[&str]) -> Vec<String> {
        let mut fields = Fields::new();
        given.iter().for_each(|v| fields.append_known(Known::XForwardedClientCert, v.as_bytes()));
        apply_xfcc(&mut fields, mode, URI, client, &mut Vec::new());
        let text = |v: &[u8]| String::from_utf8(v.to_vec()).unwrap();
        fields.get_all(Known::XForwardedClientCert).map(text).collect()
    }

    #[test]
    fn modes() {
        use ForwardClientCert::*;
        let appended = format!("By=a,{ELEMENT}");
        for (mode, with_cert, without) in [
            (Sanitize, None, None),
            (ForwardOnly, Some("By=a"), None),
            (AppendForward, Some(appended.as_str()), None),
            (SanitizeSet, Some(ELEMENT), None),
            (AlwaysForwardOnly, Some("By=a"), Some("By=a")),
        ] {
            assert_eq!(apply(mode, Some(&CLIENT), &["By=a"]), Vec::from_iter(with_cert), "{mode:?}");
            assert_eq!(apply(mode, None, &["By=a"]), Vec::from_iter(without), "{mode:?}");
        }
        assert_eq!(apply(AppendForward, Some(&CLIENT), &[]), [ELEMENT]);
        assert_eq!(
            apply(AppendForward, Some(&CLIENT), &["By=a", "By=b"]),
            ["By=a".to_string(), format!("By=b,{ELEMENT}")]
        );
        assert_eq!(apply(SanitizeSet, Some(&CLIENT), &["By=a", "By=b"]), [ELEMENT]);
    }

    #[test]
    fn every_detail_in_order_and_quoted() {
        let all = ClientCertDetails { subject: true, cert: true, chain: true, dns: true, uri: true };
        let mut out = Vec::new();
        write_element(&CLIENT, all, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "By=spiffe://cluster.local/ns/prod/sa/payments;Hash=468ed33b;Cert=\"-----BEGIN%20CERTIFICATE\";\
             Chain=\"-----BEGIN%20CHAIN\";Subject=\"CN=orders,O=\\\"Acme\\\"\";\
             URI=spiffe://cluster.local/ns/prod/sa/orders;DNS=orders.local;DNS=www.orders.local"
        );
        let mut out = Vec::new();
        write_element(&ClientCert::default(), all, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "Subject=\"\";URI=");
    }

    #[test]
    fn a_certificate_cannot_write_other_keys() {
        for (value, expected) in [
            ("a;URI=b", "K=\"a;URI=b\""),
            ("a\";URI=b", "K=\"a\\\";URI=b\""),
            ("a=\\", "K=\"a=\\\\\""),
            ("a\\\";URI=b", "K=\"a\\\\\\\";URI=b\""),
            ("a\\,b", "K=\"a\\,b\""),
        ] {
            let mut out = Vec::new();
            pair(&mut out, "K", value, false);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
