//! Generated messages: what is written is read back the same, whatever the cut. `SIM_SEED` replays one case.

#![allow(clippy::unwrap_used)]

use corelane_http::{
    BodyDecoder, BodyEncoder, BodyFraming, BodyLimits, Casing, Connection, Fields, Limits, Method, Parsed,
    RequestHead, ResponseHead, Version, parse_request, parse_response, write_request, write_response,
};

const CASES: u64 = 1500;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    fn text(&mut self, alphabet: &[u8], max: usize) -> Vec<u8> {
        let len = self.below(max + 1);
        (0..len).map(|_| alphabet[self.below(alphabet.len())]).collect()
    }
}

const TOKEN: &[u8] = b"abcxyzABCXYZ0189-_!#$%&'*+.^`|~";
const VALUE: &[u8] = b"abc 019\t,;=:\"\\/?()<>@[]{}\x80\xe4\xff~";
const PATH: &[u8] = b"abcXYZ019/.-_~%?&=+:@!$'()*,;\\\"<>^`{|}[]";

/// Names and values in order; a value has no white space at its ends, which no parser keeps.
fn fill(fields: &mut Fields, random: &mut Random) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut expected = Vec::new();
    for _ in 0..random.below(12) {
        // The prefix keeps generated names clear of those that frame a message.
        let name = [b"x-", random.text(TOKEN, 20).as_slice()].concat();
        let value = random.text(VALUE, 40).trim_ascii().to_vec();
        fields.append(&name, &value).unwrap();
        expected.push((name.to_ascii_lowercase(), value));
    }
    expected
}

fn listed(fields: &Fields) -> Vec<(Vec<u8>, Vec<u8>)> {
    let generated = fields.iter().filter(|(n, _)| n.starts_with(b"x-"));
    generated.map(|(n, v)| (n.to_vec(), v.to_vec())).collect()
}

fn framed(random: &mut Random) -> (BodyFraming, Vec<Vec<u8>>) {
    let pieces: Vec<Vec<u8>> = (0..random.below(5)).map(|_| random.text(VALUE, 60)).collect();
    let total = pieces.iter().map(Vec::len).sum::<usize>();
    let framing = if random.below(2) == 0 { BodyFraming::Chunked } else { BodyFraming::Length(total as u64) };
    (framing, pieces)
}

fn put_body(framing: BodyFraming, pieces: &[Vec<u8>], trailers: &Fields, wire: &mut Vec<u8>) {
    let mut encoder = BodyEncoder::new(framing);
    pieces.iter().for_each(|piece| encoder.data(piece, wire).unwrap());
    encoder.finish(Some(trailers), wire).unwrap();
}

/// Feeds a body in random pieces; returns data, trailers and what is left of the wire.
fn read_body<'w>(framing: BodyFraming, wire: &'w [u8], random: &mut Random) -> (Vec<u8>, Fields, &'w [u8]) {
    let mut decoder = BodyDecoder::new(framing, BodyLimits::default());
    let (mut data, mut trailers, mut rest) = (Vec::new(), Fields::new(), wire);
    while !decoder.is_done() {
        let piece = &rest[..rest.len().min(1 + random.below(30))];
        let decoded = decoder.decode(piece, &mut trailers).unwrap();
        data.extend_from_slice(&piece[decoded.data]);
        rest = &rest[decoded.consumed..];
    }
    (data, trailers, rest)
}

fn one_request(random: &mut Random) {
    let mut head = RequestHead::new();
    let method = [&b"G"[..], &random.text(TOKEN, 8)].concat();
    let path = [&b"/"[..], &random.text(PATH, 60)].concat();
    let authority = [&b"a"[..], &random.text(b"abz019.-_", 20), &b":8080"[..]].concat();
    head.set_method(&method).unwrap();
    head.set_path(&path).unwrap();
    head.set_authority(&authority).unwrap();
    let expected = fill(&mut head.fields, random);
    let mut trailers = Fields::new();
    let expected_trailers = fill(&mut trailers, random);
    let (framing, pieces) = framed(random);
    let mut wire = Vec::new();
    let casing = [Casing::Lower, Casing::Proper][random.below(2)];
    write_request(&head, framing, Connection::KeepAlive, casing, &mut wire).unwrap();
    put_body(framing, &pieces, &trailers, &mut wire);
    wire.extend_from_slice(b"next");

    let mut read = RequestHead::new();
    let Parsed::Complete(meta) = parse_request(&wire, &Limits::default(), &mut read).unwrap() else {
        panic!("partial");
    };
    assert_eq!((meta.framing, meta.keep_alive, meta.upgrade), (framing, true, false));
    assert_eq!(
        (read.method_bytes(), read.path(), read.authority()),
        (&method[..], &path[..], &authority[..])
    );
    assert_eq!(listed(&read.fields), expected);
    let (data, got, rest) = read_body(framing, &wire[meta.consumed..], random);
    assert_eq!((data, rest), (pieces.concat(), &b"next"[..]));
    if framing == BodyFraming::Chunked {
        assert_eq!(listed(&got), expected_trailers);
    }
}

fn one_response(random: &mut Random) {
    let mut head = ResponseHead::new();
    head.status = 200 + random.below(300) as u16;
    if matches!(head.status, 204 | 304) {
        head.status = 200;
    }
    let expected = fill(&mut head.fields, random);
    let (framing, pieces) = framed(random);
    let mut wire = Vec::new();
    write_response(&head, Version::H11, framing, Connection::Close, Casing::Lower, &mut wire).unwrap();
    put_body(framing, &pieces, &Fields::new(), &mut wire);
    let mut read = ResponseHead::new();
    let Parsed::Complete(meta) = parse_response(&wire, &Limits::default(), Method::Get, &mut read).unwrap()
    else {
        panic!("partial");
    };
    assert_eq!((read.status, meta.framing, meta.keep_alive), (head.status, framing, false));
    assert_eq!(listed(&read.fields), expected);
    let (data, _, rest) = read_body(framing, &wire[meta.consumed..], random);
    assert_eq!((data, rest.len()), (pieces.concat(), 0));
}

fn for_every_seed(case: fn(&mut Random)) {
    let seeds = match std::env::var("SIM_SEED") {
        Ok(seed) => seed.parse().unwrap()..=seed.parse().unwrap(),
        Err(_) => 1..=CASES,
    };
    for seed in seeds {
        let run = || case(&mut Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("SIM_SEED={seed} replays this case");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn requests_survive_the_wire() {
    for_every_seed(one_request);
}

#[test]
fn responses_survive_the_wire() {
    for_every_seed(one_response);
}
