//! The fields of one message, in order, as ranges into one arena. Both codecs fill it; nothing is allocated
//! once the arena has grown to the size of the traffic's heads.
//!
//! Invariant: every name in the arena is a lower-case token and no value holds CR, LF or NUL, so whatever is
//! here can be written on a wire (no response splitting).

use crate::{HttpError, Known, known::lower_in_place};

/// A reused arena larger than this is given back by `clear`, so one large head does not pin memory in a pool.
pub const ARENA_RETAIN_BYTES_MAX: usize = 16 * 1024;

/// A range in the arena of a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub start: u32,
    pub len: u32,
}

impl Span {
    pub fn new(start: usize, len: usize) -> Span {
        Span { start: start as u32, len: len as u32 }
    }
    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
    pub fn end(self) -> usize {
        self.start as usize + self.len as usize
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub name: Span,
    pub value: Span,
    /// Bit n: byte n of the name came in upper case (only the first 64; kept where case is preserved).
    pub upper: u64,
    pub known: Known,
}

/// Header or trailer fields in order of arrival.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fields: Vec<Field>,
    /// Bit n: a field whose `Known` is n is here. A clear bit answers most look-ups.
    present: u128,
}

/// RFC 9110 section 5.6.2: tchar.
pub(crate) const fn is_token_byte(b: u8) -> bool {
    matches!(b, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`'
        | b'|' | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z')
}

pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| is_token_byte(b))
}

/// Whether some byte is below 0x0e, as CR, LF and NUL are: eight at a time, for most values are short and none has any.
fn has_controls(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    let below = |word: u64| word.wrapping_sub(ONES * 0x0e) & !word & (ONES << 7) != 0;
    let (words, rest) = bytes.as_chunks();
    words.iter().any(|word| below(u64::from_ne_bytes(*word))) || rest.iter().any(|&b| b < 0x0e)
}

const fn bit(known: Known) -> u128 {
    1 << (known as u8)
}

impl Fields {
    pub const fn new() -> Fields {
        Fields { bytes: Vec::new(), fields: Vec::new(), present: 0 }
    }

    /// Empties it; the memory is kept for the next message, up to `ARENA_RETAIN_BYTES_MAX`.
    pub fn clear(&mut self) {
        self.fields.clear();
        self.present = 0;
        if self.bytes.capacity() > ARENA_RETAIN_BYTES_MAX {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }

    pub fn count(&self) -> usize {
        self.fields.len()
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Sum of the lengths of names and values, in bytes (no separators).
    pub fn total_bytes(&self) -> usize {
        self.fields.iter().map(|f| f.name.len as usize + f.value.len as usize).sum()
    }

    pub(crate) fn slice(&self, span: Span) -> &[u8] {
        self.bytes.get(span.range()).unwrap_or_default()
    }

    /// Whether any field of that name is here; `Other` answers false.
    #[inline]
    pub fn contains(&self, known: Known) -> bool {
        self.present & bit(known) != 0 && known != Known::Other
    }

    /// Value of the first field of that name.
    #[inline]
    pub fn get(&self, known: Known) -> Option<&[u8]> {
        if !self.contains(known) {
            return None;
        }
        self.fields.iter().find(|f| f.known == known).map(|f| self.slice(f.value))
    }

    /// Value of the first field of that name, in any case.
    pub fn get_name(&self, name: &[u8]) -> Option<&[u8]> {
        self.get_all_name(name).next()
    }

    /// Values of every field of that name, in order.
    pub fn get_all(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let fields: &[Field] = if self.contains(known) { &self.fields } else { &[] };
        fields.iter().filter(move |f| f.known == known).map(|f| self.slice(f.value))
    }

    /// Values of every field of that name, in any case, in order.
    pub fn get_all_name<'a>(&'a self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        let known = Known::of(name);
        let fields: &[Field] = if self.present & bit(known) != 0 { &self.fields } else { &[] };
        fields.iter().filter(move |f| self.is_named(f, known, name)).map(|f| self.slice(f.value))
    }

    fn is_named(&self, field: &Field, known: Known, name: &[u8]) -> bool {
        field.known == known && (known != Known::Other || self.slice(field.name).eq_ignore_ascii_case(name))
    }

    /// (name in lower case, value), in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|f| (self.slice(f.name), self.slice(f.value)))
    }

    /// (name as known, name in lower case, value), in order.
    pub fn iter_known(&self) -> impl Iterator<Item = (Known, &[u8], &[u8])> {
        self.fields.iter().map(|f| (f.known, self.slice(f.name), self.slice(f.value)))
    }

    /// Adds a field at the end. CR, LF and NUL in the value become spaces: RFC 9110 section 5.5, "a recipient
    /// of CR, LF, or NUL within a field value MUST either reject the message or replace each of those
    /// characters with SP before further processing".
    ///
    /// # Errors
    /// `InvalidFieldName` if the name is not a token; nothing is added.
    pub fn append(&mut self, name: &[u8], value: &[u8]) -> Result<(), HttpError> {
        if !is_token(name) {
            return Err(HttpError::InvalidFieldName);
        }
        let (name, value) = self.push_line(name, value);
        let lower = &mut self.bytes[name.range()];
        lower_in_place(lower);
        let known = Known::of_lower(lower);
        self.push_field(Field { name, value, upper: 0, known });
        Ok(())
    }

    /// Adds a field at the end; `Other` has no name and adds nothing. Values as in `append`.
    pub fn append_known(&mut self, known: Known, value: &[u8]) {
        if known == Known::Other {
            return;
        }
        let (name, value) = self.push_line(known.name().as_bytes(), value);
        self.push_field(Field { name, value, upper: 0, known });
    }

    /// Replaces every field of that name by one, at the place of the first.
    pub fn set(&mut self, known: Known, value: &[u8]) {
        if !self.contains(known) {
            return self.append_known(known, value);
        }
        let value = self.push_value(value);
        self.replace_first(value, |f| f.known == known);
    }

    /// Replaces every field of that name by one, at the place of the first.
    ///
    /// # Errors
    /// `InvalidFieldName` if the name is not a token; nothing is changed.
    pub fn set_name(&mut self, name: &[u8], value: &[u8]) -> Result<(), HttpError> {
        let known = Known::of(name);
        if known != Known::Other {
            self.set(known, value);
            return Ok(());
        }
        if self.get_name(name).is_none() {
            return self.append(name, value);
        }
        let value = self.push_value(value);
        let bytes = std::mem::take(&mut self.bytes);
        self.replace_first(value, |f| {
            f.known == Known::Other && bytes[f.name.range()].eq_ignore_ascii_case(name)
        });
        self.bytes = bytes;
        Ok(())
    }

    fn replace_first(&mut self, value: Span, is_it: impl Fn(&Field) -> bool) {
        let mut seen = false;
        self.fields.retain_mut(|f| {
            if !is_it(f) {
                return true;
            }
            f.value = value;
            !std::mem::replace(&mut seen, true)
        });
    }

    /// Extends the last field of that name by `separator` and `value`, or adds the field. This is how a list
    /// (XFF, Via) grows: several lines are one list in their order, and what we add must be its end.
    pub fn extend_list(&mut self, known: Known, separator: &[u8], value: &[u8]) {
        let Some(at) = self.fields.iter().rposition(|f| f.known == known && known != Known::Other) else {
            return self.append_known(known, value);
        };
        let old = self.fields[at].value;
        let start = self.bytes.len();
        self.bytes.extend_from_within(old.range());
        self.bytes.extend_from_slice(separator);
        self.push_value(value);
        self.fields[at].value = Span::new(start, self.bytes.len() - start);
    }

    /// Removes every field of that name; says whether there was one.
    #[inline]
    pub fn remove(&mut self, known: Known) -> bool {
        if !self.contains(known) {
            return false;
        }
        self.fields.retain(|f| f.known != known);
        self.present &= !bit(known);
        true
    }

    /// Removes every field of that name, in any case; says whether there was one.
    pub fn remove_name(&mut self, name: &[u8]) -> bool {
        let known = Known::of(name);
        if known != Known::Other {
            return self.remove(known);
        }
        let Fields { bytes, fields, .. } = self;
        let before = fields.len();
        fields.retain(|f| f.known != Known::Other || !bytes[f.name.range()].eq_ignore_ascii_case(name));
        before != fields.len()
    }

    /// Removes every field for which `doomed(known, name in lower case, value)` says so.
    pub fn remove_if(&mut self, mut doomed: impl FnMut(Known, &[u8], &[u8]) -> bool) {
        let Fields { bytes, fields, present } = self;
        fields.retain(|f| !doomed(f.known, &bytes[f.name.range()], &bytes[f.value.range()]));
        *present = fields.iter().fold(0, |set, f| set | bit(f.known));
    }

    pub(crate) fn name_at(&self, index: usize) -> (Known, &[u8]) {
        self.fields.get(index).map_or((Known::Other, b""), |f| (f.known, self.slice(f.name)))
    }

    /// Removes one field of a name that is not known.
    pub(crate) fn remove_at(&mut self, index: usize) {
        if self.fields.get(index).is_some_and(|f| f.known == Known::Other) {
            self.fields.remove(index);
        }
    }

    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        Span::new(start, bytes.len())
    }

    /// As a field line has it, so that the HTTP/1.1 codec writes neighbours with one copy.
    fn push_line(&mut self, name: &[u8], value: &[u8]) -> (Span, Span) {
        self.bytes.reserve(name.len() + value.len() + 4);
        let name = self.push_bytes(name);
        self.bytes.extend_from_slice(b": ");
        let value = self.push_value(value);
        self.bytes.extend_from_slice(b"\r\n");
        (name, value)
    }

    fn push_value(&mut self, value: &[u8]) -> Span {
        let span = self.push_bytes(value);
        let copy = &mut self.bytes[span.range()];
        if has_controls(copy) {
            copy.iter_mut().filter(|b| matches!(b, b'\r' | b'\n' | 0)).for_each(|b| *b = b' ');
        }
        span
    }

    pub(crate) fn push_field(&mut self, field: Field) {
        self.present |= bit(field.known);
        self.fields.push(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(fields: &Fields) -> Vec<(String, String)> {
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        fields.iter().map(|(n, v)| (text(n), text(v))).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect()
    }

    #[test]
    fn keeps_order_and_looks_up_in_any_case() {
        let mut f = Fields::new();
        f.append(b"X-One", b"1").unwrap();
        f.append(b"Content-Type", b"text/plain").unwrap();
        f.append(b"x-one", b"2").unwrap();
        assert_eq!(listed(&f), pairs(&[("x-one", "1"), ("content-type", "text/plain"), ("x-one", "2")]));
        assert_eq!(f.get(Known::ContentType), Some(&b"text/plain"[..]));
        assert_eq!(f.get_name(b"CONTENT-TYPE"), Some(&b"text/plain"[..]));
        assert_eq!(f.get_all_name(b"X-ONE").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(f.get(Known::Other), None);
        assert_eq!((f.count(), f.total_bytes()), (3, 5 + 1 + 12 + 10 + 5 + 1));
    }

    #[test]
    fn controls_are_found_at_every_place() {
        for length in 0..20 {
            let clean: Vec<u8> = (0..length).map(|n| [b' ', b'~', 0x0e, 0x80, 0xff][n % 5]).collect();
            assert!(!has_controls(&clean), "{clean:?}");
            for at in 0..length {
                for control in [0, b'\t', b'\n', b'\r'] {
                    let mut value = clean.clone();
                    value[at] = control;
                    assert!(has_controls(&value), "{value:?}");
                }
            }
        }
    }

    #[test]
    fn set_replaces_all_at_the_place_of_the_first() {
        let mut f = Fields::new();
        for (n, v) in [("via", "a"), ("x", "1"), ("via", "b"), ("x", "2"), ("y", "3")] {
            f.append(n.as_bytes(), v.as_bytes()).unwrap();
        }
        f.set(Known::Via, b"c");
        f.set_name(b"X", b"4").unwrap();
        f.set_name(b"z", b"5").unwrap();
        f.set(Known::Te, b"trailers");
        assert_eq!(
            listed(&f),
            pairs(&[("via", "c"), ("x", "4"), ("y", "3"), ("z", "5"), ("te", "trailers")])
        );
    }

    #[test]
    fn remove_forgets_presence() {
        let mut f = Fields::new();
        f.append_known(Known::Te, b"a");
        f.append_known(Known::Te, b"b");
        f.append(b"q", b"c").unwrap();
        assert!(f.remove(Known::Te));
        assert!(!f.remove(Known::Te));
        assert!(f.remove_name(b"Q"));
        assert!(!f.remove_name(b"Q"));
        assert!(f.is_empty());
        f.append_known(Known::Te, b"a");
        f.remove_if(|known, _, _| known == Known::Te);
        assert!(!f.contains(Known::Te));
    }

    #[test]
    fn a_list_grows_at_its_end() {
        let mut f = Fields::new();
        f.extend_list(Known::Via, b", ", b"1.1 a");
        f.append_known(Known::Date, b"d");
        f.extend_list(Known::Via, b", ", b"1.1 b");
        assert_eq!(listed(&f), pairs(&[("via", "1.1 a, 1.1 b"), ("date", "d")]));
        f.append_known(Known::Via, b"1.1 c");
        f.extend_list(Known::Via, b",", b"1.1 d");
        assert_eq!(f.get_all(Known::Via).last(), Some(&b"1.1 c,1.1 d"[..]));
    }

    #[test]
    fn nothing_that_splits_a_message_gets_in() {
        let mut f = Fields::new();
        f.append(b"a", b"x\r\nset-cookie: y\0").unwrap();
        assert_eq!(f.get_name(b"a"), Some(&b"x  set-cookie: y "[..]));
        for name in [&b""[..], b"a b", b"a:", b"a\r\n", b"\xc3\xa9", b":path"] {
            assert_eq!(f.append(name, b""), Err(HttpError::InvalidFieldName));
        }
        assert_eq!(f.count(), 1);
    }

    #[test]
    fn clear_keeps_ordinary_memory_and_gives_back_large() {
        let mut f = Fields::new();
        f.append(b"a", &[b'x'; 1000]).unwrap();
        f.clear();
        assert!(f.is_empty() && f.bytes.capacity() >= 1000 && f.get_name(b"a").is_none());
        f.append(b"a", &vec![b'x'; ARENA_RETAIN_BYTES_MAX + 1]).unwrap();
        f.clear();
        assert_eq!(f.bytes.capacity(), 0);
    }
}
