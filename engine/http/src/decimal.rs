//! Numbers as digits, read strictly and written without allocation.

use crate::sink::{Full, Sink};

/// A decimal number below 2^63: digits only, at least one.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, &b| match b {
        b'0'..=b'9' => {
            value.checked_mul(10)?.checked_add(u64::from(b - b'0')).filter(|&v| v <= i64::MAX as u64)
        }
        _ => None,
    })
}

/// A number in decimal without allocation.
pub(crate) fn put_decimal(out: &mut impl Sink, mut value: u64) -> Result<(), Full> {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return out.put(&digits[at..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_digits_below_2_to_the_63() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"00010"), Some(10));
        assert_eq!(decimal(b"9223372036854775807"), Some(i64::MAX as u64));
        for bad in [
            "",
            "+1",
            "-1",
            " 1",
            "1 ",
            "1,1",
            "0x1",
            "9223372036854775808",
            "99999999999999999999",
            "1\u{b2}",
        ] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn decimals() {
        for value in [0, 9, 10, 204, u64::MAX] {
            let mut out = Vec::new();
            put_decimal(&mut out, value).unwrap();
            assert_eq!(out, value.to_string().as_bytes());
        }
    }
}
