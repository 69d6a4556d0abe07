//! Drills through the real binary: every scenario passes with the program as it is, and fails with one that misbehaves where the
//! scenario looks. The misbehaving program is a shell script around the real one.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod archive;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../shared/content.rs"]
mod content;
mod daemon;
mod damage;
mod killed;
mod lost;
mod rehearse;
mod reports;
mod saboteur;
mod sidecars;
