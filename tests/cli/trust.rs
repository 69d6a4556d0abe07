//! Signed manifests: what somebody who can write to the archive, but has no key, tries with a restore, and what comes of it.

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::sample::{SampleOptions, create};

use crate::support::{Run, Scene};

mod ways;

/// Observations in the database, in its backups, and in what the other one wants to be restored.
const OLDER: u64 = 20;
const NEWER: u64 = 25;
const THEIRS: u64 = 31;

/// A database with two signed backups and a configuration that trusts only such.
struct Signed {
    scene: Scene,
    key: Utf8PathBuf,
    older: Utf8PathBuf,
    newer: Utf8PathBuf,
}

impl Signed {
    fn new() -> Self {
        let scene = Scene::with_rows(OLDER);
        let key = scene.dir.join("keys").join("own.key");
        fs::create_dir(key.parent().unwrap()).unwrap();
        let public = scene.run(&["keygen", key.as_str(), "--json"]).expect(0).json()["public_key"].clone();
        let config = format!("[sign]\nsecret_key = \"keys/own.key\"\n[trust]\npublic_key = {public}\n");
        fs::write(scene.dir.join("engram-restore.toml"), config).unwrap();
        let older = scene.backup();
        scene.replace(NEWER);
        let newer = scene.backup();
        Self { scene, key, older, newer }
    }

    fn archive(&self) -> &Utf8Path {
        self.newer.parent().unwrap()
    }

    /// A complete backup that somebody else has made of other content, in an archive of their own.
    fn theirs(&self, options: &[&str]) -> Utf8PathBuf {
        let elsewhere = self.scene.dir.join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let (db, none) = (elsewhere.join("engram.db"), elsewhere.join("none.toml"));
        create(&db, &SampleOptions { rows: THEIRS, ..SampleOptions::default() }).unwrap();
        fs::write(&none, "").unwrap();
        let arguments = [&["--db", db.as_str(), "--config", none.as_str(), "backup", "--json"], options].concat();
        let backup = crate::support::run(crate::support::bare_command(&elsewhere).args(arguments)).expect(0).json();
        Utf8PathBuf::from(backup["backup"].as_str().unwrap())
    }

    /// Nothing that restores or vouches takes this backup, each with this finding; the database stays as it is.
    #[track_caller]
    fn refused(&self, backup: &Utf8Path, code: &str, words: &str) {
        let before = fs::read(&self.scene.db).unwrap();
        for in_place in [&[][..], &["--in-place"]] {
            for dry_run in [&[][..], &["--dry-run"]] {
                let refused = self.scene.run(&[&["restore", backup.as_str()], in_place, dry_run].concat()).expect(1);
                assert!(refused.stderr.contains(code) && refused.stderr.contains(words), "{refused:?}");
            }
        }
        assert_eq!(fs::read(&self.scene.db).unwrap(), before);
        for how in [&[][..], &["--deep"], &["--subset", "100%"]] {
            let verified = self.scene.run(&[&["verify", backup.as_str(), "--json"], how].concat()).expect(1).json();
            assert_eq!(verified["backups"][0]["findings"][0]["code"], code, "{verified}");
        }
        let drill = self.scene.run(&["drill", "--pick", backup.as_str()]).expect(1);
        assert!(drill.stdout.contains(code), "{drill:?}");
    }

    fn restored(&self, arguments: &[&str]) -> (Run, u64) {
        let run = self.scene.run(&[&["restore"], arguments].concat()).expect(0);
        (run, self.scene.rows())
    }
}

impl Scene {
    /// Another content, as if the daemon had worked.
    fn replace(&self, rows: u64) {
        for suffix in ["", "-wal", "-shm"] {
            fs::remove_file(format!("{}{suffix}", self.db)).unwrap_or_default();
        }
        create(&self.db, &SampleOptions { rows, ..SampleOptions::default() }).unwrap();
    }

    fn rows(&self) -> u64 {
        let connection = rusqlite::Connection::open(&self.db).unwrap();
        connection.query_row("SELECT count(*) FROM observations", [], |row| row.get::<_, u32>(0)).unwrap().into()
    }
}

fn with(path: &Utf8Path, suffix: &str) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{path}{suffix}"))
}

const MANIFEST: &str = ".manifest.json";
const SIGNATURE: &str = ".manifest.json.minisig";

