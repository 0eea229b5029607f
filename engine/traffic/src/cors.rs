//! Cross-origin resource sharing (envoy.extensions.filters.http.cors.v3): which origins may read what. Reference:
//! Fetch standard, section 3.2 "CORS protocol".

use crate::Rng;
use corelane_http::{Known, Method, RequestHead};
use corelane_snapshot::{CorsPolicy, StringMatcher};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CorsVerdict<'a> {
    /// No Origin, no policy, or the policy is off: nothing is added.
    NotCors,
    /// Answer 200 with [`preflight_fields`]; the request goes no further. Counts `origin_valid`.
    Preflight { origin: &'a [u8], private_network: bool },
    /// Forward; [`response_fields`] go on the response. Counts `origin_valid`.
    Allowed { origin: &'a [u8] },
    /// Forward and add nothing: the browser will not let the page read it. Counts `origin_invalid`.
    NotAllowed,
    /// A preflight of an origin that may not: answered 200 with nothing in it, unless
    /// forward_not_matching_preflights. Counts `origin_invalid`.
    PreflightRefused,
    /// The policy is only watched: forward and add nothing. Counts `origin_valid` or `origin_invalid`.
    Watched { allowed: bool },
}

/// `NotCors` without a policy. The shadow share is counted as the enforced one but changes nothing.
pub fn check<'a>(policy: &CorsPolicy, head: &'a RequestHead, rng: &mut Rng) -> CorsVerdict<'a> {
    let Some(origin) = head.fields.get(Known::Origin) else { return CorsVerdict::NotCors };
    let enforced = policy.enabled.selects(rng.next_u64());
    if !enforced && !policy.shadow_enabled.selects(rng.next_u64()) {
        return CorsVerdict::NotCors;
    }
    let allowed = !origin.is_empty() && policy.allow_origins.iter().any(|matcher| allows(matcher, origin));
    if !enforced {
        return CorsVerdict::Watched { allowed };
    }
    // Fetch standard: a preflight is an OPTIONS request that names the method to come
    let preflight = head.method() == Method::Options
        && head.fields.get(Known::AccessControlRequestMethod).is_some_and(|method| !method.is_empty());
    match (allowed, preflight) {
        (true, true) => CorsVerdict::Preflight { origin, private_network: asks_private_network(head) },
        (true, false) => CorsVerdict::Allowed { origin },
        (false, true) if !policy.forward_not_matching_preflights => CorsVerdict::PreflightRefused,
        (false, _) => CorsVerdict::NotAllowed,
    }
}

/// A configured `*` is any origin.
fn allows(matcher: &StringMatcher, origin: &[u8]) -> bool {
    matches!(matcher, StringMatcher::Exact { text, .. } if **text == *b"*") || matcher.matches(origin)
}

fn asks_private_network(head: &RequestHead) -> bool {
    head.fields.get(Known::AccessControlRequestPrivateNetwork) == Some(b"true")
}

/// Calls with each field of the answer to a preflight.
pub fn preflight_fields(
    policy: &CorsPolicy,
    origin: &[u8],
    private_network: bool,
    mut add: impl FnMut(Known, &[u8]),
) {
    add(Known::AccessControlAllowOrigin, origin);
    if policy.allow_credentials {
        add(Known::AccessControlAllowCredentials, b"true");
    }
    let configured = [
        (Known::AccessControlAllowMethods, &policy.allow_methods),
        (Known::AccessControlAllowHeaders, &policy.allow_headers),
        (Known::AccessControlMaxAge, &policy.max_age),
    ];
    for (name, value) in configured.into_iter().filter(|(_, value)| !value.is_empty()) {
        add(name, value.as_bytes());
    }
    if private_network && policy.allow_private_network_access {
        add(Known::AccessControlAllowPrivateNetwork, b"true");
    }
}

