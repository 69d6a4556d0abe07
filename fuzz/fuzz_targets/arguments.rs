#![no_main]
#![allow(dead_code, reason = "of the binary only the command line is fuzzed, and the configuration")]

#[path = "../../src/cli/mod.rs"]
mod cli;

libfuzzer_sys::fuzz_target!(|data: &[u8]| cli::fuzzing::arguments(data));
