use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A manifest as a backup would write it, with whatever a property test varies.
fn manifest(size_bytes: u64, label: Option<String>, rows: Vec<(String, Option<u64>)>) -> Manifest {
    let count = size_bytes.div_ceil(chunk_size_bytes(size_bytes));
    let chunks: Vec<[u8; 32]> =
        if count < 2 { Vec::new() } else { (0..count).map(|i| *blake3::hash(&i.to_le_bytes()).as_bytes()).collect() };
    let blake3 = crate::digest::merge_chunks(&chunks, size_bytes).unwrap_or_else(|| blake3::hash(b"x"));
    let digest = Digest { size_bytes, blake3, chunks };
    let hash = |rows: u64| Hex32(*blake3::hash(&rows.to_le_bytes()).as_bytes());
    let tables: BTreeMap<_, _> = rows.into_iter().collect();
    let tables = tables.into_iter().map(|(name, rows)| TableContent { name, rows, blake3: rows.map(hash) }).collect();
    let content = Content { schema: Some(hash(size_bytes)), tables };
    Manifest {
        format: FORMAT.to_owned(),
        version: VERSION,
        requires: Vec::new(),
        tool: "engram-restore 0.1.0".to_owned(),
        created_at: "2026-11-22T05:30:00.123456Z".parse().unwrap(),
        engine: "online".to_owned(),
        label,
        file: FileRecord::new("engram-2026-11-22T05-30-00Z.db", &digest),
        integrity_check: IntegrityRecord {
            rows: vec!["ok".to_owned()],
            truncated: false,
            error: None,
            sqlite_version: "3.54.1".to_owned(),
            duration_ms: 12,
        },
        database: DatabaseRecord {
            page_size: 4096,
            page_count: size_bytes / 4096,
            journal_mode: JournalMode::Wal,
            user_version: -1,
            application_id: 7,
            schema_version: 9,
            encoding: "UTF-8".to_owned(),
            auto_vacuum: 0,
            change_counter: 4,
            writer_version: "3.54.1".to_owned(),
        },
        fingerprint: Some(FingerprintRecord::new(&content)),
        tables: content.tables,
        source: SourceRecord {
            path: "/srv/engram/engram.db".into(),
            host: "host".to_owned(),
            uid: 1000,
            gid: 1000,
            mode: 0o644,
        },
    }
}

/// A manifest of a small file.
pub(crate) fn small() -> Manifest {
    manifest(8192, None, vec![("t".to_owned(), Some(3))])
}

/// The text with a right checksum over whatever `edit` made of the JSON.
fn forged(edit: impl FnOnce(&mut serde_json::Value)) -> String {
    let mut tree = serde_json::to_value(small()).unwrap();
    edit(&mut tree);
    sealed(&serde_json::to_string_pretty(&tree).unwrap())
}

fn sealed(json: &str) -> String {
    let covered = json.strip_suffix("\n}").unwrap();
    format!("{covered},\n  \"manifest_blake3\": \"{}\"\n}}\n", blake3::hash(covered.as_bytes()).to_hex())
}

fn refusal(text: &str) -> String {
    let error = parse(text.as_bytes()).unwrap_err();
    let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{source}")
}

#[test]
fn the_checksum_is_defined_over_every_byte_before_it() {
    let text = encode(&small()).unwrap();
    let at = text.find(",\n  \"manifest_blake3\"").unwrap();
    assert!(text[at..].contains(blake3::hash(&text.as_bytes()[..at]).to_hex().as_str()));
    assert!(text.ends_with("\"\n}\n"));
}

#[test]
fn an_unknown_key_is_refused_in_this_version_and_read_over_in_a_newer_minor_one() {
    let text = forged(|tree| tree["extra"] = 1.into());
    assert!(refusal(&text).contains("unknown key, \"extra\""), "{}", refusal(&text));
    let newer = forged(|tree| {
        tree["version"]["minor"] = 9.into();
        tree["extra"] = 1.into();
        tree["file"]["extra"] = 1.into();
    });
    assert_eq!(parse(newer.as_bytes()).unwrap().file, small().file);
}

/// Would catch an example that a reader built after it would take for a wrong one.
#[test]
fn the_example_of_the_documentation_is_read() {
    let docs = include_str!("../../docs/manifest.md");
    let example = docs.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let manifest = parse(example.as_bytes()).unwrap();
    assert_eq!((manifest.version, manifest.tables.len()), (VERSION, 13));
}

