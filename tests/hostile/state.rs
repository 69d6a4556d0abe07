//! The folder of our own in an archive, with a history that others have written.

use std::fs;

use crate::stage::Stage;

const HISTORIES: [&str; 2] = ["verified", "drills"];

/// What uses it.
const WORDS: [&[&str]; 6] = [
    &["verify", "new.db"],
    &["verify", "--subset", "100", "--seed", "1"],
    &["list"],
    &["status"],
    &["prune", "--dry-run", "--keep-last", "1"],
    &["drill"],
];

fn with_histories(text: impl Fn(&str) -> Vec<u8>, case: &str) {
    let stage = Stage::new();
    fs::create_dir(stage.path("archive/.state")).unwrap();
    for name in HISTORIES {
        fs::write(stage.path(&format!("archive/.state/{name}.json")), text(name)).unwrap();
    }
    stage.assert_answers_of(case, &WORDS);
}

#[test]
fn histories_that_nest_deeply_are_begun_anew() {
    with_histories(|_| [b"[".repeat(1_000_000), b"]".repeat(1_000_000)].concat(), "deep_histories");
}

#[test]
fn histories_that_are_no_text_are_begun_anew() {
    with_histories(|_| vec![0xff; 4096], "histories_of_bytes");
}

/// Would catch a history that is read whole, however long it is.
#[test]
fn histories_longer_than_any_are_not_read() {
    let stage = Stage::new();
    fs::create_dir(stage.path("archive/.state")).unwrap();
    for name in HISTORIES {
        let file = fs::File::create(stage.path(&format!("archive/.state/{name}.json"))).unwrap();
        file.set_len(1 << 40).unwrap();
    }
    stage.assert_answers_of("long_histories", &WORDS);
}
