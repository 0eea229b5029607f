//! Readers of the values that knobs have.

use std::{fmt, ops::RangeInclusive, time::Duration};

/// CPU numbers at most.
const CPU_MAX: u32 = 4095;

/// # Errors
/// Not a whole number, or outside the range.
pub fn number(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let value: u64 = text.parse().map_err(|_| format!("{text:?} is not a whole number"))?;
    if range.contains(&value) { Ok(value) } else { Err(format!("{value} is out of range")) }
}

/// Bytes as `16384`, `16KiB`, `1MiB`.
///
/// # Errors
/// Not of that form, or outside the range.
pub fn bytes(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let (digits, unit) = split_unit(text);
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(format!("{text:?} is not a size")),
    };
    let count: u64 = digits.parse().map_err(|_| format!("{text:?} is not a size"))?;
    let value = count.checked_mul(factor).ok_or_else(|| format!("{text:?} is too large"))?;
    if range.contains(&value) { Ok(value) } else { Err(format!("{text} is out of range")) }
}

/// `50us`, `5ms`, `2s`; `0` without a unit.
///
/// # Errors
/// Not of that form, or beyond `max`.
pub fn duration(text: &str, max: Duration) -> Result<Duration, String> {
    let (digits, unit) = split_unit(text);
    let count: u64 = digits.parse().map_err(|_| format!("{text:?} is not a duration"))?;
    let value = match unit {
        "us" => Duration::from_micros(count),
        "ms" => Duration::from_millis(count),
        "s" => Duration::from_secs(count),
        "" if count == 0 => Duration::ZERO,
        _ => return Err(format!("{text:?} is not a duration")),
    };
    if value <= max { Ok(value) } else { Err(format!("{text} is out of range")) }
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// # Errors
/// Neither word.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

/// CPUs in the kernel's list format, in the order named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuList(pub Vec<usize>);

impl CpuList {
    /// `0,2-3`
    ///
    /// # Errors
    /// Names the part that is wrong: not a number or range, twice the same CPU, nothing at all.
    pub fn parse(text: &str) -> Result<CpuList, String> {
        let mut cpus = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let cpu = |digits: &str| match digits.trim().parse::<u32>() {
                Ok(cpu) if cpu <= CPU_MAX => Ok(cpu),
                _ => Err(format!("{part:?} is not a CPU or a range of CPUs")),
            };
            let (first, last) = (cpu(first)?, cpu(last)?);
            if first > last {
                return Err(format!("{part:?} runs backwards"));
            }
            for cpu in first..=last {
                if cpus.contains(&(cpu as usize)) {
                    return Err(format!("CPU {cpu} is named twice"));
                }
                cpus.push(cpu as usize);
            }
        }
        Ok(CpuList(cpus))
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = &self.0[..];
        let mut first = true;
        while let [start, ..] = rest {
            let run = rest.iter().enumerate().take_while(|(i, cpu)| **cpu == start + i).count();
            if !first {
                f.write_str(",")?;
            }
            first = false;
            if run > 1 {
                write!(f, "{start}-{}", start + run - 1)?
            } else {
                write!(f, "{start}")?
            }
            rest = &rest[run..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(CpuList::parse("0,2-4, 9").map(|list| list.0), Ok(vec![0, 2, 3, 4, 9]));
        assert_eq!(CpuList::parse("3,1").map(|list| list.to_string()), Ok("3,1".to_owned()));
        assert_eq!(CpuList::parse("0,1,2,7").map(|list| list.to_string()), Ok("0-2,7".to_owned()));
        for (text, reason) in [
            ("", "\"\" is not a CPU or a range of CPUs"),
            ("1,", "\"\" is not a CPU or a range of CPUs"),
            ("3-1", "\"3-1\" runs backwards"),
            ("0-2,1", "CPU 1 is named twice"),
            ("0-99999999999", "\"0-99999999999\" is not a CPU or a range of CPUs"),
            ("-1", "\"-1\" is not a CPU or a range of CPUs"),
        ] {
            assert_eq!(CpuList::parse(text), Err(reason.to_owned()), "{text}");
        }
    }

    #[test]
    fn sizes_and_durations() {
        assert_eq!(bytes("16KiB", 0..=u64::MAX), Ok(16 << 10));
        assert_eq!(bytes("4096", 0..=u64::MAX), Ok(4096));
        assert!(bytes("16kb", 0..=u64::MAX).is_err());
        assert!(bytes("99999999999GiB", 0..=u64::MAX).is_err());
        assert!(bytes("1KiB", 2048..=4096).expect_err("small").contains("out of range"));
        assert_eq!(duration("50us", Duration::from_secs(1)), Ok(Duration::from_micros(50)));
        assert_eq!(duration("0", Duration::from_secs(1)), Ok(Duration::ZERO));
        assert!(duration("5", Duration::from_secs(9)).is_err(), "a number without a unit says nothing");
        assert!(duration("2s", Duration::from_secs(1)).is_err());
    }
}
