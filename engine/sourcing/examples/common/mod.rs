//! Where the store of an example is, and how an example ends.

use clap::Args;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args, Debug, Default)]
pub struct Place {
    /// The directory of an embedded store; a new one that is removed afterwards where neither it nor a server is given.
    #[arg(long, value_name = "DIR", conflicts_with = "server")]
    pub data: Option<PathBuf>,

    /// A server's address.
    #[arg(long, value_name = "ADDR")]
    pub server: Option<String>,
}

/// Does this with the store, wherever it is: one setting chooses.
#[macro_export]
macro_rules! with_store {
    ($place:expr, $store:ident => $work:expr) => {{
        let place: &$crate::common::Place = $place;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let scratch = tempfile::tempdir()?;
        runtime.block_on(async {
            match &place.server {
                Some(address) => {
                    let $store =
                        annals_client::Client::connect(annals_client::Options::new(address.as_str())).await?;
                    $work.await
                }
                None => {
                    let $store = annals::Store::open(place.data.as_deref().unwrap_or(scratch.path()))?;
                    $work.await
                }
            }
        })
    }};
}

/// Says what went wrong, in words.
pub fn end(done: Result<(), Box<dyn Error>>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
