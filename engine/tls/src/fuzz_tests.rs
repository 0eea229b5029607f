//! Replays the committed corpora, and small mutations of each entry from a fixed seed.
//!
//! `handshake` and `session` need keys and certificates that only tests make, so their targets are here: one feeds
//! records to a server that waits for a ClientHello, the other sends authenticated messages of any type.
use std::path::PathBuf;
use std::sync::Arc;

use crate::context::{ClientContext, ServerContext, parse_server_name};
use crate::fuzzing;
use crate::handshake::{HANDSHAKE_RECORDS_MAX, Handshake, Progress};
use crate::inplace::tests::{contexts, open, pair, records, seal_inner};
use crate::peer::PeerCache;
use crate::scope::Facts;
use crate::suites::TlsVersion;

const MUTATIONS: u64 = 60;
/// Handshakes with damaged flights, for each version.
const ROUNDS: u64 = 300;

/// xorshift64*: reproducible, and good enough to pick bytes.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below.max(1)
    }
}

fn mutated(entry: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut data = entry.to_vec();
    for _ in 0..=dice.roll(3) {
        let position = dice.roll(data.len());
        match dice.roll(5) {
            0 => data.truncate(position),
            1 => data.insert(position.min(data.len()), dice.roll(256) as u8),
            2 if !data.is_empty() => drop(data.remove(position)),
            3 => data.extend_from_within(position.min(data.len())..),
            _ => {
                if let Some(byte) = data.get_mut(position) {
                    *byte ^= 1 << dice.roll(8);
                }
            }
        }
    }
    data
}

fn replay(target: &str, extra: &[Vec<u8>], mut run: impl FnMut(&[u8])) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut entries: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    assert!(!entries.is_empty(), "{target} has no corpus");
    let mut inputs: Vec<_> = entries.iter().map(|path| std::fs::read(path).unwrap()).collect();
    inputs.extend_from_slice(extra);
    let mut dice = Dice(0x5eed_0001);
    for input in &inputs {
        run(input);
        for _ in 0..MUTATIONS {
            run(&mutated(input, &mut dice));
        }
    }
}

#[test]
fn records_in_any_segmentation() {
    replay("records", &[], fuzzing::records);
}

#[test]
fn client_hellos() {
    replay("client_hello", &[], fuzzing::client_hello);
}

#[test]
fn certificates() {
    replay("certificate", &[], fuzzing::certificate);
}

/// A client's first flight, re-cut into records of at most `size` bytes.
fn client_flight(client: &Arc<ClientContext>, size: usize) -> Vec<u8> {
    let name = parse_server_name("a.example").unwrap();
    let handshake = Handshake::client(client, name, None, Facts::default()).unwrap();
    let [record] = records(&handshake.out).try_into().unwrap();
    let pieces = record[5..].chunks(size).flat_map(|piece| {
        let [high, low] = (piece.len() as u16).to_be_bytes();
        [&[22, 3, 1, high, low], piece].concat()
    });
    pieces.collect()
}

fn feed_server(server: &Arc<ServerContext>, wire: &[u8]) -> bool {
    let mut handshake = Handshake::server(server);
    for record in records_within(wire) {
        if handshake.feed(&record).is_err() {
            return false;
        }
    }
    !handshake.out.is_empty()
}

/// The whole records of a stream that may be damaged.
fn records_within(mut wire: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while let [_, _, _, high, low, ..] = *wire {
        let len = 5 + usize::from(u16::from_be_bytes([high, low]));
        if len == 5 || len > wire.len() {
            break;
        }
        found.push(wire[..len].to_vec());
        wire = &wire[len..];
    }
    found
}

