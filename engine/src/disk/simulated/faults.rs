//! What goes wrong, and at which operation.

use std::io::{self, ErrorKind};

/// What happens to an operation instead of its success.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// It fails so. A failed sync forgets what it should have synced and says so this once; a failed creation
    /// leaves nothing, an empty file, or one that is whole in the cache alone; anything else has no effect.
    Error(ErrorKind),
    /// The same, with an error number of the operating system.
    Errno(i32),
    /// A durable write stops half-way, is interrupted, and is then completed by the disk itself: it succeeds, but
    /// others may see it half done. Other operations succeed as ever.
    Short,
    /// A durable write gets a random number of its first sectors onto the device, then fails with EIO. Other
    /// operations fail with EIO.
    ShortThenError,
}

impl Fault {
    /// An input/output error.
    pub const EIO: Self = Self::Errno(rustix::io::Errno::IO.raw_os_error());
    /// No space left on the device.
    pub const ENOSPC: Self = Self::Errno(rustix::io::Errno::NOSPC.raw_os_error());
}

/// How often a planned fault strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repeat {
    /// At its operation alone.
    Once,
    /// At its operation and all later ones.
    ForGood,
}

/// What is decided about an operation as it begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// `in_halves`: in two steps where it is a durable write.
    Passes {
        in_halves: bool,
    },
    Fails(Failure),
    /// The machine stops in the middle of it.
    Freezes,
}

/// How an operation fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Failure {
    Kind(ErrorKind),
    Errno(i32),
    /// EIO, after some of the first sectors where it is a durable write.
    AfterSome,
}

impl Failure {
    pub(super) fn error(self) -> io::Error {
        match self {
            Self::Kind(kind) => kind.into(),
            Self::Errno(number) => io::Error::from_raw_os_error(number),
            Self::AfterSome => rustix::io::Errno::IO.into(),
        }
    }
}

/// The faults and the freeze that are planned.
#[derive(Clone, Default, Debug)]
pub(super) struct Plan {
    faults: Vec<Planned>,
    freeze_at: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Planned {
    number: u64,
    fault: Fault,
    repeat: Repeat,
}

impl Planned {
    fn strikes(&self, operation: u64) -> bool {
        match self.repeat {
            Repeat::Once => operation == self.number,
            Repeat::ForGood => operation >= self.number,
        }
    }
}

impl Plan {
    pub(super) fn add(&mut self, number: u64, fault: Fault, repeat: Repeat) {
        self.faults.push(Planned { number, fault, repeat });
    }

    pub(super) fn freeze_at(&mut self, number: u64) {
        self.freeze_at = Some(number);
    }

    pub(super) fn fate(&self, operation: u64) -> Fate {
        if self.freeze_at.is_some_and(|number| operation >= number) {
            return Fate::Freezes;
        }
        match self.faults.iter().find(|planned| planned.strikes(operation)).map(|planned| planned.fault) {
            None => Fate::Passes { in_halves: false },
            Some(Fault::Short) => Fate::Passes { in_halves: true },
            Some(Fault::Error(kind)) => Fate::Fails(Failure::Kind(kind)),
            Some(Fault::Errno(number)) => Fate::Fails(Failure::Errno(number)),
            Some(Fault::ShortThenError) => Fate::Fails(Failure::AfterSome),
        }
    }
}
