#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| goldenseal_fuzz::xfs_log(data));
