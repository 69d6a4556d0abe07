//! Archives that somebody hostile can write to, through the real binary: whatever lies there, every command that meets it
//! ends with the right status and words, and reads, writes and removes nothing elsewhere.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

#[path = "../shared/content.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod content;
#[path = "../cli/craft.rs"]
#[expect(dead_code, reason = "shared with the cli tests")]
mod craft;
#[path = "../shared/processes.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod processes;
#[path = "../cli/support.rs"]
#[expect(dead_code, reason = "shared with the cli tests")]
mod support;

mod stage;

mod links;
mod manifests;
mod many;
mod owners;
mod power;
mod races;
mod special;
mod state;
mod text;
