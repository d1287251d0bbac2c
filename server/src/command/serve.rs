//! `annals serve`: stores over the network, until a signal.

use super::arguments::Serve as Options;
use super::tell;
use crate::config::Config;
use crate::failure::Failure;
use crate::locate::locate;
use crate::serve::{self, Limits, Server};
use crate::signals::StopRequest;
use crate::tokens::Tokens;
use annals::Store;
use serde_json::json;
use std::time::Duration;

/// How often it is looked for a signal.
const LOOK_PERIOD: Duration = Duration::from_millis(50);

/// Serves until a signal, then lets what is under way end.
pub(super) fn run(config: &Config, options: &Options) -> Result<(), Failure> {
    let listen = options.listen;
    if !listen.ip().is_loopback() && !options.insecure {
        return Err(Failure::Usage(format!(
            "{listen} can be reached from other machines, and what is said can be read on its way; \
             listen on 127.0.0.1, or say --insecure"
        )));
    }
    let tokens = match &options.tokens {
        Some(path) => Some(Tokens::open(path).map_err(|error| Failure::io("read", path, error))?),
        None => None,
    };
    let stop = StopRequest::watch()?;
    let settings = config.settings(&options.tuning);
    settings.validate()?;
    // What is wrong with the default store is said at once. It is made where there is nothing.
    let default = match locate(&config.data, None) {
        Ok(dir) => Some(Store::open_with(dir, settings.clone())?),
        // There are others, and not that one.
        Err(_) => None,
    };
    let served = serve::Options { data: config.data.clone(), listen, settings, limits: Limits::default() };
    let server = Server::start_with(served, tokens, default)
        .map_err(|error| Failure::io("listen on", listen.to_string(), error))?;
    let address = server.address();
    tell(&if config.json {
        json!({"ready": address.to_string()}).to_string()
    } else {
        format!("ready on {address}")
    });
    while !stop.is_set() {
        std::thread::sleep(LOOK_PERIOD);
    }
    server.stop();
    Ok(())
}
