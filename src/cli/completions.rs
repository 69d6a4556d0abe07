//! `completions`: what a shell needs to complete our command lines, from the definitions that read them.

use clap_complete::Shell;
use engram_restore::{Error, Result};
use serde_json::json;

use super::args::{CompletionsArgs, ShellArg};
use super::exit::Exit;
use super::output::Outcome;
use super::visible::visible;

pub(crate) fn run(args: &CompletionsArgs) -> Result<Outcome> {
    let script = script(args.shell)?;
    Ok(Outcome::new(Exit::Done, json!({ "script": script }), script).essential())
}

fn script(shell: ShellArg) -> Result<String> {
    let shell = match shell {
        ShellArg::Bash => Shell::Bash,
        ShellArg::Zsh => Shell::Zsh,
        ShellArg::Fish => Shell::Fish,
    };
    let (mut command, mut script) = (visible(), Vec::new());
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut script);
    let script = String::from_utf8(script);
    let script = script.map_err(|e| Error::io("write", "the completions", std::io::Error::other(e)))?;
    // The states of the generator's own script and their labels differ where a program's name has a hyphen.
    Ok(if shell == Shell::Bash { script.replace("engram__subcmd__restore", "engram__restore") } else { script })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use super::*;

    /// Would catch a script that completes the first word, and nothing behind it: a state that has no answer.
    #[test]
    fn bash_has_an_answer_for_every_state() {
        let script = script(ShellArg::Bash).unwrap();
        let states: Vec<_> = script.lines().filter_map(|line| line.trim().strip_prefix("cmd=\"")).collect();
        assert!(states.len() > 15, "{script}");
        for state in states.iter().map(|state| state.trim_end_matches('"')).filter(|state| !state.is_empty()) {
            assert!(script.contains(&format!("\n        {state})\n")), "{state}");
        }
    }
}
