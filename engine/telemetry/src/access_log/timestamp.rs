//! Points in time for log lines: RFC 3339 with milliseconds, and the conversions of `%START_TIME(...)%`, always in UTC.

use super::line::write_uint;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const SECONDS_PER_DAY: u64 = 86_400;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const SHORT_NAME_LEN: usize = 3;

/// Nested formats (`%c`, `%T`) go one level deep.
const CONVERSIONS: &[(u8, &str)] = &[
    (b'T', "%H:%M:%S"),
    (b'X', "%H:%M:%S"),
    (b'R', "%H:%M"),
    (b'r', "%I:%M:%S %p"),
    (b'D', "%m/%d/%y"),
    (b'x', "%m/%d/%y"),
    (b'F', "%Y-%m-%d"),
    (b'c', "%a %b %e %H:%M:%S %Y"),
];

struct Civil {
    year: u64,
    /// 1 to 12.
    month: u64,
    /// 1 to 31.
    day: u64,
    /// 1 to 366.
    day_of_year: u64,
    /// 0 is Sunday.
    weekday: usize,
    hour: u64,
    minute: u64,
    second: u64,
    unix_seconds: u64,
    nanos: u64,
}

impl Civil {
    /// The Gregorian date of `unix_ns`, worked out in years that begin in March so that the leap day comes last.
    fn at(unix_ns: u64) -> Self {
        let unix_seconds = unix_ns / NANOS_PER_SECOND;
        let days = unix_seconds / SECONDS_PER_DAY;
        let of_day = unix_seconds % SECONDS_PER_DAY;
        // days since 0000-03-01; an era is 400 years or 146,097 days
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let of_era = shifted % 146_097;
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let march_day = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * march_day + 2) / 153;
        let day = march_day - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let leap = (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
        // 1 March is day 60, or 61 in a leap year; the 306 days from March to December come first in a March year
        let day_of_year = if march_day >= 306 { march_day - 305 } else { march_day + 60 + u64::from(leap) };
        Self {
            year,
            month,
            day,
            day_of_year,
            // 1970-01-01 was a Thursday
            weekday: ((days + 4) % 7) as usize,
            hour: of_day / 3_600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
            unix_seconds,
            nanos: unix_ns % NANOS_PER_SECOND,
        }
    }
}

/// Appends `unix_ns` (nanoseconds since 1970) as `2016-04-15T20:17:00.310Z`, Envoy's default form.
pub fn write_rfc3339_millis(out: &mut Vec<u8>, unix_ns: u64) {
    let civil = Civil::at(unix_ns);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let fields = [
        (civil.year, 0, 4),
        (civil.month, 5, 2),
        (civil.day, 8, 2),
        (civil.hour, 11, 2),
        (civil.minute, 14, 2),
        (civil.second, 17, 2),
        (civil.nanos / 1_000_000, 20, 3),
    ];
    for (value, at, width) in fields {
        let mut rest = value;
        for digit in text[at..at + width].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
    out.extend_from_slice(&text);
}

/// Appends `unix_ns` as `format` says: the common conversions of strftime in the C locale, and Envoy's `%s`, `%f` and `%1f` to `%9f`.
///
/// A conversion that is not known is written as it stands; `first_unknown_conversion` finds it when the format is configured.
pub fn write_strftime(out: &mut Vec<u8>, format: &str, unix_ns: u64) {
    let civil = Civil::at(unix_ns);
    write_format(out, format, &civil);
}

/// The first conversion of `format` that `write_strftime` does not know, such as `%Q`; `None` where it knows them all.
pub fn first_unknown_conversion(format: &str) -> Option<&str> {
    let civil = Civil::at(0);
    let mut scratch = Vec::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        let conversion = &rest[at..];
        match write_conversion(&mut scratch, conversion, &civil) {
            Some(len) => rest = &conversion[len..],
            None => return Some(conversion.get(..conversion.ceil_char_boundary(2)).unwrap_or(conversion)),
        }
    }
    None
}

