//! The system refuses: no room, no permission. The restore ends with an error, the database is the old one or the new one, and
//! once there is room or permission again, all works.

use super::killed::{Which, operations, recovered, whole};
use crate::drill::scratch;
use crate::drill::stage::Stage;
use crate::drill::tool::Disturbed;
use crate::error::Result;

const RESTORE: [&str; 2] = ["restore", "latest-good"];

/// So many places at most where the disk becomes full, spread over all.
const MOST_PLACES: u64 = 16;

/// A user who owns nothing (`nobody` on most systems).
const NOBODY: u32 = 65_534;

/// From some operation on nothing can be written any more. And once by the kernel itself, by a limit of the size of files.
pub(super) fn disk_full(stage: &mut Stage<'_>) -> Result<()> {
    let operations = stage.step("count the operations", |stage| {
        let operations = operations(stage)?;
        Ok((operations, format!("{operations} file operations")))
    })?;
    stage.step("the disk is full from one of them on", |stage| {
        let (mut old, mut new, mut refusals) = (0, 0, 0);
        let places = operations.min(MOST_PLACES);
        for place in 0..places {
            let at = place * operations / places;
            let disturbed = Disturbed::FailsFrom(at, "ENOSPC");
            let (is_refused, found) = refused(stage, &disturbed, &format!("full from operation {at} on"))?;
            refusals += u64::from(is_refused);
            match found {
                Some(Which::Old) => old += 1,
                Some(Which::New) => new += 1,
                None => {}
            }
        }
        if refusals == 0 {
            stage.report.unknown.push("no restore met a full disk: each was done".to_owned());
        }
        Ok(((), format!("{places} times; {old} times the old database was there, {new} times the new one")))
    })?;
    stage.step("the kernel refuses to write more", |stage| {
        let kib = scratch::size(&stage.past.newest.path)? / 4096;
        let limit = Disturbed::FileLimit(kib);
        let (is_refused, _found) = refused(stage, &limit, "no file may be larger than a quarter of the database")?;
        if !is_refused {
            stage.report.unknown.push("the kernel let files grow beyond the limit that it was given".to_owned());
        }
        Ok(((), format!("no file may be larger than some {kib} KiB")))
    })?;
    stage.reset()?;
    stage.restore(&["latest-good"])?;
    stage.expect(&stage.past.newest)
}

/// One restore that is to be refused. Says whether it was, and which database is there then.
fn refused(stage: &mut Stage<'_>, disturbed: &Disturbed, when: &str) -> Result<(bool, Option<Which>)> {
    stage.reset()?;
    let run = stage.cast.tool.run_disturbed(&RESTORE, disturbed)?;
    let is_done = run.exit() == Some(0);
    if !is_done && run.json.as_ref().is_none_or(|json| json["error"]["message"].as_str().is_none()) {
        stage.problem(format!("{when}: it does not say what failed"));
    }
    if !is_done && run.exit() != Some(5) {
        stage.problem(format!("{when}: {}, where exit 5 was due", run.ended()));
    }
    let found = whole(stage, when)?;
    if is_done && found == Some(Which::Old) {
        stage.problem(format!("{when}: exit 0, and nothing was restored"));
    }
    let says_changed = run.json.as_ref().and_then(|json| json["error"]["target_changed"].as_bool());
    if !is_done && says_changed == Some(false) && found == Some(Which::New) {
        stage.problem(format!("{when}: it says that nothing was changed, and the new database is there"));
    }
    recovered(stage, when)?;
    Ok((!is_done, found))
}

/// The folder of the database cannot be written to.
pub(super) fn permission_lost(stage: &mut Stage<'_>) -> Result<()> {
    let disturbed = if rustix::process::geteuid().is_root() {
        // Permissions do not bind root, so another user tries.
        stage.step("hand it to another user", |stage| {
            stage.give_to(NOBODY)?;
            Ok(((), format!("user {NOBODY}")))
        })?;
        Disturbed::As(NOBODY)
    } else {
        Disturbed::No
    };
    stage.disaster("take the right to write away", |stage| {
        scratch::set_mode(&stage.folder, 0o555)?;
        Ok(format!("{} has mode 0555", stage.folder))
    })?;
    let run = stage.run_disturbed("restore", &RESTORE, &disturbed, 5)?;
    if run.json.as_ref().is_some_and(|json| json["error"]["target_changed"] == true) {
        stage.problem("the program says that it has changed the database");
    }
    whole_and_old(stage, "without the right to write")?;
    stage.step("give the right to write back", |stage| {
        scratch::set_mode(&stage.folder, 0o755)?;
        Ok(((), "mode 0755".to_owned()))
    })?;
    let before = stage.copy_aside("before")?;
    let run = stage.run_disturbed("restore again", &RESTORE, &disturbed, 0)?;
    stage.report.backup = run.path("backup");
    stage.report.rto = Some(run.rto());
    stage.expect_kept(&before, &run)?;
    stage.expect(&stage.past.newest)
}

fn whole_and_old(stage: &mut Stage<'_>, when: &str) -> Result<()> {
    if whole(stage, when)? == Some(Which::New) {
        stage.problem(format!("{when}: the new database is there"));
    }
    Ok(())
}
