//! `cargo xtask ci`: every check, the quick ones first and the tests last, so that their summary closes the output.

use std::ffi::OsString;
use std::process::Command;
use std::time::Instant;

use camino::Utf8Path;

use crate::{Result, api, tidy};

enum Step {
    Cargo { environment: &'static [(&'static str, &'static str)], arguments: &'static [&'static str] },
    Tidy,
    Api,
}

const STEPS: &[Step] = &[
    Step::Cargo { environment: &[], arguments: &["fmt", "--all", "--check"] },
    Step::Tidy,
    Step::Cargo { environment: &[], arguments: &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"] },
    Step::Cargo { environment: &[("RUSTDOCFLAGS", "-Dwarnings")], arguments: &["doc", "--workspace", "--no-deps"] },
    Step::Api,
    // As cargo-fuzz sets it: without it there is nothing to fuzz.
    Step::Cargo {
        environment: &[("RUSTFLAGS", "--cfg=fuzzing")],
        arguments: &["check", "--manifest-path", "fuzz/Cargo.toml"],
    },
    Step::Cargo { environment: &[], arguments: &["test", "--workspace"] },
];

pub(crate) fn run(root: &Utf8Path) -> Result {
    for step in STEPS {
        let name = step.name();
        println!("==> {name}");
        let started = Instant::now();
        let done = step.run(root);
        let seconds = started.elapsed().as_secs_f64();
        done.map_err(|error| format!("`{name}` failed after {seconds:.1} s: {error}"))?;
        println!("<== {name}: {seconds:.1} s");
    }
    Ok(())
}

impl Step {
    fn name(&self) -> String {
        match self {
            Self::Tidy => "cargo xtask tidy".to_owned(),
            Self::Api => "cargo xtask api".to_owned(),
            Self::Cargo { environment, arguments } => {
                let settings = environment.iter().map(|(name, value)| format!("{name}={value}"));
                let words = ["cargo"].iter().chain(*arguments).map(|word| (*word).to_owned());
                settings.chain(words).collect::<Vec<_>>().join(" ")
            }
        }
    }

    fn run(&self, root: &Utf8Path) -> Result {
        match self {
            Self::Tidy => tidy::run(root),
            Self::Api => api::run(&api::Options::default(), root),
            Self::Cargo { environment, arguments } => {
                // The cargo that runs us, so that a chosen toolchain is kept.
                let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
                let mut command = Command::new(cargo);
                command.args(*arguments).envs(environment.iter().copied()).current_dir(root);
                let status = command.status()?;
                if status.success() { Ok(()) } else { Err(status.to_string().into()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever reads the end of a CI run looks for the tests' summary there.
    #[test]
    fn the_tests_come_last() {
        assert_eq!(STEPS.last().map(Step::name).as_deref(), Some("cargo test --workspace"));
    }

    #[test]
    fn a_name_can_be_pasted_into_a_shell() {
        assert!(STEPS.iter().any(|step| step.name() == "RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps"));
    }
}
