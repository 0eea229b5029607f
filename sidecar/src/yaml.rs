//! YAML or JSON text to a tree of plain nodes with the place of each. JSON is YAML 1.2, so one reader does both.
//!
//! Scalars follow the YAML 1.2 core schema: plain ones are resolved, quoted ones are strings. There are no merge keys
//! and no `yes`/`no`. What a text can grow to is bounded: its size, its depth, and the nodes that aliases copy.
//! Duplicate keys stay in the tree; whoever reads a mapping reports them.

use corelane_xds::tree::{Node, Spanned};
use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use std::{borrow::Cow, collections::HashMap};

pub const TEXT_BYTES_MAX: usize = 64 << 20;
/// Nested lists and mappings; protobuf's own limit is 100 messages.
pub const DEPTH_MAX: usize = 128;
/// Nodes of a document, those that aliases copied included.
pub const NODES_MAX: usize = 8 << 20;

/// Why a text is not a tree. Line and column count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {message}")]
pub struct Error {
    pub line: u32,
    pub column: u32,
    pub message: String,
}

type Tree = Spanned<Node>;

/// The one document of `text`; an empty text is [`Node::Null`].
///
/// # Errors
/// Not YAML, more than one document, a tag or key that has no meaning here, or a bound is passed.
pub fn parse(text: &str) -> Result<Tree, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > TEXT_BYTES_MAX {
        return Err(error((1, 1), format!("{} bytes; the limit is {TEXT_BYTES_MAX}", text.len())));
    }
    match build(text) {
        Err(first) if text.trim_start().starts_with('{') => build(&json_as_yaml(text)).map_err(|_| first),
        built => built,
    }
}

/// The two things that RFC 8259 allows and the YAML reader does not: tabs between tokens (2), and a character outside
/// the basic plane as two escapes (7). Every line keeps its number.
fn json_as_yaml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '\t']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let (written, read) = match surrogate_pair(rest) {
            Some(pair) => (String::from(pair), PAIR_BYTES),
            None if rest.starts_with('\t') => (" ".to_owned(), 1),
            // an escape is two characters, the second of which may be a backslash
            None => {
                let escape: String = rest.chars().take(2).collect();
                let read = escape.len();
                (escape, read)
            }
        };
        out.push_str(&written);
        rest = &rest[read..];
    }
    out.push_str(rest);
    out
}

/// Bytes of two escapes, each of the form `\uXXXX`.
const PAIR_BYTES: usize = 12;

fn surrogate_pair(text: &str) -> Option<char> {
    let unit = |escape: &str| u16::from_str_radix(escape.strip_prefix("\\u")?, 16).ok();
    let units = [unit(text.get(..PAIR_BYTES / 2)?)?, unit(text.get(PAIR_BYTES / 2..PAIR_BYTES)?)?];
    let mut chars = char::decode_utf16(units);
    chars.next()?.ok().filter(|_| chars.next().is_none())
}

fn build(text: &str) -> Result<Tree, Error> {
    let mut builder =
        Builder { open: Vec::new(), root: None, anchors: HashMap::new(), nodes: 0, documents: 0 };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|scan| {
            let at = place(&Span::empty(*scan.marker()));
            error(at, format!("not valid YAML: {}", scan.info()))
        })?;
        builder.take(event, place(&span))?;
    }
    Ok(builder.root.unwrap_or_else(|| Spanned::new(Node::Null, 1, 1)))
}

fn place(span: &Span) -> (u32, u32) {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    (number(span.start.line().max(1)), number(span.start.col() + 1))
}

fn error(at: (u32, u32), message: impl Into<String>) -> Error {
    Error { line: at.0, column: at.1, message: message.into() }
}

/// A list or mapping whose end has not come yet.
struct Open {
    at: (u32, u32),
    anchor: usize,
    kind: Kind,
}

enum Kind {
    Seq(Vec<Tree>),
    Map { pairs: Vec<(Spanned<String>, Tree)>, key: Option<Spanned<String>> },
}

