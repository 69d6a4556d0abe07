//! Everything through the real binary: each command, exit status, message and JSON field.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

#[path = "../shared/content.rs"]
mod content;
mod craft;
#[path = "../shared/mounts.rs"]
mod mounts;
#[path = "../shared/processes.rs"]
mod processes;
mod support;

mod adopt;
mod backup;
mod bad_input;
mod choose;
mod config;
mod diff;
mod drill;
mod fault;
mod formats;
mod guard;
mod history;
mod kindness;
mod leftovers;
mod list_show;
mod manifest;
mod odd;
mod permissions;
mod pin;
mod prometheus;
mod prune;
mod recover;
mod restore;
mod source;
mod status;
mod terminal;
mod trust;
mod undo;
mod usage;
mod verify;
mod verify_subset;
