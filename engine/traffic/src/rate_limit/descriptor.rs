//! Which descriptor a request is counted under: the actions of its rate limits make entries, and a descriptor whose
//! entries are the same, in the same order, matches. Nothing is built: the entries are compared as they are made.

use crate::{
    matching::{header, query},
    text::address_text,
};
use corelane_http::{RequestHead, query::parameter};
use corelane_snapshot::{
    Descriptor, LocalRateLimit, RateLimit, RateLimitAction, RateLimitValue, VirtualHostRateLimits,
};
use std::net::IpAddr;

/// What a descriptor can be made of.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub head: &'a RequestHead,
    /// Whom x-forwarded-for names, as far as it is trusted.
    pub client: IpAddr,
    pub route: &'a [RateLimit],
    pub virtual_host: &'a [RateLimit],
}

enum Entry<'a> {
    Is(&'a [u8]),
    /// No entry, and on with the next action.
    Skipped,
    /// No descriptor.
    Absent,
}

pub(super) fn matches(limit: &LocalRateLimit, descriptor: &Descriptor, asked: &Asked<'_>) -> bool {
    let made = |limits: &[RateLimit], stage: Option<u32>| {
        limits
            .iter()
            .filter(|of| stage.is_none_or(|stage| of.stage == stage))
            .any(|of| makes(&of.actions, descriptor, asked))
    };
    if !limit.rate_limits.is_empty() {
        return made(&limit.rate_limits, None);
    }
    let stage = Some(limit.stage);
    let with_host = match limit.virtual_host {
        VirtualHostRateLimits::Override => asked.route.is_empty(),
        VirtualHostRateLimits::Include => true,
        VirtualHostRateLimits::Ignore => false,
    };
    made(asked.route, stage) || with_host && made(asked.virtual_host, stage)
}

fn makes(actions: &[RateLimitAction], descriptor: &Descriptor, asked: &Asked<'_>) -> bool {
    let mut wanted = descriptor.entries.iter();
    for action in actions {
        let mut text = [0; crate::text::ADDRESS_TEXT_MAX];
        let value = match entry(&action.value, asked, &mut text) {
            Entry::Is(value) => value,
            Entry::Skipped => continue,
            Entry::Absent => return false,
        };
        let Some((key, expected)) = wanted.next() else { return false };
        if *key != action.key || expected.as_bytes() != value {
            return false;
        }
    }
    wanted.next().is_none()
}

fn entry<'a>(value: &'a RateLimitValue, asked: &Asked<'a>, text: &'a mut [u8]) -> Entry<'a> {
    let or_skipped = |found: Option<&'a [u8]>, skip: bool| match found {
        Some(value) => Entry::Is(value),
        None if skip => Entry::Skipped,
        None => Entry::Absent,
    };
    let where_true = |holds: bool, value: &'a str| match holds {
        true => Entry::Is(value.as_bytes()),
        false => Entry::Absent,
    };
    let query = || asked.head.query();
    match value {
        RateLimitValue::Generic(value) => Entry::Is(value.as_bytes()),
        RateLimitValue::RequestHeader { name, skip_if_absent } => {
            or_skipped(asked.head.get_name(name.as_bytes()), *skip_if_absent)
        }
        RateLimitValue::QueryParameter { name, skip_if_absent } => {
            or_skipped(query().and_then(|query| parameter(query, name.as_bytes())), *skip_if_absent)
        }
        RateLimitValue::RemoteAddress => Entry::Is(address_text(asked.client, text)),
        RateLimitValue::HeadersMatch { value, expect, headers } => {
            where_true(header::all_match(headers, asked.head) == *expect, value)
        }
        RateLimitValue::QueryMatches { value, expect, parameters } => {
            let all = parameters.iter().all(|parameter| query::matches(parameter, query()));
            where_true(all == *expect, value)
        }
    }
}
