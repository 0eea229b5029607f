//! The in-place session against itself, with records that no honest peer would send.
use std::sync::Arc;

use aws_lc_rs::aead::Aad;
use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::context::{ClientContext, ClientSpec, ContextEnvironment, ServerContext, ServerSpec};
use crate::handshake::{Handshake, Progress, Session};
use crate::identity::CertifiedPem;
use crate::peer::PeerCache;
use crate::record::{CONTENT_BYTES_MAX, RECORD_BYTES_MAX, TRAILER_BYTES};
use crate::suites::TlsVersion;

pub(crate) struct Pair {
    pub(crate) client: Box<InPlace>,
    pub(crate) server: Box<InPlace>,
}

/// Whole records of a flight.
pub(crate) fn records(mut flight: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while let [_, _, _, high, low, ..] = *flight {
        let (record, rest) = flight.split_at(HEADER_BYTES + usize::from(u16::from_be_bytes([high, low])));
        found.push(record.to_vec());
        flight = rest;
    }
    found
}

pub(crate) fn contexts(version: Option<TlsVersion>) -> (Arc<ServerContext>, Arc<ClientContext>) {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let pem = CertifiedPem {
        name: "leaf".to_owned(),
        key_name: "own key".to_owned(),
        chain: certificate.pem().into_bytes(),
        key: key.serialize_pem().into_bytes(),
    };
    let environment = ContextEnvironment::new().unwrap();
    let mut server = ServerSpec::new("server", pem);
    let client = ClientSpec::new("client");
    server.protocol.curves = vec!["X25519".to_owned()];
    server.protocol.version_max = version.unwrap_or(TlsVersion::Tls13);
    let server = ServerContext::build(&server, &environment, 0, 0).unwrap();
    (Arc::new(server), Arc::new(ClientContext::build(&client, &environment).unwrap()))
}

/// Two sessions that agreed by a handshake in memory; the server's keys last for `records_max` records.
fn pair_with(records_max: Option<u64>) -> Pair {
    let (server_context, client_context) = contexts(None);
    let name = crate::context::parse_server_name("a.example").unwrap();
    let mut client = Handshake::client(&client_context, name, None, Facts::default()).unwrap();
    let mut server = Handshake::server(&server_context);
    server.records_max = records_max;
    let (mut client_done, mut server_done) = (false, false);
    let mut tickets = Vec::new();
    while !(client_done && server_done) {
        for record in records(&std::mem::take(&mut client.out)) {
            server_done = server.feed(&record).unwrap() == Progress::Done;
        }
        for record in records(&std::mem::take(&mut server.out)) {
            if client_done {
                tickets.push(record);
            } else {
                client_done = client.feed(&record).unwrap() == Progress::Done;
            }
        }
    }
    let in_place = |handshake: Handshake| match handshake.finish(&PeerCache::default()).unwrap().0 {
        Session::InPlace(session) => session,
        Session::Unbuffered(_) => panic!("TLS 1.3 is in place by default"),
    };
    let pair = Pair { client: in_place(client), server: in_place(server) };
    assert_eq!(tickets.len(), 1);
    for mut ticket in tickets {
        assert_eq!(pair.client.open_in_place(&mut ticket).unwrap(), Received::Control);
    }
    pair
}

pub(crate) fn pair() -> Pair {
    pair_with(None)
}

fn seal(session: &InPlace, contents: &[u8]) -> Vec<u8> {
    let mut record = vec![0; HEADER_BYTES + contents.len() + TRAILER_BYTES];
    record[HEADER_BYTES..][..contents.len()].copy_from_slice(contents);
    session.seal_in_place(&mut record).unwrap();
    record
}

/// A record of any inner type with any padding.
pub(crate) fn seal_inner(session: &InPlace, content_type: u8, contents: &[u8], padding: usize) -> Vec<u8> {
    let mut sealer = session.sealer.borrow_mut();
    let inner = [contents, &[content_type], &vec![0; padding]].concat();
    let mut record = vec![0; HEADER_BYTES + inner.len() + 16];
    let length = (inner.len() + 16) as u16;
    record[..HEADER_BYTES].copy_from_slice(&[23, 3, 3, length.to_be_bytes()[0], length.to_be_bytes()[1]]);
    let (header, body) = record.split_at_mut(HEADER_BYTES);
    let (text, tag) = body.split_at_mut(inner.len());
    text.copy_from_slice(&inner);
    let (key, nonce) = sealer.raw();
    let sealed = key.seal_in_place_separate_tag(nonce, Aad::from(&*header), text).unwrap();
    tag.copy_from_slice(sealed.as_ref());
    record
}

