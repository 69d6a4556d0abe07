//! `manual`: the man page, all commands on it, from the definitions that read the command line.

use std::io;

use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use engram_restore::{Error, Result};
use serde_json::json;

use super::exit::Exit;
use super::output::Outcome;
use super::visible::visible;

pub(crate) fn run() -> Result<Outcome> {
    let page = page().map_err(|e| Error::io("write", "the man page", e))?;
    Ok(Outcome::new(Exit::Done, json!({ "manual": page }), page).essential())
}

fn page() -> io::Result<String> {
    let program = visible();
    let man = Man::new(program.clone().disable_help_subcommand(true)).manual("User Commands");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    heading("SH", "COMMANDS").to_writer(&mut page)?;
    for command in program.get_subcommands() {
        page.extend(section(&program, command)?);
    }
    heading("SH", "EXAMPLES AND EXIT STATUSES").to_writer(&mut page)?;
    verbatim(&program).to_writer(&mut page)?;
    String::from_utf8(page).map_err(io::Error::other)
}

/// What the page says of one command. The global options stand once, in front.
fn section(program: &clap::Command, command: &clap::Command) -> io::Result<Vec<u8>> {
    let name = command.get_name().to_owned();
    let full_name = format!("{} {name}", program.get_name());
    let man = Man::new(command.clone().bin_name(full_name).disable_help_flag(true));
    let mut text = Vec::new();
    man.render_description_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut text)?;
    }
    let mut section = Vec::new();
    heading("SS", &name).to_writer(&mut section)?;
    // The command's name is heading enough for what the library gives a section of its own.
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        section.extend_from_slice(if line.starts_with(b".SH ") { b".PP\n" } else { line });
    }
    verbatim(command).to_writer(&mut section)?;
    Ok(section)
}

fn heading(macro_name: &str, text: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control(macro_name, [text]);
    roff
}

/// What stands below the options in `--help`, line by line.
fn verbatim(command: &clap::Command) -> Roff {
    let mut roff = Roff::new();
    if let Some(text) = command.get_after_help() {
        roff.control("PP", []);
        roff.control("nf", []);
        for line in text.to_string().lines() {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
    }
    roff
}
