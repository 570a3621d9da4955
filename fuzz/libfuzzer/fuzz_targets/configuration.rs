#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| srp_fuzz::run("configuration", input));
