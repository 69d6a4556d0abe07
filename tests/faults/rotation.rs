//! A rotation that fails half way, where the earlier kept database has a WAL of its own.

use std::fs;

use camino::Utf8Path;
use engram_restore::storage::Storage;

use super::{GARBAGE, GARBAGE_WAL, Old, Stage, Template, sweep};
use crate::content::with_suffix;

/// Every file whose name says that it is a WAL, with what it lies beside.
fn wals(stage: &Stage) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let paths = stage.beside("").into_iter().filter(|path| path.as_str().ends_with("-wal"));
    let main = |path: &Utf8Path| fs::read(path.as_str().strip_suffix("-wal").unwrap()).ok();
    paths.map(|path| (fs::read(&path).unwrap(), main(&path))).collect()
}

fn check(stage: &Stage, when: &str, wrong: &mut Vec<String>) {
    let wals = wals(stage);
    let Some((_, main)) = wals.iter().find(|(wal, _)| *wal == GARBAGE_WAL) else {
        wrong.push(format!("{when}: the earlier database's WAL is gone: {:?}", stage.names("")));
        return;
    };
    // Beside nothing it harms nobody; beside another database SQLite would replay it.
    if main.as_deref().is_some_and(|main| *main != GARBAGE) {
        wrong.push(format!("{when}: the earlier database's WAL lies beside another database: {:?}", stage.names("")));
    }
}

/// The first restore kept an unopenable database with its WAL; the second one's rotation moves both on.
#[test]
fn failed_rotation_neither_loses_nor_mixes_the_wal_of_an_earlier_database() {
    let stage = Template::new(Old::Unopenable).stage();
    stage.restore(&Storage::new()).unwrap();
    assert_eq!(fs::read(stage.db.as_str().to_owned() + ".pre-restore-wal").unwrap(), GARBAGE_WAL);
    let template = stage.into_template();
    sweep(|storage, _| {
        let stage = template.stage();
        let result = stage.restore(storage);
        let mut wrong = Vec::new();
        check(&stage, "after the failure", &mut wrong);
        if result.is_err() {
            let rerun = stage.restore(&Storage::new()).map_err(|e| stage.plain(&e.message()));
            check(&stage, &format!("after the rerun ({rerun:?})"), &mut wrong);
        }
        (result.is_ok(), wrong)
    });
}

/// The same, with a second unopenable database on its way into the first one's place.
#[test]
fn failed_rotation_keeps_the_wals_of_two_unopenable_databases() {
    const SECOND: [u8; 4096] = [0x66; 4096];
    const SECOND_WAL: [u8; 6000] = [0x77; 6000];
    let stage = Template::new(Old::Unopenable).stage();
    stage.restore(&Storage::new()).unwrap();
    fs::write(&stage.db, SECOND).unwrap();
    fs::write(with_suffix(&stage.db, "-wal"), SECOND_WAL).unwrap();
    let template = stage.into_template();
    sweep(|storage, _| {
        let stage = template.stage();
        let result = stage.restore(storage);
        let mut wrong = Vec::new();
        let mut check = |when: &str, stage: &Stage| {
            for (main, wal) in [(&GARBAGE[..], &GARBAGE_WAL[..]), (&SECOND, &SECOND_WAL)] {
                let together = (wal.to_vec(), Some(main.to_vec()));
                let alone = (wal.to_vec(), None);
                if !wals(stage).iter().any(|found| *found == together || *found == alone) {
                    let names = stage.names("");
                    wrong.push(format!("{when}: a WAL of {} bytes is lost or misplaced: {names:?}", wal.len()));
                }
            }
        };
        check("after the failure", &stage);
        if result.is_err() {
            let rerun = stage.restore(&Storage::new()).map_err(|e| stage.plain(&e.message()));
            check(&format!("after the rerun ({rerun:?})"), &stage);
        }
        (result.is_ok(), wrong)
    });
}
