//! The peers that keep backups in a form of their own: restic, rustic and litestream.

use camino::{Utf8Path, Utf8PathBuf};

use super::contenders::{LITESTREAM, RESTIC, RUSTIC};
use super::contest::Contender;
use super::process::Step;
use super::report::Task;
use super::stage::{Stage, Tools};

/// A repository of restic's format, and who works with it.
struct Repository<'a> {
    name: &'static str,
    program: &'a str,
    path: Utf8PathBuf,
    cache: Utf8PathBuf,
}

impl Repository<'_> {
    fn step(&self, name: &'static str, arguments: &[&str]) -> Step {
        let step = Step::new(name, self.program, arguments);
        if self.name == RESTIC {
            return step
                .with_environment("RESTIC_REPOSITORY", self.path.as_str())
                .with_environment("RESTIC_PASSWORD", "bench")
                .with_environment("RESTIC_CACHE_DIR", self.cache.as_str());
        }
        step.with_environment("RUSTIC_REPOSITORY", self.path.as_str())
            .with_environment("RUSTIC_PASSWORD", "bench")
            .with_environment("RUSTIC_CACHE_DIR", self.cache.as_str())
    }

    fn files(&self) -> Vec<Utf8PathBuf> {
        vec![self.path.clone(), self.cache.clone()]
    }

    /// A first backup, each time into an empty repository: a second one of the same file would copy nothing.
    fn contender(&self, task: Task, stage: &Stage) -> Contender {
        let backup = self.step("backup", &["backup", stage.database.as_str()]);
        let init = self.step("init", &["init"]);
        match task {
            Task::Backup => {
                let steps = vec![backup, self.step("check", &["check"])];
                Contender::new(self.name, self.files(), steps).with_before(vec![init])
            }
            Task::Verify | Task::VerifyDeep | Task::Check => {
                let steps = vec![self.step("check", &["check", "--read-data"])];
                Contender::new(self.name, Vec::new(), steps).with_setup(vec![init, backup])
            }
            Task::Restore => {
                let target = stage.out(&format!("{}-restored", self.name));
                // Only restic can be asked to hash what it has written.
                let restore: &[&str] = if self.name == RESTIC {
                    &["restore", "latest", "--verify", "--target", target.as_str()]
                } else {
                    &["restore", "latest", target.as_str()]
                };
                let database = below(&target, &stage.database);
                let steps = vec![self.step("restore", restore), Step::new("sync", "sync", &[database.as_str()])];
                Contender::new(self.name, vec![target], steps).with_setup(vec![init, backup])
            }
        }
    }
}

/// Both restore a file below the target under its full path.
fn below(target: &Utf8Path, database: &Utf8Path) -> Utf8PathBuf {
    target.join(database.as_str().trim_start_matches('/'))
}

fn place(name: &str, task: Task, stage: &Stage) -> (Utf8PathBuf, Utf8PathBuf) {
    (stage.out(&format!("{name}-{task:?}")), stage.out(&format!("{name}-{task:?}-cache")))
}

pub(super) fn restic(task: Task, stage: &Stage, tools: &Tools) -> Option<Contender> {
    let (path, cache) = place(RESTIC, task, stage);
    tools.restic.then(|| Repository { name: RESTIC, program: "restic", path, cache }.contender(task, stage))
}

pub(super) fn rustic(task: Task, stage: &Stage, tools: &Tools) -> Option<Contender> {
    let program = tools.rustic.as_ref()?.as_str();
    let (path, cache) = place(RUSTIC, task, stage);
    Some(Repository { name: RUSTIC, program, path, cache }.contender(task, stage))
}

/// It marks the database that it replicates, so it has a copy of its own; and it verifies nothing.
pub(super) fn litestream(task: Task, stage: &Stage, tools: &Tools) -> Option<Contender> {
    let program = tools.litestream.as_ref()?.as_str();
    let folder = stage.out(&format!("litestream-{task:?}"));
    let (database, replica, restored) = (folder.join("live.db"), folder.join("replica"), folder.join("restored.db"));
    let url = format!("file://{replica}");
    let replicate = Step::new("replicate", program, &["replicate", "-once", database.as_str(), &url]);
    let take = vec![
        Step::new("mkdir", "mkdir", &[folder.as_str()]),
        Step::new("copy", "cp", &[stage.database.as_str(), database.as_str()]),
    ];
    match task {
        Task::Backup => Some(Contender::new(LITESTREAM, vec![folder], vec![replicate]).with_before(take)),
        Task::Restore => {
            let arguments = ["restore", "-o", restored.as_str(), &url];
            let steps = vec![Step::new("restore", program, &arguments)];
            Some(Contender::new(LITESTREAM, vec![restored], steps).with_setup([take, vec![replicate]].concat()))
        }
        Task::Verify | Task::VerifyDeep | Task::Check => None,
    }
}
