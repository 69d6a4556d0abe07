//! `cargo xtask soak`: the released program under load, for as long as one likes. Writers, readers, backups, checks, prunes and
//! restores of every kind at once, all of it killed now and then; what must be so is looked at all the time.

pub(crate) mod actors;
mod audit;
mod commands;
mod crew;
mod driver;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::Connection;

use crate::Result;
use audit::strangers;
use commands::{CEILING_KIB, Commands};
use driver::Driver;

/// How many write, each in a process of its own.
const WRITERS: usize = 3;
const READERS: usize = 2;

/// Rows that are there in the beginning, so that a backup takes some time.
const BEGINNING: u64 = 30_000;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long: 90s, 10m, 1h.
    #[arg(long, default_value = "10m", value_parser = duration)]
    time: Duration,
    /// What fixes which command comes next; when it comes is the system's choice.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the folder in any case, not only after a violation.
    #[arg(long)]
    keep: bool,
}

fn duration(text: &str) -> std::result::Result<Duration, String> {
    let duration: jiff::SignedDuration = text.parse().map_err(|e: jiff::Error| e.to_string())?;
    duration.try_into().map_err(|_negative| "it is no time to wait".to_owned())
}

pub(crate) fn run(options: &Options, root: &Utf8Path) -> Result {
    let mut build = std::process::Command::new(crate::tools::cargo());
    build.args(["build", "--release", "--locked", "--bin", "engram-restore"]).current_dir(root);
    crate::tools::done(&mut build)?;
    let scratch = tempfile::Builder::new().prefix("engram-soak-").tempdir()?;
    let folder = Utf8PathBuf::try_from(scratch.path().canonicalize()?)?;
    // Another build may replace it while this runs.
    let program = folder.join("engram-restore");
    fs::copy(crate::target(root)?.join("release/engram-restore"), &program)?;
    for name in ["data", "backups", "tmp", "logs"] {
        fs::create_dir(folder.join(name))?;
    }
    let database = folder.join("data/engram.db");
    let connection = Connection::open(&database)?;
    connection.execute_batch(&format!("PRAGMA journal_mode=WAL; {}", actors::SCHEMA))?;
    connection.execute_batch(&format!(
        "WITH RECURSIVE n(v) AS (SELECT 0 UNION ALL SELECT v + 1 FROM n WHERE v < {BEGINNING} - 1) \
         INSERT INTO ledger SELECT {}, v, randomblob(400) FROM n; \
         UPDATE totals SET rows = {BEGINNING}, sum = {BEGINNING} * ({BEGINNING} - 1) / 2",
        audit::NOBODY
    ))?;
    drop(connection);
    // Or the old databases of hundreds of restores would fill the disk.
    fs::write(folder.join("data/engram-restore.toml"), "[pre_restore]\nkeep = 2\nmin_age = \"1s\"\n")?;
    let commands = Commands::new(program, &folder);
    let done = soak(options, &folder, &commands);
    println!("{}", commands.table());
    let (peak, of) = commands.peak();
    println!("peak memory: {peak} KiB, {of} (at most {CEILING_KIB})");
    if options.keep || done.is_err() {
        println!("kept: {}", Utf8PathBuf::try_from(scratch.keep())?);
    }
    done.map_err(|e| format!("with seed {}: {e}\nthe last events:\n{}", options.seed, commands.events()).into())
}

fn soak(options: &Options, folder: &Utf8Path, commands: &Commands) -> Result {
    let logs: Vec<_> = (0..WRITERS).map(|number| folder.join(format!("logs/{number}"))).collect();
    let crew = crew::Crew::start(folder, &logs, READERS)?;
    let mut driver = Driver::new(options.seed, folder, commands, crew, audit::Ledger::of(&logs, BEGINNING));
    let end = Instant::now() + options.time;
    // A second one that only looks and takes backups, at the same time as the other.
    let stop = AtomicBool::new(false);
    let looks = std::thread::scope(|scope| {
        let looks = scope.spawn(|| driver::look_on(options.seed, commands, end, &stop).map_err(|e| e.to_string()));
        let changed = driver.change_on(end, &stop);
        stop.store(true, Ordering::Relaxed);
        let looked = looks.join().map_err(|_panic| "the other driver has panicked")?;
        changed?;
        Ok::<_, Box<dyn std::error::Error>>(looked)
    })?;
    looks?;
    driver.finish()?;
    settle(folder, commands)
}

/// Everything is at rest: nothing of ours lies there that is not documented.
fn settle(folder: &Utf8Path, commands: &Commands) -> Result {
    commands.run(&["recover"], None, &[0])?;
    commands.run(&["backup"], None, &[0])?;
    commands.run(&["prune", "--keep-last", "5"], None, &[0])?;
    commands.run(&["verify", "--all", "--deep"], None, &[0])?;
    let left = strangers(&names(&folder.join("data"))?, &names(&folder.join("backups"))?);
    let temporary = names(&folder.join("tmp"))?;
    if left.is_empty() && temporary.is_empty() {
        Ok(())
    } else {
        Err(format!("left behind: {left:?}, and in the temporary folder {temporary:?}").into())
    }
}

fn names(folder: &Utf8Path) -> Result<Vec<String>> {
    let entries = folder.read_dir_utf8()?.map(|entry| Ok(entry?.file_name().to_owned()));
    entries.collect()
}
