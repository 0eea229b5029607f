//! Cross-origin resource sharing (envoy.extensions.filters.http.cors.v3): which origins may read what. Reference:
//! Fetch standard, section 3.2 "CORS protocol".

use crate::Rng;
use corelane_http::{Known, Method, RequestHead};
use corelane_snapshot::{CorsPolicy, Fraction, StringMatcher};

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

/// The policies of a request's route, the most specific first. Each field is that of the first policy that has it, as
/// Envoy's filter merges them (observed with 1.40: a route's methods beside its virtual host's origins); but whether it
/// is on, only the first policy says.
#[derive(Clone, Copy, Debug)]
pub struct Policies<'p>(pub [Option<&'p CorsPolicy>; 4]);

impl<'p> Policies<'p> {
    fn first<T>(&self, field: impl Fn(&'p CorsPolicy) -> Option<T>) -> Option<T> {
        self.0.into_iter().flatten().find_map(field)
    }

    fn text(&self, field: impl Fn(&'p CorsPolicy) -> &'p str) -> Option<&'p [u8]> {
        self.first(|policy| Some(field(policy)).filter(|text| !text.is_empty())).map(str::as_bytes)
    }

    fn origins(&self) -> &'p [StringMatcher] {
        self.first(|policy| Some(&policy.allow_origins[..]).filter(|origins| !origins.is_empty()))
            .unwrap_or_default()
    }

    fn allow_credentials(&self) -> bool {
        self.first(|policy| policy.allow_credentials).unwrap_or(false)
    }
}

