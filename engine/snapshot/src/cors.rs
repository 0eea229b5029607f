//! envoy.extensions.filters.http.cors.v3.CorsPolicy.

use crate::{Fraction, StringMatcher};

#[derive(Clone, Debug, PartialEq)]
pub struct CorsPolicy {
    pub allow_origins: Vec<StringMatcher>,
    pub allow_methods: Box<str>,
    pub allow_headers: Box<str>,
    pub expose_headers: Box<str>,
    pub max_age: Box<str>,
    pub allow_credentials: bool,
    pub allow_private_network_access: bool,
    pub forward_not_matching_preflights: bool,
    pub enabled: Fraction,
    pub shadow_enabled: Fraction,
}