/// Calls with each field to set on the upstream's response.
pub fn response_fields(policy: &CorsPolicy, origin: &[u8], mut set: impl FnMut(Known, &[u8])) {
    set(Known::AccessControlAllowOrigin, origin);
    if policy.allow_credentials {
        set(Known::AccessControlAllowCredentials, b"true");
    }
    if !policy.expose_headers.is_empty() {
        set(Known::AccessControlExposeHeaders, policy.expose_headers.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_snapshot::Fraction;

    fn policy() -> CorsPolicy {
        CorsPolicy {
            allow_origins: vec![StringMatcher::exact("https://a.example")],
            allow_methods: "GET,POST".into(),
            allow_headers: "x-custom".into(),
            expose_headers: "x-shown".into(),
            max_age: "600".into(),
            allow_credentials: true,
            allow_private_network_access: true,
            forward_not_matching_preflights: false,
            enabled: Fraction::ALL,
            shadow_enabled: Fraction::NONE,
        }
    }

    fn head(method: &str, fields: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::new();
        head.set_method(method.as_bytes()).unwrap();
        fields.iter().for_each(|(n, v)| head.fields.append(n.as_bytes(), v.as_bytes()).unwrap());
        head
    }

    const ORIGIN: (&str, &str) = ("origin", "https://a.example");
    const STRANGER: (&str, &str) = ("origin", "https://b.example");
    const ASKS: (&str, &str) = ("access-control-request-method", "POST");

    #[test]
    fn who_gets_what() {
        let origin = ORIGIN.1.as_bytes();
        for (method, fields, verdict) in [
            ("GET", &[][..], CorsVerdict::NotCors),
            ("GET", &[ORIGIN], CorsVerdict::Allowed { origin }),
            ("GET", &[STRANGER], CorsVerdict::NotAllowed),
            ("OPTIONS", &[ORIGIN], CorsVerdict::Allowed { origin }),
            ("OPTIONS", &[ORIGIN, ASKS], CorsVerdict::Preflight { origin, private_network: false }),
            ("OPTIONS", &[STRANGER, ASKS], CorsVerdict::PreflightRefused),
            (
                "OPTIONS",
                &[ORIGIN, ASKS, ("access-control-request-private-network", "true")],
                CorsVerdict::Preflight { origin, private_network: true },
            ),
        ] {
            assert_eq!(
                check(&policy(), &head(method, fields), &mut Rng::new(1)),
                verdict,
                "{method} {fields:?}"
            );
        }
        let any = CorsPolicy { allow_origins: vec![StringMatcher::exact("*")], ..policy() };
        let head = head("GET", &[STRANGER]);
        assert_eq!(
            check(&any, &head, &mut Rng::new(1)),
            CorsVerdict::Allowed { origin: STRANGER.1.as_bytes() }
        );
        let off = CorsPolicy { enabled: Fraction::NONE, ..policy() };
        assert_eq!(check(&off, &head, &mut Rng::new(1)), CorsVerdict::NotCors);
        let watched = CorsPolicy { shadow_enabled: Fraction::ALL, ..off };
        assert_eq!(check(&watched, &head, &mut Rng::new(1)), CorsVerdict::Watched { allowed: false });
        let both = CorsPolicy { shadow_enabled: Fraction::ALL, ..policy() };
        assert_eq!(check(&both, &head, &mut Rng::new(1)), CorsVerdict::NotAllowed);
    }

    #[test]
    fn a_preflight_may_be_forwarded() {
        let forward = CorsPolicy { forward_not_matching_preflights: true, ..policy() };
        let head = head("OPTIONS", &[STRANGER, ASKS]);
        assert_eq!(check(&forward, &head, &mut Rng::new(1)), CorsVerdict::NotAllowed);
    }

    #[test]
    fn fields_of_the_answers() {
        let mut seen = Vec::new();
        preflight_fields(&policy(), b"o", true, |name, value| seen.push((name.name(), value.to_vec())));
        let names: Vec<&str> = seen.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            [
                "access-control-allow-origin",
                "access-control-allow-credentials",
                "access-control-allow-methods",
                "access-control-allow-headers",
                "access-control-max-age",
                "access-control-allow-private-network",
            ]
        );
        let bare = CorsPolicy { allow_credentials: false, expose_headers: "".into(), ..policy() };
        let mut seen = Vec::new();
        response_fields(&bare, b"o", |name, value| seen.push((name, value.to_vec())));
        assert_eq!(seen, [(Known::AccessControlAllowOrigin, b"o".to_vec())]);
    }
}
