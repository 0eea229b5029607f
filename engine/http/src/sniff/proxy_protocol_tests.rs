use super::*;

fn addresses(source: &str, destination: &str) -> Option<Addresses> {
    Some(Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
}

fn at_every_split(header: &[u8], expected: Result<ProxyHeader, HttpError>) {
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(b"\r\ndata");
    for end in 0..header.len() {
        let got = parse_proxy_header(&bytes[..end]);
        assert!(got == Ok(ProxyHeader::NeedMore) || got == expected, "{end} {got:?}");
    }
    assert_eq!(parse_proxy_header(&bytes), expected, "{}", header.escape_ascii());
}

#[test]
fn version_1() {
    for (line, addresses) in [
        (
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
            addresses("192.168.0.1:56324", "192.168.0.11:443"),
        ),
        ("PROXY TCP6 ::1 2001:DB8::2 0 65535\r\n", addresses("[::1]:0", "[2001:db8::2]:65535")),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN ffff::1 junk 1 2\r\n", None),
    ] {
        at_every_split(line.as_bytes(), Ok(ProxyHeader::Present { addresses, consumed: line.len() }));
    }
}

#[test]
fn version_1_malformed() {
    for line in [
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\n",
        "PROXY TCP4 192.168.0.1  192.168.0.11 56324 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443 5\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 056324 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 65536 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 +1 443\r\n",
        "PROXY TCP4 192.168.0.01 192.168.0.11 1 443\r\n",
        "PROXY TCP4 ::1 ::1 1 443\r\n",
        "PROXY TCP6 1.2.3.4 1.2.3.4 1 443\r\n",
        "PROXY UDP4 1.2.3.4 1.2.3.4 1 443\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY \r\n",
    ] {
        assert_eq!(parse_proxy_header(line.as_bytes()), Err(HttpError::ProxyHeader), "{line:?}");
    }
    let mut long = b"PROXY UNKNOWN ".to_vec();
    long.resize(V1_BYTES_MAX - 1, b'x');
    assert_eq!(parse_proxy_header(&long), Ok(ProxyHeader::NeedMore));
    long.push(b'x');
    assert_eq!(parse_proxy_header(&long), Err(HttpError::ProxyHeader));
}

fn v2(version_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let len = (block.len() as u16).to_be_bytes();
    [V2_SIGNATURE, &[version_command, family], &len, block].concat()
}

#[test]
fn version_2() {
    let block = [10, 0, 0, 1, 10, 0, 0, 2, 0x1f, 0x90, 0, 80];
    let tlv = [&block[..], &[0xea, 0, 1, 9]].concat();
    let expected = addresses("10.0.0.1:8080", "10.0.0.2:80");
    for (header, addresses) in [
        (v2(0x21, 0x11, &block), expected),
        (v2(0x21, 0x11, &tlv), expected),
        (v2(0x20, 0x00, &[]), None),
        (v2(0x20, 0xff, &block), None),
        (v2(0x21, 0x00, &[1, 2, 3]), None),
        (v2(0x21, 0x12, &block), None),
        (v2(0x21, 0x31, &[0; 216]), None),
    ] {
        at_every_split(&header, Ok(ProxyHeader::Present { addresses, consumed: header.len() }));
    }
    for (header, error) in [
        (v2(0x11, 0x11, &block), HttpError::ProxyHeader),
        (v2(0x22, 0x11, &block), HttpError::ProxyHeader),
        (v2(0x21, 0x41, &block), HttpError::ProxyHeader),
        (v2(0x21, 0x13, &block), HttpError::ProxyHeader),
        (v2(0x21, 0x11, &block[..11]), HttpError::ProxyHeader),
        (v2(0x21, 0x21, &block), HttpError::ProxyHeader),
        (v2(0x21, 0x11, &[0; V2_BYTES_MAX]), HttpError::ProxyHeaderTooLarge),
    ] {
        at_every_split(&header, Err(error));
    }
}

#[test]
fn what_is_written_is_read_back() {
    for (given, read) in [
        (addresses("10.0.0.1:1", "10.0.0.2:65535"), addresses("10.0.0.1:1", "10.0.0.2:65535")),
        (addresses("[2001:db8::1]:1", "[::1]:2"), addresses("[2001:db8::1]:1", "[::1]:2")),
        (addresses("10.0.0.1:1", "[::1]:2"), addresses("[::ffff:10.0.0.1]:1", "[::1]:2")),
        (addresses("[::ffff:10.0.0.1]:1", "10.0.0.2:2"), addresses("10.0.0.1:1", "10.0.0.2:2")),
        (None, None),
    ] {
        let (mut v1, mut v2) = (Vec::new(), Vec::new());
        write_proxy_v1(given.as_ref(), &mut v1).unwrap();
        write_proxy_v2(given.as_ref(), &mut v2).unwrap();
        for header in [v1, v2] {
            let expected = ProxyHeader::Present { addresses: read, consumed: header.len() };
            assert_eq!(parse_proxy_header(&header), Ok(expected), "{}", header.escape_ascii());
        }
    }
}

#[test]
fn anything_else_is_absent() {
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"PROXX", b"\r\n\r\n\x01", b"\x16\x03\x01"] {
        assert_eq!(parse_proxy_header(bytes), Ok(ProxyHeader::Absent));
    }
    for bytes in [&b""[..], b"P", b"PROXY", b"\r\n\r\n"] {
        assert_eq!(parse_proxy_header(bytes), Ok(ProxyHeader::NeedMore));
    }
}
