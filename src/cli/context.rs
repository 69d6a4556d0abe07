//! Which database and which archive a command works on, and with which files.

use std::cell::OnceCell;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::archive::{Meant, Scope, Selected, Selection, list, read_manifest, select};
use engram_restore::storage::Storage;
use engram_restore::{
    BackupVerdict, Error, ErrorKind, Event, InterruptedRestore, Observer, Result, database, first_good, restore_state,
};

use super::args::Global;
use super::config::{Config, Key};
use super::nearest::nearest;
use super::output::note;

const PUBLIC_KEY: &str = "ENGRAM_RESTORE_PUBLIC_KEY";
const SECRET_KEY: &str = "ENGRAM_RESTORE_SECRET_KEY";

/// The global options, resolved as far as a command asks for them, the configuration, and the storage.
pub(crate) struct Context {
    global: Global,
    config: Config,
    storage: Storage,
    database: OnceCell<Utf8PathBuf>,
}

impl Context {
    /// From the parsed command line and the configuration.
    pub(crate) fn new(global: Global, config: Config, storage: Storage) -> Self {
        Self { global, config, storage, database: OnceCell::new() }
    }

    /// The settings of the configuration file.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// How much to say.
    pub(crate) fn is_verbose(&self) -> bool {
        self.global.verbose > 0
    }

    /// Whether standard output is for the one JSON object.
    pub(crate) fn is_json(&self) -> bool {
        self.global.json
    }

    /// A line on standard error, for who wants to know.
    pub(crate) fn note(&self, text: &str) {
        if !self.global.quiet {
            note(text);
        }
    }

    /// What a command changes files with: the only one there is.
    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The database's path: real if its folder is there, absolute in any case.
    pub(crate) fn database(&self) -> Result<Utf8PathBuf> {
        if let Some(path) = self.database.get() {
            return Ok(path.clone());
        }
        let given = match self.named_database()? {
            Some(path) => absolute(&path)?,
            None => default_database()?,
        };
        let path = real(given)?;
        Ok(self.database.get_or_init(|| path).clone())
    }

    /// The database that somebody has named, as in [`Self::database`].
    pub(crate) fn if_named(&self) -> Result<Option<Utf8PathBuf>> {
        self.named_database()?.map(|_named| self.database()).transpose()
    }

    /// The database that somebody has named.
    fn named_database(&self) -> Result<Option<Utf8PathBuf>> {
        Ok(given(self.global.db.as_ref(), "ENGRAM_RESTORE_DB")?.or_else(|| self.config.path(Key::Db).cloned()))
    }

    /// The database that a look at these backups is about. Where all words are paths of files and nobody has named
    /// a database, there is none.
    pub(crate) fn database_of(&self, words: &[String]) -> Option<Result<Utf8PathBuf>> {
        let is_file = |word: &String| word.contains('/') || Utf8Path::new(word).is_file();
        let is_named = self.named_database().is_ok_and(|named| named.is_some());
        let is_meant = is_named || words.is_empty() || !words.iter().all(is_file);
        is_meant.then(|| self.database())
    }

    /// The archive's absolute path. It need not exist.
    pub(crate) fn archive(&self) -> Result<Utf8PathBuf> {
        match given(self.global.archive.as_ref(), "ENGRAM_RESTORE_ARCHIVE")?
            .or_else(|| self.config.path(Key::Archive).cloned())
        {
            Some(path) => absolute(&path),
            None => Ok(self.database()?.with_file_name("backups")),
        }
    }

    /// The configuration file's absolute path, if somebody has named one.
    pub(crate) fn named_config(&self) -> Result<Option<Utf8PathBuf>> {
        named_config(&self.global)
    }

    /// Where the database's path comes from, if from the command line or the environment.
    pub(crate) fn database_source(&self) -> Result<Option<(&'static str, &'static str)>> {
        source(self.global.db.as_ref(), "--db", "ENGRAM_RESTORE_DB")
    }

    /// The same of the archive's.
    pub(crate) fn archive_source(&self) -> Result<Option<(&'static str, &'static str)>> {
        source(self.global.archive.as_ref(), "--archive", "ENGRAM_RESTORE_ARCHIVE")
    }

    /// The configuration file that is in force, and how it was found.
    pub(crate) fn config_file(&self) -> Result<(Option<&Utf8Path>, Option<&'static str>)> {
        let Some(file) = self.config.file.as_deref() else { return Ok((None, None)) };
        let named = source(self.global.config.as_ref(), "--config", "ENGRAM_RESTORE_CONFIG")?;
        Ok((Some(file), Some(named.map_or("beside the database", |(_, from)| from))))
    }