pub(crate) fn open(session: &InPlace, record: &[u8]) -> Result<(Received, Vec<u8>), TlsError> {
    let mut out = vec![0xee; RECORD_BYTES_MAX];
    let received = session.open_into(record, &mut out)?;
    let len = if let Received::Data(len) = received { len } else { 0 };
    Ok((received, out[..len].to_vec()))
}

#[track_caller]
fn assert_alert(result: Result<(Received, Vec<u8>), TlsError>, expected: AlertDescription) {
    match result {
        Err(TlsError::PeerMisbehaved { alert, .. }) => assert_eq!(alert, expected),
        other => panic!("{other:?} in place of {expected:?}"),
    }
}

#[test]
fn every_way_of_sealing_meets_every_way_of_opening() {
    let Pair { client, server } = pair();
    for len in [1, 2, 15, 16, 17, 1000, CONTENT_BYTES_MAX - 1, CONTENT_BYTES_MAX] {
        let contents: Vec<u8> = (0..len).map(|index| index as u8).collect();
        let record = seal(&client, &contents);
        assert_eq!(open(&server, &record).unwrap(), (Received::Data(len), contents.clone()));

        let mut record = vec![0; HEADER_BYTES + len + TRAILER_BYTES];
        server.seal_into(&contents, &mut record).unwrap();
        assert_eq!(client.open_in_place(&mut record).unwrap(), Received::Data(len));
        assert_eq!(&record[HEADER_BYTES..][..len], contents);
    }
    let oversized = &mut vec![0; HEADER_BYTES + CONTENT_BYTES_MAX + 1 + TRAILER_BYTES];
    assert!(client.seal_in_place(oversized).is_err());
}

#[test]
fn padding_is_removed_and_bounded() {
    let Pair { client, server } = pair();
    for padding in [0, 1, 255, 5000] {
        let record = seal_inner(&client, APPLICATION_DATA, b"data\0\0", padding);
        assert_eq!(open(&server, &record).unwrap().1, b"data\0\0");
    }
    let full = vec![7; CONTENT_BYTES_MAX];
    let record = seal_inner(&client, APPLICATION_DATA, &full, 0);
    assert_eq!(open(&server, &record).unwrap().0, Received::Data(CONTENT_BYTES_MAX));
    // RFC 8446 5.4: padding counts
    let record = seal_inner(&client, APPLICATION_DATA, &full, 1);
    assert_alert(open(&server, &record), AlertDescription::RecordOverflow);
    let Pair { client, server } = pair();
    assert_alert(open(&server, &seal_inner(&client, 0, b"", 20)), AlertDescription::UnexpectedMessage);
}

#[test]
fn every_changed_bit_and_every_truncation_is_a_bad_record_mac() {
    for position in 0..HEADER_BYTES + 10 + TRAILER_BYTES {
        let Pair { client, server } = pair();
        let mut record = seal(&client, b"0123456789");
        record[position] ^= 1 << (position % 8);
        assert_alert(open(&server, &record), AlertDescription::BadRecordMac);
        assert_alert(open(&server, &record[..position]), AlertDescription::BadRecordMac);
    }
}

#[test]
fn records_cannot_be_replayed_reordered_or_reflected() {
    let Pair { client, server } = pair();
    let (first, second) = (seal(&client, b"first"), seal(&client, b"second"));
    assert_alert(open(&client, &first), AlertDescription::BadRecordMac);
    assert_eq!(open(&server, &first).unwrap().1, b"first");
    assert_alert(open(&server, &first), AlertDescription::BadRecordMac);
    let Pair { client, server } = pair();
    let (_, later) = (seal(&client, b"first"), seal(&client, b"second"));
    assert_alert(open(&server, &later), AlertDescription::BadRecordMac);
    drop(second);
}

#[test]
fn records_without_data_are_bounded() {
    let Pair { client, server } = pair();
    for round in 0..3 {
        for _ in 0..IDLE_RECORDS_MAX {
            let record = seal_inner(&client, APPLICATION_DATA, b"", round);
            assert_eq!(open(&server, &record).unwrap().0, Received::Control);
        }
        assert_eq!(open(&server, &seal(&client, b"x")).unwrap().1, b"x");
    }
    for _ in 0..IDLE_RECORDS_MAX {
        open(&server, &client.update_keys(false).unwrap()).unwrap();
    }
    assert_alert(open(&server, &client.update_keys(false).unwrap()), AlertDescription::UnexpectedMessage);
}

