//! Response codes in a block: five classes and the codes that are met in practice, each in a slot of its own.
//!
//! Envoy makes `upstream_rq_503` when the first 503 arrives, which needs a lock. Here the slots exist from the start and show
//! once they are not zero. A code that is not in the table counts in its class alone.

/// Exact codes that have a slot: those registered with IANA that proxies meet, and nginx's 499.
pub const CODES: [u16; 49] = [
    100, 101, 103, 200, 201, 202, 203, 204, 205, 206, 207, 300, 301, 302, 303, 304, 307, 308, 400, 401, 402,
    403, 404, 405, 406, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 425, 426, 428, 429, 431,
    451, 499, 500, 501, 502, 503, 504,
];

/// Classes 1xx to 5xx.
pub const CODE_CLASSES: u16 = 5;

/// Slots of a `Kind::Codes` statistic: the classes, then `CODES`.
pub const CODE_SLOTS: u16 = CODE_CLASSES + CODES.len() as u16;

const CODE_FIRST: u16 = 100;
const CODE_LAST: u16 = 599;
const NO_SLOT: u8 = u8::MAX;

static SLOT_OF: [u8; (CODE_LAST - CODE_FIRST + 1) as usize] = slots();

const fn slots() -> [u8; (CODE_LAST - CODE_FIRST + 1) as usize] {
    let mut table = [NO_SLOT; (CODE_LAST - CODE_FIRST + 1) as usize];
    let mut i = 0;
    while i < CODES.len() {
        table[(CODES[i] - CODE_FIRST) as usize] = (CODE_CLASSES as usize + i) as u8;
        i += 1;
    }
    table
}

/// Slot of the class of `code`; `None` outside 100 to 599.
#[inline]
pub(crate) fn class_slot(code: u16) -> Option<u32> {
    (CODE_FIRST..=CODE_LAST).contains(&code).then(|| u32::from(code / 100 - 1))
}

/// Slot of exactly `code`; `None` where it has none.
#[inline]
pub(crate) fn code_slot(code: u16) -> Option<u32> {
    let slot = *SLOT_OF.get(usize::from(code.checked_sub(CODE_FIRST)?))?;
    (slot != NO_SLOT).then_some(u32::from(slot))
}

/// One entry that is not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CodeCount {
    code: Code,
    pub(crate) count: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Class(u16),
    Exact(u16),
}

impl CodeCount {
    /// The entry in `slot`, counted from the statistic's first.
    pub(crate) fn new(slot: u16, count: u64) -> Self {
        let code = match slot.checked_sub(CODE_CLASSES) {
            Some(exact) => Code::Exact(CODES[usize::from(exact)]),
            None => Code::Class(slot + 1),
        };
        Self { code, count }
    }

    pub(crate) fn is_exact(self) -> bool {
        matches!(self.code, Code::Exact(_))
    }

    /// `503` or `5`.
    pub(crate) fn push_number(self, name: &mut String) {
        let mut number = match self.code {
            Code::Class(class) => class,
            Code::Exact(code) => code,
        };
        let at = name.len();
        while number > 0 {
            name.insert(at, char::from(b'0' + (number % 10) as u8));
            number /= 10;
        }
    }

    /// `503` or `5xx`.
    pub(crate) fn push_suffix(self, name: &mut String) {
        self.push_number(name);
        if !self.is_exact() {
            name.push_str("xx");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_code_has_its_own_slot_and_no_other_code_has_one() {
        let with_slot: Vec<u16> = (0..=u16::MAX).filter(|code| code_slot(*code).is_some()).collect();
        assert_eq!(with_slot, CODES);
        for (i, code) in CODES.iter().enumerate() {
            assert_eq!(code_slot(*code), Some(u32::from(CODE_CLASSES) + i as u32));
        }
    }

    #[test]
    fn classes_end_at_599() {
        assert_eq!([class_slot(99), class_slot(600), class_slot(0)], [None; 3]);
        assert_eq!([class_slot(100), class_slot(299), class_slot(599)], [Some(0), Some(1), Some(4)]);
    }
}
