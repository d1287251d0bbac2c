//! How late flights are, by carrier and route: one read model, in memory and in SQLite.

use annals_sourcing::rusqlite::{Connection, params};
use annals_sourcing::{DomainEvent, Handlers, ModelError, Schema};
use annals_types::Record;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// A flight has arrived, as many minutes late as it says; `None`: nobody has noted it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, DomainEvent)]
#[event("FlightArrived")]
pub struct FlightArrived {
    pub origin: String,
    pub dest: String,
    pub arr_delay: Option<f64>,
}

/// Arrivals and their delays in minutes, added up.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Delay {
    pub flights: u32,
    pub minutes: f64,
}

/// By carrier, and then by origin and destination.
pub type Delays = HashMap<String, HashMap<String, Delay>>;

fn carrier(event: &Record) -> Result<&str, ModelError> {
    Ok(event.tags().find_map(|tag| tag.strip_prefix("carrier:")).ok_or("a flight without a carrier")?)
}

pub fn in_memory() -> Handlers<Delays> {
    Handlers::new().when::<FlightArrived>(|delays: &mut Delays, arrived, event| {
        let Some(minutes) = arrived.arr_delay else { return Ok(()) };
        let carrier = carrier(event)?;
        let route = format!("{}-{}", arrived.origin, arrived.dest);
        if !delays.contains_key(carrier) {
            delays.insert(carrier.to_owned(), HashMap::new());
        }
        let delay = delays.get_mut(carrier).map(|routes| routes.entry(route).or_default());
        if let Some(delay) = delay {
            delay.flights += 1;
            delay.minutes += minutes;
        }
        Ok(())
    })
}

pub const TABLES: Schema = Schema {
    create: "CREATE TABLE delay (carrier TEXT, route TEXT, flights INTEGER, minutes REAL, PRIMARY KEY (carrier, route)) WITHOUT ROWID",
    drop: "DROP TABLE delay",
};

pub fn in_tables() -> Handlers<Connection> {
    Handlers::new().when::<FlightArrived>(|tables: &mut Connection, arrived, event| {
        let Some(minutes) = arrived.arr_delay else { return Ok(()) };
        let mut statement = tables.prepare_cached(
            "INSERT INTO delay VALUES (?1, ?2, 1, ?3)
             ON CONFLICT DO UPDATE SET flights = flights + 1, minutes = minutes + excluded.minutes",
        )?;
        statement.execute(params![
            carrier(event)?,
            format!("{}-{}", arrived.origin, arrived.dest),
            minutes
        ])?;
        Ok(())
    })
}

/// Carrier, route, flights and minutes, in the order of carriers and routes.
pub type Row = (String, String, u32, f64);

pub fn rows_of(delays: &Delays) -> Vec<Row> {
    let mut rows: Vec<_> = delays
        .iter()
        .flat_map(|(carrier, routes)| {
            routes
                .iter()
                .map(move |(route, delay)| (carrier.clone(), route.clone(), delay.flights, delay.minutes))
        })
        .collect();
    rows.sort_by(|one, other| (&one.0, &one.1).cmp(&(&other.0, &other.1)));
    rows
}

pub fn rows_in(tables: &Connection) -> Result<Vec<Row>, annals_sourcing::rusqlite::Error> {
    let mut statement =
        tables.prepare("SELECT carrier, route, flights, minutes FROM delay ORDER BY carrier, route")?;
    let row =
        |row: &annals_sourcing::rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    statement.query_map([], row)?.collect()
}
