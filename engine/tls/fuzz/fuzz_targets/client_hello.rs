#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| corelane_tls::fuzzing::client_hello(data));