fn copy_all(from: &Utf8Path, to: &Utf8Path, suffixes: &[&str]) {
    for suffix in suffixes {
        fs::copy(with(from, suffix), with(to, suffix)).unwrap();
    }
}

#[test]
fn signed_backup_passes_everywhere_and_is_restored() {
    let signed = Signed::new();
    for how in [&["verify", "--all"][..], &["verify", "--all", "--deep"], &["drill"], &["status"]] {
        signed.scene.run(how).expect(0);
    }
    for way in [&[][..], &["--in-place"]] {
        signed.scene.replace(THEIRS);
        assert_eq!(signed.restored(&[&["latest"], way].concat()).1, NEWER, "{way:?}");
        assert_eq!(signed.restored(&[&[signed.older.as_str()], way].concat()).1, OLDER, "{way:?}");
        assert!(!Scene::names(&signed.scene.dir).iter().any(|name| name.contains("staged")));
    }
    // What a restore in place has kept is found by its record, and is put back.
    signed.scene.run(&["undo", "--in-place"]).expect(0);
    assert_eq!(signed.scene.rows(), NEWER);
}

#[test]
fn changed_database_is_refused() {
    let signed = Signed::new();
    fs::copy(signed.theirs(&[]), &signed.newer).unwrap();
    let refused = signed.scene.run(&["restore", "latest"]).expect(1);
    assert!(refused.stderr.contains("SIZE_MISMATCH") || refused.stderr.contains("HASH_MISMATCH"), "{refused:?}");
    let bytes = fs::read(&signed.older).unwrap();
    let mut changed = bytes;
    let last = changed.len() - 1;
    changed[last] ^= 1;
    fs::write(&signed.older, changed).unwrap();
    signed.refused(&signed.older, "HASH_MISMATCH", "hash");
}

#[test]
fn changed_database_with_a_right_manifest_is_refused() {
    let signed = Signed::new();
    let theirs = signed.theirs(&[]);
    copy_all(&theirs, &signed.newer, &["", MANIFEST]);
    signed.refused(&signed.newer, "SIGNATURE_WRONG", "its signature is wrong");
    // Without trusted keys it would pass.
    let none = signed.scene.dir.join("none.toml");
    fs::write(&none, "").unwrap();
    signed.scene.run(&["--config", none.as_str(), "verify", signed.newer.as_str()]).expect(0);
}

#[test]
fn backup_without_its_signature_is_refused() {
    let signed = Signed::new();
    fs::remove_file(with(&signed.newer, SIGNATURE)).unwrap();
    signed.refused(&signed.newer, "NOT_SIGNED", "it is not signed");
}

#[test]
fn signature_with_another_key_is_refused() {
    let signed = Signed::new();
    let key = signed.scene.dir.join("other.key");
    let elsewhere = signed.scene.dir.join("none.toml");
    fs::write(&elsewhere, "").unwrap();
    signed.scene.run(&["--config", elsewhere.as_str(), "keygen", key.as_str()]).expect(0);
    let theirs = signed.theirs(&["--secret-key", key.as_str()]);
    let planted = signed.archive().join(theirs.file_name().unwrap());
    let planted = Utf8PathBuf::from(planted.as_str().replace("engram-2", "engram-3"));
    copy_all(&theirs, &planted, &["", MANIFEST, SIGNATURE]);
    signed.refused(&planted, "SIGNATURE_WRONG", "which is none of the trusted ones");
}

#[test]
fn signature_of_another_manifest_is_refused() {
    let signed = Signed::new();
    copy_all(&signed.older, &signed.newer, &[SIGNATURE]);
    signed.refused(&signed.newer, "SIGNATURE_WRONG", "its signature is wrong");
}

/// The old content would come back under the newer name: a known fault, say, that was mended since.
#[test]
fn older_backup_under_the_newer_name_is_refused() {
    let signed = Signed::new();
    let aside = signed.archive().join("aside.db");
    let all = ["", MANIFEST, SIGNATURE];
    copy_all(&signed.newer, &aside, &all);
    copy_all(&signed.older, &signed.newer, &all);
    copy_all(&aside, &signed.older, &all);
    let name = |backup: &Utf8Path| format!("it is signed, but for a file named {:?}", backup.file_name().unwrap());
    signed.refused(&signed.newer, "SIGNATURE_WRONG", &name(&signed.older));
    signed.refused(&signed.older, "SIGNATURE_WRONG", &name(&signed.newer));
    signed.refused(&aside, "SIGNATURE_WRONG", &name(&signed.newer));
}

