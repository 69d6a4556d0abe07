//! Every setting: its name in the file, what it may be, and what holds where it is not set. `docs/configuration.md` has a
//! row for each.

use super::nearest::nearest;

/// A setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Db,
    Archive,
    BackupEngine,
    VerifyForeignKeys,
    VerifyMaxTime,
    VerifyJobs,
    KeepLast,
    KeepDays,
    KeepDaily,
    KeepWeekly,
    KeepMonthly,
    KeepLabels,
    MinKeep,
    PreRestoreKeep,
    PreRestoreMinAge,
    StatusMaxAge,
    DrillMaxRto,
    DrillMaxRpo,
    DrillMaxRtoRegression,
    DrillAssert,
    SignWith,
    Trusted,
    PreCycleBackup,
    BackupRetentionDays,
}

/// What a setting may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A path, relative to the file's folder.
    Path,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Strings.
    Texts,
    /// Public keys, or their paths, relative to the file's folder.
    Keys,
    /// A whole number, at least 1.
    Count,
    /// Such as `"90s"`.
    Duration,
    /// Such as `"20%"`.
    Percent,
    /// Tables with `sql` and `expect`.
    Assertions,
    Flag,
}

impl Kind {
    /// As an error names it.
    pub(crate) fn expected(self) -> String {
        match self {
            Self::Path => "a path in quotes, without ~".to_owned(),
            Self::Word(words) => {
                let quoted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
                format!("one of {}", quoted.join(", "))
            }
            Self::Texts => "a list of strings, such as [\"before-upgrade\"]".to_owned(),
            Self::Keys => "a public key of minisign or the path of its file, in quotes, or a list of them".to_owned(),
            Self::Count => format!("a whole number from 1 to {}", u32::MAX),
            Self::Duration => "a duration in quotes, such as \"90s\", \"26h\" or \"7d\"".to_owned(),
            Self::Percent => "a percentage in quotes, such as \"20%\"".to_owned(),
            Self::Assertions => "sections [[drill.assert]], each with sql and expect, both strings".to_owned(),
            Self::Flag => "true or false".to_owned(),
        }
    }
}

impl Key {
    pub(crate) const ALL: [Self; 24] = [
        Self::Db,
        Self::Archive,
        Self::BackupEngine,
        Self::VerifyForeignKeys,
        Self::VerifyMaxTime,
        Self::VerifyJobs,
        Self::KeepLast,
        Self::KeepDays,
        Self::KeepDaily,
        Self::KeepWeekly,
        Self::KeepMonthly,
        Self::KeepLabels,
        Self::MinKeep,
        Self::PreRestoreKeep,
        Self::PreRestoreMinAge,
        Self::StatusMaxAge,
        Self::DrillMaxRto,
        Self::DrillMaxRpo,
        Self::DrillMaxRtoRegression,
        Self::DrillAssert,
        Self::SignWith,
        Self::Trusted,
        Self::PreCycleBackup,
        Self::BackupRetentionDays,
    ];