    /// The public keys that somebody has named, or their paths; and whether the configuration has.
    pub(crate) fn public_keys(&self) -> Result<(Vec<String>, bool)> {
        if !self.global.public_key.is_empty() {
            return Ok((self.global.public_key.clone(), false));
        }
        match variable(PUBLIC_KEY)? {
            Some(key) => Ok((vec![key.into_string()], false)),
            None => Ok((self.config.public_keys(), true)),
        }
    }

    /// The path of the secret key, if somebody has named one.
    pub(crate) fn secret_key(&self) -> Result<Option<Utf8PathBuf>> {
        Ok(given(self.global.secret_key.as_ref(), SECRET_KEY)?.or_else(|| self.config.path(Key::SignWith).cloned()))
    }

    /// Where the keys come from, if from the command line or the environment.
    pub(crate) fn key_source(&self, key: Key) -> Result<Option<(&'static str, &'static str)>> {
        if key == Key::SignWith {
            return source(self.global.secret_key.as_ref(), "--secret-key", SECRET_KEY);
        }
        let given = self.global.public_key.first().map(Utf8PathBuf::from);
        source(given.as_ref(), "--public-key", PUBLIC_KEY)
    }

    /// Which backups count.
    pub(crate) fn scope(&self, any_source: bool) -> Result<Scope> {
        if any_source { Ok(Scope::AnySource) } else { Ok(Scope::Database(self.database()?)) }
    }

    /// The backup files that a word on the command line stands for.
    pub(crate) fn select(&self, word: &str, any_source: bool) -> Result<Selected> {
        let selection = Selection::parse(word);
        // A path needs neither database nor archive.
        if let Selection::Named(name) = &selection
            && name.contains('/')
        {
            let path = absolute(Utf8Path::new(name))?;
            return select(Utf8Path::new(""), &Scope::AnySource, &Selection::Named(path.into_string()));
        }
        let (archive, scope) = match (&selection, self.archive()) {
            // A file in the working folder does not either.
            (Selection::Named(name), Err(_)) if Utf8Path::new(name).is_file() => (Utf8PathBuf::new(), Scope::AnySource),
            (Selection::Named(_), archive) => (archive?, Scope::AnySource),
            (Selection::Latest | Selection::LatestGood, archive) => (archive?, self.scope(any_source)?),
        };
        let selected = select(&archive, &scope, &selection).map_err(|e| match &selection {
            Selection::Named(name) if e.kind() == ErrorKind::NotFound => with_nearest(e, name, &archive),
            Selection::Named(_) | Selection::Latest | Selection::LatestGood => e,
        });
        let mut selected = selected?;
        if let Meant::One(path) = &mut selected.meant {
            *path = absolute(path)?;
        }
        Ok(selected)
    }

    /// A restore of the database that was interrupted, for a command that only looks: said as a warning, and as it stands
    /// in the JSON.
    pub(crate) fn interrupted(&self, words: &[String], observer: &mut dyn Observer) -> Option<InterruptedRestore> {
        let database = self.database_of(words)?;
        let found = database.and_then(|database| Ok(restore_state(&database)?.interrupted(&database)));
        let text = match &found {
            Ok(Some(interrupted)) => interrupted.message.clone(),
            Ok(None) => return None,
            // Nothing of it is there; whoever needs it says so.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Usage) => return None,
            Err(e) => format!("whether a restore was interrupted could not be looked at: {}", e.message()),
        };
        observer.event(Event::Warning(&text));
        found.ok().flatten()
    }

    /// The one backup that a word means. What `latest-good` passed over is said.
    pub(crate) fn backup(&self, word: &str, any_source: bool, observer: &mut dyn Observer) -> Result<Utf8PathBuf> {
        let path = self.one(word, any_source, observer)?;
        self.warn_of_keys_beside(&path, observer)?;
        if !any_source
            && !matches!(Selection::parse(word), Selection::Named(_))
            && let (Ok(manifest), database) = (read_manifest(&path), self.database()?)
            && manifest.source.path != database
        {
            let text = format!("{path} was taken of {}: there is none of {database}", manifest.source.path);
            observer.event(Event::Warning(&text));
        }
        Ok(path)
    }

    fn one(&self, word: &str, any_source: bool, observer: &mut dyn Observer) -> Result<Utf8PathBuf> {
        let selected = self.select(word, any_source)?;
        let path = match &selected.meant {
            Meant::One(path) => path.clone(),
            Meant::FirstGood(candidates) => {
                let (path, passed_over) = first_good(candidates, &self.trusted()?, observer)?;
                for verdict in &passed_over {
                    observer.event(Event::Warning(&reason(verdict)));
                }
                path
            }
        };
        say_doubts(&selected, &path, observer);
        Ok(path)
    }
}

