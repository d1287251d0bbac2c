//! Transfers between two accounts, many at once: nothing is lost and nothing made on the way.
//!
//! `cargo run --example transfer`; with `--server ADDR` or `--data DIR` on a store of yours.

#![allow(missing_docs, unreachable_pub)]

#[path = "../common/mod.rs"]
mod common;
mod model;

use annals_types::EventStore;
use clap::Parser;
use model::{AccountCommand, Bank};
use std::error::Error;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Transfers between two accounts, many at once")]
struct Arguments {
    #[command(flatten)]
    place: common::Place,

    /// How many transfers.
    #[arg(long, default_value_t = 50)]
    transfers: u64,

    /// Only say what a transfer of so many cents from ada to bob would lead to.
    #[arg(long, value_name = "CENTS")]
    dry_run: Option<u64>,
}

fn main() -> ExitCode {
    common::end(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    with_store!(&arguments.place, store => transfer(store, &arguments))
}

async fn transfer<S: EventStore>(store: S, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let bank = Bank::new(store)?;
    if let Some(cents) = arguments.dry_run {
        match bank.would("ada", "bob", cents).await {
            Ok(would) => println!("{:?} would happen, and the balances be {:?}", would.events, would.state),
            Err(error) => println!("{error}"),
        }
        return Ok(());
    }
    let transfers = arguments.transfers;
    for account in ["ada", "bob"] {
        let account = account.to_owned();
        if let Err(error) = bank.tell(AccountCommand::Open { account: account.clone() }).await {
            println!("{error}");
        }
        bank.tell(AccountCommand::Deposit { account, cents: 10_000 }).await?;
    }
    let all: Vec<_> = (0..transfers)
        .map(|number| {
            let bank = bank.clone();
            let (from, to) = if number % 3 == 0 { ("bob", "ada") } else { ("ada", "bob") };
            let command =
                AccountCommand::Transfer { from: from.into(), to: to.into(), cents: number * 37 % 2_000 };
            tokio::spawn(async move { bank.tell(command).await })
        })
        .collect();
    let mut refused = 0;
    for one in all {
        if let Err(error) = one.await? {
            refused += 1;
            println!("{error}");
        }
    }
    let (ada, bob) = (bank.balance("ada").await?, bank.balance("bob").await?);
    println!(
        "{} transfers, {refused} refused; ada has {ada} cents, bob {bob}: {} together",
        transfers,
        ada + bob
    );
    Ok(())
}
