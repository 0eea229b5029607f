//! Blanks comments and the insides of literals in Rust source, byte for byte.

pub fn mask(text: &str) -> String {
    let mut masker = Masker { source: text.as_bytes(), at: 0, out: Vec::with_capacity(text.len()) };
    while masker.at < masker.source.len() {
        masker.step();
    }
    String::from_utf8(masker.out).expect("only whole characters are blanked, each by spaces")
}

struct Masker<'a> {
    source: &'a [u8],
    at: usize,
    out: Vec<u8>,
}

impl Masker<'_> {
    fn step(&mut self) {
        let rest = &self.source[self.at..];
        let in_name = self.out.last().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        if rest.starts_with(b"//") {
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            self.blank(end);
        } else if rest.starts_with(b"/*") {
            self.blank(block_comment(rest));
        } else if !in_name && let Some(hashes) = raw_string(rest) {
            let opening = rest.iter().position(|byte| *byte == b'"').expect("raw_string saw it") + 1;
            self.keep(opening);
            let closing = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
            let inside = &self.source[self.at..];
            let end =
                inside.windows(closing.len()).position(|window| window == closing).unwrap_or(inside.len());
            self.blank(end);
            self.keep(closing.len().min(self.source.len() - self.at));
        } else if rest[0] == b'"' {
            self.keep(1);
            self.blank(quoted(&self.source[self.at..], b'"'));
            self.keep(1);
        } else if rest[0] == b'\'' && is_char(rest) {
            self.keep(1);
            self.blank(quoted(&self.source[self.at..], b'\''));
            self.keep(1);
        } else {
            self.keep(1);
        }
    }

    fn keep(&mut self, count: usize) {
        let end = (self.at + count).min(self.source.len());
        self.out.extend_from_slice(&self.source[self.at..end]);
        self.at = end;
    }

    fn blank(&mut self, count: usize) {
        let end = (self.at + count).min(self.source.len());
        self.out
            .extend(self.source[self.at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
        self.at = end;
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The number of hashes if a raw string begins here: `r"`, `r#"`, `br##"`, `cr"`.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let after = rest.strip_prefix(b"br").or(rest.strip_prefix(b"cr")).or(rest.strip_prefix(b"r"))?;
    let hashes = after.iter().take_while(|byte| **byte == b'#').count();
    (after.get(hashes) == Some(&b'"')).then_some(hashes)
}

fn quoted(inside: &[u8], end: u8) -> usize {
    let mut at = 0;
    while at < inside.len() && inside[at] != end {
        at += if inside[at] == b'\\' { 2 } else { 1 };
    }
    at.min(inside.len())
}

/// Tells a character from a lifetime.
fn is_char(rest: &[u8]) -> bool {
    match rest.get(1) {
        Some(b'\\') => true,
        Some(byte) if byte.is_ascii() => rest.get(2) == Some(&b'\''),
        Some(_) => rest[1..].iter().take(5).any(|byte| *byte == b'\''),
        None => false,
    }
}

#[test]
fn comments_and_literals_are_blanked_in_place() {
    let source = "let a = \"unsafe \\\" {\"; // unsafe\nlet b = r#\"x\"y\"#; /* a /* b */ */ let c: &'static str = '\\'';\nfor_r\"\"";
    let masked = mask(source);
    assert_eq!(masked.len(), source.len());
    assert!(
        !masked.contains("unsafe") && !masked.contains("/*") && masked.contains("&'static str = '  ';"),
        "{masked}"
    );
    assert!(masked.contains("let b = r#\"   \"#;"), "{masked}");
    assert_eq!(masked.lines().count(), source.lines().count());
}