#[test]
fn alerts_are_told_apart() {
    let Pair { client, server } = pair();
    // user_canceled announces a close_notify, whatever its level
    let record = seal_inner(&client, ALERT, &[1, 90], 0);
    assert_eq!(open(&server, &record).unwrap().0, Received::Control);
    let record = client.alert(AlertDescription::CloseNotify).unwrap();
    assert_eq!(open(&server, &record).unwrap().0, Received::Closed);
    let record = client.alert(AlertDescription::InternalError).unwrap();
    let error = open(&server, &record).unwrap_err();
    assert!(matches!(error, TlsError::PeerAlert(AlertDescription::InternalError)));
    // a "warning" that RFC 8446 does not know as one is fatal
    let error = open(&server, &seal_inner(&client, ALERT, &[1, 100], 0)).unwrap_err();
    assert!(matches!(error, TlsError::PeerAlert(AlertDescription::NoRenegotiation)));
    for contents in [&[2][..], &[2, 40, 2, 40], &[]] {
        let Pair { client, server } = pair();
        let expected = if contents.is_empty() {
            AlertDescription::UnexpectedMessage
        } else {
            AlertDescription::DecodeError
        };
        assert_alert(open(&server, &seal_inner(&client, ALERT, contents, 0)), expected);
    }
}

#[test]
fn unknown_and_misplaced_messages_are_refused() {
    let alert_for = |content_type, contents: &[u8]| {
        let Pair { client, server } = pair();
        let record = seal_inner(&client, content_type, contents, 0);
        match open(&server, &record) {
            Err(TlsError::PeerMisbehaved { alert, .. }) => Some(alert),
            _ => None,
        }
    };
    let unexpected = Some(AlertDescription::UnexpectedMessage);
    assert_eq!(alert_for(20, &[1]), unexpected, "change_cipher_spec");
    assert_eq!(alert_for(24, &[1]), unexpected, "heartbeat");
    assert_eq!(alert_for(HANDSHAKE, &[]), unexpected, "empty");
    assert_eq!(alert_for(HANDSHAKE, &[1, 0, 0, 0]), unexpected, "client_hello");
    assert_eq!(alert_for(HANDSHAKE, &[0, 0, 0, 0]), unexpected, "hello_request");
    assert_eq!(alert_for(HANDSHAKE, &[4, 0, 0, 0]), unexpected, "a ticket from a client");
    assert_eq!(alert_for(HANDSHAKE, &[24, 1, 0, 1]), unexpected, "too long");
    assert_eq!(alert_for(HANDSHAKE, &[24, 0, 0, 1, 2]), Some(AlertDescription::IllegalParameter));
    assert_eq!(alert_for(HANDSHAKE, &[24, 0, 0, 2, 0, 0]), Some(AlertDescription::DecodeError));
    assert_eq!(alert_for(HANDSHAKE, &[24, 0, 0, 0]), Some(AlertDescription::DecodeError));
    assert_eq!(alert_for(HANDSHAKE, &[24, 0, 0, 1, 0, 24]), unexpected, "not at the record's end");

    let Pair { client, server } = pair();
    let ticket = seal_inner(&server, HANDSHAKE, &[4, 0, 0, 2, 0, 0], 0);
    assert_alert(open(&client, &ticket), AlertDescription::DecodeError);
}

#[test]
fn handshake_messages_may_span_records_but_nothing_may_come_between() {
    let Pair { client, server } = pair();
    for byte in [24, 0, 0, 1] {
        let record = seal_inner(&client, HANDSHAKE, &[byte], 3);
        assert_eq!(open(&server, &record).unwrap().0, Received::Control);
    }
    let record = seal_inner(&client, HANDSHAKE, &[0], 0);
    // the client itself has not rotated, so the server's next keys do not fit its records
    assert_eq!(open(&server, &record).unwrap().0, Received::Control);
    assert_eq!(server.key_updates(), (0, 1));
    assert_alert(open(&server, &seal(&client, b"x")), AlertDescription::BadRecordMac);

    for content_type in [APPLICATION_DATA, ALERT] {
        let Pair { client, server } = pair();
        open(&server, &seal_inner(&client, HANDSHAKE, &[24, 0], 0)).unwrap();
        let record = seal_inner(&client, content_type, &[1, 0], 0);
        assert_alert(open(&server, &record), AlertDescription::UnexpectedMessage);
    }
}