/// What 1.1 adds is unknown to 1.0 and necessary from then on. Would catch a manifest of one version that is read as one
/// of another.
#[test]
fn each_version_has_its_own_keys() {
    let old = |tree: &mut serde_json::Value| {
        tree["version"]["minor"] = 0.into();
        tree.as_object_mut().unwrap().remove("fingerprint");
        tree["tables"][0].as_object_mut().unwrap().remove("blake3");
    };
    let read = parse(forged(old).as_bytes()).unwrap();
    assert_eq!((read.fingerprint, read.tables[0].rows, read.tables[0].blake3), (None, Some(3), None));
    for (minor, key) in [(1, "fingerprint"), (9, "fingerprint"), (1, "blake3"), (9, "blake3"), (9, "label")] {
        let text = forged(|tree| {
            tree["version"]["minor"] = minor.into();
            tree.as_object_mut().unwrap().remove(key);
            tree["tables"][0].as_object_mut().unwrap().remove(key);
        });
        assert!(refusal(&text).contains(&format!("the key {key:?} is missing")), "{minor}: {}", refusal(&text));
    }
    for (at, key) in [("", "fingerprint"), ("/tables/0", "blake3")] {
        let text = forged(|tree| {
            old(tree);
            tree.pointer_mut(at).unwrap()[key] = serde_json::Value::Null;
        });
        assert!(refusal(&text).contains(&format!("unknown key, {key:?}")), "{}", refusal(&text));
    }
}

/// Would catch a fingerprint that says something else than the tables beside it.
#[test]
fn a_fingerprint_that_disagrees_with_its_parts_is_refused() {
    let hash = "0".repeat(64);
    let refused = |edit: &dyn Fn(&mut serde_json::Value), why: &str| {
        let text = forged(|tree| edit(tree));
        assert!(refusal(&text).contains(why), "{}", refusal(&text));
    };
    let merge = "do not merge into its fingerprint";
    refused(&|tree| tree["fingerprint"]["whole"] = hash.as_str().into(), merge);
    refused(&|tree| tree["fingerprint"]["whole"] = serde_json::Value::Null, merge);
    refused(&|tree| tree["fingerprint"]["schema"] = hash.as_str().into(), merge);
    refused(&|tree| tree["fingerprint"]["schema"] = serde_json::Value::Null, merge);
    refused(&|tree| tree["tables"][0]["blake3"] = hash.as_str().into(), merge);
    refused(&|tree| tree["tables"][0]["rows"] = 4.into(), merge);
    refused(&|tree| tree["tables"][0]["name"] = "u".into(), merge);
    refused(&|tree| tree["tables"][0]["rows"] = serde_json::Value::Null, "only one of rows and hash");
    refused(&|tree| tree["tables"][0]["blake3"] = serde_json::Value::Null, "only one of rows and hash");
    refused(&|tree| tree["fingerprint"] = serde_json::Value::Null, "it has no fingerprint");
    refused(&|tree| tree["fingerprint"]["version"] = 2.into(), "a version that never was");
    let twice = |tree: &mut serde_json::Value| {
        let first = tree["tables"][0].clone();
        tree["tables"].as_array_mut().unwrap().push(first);
    };
    refused(&twice, "not in the order of their names");

    // What a later version hashes is its own affair.
    let later = forged(|tree| {
        tree["version"]["minor"] = 9.into();
        tree["fingerprint"] = serde_json::json!({ "version": 2, "schema": null, "whole": hash, "rows": 3 });
    });
    assert_eq!(parse(later.as_bytes()).unwrap().fingerprint.map(|fingerprint| fingerprint.version), Some(2));
}

#[test]
fn a_newer_major_version_is_refused_with_what_to_do() {
    let text = forged(|tree| tree["version"]["major"] = 2.into());
    let message = refusal(&text);
    assert!(message.contains("format version 2") && message.contains("newer engram-restore"), "{message}");
}

#[test]
fn an_unknown_required_feature_is_refused_even_in_a_newer_minor_version() {
    let text = forged(|tree| {
        tree["version"]["minor"] = 9.into();
        tree["requires"] = serde_json::json!(["compression"]);
    });
    assert!(refusal(&text).contains("requires \"compression\""), "{}", refusal(&text));
}

#[test]
fn a_doubled_key_is_refused() {
    let json = serde_json::to_string_pretty(&small()).unwrap();
    let doubled = json.replacen("\"engine\"", "\"engine\": \"other\",\n  \"engine\"", 1);
    assert!(refusal(&sealed(&doubled)).contains("duplicate field"));
    let nested = json.replacen("\"uid\"", "\"uid\": 0,\n    \"uid\"", 1);
    assert!(refusal(&sealed(&nested)).contains("duplicate field"));
}

