//! `cargo xtask deploy`: the files of `docs/deploy/` looked at by the tools of whom they are for. Installs nothing.
//!
//! What a tool that is missing would have looked at is a failure: what was not looked at does not pass.

use std::fs;
use std::process::Command;

use camino::Utf8Path;
use yaml_rust2::{Yaml, YamlLoader};

use crate::Result;

/// Units of one manager.
struct Manager {
    folder: &'static str,
    /// What its units call the program.
    program: &'static str,
    arguments: &'static [&'static str],
    /// The exposure (0 to 100, less is better) that `systemd-analyze security` may give to a unit of ours at most, and to
    /// the one that tells of failures, which has to reach the journal.
    ceiling: u32,
    ceiling_of_failed: u32,
}

const MANAGERS: [Manager; 2] = [
    Manager {
        folder: "system",
        program: "/usr/local/bin/engram-restore",
        arguments: &[],
        ceiling: 10,
        ceiling_of_failed: 30,
    },
    // The manager of a user has no rights to take a file system or a network away.
    Manager {
        folder: "user",
        program: "%h/.cargo/bin/engram-restore",
        arguments: &["--user"],
        ceiling: 65,
        ceiling_of_failed: 75,
    },
];

pub(crate) fn run(root: &Utf8Path) -> Result {
    let deploy = root.join("docs/deploy");
    let mut faults = Vec::new();
    for manager in &MANAGERS {
        faults.extend(units(&deploy, manager)?);
    }
    faults.extend(workflow(&deploy.join("github-drill.yml"))?);
    println!("that each command line is one of ours: cargo test --bin engram-restore examples");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tested = Command::new(cargo)
        .args(["test", "--quiet", "--bin", "engram-restore", "examples"])
        .current_dir(root)
        .status()?;
    if !tested.success() {
        faults.push("a command line in the documents does not parse".to_owned());
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n").into()) }
}

/// Lets systemd look at the units of a manager, with a program in the place of ours that is there.
fn units(deploy: &Utf8Path, manager: &Manager) -> Result<Vec<String>> {
    let folder = deploy.join("systemd").join(manager.folder);
    let scratch = tempfile::tempdir()?;
    let mut copies = Vec::new();
    for entry in folder.read_dir_utf8()? {
        let entry = entry?;
        let copy = scratch.path().join(entry.file_name());
        fs::write(&copy, fs::read_to_string(entry.path())?.replace(manager.program, "/bin/true"))?;
        copies.push(copy);
    }
    copies.sort();
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        // The manager of a user asks where its sockets would be.
        command.args(manager.arguments).args(arguments).env("XDG_RUNTIME_DIR", scratch.path());
        command
    };
    let mut faults = Vec::new();
    let Ok(verified) = analyze(&["verify", "--man=no"]).args(&copies).output() else {
        return Ok(vec!["there is no systemd-analyze: the units were not looked at (package systemd)".to_owned()]);
    };
    // It warns of some mistakes without a status.
    let said = String::from_utf8_lossy(&verified.stderr).into_owned() + &String::from_utf8_lossy(&verified.stdout);
    if !verified.status.success() || !said.trim().is_empty() {
        faults.push(format!("systemd-analyze verify, {} units:\n{said}", manager.folder));
    }
    println!("systemd-analyze verify: {} files for the {} manager", copies.len(), manager.folder);
    for copy in copies.iter().filter(|copy| copy.extension().is_some_and(|extension| extension == "service")) {
        let name = copy.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let ceiling = if name.contains("failed@") { manager.ceiling_of_failed } else { manager.ceiling };
        let threshold = format!("--threshold={ceiling}");
        let scored = analyze(&["security", "--offline=true", &threshold]).arg(copy).output()?;
        let said = String::from_utf8_lossy(&scored.stdout).into_owned();
        let score = said.lines().rfind(|line| line.contains("exposure level")).unwrap_or("no score").trim();
        println!("  {score}, ceiling {}.{}", ceiling / 10, ceiling % 10);
        if !scored.status.success() {
            faults.push(format!("{name} is open to more than its ceiling: {score}"));
        }
    }
    Ok(faults)
}

/// What is wrong with the workflow: as YAML and in its outline, and as `actionlint` sees it, if that is here.
fn workflow(path: &Utf8Path) -> Result<Vec<String>> {
    let documents = YamlLoader::load_from_str(&fs::read_to_string(path)?)?;
    let mut faults = outline(&documents);
    match Command::new("actionlint").arg(path).output() {
        Ok(linted) if linted.status.success() => println!("actionlint: {path}"),
        Ok(linted) => faults.push(String::from_utf8_lossy(&linted.stdout).into_owned()),
        Err(_not_here) => println!("there is no actionlint: of {path}, only the outline was looked at"),
    }
    Ok(faults)
}

fn outline(documents: &[Yaml]) -> Vec<String> {
    let [workflow] = documents else { return vec!["the workflow is not one YAML document".to_owned()] };
    let mut faults = Vec::new();
    if workflow["on"].is_badvalue() {
        faults.push("the workflow has no `on`".to_owned());
    }
    let jobs = workflow["jobs"].as_hash().into_iter().flatten();
    let mut commands = 0;
    for (name, job) in jobs {
        let steps = job["steps"].as_vec().map(Vec::as_slice).unwrap_or_default();
        if job["runs-on"].as_str().is_none() || steps.is_empty() {
            faults.push(format!("job {name:?} has no `runs-on` or no steps"));
        }
        for step in steps {
            match (step["run"].as_str(), step["uses"].as_str()) {
                (Some(_), None) => commands += 1,
                (None, Some(_)) => {}
                (Some(_), Some(_)) | (None, None) => {
                    faults.push(format!("a step without one `run` or `uses`: {step:?}"));
                }
            }
        }
    }
    if commands == 0 {
        faults.push("the workflow runs nothing".to_owned());
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Would catch a look that finds nothing in whatever it is given.
    #[test]
    fn broken_workflow_is_found() {
        let faults = |text: &str| outline(&YamlLoader::load_from_str(text).unwrap_or_default()).len();
        assert_eq!(faults("on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: y\n"), 0);
        assert_eq!(faults("jobs:\n  a:\n    steps: []\n"), 3);
        assert_eq!(faults("on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - name: y\n      - run: z\n"), 1);
        assert_eq!(faults("a: [\n"), 1);
    }
}