#[test]
fn a_requested_key_update_is_answered_before_the_next_data() {
    let Pair { client, server } = pair();
    assert!(server.before_data().unwrap().is_none());
    for round in 1..=3 {
        open(&server, &client.update_keys(true).unwrap()).unwrap();
        assert_eq!(open(&server, &seal(&client, b"new keys")).unwrap().1, b"new keys");
        let answer = server.before_data().unwrap().unwrap();
        assert!(server.before_data().unwrap().is_none(), "one answer is enough");
        assert_eq!(open(&client, &answer).unwrap().0, Received::Control);
        assert!(client.before_data().unwrap().is_none(), "an answer asks for none");
        assert_eq!(open(&client, &seal(&server, b"new keys")).unwrap().1, b"new keys");
        assert_eq!(server.key_updates(), (round, round));
    }
    // several requests are answered once
    for _ in 0..3 {
        open(&server, &client.update_keys(true).unwrap()).unwrap();
    }
    open(&client, &server.before_data().unwrap().unwrap()).unwrap();
    assert!(server.before_data().unwrap().is_none());
    assert_eq!(open(&client, &seal(&server, b"x")).unwrap().1, b"x");
}

#[test]
fn our_keys_are_replaced_before_the_ciphers_limit() {
    const LIMIT: u64 = 5;
    let Pair { client, server } = pair_with(Some(LIMIT));
    let mut updates = 0;
    for index in 0..23u8 {
        if let Some(update) = server.before_data().unwrap() {
            open(&client, &update).unwrap();
            updates += 1;
        }
        assert_eq!(open(&client, &seal(&server, &[index])).unwrap().1, [index]);
        assert!(server.sealer.borrow().sequence() <= LIMIT);
    }
    assert!(updates >= 4, "{updates}");
    assert_eq!(server.key_updates(), (updates, 0));
}

#[test]
fn sequence_numbers_do_not_wrap() {
    let Pair { client, server } = pair();
    client.sealer.borrow_mut().set_sequence(u64::MAX - 1);
    server.reading.borrow_mut().opener.set_sequence(u64::MAX - 1);
    assert_eq!(open(&server, &seal(&client, b"last")).unwrap().1, b"last");
    let mut record = vec![0; HEADER_BYTES + 1 + TRAILER_BYTES];
    assert!(matches!(client.seal_in_place(&mut record), Err(TlsError::KeysExhausted)));
    assert!(matches!(open(&server, &record), Err(TlsError::KeysExhausted)));
}

/// Runs a byte stream through intake and session, in pieces; returns what was delivered and how it ended.
fn receive(session: &InPlace, wire: &[u8], piece: usize) -> (Vec<Vec<u8>>, Result<(), AlertDescription>) {
    let pool = corelane_runtime::BufferPool::new(16 * 1024, 2);
    let mut intake = crate::intake::Intake::default();
    intake.protected = true;
    let mut delivered = Vec::new();
    let mut rest = wire;
    loop {
        let mut buf = match intake.prepare(None, &pool) {
            Ok(buf) => buf,
            Err(offence) => return (delivered, Err(offence.alert)),
        };
        if rest.is_empty() {
            return (delivered, Ok(()));
        }
        let n = buf.extend_from_slice(&rest[..piece.min(rest.len())]);
        rest = &rest[n..];
        intake.accept(buf);
        while let Ok(Some(len)) = intake.whole() {
            let opened = open(session, intake.record(len));
            intake.consume(len);
            match opened {
                Ok((Received::Data(_), data)) => delivered.push(data),
                Ok(_) => {}
                Err(TlsError::PeerMisbehaved { alert, .. }) => return (delivered, Err(alert)),
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn a_stream_cut_anywhere_delivers_its_whole_records_and_one_damaged_anywhere_those_before() {
    let contents: [&[u8]; 3] = [b"first", b"the second one", b"3"];
    let sizes = contents.map(|data| HEADER_BYTES + data.len() + TRAILER_BYTES);
    let ends = [sizes[0], sizes[0] + sizes[1], sizes[0] + sizes[1] + sizes[2]];
    let whole_before = |position: usize| ends.iter().filter(|&&end| end <= position).count();
    for position in 0..ends[2] {
        let Pair { client, server } = pair();
        let wire = contents.map(|data| seal(&client, data)).concat();
        let (delivered, end) = receive(&server, &wire[..position], 1 + position % 11);
        assert_eq!(delivered, contents[..whole_before(position)]);
        assert_eq!(end, Ok(()));
        let Pair { client, server } = pair();
        let mut wire = contents.map(|data| seal(&client, data)).concat();
        wire[position] ^= 0x10;
        let (delivered, end) = receive(&server, &wire, 1 + position % 30);
        assert_eq!(delivered, contents[..whole_before(position)]);
        // a changed length may only leave the record waiting for bytes that never come
        let in_length = ends
            .iter()
            .zip(sizes)
            .any(|(end, size)| (position + size).checked_sub(*end).is_some_and(|at| (3..5).contains(&at)));
        assert!(end.is_err() || in_length, "byte {position}");
    }
}
