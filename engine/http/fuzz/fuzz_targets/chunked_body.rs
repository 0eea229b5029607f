#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| corelane_http::fuzz::chunked_body(data));
