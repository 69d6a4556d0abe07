//! What a drill asks of a restored database.

use std::sync::LazyLock;
use std::time::Duration;

use super::databases::{Scene, seeds};
use crate::drill::Assertion;
use crate::observe::Cancel;

/// A statement and what is expected of it, with a zero byte between them: asked of a small database. It answers, refuses or
/// is not done; whatever it is, the database stays as it is, and nothing lies beside it.
pub fn assertion(data: &[u8]) {
    static SOUND: LazyLock<&[u8]> = LazyLock::new(|| &seeds()[0].main);
    let text = String::from_utf8_lossy(data);
    let (sql, expect) = text.split_once('\0').unwrap_or((&text, "= 1"));
    let Ok(assertion) = Assertion::new(sql, expect) else { return };
    let scene = Scene::new();
    let path = scene.put("question.db", &SOUND);
    let report = assertion.check_within(&path, Duration::from_secs(1), &Cancel::default()).unwrap();
    scene.has_only(&[("question.db", &SOUND)]);
    assert_eq!((report.sql.as_str(), report.expect.as_str()), (sql, expect));
    assert!(report.found.is_none_or(|found| found.chars().count() <= 1000));
}
