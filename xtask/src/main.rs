//! The project's own chores, in Rust instead of shell: `cargo xtask --help` lists them.

mod api;
mod bench;
mod ci;
mod crash;
mod deny;
mod deploy;
mod differential;
mod foreign;
mod fuzz;
mod hostile;
mod mutants;
mod named_tests;
mod powercut;
mod release;
mod report;
mod sample;
mod snapshot;
mod soak;
mod source;
mod tidy;
mod tools;

use std::error::Error;
use std::process::{Command, ExitCode};

use camino::{Utf8Path, Utf8PathBuf};
use clap::Parser;

/// A chore fails with a sentence; nobody reads its error as data.
type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

#[derive(Parser)]
#[command(name = "cargo xtask", about)]
enum Chore {
    /// Compare the library's public names with the kept list of them.
    Api(api::Options),
    /// Measure backups, checks and restores beside what people would otherwise use. Takes half an hour.
    Bench(bench::Options),
    /// The writer beside which `bench` measures.
    #[command(hide = true)]
    BenchWriter(bench::writer::Options),
    /// What `bench` lets run as a process of its own.
    #[command(hide = true)]
    BenchCheck(bench::check::Options),
    /// Run every check that CI runs, stopping at the first that fails.
    Ci,
    /// Crash restores, undos, recoveries and backups in tens of thousands of ways.
    Crash(crash::Options),
    /// Look at the units, the cron line and the workflow of docs/deploy/. Installs nothing.
    Deploy,
    /// Licences, banned crates and sources of everything that is built, by deny.toml.
    Deny,
    /// Drills of other tools' backups, with the real litestream and the real restic.
    Foreign,
    /// Collections of broken databases, such as SQLite's own, through `adopt` and `verify --deep`.
    Hostile(hostile::Options),
    /// Every target of fuzz/ for some time: bytes from outside, which must not hurt.
    Fuzz(fuzz::Options),
    /// Take each odd step of a restore out, and look whether its test fails. Takes minutes.
    Mutants(mutants::Options),
    /// Cut the power of a disk under the released program, thousands of times. Needs root.
    Powercut(powercut::Options),
    /// Build the release, and weigh it: size, libraries, crates.
    Release,
    /// Create a database of engram's shape.
    Sample(sample::Options),
    /// The writer that `sample --hot` kills.
    #[command(hide = true)]
    SampleWriter(sample::WriterOptions),
    /// The released program under load: writers, readers, backups, restores of every kind, and kills.
    Soak(soak::Options),
    /// Who works on the database beside it.
    #[command(hide = true)]
    SoakActor(soak::actors::Options),
    /// Take thousands of copies of databases that others use in every way meanwhile.
    Snapshot(snapshot::Options),
    /// Reports of drills, read by a browser, a schema, a parser and a renderer.
    Report(report::Options),
    /// The deep check against SQLite's own, on tens of thousands of damaged databases
    Differential(differential::Options),
    /// Check the house rules over the text of src/.
    Tidy,
}

fn main() -> ExitCode {
    let done = match Chore::parse() {
        Chore::Api(options) => root().and_then(|root| api::run(&options, &root)),
        Chore::Bench(options) => root().and_then(|root| bench::run(&options, &root)),
        Chore::BenchWriter(options) => bench::writer::run(&options),
        Chore::BenchCheck(options) => bench::check::run(&options),
        Chore::Ci => root().and_then(|root| ci::run(&root)),
        Chore::Crash(options) => root().and_then(|root| crash::run(&options, &root)),
        Chore::Deploy => root().and_then(|root| deploy::run(&root)),
        Chore::Deny => root().and_then(|root| deny::run(&root)),
        Chore::Foreign => root().and_then(|root| foreign::run(&root)),
        Chore::Hostile(options) => root().and_then(|root| hostile::run(&options, &root)),
        Chore::Fuzz(options) => root().and_then(|root| fuzz::run(&options, &root)),
        Chore::Powercut(options) => root().and_then(|root| powercut::run(&options, &root)),
        Chore::Release => root().and_then(|root| release::run(&root)),
        Chore::Report(options) => root().and_then(|root| report::run(&options, &root)),
        Chore::Mutants(options) => root().and_then(|root| mutants::run(&root, &options)),
        Chore::Sample(options) => sample::run(&options),
        Chore::SampleWriter(options) => sample::write_until_killed(&options),
        Chore::Differential(options) => root().and_then(|root| differential::run(&options, &root)),
        Chore::Soak(options) => root().and_then(|root| soak::run(&options, &root)),
        Chore::SoakActor(options) => soak::actors::run(&options),
        Chore::Snapshot(options) => root().and_then(|root| snapshot::run(&options, &root)),
        Chore::Tidy => root().and_then(|root| tidy::run(&root)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace, as cargo says it when it runs us: a path from compile time would be that of another
/// clone where `target/` was copied.
fn root() -> Result<Utf8PathBuf> {
    let package = std::env::var("CARGO_MANIFEST_DIR").map_err(|cause| format!("run me as `cargo xtask`: {cause}"))?;
    let root = Utf8PathBuf::from(package).parent().map(ToOwned::to_owned);
    Ok(root.ok_or("the package has no parent folder")?)
}

/// The folder that cargo builds into.
fn target(root: &Utf8Path) -> Result<Utf8PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let said = Command::new(cargo).args(["metadata", "--format-version=1", "--no-deps"]).current_dir(root).output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&said.stdout)?;
    Ok(metadata["target_directory"].as_str().ok_or("cargo does not say where it builds")?.into())
}
