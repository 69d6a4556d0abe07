//! The rows of a sample: each is fixed by the seed and its number alone, so a writer goes on where `create` stopped and
//! a bounded memory is enough for any count.

use rusqlite::{Connection, Statement, params};

use super::schema;
use super::text::Stream;

/// Observations in one session.
pub(super) const ROWS_PER_SESSION: i64 = 20;
/// Observations to one prompt.
pub(super) const ROWS_PER_PROMPT: i64 = 4;
/// Observations to one chunk of the sync log.
pub(super) const ROWS_PER_CHUNK: i64 = 50;

/// 2026-01-01T00:00:00Z. The clock of a sample is its row number, never the real one.
const START_SECONDS: i64 = 1_767_225_600;
const SECONDS_PER_ROW: i64 = 37;

const TYPES: &[&str] = &["bugfix", "decision", "discovery", "pattern", "config", "preference", "session_summary"];
const TOOLS: &[&str] = &["edit", "bash", "read", "grep", "write", "web_fetch"];
const PROJECTS: &[&str] =
    &["atlas", "billing-api", "engram", "field-notes", "lighthouse", "mobile", "search", "überblick"];
const TOPICS: &[&str] =
    &["architecture/storage", "architecture/api", "bug/race", "bug/encoding", "ops/deploy", "style"];

/// The prepared statements of one connection.
pub(super) struct Rows<'c> {
    seed: u64,
    session: Statement<'c>,
    observation: Statement<'c>,
    prompt: Statement<'c>,
    chunk: Statement<'c>,
}

impl<'c> Rows<'c> {
    pub(super) fn prepare(connection: &'c Connection, seed: u64) -> rusqlite::Result<Self> {
        Ok(Self {
            seed,
            session: connection.prepare(schema::INSERT_SESSION)?,
            observation: connection.prepare(schema::INSERT_OBSERVATION)?,
            prompt: connection.prepare(schema::INSERT_PROMPT)?,
            chunk: connection.prepare(schema::INSERT_CHUNK)?,
        })
    }

    /// The session that observation `id` belongs to, unless it is there.
    pub(super) fn add_session(&mut self, id: i64) -> rusqlite::Result<()> {
        let number = (id - 1) / ROWS_PER_SESSION;
        let mut stream = Stream::new(self.seed, "session", number);
        let (key, project) = session_of(&mut stream);
        let started = seconds_of(number * ROWS_PER_SESSION + 1);
        let ended = (!stream.once_in(5)).then_some(started + SECONDS_PER_ROW * ROWS_PER_SESSION);
        let summary = ended.map(|_| stream.prose(300));
        let directory = format!("/home/agent/src/{project}");
        self.session.execute(params![key, project, directory, started, ended, summary])?;
        Ok(())
    }

    /// Observation `id`, and with every fourth the prompt that led to it. Its session is there.
    pub(super) fn add_observation(&mut self, id: i64) -> rusqlite::Result<()> {
        let (session, project) = session_of(&mut Stream::new(self.seed, "session", (id - 1) / ROWS_PER_SESSION));
        let mut stream = Stream::new(self.seed, "observation", id);
        let created = seconds_of(id) + i64::from(stream.below(30));
        let updated = if stream.once_in(4) { created + i64::from(stream.below(50_000)) } else { created };
        let length = 600 + usize::from(stream.below(900));
        self.observation.execute(params![
            id,
            format!("obs-{}", stream.hex(24)),
            session,
            stream.pick(TYPES),
            stream.title(),
            stream.prose(length),
            (!stream.once_in(3)).then(|| stream.pick(TOOLS)),
            (!stream.once_in(20)).then_some(project),
            if stream.once_in(8) { "personal" } else { "project" },
            stream.once_in(2).then(|| stream.pick(TOPICS)),
            stream.hex(64),
            1 + stream.below(4),
            stream.below(3),
            created,
            updated,
            stream.once_in(40).then_some(updated + 60),
        ])?;
        if id % ROWS_PER_PROMPT == 0 {
            let key = format!("prompt-{}", stream.hex(24));
            let length = 80 + usize::from(stream.below(400));
            self.prompt.execute(params![key, session, stream.prose(length), project, created])?;
        }
        Ok(())
    }

    /// The chunk that was synced after observation `id`: 0.5 to 8 KB that do not compress, so some spill into overflow
    /// pages at every page size.
    pub(super) fn add_chunk(&mut self, id: i64) -> rusqlite::Result<()> {
        let mut stream = Stream::new(self.seed, "chunk", id);
        let key = stream.hex(16);
        let length = 512 + usize::from(stream.below(7_680));
        let imported = (!stream.once_in(3)).then_some(seconds_of(id));
        self.chunk.execute(params![key, stream.bytes(length), ROWS_PER_CHUNK, imported])?;
        Ok(())
    }
}

/// The key and the project of a session, the first two things its stream gives.
fn session_of(stream: &mut Stream) -> (String, &'static str) {
    (format!("session-{}", stream.hex(16)), stream.pick(PROJECTS))
}

fn seconds_of(id: i64) -> i64 {
    START_SECONDS + id * SECONDS_PER_ROW
}
