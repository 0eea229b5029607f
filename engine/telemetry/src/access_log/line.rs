//! Appends values to a log line, as Envoy writes them.

/// Decimal digits of a u64.
const DIGITS_MAX: usize = 20;

/// Appends `value` in decimal.
pub fn write_uint(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0; DIGITS_MAX];
    let mut first = DIGITS_MAX;
    let mut rest = value;
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}

/// Appends `value / 1000` with up to three decimals and no trailing zeros: 2048 is `2.048`, 2000 is `2`.
pub fn write_thousandths(out: &mut Vec<u8>, value: u64) {
    write_uint(out, value / 1_000);
    let mut decimals = value % 1_000;
    if decimals == 0 {
        return;
    }
    out.push(b'.');
    let mut unit = 100;
    while decimals > 0 {
        out.push(b'0' + (decimals / unit) as u8);
        decimals %= unit;
        unit /= 10;
    }
}

/// Appends a duration of `nanos` in whole milliseconds, as `%DURATION%` is; `-` for none.
pub fn write_millis(out: &mut Vec<u8>, nanos: Option<u64>) {
    match nanos {
        Some(nanos) => write_uint(out, nanos / 1_000_000),
        None => out.push(b'-'),
    }
}

/// Appends `value`, or `-` where there is none or it is empty.
pub fn write_or_dash(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) if !value.is_empty() => out.extend_from_slice(value),
        _ => out.push(b'-'),
    }
}

/// Appends `value` escaped for the inside of a JSON string. What is not UTF-8 becomes U+FFFD, so that the line stays JSON.
pub fn write_escaped_json(out: &mut Vec<u8>, value: &[u8]) {
    for chunk in value.utf8_chunks() {
        escape_valid(out, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

fn escape_valid(out: &mut Vec<u8>, mut value: &[u8]) {
    while let Some(at) = value.iter().position(|byte| needs_escape(*byte)) {
        out.extend_from_slice(&value[..at]);
        let byte = value[at];
        // RFC 8259 section 7: quotation mark, reverse solidus and U+0000 to U+001F must be escaped
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
        value = &value[at + 1..];
    }
    out.extend_from_slice(value);
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\' || byte == 0x7f
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn numbers() {
        assert_eq!(written(|out| write_uint(out, 0)), "0");
        assert_eq!(written(|out| write_uint(out, u64::MAX)), "18446744073709551615");
        let thousandths: Vec<String> = [0, 1, 10, 500, 2_000, 2_048, 1_000_100]
            .iter()
            .map(|v| written(|out| write_thousandths(out, *v)))
            .collect();
        assert_eq!(thousandths, ["0", "0.001", "0.01", "0.5", "2", "2.048", "1000.1"]);
    }

    #[test]
    fn durations_and_missing_values() {
        assert_eq!(written(|out| write_millis(out, Some(1_999_999))), "1");
        assert_eq!(written(|out| write_millis(out, None)), "-");
        assert_eq!(written(|out| write_or_dash(out, None)), "-");
        assert_eq!(written(|out| write_or_dash(out, Some(b""))), "-");
        assert_eq!(written(|out| write_or_dash(out, Some(b"/x"))), "/x");
    }

    #[test]
    fn json_escapes_what_json_requires_and_survives_other_bytes() {
        assert_eq!(
            written(|out| write_escaped_json(out, "a\"b\\c\n\r\t\u{8}\u{c}\u{1}\u{7f}é".as_bytes())),
            r#"a\"b\\c\n\r\t\b\f\u0001\u007fé"#
        );
        assert_eq!(written(|out| write_escaped_json(out, b"a\xffb\xe2\x82")), "a\u{fffd}b\u{fffd}");
    }
}
