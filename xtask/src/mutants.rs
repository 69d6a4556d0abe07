//! `cargo xtask mutants`: takes the odd steps of a restore out of the program, one at a time, and looks whether the test
//! that is there for it fails. The steps are data: [`TABLE`]. Not a part of CI, since every one is a build.

mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Command, Output};

use camino::Utf8Path;

use crate::Result;
use table::TABLE;

/// A step, how it is taken out, and the test that must then fail.
struct Mutant {
    name: &'static str,
    /// Its file under `src/`.
    file: &'static str,
    /// Occurs there exactly once.
    find: &'static str,
    replace: &'static str,
    /// As cargo takes it: `--lib`, `--test=cli`.
    target: &'static str,
    test: &'static str,
}

/// What `cargo xtask mutants` is to do.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only mutants whose name contains this
    #[arg(default_value = "")]
    name: String,
}

/// Runs them in a copy of the tree below `target/`, which is kept for the next time.
pub(crate) fn run(root: &Utf8Path, options: &Options) -> Result {
    let mutants: Vec<_> = TABLE.iter().filter(|mutant| mutant.name.contains(&options.name)).collect();
    let tree = root.join("target/mutants");
    copy_tree(root, &tree)?;
    require_passing(&tree, &mutants)?;
    let mut survivors = Vec::new();
    for mutant in &mutants {
        let is_caught = mutant.is_caught(&tree);
        let word = match &is_caught {
            Ok(true) => "caught  ",
            Ok(false) => "SURVIVED",
            Err(_) => "NO BUILD",
        };
        println!("{word} {}", mutant.name);
        if let Err(e) = &is_caught {
            println!("{e}");
        }
        if !is_caught.unwrap_or(false) {
            survivors.push(mutant.name);
        }
    }
    println!("{} of {} caught", mutants.len() - survivors.len(), mutants.len());
    if survivors.is_empty() { Ok(()) } else { Err(format!("survivors: {}", survivors.join(", ")).into()) }
}

impl Mutant {
    /// The file with the step taken out.
    fn applied_to(&self, text: &str) -> Result<String> {
        match text.matches(self.find).count() {
            1 => Ok(text.replacen(self.find, self.replace, 1)),
            count => Err(format!("{}: src/{} has what is to be found {count} times", self.name, self.file).into()),
        }
    }

    /// Whether its test fails without the step. That the test cannot be built is a fault of the table.
    fn is_caught(&self, tree: &Utf8Path) -> Result<bool> {
        let path = tree.join("src").join(self.file);
        let original = fs::read_to_string(&path)?;
        fs::write(&path, self.applied_to(&original)?)?;
        let built = cargo_test(tree, self.target, &["--no-run"]);
        let ran = cargo_test(tree, self.target, &["--", "--exact", self.test]);
        fs::write(&path, original)?;
        let (built, ran) = (built?, ran?);
        if built.status.success() { Ok(!ran.status.success()) } else { Err(failure(self.name, &built)) }
    }
}

/// Every test must be there and pass as long as nothing is taken out.
fn require_passing(tree: &Utf8Path, mutants: &[&Mutant]) -> Result {
    let mut targets = BTreeMap::<_, Vec<_>>::new();
    for mutant in mutants {
        targets.entry(mutant.target).or_default().push(mutant.test);
    }
    for (target, mut tests) in targets {
        tests.sort_unstable();
        tests.dedup();
        let output = cargo_test(tree, target, &[&["--", "--exact"], &tests[..]].concat())?;
        let passed = format!("test result: ok. {} passed", tests.len());
        if !String::from_utf8_lossy(&output.stdout).contains(&passed) {
            return Err(failure(&format!("{} tests of {target}, with nothing taken out", tests.len()), &output));
        }
    }
    Ok(())
}

fn cargo_test(tree: &Utf8Path, target: &str, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo says of the package that runs us would be taken for that of the copy.
    command.current_dir(tree).env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_TARGET_DIR");
    Ok(command.args(["test", "--quiet", target]).args(arguments).output()?)
}

fn failure(what: &str, output: &Output) -> Box<dyn std::error::Error> {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{what}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr)).into()
}

/// Every file that git knows, as it lies there now, and no other. What has not changed is not written, so that it is not
/// built again.
fn copy_tree(root: &Utf8Path, tree: &Utf8Path) -> Result {
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listed = Command::new("git").args(arguments).current_dir(root).output()?;
    if !listed.status.success() {
        return Err(failure("git ls-files", &listed));
    }
    let names = String::from_utf8(listed.stdout)?;
    // What was removed may still be known to git.
    let names: BTreeSet<_> = names.split_terminator('\0').filter(|name| root.join(name).is_file()).collect();
    fs::create_dir_all(tree)?;
    remove_others(tree, tree, &names)?;
    for name in names {
        let (bytes, to) = (fs::read(root.join(name))?, tree.join(name));
        if fs::read(&to).ok().as_ref() != Some(&bytes) {
            fs::create_dir_all(to.parent().ok_or("a file without a folder")?)?;
            fs::write(&to, bytes)?;
        }
    }
    Ok(())
}

fn remove_others(tree: &Utf8Path, folder: &Utf8Path, names: &BTreeSet<&str>) -> Result {
    for entry in folder.read_dir_utf8()? {
        let entry = entry?;
        let name = entry.path().strip_prefix(tree)?;
        if entry.file_type()?.is_dir() {
            if name != "target" {
                remove_others(tree, entry.path(), names)?;
            }
        } else if !names.contains(name.as_str()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use super::*;

    /// Would catch a table that a change of the program has left behind, without a single build.
    #[test]
    fn every_mutant_can_be_applied() {
        let root = crate::root().unwrap();
        for mutant in TABLE {
            let text = fs::read_to_string(root.join("src").join(mutant.file)).unwrap();
            let changed = mutant.applied_to(&text).unwrap();
            assert_ne!(changed, text, "{}", mutant.name);
        }
    }

    #[test]
    fn every_name_is_its_own() {
        let names: BTreeSet<_> = TABLE.iter().map(|mutant| mutant.name).collect();
        assert_eq!(names.len(), TABLE.len());
    }

    /// The page for people has the same table.
    #[test]
    fn every_mutant_is_documented_with_its_test() {
        let page = fs::read_to_string(crate::root().unwrap().join("docs/testing.md")).unwrap();
        for Mutant { name, test, .. } in TABLE {
            let test = test.rsplit("::").next().unwrap();
            let is_row =
                |line: &str| line.starts_with(&format!("| {name} |")) && line.ends_with(&format!("::{test}` |"));
            assert!(page.lines().any(is_row), "docs/testing.md has no row for {name:?} with {test}");
        }
    }
}