#[test]
fn a_missing_key_is_refused_even_if_its_value_could_be_null() {
    let text = forged(|tree| {
        tree.as_object_mut().unwrap().remove("label");
    });
    assert!(refusal(&text).contains("\"label\" is missing"), "{}", refusal(&text));
}

#[test]
fn a_name_that_leaves_the_folder_is_refused() {
    for name in ["../engram.db", "/etc/passwd", "a\\b", "..", ".", "", "a\0b"] {
        let text = forged(|tree| tree["file"]["name"] = name.into());
        assert!(refusal(&text).contains("not a plain name"), "{name:?}: {}", refusal(&text));
    }
}

/// The number that chown takes for "leave it": a restore as root would keep root's ownership without a word.
#[test]
fn an_owner_that_is_nobody_is_refused() {
    for field in ["uid", "gid"] {
        let text = forged(|tree| tree["source"][field] = u32::MAX.into());
        assert!(refusal(&text).contains("no user or group"), "{field}: {}", refusal(&text));
    }
}

#[test]
fn a_chunk_list_that_disagrees_with_the_hash_is_refused() {
    let mut wrong = manifest(3 << 20, None, Vec::new());
    wrong.file.chunks[1].0[0] ^= 1;
    let text = sealed(&serde_json::to_string_pretty(&wrong).unwrap());
    assert!(refusal(&text).contains("does not merge into its hash"), "{}", refusal(&text));
    wrong.file.chunks.pop();
    let text = sealed(&serde_json::to_string_pretty(&wrong).unwrap());
    assert!(refusal(&text).contains("chunk list has not the right length"), "{}", refusal(&text));
}

#[test]
fn a_text_over_the_limit_is_refused_unread() {
    let error = parse(&vec![b' '; MAX_MANIFEST_BYTES + 1]).unwrap_err();
    assert!(matches!(error, ManifestError::TooLarge));
}

#[test]
fn deep_nesting_is_refused_without_overflowing_the_stack() {
    let json = format!("{{\"format\": {}1{}\n}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(refusal(&sealed(&json)).contains("recursion"), "{}", refusal(&sealed(&json)));
}

prop_compose! {
    fn any_manifest()(
        size in prop_oneof![1_u64..3_000_000, 1_u64..10_000_000_000],
        label in proptest::option::of(".{0,20}"),
        tables in proptest::collection::vec((".{0,12}", proptest::option::of(0_u64..1 << 53)), 0..6),
        rows in proptest::collection::vec(".{0,30}", 1..4),
        mode in 0_u32..0o10000,
        nanos in 0_i32..999_999_999,
    ) -> Manifest {
        let mut any = manifest(size, label, tables);
        any.integrity_check.rows = rows;
        any.source.mode = mode;
        any.created_at = Timestamp::new(1_700_000_000, nanos).unwrap();
        any
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_written_is_read_back(any in any_manifest()) {
        let text = encode(&any).unwrap();
        prop_assert_eq!(parse(text.as_bytes()).unwrap(), any);
    }

    #[test]
    fn an_edited_manifest_is_refused(any in any_manifest(), at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let mut bytes = encode(&any).unwrap().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(parse(&bytes).is_err());
    }

    #[test]
    fn a_cut_or_grown_manifest_is_refused(any in any_manifest(), at in any::<prop::sample::Index>(), more in "[ -~\n]{1,8}") {
        let text = encode(&any).unwrap();
        prop_assert!(parse(&text.as_bytes()[..at.index(text.len())]).is_err());
        prop_assert!(parse(&text.as_bytes()[at.index(text.len() - 1) + 1..]).is_err());
        let grown = text + &more;
        prop_assert!(parse(grown.as_bytes()).is_err());
    }

    #[test]
    fn a_splice_of_two_manifests_is_refused(one in any_manifest(), other in any_manifest(), at in any::<prop::sample::Index>()) {
        let (one, other) = (encode(&one).unwrap(), encode(&other).unwrap());
        let at = at.index(one.len().min(other.len()));
        let spliced = [&one.as_bytes()[..at], &other.as_bytes()[at..]].concat();
        let is_one_of_them = spliced == one.as_bytes() || spliced == other.as_bytes();
        prop_assert_eq!(parse(&spliced).is_ok(), is_one_of_them);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(parse(&bytes).is_err());
    }

    #[test]
    fn arbitrary_json_with_a_right_checksum_never_panics(key in ".{0,10}", value in ".{0,40}") {
        let json = serde_json::to_string_pretty(&serde_json::json!({ "format": value, key: [1, null] })).unwrap();
        prop_assert!(parse(sealed(&json).as_bytes()).is_err());
    }
}
