#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| corelane_sidecar::fuzz::admin_query(data));
