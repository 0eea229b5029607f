//! x-request-id as a UUID version 4 (RFC 9562 section 5.4), and Envoy's way of packing the trace decision into
//! it: the version digit says why the request is traced.

/// Why a request is traced, in the 15th character of its id (UuidRequestIdConfig.pack_trace_reason).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceReason {
    NotTraceable,
    Sampled,
    ServiceForced,
    ClientForced,
}

const REASON_AT: usize = 14;

impl TraceReason {
    const fn digit(self) -> u8 {
        match self {
            TraceReason::NotTraceable => b'4',
            TraceReason::Sampled => b'9',
            TraceReason::ServiceForced => b'a',
            TraceReason::ClientForced => b'b',
        }
    }
}

/// The text of a UUID made of 16 random bytes.
pub fn uuid_v4(random: [u8; 16]) -> [u8; 36] {
    let mut octets = random;
    octets[6] = octets[6] & 0x0f | 0x40;
    octets[8] = octets[8] & 0x3f | 0x80;
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, octet) in octets.iter().enumerate() {
        at += usize::from(matches!(index, 4 | 6 | 8 | 10));
        text[at] = b"0123456789abcdef"[usize::from(octet >> 4)];
        text[at + 1] = b"0123456789abcdef"[usize::from(octet & 15)];
        at += 2;
    }
    text
}

/// The reason an id carries; None if it is not shaped like a UUID.
pub fn trace_reason(id: &[u8]) -> Option<TraceReason> {
    if !is_uuid(id) {
        return None;
    }
    Some(match id[REASON_AT] {
        b'9' => TraceReason::Sampled,
        b'a' => TraceReason::ServiceForced,
        b'b' => TraceReason::ClientForced,
        _ => TraceReason::NotTraceable,
    })
}

/// The id with that reason in it; None if it is not shaped like a UUID.
pub fn with_trace_reason(id: &[u8], reason: TraceReason) -> Option<[u8; 36]> {
    let mut text: [u8; 36] = id.try_into().ok().filter(|_| is_uuid(id))?;
    text[REASON_AT] = reason.digit();
    Some(text)
}

/// A number below `modulus` that is the same wherever the id is seen: the first 32 bits, as Envoy takes them.
/// For sampling that agrees along the whole way. None if it is not shaped like a UUID or `modulus` is 0.
pub fn stable_fraction(id: &[u8], modulus: u64) -> Option<u64> {
    if !is_uuid(id) {
        return None;
    }
    let bits = id[..8].iter().fold(0, |n, &b| n << 4 | u64::from((b as char).to_digit(16).unwrap_or(0)));
    bits.checked_rem(modulus)
}

fn is_uuid(id: &[u8]) -> bool {
    id.len() == 36
        && id.iter().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_and_variant_are_set() {
        assert_eq!(&uuid_v4([0xff; 16]), b"ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(&uuid_v4([0; 16]), b"00000000-0000-4000-8000-000000000000");
        let bytes: [u8; 16] = std::array::from_fn(|i| i as u8 * 17);
        assert_eq!(&uuid_v4(bytes), b"00112233-4455-4677-8899-aabbccddeeff");
    }

    #[test]
    fn the_reason_travels_in_the_id() {
        let id = uuid_v4([7; 16]);
        assert_eq!(trace_reason(&id), Some(TraceReason::NotTraceable));
        for reason in [TraceReason::Sampled, TraceReason::ServiceForced, TraceReason::ClientForced] {
            let packed = with_trace_reason(&id, reason).unwrap();
            assert_eq!(trace_reason(&packed), Some(reason));
        }
        assert_eq!(trace_reason(b"not-a-uuid"), None);
        assert_eq!(with_trace_reason(b"", TraceReason::Sampled), None);
    }

    #[test]
    fn the_fraction_is_of_the_first_32_bits() {
        assert_eq!(stable_fraction(b"0000270f-0000-4000-8000-000000000000", 10_000), Some(9_999));
        assert_eq!(stable_fraction(b"00002710-0000-4000-8000-000000000000", 10_000), Some(0));
        assert_eq!(stable_fraction(b"00002710", 10_000), None);
        assert_eq!(stable_fraction(&uuid_v4([1; 16]), 0), None);
    }
}
