//! Where in a configuration a certificate, key, bundle or revocation list is named: contexts are built from a snapshot, which
//! no longer knows lines. The texts are read once more, and only where there is something to tell.

use crate::{
    control::secrets::Fault,
    findings::{Finding, Source},
    yaml,
};
use corelane_xds::tree::{Node, Spanned};

/// The fault as findings at each place that names what is at fault; where there is none, as one of the resource.
pub fn findings_of(fault: &Fault, sources: &[Source]) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(part) = &fault.part {
        for (source, text) in sources.iter().enumerate() {
            let Ok(tree) = yaml::parse(&text.text) else { continue };
            let mut search = Search {
                source,
                fault,
                field: plain(part.field),
                value: &part.value,
                owner: None,
                found: &mut found,
            };
            search.walk(&tree, &mut String::new());
        }
    }
    if found.is_empty() {
        found.push(Finding::outside(fault.resource.clone(), fault.message.clone()));
    }
    found
}

struct Search<'a> {
    source: usize,
    fault: &'a Fault,
    field: String,
    value: &'a str,
    /// The listener or cluster that is walked through, as faults call it. None: what all share, as secrets are.
    owner: Option<String>,
    found: &'a mut Vec<Finding>,
}

impl Search<'_> {
    fn walk(&mut self, node: &Spanned<Node>, path: &mut String) {
        let length = path.len();
        match &node.value {
            Node::Map(pairs) => {
                for (key, value) in pairs {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(&key.value);
                    if plain(&key.value) == self.field {
                        self.look(value, path);
                    }
                    self.walk(value, path);
                    path.truncate(length);
                }
            }
            Node::Seq(items) => {
                let kind = match path.as_str() {
                    "static_resources.listeners" | "staticResources.listeners" => Some("listener"),
                    "static_resources.clusters" | "staticResources.clusters" => Some("cluster"),
                    _ => None,
                };
                for (index, item) in items.iter().enumerate() {
                    if let Some(kind) = kind {
                        self.owner = Some(format!(
                            "{kind} `{}`",
                            text_of(item, "name").map_or("", |name| name.0.as_str())
                        ));
                    }
                    path.push_str(&format!("[{index}]"));
                    self.walk(item, path);
                    path.truncate(length);
                }
                if kind.is_some() {
                    self.owner = None;
                }
            }
            _ => {}
        }
    }

    /// At a data source under the field's name.
    fn look(&mut self, node: &Spanned<Node>, path: &str) {
        if self.owner.as_ref().is_some_and(|owner| *owner != self.fault.resource) {
            return;
        }
        for specifier in ["filename", "inline_string", "inlineString", "inline_bytes", "inlineBytes"] {
            let Some(((text, at), is_file)) =
                text_of(node, specifier).map(|found| (found, specifier == "filename"))
            else {
                continue;
            };
            // what is inline is not told apart by its text: a key is not carried around for a message
            if is_file == (self.value != INLINE) && (!is_file || text == self.value) {
                let path = format!("{path}.{specifier}");
                self.found.push(Finding::error(self.source, at, path, self.fault.message.clone()));
            }
        }
    }
}

/// What a fault's part is called where no file holds it.
const INLINE: &str = "<inline>";

/// The text of a field and its place.
fn text_of<'a>(node: &'a Spanned<Node>, name: &str) -> Option<(&'a String, (u32, u32))> {
    let Node::Map(pairs) = &node.value else { return None };
    let (_, value) = pairs.iter().find(|(key, _)| key.value == name)?;
    match &value.value {
        Node::Str(text) => Some((text, (value.line, value.column))),
        _ => None,
    }
}

/// Protobuf's JSON has fields in both spellings.
fn plain(name: &str) -> String {
    name.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect()
}
