//! `cargo xtask bench`: the product beside what people would otherwise use, in one run.

mod archive;
mod busy;
pub(crate) mod check;
mod contenders;
mod contest;
mod document;
mod machine;
mod process;
mod reflink;
mod report;
mod repositories;
mod stage;
mod startup;
mod stats;
mod tables;
mod targets;
pub(crate) mod writer;

use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use process::Runner;
use report::{Report, Task};
use stage::{Size, Stage, Tools};

use crate::Result;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Everything in about a minute, with small databases: shows that it works, and no more.
    #[arg(long)]
    quick: bool,
    /// How often each contender runs; beside a writer at most 3 times.
    #[arg(long)]
    rounds: Option<usize>,
    /// A size of the sample database; may be given several times [default: 10MB 100MB 1GB].
    #[arg(long)]
    size: Vec<Size>,
    /// Also 10 GB, with a few contenders: that takes half an hour more, and 45 GB of disk.
    #[arg(long)]
    ten_gb: bool,
    /// Measure only this; may be given several times.
    #[arg(long)]
    only: Vec<Part>,
    /// Leave out all programs but ours.
    #[arg(long)]
    no_peers: bool,
    /// Where to work: the file system that is measured [default: target/bench].
    #[arg(long, value_name = "DIR")]
    scratch: Option<Utf8PathBuf>,
    /// The file system that shares blocks.
    #[arg(long, default_value = "xfs")]
    reflink: reflink::Kind,
    /// Where the figures go as JSON.
    #[arg(long, value_name = "FILE", default_value = "target/bench/report.json")]
    json: Utf8PathBuf,
    /// Where the document goes [default: docs/benchmarks.md for a whole run, else target/bench/benchmarks.md].
    #[arg(long, value_name = "FILE")]
    document: Option<Utf8PathBuf>,
    /// Measure nothing: write the document from the figures of an earlier run.
    #[arg(long, value_name = "FILE")]
    render: Option<Utf8PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Startup,
    Backup,
    Verify,
    Check,
    Restore,
    Busy,
    Archive,
    Reflink,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn is_whole(&self) -> bool {
        !self.quick && self.only.is_empty() && self.size.is_empty() && !self.no_peers
    }

    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 2 } else { 5 }).max(1)
    }

    /// From small to large, without 10 GB.
    fn sizes(&self) -> Vec<Size> {
        let mut sizes = match (self.size.as_slice(), self.quick) {
            ([], true) => vec![Size::Mb10],
            ([], false) => vec![Size::Mb10, Size::Mb100, Size::Gb1],
            (given, _) => given.to_vec(),
        };
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    fn tasks(&self) -> Vec<Task> {
        let tasks = [
            (Part::Backup, Task::Backup),
            (Part::Restore, Task::Restore),
            (Part::Verify, Task::Verify),
            (Part::Verify, Task::VerifyDeep),
            (Part::Check, Task::Check),
        ];
        tasks.into_iter().filter(|(part, _)| self.wants(*part)).map(|(_, task)| task).collect()
    }
}

pub(crate) fn run(options: &Options, root: &Utf8Path) -> Result {
    let document = options.document.clone().unwrap_or_else(|| {
        root.join(if options.is_whole() { "docs/benchmarks.md" } else { "target/bench/benchmarks.md" })
    });
    let report = match &options.render {
        Some(figures) => Report::read(figures)?,
        None => measure(options, root)?,
    };
    print!("{}", tables::whole(&report));
    std::fs::write(&document, document::of(&report)).map_err(|cause| format!("{document}: {cause}"))?;
    println!("\nwritten: {document}");
    Ok(())
}

fn measure(options: &Options, root: &Utf8Path) -> Result<Report> {
    let runner = Runner::new()?;
    build(root)?;
    let target = root.join("target");
    let base = options.scratch.clone().unwrap_or_else(|| target.join("bench"));
    std::fs::create_dir_all(&base)?;
    let base = base.canonicalize_utf8()?;
    let scratch = tempfile::Builder::new().prefix("scratch-").tempdir_in(&base)?;
    let dir = Utf8Path::from_path(scratch.path()).ok_or("the scratch folder's name is not UTF-8")?;
    let tools = Tools::find(&target, !options.no_peers);
    let mut report = Report {
        date: jiff::Zoned::now().date().to_string(),
        command: std::env::args().skip(1).fold("cargo xtask".to_owned(), |line, word| line + " " + &word),
        rounds: options.rounds(),
        machine: machine::describe(dir)?,
        versions: tools.versions()?,
        ..Report::default()
    };
    for (name, value) in report.versions.iter().chain(&report.machine) {
        eprintln!("{name}: {value}");
    }
    let json = root.join(&options.json);
    let run = Run { options, runner: &runner, tools: &tools, samples: base.join("samples"), dir };
    let measured = run.all(&mut report);
    // Also what was measured before an error or Ctrl-C.
    report.write(&json, tables::drawn(&report))?;
    measured?;
    eprintln!("written: {json}");
    Ok(report)
}

/// The binary that is measured, and the chore itself for what it starts: neither is of use unoptimised.
fn build(root: &Utf8Path) -> Result {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--package", "engram-restore", "--package", "xtask"]).current_dir(root);
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("cargo build: {status}").into()) }
}

