//! envoy.config.route.v3.RetryPolicy.

use super::{
    Context, api, extension,
    matcher::header,
    values::{any_type, decode, duration, misplaced},
};
use api::route::retry_policy::{RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority};
use corelane_snapshot::{BackOff, RetryOn, RetryPolicy};
use std::{sync::Arc, time::Duration};

/// route_components.proto: num_retries "defaults to 1"; retry_back_off "the default base interval is 25ms"; "the
/// default is 10 times the base_interval"; host selection "will default to retrying once".
const RETRIES: u32 = 1;
const BASE_INTERVAL: Duration = Duration::from_millis(25);
const MAX_INTERVAL_FACTOR: u32 = 10;
const HOST_SELECTION_ATTEMPTS: u32 = 1;
/// Tries of one request, whatever the file says.
pub const RETRIES_MAX: u32 = 100;
const HOST_SELECTION_ATTEMPTS_MAX: u32 = 100;

pub(super) fn retry_policy(
    cx: &mut Context<'_>,
    policy: &api::route::RetryPolicy,
) -> Option<Arc<RetryPolicy>> {
    let on = retry_on(cx, &policy.retry_on);
    let retries_max = policy.num_retries.unwrap_or(RETRIES);
    if retries_max > RETRIES_MAX {
        cx.error_at("num_retries", format!("must be at most {RETRIES_MAX}, is {retries_max}"));
    }
    let mut out = RetryPolicy {
        on,
        retries_max,
        per_try_timeout: duration(cx, "per_try_timeout", &policy.per_try_timeout).filter(|d| !d.is_zero()),
        per_try_idle_timeout: duration(cx, "per_try_idle_timeout", &policy.per_try_idle_timeout)
            .filter(|d| !d.is_zero()),
        retriable_status_codes: cx.each(
            "retriable_status_codes",
            &policy.retriable_status_codes,
            |cx, code| {
                let status = u16::try_from(*code).ok().filter(|status| (100..600).contains(status));
                if status.is_none() {
                    cx.error(format!("{code} is no status"));
                }
                status
            },
        ),
        retriable_headers: cx.each("retriable_headers", &policy.retriable_headers, header),
        retriable_request_headers: cx.each(
            "retriable_request_headers",
            &policy.retriable_request_headers,
            header,
        ),
        back_off: back_off(cx, policy),
        avoid_previous_hosts: false,
        omit_canary_hosts: false,
        host_selection_attempts_max: match policy.host_selection_retry_max_attempts {
            0 => HOST_SELECTION_ATTEMPTS,
            attempts => u32::try_from(attempts.max(0)).unwrap_or(u32::MAX).min(HOST_SELECTION_ATTEMPTS_MAX),
        },
        avoid_previous_priorities: cx.optional("retry_priority", &policy.retry_priority, priority),
    };
    cx.each("retry_host_predicate", &policy.retry_host_predicate, |cx, found| predicate(cx, found, &mut out));
    Some(Arc::new(out))
}

/// `5xx,reset, connect-failure`: an unknown condition would otherwise never be met, in silence.
fn retry_on(cx: &mut Context<'_>, tokens: &str) -> RetryOn {
    let mut on = RetryOn::default();
    for token in tokens.split(',').map(str::trim).filter(|token| !token.is_empty()) {
        match RetryOn::token(token) {
            Some(condition) => on = on.with(condition),
            None => cx.error_at("retry_on", format!("`{token}` is no condition that is implemented")),
        }
    }
    on
}

fn back_off(cx: &mut Context<'_>, policy: &api::route::RetryPolicy) -> BackOff {
    let configured = cx.optional("retry_back_off", &policy.retry_back_off, |cx, configured| {
        let base = duration(cx, "base_interval", &configured.base_interval)?;
        let max = duration(cx, "max_interval", &configured.max_interval);
        // "this parameter ... should be greater than or equal to the base_interval"
        if max.is_some_and(|max| max < base) {
            cx.error_at("max_interval", "must not be below `base_interval`");
        }
        Some((base, max))
    });
    let (base, max) = configured.unwrap_or((BASE_INTERVAL, None));
    BackOff { base, max: max.unwrap_or(base.saturating_mul(MAX_INTERVAL_FACTOR)) }
}

fn predicate(cx: &mut Context<'_>, found: &RetryHostPredicate, out: &mut RetryPolicy) -> Option<()> {
    let any = match found.config_type.as_ref() {
        Some(retry_host_predicate::ConfigType::TypedConfig(any)) => any,
        None => {
            cx.error_at("typed_config", "must be set");
            return None;
        }
    };
    cx.within("typed_config", |cx| match any_type(any) {
        extension::PREVIOUS_HOSTS => out.avoid_previous_hosts = true,
        extension::OMIT_CANARY_HOSTS => out.omit_canary_hosts = true,
        _ => misplaced(cx, any, "retry host predicate"),
    });
    Some(())
}

fn priority(cx: &mut Context<'_>, found: &RetryPriority) -> Option<u32> {
    let Some(retry_priority::ConfigType::TypedConfig(any)) = found.config_type.as_ref() else {
        cx.error_at("typed_config", "must be set");
        return None;
    };
    cx.within("typed_config", |cx| {
        if any_type(any) != extension::PREVIOUS_PRIORITIES {
            misplaced(cx, any, "retry priority");
            return None;
        }
        let config: api::previous_priorities::PreviousPrioritiesConfig = decode(cx, any)?;
        u32::try_from(config.update_frequency).ok()
    })
}
