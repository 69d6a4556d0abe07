//! The tables of a sample database, the shape of engram's own: `observations` with 16 columns and 8 indexes, and two
//! external-content FTS5 tables that hold no text themselves and stay right only through their triggers.

/// Everything that is created before the first row.
pub(super) const TABLES: &str = "
CREATE TABLE sessions (
    id         TEXT PRIMARY KEY,
    project    TEXT NOT NULL,
    directory  TEXT NOT NULL,
    started_at TEXT NOT NULL,
    ended_at   TEXT,
    summary    TEXT
);

CREATE TABLE observations (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    sync_id         TEXT NOT NULL,
    session_id      TEXT NOT NULL REFERENCES sessions(id),
    type            TEXT NOT NULL,
    title           TEXT NOT NULL,
    content         TEXT NOT NULL,
    tool_name       TEXT,
    project         TEXT,
    scope           TEXT NOT NULL DEFAULT 'project',
    topic_key       TEXT,
    content_hash    TEXT NOT NULL,
    revision_count  INTEGER NOT NULL DEFAULT 1,
    duplicate_count INTEGER NOT NULL DEFAULT 0,
    created_at      TEXT NOT NULL,
    updated_at      TEXT NOT NULL,
    deleted_at      TEXT
);
CREATE UNIQUE INDEX observations_by_sync_id ON observations(sync_id);
CREATE INDEX observations_by_session ON observations(session_id);
CREATE INDEX observations_by_type ON observations(type);
CREATE INDEX observations_by_project ON observations(project, scope);
CREATE INDEX observations_by_created ON observations(created_at DESC);
CREATE INDEX observations_by_topic ON observations(topic_key, project, scope, updated_at DESC);
CREATE INDEX observations_by_hash ON observations(content_hash, project, scope, type);
CREATE INDEX observations_by_deleted ON observations(deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE user_prompts (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    sync_id    TEXT NOT NULL,
    session_id TEXT NOT NULL REFERENCES sessions(id),
    content    TEXT NOT NULL,
    project    TEXT,
    created_at TEXT NOT NULL
);
CREATE UNIQUE INDEX prompts_by_sync_id ON user_prompts(sync_id);
CREATE INDEX prompts_by_session ON user_prompts(session_id);
CREATE INDEX prompts_by_created ON user_prompts(created_at DESC);

CREATE TABLE sync_chunks (
    chunk_id    TEXT PRIMARY KEY,
    payload     BLOB NOT NULL,
    row_count   INTEGER NOT NULL,
    imported_at TEXT
);

CREATE VIRTUAL TABLE observations_fts USING fts5(
    title, content, tool_name, type, project, topic_key,
    content='observations', content_rowid='id'
);
CREATE VIRTUAL TABLE prompts_fts USING fts5(content, project, content='user_prompts', content_rowid='id');
";

/// Fills both full-text indexes from their tables.
pub(super) const INDEX_TEXT: &str = "
INSERT INTO observations_fts(observations_fts) VALUES ('rebuild');
INSERT INTO prompts_fts(prompts_fts) VALUES ('rebuild');
";

/// What keeps the indexes in step from then on. Created last: a statement that fires a trigger makes FTS5 write out
/// what it has gathered, and a sample of a gigabyte would take twice as long.
pub(super) const TRIGGERS: &str = "
CREATE TRIGGER observations_fts_insert AFTER INSERT ON observations BEGIN
    INSERT INTO observations_fts(rowid, title, content, tool_name, type, project, topic_key)
    VALUES (new.id, new.title, new.content, new.tool_name, new.type, new.project, new.topic_key);
END;
CREATE TRIGGER observations_fts_delete AFTER DELETE ON observations BEGIN
    INSERT INTO observations_fts(observations_fts, rowid, title, content, tool_name, type, project, topic_key)
    VALUES ('delete', old.id, old.title, old.content, old.tool_name, old.type, old.project, old.topic_key);
END;
CREATE TRIGGER observations_fts_update AFTER UPDATE ON observations BEGIN
    INSERT INTO observations_fts(observations_fts, rowid, title, content, tool_name, type, project, topic_key)
    VALUES ('delete', old.id, old.title, old.content, old.tool_name, old.type, old.project, old.topic_key);
    INSERT INTO observations_fts(rowid, title, content, tool_name, type, project, topic_key)
    VALUES (new.id, new.title, new.content, new.tool_name, new.type, new.project, new.topic_key);
END;
CREATE TRIGGER prompts_fts_insert AFTER INSERT ON user_prompts BEGIN
    INSERT INTO prompts_fts(rowid, content, project) VALUES (new.id, new.content, new.project);
END;
CREATE TRIGGER prompts_fts_delete AFTER DELETE ON user_prompts BEGIN
    INSERT INTO prompts_fts(prompts_fts, rowid, content, project)
    VALUES ('delete', old.id, old.content, old.project);
END;
CREATE TRIGGER prompts_fts_update AFTER UPDATE ON user_prompts BEGIN
    INSERT INTO prompts_fts(prompts_fts, rowid, content, project)
    VALUES ('delete', old.id, old.content, old.project);
    INSERT INTO prompts_fts(rowid, content, project) VALUES (new.id, new.content, new.project);
END;
";

/// A session, unless it is there: `id, project, directory, started, ended or NULL, summary or NULL`.
pub(super) const INSERT_SESSION: &str = "
INSERT OR IGNORE INTO sessions(id, project, directory, started_at, ended_at, summary)
VALUES (?1, ?2, ?3, datetime(?4, 'unixepoch'), datetime(?5, 'unixepoch'), ?6)";

/// An observation with all its columns; the three times are seconds since 1970, the last of them may be NULL.
pub(super) const INSERT_OBSERVATION: &str = "
INSERT INTO observations(id, sync_id, session_id, type, title, content, tool_name, project, scope, topic_key,
    content_hash, revision_count, duplicate_count, created_at, updated_at, deleted_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13,
    datetime(?14, 'unixepoch'), datetime(?15, 'unixepoch'), datetime(?16, 'unixepoch'))";

/// A prompt; SQLite chooses its id.
pub(super) const INSERT_PROMPT: &str = "
INSERT INTO user_prompts(sync_id, session_id, content, project, created_at)
VALUES (?1, ?2, ?3, ?4, datetime(?5, 'unixepoch'))";

/// A chunk; one in three was never imported.
pub(super) const INSERT_CHUNK: &str = "
INSERT INTO sync_chunks(chunk_id, payload, row_count, imported_at)
VALUES (?1, ?2, ?3, datetime(?4, 'unixepoch'))";
