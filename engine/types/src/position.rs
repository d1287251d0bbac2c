//! Where an event is: its position in the store, its version in its stream, its time.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(u64);

        impl $name {
            /// The first one, 0.
            pub const ZERO: Self = Self(0);

            /// Wraps a plain number.
            #[must_use]
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// The plain number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// This one and `count` more.
            ///
            /// # Panics
            /// When the sum leaves 64 bits, which no store can reach.
            #[must_use]
            pub const fn plus(self, count: u64) -> Self {
                Self(self.0.checked_add(count).expect("64-bit numbers do not run out"))
            }
        }

        impl From<u64> for $name {
            fn from(number: u64) -> Self {
                Self(number)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// An event's place in the order of the whole store: 0, 1, 2, … without gaps. Position order is
    /// commit order.
    Position
}
number! {
    /// An event's place in its own stream: 0, 1, 2, … without gaps.
    Version
}
number! {
    /// An event's time: nanoseconds since the Unix epoch, UTC. Never smaller than the time of the
    /// event before it in the store. Reaches to the year 2554.
    Timestamp
}
