//! The lock that a daemon holds for its life.

use engram_restore::LiveGuard;

use crate::Scene;
use crate::processes::start;

fn run(scene: &Scene, arguments: &[&str]) -> (Option<i32>, String) {
    let output = start(&mut scene.command(arguments)).wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
}

/// Would catch a lock that a restore by swap does not heed, or that a restore in place does.
#[test]
fn daemon_that_holds_its_lock_is_named_by_a_swap_and_lets_a_restore_in_place_through() {
    let scene = Scene::new();
    assert_eq!(run(&scene, &["backup"]).0, Some(0));
    let live = LiveGuard::new(&scene.db, "engram serve", jiff::Timestamp::now()).unwrap();
    let name = format!("pid {} (engram serve)", std::process::id());
    for arguments in [&["restore", "latest"][..], &["restore", "latest", "--dry-run"]] {
        let (status, text) = run(&scene, arguments);
        assert_eq!(status, Some(3), "{text}");
        assert!(text.contains(&name), "{text}");
    }
    let (_, text) = run(&scene, &["status"]);
    assert!(text.contains(&name), "{text}");
    let (status, text) = run(&scene, &["restore", "latest", "--in-place"]);
    assert_eq!(status, Some(0), "{text}");
    let (status, text) = run(&scene, &["guard", "--json", "--on-failure", "restore", "--", "false"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("\"restored\":\"in-place\""), "{text}");
    drop(live);
    let (status, text) = run(&scene, &["restore", "latest"]);
    assert_eq!(status, Some(0), "{text}");
}