fn write_format(out: &mut Vec<u8>, format: &str, civil: &Civil) {
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let conversion = &rest[at..];
        let len = write_conversion(out, conversion, civil).unwrap_or_else(|| {
            out.push(b'%');
            1
        });
        rest = &conversion[len..];
    }
    out.extend_from_slice(rest.as_bytes());
}

/// Writes the conversion at the start of `conversion` and returns its length; `None` where it is not known.
fn write_conversion(out: &mut Vec<u8>, conversion: &str, civil: &Civil) -> Option<usize> {
    let bytes = conversion.as_bytes();
    let letter = *bytes.get(1)?;
    match letter {
        b'1'..=b'9' if bytes.get(2) == Some(&b'f') => {
            write_fraction(out, civil.nanos, u32::from(letter - b'0'));
            return Some(3);
        }
        b'E' => return write_extended(out, bytes, civil),
        _ => {}
    }
    if let Some((_, nested)) = CONVERSIONS.iter().find(|(known, _)| *known == letter) {
        write_format(out, nested, civil);
        return Some(2);
    }
    let hour12 = (civil.hour + 11) % 12 + 1;
    match letter {
        b'Y' => write_padded(out, civil.year, 4, b'0'),
        b'C' => write_padded(out, civil.year / 100, 2, b'0'),
        b'y' => write_padded(out, civil.year % 100, 2, b'0'),
        b'm' => write_padded(out, civil.month, 2, b'0'),
        b'd' => write_padded(out, civil.day, 2, b'0'),
        b'e' => write_padded(out, civil.day, 2, b' '),
        b'j' => write_padded(out, civil.day_of_year, 3, b'0'),
        b'H' => write_padded(out, civil.hour, 2, b'0'),
        b'I' => write_padded(out, hour12, 2, b'0'),
        b'M' => write_padded(out, civil.minute, 2, b'0'),
        b'S' => write_padded(out, civil.second, 2, b'0'),
        b'f' => write_fraction(out, civil.nanos, 9),
        b's' => write_uint(out, civil.unix_seconds),
        b'u' => write_uint(out, if civil.weekday == 0 { 7 } else { civil.weekday as u64 }),
        b'w' => write_uint(out, civil.weekday as u64),
        b'A' => out.extend_from_slice(WEEKDAYS[civil.weekday].as_bytes()),
        b'a' => out.extend_from_slice(&WEEKDAYS[civil.weekday].as_bytes()[..SHORT_NAME_LEN]),
        b'B' => out.extend_from_slice(MONTHS[civil.month as usize - 1].as_bytes()),
        b'b' | b'h' => out.extend_from_slice(&MONTHS[civil.month as usize - 1].as_bytes()[..SHORT_NAME_LEN]),
        b'p' => out.extend_from_slice(if civil.hour < 12 { b"AM" } else { b"PM" }),
        b'z' => out.extend_from_slice(b"+0000"),
        b'Z' => out.extend_from_slice(b"UTC"),
        b'n' => out.push(b'\n'),
        b't' => out.push(b'\t'),
        b'%' => out.push(b'%'),
        _ => return None,
    }
    Some(2)
}

/// Abseil's extensions, which Envoy's formatter passes through: `%E3S`, `%E*S`, `%Ez`.
fn write_extended(out: &mut Vec<u8>, bytes: &[u8], civil: &Civil) -> Option<usize> {
    match (bytes.get(2)?, bytes.get(3)) {
        (b'z', _) => {
            out.extend_from_slice(b"+00:00");
            Some(3)
        }
        (digit @ b'0'..=b'9', Some(b'S')) => {
            write_padded(out, civil.second, 2, b'0');
            if *digit > b'0' {
                out.push(b'.');
                write_fraction(out, civil.nanos, u32::from(digit - b'0'));
            }
            Some(4)
        }
        (b'*', Some(b'S')) => {
            write_padded(out, civil.second, 2, b'0');
            if civil.nanos > 0 {
                out.push(b'.');
                write_fraction(out, civil.nanos, 9);
                while out.last() == Some(&b'0') {
                    out.pop();
                }
            }
            Some(4)
        }
        _ => None,
    }
}

