//! Read models in an SQLite database, with how far they have come in the same transactions.

use crate::clock::now;
use crate::projection::{Applied, Handling, ModelError, ParkedEvent, ReadModel};
use annals_types::{Position, Record, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// The tables of a read model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Schema {
    /// Makes them: statements of SQL.
    pub create: &'static str,
    /// Removes them.
    pub drop: &'static str,
}

/// A read model in an SQLite database. Handlers are given the connection, in a transaction that has the progress, too: both or neither.
///
/// The database is in write-ahead mode and syncs only at checkpoints: after a power cut it may have lost the last transactions as a whole, and they come
/// again from the log. Several models may share a file; each has a name.
///
/// Where a model was made by another schema than it is opened with, it has drifted from what the program expects: it is removed, and made anew from the
/// log.
///
/// Handlers are in a transaction already: for one within it, use a savepoint. Where two processes keep one model, the second one to come is told, and nothing is done
/// twice. Its work blocks the thread that polls the projection.
pub struct SqliteModel {
    connection: Connection,
    name: String,
    schema: Schema,
    has_drifted: bool,
    /// Where it was when it was looked at last.
    seen: Option<Position>,
}

const PROGRESS: &str = "
    CREATE TABLE IF NOT EXISTS annals_progress (
        projection TEXT PRIMARY KEY, position INTEGER, made_by TEXT NOT NULL, removed_by TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS annals_parked (
        projection TEXT, position INTEGER, failures INTEGER, time INTEGER, reason TEXT,
        PRIMARY KEY (projection, position)
    ) WITHOUT ROWID;";

impl SqliteModel {
    /// The model of this name in this file; both are made where they are not there.
    ///
    /// # Errors
    /// It is no database, or the schema cannot be made.
    pub fn open(path: impl AsRef<Path>, name: impl Into<String>, schema: Schema) -> rusqlite::Result<Self> {
        Self::on(Connection::open(path)?, name, schema)
    }

    /// The model of this name on a connection.
    ///
    /// # Errors
    /// The schema cannot be made.
    pub fn on(connection: Connection, name: impl Into<String>, schema: Schema) -> rusqlite::Result<Self> {
        let name = name.into();
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
        connection.execute_batch(PROGRESS)?;
        let mut model = Self { connection, name, schema, has_drifted: false, seen: None };
        let made: Option<(String, String)> = model
            .connection
            .query_row(
                "SELECT made_by, removed_by FROM annals_progress WHERE projection = ?1",
                [&model.name],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        model.has_drifted = made.as_ref().is_some_and(|(made_by, _)| made_by != model.schema.create);
        if made.is_none() || model.has_drifted {
            model.in_transaction(|model| {
                model.make(made.as_ref().map(|(_, removed_by)| removed_by.as_str()))
            })?;
        }
        Ok(model)
    }

    /// Makes the tables, empty; removes those that are there.
    fn make(&self, removed_by: Option<&str>) -> rusqlite::Result<usize> {
        if let Some(removed_by) = removed_by {
            self.connection.execute_batch(removed_by)?;
        }
        self.connection.execute_batch(self.schema.create)?;
        self.connection.execute("DELETE FROM annals_parked WHERE projection = ?1", [&self.name])?;
        self.connection.execute(
            "INSERT OR REPLACE INTO annals_progress VALUES (?1, NULL, ?2, ?3)",
            params![self.name, self.schema.create, self.schema.drop],
        )
    }

    /// Whether it was made by another schema before, and is being made anew.
    #[must_use]
    pub fn has_drifted(&self) -> bool {
        self.has_drifted
    }

    /// The connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    fn in_transaction<T, E: From<rusqlite::Error>>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let done = work(self);
        let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
        match (done, self.connection.execute_batch(end)) {
            (Ok(done), Ok(())) => Ok(done),
            // One that cannot be committed is rolled back, so that the next one can begin.
            (Ok(_), Err(error)) => {
                let _ = self.connection.execute_batch("ROLLBACK");
                Err(error.into())
            }
            (Err(error), _) => Err(error),
        }
    }

    /// An error where the model is not as this process has left it: another one keeps it, too.
    fn check(&self) -> Result<(), Undo> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT position, made_by FROM annals_progress WHERE projection = ?1")?;
        let (position, made_by): (Option<i64>, String) =
            statement.query_row([&self.name], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let position = position.map(|position| Position::new(position.unsigned_abs()));
        if position == self.seen && made_by == self.schema.create {
            Ok(())
        } else {
            Err(Undo::Another(position))
        }
    }

    fn note(&self, position: Option<Position>) -> rusqlite::Result<usize> {
        let position = position.map(|position| i64::try_from(position.get()).unwrap_or(i64::MAX));
        let mut statement = self
            .connection
            .prepare_cached("UPDATE annals_progress SET position = ?2 WHERE projection = ?1")?;
        statement.execute(params![self.name, position])
    }
}

/// What undoes a transaction because an event in it failed: which one, and why.
enum Undo {
    Event(usize, ModelError),
    Database(rusqlite::Error),
    /// Another one has changed the model: it is there now.
    Another(Option<Position>),
}

impl Undo {
    /// As what keeps the model from being kept.
    fn into_error(self, name: &str) -> ModelError {
        match self {
            Self::Event(_, error) => error,
            Self::Database(error) => error.into(),
            Self::Another(position) => {
                let place =
                    position.map_or("its beginning".to_owned(), |position| format!("position {position}"));
                format!("another process keeps {name:?}, too, and has brought it to {place}: end one of the two, then resume").into()
            }
        }
    }
}

impl From<rusqlite::Error> for Undo {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl ReadModel for SqliteModel {
    type Model = Connection;

    async fn position(&mut self) -> Result<Option<Position>, ModelError> {
        let mut statement =
            self.connection.prepare_cached("SELECT position FROM annals_progress WHERE projection = ?1")?;
        let position: Option<i64> = statement.query_row([&self.name], |row| row.get(0))?;
        self.seen = position.map(|position| Position::new(position.unsigned_abs()));
        Ok(self.seen)
    }

    async fn apply(
        &mut self,
        events: &[Record],
        last: Position,
        handle: Handling<'_, Connection>,
    ) -> Result<Applied, ModelError> {
        let mut wanted = Applied::all(events.len());
        loop {
            let (some, position) = (&events[..wanted.events], wanted.position(events, last));
            if wanted.failure.is_some() && some.is_empty() {
                return Ok(wanted);
            }
            let done = self.in_transaction(|model| {
                model.check()?;
                let applied = Applied::each(&mut model.connection, some, handle);
                if let Some(failure) = applied.failure {
                    return Err(Undo::Event(applied.events, failure));
                }
                model.note(position)?;
                Ok(())
            });
            match done {
                Ok(()) => {
                    self.seen = position;
                    return Ok(wanted);
                }
                // What it left is undone with all the rest; those before it are done once more.
                Err(Undo::Event(events, failure)) => wanted = Applied { events, failure: Some(failure) },
                Err(other) => return Err(other.into_error(&self.name)),
            }
        }
    }

    async fn park(&mut self, event: &Record, failures: u32, reason: &str) -> Result<(), ModelError> {
        let position = i64::try_from(event.position().get())?;
        let done = self.in_transaction(|model| {
            model.check()?;
            model.connection.execute(
                "INSERT OR REPLACE INTO annals_parked VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    model.name,
                    position,
                    failures,
                    i64::try_from(now().get()).unwrap_or(i64::MAX),
                    reason
                ],
            )?;
            Ok(model.note(Some(event.position()))?)
        });
        done.map_err(|undo: Undo| undo.into_error(&self.name))?;
        self.seen = Some(event.position());
        Ok(())
    }

    async fn parked(&mut self) -> Result<Vec<ParkedEvent>, ModelError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT position, failures, time, reason FROM annals_parked WHERE projection = ?1 ORDER BY position",
        )?;
        let rows = statement.query_map([&self.name], |row| {
            let (position, time): (i64, i64) = (row.get(0)?, row.get(2)?);
            Ok(ParkedEvent {
                position: Position::new(position.unsigned_abs()),
                failures: row.get(1)?,
                time: Timestamp::new(time.unsigned_abs()),
                reason: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    async fn apply_parked(
        &mut self,
        event: &Record,
        handle: Handling<'_, Connection>,
    ) -> Result<Applied, ModelError> {
        let position = i64::try_from(event.position().get())?;
        let done = self.in_transaction(|model| {
            let forget = "DELETE FROM annals_parked WHERE projection = ?1 AND position = ?2";
            // Where it is not parked any more, another one has handled it.
            let was_parked = model.connection.execute(forget, params![model.name, position])?;
            if was_parked > 0 {
                handle(&mut model.connection, event).map_err(|failure| Undo::Event(0, failure))?;
            }
            Ok(was_parked)
        });
        match done {
            Ok(handled) => Ok(Applied::all(handled)),
            Err(Undo::Event(events, failure)) => Ok(Applied { events, failure: Some(failure) }),
            Err(other) => Err(other.into_error(&self.name)),
        }
    }

    async fn reset(&mut self, to: Option<Position>) -> Result<(), ModelError> {
        self.in_transaction(|model| match to {
            None => model.make(Some(model.schema.drop)),
            Some(position) => {
                // What is behind comes again, so it is parked no more.
                let position = i64::try_from(position.get()).unwrap_or(i64::MAX);
                let behind = "DELETE FROM annals_parked WHERE projection = ?1 AND position > ?2";
                model.connection.execute(behind, params![model.name, position])?;
                model.note(to)
            }
        })
        .map_err(|error: rusqlite::Error| ModelError::from(error))?;
        self.seen = to;
        Ok(())
    }
}

impl fmt::Debug for SqliteModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteModel").field("name", &self.name).finish_non_exhaustive()
    }
}
