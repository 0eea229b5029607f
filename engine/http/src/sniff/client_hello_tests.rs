use super::*;

fn vec16(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vec16(data)].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    extension(0, &vec16(&[&[0][..], &vec16(name)].concat()))
}

fn alpn(names: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = names.iter().flat_map(|n| [&[n.len() as u8], *n].concat()).collect();
    extension(16, &vec16(&list))
}

fn message(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([32]);
    body.extend([8; 32]);
    body.extend(vec16(&[0x13, 1, 0x13, 2]));
    body.extend([1, 0]);
    body.extend(vec16(extensions));
    let len = (body.len() as u32).to_be_bytes();
    [&[1, len[1], len[2], len[3]], &body[..]].concat()
}

fn records(message: &[u8], fragment: usize) -> Vec<u8> {
    message.chunks(fragment).flat_map(|piece| [&[22, 3, 1][..], &vec16(piece)].concat()).collect()
}

/// SNI and ALPN.
type Names = (Option<String>, Vec<String>);

fn parse(bytes: &[u8]) -> Result<Option<Names>, HttpError> {
    let mut scratch = Vec::new();
    let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
    Ok(match parse_client_hello(bytes, &mut scratch)? {
        Hello::NeedMore => None,
        Hello::Complete(hello) => Some((hello.server_name.map(text), hello.alpn().map(text).collect())),
    })
}

fn both() -> Vec<u8> {
    [extension(10, &vec16(&[0, 29])), server_name(b"payments.default"), alpn(&[b"istio", b"h2"])].concat()
}

#[test]
fn names_are_found_at_every_fragmentation_and_every_split() {
    let message = message(&both());
    let expected = (Some("payments.default".to_string()), vec!["istio".to_string(), "h2".to_string()]);
    for fragment in [1, 2, 3, 5, 40, message.len() - 1, message.len()] {
        let bytes = records(&message, fragment);
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Ok(None), "fragment {fragment}, split {end}");
        }
        assert_eq!(parse(&bytes), Ok(Some(expected.clone())));
        let more = [&bytes[..], b"\x14\x03\x03\x00\x01\x01"].concat();
        assert_eq!(parse(&more), Ok(Some(expected.clone())), "what follows is not looked at");
    }
}

#[test]
fn absent_extensions() {
    assert_eq!(parse(&records(&message(&[]), 9999)), Ok(Some((None, vec![]))));
    // TLS 1.2 without the extensions block at all
    let mut short = message(&[]);
    short.truncate(short.len() - 2);
    short[3] -= 2;
    assert_eq!(parse(&records(&short, 9999)), Ok(Some((None, vec![]))));
}

#[test]
fn malformed_hellos_are_refused() {
    let twice = [server_name(b"a"), server_name(b"b")].concat();
    let two_names = extension(0, &vec16(&[&[0][..], &vec16(b"a"), &[0], &vec16(b"b")].concat()));
    for (what, extensions) in [
        ("two extensions", twice),
        ("two names", two_names),
        ("empty name", server_name(b"")),
        ("NUL in name", server_name(b"a\0b")),
        ("long name", server_name(&[b'a'; 256])),
        ("empty list", extension(0, &vec16(&[]))),
        ("list too long", extension(0, &[0, 9, 0, 0, 1, b'a'])),
        ("bytes after list", extension(0, &[0, 4, 0, 0, 1, b'a', 9])),
        ("empty protocol", alpn(&[b"h2", b""])),
        ("protocol too long", extension(16, &[0, 3, 9, b'h', b'2'])),
        ("truncated extension", vec![0, 0, 0, 9, 1]),
    ] {
        assert_eq!(parse(&records(&message(&extensions), 9999)), Err(HttpError::ClientHello), "{what}");
    }
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"\x15\x03\x01\x00\x02",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x05",
        b"\x16\x03\x01\x00\x01\x02",
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
    ] {
        assert_eq!(parse(bytes), Err(HttpError::ClientHello), "{}", bytes.escape_ascii());
    }
}

#[test]
fn size_is_bounded() {
    assert_eq!(parse(b"\x16\x03\x01\x00\x04\x01\x01\x00\x01"), Err(HttpError::ClientHelloTooLarge));
    // one byte a record: the headers count
    let big = message(&extension(99, &vec![0; 20_000]));
    assert_eq!(parse(&records(&big, 1)), Err(HttpError::ClientHelloTooLarge));
    assert_eq!(parse(&records(&big, 16_000)), Ok(Some((None, vec![]))));
}

#[test]
fn hellos_of_a_real_client() {
    let expected = (
        Some("payments.default.svc.cluster.local".to_string()),
        ["istio", "h2", "http/1.1"].map(String::from).to_vec(),
    );
    for bytes in [
        &include_bytes!("../../fuzz/corpus/client_hello/openssl13")[..],
        include_bytes!("../../fuzz/corpus/client_hello/openssl12"),
    ] {
        assert_eq!(parse(bytes), Ok(Some(expected.clone())));
        assert_eq!(super::super::sniff(bytes), super::super::Sniffed::Tls);
    }
}
