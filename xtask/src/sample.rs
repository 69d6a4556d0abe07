//! `cargo xtask sample`: a database of engram's shape, cold, or as a killed writer leaves it.

mod holes;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::sample::{SampleJournal, SampleOptions, Writer, create};

use crate::Result;

/// What the writer says once all its rows are committed.
const READY: &str = "ready";
const SIGKILL: i32 = 9;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The file to create; it must not exist.
    path: Utf8PathBuf,
    /// How many observations; 1000 make about 3 MB.
    #[arg(long, default_value_t = 1_000)]
    rows: u64,
    /// What fixes every value: the same seed gives the same file.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Bytes in a page: a power of two from 512 to 65536.
    #[arg(long, default_value_t = 4_096)]
    page_size: u32,
    /// Leave it with a rollback journal instead of WAL.
    #[arg(long, conflicts_with = "hot")]
    rollback: bool,
    /// Extend it to so many GiB of free pages, which are a hole in the file.
    #[arg(long, value_name = "GIB", conflicts_with = "hot")]
    holes: Option<u64>,
    /// Kill a writer on it, so that a tenth as many rows (100 to 2000) are in the -wal only.
    #[arg(long)]
    hot: bool,
}

#[derive(clap::Args)]
pub(crate) struct WriterOptions {
    path: Utf8PathBuf,
    #[arg(long)]
    rows: u64,
    #[arg(long)]
    seed: u64,
}

pub(crate) fn run(options: &Options) -> Result {
    let journal_mode = if options.rollback { SampleJournal::Delete } else { SampleJournal::Wal };
    let wanted = SampleOptions { rows: options.rows, seed: options.seed, page_size: options.page_size, journal_mode };
    create(&options.path, &wanted).map_err(|error| error.message())?;
    if let Some(gib) = options.holes {
        let size_bytes = gib.checked_mul(1 << 30).ok_or("no file is that large")?;
        holes::extend(&options.path, options.page_size, size_bytes)?;
    }
    println!("{}: {} bytes", options.path, options.path.metadata()?.len());
    if options.hot {
        // A row puts about 100 KB of pages into the log, so ten percent of a gigabyte would be one of many.
        let rows = (options.rows / 10).clamp(100, 2_000);
        kill_writer(&options.path, rows, options.seed)?;
        let wal = Utf8PathBuf::from(format!("{}-wal", options.path));
        let size_bytes = wal.metadata().map_err(|cause| format!("{wal}: {cause}"))?.len();
        if size_bytes == 0 {
            return Err(format!("{wal} is empty: the writer folded it").into());
        }
        println!("{wal}: {size_bytes} bytes, {rows} rows of a writer that was killed");
    }
    Ok(())
}

/// Only a process that dies by SIGKILL closes nothing: its `-wal` and `-shm` are what a crash leaves.
fn kill_writer(path: &Utf8Path, rows: u64, seed: u64) -> Result {
    let (rows, seed) = (rows.to_string(), seed.to_string());
    let mut writer = Command::new(std::env::current_exe()?)
        .args(["sample-writer", path.as_str(), "--rows", &rows, "--seed", &seed])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    let heard = match writer.stdout.take() {
        Some(stdout) => BufReader::new(stdout).read_line(&mut said),
        None => Ok(0),
    };
    // Whatever it said, it must not outlive us.
    writer.kill()?;
    let status = writer.wait()?;
    heard?;
    if said.trim_end() != READY || status.signal() != Some(SIGKILL) {
        return Err(format!("the writer was not killed while it was ready: {status}").into());
    }
    Ok(())
}

/// The child's side: commits, says so, and waits with the database open.
pub(crate) fn write_until_killed(options: &WriterOptions) -> Result {
    let write = || {
        let mut writer = Writer::open(&options.path, SampleJournal::Wal, options.seed)?;
        writer.keep_wal()?;
        for _ in 0..options.rows {
            writer.write()?;
        }
        Ok(writer)
    };
    let writer = write().map_err(|error: engram_restore::Error| error.message())?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{READY}")?;
    stdout.flush()?;
    // Ends only if the parent dies first.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    drop(writer);
    Ok(())
}
