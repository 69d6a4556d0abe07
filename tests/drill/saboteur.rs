//! A program that is engram-restore but for one thing that it does wrong, and drills with it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

/// A folder for a drill's scratch files and a program.
pub(crate) struct Rehearsal {
    _folder: tempfile::TempDir,
    dir: Utf8PathBuf,
}

/// A drill's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: Option<i32>,
    pub(crate) json: Value,
}

impl Rehearsal {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = Utf8PathBuf::from_path_buf(folder.path().canonicalize().unwrap()).unwrap();
        fs::create_dir(dir.join("scratch")).unwrap();
        Self { _folder: folder, dir }
    }

    /// The folder that is its own.
    pub(crate) fn dir(&self) -> &Utf8Path {
        &self.dir
    }

    /// Drills a small sample, with these arguments; nothing may stay in the scratch folder.
    pub(crate) fn drill(&self, arguments: &[&str]) -> Answer {
        let (mut command, scratch) = (self.command(), self.dir.join("scratch"));
        command.args(["--json", "drill", "--sample", "--rows", "200", "--seed", "7", "--scratch", scratch.as_str()]);
        let answer = Answer::of(command.args(arguments));
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "{answer:?}");
        answer
    }

    /// The real program, in its folder and in an environment that leaks nothing in.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_engram-restore"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).current_dir(&self.dir);
        command
    }

    /// The scenario passes.
    pub(crate) fn passes(&self, scenario: &str) -> Answer {
        let answer = self.drill(&["--scenario", scenario]);
        assert_eq!(answer.status, Some(0), "{answer:#?}");
        assert_eq!(answer.verdict(), "pass");
        answer
    }

    /// The scenario fails with a program that does `misbehave` instead of running. That is shell: `real "$@"` is the real run,
    /// `$db` and `$archive` are its options, `$command` is the command (`fault` stands around one with a fault).
    pub(crate) fn fails(&self, scenario: &str, misbehave: &str) -> Answer {
        self.fails_with(scenario, misbehave, &[])
    }

    /// The same, with more arguments.
    pub(crate) fn fails_with(&self, scenario: &str, misbehave: &str, arguments: &[&str]) -> Answer {
        let program = self.program(misbehave);
        let answer = self.drill(&[&["--scenario", scenario, "--program", program.as_str()], arguments].concat());
        assert_eq!(answer.status, Some(1), "{answer:#?}");
        assert_eq!(answer.verdict(), "fail", "{answer:#?}");
        answer
    }

    /// That program.
    pub(crate) fn program(&self, misbehave: &str) -> Utf8PathBuf {
        let program = self.dir.join("engram-restore");
        let real = env!("CARGO_BIN_EXE_engram-restore");
        // Backups by the time in their manifests: their names may differ by a number, and their own times are those of copies.
        let by_time = r#"by_time() { for f in "$archive"/*.db; do [ -e "$f" ] || continue
            echo "$(grep -o '"created_at": *"[^"]*"' "$f.manifest.json" | head -n1) $f"; done | sort | sed 's/.* //'; }"#;
        let text =
            format!("#!/bin/sh\nreal() {{ '{real}' \"$@\"; }}\n{by_time}\ndb=$3 archive=$5 command=$6\n{misbehave}\n");
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        program
    }
}

impl Answer {
    /// What a command with `--json` says.
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        Self { status: output.status.code(), json }
    }

    /// What came of the only scenario.
    pub(crate) fn verdict(&self) -> &str {
        self.scenario()["verdict"].as_str().unwrap()
    }

    pub(crate) fn scenario(&self) -> &Value {
        let scenarios = self.json["scenarios"].as_array().unwrap();
        assert_eq!(scenarios.len(), 1);
        &scenarios[0]
    }

    /// A problem says this.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) {
        let problems = self.scenario()["problems"].as_array().unwrap();
        assert!(problems.iter().any(|problem| problem.as_str().unwrap().contains(text)), "{text}: {problems:#?}");
    }
}
