//! `annals serve`: stores over the network, until a signal.

use super::arguments::{Serve as Options, Serving};
use super::tell;
use super::values::LogLevel;
use crate::config::Config;
use crate::failure::Failure;
use crate::locate::locate;
use crate::output::Output;
use crate::serve::tls::Certificates;
use crate::serve::{self, Limits, Server};
use crate::signals::StopRequest;
use crate::tokens::Tokens;
use annals::{Settings, Store};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

/// How often it is looked for a signal.
const LOOK_PERIOD: Duration = Duration::from_millis(50);
/// Files that are left to stores and all else.
const FILES_OF_STORES: usize = 512;
/// More clients at a time than any system has ports for.
const CONNECTIONS_MAX: usize = 1 << 20;

/// Serves until a signal, then lets what is under way end.
pub(super) fn run(config: &Config, options: &Options) -> Result<(), Failure> {
    let serving = config.serving(&options.serving);
    if options.print_config {
        let mut output = Output::open();
        let text = config.print(&serving, &options.tuning);
        let printed = output.write(|out| out.write_all(text.as_bytes()));
        return output.finish(printed);
    }
    let (tls, limits) = (certificates(&serving)?, limits(&serving));
    let listen = serving.listen.expect("it has a default");
    check_reach(&serving, listen, tls.is_some())?;
    let tls = tls.map(|certificates| certificates.acceptor()).transpose()?;
    let tokens = match &serving.tokens {
        Some(path) => Some(Tokens::open(path).map_err(|error| Failure::io("read", path, error))?),
        None => None,
    };
    let stop = StopRequest::watch()?;
    let linger = Duration::from_micros(serving.linger_micros.unwrap_or_default());
    let settings = Settings { linger, ..config.settings(&options.tuning) };
    settings.validate()?;
    log(serving.log.unwrap_or(LogLevel::Info), config.json);
    let wanted = serving.connections_max.unwrap_or(limits.connections);
    if wanted > limits.connections {
        let possible = limits.connections;
        tracing::warn!(
            wanted,
            possible,
            "fewer clients at a time than wanted, as this process may open few files (ulimit -n)"
        );
    }
    // What is wrong with the default store is said at once. It is made where there is nothing.
    let default = match locate(&config.data, None) {
        Ok(dir) => Some(Store::open_with(dir, settings.clone())?),
        // There are others, and not that one.
        Err(_) => None,
    };
    let served = serve::Options { data: config.data.clone(), listen, admin: serving.admin, settings, limits };
    let server = Server::start_with(served, tokens, tls, default).map_err(|error| {
        let admin = serving.admin.map_or_else(String::new, |admin| format!(" and {admin}"));
        Failure::io("listen on", format!("{listen}{admin}"), error)
    })?;
    let (address, admin) = (server.address(), server.admin_address());
    tell(&if config.json {
        let mut ready = json!({"ready": address.to_string()});
        if let Some(admin) = admin {
            ready["admin"] = json!(admin.to_string());
        }
        ready.to_string()
    } else {
        format!("ready on {address}")
    });
    tracing::info!(%address, admin = admin.map(tracing::field::display), "listening");
    while !stop.is_set() {
        std::thread::sleep(LOOK_PERIOD);
    }
    tracing::info!("stopping");
    server.stop();
    tracing::info!("stopped");
    Ok(())
}

fn limits(serving: &Serving) -> Limits {
    let default = Limits::default();
    let seconds =
        |given: Option<u64>, default| given.map_or(default, |given| Duration::from_secs(given.max(1)));
    Limits {
        connections: serving.connections_max.unwrap_or(default.connections).clamp(1, connections_possible()),
        idle: seconds(serving.idle_seconds, default.idle),
        store_idle: seconds(serving.store_idle_seconds, default.store_idle),
        ..default
    }
}

/// As many files as the system allows may be open, but for those of stores; what is allowed at first may be fewer than what can be
/// asked for.
fn connections_possible() -> usize {
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, it stays as it was.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let files = getrlimit(Resource::Nofile)
        .current
        .map_or(CONNECTIONS_MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    files.saturating_sub(FILES_OF_STORES.min(files / 2)).clamp(1, CONNECTIONS_MAX)
}

/// Who can be reached from other machines asks who they are, and says nothing that others can read, unless told to.
fn check_reach(serving: &Serving, listen: SocketAddr, is_encrypted: bool) -> Result<(), Failure> {
    let reachable = |address: &SocketAddr| !address.ip().is_loopback();
    if serving.insecure {
        return Ok(());
    }
    if let Some(admin) = serving.admin.filter(reachable) {
        return Err(Failure::Usage(format!(
            "--admin {admin} can be reached from other machines, and answers anybody without encryption; \
             listen on 127.0.0.1, or say --insecure"
        )));
    }
    if !reachable(&listen) {
        return Ok(());
    }
    let lacks = match (is_encrypted, serving.tokens.is_some() || serving.tls_client_ca.is_some()) {
        (true, true) => return Ok(()),
        (false, _) => "what is said can be read on its way; give --tls-cert and --tls-key",
        (true, false) => "anybody may do anything; give --tokens or --tls-client-ca",
    };
    Err(Failure::Usage(format!(
        "{listen} can be reached from other machines, and {lacks}, listen on 127.0.0.1, or say --insecure"
    )))
}

/// Has what happens written to standard error.
fn log(level: LogLevel, json: bool) {
    let Some(level) = level.filter() else { return };
    // Where standard error is closed, there is nobody left to tell.
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_target(false)
        .log_internal_errors(false);
    // Only the first server of a process sets it up.
    let _ = if json { log.json().flatten_event(true).try_init() } else { log.with_ansi(false).try_init() };
}

/// The files that encryption is set up with; `None`: none is.
fn certificates(serving: &Serving) -> Result<Option<Certificates>, Failure> {
    match (&serving.tls_cert, &serving.tls_key) {
        (Some(cert), Some(key)) => Ok(Some(Certificates {
            cert: cert.clone(),
            key: key.clone(),
            client_ca: serving.tls_client_ca.clone(),
        })),
        (None, None) if serving.tls_client_ca.is_none() => Ok(None),
        _ => Err(Failure::Usage("--tls-cert FILE and --tls-key FILE are needed, both".to_owned())),
    }
}