/// `NotCors` without a policy. The shadow share is counted as the enforced one but changes nothing.
pub fn check<'a>(policies: &Policies<'_>, head: &'a RequestHead, rng: &mut Rng) -> CorsVerdict<'a> {
    let Some(nearest) = policies.0.into_iter().flatten().next() else { return CorsVerdict::NotCors };
    let Some(origin) = head.fields.get(Known::Origin) else { return CorsVerdict::NotCors };
    // Envoy enforces wherever filter_enabled is not set, shadow_enabled or not; neither is asked of a less specific level
    let enabled = nearest.enabled.unwrap_or(Fraction::ALL);
    let shadow = nearest.shadow_enabled.unwrap_or(Fraction::NONE);
    let enforced = enabled.selects(rng.next_u64());
    if !enforced && !shadow.selects(rng.next_u64()) {
        return CorsVerdict::NotCors;
    }
    let allowed = !origin.is_empty() && policies.origins().iter().any(|matcher| allows(matcher, origin));
    if !enforced {
        return CorsVerdict::Watched { allowed };
    }
    // Fetch standard: a preflight is an OPTIONS request that names the method to come
    let preflight = head.method() == Method::Options
        && head.fields.get(Known::AccessControlRequestMethod).is_some_and(|method| !method.is_empty());
    // cors.proto: "Default is true"
    let forwards = || policies.first(|policy| policy.forward_not_matching_preflights).unwrap_or(true);
    match (allowed, preflight) {
        (true, true) => CorsVerdict::Preflight { origin, private_network: asks_private_network(head) },
        (true, false) => CorsVerdict::Allowed { origin },
        (false, true) if !forwards() => CorsVerdict::PreflightRefused,
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

/// Calls with each field of the answer to a preflight, `asked`. Envoy's passes the filter again on its way out, and so
/// has what every answer has, the exposed fields among it. Configured methods or headers `*` are those that are asked
/// for, as Envoy has it: to a browser that sends credentials `*` means nothing.
pub fn preflight_fields(
    policies: &Policies<'_>,
    asked: &RequestHead,
    origin: &[u8],
    private_network: bool,
    mut add: impl FnMut(Known, &[u8]),
) {
    response_fields(policies, origin, &mut add);
    let methods = policies.text(|policy| &policy.allow_methods);
    let headers = policies.text(|policy| &policy.allow_headers);
    let configured = [
        (Known::AccessControlAllowMethods, or_asked(methods, asked, Known::AccessControlRequestMethod)),
        (Known::AccessControlAllowHeaders, or_asked(headers, asked, Known::AccessControlRequestHeaders)),
        (Known::AccessControlMaxAge, policies.text(|policy| &policy.max_age)),
    ];
    configured.into_iter().for_each(|(name, value)| {
        value.into_iter().for_each(|value| add(name, value));
    });
    if private_network && policies.first(|policy| policy.allow_private_network_access).unwrap_or(false) {
        add(Known::AccessControlAllowPrivateNetwork, b"true");
    }
}

/// What is asked for where `*` is configured; Envoy answers with an empty field where nothing is.
fn or_asked<'a>(configured: Option<&'a [u8]>, asked: &'a RequestHead, what: Known) -> Option<&'a [u8]> {
    configured.map(|text| if text == b"*" { asked.fields.get(what).unwrap_or_default() } else { text })
}

/// Calls with each field to set on the upstream's response.
pub fn response_fields(policies: &Policies<'_>, origin: &[u8], mut set: impl FnMut(Known, &[u8])) {
    set(Known::AccessControlAllowOrigin, origin);
    if policies.allow_credentials() {
        set(Known::AccessControlAllowCredentials, b"true");
    }
    if let Some(exposed) = policies.text(|policy| &policy.expose_headers) {
        set(Known::AccessControlExposeHeaders, exposed);
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
            allow_credentials: Some(true),
            allow_private_network_access: Some(true),
            forward_not_matching_preflights: Some(false),
            enabled: None,
            shadow_enabled: None,
        }
    }

    fn alone(policy: &CorsPolicy) -> Policies<'_> {
        Policies([None, Some(policy), None, None])
    }

    /// What Envoy 1.40 made of a virtual host's policy and a route's.
    #[test]
    fn fields_come_from_the_most_specific_level_that_has_them() {
        let host = policy();
        let origins = vec![StringMatcher::exact(STRANGER.1)];
        let verdict = |route: &CorsPolicy, origin| {
            let policies = Policies([None, Some(route), Some(&host), None]);
            let head = head("GET", &[("origin", origin)]);
            matches!(check(&policies, &head, &mut Rng::new(1)), CorsVerdict::Allowed { .. })
        };
        let (ours, other) = (ORIGIN.1, STRANGER.1);
        let off = CorsPolicy { enabled: Some(Fraction::NONE), ..CorsPolicy::default() };
        let shadow = CorsPolicy { shadow_enabled: Some(Fraction::ALL), ..CorsPolicy::default() };
        let own = CorsPolicy { allow_origins: origins, ..CorsPolicy::default() };
        for (route, of_ours, of_other) in [
            (&CorsPolicy::default(), true, false),
            (&off, false, false),
            (&shadow, true, false),
            (&own, false, true),
        ] {
            assert_eq!((verdict(route, ours), verdict(route, other)), (of_ours, of_other), "{route:?}");
        }
        let host_off = CorsPolicy { shadow_enabled: Some(Fraction::ALL), enabled: off.enabled, ..policy() };
        let (asked, bare) = (head("GET", &[ORIGIN]), CorsPolicy::default());
        let beside =
            |route| check(&Policies([None, Some(route), Some(&host_off), None]), &asked, &mut Rng::new(1));
        assert_eq!(beside(&bare), CorsVerdict::Allowed { origin: ours.as_bytes() });
        assert_eq!(beside(&off), CorsVerdict::NotCors);
        let route = CorsPolicy {
            allow_credentials: Some(false),
            allow_methods: "PUT".into(),
            ..CorsPolicy::default()
        };
        let mut seen = Vec::new();
        let policies = Policies([None, Some(&route), Some(&host), None]);
        preflight_fields(&policies, &asked, b"o", false, |name, value| {
            seen.push((name.name(), String::from_utf8_lossy(value).into_owned()));
        });
        let seen: Vec<_> = seen.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(
            seen,
            [
                ("access-control-allow-origin", "o"),
                ("access-control-expose-headers", "x-shown"),
                ("access-control-allow-methods", "PUT"),
                ("access-control-allow-headers", "x-custom"),
                ("access-control-max-age", "600"),
            ]
        );
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
                check(&alone(&policy()), &head(method, fields), &mut Rng::new(1)),
                verdict,
                "{method} {fields:?}"
            );
        }
        let any = CorsPolicy { allow_origins: vec![StringMatcher::exact("*")], ..policy() };
        let head = head("GET", &[STRANGER]);
        assert_eq!(
            check(&alone(&any), &head, &mut Rng::new(1)),
            CorsVerdict::Allowed { origin: STRANGER.1.as_bytes() }
        );
        let off = CorsPolicy { enabled: Some(Fraction::NONE), ..policy() };
        assert_eq!(check(&alone(&off), &head, &mut Rng::new(1)), CorsVerdict::NotCors);
        let watched = CorsPolicy { shadow_enabled: Some(Fraction::ALL), ..off };
        assert_eq!(check(&alone(&watched), &head, &mut Rng::new(1)), CorsVerdict::Watched { allowed: false });
        let both = CorsPolicy { shadow_enabled: Some(Fraction::ALL), ..policy() };
        assert_eq!(check(&alone(&both), &head, &mut Rng::new(1)), CorsVerdict::NotAllowed);
    }

    #[test]
    fn a_preflight_may_be_forwarded() {
        let forward = CorsPolicy { forward_not_matching_preflights: None, ..policy() };
        let head = head("OPTIONS", &[STRANGER, ASKS]);
        assert_eq!(check(&alone(&forward), &head, &mut Rng::new(1)), CorsVerdict::NotAllowed);
    }

    #[test]
    fn whatever_is_asked_for_is_allowed_by_name() {
        let any =
            CorsPolicy { allow_methods: "*".into(), allow_headers: "*".into(), ..CorsPolicy::default() };
        let wanted = ("access-control-request-headers", "x-one,x-two");
        for (fields, headers) in [(&[ASKS, wanted][..], "x-one,x-two"), (&[ASKS], "")] {
            let mut seen = Vec::new();
            preflight_fields(&alone(&any), &head("OPTIONS", fields), b"o", false, |name, value| {
                seen.push((name.name(), String::from_utf8_lossy(value).into_owned()));
            });
            let seen: Vec<_> = seen.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!(
                seen,
                [
                    ("access-control-allow-origin", "o"),
                    ("access-control-allow-methods", "POST"),
                    ("access-control-allow-headers", headers),
                ]
            );
        }
    }

    #[test]
    fn fields_of_the_answers() {
        let mut seen = Vec::new();
        preflight_fields(&alone(&policy()), &head("OPTIONS", &[]), b"o", true, |name, value| {
            seen.push((name.name(), value.to_vec()))
        });
        let names: Vec<&str> = seen.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            [
                "access-control-allow-origin",
                "access-control-allow-credentials",
                "access-control-expose-headers",
                "access-control-allow-methods",
                "access-control-allow-headers",
                "access-control-max-age",
                "access-control-allow-private-network",
            ]
        );
        let bare = CorsPolicy { allow_credentials: None, expose_headers: "".into(), ..policy() };
        let mut seen = Vec::new();
        response_fields(&alone(&bare), b"o", |name, value| seen.push((name, value.to_vec())));
        assert_eq!(seen, [(Known::AccessControlAllowOrigin, b"o".to_vec())]);
    }
}