#[test]
fn torn_empty_and_foreign_signatures_are_refused() {
    let signed = Signed::new();
    let path = with(&signed.newer, SIGNATURE);
    let whole = fs::read(&path).unwrap();
    let cases: [(&[u8], &str); 5] = [
        (b"", "its signature is wrong"),
        (&whole[..whole.len() - 20], "its signature is wrong"),
        (b"\xff\xfe\x00 no text", "its signature is wrong"),
        (&[b'x'; 10_000], "its signature is wrong"),
        (&[b'\n'; 4_000], "its signature is wrong"),
    ];
    for (bytes, words) in cases {
        fs::write(&path, bytes).unwrap();
        signed.refused(&signed.newer, "SIGNATURE_WRONG", words);
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    signed.refused(&signed.newer, "SIGNATURE_WRONG", "not a regular file");
    fs::remove_dir(&path).unwrap();
}

#[test]
fn planted_newer_backup_is_not_restored_and_hides_none() {
    let signed = Signed::new();
    let theirs = signed.theirs(&["--path", signed.archive().join("engram-2999-01-01T00-00-00Z.db").as_str()]);
    signed.refused(&theirs, "NOT_SIGNED", "it is not signed");
    signed.scene.replace(THEIRS + 1);
    let (run, rows) = signed.restored(&["latest-good", "--any-source"]);
    assert_eq!(rows, NEWER);
    assert!(run.stderr.contains("passed over") && run.stderr.contains("NOT_SIGNED"), "{run:?}");
}

/// A backup that says that it is the newest of this very database.
fn crowd(signed: &Signed, count: u32) -> Vec<Utf8PathBuf> {
    let none = signed.scene.dir.join("none.toml");
    fs::write(&none, "").unwrap();
    let arguments = ["--config", none.as_str(), "backup", "--json"];
    (0..count).map(|_| signed.scene.run(&arguments).expect(0).json()["backup"].as_str().unwrap().into()).collect()
}

#[test]
fn unsigned_backups_do_not_crowd_signed_ones_out() {
    let signed = Signed::new();
    let crowd = crowd(&signed, 4);
    signed.scene.run(&["status"]).expect(1);
    // Between signed ones too.
    let newest = signed.scene.backup();
    let pruned = signed.scene.run(&["prune", "--keep-last", "3", "--json"]).expect(0).json();
    for backup in [&signed.older, &signed.newer, &newest] {
        assert!(backup.is_file() && with(backup, SIGNATURE).is_file(), "{pruned}");
    }
    // And whose turn it is goes with its signature.
    let pruned = signed.scene.run(&["prune", "--keep-last", "1", "--json"]).expect(0).json();
    assert!(pruned["removed"].as_array().unwrap().contains(&signed.older.as_str().into()), "{pruned}");
    let names = Scene::names(signed.archive());
    assert!(!names.iter().any(|name| name.starts_with(signed.older.file_name().unwrap())), "{names:?}");
    assert!(newest.is_file() && !signed.newer.is_file(), "{crowd:?}");
}

#[test]
fn status_fails_where_the_newest_backup_is_not_signed() {
    let signed = Signed::new();
    signed.scene.run(&["status"]).expect(0);
    crowd(&signed, 1);
    let status = signed.scene.run(&["status"]).expect(1);
    assert!(status.stdout.contains("it is not signed"), "{status:?}");
}

#[test]
fn guard_uses_no_unsigned_backup_again_and_signs_its_own() {
    let signed = Signed::new();
    crowd(&signed, 1);
    let guarded = signed.scene.run(&["guard", "--json", "--", "true"]).expect(0).json();
    assert_eq!(guarded["backup"], signed.newer.as_str(), "the signed one of the same content is used: {guarded}");
    for suffix in ["", MANIFEST, SIGNATURE] {
        fs::remove_file(with(&signed.newer, suffix)).unwrap();
    }
    let guarded = signed.scene.run(&["guard", "--json", "--", "true"]).expect(0).json();
    assert_eq!(guarded["reused"], false);
    signed.scene.run(&["verify", guarded["backup"].as_str().unwrap()]).expect(0);
}

/// It would find out on the day of the failure that nothing can be put back.
#[test]
fn guard_that_could_not_put_back_does_not_begin() {
    let signed = Signed::new();
    let public = with(&signed.key, ".pub");
    fs::write(signed.scene.dir.join("engram-restore.toml"), "").unwrap();
    let marker = signed.scene.dir.join("ran");
    let refused =
        signed.scene.run(&["--public-key", public.as_str(), "guard", "--", "touch", marker.as_str()]).expect(125);
    assert!(
        refused.stderr.contains("only signed backups are trusted, and there is no key to sign one with"),
        "{refused:?}"
    );
    assert!(!marker.exists());
}

#[test]
fn keys_in_the_archive_are_not_used() {
    let signed = Signed::new();
    let public = signed.archive().join("own.pub");
    fs::copy(with(&signed.key, ".pub"), &public).unwrap();
    let secret = signed.archive().join("own.key");
    fs::copy(&signed.key, &secret).unwrap();
    let inside = signed.archive().join("engram-restore.toml");
    fs::copy(signed.scene.dir.join("engram-restore.toml"), &inside).unwrap();
    // Under another name too.
    let link = signed.scene.dir.join("linked.pub");
    std::os::unix::fs::symlink(&public, &link).unwrap();
    for arguments in [
        ["--public-key", public.as_str()],
        ["--public-key", link.as_str()],
        ["--secret-key", secret.as_str()],
        ["--config", inside.as_str()],
    ] {
        let refused = signed.scene.run(&[&arguments[..], &["restore", "latest"]].concat()).expect(2);
        assert!(refused.stderr.contains("whoever can write there could change it"), "{arguments:?}: {refused:?}");
    }
    let refused = signed.scene.run(&["keygen", signed.archive().join("new.key").as_str()]).expect(2);
    assert!(refused.stderr.contains("it lies in the archive"), "{refused:?}");
}

#[test]
fn backup_kept_by_a_restore_in_place_is_put_back_only_as_it_was() {
    let signed = Signed::new();
    signed.scene.run(&["restore", signed.older.as_str(), "--in-place"]).expect(0);
    let kept = Scene::names(signed.archive()).into_iter().rfind(|name| {
        Utf8Path::new(name).extension() == Some("db")
            && ![signed.older.file_name(), signed.newer.file_name()].contains(&Some(name))
    });
    let kept = signed.archive().join(kept.unwrap());
    assert!(with(&kept, SIGNATURE).is_file());
    let theirs = signed.theirs(&[]);
    copy_all(&theirs, &kept, &["", MANIFEST]);
    let refused = signed.scene.run(&["undo", "--in-place"]).expect(1);
    assert!(refused.stderr.contains("it is not the backup that was taken before the last restore"), "{refused:?}");
    assert_eq!(signed.scene.rows(), OLDER);
}

/// The files that were put aside beside the database are out of reach for who can only write to the archive.
#[test]
fn archive_that_changes_while_a_restore_is_interrupted_changes_nothing() {
    let signed = Signed::new();
    let theirs = signed.theirs(&[]);
    for operation in ["link engram.db", "rename engram.db.restore-staged engram.db"] {
        for way in [Scene::kill_before, Scene::kill_after] {
            let twin = Signed::new();
            way(&twin.scene, &["restore", twin.older.as_str()], operation);
            for backup in [&twin.older, &twin.newer] {
                copy_all(&theirs, backup, &["", MANIFEST]);
            }
            twin.scene.run(&["recover"]).expect(0);
            let rows = twin.scene.rows();
            assert!([OLDER, NEWER].contains(&rows), "{operation}: {rows}");
        }
    }
}

#[test]
fn sidecar_beside_a_signed_backup_is_refused() {
    let signed = Signed::new();
    for suffix in ["-wal", "-journal"] {
        let planted = with(&signed.newer, suffix);
        fs::write(&planted, b"replayed by whoever opens it").unwrap();
        signed.refused(&signed.newer, "SIDECAR_PRESENT", suffix);
        fs::remove_file(planted).unwrap();
    }
}

#[test]
fn unsigned_backup_beside_trusted_keys_is_warned_of() {
    let signed = Signed::new();
    let public = with(&signed.key, ".pub");
    fs::write(signed.scene.dir.join("engram-restore.toml"), "").unwrap();
    let taken = signed.scene.run(&["--public-key", public.as_str(), "backup", "--json"]).expect(0).json();
    assert!(taken["warnings"][0].as_str().unwrap().contains("this one is not signed"), "{taken}");
    assert_eq!(taken["signature"], serde_json::Value::Null);
}

#[test]
fn secret_key_that_is_not_trusted_signs_nothing() {
    let signed = Signed::new();
    let other = signed.scene.dir.join("other.key");
    signed.scene.run(&["keygen", other.as_str()]).expect(0);
    let refused = signed.scene.run(&["--secret-key", other.as_str(), "backup"]).expect(2);
    assert!(refused.stderr.contains("its public key is none of the trusted ones"), "{refused:?}");
    // Both, while keys are changed.
    let public = with(&other, ".pub");
    let both = ["--public-key", public.as_str(), "--public-key", &format!("{}.pub", signed.key)].map(str::to_owned);
    let both: Vec<_> = both.iter().map(String::as_str).collect();
    signed.scene.run(&[&both[..], &["--secret-key", other.as_str(), "backup", "--sign"]].concat()).expect(0);
    signed.scene.run(&[&both[..], &["verify", "--all"]].concat()).expect(0);
}

#[test]
fn secret_key_that_cannot_be_used_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let scene = Scene::with_rows(5);
    let key = scene.dir.join("own.key");
    scene.run(&["keygen", key.as_str()]).expect(0);
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o7777, 0o600);
    let again = scene.run(&["keygen", key.as_str()]).expect(2);
    assert!(again.stderr.contains("it is there already"), "{again:?}");
    let use_of = |path: &Utf8Path, status| scene.run(&["--secret-key", path.as_str(), "backup"]).expect(status).stderr;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(use_of(&key, 2).contains("others may use it: its permissions are 0640"));
    assert!(use_of(&scene.dir.join("none.key"), 4).contains("read the secret key"));
    fs::set_permissions(with(&key, ".pub"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(use_of(&with(&key, ".pub"), 2).contains("it is a public key"));
    assert!(use_of(&scene.dir, 5).contains("not a regular file"));
    let text = scene.dir.join("text.key");
    fs::write(&text, "untrusted comment: x\nnothing\n").unwrap();
    fs::set_permissions(&text, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(use_of(&text, 2).contains("it is no secret key of minisign's format"));
    // Made by minisign, with the password "x".
    fs::write(&text, include_str!("trust_data/with_password.key")).unwrap();
    assert!(use_of(&text, 2).contains("it has a password"));
    let unnamed = scene.run(&["backup", "--sign"]).expect(2);
    assert!(unnamed.stderr.contains("cannot sign the backup: no secret key is named"), "{unnamed:?}");
    assert!(!scene.dir.join("backups").exists(), "nothing was begun");
}

#[test]
fn public_key_that_is_none_is_refused() {
    let scene = Scene::with_rows(5);
    scene.backup();
    let use_of = |key: &str, status| scene.run(&["--public-key", key, "verify"]).expect(status).stderr;
    assert!(use_of(&format!("RW{}", "!".repeat(54)), 2).contains("take a public key"));
    assert!(use_of("none.pub", 4).contains("read the public key"));
    fs::write(scene.dir.join("text.pub"), "nothing").unwrap();
    assert!(use_of("text.pub", 2).contains("it is no public key of minisign's format"));
}

/// `minisign` itself has made the key and the signature.
#[test]
fn signature_of_minisign_itself_is_believed() {
    let scene = Scene::empty();
    let folder = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/trust_data");
    let report = folder.join("signed.json");
    let public = folder.join("minisign.pub");
    let checked = scene.run(&["drill", "verify-report", report.as_str(), "--public-key", public.as_str()]).expect(0);
    assert!(checked.stdout.contains("signed with RW"), "{checked:?}");
}

#[test]
fn signed_report_is_verified_and_a_changed_one_is_not() {
    let signed = Signed::new();
    let report = signed.scene.dir.join("report.json");
    signed.scene.run(&["drill", "--sign", "--report", report.as_str()]).expect(0);
    let verify =
        |status| signed.scene.run(&["drill", "verify-report", report.as_str(), "--json"]).expect(status).json();
    let passed = verify(0);
    assert_eq!(passed["reports"][0]["verdict"], "pass");
    assert!(passed["reports"][0]["comment"].as_str().unwrap().contains("file:report.json"), "{passed}");
    // Again, over the older one with its signature.
    signed.scene.run(&["drill", "--sign", "--report", report.as_str()]).expect(0);
    verify(0);
    let text = fs::read_to_string(&report).unwrap();
    fs::write(&report, text.replacen("pass", "fail", 1)).unwrap();
    let failed = verify(1);
    assert!(failed["reports"][0]["problem"].as_str().unwrap().contains("its signature is wrong"), "{failed}");
    fs::remove_file(with(&report, ".minisig")).unwrap();
    assert_eq!(verify(1)["reports"][0]["problem"], "it is not signed");
    fs::remove_file(&report).unwrap();
    signed.scene.run(&["drill", "verify-report", report.as_str()]).expect(4);
    fs::write(signed.scene.dir.join("engram-restore.toml"), "").unwrap();
    let unnamed = signed.scene.run(&["drill", "verify-report", report.as_str()]).expect(2);
    assert!(unnamed.stderr.contains("no public key is named"), "{unnamed:?}");
}

/// What has lain there all the time is somebody's.
#[test]
fn signature_of_a_report_replaces_no_other_file() {
    let signed = Signed::new();
    let report = signed.scene.dir.join("report.json");
    let theirs = with(&report, ".minisig");
    fs::write(&theirs, "somebody's").unwrap();
    let refused = signed.scene.run(&["drill", "--sign", "--report", report.as_str()]).expect(2);
    assert!(refused.stderr.contains("what is there is no signature"), "{refused:?}");
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "somebody's");
}

#[test]
fn adopted_file_is_signed() {
    let signed = Signed::new();
    let theirs = signed.scene.dir.join("copy.db");
    fs::copy(&signed.newer, &theirs).unwrap();
    let adopted = signed.scene.run(&["adopt", theirs.as_str(), "--json"]).expect(0).json();
    assert_eq!(adopted["adopted"][0]["signature"], with(&theirs, SIGNATURE).as_str());
    signed.scene.run(&["verify", theirs.as_str()]).expect(0);
}

#[test]
fn signature_is_published_before_the_manifest() {
    let signed = Signed::new();
    let operations = signed.scene.operations(&["backup"]);
    let published =
        |suffix: &str| operations.iter().position(|line| line.starts_with("rename") && line.ends_with(suffix));
    assert!(published(SIGNATURE).unwrap() < published(MANIFEST).unwrap(), "{operations:#?}");
    // Killed between the two, it is no backup, and its name is not taken by the next.
    let at = operations.iter().position(|line| line.ends_with(SIGNATURE)).unwrap() + 1;
    signed.scene.run(&["fault", "--at", &at.to_string(), "--kill", "--", "backup"]);
    let names = Scene::names(signed.archive());
    assert_eq!(names.iter().filter(|name| name.ends_with(SIGNATURE)).count(), 3, "{names:?}");
    let count = signed.scene.run(&["list", "--json"]).expect(0).json()["backups"].as_array().unwrap().len();
    assert_eq!(count, 2);
    signed.scene.run(&["backup"]).expect(0);
    signed.scene.run(&["verify", "--all"]).expect(0);
}

#[test]
fn keys_are_shown_and_asked_from_the_environment_too() {
    let signed = Signed::new();
    let shown = signed.scene.run(&["config"]).expect(0).stdout;
    assert!(shown.contains("sign.secret_key") && shown.contains("trust.public_key"), "{shown}");
    assert!(!shown.contains(fs::read_to_string(&signed.key).unwrap().lines().nth(1).unwrap()), "no secret is shown");
    fs::write(signed.scene.dir.join("engram-restore.toml"), "").unwrap();
    crowd(&signed, 1);
    let mut command = signed.scene.command(&["verify"]);
    command.env("ENGRAM_RESTORE_PUBLIC_KEY", with(&signed.key, ".pub").as_str());
    let refused = crate::support::run(&mut command).expect(1);
    assert!(refused.stdout.contains("NOT_SIGNED"), "{refused:?}");
    let mut command = signed.scene.command(&["backup"]);
    command.env("ENGRAM_RESTORE_SECRET_KEY", signed.key.as_str());
    let taken = crate::support::run(&mut command).expect(0);
    assert!(taken.stdout.contains("signed: "), "{taken:?}");
}

#[test]
fn show_says_whether_a_backup_is_signed() {
    let signed = Signed::new();
    let shown = signed.scene.run(&["show", "latest", "--json"]).expect(0).json();
    assert_eq!(shown["signature"]["trusted"], true);
    let unsigned = crowd(&signed, 1);
    let shown = signed.scene.run(&["show", unsigned[0].as_str()]).expect(0);
    assert!(shown.stdout.contains("NOT TRUSTED") && shown.stdout.contains("it is not signed"), "{shown:?}");
}
