//! Bodies in every framing, whole and byte by byte.

#![allow(clippy::unwrap_used)]

use corelane_http::{
    BodyDecoder, BodyEncoder, BodyFraming, BodyLimits, Decoded, Fields, HttpError, Known, SliceSink,
};

/// Data, trailers as `name=value`, bytes consumed.
type Body = (String, Vec<String>, usize);

fn decode(framing: BodyFraming, input: &[u8], step: usize) -> Result<Body, HttpError> {
    let mut decoder = BodyDecoder::new(framing, BodyLimits::default());
    let mut trailers = Fields::new();
    let (mut data, mut at) = (Vec::new(), 0);
    while at < input.len() && !decoder.is_done() {
        let piece = &input[at..input.len().min(at + step)];
        let decoded = decoder.decode(piece, &mut trailers)?;
        data.extend_from_slice(&piece[decoded.data]);
        at += decoded.consumed;
    }
    decoder.finish()?;
    let trailers =
        trailers.iter().map(|(n, v)| format!("{}={}", n.escape_ascii(), v.escape_ascii())).collect();
    Ok((String::from_utf8(data).unwrap(), trailers, at))
}

type Expected<'a> = Result<(&'a str, &'a [&'a str], usize), HttpError>;

fn at_every_step(framing: BodyFraming, input: &str, expected: Expected<'_>) {
    let expected = expected.map(|(data, trailers, consumed)| {
        (data.to_string(), trailers.iter().map(ToString::to_string).collect::<Vec<_>>(), consumed)
    });
    for step in [1, 2, 3, 5, input.len().max(1)] {
        assert_eq!(decode(framing, input.as_bytes(), step), expected, "{input:?} in pieces of {step}");
    }
}

#[test]
fn lengths() {
    at_every_step(BodyFraming::None, "next", Ok(("", &[], 0)));
    at_every_step(BodyFraming::Length(0), "next", Ok(("", &[], 0)));
    at_every_step(BodyFraming::Length(5), "hellonext", Ok(("hello", &[], 5)));
    at_every_step(BodyFraming::Length(5), "hell", Err(HttpError::Incomplete));
    at_every_step(BodyFraming::UntilClose, "hello", Ok(("hello", &[], 5)));
    at_every_step(BodyFraming::UntilClose, "", Ok(("", &[], 0)));
}

