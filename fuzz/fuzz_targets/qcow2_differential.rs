#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| goldenseal_fuzz::qcow2_differential(data));
