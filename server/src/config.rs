//! Settings: from flags, then `ANNALS_*` environment variables, then a TOML file, in that order of
//! strength. Flags and environment are merged by clap; this adds the file and the defaults.

use crate::command::arguments::{Common, Serving, Tuning};
use crate::command::values::{DiskName, LogLevel};
use crate::failure::Failure;
use crate::locate::{STORE_DEFAULT, locate};
use crate::serve::Limits;
use crate::source::Source;
use crate::tokens;
use annals::{Settings, Store};
use annals_client::{ClientError, Failure as Refusal, Options, Tls, blocking};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Where a store is looked for when nothing says where.
const DATA_DEFAULT: &str = "./data";
/// Where a server listens when nothing says where.
const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4777);

/// About what a client takes from one answer to its next request, both on this machine.
const LINGER_MICROS_DEFAULT: u64 = 120;

/// The TOML file. Its keys are the names of the flags, with `_` for `-`; those of `serve` alone are in its table `serve`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    data: Option<PathBuf>,
    store: Option<String>,
    server: Option<String>,
    token: Option<PathBuf>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    batch: Option<u64>,
    disk: Option<DiskName>,
    segment_bytes_first: Option<u64>,
    segment_bytes_max: Option<u64>,
    recent_bytes: Option<u64>,
    cached_heads: Option<usize>,
    id_window: Option<u64>,
    compress_above_bytes: Option<usize>,
    snapshots_kept: Option<u32>,
    serve: Serving,
}

/// Settings of a server, as a file has them.
#[derive(Serialize)]
struct Printed<'a> {
    data: &'a Path,
    disk: DiskName,
    segment_bytes_first: u64,
    segment_bytes_max: u64,
    recent_bytes: u64,
    cached_heads: usize,
    id_window: u64,
    compress_above_bytes: Option<usize>,
    snapshots_kept: u32,
    serve: &'a Serving,
}

/// Who says something: the stronger wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Strength {
    File,
    Environment,
    Flag,
}

/// Where the command line and the environment say that the store is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'a> {
    pub(crate) data: Option<(&'a Path, Strength)>,
    pub(crate) server: Option<(&'a str, Strength)>,
}

/// Where the store is.
#[derive(Clone, Debug)]
enum Place {
    Here(PathBuf),
    There(Box<Options>),
}

/// What a command works with, once every source of settings has spoken.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// What was given: a store, or a directory of stores.
    pub(crate) data: PathBuf,
    place: Place,
    /// Whether to print for machines.
    pub(crate) json: bool,
    is_insecure: bool,
    /// Events a batch of an import, where the file says so.
    pub(crate) batch: Option<u64>,
    file: File,
}

impl Config {
    /// Reads the file that is named, if one is, and finds the store: in a directory, or on a server.
    pub(crate) fn resolve(places: Places<'_>, common: &Common) -> Result<Self, Failure> {
        let file = common.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let store = common.store.as_deref().or(file.store.as_deref());
        let (data, server) = strongest(places, &file)?;
        let data = data.unwrap_or(Path::new(DATA_DEFAULT)).to_owned();
        let place = match server {
            Some(server) => Place::There(Box::new(options(server, store, common, &file)?)),
            None => Place::Here(locate(&data, store)?),
        };
        let (json, is_insecure) = (common.json, common.insecure);
        Ok(Self { data, place, json, is_insecure, batch: file.batch, file })
    }

    /// The same, for what is done to the stores of a directory or server, none of which is chosen.
    pub(crate) fn resolve_stores(places: Places<'_>, common: &Common) -> Result<Self, Failure> {
        let file = common.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        if strongest(places, &file)?.1.is_none() {
            return Self::resolve_all(places, common);
        }
        Self::resolve(places, &Common { store: None, ..common.clone() })
    }

    /// The same, for what is done on the files themselves: to `data` as it is given, none of its stores is chosen.
    pub(crate) fn resolve_all(places: Places<'_>, common: &Common) -> Result<Self, Failure> {
        if let Some((server, Strength::Flag)) = places.server {
            return Err(Failure::Usage(format!(
                "this works on the files of this machine; leave out --server {server}"
            )));
        }
        let file = common.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let data = places.data.map(|data| data.0).or(file.data.as_deref());
        let data = data.unwrap_or(Path::new(DATA_DEFAULT)).to_owned();
        let place = Place::Here(data.clone());
        let (json, is_insecure) = (common.json, common.insecure);
        Ok(Self { data, place, json, is_insecure, batch: file.batch, file })
    }

