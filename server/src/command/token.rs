//! `annals token`: who may do what on a server.

use super::arguments::{Token as Options, TokenAction as Action};
use crate::config::Config;
use crate::failure::Failure;
use crate::output::Output;
use crate::tokens::{self, Grant, Token};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where the tokens are.
pub(super) fn path(config: &Config, given: Option<&Path>) -> PathBuf {
    given.map_or_else(|| tokens::default_path(&config.data), Path::to_owned)
}

/// Does what is asked for.
pub(super) fn run(config: &Config, options: &Options) -> Result<(), Failure> {
    let path = path(config, options.tokens.as_deref());
    // Held until the end: of two who change it at a time, neither undoes what the other did.
    let _alone = match &options.action {
        Action::List => None,
        _ => Some(tokens::lock(&path).map_err(|error| Failure::io("lock", &path, error))?),
    };
    let mut known = tokens::read(&path).map_err(|error| Failure::io("read", &path, error))?;
    let mut output = Output::open();
    let done = match &options.action {
        Action::Create { name, right, store, prefix } => {
            if name.is_empty() {
                return Err(Failure::Usage("whose token is it? give a NAME".to_owned()));
            }
            if known.iter().any(|token| token.name == *name) {
                return Err(Failure::Usage(format!(
                    "there is a token \"{}\" already; revoke it first",
                    name.escape_debug()
                )));
            }
            let grant = |&right| Grant { right, store: store.clone(), prefix: prefix.clone() };
            let (token, secret) = Token::new(name.clone(), right.iter().map(grant).collect());
            known.push(token);
            tokens::write(&path, &known).map_err(|error| Failure::io("write", &path, error))?;
            if config.json {
                output.json_line(&json!({ "name": name, "token": secret }))
            } else {
                output.write(|out| writeln!(out, "{secret}"))
            }
        }
        Action::List if !path.exists() => {
            return Err(Failure::Usage(format!(
                "there are no tokens in {}; see annals token create",
                path.display()
            )));
        }
        Action::List => known.iter().try_for_each(|token| {
            if config.json {
                return output.json_line(&json!({ "name": token.name, "grants": token.grants }));
            }
            output.write(|out| {
                let grants = serde_json::to_string(&token.grants)?;
                writeln!(out, "{}  {grants}", token.name.escape_debug())
            })
        }),
        Action::Revoke { name } => {
            let before = known.len();
            known.retain(|token| token.name != *name);
            if known.len() == before {
                return Err(Failure::NoToken { name: name.clone() });
            }
            tokens::write(&path, &known).map_err(|error| Failure::io("write", &path, error))
        }
    };
    output.finish(done)
}
