//! Databases that were made to hurt: `databases.rs` has each trick that we know of with its exact verdict, `mixtures.rs` hundreds
//! that chance made out of parts of sound ones, `corpora.rs` whatever collections of broken databases it is given. All of them
//! go through the real binary; `judge.rs` says what must be so. `docs/testing.md` says how to replay a failure.

mod corpora;
mod databases;
mod judge;
mod mixtures;