    /// Opens the store for reading, beside a writer or without one. Creates nothing.
    pub(crate) fn open_for_reading(&self) -> Result<Source, Failure> {
        match &self.place {
            Place::Here(directory) => Ok(Source::Here(Store::open_read_only(directory)?)),
            Place::There(options) => connect(options),
        }
    }

    /// How stores are served: by flags and environment, then by the file, then by default.
    pub(crate) fn serving(&self, given: &Serving) -> Serving {
        let limits = Limits::default();
        let default = Serving {
            listen: Some(LISTEN_DEFAULT),
            log: Some(LogLevel::Info),
            connections_max: Some(limits.connections),
            idle_seconds: Some(limits.idle.as_secs()),
            store_idle_seconds: Some(limits.store_idle.as_secs()),
            linger_micros: Some(LINGER_MICROS_DEFAULT),
            ..Serving::default()
        };
        let given = Serving { insecure: self.is_insecure, ..given.clone() };
        let mut serving = given.or(&self.file.serve).or(&default);
        // Whoever made tokens where they are looked for wants them to be asked for.
        let tokens = tokens::default_path(&self.data);
        if serving.tokens.is_none() && tokens.exists() {
            serving.tokens = Some(tokens);
        }
        serving
    }

    /// All settings of a server, as a file that has them.
    pub(crate) fn print(&self, serving: &Serving, tuning: &Tuning) -> String {
        let settings = self.settings(tuning);
        let printed = Printed {
            data: &self.data,
            disk: tuning.disk.or(self.file.disk).unwrap_or(DiskName::Auto),
            segment_bytes_first: settings.segment_bytes_first,
            segment_bytes_max: settings.segment_bytes_max,
            recent_bytes: settings.recent_bytes,
            cached_heads: settings.cached_heads,
            id_window: settings.id_window,
            compress_above_bytes: settings.compress_above_bytes,
            snapshots_kept: settings.snapshots_kept,
            serve: serving,
        };
        toml::to_string(&printed).unwrap_or_default()
    }

    /// What stores are opened with.
    pub(crate) fn settings(&self, tuning: &Tuning) -> Settings {
        settings(tuning, &self.file)
    }

    /// Opens the store for writing, and creates it where there is none.
    pub(crate) fn open_for_writing(&self, tuning: &Tuning) -> Result<Source, Failure> {
        match &self.place {
            Place::Here(directory) => Ok(Source::Here(Store::open_with(directory, self.settings(tuning))?)),
            Place::There(options) => connect(options),
        }
    }

    /// Opens a store that is there for writing. Creates nothing.
    pub(crate) fn open_existing_for_writing(&self) -> Result<Source, Failure> {
        if let Place::Here(_) = self.place {
            drop(self.open_for_reading()?);
        }
        self.open_for_writing(&Tuning::default())
    }

    /// The server, to work on it and not on one of its stores; `None`: the stores are in [`Config::data`].
    pub(crate) fn server(&self) -> Result<Option<blocking::Client>, Failure> {
        match &self.place {
            Place::Here(_) => Ok(None),
            Place::There(options) => {
                Ok(Some(blocking::Client::connect(Options::clone(options).store(String::new()))?))
            }
        }
    }
}

fn connect(options: &Options) -> Result<Source, Failure> {
    match blocking::Client::connect(options.clone()) {
        Ok(client) => Ok(Source::There(client, OnceLock::new())),
        Err(error @ ClientError::Refused(Refusal::NoStore { .. })) => Err(no_store(options, error)),
        Err(error) => Err(error.into()),
    }
}

/// That the server has no such store, with the names of those that it has, if it tells them.
fn no_store(options: &Options, error: ClientError) -> Failure {
    let names =
        blocking::Client::connect(options.clone().store(String::new())).and_then(|client| client.stores());
    match names {
        Ok(names) if !names.is_empty() => {
            Failure::NoStore { address: options.address.clone(), name: options.store.clone(), names }
        }
        _ => error.into(),
    }
}

