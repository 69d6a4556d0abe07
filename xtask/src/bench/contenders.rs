//! Who takes part, and what each types: the commands of a user who wants a copy that is on the disk, hashed and checked.

use camino::{Utf8Path, Utf8PathBuf};

use super::contest::Contender;
use super::process::Step;
use super::report::Task;
use super::repositories::{litestream, restic, rustic};
use super::stage::{Stage, Tools};

pub(super) const OURS: &str = "ours";
pub(super) const OURS_NOTHING_THERE: &str = "ours, no old database";
pub(super) const OURS_AUTO: &str = "ours (auto)";
pub(super) const OURS_ONLINE: &str = "ours (online)";
pub(super) const OURS_VACUUM: &str = "ours (vacuum)";
pub(super) const SQLITE_BACKUP: &str = "sqlite3 .backup";
pub(super) const VACUUM_INTO: &str = "VACUUM INTO";
pub(super) const SQLITE_RESTORE: &str = "sqlite3 .restore";
pub(super) const CP: &str = "cp";
pub(super) const CP_PLAIN: &str = "cp --reflink=never";
pub(super) const B3SUM: &str = "b3sum";
pub(super) const B3SUM_AND_CHECK: &str = "b3sum + integrity_check";
pub(super) const RESTIC: &str = "restic";
pub(super) const RUSTIC: &str = "rustic";
pub(super) const LITESTREAM: &str = "litestream";

/// Who takes part where time or room is short: who decides about a target, and what they are compared with.
const FEW: &[&str] = &[
    OURS_AUTO,
    OURS,
    OURS_NOTHING_THERE,
    SQLITE_BACKUP,
    CP,
    CP_PLAIN,
    B3SUM,
    B3SUM_AND_CHECK,
    super::check::STOCK,
    super::check::INTEGRITY,
    super::check::FINGERPRINT,
];

/// All that take part in a task, or a few of them.
pub(super) fn of(task: Task, stage: &Stage, tools: &Tools, few: bool) -> Vec<Contender> {
    let mut all = match task {
        Task::Backup => backups(stage, tools),
        Task::Verify | Task::VerifyDeep => verifiers(task, stage, tools),
        Task::Check => super::check::contenders(stage, tools),
        Task::Restore => restorers(stage, tools),
    };
    if few {
        all.retain(|contender| FEW.contains(&contender.name));
    }
    all
}

/// What everybody compares with in this task.
pub(super) fn reference(task: Task) -> &'static str {
    match task {
        Task::Backup => SQLITE_BACKUP,
        Task::Verify => B3SUM,
        Task::VerifyDeep => B3SUM_AND_CHECK,
        Task::Check => super::check::STOCK,
        Task::Restore => CP,
    }
}

fn backups(stage: &Stage, tools: &Tools) -> Vec<Contender> {
    let mut all = beside_a_writer(stage, tools);
    all.push(our_backup(OURS_VACUUM, "vacuum", stage, tools));
    if tools.peers {
        all.push(copy(CP, &["cp"], stage, true));
        if stage.reflink {
            all.push(copy(CP_PLAIN, &["cp", "--reflink=never"], stage, true));
        }
        all.extend(restic(Task::Backup, stage, tools));
        all.extend(rustic(Task::Backup, stage, tools));
        all.extend(litestream(Task::Backup, stage, tools));
    }
    all
}

/// Those whose copy is right also while somebody writes.
pub(super) fn beside_a_writer(stage: &Stage, tools: &Tools) -> Vec<Contender> {
    let mut all = vec![our_backup(OURS_AUTO, "auto", stage, tools), our_backup(OURS_ONLINE, "online", stage, tools)];
    if tools.peers {
        let by_sqlite = |name, file: &str, verb: &str| {
            let target = stage.out(file);
            let copy = Step::new("copy", "sqlite3", &[stage.database.as_str(), &format!("{verb} '{target}'")]);
            let steps = [vec![copy], hashed(&target), vec![checked(&target)]].concat();
            Contender::new(name, with_sidecars(&target), steps)
        };
        all.push(by_sqlite(SQLITE_BACKUP, "backup.db", ".backup"));
        all.push(by_sqlite(VACUUM_INTO, "vacuumed.db", "VACUUM INTO"));
    }
    all
}

fn our_backup(name: &'static str, engine: &str, stage: &Stage, tools: &Tools) -> Contender {
    let archive = stage.out(&format!("archive-{engine}"));
    let step = ours(tools, "backup", &stage.database, &["--archive", archive.as_str(), "backup", "--engine", engine]);
    Contender::new(name, vec![archive], vec![step])
}

