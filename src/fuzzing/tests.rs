//! The kept inputs of every target, and where they begin.

use jiff::Timestamp;

use super::*;
use crate::archive::{Closeness, History, Verification, Verified, encode_history};
use crate::digest::ChunkSet;
use crate::findings::Verdict;
use crate::header::JournalMode;
use crate::manifest::Hex32;
use crate::recover::{ContentFile, GuardRecord, InPlaceRecord, MainRecord, NewRecord, OldRecord, Record};

#[path = "../../tests/shared/corpus.rs"]
mod corpus;

/// Would catch a bug that was found once, where its input was kept, and whatever else these inputs reach in a debug build.
mod kept_inputs_of {
    use super::corpus;

    macro_rules! targets {
        ($($name:ident),*) => {
            $(#[test] fn $name() { corpus::run(stringify!($name), super::super::$name); })*
        };
    }
    targets!(manifest, intent, state, names, signature, pages, wal, check, adopt, assertion);
}

fn at() -> Timestamp {
    "2026-11-22T05:30:00.123Z".parse().unwrap()
}

fn records() -> [String; 3] {
    let hash = Hex32([7; 32]);
    let new = NewRecord { name: "engram-2026-11-22T05-30-00Z.db".to_owned(), size_bytes: 8192, blake3: hash };
    let old = OldRecord {
        journal_mode: Some(JournalMode::Wal),
        openable: false,
        sidecars: vec!["-wal".to_owned()],
        copied: true,
        main: Some(MainRecord { size_bytes: 4096, blake3: hash }),
    };
    let file = |path: &str| ContentFile { path: path.into(), blake3: hash, schema: hash, content: hash };
    let in_place = InPlaceRecord::new(at(), file("backups/a.db"), file("backups/b.db"), 7, Some(at()));
    let guard = GuardRecord::new(at(), "engram dream".to_owned(), "/srv/a.db".into(), Some("/etc/a.toml".into()));
    [
        Record::new(at(), new, Some(old), Some(".2026-11-21T05-30-00Z".to_owned())).encode().unwrap(),
        in_place.encode().unwrap(),
        guard.encode().unwrap(),
    ]
}

fn history() -> Vec<u8> {
    let mut history = History::default();
    let mut sound = ChunkSet::default();
    sound.insert(3);
    for (depth, verdict, sound) in [
        (Closeness::Deep, Verdict::Pass, None),
        (Closeness::Hash, Verdict::Fail, None),
        (Closeness::Subset, Verdict::Pass, Some((sound, 9))),
    ] {
        let look = Verification { at: at(), depth, verdict };
        history.note(&Verified { backup: "/srv/engram-1.db".into(), blake3: Hex32([7; 32]), look, sound });
    }
    encode_history(history, "verified.json".into()).unwrap()
}

/// A sealed text without its checksum, under which fuzzing puts it again.
fn unsealed(text: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(text).unwrap();
    let (json, _checksum) = text.rsplit_once(",\n  \"").unwrap();
    format!("{json}\n}}").into_bytes()
}

const DRILLS: &str = r#"{"format":"engram-restore-drills","version":1,"drills":[{"database":"/srv/engram.db","kind":"sample",
        "started_at":"2026-11-22T05:30:00Z","verdict":"pass","rto_us":7,"rpo_ms":null}]}"#;

/// Of a key that signs nothing.
const SECRET: &str = "untrusted comment: secret\nRWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAeeMl4zgYWS7NfGfPvpnQjaRtczIdpRcfh/aLmlQtrmDikLnWrTyRWuLLE6VzN0eqYIToZ0iJHGjLELGjRIRNFx5ZDBj2QwMUqs439+V/1QkMEJpjoySnjUgO2qp71+vwqhkH7DsV880=\n";
const PUBLIC: &str = "RWSOtKmwwtCrMQCIRfrKMxgZZcSrmg1UmCgVF19/nPbTzCBd29lw+Cve";

