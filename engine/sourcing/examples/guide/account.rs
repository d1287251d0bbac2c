// What docs/guide.md begins with; its later pieces go on from here.
use annals_sourcing::{Context, Decider, DomainEvent, Repository};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, DomainEvent)]
enum AccountEvent {
    #[event("AccountOpened")]
    Opened { owner: String },
    #[event("MoneyDeposited")]
    Deposited { cents: u64 },
    #[event("MoneyWithdrawn")]
    Withdrawn { cents: u64 },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Balance {
    owner: Option<String>,
    cents: u64,
}

#[allow(dead_code)]
enum AccountCommand {
    Open { owner: String },
    Deposit { cents: u64 },
    Withdraw { cents: u64 },
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
enum AccountError {
    #[error("the account is open already")]
    IsOpen,
    #[error("there is no such account")]
    IsNotOpen,
    #[error("there are only {cents} cents")]
    NotEnough { cents: u64 },
}

#[derive(Clone)]
struct Account;

impl Decider for Account {
    type State = Balance;
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Error = AccountError;

    fn initial(&self) -> Balance {
        Balance::default()
    }

    fn evolve(&self, balance: &mut Balance, event: &AccountEvent) {
        match event {
            AccountEvent::Opened { owner } => balance.owner = Some(owner.clone()),
            AccountEvent::Deposited { cents } => balance.cents += cents,
            AccountEvent::Withdrawn { cents } => balance.cents -= cents,
        }
    }

    fn decide(&self, balance: &Balance, command: &AccountCommand) -> Result<Vec<AccountEvent>, AccountError> {
        Ok(match (command, &balance.owner) {
            (AccountCommand::Open { owner }, None) => vec![AccountEvent::Opened { owner: owner.clone() }],
            (AccountCommand::Open { .. }, Some(_)) => return Err(AccountError::IsOpen),
            (_, None) => return Err(AccountError::IsNotOpen),
            (AccountCommand::Deposit { cents }, _) => vec![AccountEvent::Deposited { cents: *cents }],
            (AccountCommand::Withdraw { cents }, _) if *cents > balance.cents => {
                return Err(AccountError::NotEnough { cents: balance.cents });
            }
            (AccountCommand::Withdraw { cents }, _) => vec![AccountEvent::Withdrawn { cents: *cents }],
        })
    }
}
