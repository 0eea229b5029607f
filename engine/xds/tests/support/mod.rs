//! What the tests of this crate share: text to tree. The binary has its own, strict reader; this one trusts its input.

#![allow(dead_code)]

pub mod refusal;

use corelane_snapshot::{StatAllocator, StatBlock, StatScope};
use corelane_xds::{
    Document, Finding, Schema,
    tree::{Node, Spanned},
};
use saphyr_parser::{Event, Parser, ScalarStyle, Span};

type Tree = Spanned<Node>;

/// Statistics that nobody keeps.
pub struct NoStats;

impl StatAllocator for NoStats {
    fn block(&mut self, _: StatScope) -> StatBlock {
        StatBlock::default()
    }
}

pub fn tree(text: &str) -> Tree {
    let mut events =
        Parser::new_from_str(text).map(|event| event.unwrap_or_else(|error| panic!("{error}\n{text}")));
    let mut next = || events.next().expect("an event");
    loop {
        match next() {
            (Event::StreamStart | Event::DocumentStart(_), _) => {}
            (event, span) => return node(event, span, &mut next),
        }
    }
}

fn node<'a>(event: Event<'a>, span: Span, next: &mut impl FnMut() -> (Event<'a>, Span)) -> Tree {
    let (line, column) = (span.start.line() as u32, span.start.col() as u32 + 1);
    let value = match event {
        Event::Scalar(text, ScalarStyle::Plain, ..) => plain(&text),
        Event::Scalar(text, ..) => Node::Str(text.into_owned()),
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            loop {
                match next() {
                    (Event::SequenceEnd, _) => break Node::Seq(items),
                    (event, span) => items.push(node(event, span, next)),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut pairs = Vec::new();
            loop {
                let (key, at) = match next() {
                    (Event::MappingEnd, _) => break Node::Map(pairs),
                    (Event::Scalar(key, ..), at) => (key.into_owned(), at),
                    (other, at) => panic!("a key at {at:?}: {other:?}"),
                };
                let key = Spanned::new(key, at.start.line() as u32, at.start.col() as u32 + 1);
                let (event, span) = next();
                pairs.push((key, node(event, span, next)));
            }
        }
        other => panic!("unexpected {other:?}"),
    };
    Spanned::new(value, line, column)
}

fn plain(text: &str) -> Node {
    match text {
        "" | "~" | "null" => Node::Null,
        "true" => Node::Bool(true),
        "false" => Node::Bool(false),
        _ => match (text.parse(), text.parse()) {
            (Ok(int), _) => Node::Int(int),
            (_, Ok(float)) if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
                Node::Float(float)
            }
            _ => Node::Str(text.to_owned()),
        },
    }
}

/// The tree is leaked: tests are short.
pub fn read(text: &str) -> Document<'static> {
    let schema = Schema::load().expect("descriptors");
    Document::read(&schema, Box::leak(Box::new(tree(text)))).expect("descriptors")
}

pub fn lines(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

pub fn fixture(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
