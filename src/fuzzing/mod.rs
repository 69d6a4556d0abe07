//! What the fuzz targets of `fuzz/` call, one function each: bytes from outside go in, and what must be so whatever they are
//! is asserted. Only there for tests and for fuzzing, so that nothing becomes public for its sake.
//!
//! The databases that `check`, `pages`, `adopt` and `wal` look at are damaged by the same hand as those of the differential
//! suite (`tests/check/`), with the input for its chance: so each is damaged in a place that means something.

#![allow(clippy::missing_panics_doc, reason = "that they panic is what they are for")]
#![allow(clippy::unwrap_used, reason = "what does not hold is what fuzzing looks for")]

mod choices;
mod databases;
mod questions;
mod signatures;
#[cfg(test)]
mod tests;
mod texts;
mod wals;

#[path = "../../tests/check/damage.rs"]
mod damage;
#[path = "../../tests/check/map.rs"]
mod map;
#[path = "../../tests/shared/random.rs"]
mod random;
#[path = "../../tests/check/samples.rs"]
#[allow(dead_code, reason = "the differential suite uses the rest")]
mod samples;
#[path = "../../tests/check/verdicts.rs"]
#[allow(dead_code, reason = "the differential suite uses the rest")]
mod verdicts;

use choices::Choices;
use choices::Choices as Chance;
use random::Random;

pub use databases::{adopt, check, pages};
pub use questions::assertion;
pub use signatures::signature;
pub use texts::{intent, manifest, names, state};
pub use wals::wal;
