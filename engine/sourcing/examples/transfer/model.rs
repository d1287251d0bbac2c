//! Accounts and transfers between them: one decision about two streams.

use annals_sourcing::{
    Context, Decider, DomainEvent, HandleError, Handled, Place, Repository, SnapshotPolicy, Snapshots,
    SourcingError,
};
use annals_types::EventStore;
use std::collections::BTreeMap;
use std::fmt;

#[derive(Clone, PartialEq, Debug, DomainEvent)]
pub enum AccountEvent {
    #[event("AccountOpened")]
    Opened { account: String },
    #[event("MoneyDeposited")]
    Deposited { account: String, cents: u64 },
    #[event("MoneySent")]
    Sent { account: String, to: String, cents: u64 },
    #[event("MoneyReceived")]
    Received { account: String, from: String, cents: u64 },
}

#[derive(Clone, Debug)]
pub enum AccountCommand {
    Open { account: String },
    Deposit { account: String, cents: u64 },
    Transfer { from: String, to: String, cents: u64 },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccountError {
    IsOpen(String),
    IsNotOpen(String),
    /// There is only so much.
    NotEnough {
        cents: u64,
    },
    ToItself,
}

impl fmt::Display for AccountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IsOpen(account) => write!(f, "the account {account} is open already"),
            Self::IsNotOpen(account) => write!(f, "there is no account {account}"),
            Self::NotEnough { cents } => write!(f, "there are only {cents} cents"),
            Self::ToItself => f.write_str("from an account to itself nothing is transferred"),
        }
    }
}

/// What is on the accounts that a decision is about: one, or two.
pub type Balances = BTreeMap<String, u64>;

#[derive(Clone)]
pub struct Accounts;

pub fn stream(account: &str) -> String {
    format!("account-{account}")
}

impl Decider for Accounts {
    type State = Balances;
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Error = AccountError;

    fn initial(&self) -> Balances {
        Balances::new()
    }

    fn evolve(&self, balances: &mut Balances, event: &AccountEvent) {
        match event {
            AccountEvent::Opened { account } => drop(balances.insert(account.clone(), 0)),
            AccountEvent::Deposited { account, cents } | AccountEvent::Received { account, cents, .. } => {
                *balances.entry(account.clone()).or_default() += cents;
            }
            AccountEvent::Sent { account, cents, .. } => {
                *balances.entry(account.clone()).or_default() -= cents
            }
        }
    }

    fn decide(
        &self,
        balances: &Balances,
        command: &AccountCommand,
    ) -> Result<Vec<AccountEvent>, AccountError> {
        let balance = |account: &String| {
            balances.get(account).copied().ok_or_else(|| AccountError::IsNotOpen(account.clone()))
        };
        match command.clone() {
            AccountCommand::Open { account } => match balance(&account) {
                Ok(_) => Err(AccountError::IsOpen(account)),
                Err(_) => Ok(vec![AccountEvent::Opened { account }]),
            },
            AccountCommand::Deposit { account, cents } => {
                balance(&account)?;
                Ok(vec![AccountEvent::Deposited { account, cents }])
            }
            AccountCommand::Transfer { from, to, .. } if from == to => Err(AccountError::ToItself),
            AccountCommand::Transfer { from, to, cents } => {
                balance(&to)?;
                let there = balance(&from)?;
                if there < cents {
                    return Err(AccountError::NotEnough { cents: there });
                }
                Ok(vec![
                    AccountEvent::Sent { account: from.clone(), to: to.clone(), cents },
                    AccountEvent::Received { account: to, from, cents },
                ])
            }
        }
    }

    fn place(&self, event: &AccountEvent) -> Place {
        match event {
            AccountEvent::Opened { account }
            | AccountEvent::Deposited { account, .. }
            | AccountEvent::Sent { account, .. }
            | AccountEvent::Received { account, .. } => Place::stream(stream(account)),
        }
    }
}

/// What a command led to, or why to nothing.
pub type Told = Result<Handled<AccountEvent, Balances>, HandleError<AccountError>>;

#[derive(Clone)]
pub struct Bank<S>(Repository<S, Accounts>);

impl<S: EventStore> Bank<S> {
    pub fn new(store: S) -> Result<Self, SourcingError> {
        let snapshots = Snapshots::new(SnapshotPolicy::Every(100), 1);
        Ok(Self(Repository::new(store, Accounts)?.snapshots(snapshots).attempts_max(100)))
    }

    pub async fn tell(&self, command: AccountCommand) -> Told {
        let context = Context::new().source("bank");
        match &command {
            AccountCommand::Open { account } | AccountCommand::Deposit { account, .. } => {
                self.0.handle(stream(account), &command, &context).await
            }
            AccountCommand::Transfer { from, to, .. } => {
                let (from, to) = (stream(from), stream(to));
                self.0.handle([from.as_str(), to.as_str()], &command, &context).await
            }
        }
    }

    /// What a transfer would lead to now. Nothing is appended.
    pub async fn would(&self, from: &str, to: &str, cents: u64) -> Told {
        let command = AccountCommand::Transfer { from: from.to_owned(), to: to.to_owned(), cents };
        let (from, to) = (stream(from), stream(to));
        self.0.dry_run([from.as_str(), to.as_str()], &command).await
    }

    pub async fn balance(&self, account: &str) -> Result<u64, SourcingError> {
        Ok(self.0.find(&stream(account)).await?.state.get(account).copied().unwrap_or(0))
    }
}