struct Run<'a> {
    options: &'a Options,
    runner: &'a Runner,
    tools: &'a Tools,
    samples: Utf8PathBuf,
    dir: &'a Utf8Path,
}

impl Run<'_> {
    fn all(&self, report: &mut Report) -> Result {
        let options = self.options;
        self.note_absent(report);
        if options.wants(Part::Startup) {
            let rounds = if options.quick { 20 } else { 200 };
            report.startup = startup::run(self.runner, self.tools, &self.dir.join("startup"), rounds)?;
        }
        for size in options.sizes() {
            self.contests(report, size, &options.tasks())?;
        }
        let main = options.sizes().into_iter().rfind(|size| *size < Size::Gb10).unwrap_or(Size::Mb10);
        if options.wants(Part::Busy) {
            self.busy(report, main)?;
        }
        if options.wants(Part::Archive) {
            self.archives(report, main)?;
        }
        if options.wants(Part::Reflink) {
            self.reflink(report, main)?;
        }
        if options.ten_gb {
            self.contests(report, Size::Gb10, &options.tasks())?;
        }
        Ok(())
    }

    fn note_absent(&self, report: &mut Report) {
        let absent = [
            ("restic", !self.tools.restic),
            ("rustic", self.tools.rustic.is_none()),
            ("litestream", self.tools.litestream.is_none()),
        ];
        for (name, _) in absent.iter().filter(|(_, absent)| *absent) {
            report.skip(
                *name,
                if self.tools.peers { "it is not installed (xtask/bench-tools.sh)" } else { "without peers" },
            );
        }
        if !self.options.ten_gb {
            report.skip("10 GB", "only with --ten-gb");
        }
    }

    fn stage(&self, dir: Utf8PathBuf, size: Size, reflink: bool) -> Result<Stage> {
        let sample = size.sample(self.tools, &self.samples, self.runner)?;
        Stage::set_up(dir, &sample, size, reflink)
    }

    fn contests(&self, report: &mut Report, size: Size, tasks: &[Task]) -> Result {
        if tasks.is_empty() {
            return Ok(());
        }
        let huge = size == Size::Gb10;
        let rounds = if huge { self.options.rounds().min(2) } else { self.options.rounds() };
        let stage = self.stage(self.dir.join("contest"), size, false)?;
        self.hold_all(report, &stage, tasks, huge, rounds)?;
        if tasks.contains(&Task::Check) && !huge {
            // Of the largest database, which comes last.
            report.parts = check::parts(&stage, self.tools)?;
        }
        process::remove(&[stage.dir])
    }

    fn hold_all(&self, report: &mut Report, stage: &Stage, tasks: &[Task], few: bool, rounds: usize) -> Result {
        for task in tasks {
            let contenders = contenders::of(*task, stage, self.tools, few);
            report.contests.push(contest::hold(self.runner, stage, *task, &contenders, rounds)?);
            // What was prepared for one task would be in the way of the next on a small disk.
            stage.clear()?;
        }
        Ok(())
    }

    fn busy(&self, report: &mut Report, size: Size) -> Result {
        let stage = self.stage(self.dir.join("busy"), size, false)?;
        let sample = size.sample(self.tools, &self.samples, self.runner)?;
        let second = Duration::from_secs(1);
        let limits = if self.options.quick {
            busy::Limits { alone: second, least: 2 * second, most: 3 * second }
        } else {
            busy::Limits { alone: 5 * second, least: 10 * second, most: 30 * second }
        };
        let bench = busy::Bench { runner: self.runner, tools: self.tools, stage: &stage, sample: &sample, limits };
        report.busy = bench.run(if self.options.quick { 1 } else { self.options.rounds().min(3) })?;
        process::remove(&[stage.dir])
    }

    fn archives(&self, report: &mut Report, size: Size) -> Result {
        let bench = archive::Bench { runner: self.runner, tools: self.tools, dir: self.dir.join("archives") };
        let rounds = self.options.rounds();
        let counts: &[usize] = if self.options.quick { &[10, 1_000] } else { &[10, 100, 1_000, 10_000] };
        report.archive = bench.small(counts, rounds)?;
        let stage = self.stage(self.dir.join("contest"), size, false)?;
        let counts: &[usize] = if self.options.quick { &[100] } else { &[10, 1_000] };
        report.archive.extend(bench.large(&stage, counts, rounds)?);
        process::remove(&[stage.dir, bench.dir])
    }

    fn reflink(&self, report: &mut Report, size: Size) -> Result {
        // The source, what was prepared, and one output at a time; xfs wants 300 MB at least.
        let size_bytes = size.rough_bytes() * 8 + (1 << 30);
        let mounted = match reflink::Mounted::new(self.options.reflink, self.dir, size_bytes, self.runner) {
            Ok(mounted) => mounted,
            Err(error) => {
                self.runner.check()?;
                report.skip(format!("{:?} with shared blocks", self.options.reflink), error.to_string());
                return Ok(());
            }
        };
        let rounds = self.options.rounds().min(3);
        let stage = self.stage(mounted.folder.join("contest"), size, true)?;
        self.hold_all(report, &stage, &[Task::Backup, Task::Restore], true, rounds)
    }
}
