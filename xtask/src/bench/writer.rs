//! The foreign writer: a process of its own that commits at a fixed rate, whatever happens, and measures each commit.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::sample::{SampleJournal, Writer};
use rusqlite::{Connection, TransactionBehavior, params};

use super::report::Written;
use super::stats::{largest, percentile};
use crate::Result;

const READY: &str = "ready";
/// Commits before it is ready, so that the first reading of the schema is in nobody's figures.
const WARM_UP: u32 = 20;
const PAYLOAD: [u8; 256] = [7; 256];

/// What one commit writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Commit {
    /// A row of 256 bytes in one table with one index: 3 pages or so.
    Small,
    /// An observation as engram stores it, with 8 indexes and full text: some 25 pages.
    Full,
}

impl Commit {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Full => "full",
        }
    }
}

#[derive(clap::Args)]
pub(crate) struct Options {
    path: Utf8PathBuf,
    #[arg(long)]
    per_second: u32,
    #[arg(long)]
    commit: Commit,
}

/// The child's side: commits until its standard input ends, then says how that went.
pub(crate) fn run(options: &Options) -> Result {
    let mut commit = committer(&options.path, options.commit)?;
    for _ in 0..WARM_UP {
        commit()?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    std::thread::spawn(move || {
        // An error ends it like the end.
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap_or_default();
        asked.store(true, Ordering::Relaxed);
    });
    println!("{READY}");
    std::io::stdout().flush()?;
    let written = write_until(&stop, options.per_second, &mut *commit);
    println!("{}", serde_json::to_string(&written)?);
    Ok(())
}

type Committer = Box<dyn FnMut() -> Result>;

fn committer(path: &Utf8Path, commit: Commit) -> Result<Committer> {
    Ok(match commit {
        Commit::Full => {
            let mut writer = Writer::open(path, SampleJournal::Wal, 1).map_err(|error| error.message())?;
            Box::new(move || Ok(writer.write().map(drop).map_err(|error| error.message())?))
        }
        Commit::Small => {
            let mut connection = Connection::open(path)?;
            connection.execute_batch("PRAGMA busy_timeout=5000; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;")?;
            // No two writers may choose the same keys.
            let writer = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
            let mut number = 0_u64;
            Box::new(move || {
                number += 1;
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                transaction
                    .prepare("INSERT INTO sync_chunks(chunk_id, payload, row_count) VALUES (?1, ?2, 1)")?
                    .execute(params![format!("bench-{writer}-{number:012}"), PAYLOAD])?;
                Ok(transaction.commit()?)
            })
        }
    })
}

/// Open loop: each commit is due at its time, also if the one before took too long, and waiting for that one counts.
fn write_until(stop: &AtomicBool, per_second: u32, commit: &mut dyn FnMut() -> Result) -> Written {
    let pause = Duration::from_secs(1) / per_second.max(1);
    let (mut late, mut own, mut failures) = (Vec::new(), Vec::new(), 0);
    let began = Instant::now();
    let mut due = began;
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let before = Instant::now();
        failures += usize::from(commit().is_err());
        own.push(before.elapsed().as_secs_f64() * 1e3);
        late.push(due.elapsed().as_secs_f64() * 1e3);
        due += pause;
    }
    let of = |values: &[f64], percent| percentile(values, percent).unwrap_or(0.0);
    Written {
        commits: late.len(),
        failures,
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 commits")]
        per_second: late.len().saturating_sub(1) as f64 / began.elapsed().as_secs_f64(),
        p50_ms: of(&late, 50),
        p99_ms: of(&late, 99),
        max_ms: largest(&late).unwrap_or(0.0),
        own_p50_ms: of(&own, 50),
        own_p99_ms: of(&own, 99),
        own_max_ms: largest(&own).unwrap_or(0.0),
    }
}

/// The parent's side: a writer that commits from here on.
pub(super) struct Running {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Running {
    pub(super) fn start(xtask: &Utf8Path, database: &Utf8Path, per_second: u32, commit: Commit) -> Result<Self> {
        let mut child = Command::new(xtask)
            .args(["bench-writer", database.as_str(), "--per-second", &per_second.to_string()])
            .args(["--commit", commit.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|cause| format!("{xtask}: {cause}"))?;
        let stdout = child.stdout.take().ok_or("the writer has no standard output")?;
        let mut running = Self { child, stdout: BufReader::new(stdout) };
        let said = running.line()?;
        if said == READY { Ok(running) } else { Err(format!("the writer said {said:?}").into()) }
    }

    /// Lets it end, and returns what it says.
    pub(super) fn stop(mut self) -> Result<Written> {
        drop(self.child.stdin.take());
        let written = self.line()?;
        Ok(serde_json::from_str(&written).map_err(|cause| format!("the writer said {written:?}: {cause}"))?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Running {
    /// It must not outlive us, whatever went wrong.
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().map(drop).unwrap_or_default();
    }
}
