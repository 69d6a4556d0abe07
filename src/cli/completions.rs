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
    String::from_utf8(script).map_err(|e| Error::io("write", "the completions", std::io::Error::other(e)))
}