/// Where fuzzing begins; what it then finds is added to that.
fn beginnings() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let format = |version: &str| {
        let folder = std::path::Path::new("tests/formats").join(version);
        let mut files = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
        std::fs::read(files.find(|path| path.extension().is_some_and(|end| end == "json")).unwrap()).unwrap()
    };
    let both = |texts: Vec<Vec<u8>>| texts.iter().map(|text| unsealed(text)).chain(texts.clone()).collect();
    let bytes = |text: &str| text.as_bytes().to_vec();
    // Each seed as it is, and with some damages.
    let databases = || {
        (0..=u8::try_from(databases::seeds().len()).unwrap()).flat_map(|seed| {
            let damages = (0..24_u8).map(move |byte| byte.wrapping_mul(37).wrapping_add(seed));
            [vec![seed], std::iter::once(seed).chain(damages).collect()]
        })
    };
    let file = std::fs::read(std::path::Path::new("tests/formats/1.1/engram-2026-11-22T17-24-49Z.db")).unwrap();
    let raw = [&[u8::try_from(databases::seeds().len()).unwrap()][..], &file[..4096]].concat();
    let adoptions = (0..3_u8).cycle().zip(databases()).map(|(placement, rest)| [vec![placement], rest].concat());
    vec![
        (
            "manifest",
            both(vec![
                format("1.0"),
                format("1.1"),
                crate::manifest::encode(&crate::manifest::tests::small()).unwrap().into(),
            ]),
        ),
        ("intent", both(records().map(String::into_bytes).to_vec())),
        ("state", vec![history(), bytes(DRILLS)]),
        (
            "names",
            vec![
                bytes("engram-2026-11-22T05-30-00Z.db"),
                bytes("2026-11-22T05-30-00Z-2"),
                bytes(".engram-restore-a.partial-wal"),
            ],
        ),
        ("signature", vec![bytes(signatures::SIGNATURE), bytes(signatures::KEY), bytes(SECRET), bytes(PUBLIC)]),
        ("pages", databases().chain([raw.clone()]).collect()),
        ("check", databases().chain([raw]).collect()),
        ("wal", databases().chain([file[..100].to_vec()]).collect()),
        ("adopt", adoptions.collect()),
        (
            "assertion",
            vec![
                bytes("SELECT count(*) FROM plain\0>= 1"),
                bytes(
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 9) SELECT max(i) FROM n\0= 9",
                ),
                bytes("SELECT group_concat(name || ifnull(sql, 1), x'00') FROM sqlite_schema\0!= ok"),
                bytes("PRAGMA user_version\0 0"),
            ],
        ),
    ]
}

/// `cargo test --lib fuzzing::tests::write_beginnings -- --ignored`: for a new target, or one whose inputs mean something else.
#[test]
#[ignore = "it writes the corpora"]
fn write_beginnings() {
    for (target, inputs) in beginnings() {
        let folder = std::path::Path::new("fuzz/corpus").join(target);
        std::fs::create_dir_all(&folder).unwrap();
        for input in inputs {
            std::fs::write(folder.join(format!("beginning-{}", &blake3::hash(&input).to_hex()[..16])), input).unwrap();
        }
    }
}

/// Would catch a `check` that proves nothing, because nothing passes, or everything does.
#[test]
fn seeds_pass_and_damages_do_not_all_fail() {
    for seed in databases::seeds().iter().filter(|seed| seed.suffix.is_empty()) {
        assert_eq!(databases::check_bytes(&seed.main), Verdict::Pass);
    }
    let mut random = Random(1);
    let mut verdicts = Vec::new();
    for _ in 0..60 {
        let input: Vec<_> = (0..12).map(|_| random.next().to_le_bytes()[0]).collect();
        verdicts.push(databases::check_bytes(&databases::database(&mut Choices::new(&input))));
    }
    let count = |verdict| verdicts.iter().filter(|other| **other == verdict).count();
    assert!(count(Verdict::Pass) >= 5 && count(Verdict::Fail) >= 15, "{verdicts:?}");
}

/// Would catch a corpus that never comes beyond the checksum, or a seed that is none.
#[test]
fn beginnings_are_what_they_should_be() {
    for (target, inputs) in beginnings() {
        assert!(!inputs.is_empty(), "{target}");
    }
    crate::drill::parse_history(DRILLS.as_bytes(), "drills.json".into()).unwrap();
    let [intent, in_place, guard] = records();
    Record::parse(intent.as_bytes()).unwrap();
    InPlaceRecord::parse(in_place.as_bytes()).unwrap();
    GuardRecord::parse(guard.as_bytes()).unwrap();
    for text in records() {
        // Without its checksum it gets that very one again.
        let json = unsealed(text.as_bytes());
        assert!(texts::KEYS.iter().any(|key| texts::sealed(&json, key).as_ref() == Some(&text)));
    }
}
