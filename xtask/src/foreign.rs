//! `cargo xtask foreign`: drills of other tools' backups, by the recipes of the README, with the real litestream and the real restic:
//! a whole backup passes, a damaged one and one that lacks rows does not pass for it.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::sample::{SampleJournal, SampleOptions, Writer, create};
use serde_json::Value;

use crate::Result;

/// A replica that is not complete after so long never will be.
const PATIENCE: Duration = Duration::from_secs(30);

/// Rows that are written after the backup.
const LATER: u64 = 7;

pub(crate) fn run(root: &Utf8Path) -> Result {
    done(Command::new("xtask/bench-tools.sh").stdout(Stdio::null()).current_dir(root))?;
    done(Command::new("cargo").args(["build", "--quiet"]).current_dir(root))?;
    let target = crate::target(root)?;
    let scratch = tempfile::tempdir()?;
    let folder = Utf8PathBuf::from_path_buf(scratch.path().to_owned()).map_err(|_path| "the folder is not UTF-8")?;
    let place = Place { program: target.join("debug/engram-restore"), folder, database: Utf8PathBuf::new() };
    litestream(&place.of("litestream")?, &target.join("bench-tools/venv/bin/litestream"))?;
    restic(&place.of("restic")?)
}

/// Where a tool is tried.
struct Place {
    program: Utf8PathBuf,
    folder: Utf8PathBuf,
    database: Utf8PathBuf,
}

impl Place {
    /// A folder of its own, with a database.
    fn of(&self, name: &str) -> Result<Self> {
        let folder = self.folder.join(name);
        std::fs::create_dir(&folder)?;
        let database = folder.join("engram.db");
        create(&database, &SampleOptions { rows: 500, ..SampleOptions::default() }).map_err(|e| e.message())?;
        Ok(Self { program: self.program.clone(), folder, database })
    }

    /// Drills what the command produces; the exit status and the answer.
    fn drill(&self, fetch: &str) -> Result<(Option<i32>, Value)> {
        let arguments = ["--json", "--db", self.database.as_str(), "drill", "--fetch", fetch];
        let output = Command::new(&self.program).args(arguments).env("RESTIC_PASSWORD", "sample").output()?;
        Ok((output.status.code(), serde_json::from_slice(&output.stdout)?))
    }

    /// It passes, and so many rows at least would be lost.
    fn passes(&self, fetch: &str, rows: u64) -> Result {
        let (status, json) = self.drill(fetch)?;
        let lost = json["scenarios"][1]["rpo"]["rows"].as_u64();
        let is_due = lost.is_some_and(|lost| if rows == 0 { lost == 0 } else { lost >= rows });
        if status != Some(0) || !is_due {
            return Err(format!("{fetch}: {status:?}, {lost:?} rows, {rows} were due: {json}").into());
        }
        let took = &json["scenarios"][1]["rto"]["total_us"];
        println!("pass, {rows} rows or more would be lost, back after {took} us: {fetch}");
        Ok(())
    }

    fn fails(&self, fetch: &str) -> Result {
        let (status, json) = self.drill(fetch)?;
        if status != Some(1) {
            return Err(format!("{fetch}: {status:?}, a failure was due: {json}").into());
        }
        println!("fails, as it must: {fetch}");
        Ok(())
    }

    fn write(&self) -> Result {
        let mut writer = Writer::open(&self.database, SampleJournal::Wal, 1).map_err(|e| e.message())?;
        for _ in 0..LATER {
            writer.write().map_err(|e| e.message())?;
        }
        Ok(())
    }
}

fn litestream(place: &Place, program: &Utf8Path) -> Result {
    let replica = format!("file://{}", place.folder.join("replica"));
    let restore = format!("{program} restore -o {{out}} {replica}");
    let replicate = Command::new(program)
        .args(["replicate", place.database.as_str(), &replica])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let replicate = Running(replicate);
    let start = Instant::now();
    while place.passes(&restore, 0).is_err() {
        if start.elapsed() > PATIENCE {
            return Err(format!("no complete replica after {} s", PATIENCE.as_secs()).into());
        }
    }
    drop(replicate);
    place.write()?;
    place.passes(&restore, LATER)?;
    place.fails(&format!("{program} restore -o {{out}} {replica}-that-is-none"))
}

fn restic(place: &Place) -> Result {
    let repository = place.folder.join("repository");
    let restic = |arguments: &[&str]| {
        let all = [&["--quiet", "--repo", repository.as_str()], arguments].concat();
        done(Command::new("restic").args(all).env("RESTIC_PASSWORD", "sample"))
    };
    restic(&["init"])?;
    restic(&["backup", place.database.as_str()])?;
    let dump = format!("restic --quiet --repo {repository} dump latest {}", place.database);
    place.passes(&dump, 0)?;
    place.write()?;
    place.passes(&dump, LATER)?;
    // What a copy of a file that somebody writes to may be.
    let torn = place.folder.join("torn.db");
    let mut bytes = std::fs::read(&place.database)?;
    let half = bytes.len() / 2;
    bytes[half..].fill(0);
    std::fs::write(&torn, bytes)?;
    restic(&["backup", torn.as_str()])?;
    place.fails(&format!("restic --quiet --repo {repository} dump latest {torn}"))
}

/// Killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(e) = self.0.kill().and_then(|()| self.0.wait().map(drop)) {
            eprintln!("cannot stop litestream: {e}");
        }
    }
}

fn done(command: &mut Command) -> Result {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|e| format!("{name}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name}: {status}").into()) }
}
