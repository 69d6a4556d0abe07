//! Reports that no drill makes: with markup, quotes, line ends and what drives a terminal wherever text from outside can stand; with
//! nothing in them; with very much in them.

use engram_restore::{
    AssertionReport, DRILL_FORMAT, DRILL_VERSION, DamageMap, DrillReport, LostRows, LostTime, PageOwner, PageRun,
    PastDrill, Phase, Rpo, Rto, ScenarioReport, Scratch, StepReport, Subject, SubjectKind, TableKind, Threshold, Time,
    Verdict,
};
use jiff::{SignedDuration, Timestamp};

/// In every text; each of its parts would be seen if it became more than text.
const EVIL: &str = "</title></style><script>alert(1)</script><img src=x onerror=alert(2)>\" onload='x' <b>bold</b> & &amp; ]]> \
    --> | a | `code` ``two`` [link](http://example.com) ![image](http://example.com/x.png) http://example.com @everyone \
    line\nnext\r\n\u{1b}[31mred\u{1b}[0m \u{0} \u{202e}reversed\u{202c} \u{fffe} 😀 \u{5d0}\u{5d1} e\u{301}";

/// A word without a place to break it.
const LONG: &str = "a_very_long_table_name_without_any_place_to_break_it_that_somebody_has_generated_from_a_path_0123456789abcdef0123456789abcdef0123456789abcdef";

/// What is wrong everywhere.
pub(super) fn evil(now: Timestamp) -> DrillReport {
    let all = [Verdict::Fail, Verdict::Inconclusive, Verdict::Pass];
    DrillReport {
        thresholds: all.map(|verdict| threshold(verdict, EVIL)).into(),
        scenarios: all.map(|verdict| scenario(EVIL, verdict, 3)).into(),
        ..empty(Verdict::Fail, now)
    }
}

/// Very much of everything.
pub(super) fn large(now: Timestamp) -> DrillReport {
    let verdict = |number: u64| match number % 9 {
        4 => Verdict::Fail,
        7 => Verdict::Inconclusive,
        _ => Verdict::Pass,
    };
    let past = |number: i64| PastDrill {
        started_at: now - SignedDuration::from_hours(24 * (200 - number)),
        verdict: verdict(u64::try_from(number).unwrap_or(0)),
        rto_us: (number % 11 != 3).then(|| u64::try_from(number * number * 9_000 % 7_000_000).unwrap_or(0)),
        rpo_ms: (number % 13 != 5).then(|| u64::try_from(number * 7_919 % 90_000_000).unwrap_or(0)),
    };
    DrillReport {
        scenarios: (0..40).map(|number| scenario(LONG, verdict(number), number)).collect(),
        history: (0..200).map(past).collect(),
        ..empty(Verdict::Fail, now)
    }
}

/// Nothing was done.
pub(super) fn empty(verdict: Verdict, now: Timestamp) -> DrillReport {
    DrillReport {
        format: DRILL_FORMAT,
        version: DRILL_VERSION,
        tool: "engram-restore 0.0.0".to_owned(),
        started_at: now,
        duration_ms: 123_456,
        seed: u64::MAX,
        subject: Subject {
            kind: SubjectKind::Archive,
            database: format!("/srv/{EVIL}/{LONG}.db").into(),
            archive: Some(format!("/srv/{LONG}/{EVIL}").into()),
        },
        scratch: Scratch {
            folder: format!("/tmp/{LONG}").into(),
            file_system: EVIL.to_owned(),
            free_bytes: Some(u64::MAX),
            needed_bytes: 1 << 40,
        },
        verdict,
        summary: EVIL.to_owned(),
        scenarios: Vec::new(),
        thresholds: Vec::new(),
        history: Vec::new(),
    }
}

fn threshold(verdict: Verdict, text: &str) -> Threshold {
    Threshold { name: "max-rto-regression", limit: text.to_owned(), found: LONG.to_owned(), verdict }
}

