use super::*;

fn show(tree: &Tree) -> String {
    let value = match &tree.value {
        Node::Null => "null".to_owned(),
        Node::Bool(value) => value.to_string(),
        Node::Int(value) => value.to_string(),
        Node::Float(value) => format!("{value:?}"),
        Node::Str(value) => format!("{value:?}"),
        Node::Seq(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
        Node::Map(pairs) => {
            let one = |(key, value): &(Spanned<String>, Tree)| {
                format!("{}@{}:{}={}", key.value, key.line, key.column, show(value))
            };
            format!("{{{}}}", pairs.iter().map(one).collect::<Vec<_>>().join(" "))
        }
    };
    format!("{value}@{}:{}", tree.line, tree.column)
}

#[test]
fn every_value_knows_its_place() {
    for (text, shown) in [
        ("", "null@1:1"),
        ("a: 1", "{a@1:1=1@1:4}@1:1"),
        (
            "a:\n  b: x\n  c:\n  - y\n  - z: 2\n",
            "{a@1:1={b@2:3=\"x\"@2:6 c@3:3=[\"y\"@4:5 {z@5:5=2@5:8}@5:5]@4:5}@2:3}@1:1",
        ),
        ("{\"a\": [1, true], \"b\": {}}", "{a@1:2=[1@1:8 true@1:11]@1:7 b@1:18={}@1:23}@1:1"),
        ("{\"a\": \"\\ud83d\\ude00\\\\u\"}", "{a@1:2=\"😀\\\\u\"@1:7}@1:1"),
        ("{\n\t\"a\":\t1\n}", "{a@2:2=1@2:7}@1:1"),
        ("{\"a\":1,\"b\":[\"\\/\"]}", "{a@1:2=1@1:6 b@1:8=[\"/\"@1:13]@1:12}@1:1"),
        ("\u{feff}a: b\r\nc: d\r\n", "{a@1:1=\"b\"@1:4 c@2:1=\"d\"@2:4}@1:1"),
        ("é: ü", "{é@1:1=\"ü\"@1:4}@1:1"),
        ("x: &a {p: 1}\ny: *a\n", "{x@1:1={p@1:8=1@1:11}@1:4 y@2:1={p@1:8=1@1:11}@1:4}@1:1"),
        ("200: ok\ntrue: yes", "{200@1:1=\"ok\"@1:6 true@2:1=\"yes\"@2:7}@1:1"),
        ("a: 1\na: 2", "{a@1:1=1@1:4 a@2:1=2@2:4}@1:1"),
    ] {
        assert_eq!(parse(text).map(|tree| show(&tree)), Ok(shown.to_owned()), "{text:?}");
    }
}

#[test]
fn scalars_follow_the_core_schema() {
    for (text, node) in [
        ("8080", Node::Int(8080)),
        ("\"8080\"", Node::Str("8080".into())),
        ("'true'", Node::Str("true".into())),
        ("!!str 12", Node::Str("12".into())),
        ("-7", Node::Int(-7)),
        ("+7", Node::Int(7)),
        ("010", Node::Int(10)),
        ("0o17", Node::Int(15)),
        ("0xFf", Node::Int(255)),
        ("18446744073709551615", Node::Int(18_446_744_073_709_551_615)),
        ("1.5", Node::Float(1.5)),
        ("1e3", Node::Float(1000.0)),
        (".5", Node::Float(0.5)),
        ("1.", Node::Float(1.0)),
        ("-.inf", Node::Float(f64::NEG_INFINITY)),
        ("~", Node::Null),
        ("yes", Node::Str("yes".into())),
        ("0x", Node::Str("0x".into())),
        ("1.2.3", Node::Str("1.2.3".into())),
        ("10.0.0.1", Node::Str("10.0.0.1".into())),
        ("0.25s", Node::Str("0.25s".into())),
        ("12e", Node::Str("12e".into())),
        (".", Node::Str(".".into())),
        ("2001:db8::1", Node::Str("2001:db8::1".into())),
        ("|\n  a\n  b\n", Node::Str("a\nb\n".into())),
        ("\"\\u00e9\\n\"", Node::Str("é\n".into())),
    ] {
        assert_eq!(parse(text).map(|tree| tree.value), Ok(node), "{text:?}");
    }
}

#[test]
fn what_is_no_configuration_is_refused_at_its_place() {
    for (text, line, column, message) in [
        ("a: 1\n---\nb: 2\n", 2, 1, "a second document"),
        ("a: !secret x", 1, 4, "a tag that has no meaning here"),
        ("a: !!int x", 1, 4, "a tag that has no meaning here"),
        ("a: !!set {x}", 1, 4, "a tag that has no meaning here"),
        ("? [a]\n: 1", 1, 3, "a list or mapping as a key"),
        ("? {a: 1}\n: 1", 1, 3, "a list or mapping as a key"),
        ("? \n: 1", 2, 1, "an empty key"),
        ("a: *b", 1, 4, "not valid YAML: "),
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.message.starts_with(message), "{text:?}: {error}");
        assert_eq!((error.line, error.column), (line, column), "{text:?}: {error}");
    }
}