struct Builder {
    open: Vec<Open>,
    root: Option<Tree>,
    /// With the number of nodes in each.
    anchors: HashMap<usize, (Tree, usize)>,
    nodes: usize,
    documents: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, at: (u32, u32)) -> Result<(), Error> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    Err(error(at, "a second document; a configuration is one"))
                } else {
                    Ok(())
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let node = scalar(text, style, tag.as_deref(), at)?;
                self.put(Spanned::new(node, at.0, at.1), anchor, 1)
            }
            Event::Alias(anchor) => {
                let (tree, nodes) = match self.anchors.get(&anchor) {
                    Some((tree, nodes)) => (Spanned::new(tree.value.clone(), tree.line, tree.column), *nodes),
                    None => return Err(error(at, "an alias inside the value it stands for")),
                };
                self.put(tree, 0, nodes)
            }
            Event::SequenceStart(anchor, tag) => {
                self.begin(at, anchor, tag.as_deref(), Kind::Seq(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.begin(at, anchor, tag.as_deref(), Kind::Map { pairs: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(at),
        }
    }

    fn begin(&mut self, at: (u32, u32), anchor: usize, tag: Option<&Tag>, kind: Kind) -> Result<(), Error> {
        let expected = if matches!(kind, Kind::Seq(_)) { "seq" } else { "map" };
        if tag.is_some_and(|tag| !(tag.is_yaml_core_schema() && tag.suffix == expected)) {
            return Err(error(at, "a tag that has no meaning here"));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(error(at, format!("nested deeper than {DEPTH_MAX}")));
        }
        if let Some(Open { kind: Kind::Map { key: None, .. }, .. }) = self.open.last() {
            return Err(error(at, "a list or mapping as a key; keys are names"));
        }
        self.open.push(Open { at, anchor, kind });
        Ok(())
    }

    fn end(&mut self, at: (u32, u32)) -> Result<(), Error> {
        let Some(open) = self.open.pop() else { return Err(error(at, "an end without a beginning")) };
        let node = match open.kind {
            Kind::Seq(items) => Node::Seq(items),
            Kind::Map { pairs, .. } => Node::Map(pairs),
        };
        self.put(Spanned::new(node, open.at.0, open.at.1), open.anchor, 1)
    }

    /// Puts a finished value where it belongs. `nodes`: how many it brings that were not counted yet.
    fn put(&mut self, tree: Tree, anchor: usize, nodes: usize) -> Result<(), Error> {
        let at = (tree.line, tree.column);
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            return Err(error(at, format!("more than {NODES_MAX} values; do aliases multiply?")));
        }
        if anchor != 0 {
            let size = count(&tree.value);
            // the copy is a value too
            self.nodes += size;
            self.anchors.insert(anchor, (Spanned::new(tree.value.clone(), tree.line, tree.column), size));
        }
        let depth = self.open.len();
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(tree),
            Some(Kind::Seq(items)) => items.push(tree),
            Some(Kind::Map { pairs, key }) => match key.take() {
                Some(name) => pairs.push((name, tree)),
                None => *key = Some(Spanned::new(name(tree.value, at)?, at.0, at.1)),
            },
        }
        // an alias may hang a deep value below a deep place
        if nodes > 1 && depth + height(self.last()) > DEPTH_MAX {
            return Err(error(at, format!("nested deeper than {DEPTH_MAX}")));
        }
        Ok(())
    }

    /// The value that was put last.
    fn last(&self) -> Option<&Node> {
        match self.open.last().map(|open| &open.kind) {
            None => self.root.as_ref().map(|tree| &tree.value),
            Some(Kind::Seq(items)) => items.last().map(|tree| &tree.value),
            Some(Kind::Map { pairs, .. }) => pairs.last().map(|(_, tree)| &tree.value),
        }
    }
}

/// A key as its author wrote it, as far as that can be told: `200: x` has the key `200`.
fn name(node: Node, at: (u32, u32)) -> Result<String, Error> {
    match node {
        Node::Str(text) => Ok(text),
        Node::Int(number) => Ok(number.to_string()),
        Node::Bool(value) => Ok(value.to_string()),
        Node::Float(number) => Ok(number.to_string()),
        Node::Null => Err(error(at, "an empty key")),
        Node::Seq(_) | Node::Map(_) => Err(error(at, "a list or mapping as a key; keys are names")),
    }
}

fn count(node: &Node) -> usize {
    1 + match node {
        Node::Seq(items) => items.iter().map(|item| count(&item.value)).sum(),
        Node::Map(pairs) => pairs.iter().map(|(_, value)| count(&value.value)).sum(),
        _ => 0,
    }
}

fn height(node: Option<&Node>) -> usize {
    match node {
        Some(Node::Seq(items)) => 1 + items.iter().map(|item| height(Some(&item.value))).max().unwrap_or(0),
        Some(Node::Map(pairs)) => {
            1 + pairs.iter().map(|(_, value)| height(Some(&value.value))).max().unwrap_or(0)
        }
        _ => 0,
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>, at: (u32, u32)) -> Result<Node, Error> {
    let Some(tag) = tag else {
        return Ok(if style == ScalarStyle::Plain { resolve(&text) } else { Node::Str(text.into_owned()) });
    };
    // `! text` is a string whatever it looks like (YAML 1.2.2, 6.9.1: the non-specific tag)
    if (tag.is_yaml_core_schema() && tag.suffix == "str") || (tag.handle == "!" && tag.suffix.is_empty()) {
        return Ok(Node::Str(text.into_owned()));
    }
    let node = resolve(&text);
    let fits = tag.is_yaml_core_schema()
        && match tag.suffix.as_str() {
            "null" => node == Node::Null,
            "bool" => matches!(node, Node::Bool(_)),
            "int" => matches!(node, Node::Int(_)),
            "float" => matches!(node, Node::Float(_) | Node::Int(_)),
            _ => false,
        };
    if fits {
        Ok(node)
    } else {
        Err(error(at, format!("a tag that has no meaning here, or not for {text:?}")))
    }
}

/// YAML 1.2.2, 10.3.2: tag resolution of the core schema.
fn resolve(text: &str) -> Node {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Node::Null,
        "true" | "True" | "TRUE" => return Node::Bool(true),
        "false" | "False" | "FALSE" => return Node::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Node::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Node::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Node::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let radix = |digits: &str, radix: u32| {
        let plain = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
        plain.then(|| i128::from_str_radix(digits, radix).ok()).flatten().map(Node::Int)
    };
    let based = match text.as_bytes() {
        [b'0', b'x', ..] => radix(&text[2..], 16),
        [b'0', b'o', ..] => radix(&text[2..], 8),
        _ => None,
    };
    based.or_else(|| decimal(text)).unwrap_or_else(|| Node::Str(text.to_owned()))
}

/// `[-+]? [0-9]+`, else `[-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn decimal(text: &str) -> Option<Node> {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.is_empty() && digits(unsigned) {
        let exact = text.strip_prefix('+').unwrap_or(text).parse().ok().map(Node::Int);
        return exact.or_else(|| text.parse().ok().map(Node::Float));
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let well_formed = digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent));
    well_formed.then(|| text.parse().ok().map(Node::Float)).flatten()
}

#[cfg(test)]
mod tests;