#[test]
fn chunks() {
    use HttpError::*;
    let rows: &[(&str, Expected<'_>)] = &[
        ("0\r\n\r\nnext", Ok(("", &[], 5))),
        ("5\r\nhello\r\n0\r\n\r\n", Ok(("hello", &[], 15))),
        ("5\r\nhello\r\n0006\r\n world\r\n000\r\n\r\nX", Ok(("hello world", &[], 31))),
        ("A\r\n0123456789\r\n0\r\n\r\n", Ok(("0123456789", &[], 20))),
        ("a\r\n0123456789\r\n0\r\n\r\n", Ok(("0123456789", &[], 20))),
        ("1;a=b;c=\"d e\"\r\nx\r\n0;y\r\n\r\n", Ok(("x", &[], 25))),
        ("1 ; a\r\nx\r\n0\r\n\r\n", Ok(("x", &[], 15))),
        ("0\r\nX-Sum:  a b \r\nEmpty:\r\n\r\n", Ok(("", &["x-sum=a b", "empty="], 27))),
        ("0\r\nConnection: x\r\nY: 1\r\n\r\n", Ok(("", &["y=1"], 26))),
        // RFC 9112 section 7.1: chunk-size = 1*HEXDIG
        ("\r\n0\r\n\r\n", Err(InvalidChunkSize)),
        (" 5\r\nhello\r\n0\r\n\r\n", Err(InvalidChunkSize)),
        ("-5\r\n", Err(InvalidChunkSize)),
        ("+5\r\n", Err(InvalidChunkSize)),
        ("0x5\r\n", Err(InvalidChunkSize)),
        ("5g\r\n", Err(InvalidChunkSize)),
        (";a\r\n", Err(InvalidChunkSize)),
        ("5 \r\nhello\r\n", Err(InvalidChunkSize)),
        ("5 5\r\n", Err(InvalidChunkSize)),
        ("8000000000000000\r\n", Err(InvalidChunkSize)),
        ("10000000000000005\r\nhello\r\n", Err(InvalidChunkSize)),
        ("5\nhello\r\n0\r\n\r\n", Err(InvalidChunkSize)),
        ("5\rhello\r\n", Err(BareCr)),
        ("5;a\nhello\r\n", Err(InvalidChunkExtension)),
        ("5;a\0\r\nhello\r\n", Err(InvalidChunkExtension)),
        ("5;a\rb\r\nhello\r\n", Err(BareCr)),
        ("5\r\nhello0\r\n\r\n", Err(InvalidChunkEnd)),
        ("5\r\nhelloX\r\n0\r\n\r\n", Err(InvalidChunkEnd)),
        ("5\r\nhello\n0\r\n\r\n", Err(InvalidChunkEnd)),
        ("5\r\nhello\r\r\n0\r\n\r\n", Err(InvalidChunkEnd)),
        ("5\r\nhello\r\n0\r\n", Err(Incomplete)),
        ("5\r\nhel", Err(Incomplete)),
        ("", Err(Incomplete)),
        // trailers
        ("0\r\na: b\n\r\n", Err(BareLf)),
        ("0\r\n\n", Err(BareLf)),
        ("0\r\na: b\r\n c\r\n\r\n", Err(ObsFold)),
        ("0\r\na : b\r\n\r\n", Err(SpaceBeforeColon)),
        ("0\r\na\r\n\r\n", Err(InvalidFieldName)),
        ("0\r\n: b\r\n\r\n", Err(InvalidFieldName)),
        ("0\r\na: b\rc\r\n\r\n", Err(InvalidFieldValue)),
        ("0\r\na: \0\r\n\r\n", Err(InvalidFieldValue)),
        ("0\r\nContent-Length: 5\r\n\r\n", Err(ForbiddenTrailer)),
        ("0\r\nTransfer-Encoding: chunked\r\n\r\n", Err(ForbiddenTrailer)),
        ("0\r\nHost: a\r\n\r\n", Err(ForbiddenTrailer)),
    ];
    for (input, expected) in rows {
        at_every_step(BodyFraming::Chunked, input, *expected);
    }
}

#[test]
fn sizes_around_the_data_are_bounded() {
    let limits = BodyLimits { chunk_line_bytes_max: 8, trailer_bytes_max: 20, trailer_fields_max: 2 };
    let run = |input: &str, step: usize| {
        let mut decoder = BodyDecoder::new(BodyFraming::Chunked, limits);
        let mut trailers = Fields::new();
        for piece in input.as_bytes().chunks(step) {
            let mut piece = piece;
            while !piece.is_empty() && !decoder.is_done() {
                let decoded = decoder.decode(piece, &mut trailers)?;
                piece = &piece[decoded.consumed..];
            }
        }
        Ok(decoder.is_done())
    };
    for step in [1, 100] {
        assert_eq!(run("5;12345\nhello", step), Err(HttpError::InvalidChunkExtension));
        assert_eq!(run("5;1234\r\nhello\r\n0\r\n\r\n", step), Ok(true));
        assert_eq!(run("5;12345\r\nhello", step), Err(HttpError::ChunkLineTooLong));
        assert_eq!(run("000000005\r\nhello", step), Err(HttpError::ChunkLineTooLong));
        assert_eq!(run("0\r\na: 1\r\nb: 2\r\n\r\n", step), Ok(true));
        assert_eq!(run("0\r\na: 1\r\nb: 2\r\nc: 3\r\n", step), Err(HttpError::TrailersTooLarge));
        assert_eq!(run("0\r\na: 123456789012345678", step), Err(HttpError::TrailersTooLarge));
    }
}

#[test]
fn one_call_gives_one_range_and_the_end_with_it() {
    let mut decoder = BodyDecoder::new(BodyFraming::Chunked, BodyLimits::default());
    let mut trailers = Fields::new();
    let input = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nnext";
    let first = decoder.decode(input, &mut trailers).unwrap();
    assert_eq!(first, Decoded { data: 3..8, consumed: 13, done: false });
    assert_eq!(decoder.known_remaining(), 6);
    let second = decoder.decode(&input[13..], &mut trailers).unwrap();
    assert_eq!(second, Decoded { data: 0..6, consumed: 13, done: true });
    assert_eq!(
        decoder.decode(b"next", &mut trailers).unwrap(),
        Decoded { data: 0..0, consumed: 0, done: true }
    );
    let mut decoder = BodyDecoder::new(BodyFraming::Length(u64::MAX), BodyLimits::default());
    assert_eq!(
        decoder.decode(b"abc", &mut trailers).unwrap(),
        Decoded { data: 0..3, consumed: 3, done: false }
    );
    assert_eq!(decoder.known_remaining(), u64::MAX - 3);
}

fn encode(framing: BodyFraming, pieces: &[&str], trailers: Option<&Fields>) -> Result<String, HttpError> {
    let mut encoder = BodyEncoder::new(framing);
    let mut out = Vec::new();
    for piece in pieces {
        encoder.data(piece.as_bytes(), &mut out)?;
    }
    encoder.finish(trailers, &mut out)?;
    assert!(encoder.is_finished());
    assert_eq!(encoder.data(b"more", &mut out), Err(HttpError::BodyTooLong));
    assert_eq!(encoder.finish(trailers, &mut out), Ok(()), "a second end writes nothing");
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn encoding() {
    let mut trailers = Fields::new();
    for (name, value) in [("X-Sum", "1"), ("Connection", "x"), ("Content-Length", "5"), ("te", "trailers")] {
        trailers.append(name.as_bytes(), value.as_bytes()).unwrap();
    }
    let chunked = BodyFraming::Chunked;
    assert_eq!(encode(chunked, &[], None).unwrap(), "0\r\n\r\n");
    assert_eq!(
        encode(chunked, &["hello", "", " world"], None).unwrap(),
        "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    );
    assert_eq!(encode(chunked, &["a"], Some(&trailers)).unwrap(), "1\r\na\r\n0\r\nx-sum: 1\r\n\r\n");
    assert_eq!(encode(BodyFraming::Length(5), &["hel", "lo"], Some(&trailers)).unwrap(), "hello");
    assert_eq!(encode(BodyFraming::UntilClose, &["hel", "lo"], None).unwrap(), "hello");
    assert_eq!(encode(BodyFraming::None, &[""], None).unwrap(), "");
    assert_eq!(encode(BodyFraming::Length(5), &["hel"], None), Err(HttpError::Incomplete));
    assert_eq!(encode(BodyFraming::Length(5), &["hello", "!"], None), Err(HttpError::BodyTooLong));
    assert_eq!(encode(BodyFraming::None, &["!"], None), Err(HttpError::BodyTooLong));
    assert!(trailers.contains(Known::ContentLength), "the caller's are not changed");
}

#[test]
fn chunk_headers_of_every_size_are_read_back() {
    for shift in 0..usize::BITS - 1 {
        for len in [1usize << shift, (1 << shift) + 1, (1usize << shift).wrapping_sub(1)] {
            let mut encoder = BodyEncoder::new(BodyFraming::Chunked);
            let header = encoder.begin_chunk(len).unwrap();
            if len == 0 {
                assert_eq!(header.as_bytes(), b"");
                continue;
            }
            assert_eq!(header.as_bytes(), format!("{len:x}\r\n").as_bytes());
            assert_eq!(encoder.chunk_end(), b"\r\n");
            let mut decoder = BodyDecoder::new(BodyFraming::Chunked, BodyLimits::default());
            decoder.decode(header.as_bytes(), &mut Fields::new()).unwrap();
            assert_eq!(decoder.known_remaining(), len as u64);
        }
    }
}

#[test]
fn a_full_output_is_said() {
    let mut buffer = [0u8; 9];
    let mut encoder = BodyEncoder::new(BodyFraming::Chunked);
    assert_eq!(encoder.data(b"hello", &mut SliceSink::new(&mut buffer)), Err(HttpError::OutputFull));
}