#[test]
fn first_flights_to_a_server() {
    let (server, client) = contexts(None);
    let flights: Vec<_> = [1, 3, 100, 10_000].map(|size| client_flight(&client, size)).to_vec();
    for flight in &flights {
        assert!(feed_server(&server, flight), "an honest hello is answered however it is cut");
    }
    // bytes that lead nowhere end, and cost no more than their number
    let mut endless = Handshake::server(&server);
    let mut fed = 0;
    while endless.feed(&[22, 3, 1, 0, 1, 1]).is_ok() {
        fed += 1;
    }
    assert!(fed <= HANDSHAKE_RECORDS_MAX, "{fed}");
    replay("handshake", &flights, |data| {
        feed_server(&server, data);
    });
}

#[test]
fn authenticated_messages_of_any_kind() {
    // messages: type 1, padding 1, length 2, contents; the lowest bit of the first byte chooses the receiver
    replay("session", &[], |data| {
        let Some((&first, mut rest)) = data.split_first() else { return };
        let pair = pair();
        let (from, to) =
            if first & 1 == 0 { (&pair.client, &pair.server) } else { (&pair.server, &pair.client) };
        while let [content_type, padding, high, low, contents @ ..] = rest {
            let len = usize::from(u16::from_be_bytes([*high, *low])).min(contents.len()).min(16_000);
            let (contents, after) = contents.split_at(len);
            rest = after;
            let record = seal_inner(from, *content_type, contents, usize::from(*padding));
            if open(to, &record).is_err() {
                return;
            }
            let _ = to.before_data().unwrap();
        }
    });
}

/// Joins the messages of neighbouring plain handshake records and cuts them anew, at most `size` bytes a record.
fn recut(flight: &[Vec<u8>], size: usize) -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    let mut joined: Vec<u8> = Vec::new();
    let mut encrypted = false;
    let flush = |joined: &mut Vec<u8>, found: &mut Vec<Vec<u8>>| {
        for piece in joined.chunks(size) {
            let [high, low] = (piece.len() as u16).to_be_bytes();
            found.push([&[22, 3, 3, high, low], piece].concat());
        }
        joined.clear();
    };
    for record in flight {
        if record[0] == 22 && !encrypted {
            joined.extend_from_slice(&record[5..]);
        } else {
            flush(&mut joined, &mut found);
            encrypted = true;
            found.push(record.clone());
        }
    }
    flush(&mut joined, &mut found);
    found
}

#[test]
fn handshakes_with_damaged_and_recut_flights_fail_cleanly_or_succeed() {
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let (server_context, client_context) = contexts(Some(version));
        let mut finished = 0;
        for seed in 1..=ROUNDS {
            let mut dice = Dice(seed << 20 | 0x5eed);
            // one flight in three rounds of four is damaged
            let damaged_flight = dice.roll(4);
            let size = [1, 5, 64, 20_000][dice.roll(4)];
            let name = parse_server_name("a.example").unwrap();
            let mut client = Handshake::client(&client_context, name, None, Facts::default()).unwrap();
            let mut server = Handshake::server(&server_context);
            let mut done = (false, false);
            'exchange: for flight in 0..6 {
                let to_server = flight % 2 == 0;
                let (from, to) =
                    if to_server { (&mut client, &mut server) } else { (&mut server, &mut client) };
                let wire = recut(&records(&std::mem::take(&mut from.out)), size);
                for record in wire {
                    if (to_server && done.0) || (!to_server && done.1) {
                        continue;
                    }
                    let record = if flight == damaged_flight && dice.roll(4) == 0 {
                        mutated(&record, &mut dice)
                    } else {
                        record
                    };
                    for record in records_within(&record) {
                        match to.feed(&record) {
                            Err(_) => break 'exchange,
                            Ok(Progress::Wants) => {}
                            Ok(Progress::Done) if to_server => done.0 = true,
                            Ok(Progress::Done) => done.1 = true,
                        }
                    }
                }
            }
            if done == (true, true) {
                client.finish(&PeerCache::default()).unwrap();
                server.finish(&PeerCache::default()).unwrap();
                finished += 1;
            }
        }
        assert!(finished > 0 && finished < ROUNDS, "{finished} of {ROUNDS}");
    }
}
