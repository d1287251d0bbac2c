//! SQLite: a table of events, a transaction for each, behind a write-ahead log that is synced before a commit returns.

use annals_rivals::{Event, Failure, Pending, Rival, Sink};
use rusqlite::{Connection, params};
use std::path::Path;
use std::process::ExitCode;
use uuid::Uuid;

/// Positions are what SQLite counts by itself; nothing is ever deleted.
const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS events (position INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE,
    number INTEGER NOT NULL, payload BLOB NOT NULL) STRICT";
const INSERT: &str = "INSERT INTO events (id, number, payload) VALUES (?1, ?2, ?3)";
const SELECT: &str = "SELECT number, id, payload FROM events ORDER BY position";

#[derive(Debug)]
struct Sqlite {
    connection: Connection,
}

impl Sqlite {
    /// `--synchronous WORD` sets another durability than that which the documentation has for a commit that survives a power cut.
    fn open(dir: &Path, options: &[String]) -> Result<(Self, String), Failure> {
        let synchronous = match options {
            [] => "full",
            [name, word] if name == "--synchronous" => word,
            _ => return Err("the options are: --synchronous off|normal|full|extra".into()),
        };
        let connection = Connection::open(dir.join("events.db"))?;
        connection.pragma_update(None, "synchronous", synchronous)?;
        let journal: String =
            connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        let level: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
        connection.execute_batch(TABLE)?;
        let version = rusqlite::version();
        Ok((Self { connection }, format!("SQLite {version}, journal_mode={journal}, synchronous={level}")))
    }
}

impl Rival for Sqlite {
    /// It has one writer at a time: what is asked meanwhile waits in the pipe.
    fn append(&mut self, event: Event) -> Result<Pending, Failure> {
        let mut insert = self.connection.prepare_cached(INSERT)?;
        insert.execute(params![event.id.as_bytes(), i64::try_from(event.number)?, event.payload])?;
        Ok(Box::new(|| Ok(())))
    }

    fn dump(&mut self, sink: Sink<'_>) -> Result<(), Failure> {
        let intact: String = self.connection.pragma_query_value(None, "integrity_check", |row| row.get(0))?;
        if intact != "ok" {
            return Err(format!("integrity_check: {intact}").into());
        }
        let mut select = self.connection.prepare_cached(SELECT)?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let number = u64::try_from(row.get::<_, i64>(0)?)?;
            sink(&Event { number, id: Uuid::from_bytes(row.get(1)?), payload: row.get(2)? })?;
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    annals_rivals::run(Sqlite::open)
}
