//! What the databases here hold: every commit is one more generation, and the content of each generation is a function of
//! its number alone. So a copy is right if it holds what a replica in memory holds after as many steps.

use std::collections::HashMap;

use camino::Utf8Path;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

/// Makes generation 0.
pub(crate) const SETUP: &str = "
    BEGIN IMMEDIATE;
    CREATE TABLE meta(id INTEGER PRIMARY KEY, gen INTEGER NOT NULL, chain INTEGER NOT NULL);
    CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, note TEXT NOT NULL);
    CREATE INDEX account_balance ON account(balance, id);
    CREATE TABLE journal(gen INTEGER PRIMARY KEY, chain INTEGER NOT NULL, filler TEXT NOT NULL);
    CREATE INDEX journal_chain ON journal(chain);
    CREATE TABLE blob(id INTEGER PRIMARY KEY, gen INTEGER NOT NULL, data TEXT NOT NULL);
    CREATE TABLE digest(id INTEGER PRIMARY KEY, gen INTEGER NOT NULL, bytes INTEGER NOT NULL);
    INSERT INTO meta VALUES (1, 0, 1);
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99)
        INSERT INTO account SELECT i, 1000, printf('%.200c', 'n') FROM n;
    COMMIT;";

/// Makes the next generation of the one that is there, inside a transaction: money moves between two accounts, a journal
/// goes on, a blob over several pages and what is said of it in another table change together; and from time to time much
/// is written at once, or much goes.
pub(crate) const STEP: &str = "
    UPDATE meta SET gen = gen + 1, chain = (chain * 48271 + gen) % 2147483647;
    INSERT INTO journal SELECT gen, chain, printf('%.*c', chain % 300, 'j') FROM meta;
    UPDATE account SET balance = balance - (SELECT gen % 50 FROM meta), note = (SELECT printf('%0200d', gen) FROM meta)
        WHERE id = (SELECT chain % 100 FROM meta);
    UPDATE account SET balance = balance + (SELECT gen % 50 FROM meta) WHERE id = (SELECT chain / 100 % 100 FROM meta);
    INSERT OR REPLACE INTO blob
        SELECT chain % 24, gen, replace(hex(zeroblob(chain % 900)), '00', printf('%08d', gen)) FROM meta;
    INSERT OR REPLACE INTO digest SELECT id, gen, length(data) FROM blob WHERE gen = (SELECT gen FROM meta);
    UPDATE account SET note = (SELECT printf('%0150d', chain) FROM meta) WHERE (SELECT gen % 25 FROM meta) = 0;
    DELETE FROM journal WHERE gen < (SELECT gen - chain % 60 FROM meta) AND (SELECT gen % 30 FROM meta) = 0;
    DELETE FROM blob WHERE id % 4 > 0 AND (SELECT chain % 40 FROM meta) = 0;
    DELETE FROM digest WHERE id NOT IN (SELECT id FROM blob);";

/// Writes a lot that is then taken back: with a small cache it has gone into the WAL, or into the main file, before.
pub(crate) const IN_VAIN: &str = "
    SAVEPOINT vain;
    UPDATE account SET note = hex(randomblob(400)), balance = balance + 1;
    DELETE FROM journal WHERE gen % 2 = 0;
    INSERT OR REPLACE INTO blob SELECT id, -1, hex(randomblob(2000)) FROM account;
    ROLLBACK TO vain;
    RELEASE vain;";

/// Everything, in an order of its own; the last comes from an index alone.
const EVERYTHING: [&str; 6] = [
    "SELECT * FROM meta ORDER BY id",
    "SELECT * FROM account ORDER BY id",
    "SELECT * FROM journal ORDER BY gen",
    "SELECT * FROM blob ORDER BY id",
    "SELECT * FROM digest ORDER BY id",
    "SELECT balance, id FROM account INDEXED BY account_balance ORDER BY balance, id",
];

/// The generation in a database, and a hash of all that is in it.
pub(crate) fn content(connection: &Connection) -> rusqlite::Result<(u64, blake3::Hash)> {
    let generation = connection.query_row("SELECT gen FROM meta", [], |row| row.get::<_, i64>(0))?;
    let mut hasher = blake3::Hasher::new();
    for sql in EVERYTHING {
        let mut statement = connection.prepare(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                match row.get_ref(column)? {
                    ValueRef::Integer(number) => hasher.update(&number.to_le_bytes()),
                    ValueRef::Text(text) => hasher.update(text).update(&[0xff]),
                    ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => hasher.update(b"no value of ours"),
                };
            }
        }
        hasher.update(b"the next table");
    }
    Ok((generation.unsigned_abs(), hasher.finalize()))
}

/// The same of a finished file, in which nothing is changed and beside which nothing is created.
pub(crate) fn content_of_file(path: &Utf8Path) -> rusqlite::Result<(u64, blake3::Hash)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    content(&Connection::open_with_flags(format!("file://{path}?immutable=1"), flags)?)
}

/// A database in memory that knows what each generation holds.
pub(crate) struct Replica {
    connection: Connection,
    generation: u64,
    known: HashMap<u64, blake3::Hash>,
}

impl Replica {
    pub(crate) fn new() -> Self {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(SETUP).unwrap();
        Self { connection, generation: 0, known: HashMap::new() }
    }

    /// What generation `wanted` holds. Those that come in order are cheap.
    pub(crate) fn content(&mut self, wanted: u64) -> blake3::Hash {
        if let Some(known) = self.known.get(&wanted) {
            return *known;
        }
        if wanted < self.generation {
            let known = std::mem::take(&mut self.known);
            *self = Self { known, ..Self::new() };
        }
        self.connection.execute_batch("BEGIN").unwrap();
        while self.generation < wanted {
            self.connection.execute_batch(STEP).unwrap();
            self.generation += 1;
        }
        self.connection.execute_batch("COMMIT").unwrap();
        let (generation, hash) = content(&self.connection).unwrap();
        assert_eq!(generation, wanted);
        self.known.insert(wanted, hash);
        hash
    }
}

/// Would catch a replica that says the same of every generation.
#[test]
fn generations_differ_and_keep_their_money() {
    let mut replica = Replica::new();
    let all: std::collections::BTreeSet<_> = (0..200).map(|number| *replica.content(number).as_bytes()).collect();
    assert_eq!(all.len(), 200);
    let seventh = replica.content(7);
    assert_eq!(Replica::new().content(7), seventh);
    let money = "SELECT sum(balance) FROM account";
    assert_eq!(replica.connection.query_row(money, [], |row| row.get(0)), Ok(100_000));
}