/// The error that there is no such backup, with the one that may have been meant.
fn with_nearest(error: Error, name: &str, archive: &Utf8Path) -> Error {
    // Where the archive cannot be read, the error says so already.
    let Ok(listing) = list(archive) else { return error };
    let readable = listing.backups.iter().map(|backup| &backup.path);
    let all = readable.chain(listing.unreadable.iter().map(|unreadable| &unreadable.path));
    // Without the extension, which a name on the command line may lack.
    let stem = name.strip_suffix(".db").unwrap_or(name);
    match nearest(stem, all.filter_map(|path| path.file_stem())) {
        Some(nearest) => error.hint(format!("nearest: {nearest}")),
        None => error,
    }
}

/// The settings of the file that is named, else of the one beside the database, if it is there.
pub(super) fn configuration(global: &Global) -> Result<Config> {
    if let Some(path) = named_config(global)? {
        return Config::named(&path);
    }
    let named = given(global.db.as_ref(), "ENGRAM_RESTORE_DB")?;
    let database = named.map_or_else(default_database, |path| absolute(&path)).and_then(real);
    // A database that cannot be found has nothing beside it; whoever needs it says so.
    let Ok(database) = database else { return Ok(Config::default()) };
    database.parent().map_or_else(|| Ok(Config::default()), Config::in_folder)
}

fn named_config(global: &Global) -> Result<Option<Utf8PathBuf>> {
    given(global.config.as_ref(), "ENGRAM_RESTORE_CONFIG")?.map(|path| absolute(&path)).transpose()
}

/// A database's real path; the path itself where its folder is not there.
fn real(path: Utf8PathBuf) -> Result<Utf8PathBuf> {
    database::resolve(&path).or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(path) } else { Err(e) })
}

/// An option, else its environment variable; set to nothing, a variable counts as not set.
fn given(option: Option<&Utf8PathBuf>, variable_name: &str) -> Result<Option<Utf8PathBuf>> {
    match option {
        Some(path) => Ok(Some(path.clone())),
        None => variable(variable_name),
    }
}

/// Where [`given`] has its answer from.
fn source(
    option: Option<&Utf8PathBuf>,
    option_name: &'static str,
    variable_name: &'static str,
) -> Result<Option<(&'static str, &'static str)>> {
    if option.is_some() {
        return Ok(Some(("option", option_name)));
    }
    Ok(variable(variable_name)?.map(|_| ("environment", variable_name)))
}

fn variable(name: &str) -> Result<Option<Utf8PathBuf>> {
    match std::env::var_os(name).filter(|value| !value.is_empty()).map(std::ffi::OsString::into_string) {
        None => Ok(None),
        Some(Ok(value)) => Ok(Some(Utf8PathBuf::from(value))),
        // Another default would be another database.
        Some(Err(_)) => Err(Error::new(ErrorKind::Usage, "use", name).because("its value is not UTF-8")),
    }
}

/// Why `latest-good` passed a backup over.
pub(super) fn reason(verdict: &BackupVerdict) -> String {
    let first =
        verdict.findings.first().map_or_else(String::new, |finding| format!("{}: {}", finding.code, finding.message));
    format!("passed over {}: {first}", verdict.backup)
}

/// Why the newest backup of all may not be `chosen`: a restore in place has taken it, or a clock was wrong.
pub(super) fn say_doubts(selected: &Selected, chosen: &Utf8Path, observer: &mut dyn Observer) {
    let now = jiff::Timestamp::now();
    if selected.is_later_than(now, chosen) {
        let newest = selected.newest_until(now).map_or_else(
            || "so were all others".to_owned(),
            |newest| format!("the newest that was not is {newest}, give its name to use it"),
        );
        observer.event(Event::Warning(&format!("{chosen} was taken later than now: is the clock right? {newest}")));
    }
    if let Some(newer) = selected.passed_over_for(chosen) {
        let text = format!(
            "passed over {newer}, which is newer than {chosen}: it is what the database held before a restore in place; \
             give its name to use it"
        );
        observer.event(Event::Warning(&text));
    }
}

/// A path from the command line as errors and reports name it.
pub(super) fn absolute(path: &Utf8Path) -> Result<Utf8PathBuf> {
    if path.as_str().is_empty() {
        return Err(Error::new(ErrorKind::Usage, "use", "an empty path"));
    }
    camino::absolute_utf8(path).map_err(|e| Error::io("find", path, e))
}

/// Where engram keeps its database.
fn default_database() -> Result<Utf8PathBuf> {
    let folder = match variable("ENGRAM_DATA_DIR")? {
        Some(folder) => Some(folder),
        None => variable("HOME")?.map(|home| home.join(".engram")),
    };
    let path = folder.map(|folder| absolute(&folder.join("engram.db"))).transpose()?;
    path.ok_or_else(|| {
        Error::new(ErrorKind::Usage, "find", "the database")
            .because("neither ENGRAM_DATA_DIR nor HOME is set")
            .hint("say which one with --db PATH")
    })
}
