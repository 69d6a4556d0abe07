//! A file system that can share blocks, on a loop device of its own.

use std::process::{Command, Stdio};

use camino::{Utf8Path, Utf8PathBuf};

use super::text;
use crate::content::content;
use crate::processes::start;
use crate::support::Scene;

/// The smallest that both take.
const DISK_BYTES: u64 = 320 << 20;

/// Makes them and says what is needed for that.
const KINDS: [(&str, &str); 2] = [("mkfs.xfs", "xfs"), ("mkfs.btrfs", "btrfs")];

/// Unmounted in the end.
struct Mounted(Utf8PathBuf);

impl Mounted {
    /// `None`, with the reason printed, where there is no such thing.
    fn new(scene: &Scene, make: &str, kind: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root may mount a file system");
            return None;
        }
        let (disk, folder) = (scene.dir.join(format!("{kind}.img")), scene.dir.join(kind));
        std::fs::File::create(&disk).unwrap().set_len(DISK_BYTES).unwrap();
        std::fs::create_dir(&folder).unwrap();
        if !succeeds(Command::new(make).args(["-q", disk.as_str()])) {
            println!("skipped: there is no {make}");
            return None;
        }
        if !succeeds(Command::new("mount").args(["-t", kind, "-o", "loop", disk.as_str(), folder.as_str()])) {
            println!("skipped: {kind} cannot be mounted here");
            return None;
        }
        Some(Self(folder))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = succeeds(Command::new("umount").args(["-l", self.0.as_str()]));
        assert!(unmounted || std::thread::panicking());
    }
}

/// Also `false` where there is no such program.
fn succeeds(command: &mut Command) -> bool {
    let path = "/usr/sbin:/usr/bin:/sbin:/bin";
    let exists = path.split(':').any(|dir| Utf8Path::new(dir).join(command.get_program().to_str().unwrap()).exists());
    exists && start(command.env("PATH", path).stdout(Stdio::null()).stderr(Stdio::null())).wait().unwrap().success()
}

/// Would catch a restore that copies byte by byte where blocks can be shared.
#[test]
fn blocks_are_shared_where_that_can_be() {
    for (make, kind) in KINDS {
        let scene = Scene::with_rows(1_000);
        let expected = content(&scene.db);
        let Some(mounted) = Mounted::new(&scene, make, kind) else { continue };
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
