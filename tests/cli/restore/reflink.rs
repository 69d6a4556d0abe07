//! A file system that can share blocks, on a loop device of its own.

use super::text;
use crate::content::content;
use crate::mounts::Mounted;
use crate::support::Scene;

/// Makes them and says what is needed for that.
const KINDS: [(&str, &str); 2] = [("mkfs.xfs", "xfs"), ("mkfs.btrfs", "btrfs")];

/// Would catch a restore that copies byte by byte where blocks can be shared.
#[test]
fn blocks_are_shared_where_that_can_be() {
    for (make, kind) in KINDS {
        let scene = Scene::with_rows(1_000);
        let expected = content(&scene.db);
        let Some(mounted) = Mounted::disk(&scene.dir, make, kind) else { continue };
        let db = mounted.0.join("engram.db");
        std::fs::copy(scene.backup(), &db).unwrap();
        let here = |arguments: &[&str]| {
            let mut command = crate::support::bare_command(&mounted.0);
            crate::support::run(command.args(["--db", db.as_str(), "-vv", "--json"]).args(arguments)).expect(0)
        };
        here(&["backup"]);
        let run = here(&["restore", "latest"]);
        let staged = format!("{db}.restore-staged");
        let operations: Vec<_> = run.stderr.lines().filter(|line| line.contains(&staged)).collect();
        let is = |what: &str| operations.iter().filter(|line| line.contains(&format!("DEBUG {what} {staged}"))).count();
        assert_eq!((is("reflink"), is("write"), is("allocate")), (1, 1, 0), "{kind}: {operations:#?}");
        assert_eq!(text(&run.json(), "db"), db);
        assert_eq!(content(&db), expected, "{kind}");
    }
}
