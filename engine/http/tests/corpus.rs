//! Replays the committed corpora through the fuzz targets, then mutates each seed a bounded number of times with
//! a fixed generator, so that a plain `cargo test` is a small fuzz run. `FUZZ_ROUNDS` raises the number of
//! mutations for a longer one.

#![allow(clippy::unwrap_used)]

use corelane_http::fuzz::TARGETS;
use std::{fs, path::Path};

const ROUNDS: u64 = 150;

/// xorshift64*: enough to be deterministic and spread out.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Bytes and words on which parsers turn.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"\r\n\r\n",
    b"\r\n ",
    b" :",
    b"0\r\n\r\n",
    b"chunked",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: b\r\n",
    b"Connection: upgrade, x\r\n",
    b"HTTP/1.0",
    b"%2e%2e",
    b"%2f",
    b"/../",
    b"%",
    b"32",
    b"\\",
    b"?",
    b"#",
    b"http://a",
    b"\xff",
    b"\x80",
    b"ffffffffffffffff",
    b"+1",
    b"PROXY ",
    b"\x16\x03\x01",
    b"[::1]",
    b"@",
];

fn mutate(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(data.len() + 1);
        match random.below(7) {
            0 if at < data.len() => data[at] = random.next() as u8,
            1 if at < data.len() => data[at] ^= 1 << random.below(8),
            2 => data.truncate(at),
            3 => {
                let end = (at + random.below(8)).min(data.len());
                data.drain(at..end);
            }
            4 => {
                let end = (at + random.below(40)).min(data.len());
                let copy = data[at..end].to_vec();
                let to = random.below(data.len() + 1);
                data.splice(to..to, copy);
            }
            _ => {
                let word = WORDS[random.below(WORDS.len())];
                data.splice(at..at, word.iter().copied());
            }
        }
    }
    data
}

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut seeds: Vec<(String, Vec<u8>)> = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("corpus {}: {e}", folder.display()))
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    seeds.sort();
    seeds
}

fn replay(target: &str) {
    let run = TARGETS.iter().find(|(name, _)| *name == target).unwrap().1;
    let rounds = std::env::var("FUZZ_ROUNDS").map_or(ROUNDS, |n| n.parse().unwrap());
    let seeds = seeds(target);
    assert!(seeds.len() >= 8, "corpus of {target} has {} seeds", seeds.len());
    for (name, seed) in &seeds {
        guarded(run, seed, name, "as committed");
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed.len() as u64);
        for _ in 0..rounds {
            let data = mutate(seed, &mut random);
            guarded(run, &data, name, "mutated");
        }
    }
}

/// Shows the input that broke an invariant, ready to become a seed.
fn guarded(run: fn(&[u8]), data: &[u8], name: &str, how: &str) {
    if let Err(panic) = std::panic::catch_unwind(|| run(data)) {
        eprintln!("seed {name} {how}: b\"{}\"", data.escape_ascii());
        std::panic::resume_unwind(panic);
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { replay(stringify!($name)); })*

        #[test]
        fn every_target_is_replayed() {
            let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

targets! { request_head response_head chunked_body path_rules request_rules client_hello proxy_header first_bytes }
