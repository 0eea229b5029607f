//! From a field path back to the line and column where the field stands, by walking the file's tree: findings are few,
//! so nothing is stored for them while a file is read.

use crate::{
    finding::Finding,
    tree::{Node, Spanned},
};

/// Line and column of the field at `path`, else of the nearest field around it: a missing field is reported at its
/// message. Of a field its name's place counts, of a list's entry its own.
pub(crate) fn locate(root: &Spanned<Node>, path: &str) -> (u32, u32) {
    let (mut at, mut node, mut rest) = (root.at(), root, path);
    while let Some((place, next, after)) = step(node, rest) {
        (at, node, rest) = (place, next, after);
    }
    at
}

pub(crate) fn fill(root: &Spanned<Node>, findings: &mut [Finding]) {
    for finding in findings.iter_mut().filter(|finding| finding.line.is_none()) {
        let (line, column) = locate(root, &finding.path);
        (finding.line, finding.column) = (Some(line), Some(column));
    }
}

type Step<'n, 'p> = ((u32, u32), &'n Spanned<Node>, &'p str);

/// One segment: `name`, `[3]` or `[key]`.
fn step<'n, 'p>(node: &'n Spanned<Node>, path: &'p str) -> Option<Step<'n, 'p>> {
    let path = path.strip_prefix('.').unwrap_or(path);
    match (&node.value, path.strip_prefix('[')) {
        (Node::Seq(items), Some(rest)) => {
            let (index, after) = rest.split_once(']')?;
            let item = items.get(index.parse::<usize>().ok()?)?;
            Some((item.at(), item, after))
        }
        (Node::Map(entries), Some(rest)) => {
            // keys may hold brackets and dots themselves: the longest key that fits is meant
            let fits = |key: &str| rest.strip_prefix(key).is_some_and(|after| after.starts_with(']'));
            let found =
                entries.iter().filter(|(key, _)| fits(&key.value)).max_by_key(|(key, _)| key.value.len());
            let (key, value) = found?;
            Some((key.at(), value, &rest[key.value.len() + 1..]))
        }
        (Node::Map(entries), None) if !path.is_empty() => {
            let end = path.find(['.', '[']).unwrap_or(path.len());
            let (name, after) = path.split_at(end);
            let find = |entries: &'n [(Spanned<String>, Spanned<Node>)]| {
                entries
                    .iter()
                    .find(|(key, _)| is_name(&key.value, name))
                    .map(|(key, value)| (key.at(), value, after))
            };
            find(entries).or_else(|| match &struct_value(entries)?.value {
                Node::Map(inner) => find(inner),
                _ => None,
            })
        }
        _ => None,
    }
}

/// The fields of a TypedStruct stand one level deeper than its type's.
fn struct_value(entries: &[(Spanned<String>, Spanned<Node>)]) -> Option<&Spanned<Node>> {
    let find = |names: [&str; 2]| entries.iter().find(|(key, _)| names.contains(&key.value.as_str()));
    find(["type_url", "typeUrl"])?;
    find(["value", "value"]).map(|(_, value)| value)
}

/// As written in the .proto file, or in lowerCamelCase.
fn is_name(written: &str, name: &str) -> bool {
    let mut upper = false;
    let mut camel = name.chars().filter_map(|c| {
        let was = std::mem::replace(&mut upper, c == '_');
        (c != '_').then(|| if was { c.to_ascii_uppercase() } else { c })
    });
    written == name || written.chars().all(|c| camel.next() == Some(c)) && camel.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(line: u32, entries: Vec<(&str, Node)>) -> Node {
        let spanned = |(number, (key, value)): (usize, (&str, Node))| {
            let column = number as u32 + 1;
            (Spanned::new(key.to_owned(), line, column), Spanned::new(value, line, column + 100))
        };
        Node::Map(entries.into_iter().enumerate().map(spanned).collect())
    }

    #[test]
    fn a_path_leads_to_its_field_or_as_near_as_there_is() {
        let deep = map(
            3,
            vec![("x", Node::Int(1)), ("typeUrl", Node::Null), ("value", map(9, vec![("in", Node::Null)]))],
        );
        let list = Node::Seq(vec![Spanned::new(Node::Null, 2, 1), Spanned::new(deep, 2, 2)]);
        let keyed = map(4, vec![("k", Node::Null), ("k[y]-z[0]", map(5, vec![("z", Node::Null)]))]);
        let root = Spanned::new(map(1, vec![("snakeCase", list), ("keys", keyed)]), 1, 1);
        for (path, at) in [
            ("", (1, 1)),
            ("snake_case", (1, 1)),
            ("snake_case[1]", (2, 2)),
            ("snake_case[1].x", (3, 1)),
            ("snake_case[1].in", (9, 1)),
            ("snake_case[1].absent[3].more", (2, 2)),
            ("snake_case[7].x", (1, 1)),
            ("keys[k]", (4, 1)),
            ("keys[k].q", (4, 1)),
            ("keys[k[y]-z[0]].z", (5, 1)),
            ("keys[absent]", (1, 2)),
            ("nothing", (1, 1)),
        ] {
            assert_eq!(locate(&root, path), at, "{path}");
        }
    }

    #[test]
    fn names_in_both_spellings() {
        assert!(
            is_name("connect_timeout", "connect_timeout") && is_name("connectTimeout", "connect_timeout")
        );
        assert!(is_name("x5xx", "x_5xx") && is_name("name", "name"));
        assert!(
            !is_name("connectTimeou", "connect_timeout") && !is_name("connectTimeouts", "connect_timeout")
        );
    }
}
