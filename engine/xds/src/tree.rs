//! What a configuration file says, free of its syntax: the YAML or JSON reader of the binary makes this tree,
//! and [`crate::read`] maps it to protobuf.

/// A value and where it begins. Lines and columns count from 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Spanned<T> {
    pub value: T,
    pub line: u32,
    pub column: u32,
}

impl<T> Spanned<T> {
    pub fn new(value: T, line: u32, column: u32) -> Self {
        Spanned { value, line, column }
    }

    pub(crate) fn at(&self) -> (u32, u32) {
        (self.line, self.column)
    }
}

/// JSON's data model with integers kept exact. A plain YAML scalar comes resolved (`8080` is an `Int`), a quoted
/// one is a `Str`. Maps keep their order and their duplicates, which are reported.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(String),
    Seq(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl Node {
    /// What a finding calls it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Node::Null => "nothing",
            Node::Bool(_) => "a boolean",
            Node::Int(_) => "an integer",
            Node::Float(_) => "a number",
            Node::Str(_) => "a string",
            Node::Seq(_) => "a list",
            Node::Map(_) => "a mapping",
        }
    }
}
