//! Which descriptor a request is counted under: the actions of its rate limits make entries, and a descriptor whose
//! entries are the same, in the same order, matches. Nothing is built: the entries are compared as they are made.

use crate::{
    matching::{header, query},
    text::address_text,
};
use corelane_http::{
    RequestHead,
    query::{decoded, parameter_by_decoded_name},
};
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
    /// What this is when percent-decoded.
    Decoded(&'a [u8]),
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
        let made = entry(&action.value, asked, &mut text);
        if matches!(made, Entry::Skipped) {
            continue;
        }
        let Some((key, expected)) = wanted.next() else { return false };
        let same = match made {
            Entry::Is(value) => expected.as_bytes() == value,
            Entry::Decoded(value) => decoded(value).eq(expected.bytes()),
            Entry::Skipped | Entry::Absent => false,
        };
        if !same || *key != action.key {
            return false;
        }
    }
    wanted.next().is_none()
}

fn entry<'a>(value: &'a RateLimitValue, asked: &Asked<'a>, text: &'a mut [u8]) -> Entry<'a> {
    let or_skipped =
        |found: Option<Entry<'a>>, skip| found.unwrap_or(if skip { Entry::Skipped } else { Entry::Absent });
    let where_true = |holds: bool, value: &'a str| match holds {
        true => Entry::Is(value.as_bytes()),
        false => Entry::Absent,
    };
    let query = || asked.head.query();
    match value {
        RateLimitValue::Generic(value) => Entry::Is(value.as_bytes()),
        RateLimitValue::RequestHeader { name, skip_if_absent } => {
            or_skipped(asked.head.get_name(name.as_bytes()).map(Entry::Is), *skip_if_absent)
        }
        RateLimitValue::QueryParameter { name, skip_if_absent } => {
            // as sent, `%66ree` would be a way around the bucket of `free`
            let value = query().and_then(|query| parameter_by_decoded_name(query, name.as_bytes()));
            or_skipped(value.map(Entry::Decoded), *skip_if_absent)
        }
        RateLimitValue::RemoteAddress => Entry::Is(address_text(asked.client, text)),
        RateLimitValue::HeadersMatch { value, expect, headers } => {
            where_true(header::all_match(headers, asked.head) == *expect, value)
        }
        RateLimitValue::QueryMatches { value, expect, parameters } => {
            let all = parameters.iter().all(|parameter| query::matches_decoded(parameter, query()));
            where_true(all == *expect, value)
        }
    }
}
