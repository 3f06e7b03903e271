#![no_main]

#[path = "../entry.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(init: gradresnet::silence_caught_panics(), |bytes: &[u8]| {
    entry::bundle(bytes);
});
