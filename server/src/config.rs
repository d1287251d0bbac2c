//! Settings: from flags, then `ANNALS_*` environment variables, then a TOML file, in that order of
//! strength. Flags and environment are merged by clap; this adds the file and the defaults.

use crate::command::arguments::{Common, Tuning};
use crate::command::values::DiskName;
use crate::failure::Failure;
use crate::locate::locate;
use annals::{Settings, Store};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Where a store is looked for when nothing says where.
const DATA_DEFAULT: &str = "./data";

/// The TOML file. Its keys are the names of the flags, with `_` for `-`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    data: Option<PathBuf>,
    store: Option<String>,
    server: Option<String>,
    batch: Option<u64>,
    disk: Option<DiskName>,
    segment_bytes_first: Option<u64>,
    segment_bytes_max: Option<u64>,
    recent_bytes: Option<u64>,
    cached_heads: Option<usize>,
    id_window: Option<u64>,
    compress_above_bytes: Option<usize>,
    snapshots_kept: Option<u32>,
}

/// What a command works with, once every source of settings has spoken.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// What was given: a store, or a directory of stores.
    pub(crate) data: PathBuf,
    directory: PathBuf,
    /// Whether to print for machines.
    pub(crate) json: bool,
    /// Events a batch of an import, where the file says so.
    pub(crate) batch: Option<u64>,
    file: File,
}

impl Config {
    /// Reads the file that is named, if one is, and finds the store in `data` (flag or environment).
    pub(crate) fn resolve(data: Option<&Path>, common: &Common) -> Result<Self, Failure> {
        refuse_server_options(common)?;
        let file = common.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        if file.server.is_some() {
            return Err(Failure::NotYet("working on a server (server in the configuration file)".to_owned()));
        }
        let data = data.or(file.data.as_deref()).unwrap_or(Path::new(DATA_DEFAULT));
        let directory = locate(data, common.store.as_deref().or(file.store.as_deref()))?;
        Ok(Self { data: data.to_owned(), directory, json: common.json, batch: file.batch, file })
    }

    /// The same, to serve all stores in `data`: none of them is chosen.
    pub(crate) fn resolve_all(data: Option<&Path>, common: &Common) -> Result<Self, Failure> {
        refuse_server_options(common)?;
        let file = common.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let data = data.or(file.data.as_deref()).unwrap_or(Path::new(DATA_DEFAULT)).to_owned();
        Ok(Self { directory: data.clone(), data, json: common.json, batch: file.batch, file })
    }

    /// Opens the store for reading, beside a writer or without one. Creates nothing.
    pub(crate) fn open_for_reading(&self) -> Result<Store, Failure> {
        Ok(Store::open_read_only(&self.directory)?)
    }

    /// What stores are opened with.
    pub(crate) fn settings(&self, tuning: &Tuning) -> Settings {
        settings(tuning, &self.file)
    }

    /// Opens the store for writing, and creates it where there is none.
    pub(crate) fn open_for_writing(&self, tuning: &Tuning) -> Result<Store, Failure> {
        Ok(Store::open_with(&self.directory, self.settings(tuning))?)
    }

    /// Opens a store that is there for writing. Creates nothing.
    pub(crate) fn open_existing_for_writing(&self) -> Result<Store, Failure> {
        drop(self.open_for_reading()?);
        self.open_for_writing(&Tuning::default())
    }
}

fn settings(flags: &Tuning, file: &File) -> Settings {
    let default = Settings::default();
    Settings {
        disk: flags.disk.or(file.disk).map_or(default.disk, DiskName::choice),
        segment_bytes_first: flags
            .segment_bytes_first
            .or(file.segment_bytes_first)
            .unwrap_or(default.segment_bytes_first),
        segment_bytes_max: flags
            .segment_bytes_max
            .or(file.segment_bytes_max)
            .unwrap_or(default.segment_bytes_max),
        recent_bytes: flags.recent_bytes.or(file.recent_bytes).unwrap_or(default.recent_bytes),
        cached_heads: flags.cached_heads.or(file.cached_heads).unwrap_or(default.cached_heads),
        id_window: flags.id_window.or(file.id_window).unwrap_or(default.id_window),
        compress_above_bytes: flags
            .compress_above_bytes
            .or(file.compress_above_bytes)
            .or(default.compress_above_bytes),
        snapshots_kept: flags.snapshots_kept.or(file.snapshots_kept).unwrap_or(default.snapshots_kept),
    }
}

/// What only a server needs is not there yet; silently ignoring it would work on the wrong store.
fn refuse_server_options(common: &Common) -> Result<(), Failure> {
    let given = [
        ("--server", common.server.is_some()),
        ("--token", common.token.is_some()),
        ("--ca", common.ca.is_some()),
        ("--cert", common.cert.is_some()),
        ("--key", common.key.is_some()),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        Some((option, _)) => Err(Failure::NotYet(format!("working on a server ({option})"))),
        None => Ok(()),
    }
}

fn read_file(path: &Path) -> Result<File, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("could not read --config {}: {error}", path.display())))?;
    parse_file(&text)
        .map_err(|error| Failure::Usage(format!("the configuration file {}: {error}", path.display())))
}

fn parse_file(text: &str) -> Result<File, String> {
    toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use annals::DiskChoice;

    #[test]
    fn flags_are_stronger_than_the_file_and_the_file_than_defaults() {
        let file =
            parse_file("disk = \"buffered\"\nsegment_bytes_max = 1048576\nrecent_bytes = 5\n").unwrap();
        let flags = Tuning { recent_bytes: Some(7), ..Tuning::default() };
        let settings = settings(&flags, &file);
        assert_eq!(settings.disk, DiskChoice::Buffered);
        assert_eq!(settings.segment_bytes_max, 1 << 20);
        assert_eq!(settings.recent_bytes, 7);
        assert_eq!(settings.cached_heads, Settings::default().cached_heads);
    }

    #[test]
    fn unknown_keys_of_the_file_are_refused() {
        assert!(parse_file("dta = \"x\"").unwrap_err().contains("dta"));
        assert!(parse_file("disk = \"floppy\"").is_err());
        assert_eq!(parse_file("").unwrap(), File::default());
    }
}