fn write_fraction(out: &mut Vec<u8>, nanos: u64, digits: u32) {
    write_padded(out, nanos / 10_u64.pow(9 - digits), digits as usize, b'0');
}

fn write_padded(out: &mut Vec<u8>, value: u64, width: usize, pad: u8) {
    let digits = value.checked_ilog10().map_or(1, |log| log as usize + 1);
    out.extend(std::iter::repeat_n(pad, width.saturating_sub(digits)));
    write_uint(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(format: &str, unix_ns: u64) -> String {
        let mut out = Vec::new();
        write_strftime(&mut out, format, unix_ns);
        String::from_utf8(out).expect("UTF-8")
    }

    const SECOND: u64 = NANOS_PER_SECOND;

    #[test]
    fn envoys_default_form() {
        let mut out = Vec::new();
        write_rfc3339_millis(&mut out, 1_460_751_420 * SECOND + 310_999_999);
        assert_eq!(out, b"2016-04-15T20:17:00.310Z");
        for unix_ns in [0, 951_782_400 * SECOND - 1, u64::MAX] {
            out.clear();
            write_rfc3339_millis(&mut out, unix_ns);
            assert_eq!(String::from_utf8_lossy(&out), formatted("%Y-%m-%dT%H:%M:%S.%3fZ", unix_ns));
        }
    }

    #[test]
    fn dates_around_leap_days_and_year_ends() {
        // seconds from `date -u -d ... +%s`, days of the year from `+%j`
        let dates = [
            (0, "1970-01-01 001 Thu"),
            (951_782_399, "2000-02-28 059 Mon"),
            (951_782_400, "2000-02-29 060 Tue"),
            (951_868_800, "2000-03-01 061 Wed"),
            (1_709_164_800, "2024-02-29 060 Thu"),
            (1_735_603_200, "2024-12-31 366 Tue"),
            (1_735_689_600, "2025-01-01 001 Wed"),
            (1_772_323_200, "2026-03-01 060 Sun"),
            (4_102_444_800, "2100-01-01 001 Fri"),
            (4_107_542_400, "2100-03-01 060 Mon"),
        ];
        for (seconds, expected) in dates {
            assert_eq!(formatted("%F %j %a", seconds * SECOND), expected, "{seconds}");
        }
    }

    #[test]
    fn every_conversion() {
        let at = 1_527_590_590 * SECOND + 52_801_234; // 2018-05-29T10:43:10.052801234Z, a Tuesday
        assert_eq!(formatted("%Y/%m/%dT%H:%M:%S%z %s", at), "2018/05/29T10:43:10+0000 1527590590");
        assert_eq!(
            formatted("%s.%3f %s.%6f %9f %f %1f", at),
            "1527590590.052 1527590590.052801 052801234 052801234 0"
        );
        assert_eq!(
            formatted("%c|%D|%T|%R|%r|%x|%X", at),
            "Tue May 29 10:43:10 2018|05/29/18|10:43:10|10:43|10:43:10 AM|05/29/18|10:43:10"
        );
        assert_eq!(
            formatted("%A %B %h %C %y %u %w %p %I %Z %%%n%t", at),
            "Tuesday May May 20 18 2 2 AM 10 UTC %\n\t"
        );
        assert_eq!(formatted("%E3S %E0S %E*S %Ez", at), "10.052 10 10.052801234 +00:00");
        assert_eq!(formatted("%e|%I %p", 12 * 3_600 * SECOND), " 1|12 PM");
        assert_eq!(formatted("%E*S", SECOND / 2), "00.5");
    }

    #[test]
    fn unknown_conversions_are_named_and_written_as_they_stand() {
        assert_eq!(first_unknown_conversion("%Y %Q"), Some("%Q"));
        assert_eq!(first_unknown_conversion("%é"), Some("%é"));
        assert_eq!(first_unknown_conversion("50%"), Some("%"));
        assert_eq!(first_unknown_conversion("%0f"), Some("%0"));
        assert_eq!(first_unknown_conversion("%F %T.%3f %%"), None);
        assert_eq!(formatted("%Q%é%", 0), "%Q%é%");
    }
}