    /// Its name, kind, and what holds without it.
    fn spec(self) -> (&'static str, Kind, &'static str) {
        match self {
            Self::Db => ("db", Kind::Path, "engram.db in $ENGRAM_DATA_DIR, else ~/.engram/engram.db"),
            Self::Archive => ("archive", Kind::Path, "backups/ beside the database"),
            Self::BackupEngine => ("backup.engine", Kind::Word(&["auto", "snapshot", "online", "vacuum"]), "auto"),
            Self::VerifyForeignKeys => ("verify.foreign_keys", Kind::Word(&["fail", "warn", "off"]), "fail"),
            Self::VerifyMaxTime => ("verify.max_time", Kind::Duration, "10s, and 10s more for each 100 MB"),
            Self::VerifyJobs => ("verify.jobs", Kind::Count, "one for each processor"),
            Self::KeepLast => ("retention.keep_last", Kind::Count, "no such rule"),
            Self::KeepDays => ("retention.keep_days", Kind::Count, "dream.backup_retention_days, else no such rule"),
            Self::KeepDaily => ("retention.keep_daily", Kind::Count, "no such rule"),
            Self::KeepWeekly => ("retention.keep_weekly", Kind::Count, "no such rule"),
            Self::KeepMonthly => ("retention.keep_monthly", Kind::Count, "no such rule"),
            Self::KeepLabels => ("retention.keep_labels", Kind::Texts, "none"),
            Self::MinKeep => ("retention.min_keep", Kind::Count, "1"),
            Self::PreRestoreKeep => ("pre_restore.keep", Kind::Count, "2"),
            Self::PreRestoreMinAge => ("pre_restore.min_age", Kind::Duration, "1d"),
            Self::StatusMaxAge => ("status.max_age", Kind::Duration, "any age will do"),
            Self::DrillMaxRto => ("drill.max_rto", Kind::Duration, "any time will do"),
            Self::DrillMaxRpo => ("drill.max_rpo", Kind::Duration, "any loss will do"),
            Self::DrillMaxRtoRegression => ("drill.max_rto_regression", Kind::Percent, "any will do"),
            Self::DrillAssert => ("drill.assert", Kind::Assertions, "none"),
            Self::SignWith => ("sign.secret_key", Kind::Path, "nothing is signed"),
            Self::Trusted => ("trust.public_key", Kind::Keys, "anybody is trusted"),
            Self::PreCycleBackup => ("dream.pre_cycle_backup", Kind::Flag, "true"),
            Self::BackupRetentionDays => ("dream.backup_retention_days", Kind::Count, "no such rule"),
        }
    }

    /// With its section, as in `retention.keep_last`.
    pub(crate) fn name(self) -> &'static str {
        self.spec().0
    }

    pub(crate) fn kind(self) -> Kind {
        self.spec().1
    }

    /// What holds where it is not set, for people.
    pub(crate) fn default_text(self) -> &'static str {
        self.spec().2
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.name() == name)
    }
}

/// The name that somebody may have meant: of a setting or a section, else of a setting that stands in another section.
pub(crate) fn nearest_key(name: &str) -> Option<&'static str> {
    let sections = Key::ALL.into_iter().filter_map(|key| key.name().split_once('.')).map(|(section, _)| section);
    let names = Key::ALL.into_iter().map(Key::name).chain(sections);
    nearest(name, names).or_else(|| {
        let near = nearest(last(name), Key::ALL.into_iter().map(|key| last(key.name())))?;
        Key::ALL.into_iter().map(Key::name).find(|name| last(name) == near)
    })
}

/// Without its section.
fn last(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, last)| last)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Would catch a setting that nobody can learn of.
    #[test]
    fn every_setting_is_documented_with_its_default() {
        let docs = include_str!("../../docs/configuration.md");
        for key in Key::ALL {
            assert!(Key::of_name(key.name()) == Some(key));
            let (section, name) = key.name().split_once('.').unwrap_or(("", key.name()));
            let is_row = |line: &&str| line.starts_with(&format!("| `{section}` | `{name}` | "));
            let row = docs.lines().find(is_row).unwrap_or_else(|| panic!("{} has no row", key.name()));
            assert!(row.contains(&format!("| {} |", key.default_text())), "{row}");
        }
    }

    #[test]
    fn nearest_name_is_that_which_was_meant() {
        for (name, meant) in [
            ("databse", None),
            ("archiv", Some("archive")),
            ("verfy", Some("verify")),
            ("verify.foreign_key", Some("verify.foreign_keys")),
            ("retention.keep_lst", Some("retention.keep_last")),
            ("retention.keep-days", Some("retention.keep_days")),
            ("keep_weekly", Some("retention.keep_weekly")),
            ("dream.retention_days", Some("dream.backup_retention_days")),
            ("status.keep_last", Some("retention.keep_last")),
            ("", None),
        ] {
            assert_eq!(nearest_key(name), meant, "{name}");
        }
    }
}