fn verifiers(task: Task, stage: &Stage, tools: &Tools) -> Vec<Contender> {
    let (backup, make) = our_file(stage, tools, "verified.db");
    let deep = task == Task::VerifyDeep;
    let arguments: &[&str] = if deep { &["verify", "--deep", backup.as_str()] } else { &["verify", backup.as_str()] };
    let step = ours(tools, "verify", &stage.database, arguments);
    let mut all = vec![Contender::new(OURS, Vec::new(), vec![step]).with_setup(make)];
    if tools.peers {
        let hash = Step::new("b3sum", "b3sum", &[backup.as_str()]);
        if deep {
            all.push(Contender::new(B3SUM_AND_CHECK, Vec::new(), vec![hash, checked(&backup)]));
        } else {
            all.push(Contender::new(B3SUM, Vec::new(), vec![hash]));
            all.extend(restic(task, stage, tools));
            all.extend(rustic(task, stage, tools));
        }
    }
    all
}

fn restorers(stage: &Stage, tools: &Tools) -> Vec<Contender> {
    let (backup, make) = our_file(stage, tools, "to-restore.db");
    // Without the old database that the round before has kept, and its note: each round finds the same.
    let kept = |database: &Utf8Path| {
        [".pre-restore", ".pre-restore.json"].map(|suffix| Utf8PathBuf::from(format!("{database}{suffix}"))).to_vec()
    };
    let restore = |database: &Utf8Path| ours(tools, "restore", database, &["restore", backup.as_str()]);
    let (over, fresh) = (stage.out("over.db"), stage.out("fresh.db"));
    let setup = [make, vec![restore(&over)]].concat();
    let mut all = vec![
        Contender::new(OURS, kept(&over), vec![restore(&over)]).with_setup(setup),
        Contender::new(OURS_NOTHING_THERE, with_sidecars(&fresh), vec![restore(&fresh)]),
    ];
    if tools.peers {
        let copied = stage.out("cp.db");
        let by_cp = |name, command: &[&str]| {
            let arguments = [&command[1..], &[backup.as_str(), copied.as_str()]].concat();
            let steps = [vec![Step::new("copy", command[0], &arguments)], hashed(&copied)].concat();
            Contender::new(name, with_sidecars(&copied), steps)
        };
        all.push(by_cp(CP, &["cp"]));
        if stage.reflink {
            all.push(by_cp(CP_PLAIN, &["cp", "--reflink=never"]));
        }
        let restored = stage.out("restored.db");
        let step = Step::new("restore", "sqlite3", &[restored.as_str(), &format!(".restore '{backup}'")]);
        let steps = [vec![step], hashed(&restored)].concat();
        all.push(Contender::new(SQLITE_RESTORE, with_sidecars(&restored), steps));
        all.extend(restic(Task::Restore, stage, tools));
        all.extend(rustic(Task::Restore, stage, tools));
        all.extend(litestream(Task::Restore, stage, tools));
    }
    all
}

/// A backup of ours at a path of its own, and how it is made.
pub(super) fn our_file(stage: &Stage, tools: &Tools, name: &str) -> (Utf8PathBuf, Vec<Step>) {
    let backup = stage.out(name);
    let step = ours(tools, "backup", &stage.database, &["backup", "--path", backup.as_str()]);
    (backup, vec![step])
}

pub(super) fn ours(tools: &Tools, name: &'static str, database: &Utf8Path, arguments: &[&str]) -> Step {
    let arguments = [&["--db", database.as_str(), "--quiet"], arguments].concat();
    Step::new(name, tools.engram.as_str(), &arguments)
}

fn copy(name: &'static str, command: &[&str], stage: &Stage, check: bool) -> Contender {
    let target = stage.out("copied.db");
    let arguments = [&command[1..], &[stage.database.as_str(), target.as_str()]].concat();
    let mut steps = vec![Step::new("copy", command[0], &arguments)];
    steps.extend(hashed(&target));
    if check {
        steps.push(checked(&target));
    }
    Contender::new(name, with_sidecars(&target), steps)
}

/// On the disk, and its hash.
fn hashed(path: &Utf8Path) -> Vec<Step> {
    vec![Step::new("sync", "sync", &[path.as_str()]), Step::new("b3sum", "b3sum", &[path.as_str()])]
}

fn checked(path: &Utf8Path) -> Step {
    Step::new("check", "sqlite3", &[path.as_str(), "PRAGMA integrity_check"]).that_says("ok")
}

/// A database and whatever may lie beside it once it was opened, or restored over.
fn with_sidecars(path: &Utf8Path) -> Vec<Utf8PathBuf> {
    ["", "-wal", "-shm", "-journal", ".pre-restore"].map(|suffix| Utf8PathBuf::from(format!("{path}{suffix}"))).into()
}
