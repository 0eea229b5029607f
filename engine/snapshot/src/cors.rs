//! envoy.extensions.filters.http.cors.v3.CorsPolicy.

use crate::{Fraction, StringMatcher};

/// What is empty or None is asked of the next less specific level, but for `enabled` and `shadow_enabled`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CorsPolicy {
    pub allow_origins: Vec<StringMatcher>,
    pub allow_methods: Box<str>,
    pub allow_headers: Box<str>,
    pub expose_headers: Box<str>,
    pub max_age: Box<str>,
    pub allow_credentials: Option<bool>,
    pub allow_private_network_access: Option<bool>,
    pub forward_not_matching_preflights: Option<bool>,
    pub enabled: Option<Fraction>,
    pub shadow_enabled: Option<Fraction>,
}
