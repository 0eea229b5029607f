//! Replays the committed corpora through the fuzz targets, with a bounded number of mutations of each seed from a fixed
//! generator: a plain `cargo test` is a small fuzz run. `FUZZ_ROUNDS` makes it a longer one.

#![allow(clippy::unwrap_used)]

use corelane_sidecar::fuzz::TARGETS;
use std::{fs, path::Path};

const ROUNDS: u64 = 400;

/// xorshift64*: deterministic and spread out.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n.max(1)
    }
}

/// What turns the meaning of the texts read here.
const WORDS: [&[u8]; 16] = [
    b"%",
    b"%%",
    b"(",
    b")%",
    b": ",
    b"\n",
    b"\n  ",
    b"- ",
    b"&a ",
    b"*a",
    b"~",
    b"\"",
    b"-1",
    b"1e999",
    b"{",
    b"\xc3\xa4",
];

fn mutated(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(data.len() + 1);
        match random.below(4) {
            0 => data.truncate(at),
            1 => drop(data.drain(at..(at + random.below(9)).min(data.len()))),
            2 => {
                let line = data[at..(at + random.below(60)).min(data.len())].to_vec();
                let to = random.below(data.len() + 1);
                data.splice(to..to, line);
            }
            _ => drop(data.splice(at..at, WORDS[random.below(WORDS.len())].iter().copied())),
        }
    }
    data
}

#[test]
fn no_text_breaks_an_invariant() {
    let rounds = std::env::var("FUZZ_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut folders: Vec<_> = fs::read_dir(&corpora)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort();
    assert_eq!(
        folders,
        TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        "a corpus for each target"
    );
    for (name, run) in TARGETS {
        let mut seeds: Vec<_> =
            fs::read_dir(corpora.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        seeds.sort();
        assert!(seeds.len() >= 8, "{name} has {} seeds", seeds.len());
        for path in seeds {
            let seed = fs::read(&path).unwrap();
            let mut random = Random(0x9e37_79b9_7f4a_7c15);
            for round in 0..=rounds {
                let data = if round == 0 { seed.clone() } else { mutated(&seed, &mut random) };
                if let Err(panic) = std::panic::catch_unwind(|| run(&data)) {
                    eprintln!("{}: b\"{}\"", path.display(), data.escape_ascii());
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
}
