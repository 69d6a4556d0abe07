//! What is done next, and what must be so after it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use fastrand::Rng;

use super::audit::{Ledger, Row, rows_of_file, rows_of_live};
use super::commands::{Commands, End};
use super::crew::{Crew, Heard};
use crate::Result;

const ENGINES: [&str; 3] = ["snapshot", "online", "vacuum"];

/// The number from which a writer goes on that was killed: beyond what it may have committed without noting it.
const FAR: u64 = 1000;

/// The one who changes things.
pub(crate) struct Driver<'a> {
    random: Rng,
    folder: Utf8PathBuf,
    commands: &'a Commands,
    crew: Crew,
    ledger: Ledger,
    started: Instant,
    said: Instant,
    first: u64,
    restores: [u64; 3],
    writers_killed: u64,
}

impl<'a> Driver<'a> {
    pub(crate) fn new(seed: u64, folder: &Utf8Path, commands: &'a Commands, crew: Crew, ledger: Ledger) -> Self {
        let now = Instant::now();
        Self {
            random: Rng::with_seed(seed),
            folder: folder.to_owned(),
            commands,
            crew,
            ledger,
            started: now,
            said: now,
            first: 0,
            restores: [0; 3],
            writers_killed: 0,
        }
    }

    /// One thing after the other, until it is time.
    pub(crate) fn change_on(&mut self, end: Instant, stop: &AtomicBool) -> Result {
        self.commands.run(&["backup"], None, &[0, 3])?;
        while Instant::now() < end && !stop.load(Ordering::Relaxed) {
            match self.random.u32(..100) {
                0..25 => self.swap(&["restore"])?,
                25..45 => self.in_place(&["restore", "--in-place"])?,
                45..52 => self.swap(&["undo"])?,
                52..58 => self.in_place(&["undo", "--in-place"])?,
                58..66 => self.guard()?,
                66..71 => self.swap_beside_others()?,
                71..80 => {
                    let engine = ENGINES[self.random.usize(..ENGINES.len())];
                    self.disturbed(&["backup", "--engine", engine], 5, &[0, 3])?;
                }
                80..93 => {
                    self.disturbed(&["prune", "--keep-last", "8"], 5, &[0, 3])?;
                }
                _ => {
                    self.first += FAR;
                    let number = self.random.usize(..);
                    self.crew.kill_writer(number, self.first * FAR)?;
                    self.writers_killed += 1;
                    self.commands.event("a writer was killed");
                }
            }
            self.audit(false)?;
            self.listen()?;
        }
        Ok(())
    }

    /// Everybody stops; what was committed last is there.
    pub(crate) fn finish(&mut self) -> Result {
        self.crew.end()?;
        self.audit(false)?;
        self.listen()?;
        self.say();
        Ok(())
    }

    /// A run that is killed every so often.
    fn disturbed(&mut self, words: &[&str], every: u32, allowed: &[i32]) -> Result<End> {
        let kill = (self.random.u32(..every) == 0).then(|| Duration::from_millis(self.random.u64(..60)));
        self.commands.run(words, kill, allowed)
    }

    fn recover(&mut self) -> Result {
        self.commands.run(&["recover"], None, &[0]).map(drop)
    }

    /// Everybody closes the database, as a daemon does for a restore, and opens it again.
    fn swap(&mut self, words: &[&str]) -> Result {
        let backup = if words == ["restore"] { self.some_backup()? } else { None };
        if words == ["restore"] && backup.is_none() {
            return Ok(());
        }
        self.crew.pause()?;
        let words: Vec<_> = words.iter().copied().chain(backup.as_deref().map(Utf8Path::as_str)).collect();
        // Without anything to take back, an undo finds nothing; the library's user may be at a backup still.
        let allowed: &[i32] = if backup.is_some() { &[0, 3] } else { &[0, 3, 4, 5] };
        let end = self.disturbed(&words, 4, allowed)?;
        if end == End::Killed {
            self.recover()?;
        }
        if end == End::Status(0) {
            self.restores[0] += 1;
            if let Some(backup) = &backup
                && rows_of_live(&self.database())? != rows_of_file(backup)?
            {
                return Err(format!("{backup} was restored, and the database holds something else").into());
            }
        }
        self.audit(true)?;
        self.crew.go()
    }

    /// While the others go on. Nobody yields for long, so it is tried with patience.
    fn in_place(&mut self, words: &[&str]) -> Result {
        let backup = if words[0] == "restore" { self.some_backup()? } else { None };
        if words[0] == "restore" && backup.is_none() {
            return Ok(());
        }
        let words: Vec<_> =
            words.iter().copied().chain(["--wait", "20"]).chain(backup.as_deref().map(Utf8Path::as_str)).collect();
        let allowed: &[i32] = if backup.is_some() { &[0, 3] } else { &[0, 3, 4, 5] };
        let end = self.disturbed(&words, 4, allowed)?;
        if end == End::Killed {
            self.recover()?;
        }
        if end == End::Status(0) {
            self.restores[1] += 1;
            if let Some(backup) = &backup
                && !rows_of_file(backup)?.is_subset(&rows_of_live(&self.database())?)
            {
                return Err(format!("{backup} was restored in place, and not all of it is there").into());
            }
        }
        self.audit(true)
    }