#[test]
fn broken_text_is_refused_with_a_place_and_never_panics() {
    for text in
        ["a: [1", "a: \"x", "{a: 1", "a: b: c", "- a\nb: c", "%YAML 9\n---\n", "a: &x *x", "\"\\ud83d\""]
    {
        let error = parse(text).expect_err(text);
        assert!(error.line >= 1 && error.column >= 1, "{text:?}: {error}");
    }
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse(&nested(DEPTH_MAX)).is_ok());
    let error = parse(&nested(DEPTH_MAX + 1)).expect_err("too deep");
    assert_eq!(error.message, format!("nested deeper than {DEPTH_MAX}"));
    let aliased = format!("a: &a {}\nb: {}*a{}\n", nested(100), "[".repeat(50), "]".repeat(50));
    assert_eq!(parse(&aliased).expect_err("too deep").message, format!("nested deeper than {DEPTH_MAX}"));
}

#[test]
fn aliases_can_not_multiply_without_end() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![below; 9].join(", ")));
    }
    let error = parse(&bomb).expect_err("a bomb");
    assert!(error.message.starts_with(&format!("more than {NODES_MAX} values")), "{error}");
}

/// A text changed at random, the same for the same seed: bytes dropped, doubled, swapped for ones that mean something.
fn mutated(text: &str, seed: u64) -> String {
    const MEANINGFUL: &[char] = &[
        '{', '}', '[', ']', ':', ',', '&', '*', '!', '|', '>', '-', '"', '\'', '#', '%', '\n', '\t', ' ',
        '?', '\0',
    ];
    let mut state = seed;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..=draw(4) {
        let at = draw(chars.len());
        match draw(4) {
            0 => chars.truncate(at),
            1 => chars.insert(at.min(chars.len()), MEANINGFUL[draw(MEANINGFUL.len())]),
            2 if !chars.is_empty() => {
                chars.remove(at);
            }
            _ if !chars.is_empty() => chars[at] = MEANINGFUL[draw(MEANINGFUL.len())],
            _ => {}
        }
    }
    chars.into_iter().collect()
}

#[test]
fn text_changed_at_random_is_a_tree_or_an_error() {
    const SOUND: [&str; 3] = [
        "node: {id: a, metadata: &m {x: [1, 2.5, true, ~]}}\nlist:\n- *m\n- |\n  text\n  more\n- 'a''b'\n",
        "{\"admin\": {\"address\": {\"port_value\": 0}}, \"a\\u00e9\": [\"x\", -1e3, null, !!str 7]}",
        "a: # comment\n  ? key\n  : value\nb: >-\n  folded\n\n  text\n...\n",
    ];
    for text in SOUND {
        parse(text).expect("sound");
        for seed in 0..MUTATIONS {
            let text = mutated(text, seed);
            if let Err(error) = parse(&text) {
                assert!(error.line >= 1 && error.column >= 1 && !error.message.is_empty(), "{text:?}");
            }
        }
    }
}

const MUTATIONS: u64 = 3_000;
