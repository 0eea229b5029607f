//! The race of keep-alive: an idle connection is closed by the upstream just as a request goes out on it. That says
//! nothing about the upstream's health, so the request goes out once more on a fresh connection, without a policy
//! and without being counted as a retry, where that is safe.

use crate::Failure;
use corelane_http::Method;

/// One try on a connection that came from the pool.
#[derive(Clone, Copy, Debug)]
pub struct LostRace {
    pub failure: Failure,
    /// The connection had carried a request before; a fresh one that fails is a failure.
    pub reused: bool,
    pub request_sent: bool,
    /// Any byte of a response arrived.
    pub response_seen: bool,
    pub body_replayable: bool,
}

/// RFC 9110 section 9.2.2: "A proxy MUST NOT automatically retry non-idempotent requests" - but one of which no
/// byte was sent was no request yet. RFC 9112 section 9.3.1.
pub fn may_repeat_on_fresh_connection(race: &LostRace, method: Method) -> bool {
    let closed = matches!(race.failure, Failure::ResetBeforeRequest | Failure::UpstreamTermination);
    closed
        && race.reused
        && !race.response_seen
        && race.body_replayable
        && (!race.request_sent || method.is_idempotent())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_safe_is_repeated() {
        let race = LostRace {
            failure: Failure::UpstreamTermination,
            reused: true,
            request_sent: true,
            response_seen: false,
            body_replayable: true,
        };
        for (race, method, repeat) in [
            (race, Method::Get, true),
            (race, Method::Put, true),
            (race, Method::Post, false),
            (race, Method::Patch, false),
            (race, Method::Other, false),
            (LostRace { request_sent: false, ..race }, Method::Post, true),
            (LostRace { reused: false, ..race }, Method::Get, false),
            (LostRace { response_seen: true, ..race }, Method::Get, false),
            (LostRace { body_replayable: false, ..race }, Method::Put, false),
            (LostRace { failure: Failure::PerTryTimeout, ..race }, Method::Get, false),
            (
                LostRace { failure: Failure::ResetBeforeRequest, request_sent: false, ..race },
                Method::Post,
                true,
            ),
        ] {
            assert_eq!(may_repeat_on_fresh_connection(&race, method), repeat, "{race:?} {method:?}");
        }
    }
}
