//! A rule that never fires protects nothing, and one that fires on good code is soon switched off.

use super::*;

/// A rule's name, a place that breaks it, the same in its home, and code that only looks like it.
const EXAMPLES: &[(&str, &str, &str, &str)] = &[
    ("rusqlite", "use rusqlite::Connection;", "src/sqlite/open.rs", "use crate::sqlite::open; // not rusqlite"),
    ("file locks", "fs2::FileExt::unlock(&file)?;", "src/lock.rs", "let fs20 = ufs2;"),
    ("printing", "    println!(\"done\");", "src/cli/verify.rs", "writeln!(text, \"println!\")?;"),
    ("printing", "let out = std::io::stdout();", "src/main.rs", "command.stdout(Stdio::null());"),
    ("changing files", "std::fs::rename(a, b)?;", "src/storage/real.rs", "let text = std::fs::read(a)?;"),
    ("changing files", "use std::fs::{self, File, remove_file};", "src/storage/real.rs", "use std::fs::{self, File};"),
    ("changing files", "use std::{\n    fs::{\n        write,\n    },\n};", "src/sample/mod.rs", "port.write(at)?;"),
    ("changing files", "rustix::fs::renameat_with(a, b)?;", "src/storage/real.rs", "rustix::fs::statfs(a)?;"),
    ("changing files", "fs::fdatasync(&file)?;", "src/storage/real.rs", "port.sync_folder(at)?;"),
    ("changing files", "file.sync_all()?;", "src/storage/real.rs", "fs::copy_of(a);"),
    ("opening for writing", "let file = File::create_new(path)?;", "src/lock.rs", "let file = File::open(path)?;"),
    ("opening for writing", "OpenOptions::new().write(true)", "src/lock.rs", "OpenOptions::new().read(true)"),
    ("opening for writing", "open(a, OFlags::RDWR, mode)", "src/storage/real.rs", "open(a, OFlags::RDONLY, mode)"),
    ("unsafe", "unsafe { call() }", "src/holders/probes.rs", "#[allow(unsafe_code, reason = \"unsafe here\")]"),
];

fn fired(path: &str, text: &str) -> Vec<(usize, String)> {
    broken_rules(path, text).into_iter().map(|violation| (violation.line, violation.what)).collect()
}

#[test]
fn each_rule_fires_on_a_bad_line_only_outside_its_home() {
    for (rule, bad, home, good) in EXAMPLES {
        let hits = fired("src/backup/plan.rs", &format!("\n{bad}\n"));
        assert_eq!(hits.len(), 1, "{bad}: {hits:?}");
        assert!(hits[0].0 >= 2 && hits[0].1.starts_with(rule), "{bad}: {hits:?}");
        assert!(fired(home, bad).is_empty(), "{bad} in {home}");
        assert!(fired("src/backup/plan.rs", good).is_empty(), "{good}: {:?}", fired("src/backup/plan.rs", good));
    }
    for rule in RULES {
        assert!(EXAMPLES.iter().any(|(name, ..)| *name == rule.name), "no example for {}", rule.name);
    }
}

#[test]
fn tests_are_free_of_the_rules_that_only_bind_the_product() {
    for (rule, bad, ..) in EXAMPLES {
        let may = RULES.iter().any(|known| known.name == *rule && known.tests_may);
        let inside = format!("#[cfg(test)]\nmod tests {{\n{bad}\n}}\n");
        assert_eq!(fired("src/backup/plan.rs", &inside).is_empty(), may, "{bad}");
        assert_eq!(fired("src/backup/tests.rs", bad).is_empty(), may, "{bad}");
    }
}

#[test]
fn a_hit_names_its_line() {
    let hits = fired("src/backup/plan.rs", "/* rusqlite\n */\nuse std::fmt;\nuse rusqlite as db;\n");
    assert_eq!(hits.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [4]);
}

#[test]
fn a_long_file_fails() {
    assert!(too_long(MOST_LINES).is_none());
    assert!(too_long(MOST_LINES + 1).is_some());
}

#[test]
fn a_room_without_a_row_is_missed() {
    let paths = ["src/lib.rs", "src/lock.rs", "src/backup/mod.rs", "src/drill/render/html.rs"].map(Utf8PathBuf::from);
    let map = "| `src/lib.rs` | | `src/drill/` | | `src/backup/mod.rs` |";
    assert_eq!(missing_rooms(&paths, map), ["src/drill/render/", "src/lock.rs"]);
}
