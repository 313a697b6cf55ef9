#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| goldenseal_fuzz::volumes_lvm2(data));