/// The directory and the server that are given: of both, the one that is given more strongly.
fn strongest<'a>(places: Places<'a>, file: &'a File) -> Result<(Option<&'a Path>, Option<&'a str>), Failure> {
    let data = places.data.or(file.data.as_deref().map(|data| (data, Strength::File)));
    let server = places.server.or(file.server.as_deref().map(|server| (server, Strength::File)));
    match (data, server) {
        (Some((data, by_data)), Some((server, by_server))) if by_data == by_server => {
            Err(Failure::Usage(format!(
                "both a directory (--data {}) and a server (--server {server}) are given; leave out one",
                data.display()
            )))
        }
        (Some(data), Some(server)) if data.1 > server.1 => Ok((Some(data.0), None)),
        (data, server) => Ok((data.map(|data| data.0), server.map(|server| server.0))),
    }
}

/// How the server is reached.
fn options(server: &str, store: Option<&str>, common: &Common, file: &File) -> Result<Options, Failure> {
    let host = host_of(server)?;
    let mut options = Options::new(server).store(store.unwrap_or(STORE_DEFAULT));
    options.name = concat!("annals ", env!("CARGO_PKG_VERSION")).to_owned();
    if let Some(path) = common.token.as_ref().or(file.token.as_ref()) {
        if path.to_string_lossy().starts_with(tokens::PREFIX) {
            return Err(Failure::Usage(
                "--token takes the name of a file with the token, not the token".to_owned(),
            ));
        }
        if common.ca.as_ref().or(file.ca.as_ref()).is_none() && !is_here(host) && !common.insecure {
            return Err(Failure::Usage(format!(
                "the token could be read on its way to {server}; give --ca FILE, by which the server is recognised, or say \
                 --insecure"
            )));
        }
        options = options.token(String::from_utf8_lossy(&read("--token", path)?).trim());
    }
    let (ca, cert) = (common.ca.as_ref().or(file.ca.as_ref()), common.cert.as_ref().or(file.cert.as_ref()));
    let identity = match (cert, common.key.as_ref().or(file.key.as_ref())) {
        (Some(cert), Some(key)) => Some((read("--cert", cert)?, read("--key", key)?)),
        (None, None) => None,
        _ => return Err(Failure::Usage("--cert FILE and --key FILE belong together".to_owned())),
    };
    match (ca, identity) {
        (None, None) => Ok(options),
        (None, Some(_)) => Err(Failure::Usage(
            "--cert FILE is for encrypted connections; say --ca FILE, by which the server is recognised"
                .to_owned(),
        )),
        (Some(ca), identity) => {
            let authorities = read("--ca", ca)?;
            let identity = identity.as_ref().map(|(cert, key)| (&cert[..], &key[..]));
            let tls = Tls::from_pem(&authorities, identity).map_err(|error| {
                Failure::Usage(format!("{error}; see --ca {}, --cert and --key", ca.display()))
            })?;
            Ok(options.tls(tls))
        }
    }
}

/// The host of a server's address.
fn host_of(server: &str) -> Result<&str, Failure> {
    let parts =
        server.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    let wrong = || Failure::Usage(format!("--server {server}: write HOST:PORT, as in localhost:4777"));
    parts.map(|(host, _)| host).ok_or_else(wrong)
}

/// Whether a host is this very machine.
fn is_here(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn read(option: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path)
        .map_err(|error| Failure::Usage(format!("could not read {option} {}: {error}", path.display())))
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
        linger: default.linger,
    }
}

fn read_file(path: &Path) -> Result<File, Failure> {
    let text = read("--config", path)?;
    let text = String::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned());
    text.and_then(|text| parse_file(&text))
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

    #[test]
    fn the_stronger_place_wins_and_two_of_the_same_strength_are_refused() {
        let resolve = |data, server| {
            let places = Places {
                data: Some((Path::new("/nowhere/data"), data)),
                server: Some(("127.0.0.1:1", server)),
            };
            Config::resolve(places, &Common::default()).map(|config| matches!(config.place, Place::There(_)))
        };
        use Strength::{Environment, File, Flag};
        assert!(resolve(Environment, Flag).unwrap() && resolve(File, Environment).unwrap());
        assert!(!resolve(Flag, Environment).unwrap() && !resolve(Environment, File).unwrap());
        for strength in [Flag, Environment, File] {
            let message = resolve(strength, strength).unwrap_err().to_string();
            assert!(message.contains("leave out one"), "{message}");
        }
    }
}
