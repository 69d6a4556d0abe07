//! What a power cut can leave of a folder: a model of the file system's promises, without a disk.
//!
//! ```text
//! Recorder: a run over a real folder ----> Trace: the folder at the start, and what each operation changed
//! Trace, profile, crash point k ---------> Disk: what is there for certain, and what may be
//! Disk ----------------------------------> the states that the disk may be in, each a Tree
//! ```
//!
//! A change is *volatile* until something covers it, and a crash keeps any legal choice of the volatile changes. What
//! covers what, and which choices are legal, is a [`Profile`]. The contents that SQLite leaves are durable, since it
//! syncs them itself; the names that it makes and removes are not.

mod recorder;
mod states;
mod trace;
mod tree;

pub(crate) use recorder::TraceRecorder;
pub(crate) use states::{Disk, Profile, Random, UNSYNCED};
pub(crate) use trace::{Change, Step, Trace};
pub(crate) use tree::{Attributes, Content, File, FileId, Tree};
