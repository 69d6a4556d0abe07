//! `diff`: which tables of two databases differ, and by how many rows.

use std::io::{self, IsTerminal as _};

use camino::Utf8Path;
use engram_restore::{
    DiffOptions, DiffReport, DiffSide, Newest, Result, SchemaDiff, Status, TableDiff, TableKind, Time, database, diff,
};
use serde_json::json;

use super::args::DiffArgs;
use super::context::Context;
use super::exit::Exit;
use super::output::{Outcome, printable, table};
use super::progress::Progress;

/// The word for the database itself.
const LIVE: &str = "live";

pub(crate) fn run(args: &DiffArgs, context: &Context, progress: &mut Progress) -> Result<Outcome> {
    let interrupted = context.interrupted(&[args.a.clone(), args.b.clone()], progress);
    let mut side = |word: &str| -> Result<DiffSide> {
        if word == LIVE {
            return Ok(DiffSide::Live(context.database()?));
        }
        let path = context.backup(word, args.any_source, progress)?;
        let is_live = context.database().is_ok_and(|live| database::resolve(&path).is_ok_and(|path| path == live));
        Ok(if is_live { DiffSide::Live(path) } else { DiffSide::File(path) })
    };
    let fields = |a: Option<&Utf8Path>, b: Option<&Utf8Path>| {
        json!({
            "a": a, "b": b, "same": null, "schema": [], "tables": [], "interrupted_restore": interrupted,
        })
    };
    let sides = side(&args.a).and_then(|a| Ok((a, side(&args.b)?)));
    let (a, b) = match sides {
        Ok(sides) => sides,
        Err(e) => return Outcome::found(e, fields(None, None)),
    };
    let options = DiffOptions { a, b, busy_limit: args.wait, max_time: args.max_time };
    let report = match diff(&options, progress) {
        Ok(report) => report,
        Err(e) => return Outcome::found(e, fields(Some(options.a.path()), Some(options.b.path()))),
    };
    let exit = if args.exit_code && !report.same { Exit::Damaged } else { Exit::Done };
    let fields = json!({
        "a": report.a, "b": report.b, "same": report.same, "schema": report.schema, "tables": report.tables,
        "interrupted_restore": interrupted,
    });
    Ok(Outcome::new(exit, fields, text(&report)).essential())
}

fn text(report: &DiffReport) -> String {
    let mut text = format!("A {}\nB {}\n", printable(report.a.as_str()), printable(report.b.as_str()));
    let differing = || report.tables.iter().filter(|table| table.status != Status::Same);
    let of_user: Vec<_> = differing().filter(|table| table.kind == TableKind::Table).collect();
    if !of_user.is_empty() {
        text.push_str(&counts(&of_user));
    }
    let notes = of_user.iter().filter_map(|table| Some((&table.name, table.note.as_ref()?)));
    text.extend(notes.map(|(name, note)| format!("{}: {}\n", printable(name), printable(note))));
    text.extend(report.schema.iter().map(schema_line));
    let own: Vec<_> = differing().filter(|table| table.kind != TableKind::Table).map(|t| printable(&t.name)).collect();
    if !own.is_empty() {
        text.extend(["what SQLite keeps for itself differs too: ", &own.join(", "), "\n"]);
    }
    text.push_str(&sentence(report, &of_user));
    text
}

fn schema_line(object: &SchemaDiff) -> String {
    let how = match object.status {
        Status::OnlyA => "is only in A",
        Status::OnlyB => "is only in B",
        Status::Changed | Status::Same => "is defined differently",
    };
    format!("{} {} {how}\n", printable(&object.object_type), printable(&object.name))
}

fn counts(tables: &[&TableDiff]) -> String {
    const HEADER: [&str; 7] = ["table", "rows A", "rows B", "only A", "only B", "changed", "newest of these"];
    let number = |rows: Option<u64>| rows.map_or_else(|| "-".to_owned(), |rows| rows.to_string());
    let row = |table: &&TableDiff| {
        [
            printable(&table.name),
            number(table.rows_a),
            number(table.rows_b),
            table.only_in_a.to_string(),
            table.only_in_b.to_string(),
            table.changed.to_string(),
            table.newest.iter().map(newest).collect::<Vec<_>>().join("; "),
        ]
    };
    let rows = tables.iter().map(row);
    if !io::stdout().is_terminal() {
        let lines = std::iter::once(HEADER.map(str::to_owned)).chain(rows);
        return lines.map(|row| row.join("\t").trim_end().to_owned() + "\n").collect();
    }
    table(HEADER, rows)
}

fn newest(newest: &Newest) -> String {
    let sides =
        [("A", &newest.a), ("B", &newest.b)].into_iter().filter_map(|(side, time)| Some((side, time.as_ref()?)));
    let sides: Vec<_> = sides.map(|(side, value)| format!("{side} {}", time(value))).collect();
    format!("{} {}", printable(&newest.column), sides.join(", "))
}

/// A time as it is stored.
pub(crate) fn time(time: &Time) -> String {
    match time {
        Time::Integer(value) => value.to_string(),
        Time::Real(value) => value.to_string(),
        Time::Text(value) => printable(value),
    }
}

fn sentence(report: &DiffReport, of_user: &[&TableDiff]) -> String {
    if report.same {
        return "they have the same content\n".to_owned();
    }
    let sum = |count: fn(&TableDiff) -> u64| of_user.iter().map(|table| count(table)).sum::<u64>();
    match of_user.len() {
        0 if report.schema.is_empty() => "they have the same rows\n".to_owned(),
        0 => "they have the same rows, and another schema\n".to_owned(),
        tables => format!(
            "{tables} {}: {} rows only in A, {} only in B, {} changed\n",
            if tables == 1 { "table differs" } else { "tables differ" },
            sum(|table| table.only_in_a),
            sum(|table| table.only_in_b),
            sum(|table| table.changed),
        ),
    }
}