fn scenario(text: &'static str, verdict: Verdict, number: u64) -> ScenarioReport {
    let texts = |least: Verdict, many: usize| if verdict == least { vec![text.to_owned(); many] } else { Vec::new() };
    let step = StepReport { name: text, duration_ms: 1_234 * number, detail: format!("{text} {LONG}") };
    let assertion = |verdict, found: Option<&str>, error: Option<&str>| AssertionReport {
        sql: format!("SELECT count(*) FROM \"{text}\" WHERE {LONG} = '{text}'"),
        expect: ">= 1".to_owned(),
        found: found.map(str::to_owned),
        verdict,
        error: error.map(str::to_owned),
    };
    ScenarioReport {
        name: text,
        about: text,
        backup: Some(format!("/srv/{text}/backups/engram-2026.db").into()),
        verdict,
        duration_ms: 1 << (number % 30),
        steps: vec![step; 4],
        problems: texts(Verdict::Fail, 3),
        unknown: texts(Verdict::Inconclusive, 2),
        rto: Some(rto(text, number)),
        rpo: Some(rpo(text, number)),
        assertions: vec![
            assertion(Verdict::Pass, Some("12"), None),
            assertion(Verdict::Fail, Some(text), None),
            assertion(Verdict::Inconclusive, None, Some(text)),
        ],
        damage: number.is_multiple_of(3).then(|| damage(text)),
    }
}

fn rto(text: &str, number: u64) -> Rto {
    let names = ["fetch", "start", "find", "hash", "stage", "fold", "swap", "first-query", text];
    let duration = |place: u64| 1_000 * (number + 1) * (place * place % 7 + 1);
    let phases: Vec<_> =
        (0..).zip(names).map(|(place, name)| Phase { name: name.to_owned(), duration_us: duration(place) }).collect();
    Rto { total_us: phases.iter().map(|phase| phase.duration_us).sum(), phases }
}

fn rpo(text: &str, number: u64) -> Rpo {
    let lost = |name: String| LostRows {
        name,
        kind: TableKind::Table,
        only_in_live: 1,
        changed: 2,
        only_in_backup: 3,
        bytes: 4,
    };
    let value = Time::Text(text.to_owned());
    Rpo {
        window_ms: Some(number * 3_600_000),
        commits: Some(number),
        rows: Some(number * 12),
        bytes: Some(number << 20),
        tables: vec![lost(text.to_owned()), lost(LONG.to_owned())],
        newest: vec![LostTime { table: text.to_owned(), column: LONG.to_owned(), value }],
    }
}

/// A large file, of more owners than there are colours.
fn damage(text: &str) -> DamageMap {
    const PAGES: u32 = 5_000;
    const RUN: u32 = 100;
    let owner = |number: u32| PageOwner {
        name: if number == 0 { text.to_owned() } else { format!("{LONG}_{number}") },
        pages: PAGES / 30,
        damaged: if number < 3 { 7 } else { 0 },
    };
    let run = |number: u32| PageRun {
        first: number * RUN + 1,
        last: (number + 1) * RUN,
        owner: usize::try_from(number % 30).unwrap_or(0),
        is_damaged: number % 30 < 3,
    };
    DamageMap {
        pages_per_cell: 1,
        file: text.to_owned(),
        page_bytes: 4096,
        pages: PAGES,
        owners: (0..30).map(owner).collect(),
        runs: (0..PAGES / RUN).map(run).collect(),
    }
}