    /// A command that fails is taken back.
    fn guard(&mut self) -> Result {
        let words = ["guard", "--on-failure", "restore", "--wait", "20", "--", "/bin/sh", "-c", "exit 7"];
        let end = self.disturbed(&words, 5, &[7, 125])?;
        if end == End::Killed {
            self.recover()?;
        }
        self.restores[2] += u64::from(end == End::Status(7));
        self.audit(true)
    }

    /// Nobody has closed it: it has to be refused.
    fn swap_beside_others(&mut self) -> Result {
        let Some(backup) = self.some_backup()? else { return Ok(()) };
        self.commands.run(&["restore", backup.as_str()], None, &[3]).map(drop)
    }

    fn database(&self) -> Utf8PathBuf {
        self.folder.join("data/engram.db")
    }

    /// Those with a manifest, newest first.
    fn backups(&self) -> Result<Vec<Utf8PathBuf>> {
        let mut found = Vec::new();
        for entry in self.folder.join("backups").read_dir_utf8()? {
            let path = entry?.into_path();
            if let Some(backup) = path.as_str().strip_suffix(".manifest.json") {
                found.push(Utf8PathBuf::from(backup));
            }
        }
        found.sort_unstable();
        found.reverse();
        Ok(found)
    }

    fn some_backup(&mut self) -> Result<Option<Utf8PathBuf>> {
        let mut all = self.backups()?;
        Ok(if all.is_empty() { None } else { Some(all.swap_remove(self.random.usize(..all.len()))) })
    }

    /// Nothing that was committed is nowhere.
    fn audit(&mut self, restored: bool) -> Result {
        self.ledger.read_logs()?;
        let live = rows_of_live(&self.database())?;
        let mut kept = Vec::new();
        if restored {
            kept = self.backups()?;
            for entry in self.folder.join("data").read_dir_utf8()? {
                let path = entry?.into_path();
                let name = path.file_name().unwrap_or_default();
                if name.starts_with("engram.db.pre-restore")
                    && !["-wal", "-shm", ".json"].iter().any(|end| name.ends_with(end))
                {
                    kept.insert(0, path);
                }
            }
        }
        let mut kept = kept.into_iter();
        let next = || -> Result<Option<HashSet<Row>>> { kept.next().map(|path| rows_of_file(&path)).transpose() };
        match self.ledger.judge(&live, restored, next)? {
            None => Ok(()),
            Some(wrong) => Err(wrong.into()),
        }
    }

    /// What the others have to say.
    fn listen(&mut self) -> Result {
        let Heard { violations, descriptors, .. } = self.crew.heard();
        if let Some(first) = violations.first() {
            return Err(first.clone().into());
        }
        if let Some((begin, most)) = descriptors
            && most > begin
        {
            return Err(format!("a process that uses the library had {begin} descriptors open, and has {most}").into());
        }
        if self.said.elapsed() > Duration::from_secs(60) {
            self.say();
        }
        Ok(())
    }

    fn say(&mut self) {
        self.said = Instant::now();
        let heard = self.crew.heard();
        let [swapped, in_place, guarded] = self.restores;
        println!(
            "{} s: {} commands, {} killed, {} writers killed; {swapped} swaps, {in_place} in place, {guarded} taken back; {} commits \
             acknowledged, {} of them in kept databases only; {} reads checked; library: {} rounds, {:?} descriptors, {} KiB",
            self.started.elapsed().as_secs(),
            self.commands.total(),
            self.commands.total_killed(),
            self.writers_killed,
            self.ledger.acknowledged(),
            self.ledger.lost(),
            heard.checked,
            heard.rounds,
            heard.descriptors.unwrap_or_default(),
            heard.resident_kib,
        );
    }
}

/// Looks and backups beside all that.
pub(crate) fn look_on(seed: u64, commands: &Commands, end: Instant, stop: &AtomicBool) -> Result {
    let mut random = Rng::with_seed(seed ^ 0x5eed);
    while Instant::now() < end && !stop.load(Ordering::Relaxed) {
        // Or there would be nothing but looks.
        std::thread::sleep(Duration::from_millis(random.u64(..150)));
        // A backup that a prune removes meanwhile cannot be looked at to its end; the history may be somebody else's just now.
        let (words, allowed): (&[&str], &[i32]) = match random.u32(..8) {
            0 => (&["verify", "latest"], &[0, 3, 4, 6]),
            1 => (&["verify", "--deep", "latest"], &[0, 3, 4, 6]),
            2 => (&["verify", "--all"], &[0, 3, 4, 6]),
            3 => (&["verify", "--subset", "10%"], &[0, 3, 4, 6]),
            // A restore that is under way, or was killed, is a reason to fail.
            4 => (&["status"], &[0, 1, 4, 6]),
            5 => (&["list"], &[0]),
            6 => (&["show", "latest"], &[0, 4]),
            _ => (&["backup", "--no-prune"], &[0, 3]),
        };
        let kill = (random.u32(..12) == 0).then(|| Duration::from_millis(random.u64(..60)));
        commands.run(words, kill, allowed).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
    }
    Ok(())
}
