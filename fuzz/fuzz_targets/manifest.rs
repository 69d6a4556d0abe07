//! A manifest from an archive that somebody else wrote: any bytes are an answer or an error, never a panic, a hang or
//! memory without bound.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| drop(engram_restore::manifest::parse(data)));