/// One as it usually is, to look at: one of many scenarios failed.
pub(super) fn usual(now: Timestamp) -> DrillReport {
    let names = ["database-deleted", "bits-flipped-data", "newest-backup-damaged", "disk-full", "killed-at-each-step"];
    let scenarios = (0..).zip(names).map(|(number, name)| usual_scenario(name, number)).collect();
    let past = |number: i64| PastDrill {
        started_at: now - SignedDuration::from_hours(24 * 7 * (14 - number)),
        verdict: if number == 5 { Verdict::Fail } else { Verdict::Pass },
        rto_us: Some(u64::try_from(380_000 + number * number * 7_919 % 240_000).unwrap_or(0)),
        rpo_ms: (number != 5).then(|| u64::try_from(600_000 + number * 7_919_000 % 3_000_000).unwrap_or(0)),
    };
    let limit = |name, limit: &str, found: &str, verdict| Threshold {
        name,
        limit: limit.to_owned(),
        found: found.to_owned(),
        verdict,
    };
    DrillReport {
        seed: 7,
        duration_ms: 8_412,
        subject: Subject {
            kind: SubjectKind::Archive,
            database: "/srv/engram/engram.db".into(),
            archive: Some("/srv/engram/backups".into()),
        },
        scratch: Scratch {
            folder: "/tmp/engram-restore-drill-Xy3kQ1".into(),
            file_system: "ext4".to_owned(),
            free_bytes: Some(212 << 30),
            needed_bytes: 3 << 28,
        },
        scenarios,
        thresholds: vec![
            limit("max-rto", "1 s", "642 ms", Verdict::Pass),
            limit("max-rto-regression", "20%", "31% more than usual", Verdict::Fail),
        ],
        history: (0..14).map(past).collect(),
        ..empty(Verdict::Fail, now)
    }
}

fn usual_scenario(name: &'static str, number: u64) -> ScenarioReport {
    let is_bad = number == 2;
    let step = |name, duration_ms, detail: &str| StepReport { name, duration_ms, detail: detail.to_owned() };
    let phases =
        [("start", 9), ("find", 21), ("hash", 160), ("stage", 120), ("fold", 35), ("swap", 12), ("first-query", 4)];
    let phase = |(name, ms): (&str, u64)| Phase { name: name.to_owned(), duration_us: ms * 1_000 * (number + 3) / 4 };
    let phases: Vec<_> = phases.into_iter().map(phase).collect();
    let owner = |name: &str, pages, damaged| PageOwner { name: name.to_owned(), pages, damaged };
    let run = |first, last, owner, is_damaged| PageRun { first, last, owner, is_damaged };
    ScenarioReport {
        name,
        about: "the database file is damaged while its last commits are still in the WAL",
        backup: Some("/srv/engram/backups/engram-2026-11-22T05-30-00Z.db".into()),
        verdict: if is_bad { Verdict::Fail } else { Verdict::Pass },
        duration_ms: 700 + 312 * number,
        steps: vec![
            step("damage the database", 3, "bits flipped in 3 pages of observations"),
            step("restore", 361, "restore latest-good: exit 0"),
            step("look as an application", 112, "sound, reads and writes, 40 commits of the drill are there"),
        ],
        problems: if is_bad {
            vec!["the database holds the older backup, not what it was to hold".to_owned()]
        } else {
            Vec::new()
        },
        unknown: Vec::new(),
        rto: Some(Rto { total_us: phases.iter().map(|phase| phase.duration_us).sum(), phases }),
        rpo: Some(Rpo {
            window_ms: Some(1_260_000),
            commits: Some(20),
            rows: Some(20),
            bytes: Some(48_128),
            ..Rpo::default()
        }),
        assertions: Vec::new(),
        damage: (number == 1).then(|| DamageMap {
            pages_per_cell: 1,
            file: "engram.db".to_owned(),
            page_bytes: 4096,
            pages: 420,
            owners: vec![
                owner("observations", 240, 3),
                owner("observations_fts", 110, 0),
                owner("sessions", 40, 0),
                owner("free", 30, 0),
            ],
            runs: vec![
                run(1, 1, 2, false),
                run(2, 90, 0, false),
                run(91, 92, 0, true),
                run(93, 180, 0, false),
                run(181, 290, 1, false),
                run(291, 329, 2, false),
                run(330, 359, 3, false),
                run(360, 360, 0, true),
                run(361, 420, 0, false),
            ],
        }),
    }
}
