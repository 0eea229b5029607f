//! A cursor over DER, just enough of X.690 to read the certificate fields that webpki keeps to itself.
//!
//! Nothing is trusted: every length is checked against what is left, and a wrong shape is `None`.
//! webpki has judged the certificate before anything read here is believed.

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OID: u8 = 0x06;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// The rest of a DER encoding.
#[derive(Clone, Copy)]
pub(crate) struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn peek_tag(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element: its tag and contents. Multi-byte tags and lengths over four bytes are refused.
    pub(crate) fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let len = digits.iter().fold(0u64, |sum, &digit| sum << 8 | u64::from(digit));
                (usize::try_from(len).ok()?, rest)
            }
            _ => return None,
        };
        let (contents, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, contents))
    }

    /// The contents of the next element, which must carry `tag`.
    pub(crate) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().and_then(|(found, contents)| (found == tag).then_some(contents))
    }

    /// The contents of the next element if it carries `tag`; otherwise nothing is consumed.
    pub(crate) fn optional(&mut self, tag: u8) -> Option<&'a [u8]> {
        if self.peek_tag() == Some(tag) { self.expect(tag) } else { None }
    }
}

/// Unix seconds of a `Time`, as RFC 5280 section 4.1.2.5 restricts it (always Zulu, always seconds).
pub(crate) fn time(tag: u8, contents: &[u8]) -> Option<u64> {
    let (year, rest) = match tag {
        UTC_TIME if contents.len() == 13 => {
            let short = number(&contents[..2])?;
            // RFC 5280 4.1.2.5.1: "Where YY is greater than or equal to 50, the year SHALL be interpreted as 19YY"
            (if short >= 50 { 1900 + short } else { 2000 + short }, &contents[2..])
        }
        GENERALIZED_TIME if contents.len() == 15 => (number(&contents[..4])?, &contents[4..]),
        _ => return None,
    };
    let (month, day) = (number(&rest[0..2])?, number(&rest[2..4])?);
    let (hour, minute, second) = (number(&rest[4..6])?, number(&rest[6..8])?, number(&rest[8..10])?);
    if rest[10] != b'Z' || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_since_epoch(year, month, day);
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

fn number(digits: &[u8]) -> Option<u64> {
    digits
        .iter()
        .try_fold(0u64, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0')))
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar; earlier dates count as that day.
fn days_since_epoch(year: u64, month: u64, day: u64) -> u64 {
    // March-based years put the leap day last, so that month lengths follow one linear formula.
    let shifted_year = if month <= 2 { year.saturating_sub(1) } else { year };
    let era = shifted_year / 400;
    let year_of_era = shifted_year % 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).saturating_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_nested_elements_and_refuses_lengths_beyond_the_end() {
        let mut outer = Der::new(&[0x30, 0x05, 0x02, 0x01, 0x2a, 0x04, 0x00]);
        let mut inner = Der::new(outer.expect(SEQUENCE).unwrap());
        assert_eq!(inner.expect(INTEGER), Some(&[0x2a][..]));
        assert_eq!(inner.optional(BOOLEAN), None);
        assert_eq!(inner.expect(OCTET_STRING), Some(&[][..]));
        assert!(inner.next().is_none() && outer.next().is_none());
        for bad in [
            &[0x30][..],
            &[0x30, 0x01],
            &[0x30, 0x80, 0, 0],
            &[0x1f, 0x01, 0],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert!(Der::new(bad).next().is_none(), "{bad:x?}");
        }
    }

    #[test]
    fn times_agree_with_known_unix_seconds() {
        assert_eq!(time(UTC_TIME, b"700101000000Z"), Some(0));
        assert_eq!(time(UTC_TIME, b"000229120000Z"), Some(951_825_600));
        assert_eq!(time(UTC_TIME, b"491231235959Z"), Some(2_524_607_999));
        assert_eq!(time(GENERALIZED_TIME, b"20500101000000Z"), Some(2_524_608_000));
        assert_eq!(time(GENERALIZED_TIME, b"99991231235959Z"), Some(253_402_300_799));
        assert_eq!(time(GENERALIZED_TIME, b"00000101000000Z"), Some(0));
        assert_eq!(time(UTC_TIME, b"500101000000Z"), Some(0));
        for bad in [&b"000229120000+"[..], b"001329120000Z", b"0002291200Z", b"00022912000xZ"] {
            assert_eq!(time(UTC_TIME, bad), None);
        }
    }
}
