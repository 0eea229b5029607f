//! Whatever a file says, reading it gives findings and never a panic. `SEED=` replays one run.

#![allow(clippy::unwrap_used)]

mod support;

use corelane_snapshot::Builder;
use corelane_xds::{
    DEPTH_MAX, Document, FINDINGS_MAX, Schema, to_json, translate,
    tree::{Node, Spanned},
};
use support::NoStats;

type Tree = Spanned<Node>;

/// xorshift64*: good enough to pick places.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }
}

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";
const FIXTURES: [&str; 3] = ["minimal.yaml", "first_example.yaml", "istio_like_inbound.yaml"];
const STRINGS: [&str; 14] = [
    "",
    "-1",
    "0s",
    "1.5s",
    "-1s",
    "NaN",
    "*",
    "%REQ(",
    "(",
    "::1",
    "\u{0}\r\n",
    "type.googleapis.com/google.protobuf.Any",
    "type.googleapis.com/envoy.config.bootstrap.v3.Bootstrap",
    "ROUND_ROBIN",
];
const NUMBERS: [i128; 9] = [0, -1, 1, 65535, 65536, 4_294_967_295, 1 << 32, i64::MAX as i128, i128::MAX];

fn count(tree: &Tree) -> usize {
    1 + match &tree.value {
        Node::Seq(items) => items.iter().map(count).sum(),
        Node::Map(pairs) => pairs.iter().map(|(_, value)| count(value)).sum(),
        _ => 0,
    }
}

/// The node at a place in depth-first order.
fn at(tree: &mut Tree, place: usize) -> &mut Tree {
    if place == 0 {
        return tree;
    }
    let mut left = place - 1;
    let children: Vec<&mut Tree> = match &mut tree.value {
        Node::Seq(items) => items.iter_mut().collect(),
        Node::Map(pairs) => pairs.iter_mut().map(|(_, value)| value).collect(),
        _ => Vec::new(),
    };
    for child in children {
        let size = count(child);
        if left < size {
            return at(child, left);
        }
        left -= size;
    }
    panic!("place {place} is outside the tree")
}

fn mutate(tree: &mut Tree, random: &mut Random) {
    let donor = at(tree, random.below(count(&tree.clone()))).clone();
    let place = random.below(count(tree));
    let node = at(tree, place);
    match (random.below(9), &mut node.value) {
        (0, value) => *value = Node::Str(STRINGS[random.below(STRINGS.len())].to_owned()),
        (1, value) => *value = Node::Int(NUMBERS[random.below(NUMBERS.len())]),
        (2, value) => *value = [Node::Null, Node::Bool(true), Node::Float(f64::NAN)][random.below(3)].clone(),
        (3, value) => *value = donor.value,
        (4, Node::Map(pairs)) if !pairs.is_empty() => {
            let pair = pairs[random.below(pairs.len())].clone();
            pairs.push(pair);
        }
        (5, Node::Map(pairs)) if !pairs.is_empty() => {
            let index = random.below(pairs.len());
            pairs[index].0.value = if random.below(2) == 0 { "@type".into() } else { donor_key(&donor) };
        }
        (6, Node::Map(pairs)) if !pairs.is_empty() => {
            pairs.remove(random.below(pairs.len()));
        }
        (7, Node::Seq(items)) => items.push(donor),
        (_, value) => *value = Node::Seq(vec![donor]),
    }
}

fn donor_key(donor: &Tree) -> String {
    match &donor.value {
        Node::Str(text) => text.clone(),
        Node::Map(pairs) => pairs.first().map(|(key, _)| key.value.clone()).unwrap_or_default(),
        _ => "typed_config".to_owned(),
    }
}

fn read_and_translate(schema: &Schema, tree: &Tree) {
    let document = Document::read(schema, tree).unwrap();
    assert!(document.findings().len() <= 2 * (FINDINGS_MAX + 1));
    let mut builder = Builder::new(Box::new(NoStats));
    let translation = translate::bootstrap(&document, &mut builder);
    assert!(translation.is_sound() || document.is_sound() || !translation.findings.is_empty());
    for finding in &translation.findings {
        assert!(finding.line.is_some(), "not located: {finding}");
    }
    builder.build().unwrap();
    to_json(schema, BOOTSTRAP, &document.encoded).unwrap();
}

fn seed() -> u64 {
    std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x00c0_ffee)
}

#[test]
fn mutated_files_are_refused_and_never_panic() {
    let schema = Schema::load().unwrap();
    let seed = seed();
    let mut random = Random(seed);
    for name in FIXTURES {
        let sound = support::tree(&support::fixture(name));
        for round in 0..150 {
            let mut tree = sound.clone();
            for _ in 0..=random.below(4) {
                mutate(&mut tree, &mut random);
            }
            let result = std::panic::catch_unwind(|| read_and_translate(&schema, &tree));
            assert!(result.is_ok(), "{name}, round {round}, SEED={seed}: {tree:?}");
        }
    }
}

#[test]
fn mutated_bytes_never_panic() {
    let schema = Schema::load().unwrap();
    let mut random = Random(seed());
    for name in FIXTURES {
        let encoded = support::read(&support::fixture(name)).encoded;
        for _ in 0..200 {
            let mut bytes = encoded.clone();
            for _ in 0..=random.below(3) {
                let index = random.below(bytes.len());
                bytes[index] = random.below(256) as u8;
            }
            bytes.truncate(encoded.len() - random.below(4));
            let _ = to_json(&schema, BOOTSTRAP, &bytes);
        }
    }
}

/// `{ key: { key: ... } }`, as deep as asked.
fn nested(key: &str, depth: usize) -> Tree {
    let mut tree = Spanned::new(Node::Map(Vec::new()), 1, 1);
    for _ in 0..depth {
        tree = Spanned::new(Node::Map(vec![(Spanned::new(key.to_owned(), 1, 1), tree)]), 1, 1);
    }
    tree
}

#[test]
fn depth_is_bounded() {
    let schema = Schema::load().unwrap();
    let node =
        Spanned::new(Node::Map(vec![(Spanned::new("metadata".to_owned(), 1, 1), nested("a", 300))]), 1, 1);
    let tree = Spanned::new(Node::Map(vec![(Spanned::new("node".to_owned(), 1, 1), node)]), 1, 1);
    let document = Document::read(&schema, &tree).unwrap();
    let messages: Vec<&str> = document.findings().iter().map(|finding| finding.message.as_str()).collect();
    assert_eq!(messages, [format!("nested deeper than {DEPTH_MAX} messages")]);
}

#[test]
fn findings_are_bounded() {
    let schema = Schema::load().unwrap();
    let entry = |number: usize| (Spanned::new(format!("x{number}"), 1, 1), Spanned::new(Node::Null, 1, 1));
    let tree = Spanned::new(Node::Map((0..5000).map(entry).collect()), 1, 1);
    let document = Document::read(&schema, &tree).unwrap();
    assert_eq!(document.findings().len(), FINDINGS_MAX + 1);
    assert_eq!(document.findings().last().unwrap().message, "4000 further findings are not shown");
}
