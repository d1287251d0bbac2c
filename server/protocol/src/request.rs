//! What a client asks for.

use crate::wire::{Malformed, Rest, Wire, parts, put_list};
use annals_types::{
    Append, DeliveryId, Follow, Load, Nack, NewSnapshot, NewSubscription, ParkedChoice, Position, Read,
    Start, Version, limits,
};
use bytes::BytesMut;
use std::borrow::Cow;

/// The first message of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello<'a> {
    /// Oldest version of the protocol that the client speaks.
    pub version_min: u16,
    /// Newest version that it speaks.
    pub version_max: u16,
    /// What it can do beyond that version. Unknown bits are ignored.
    pub features: u64,
    /// What it calls itself, for logs.
    pub client: Cow<'a, str>,
    /// The store with handle 0.
    pub store: Cow<'a, str>,
    /// Who it is; `None`: nobody.
    pub token: Option<Cow<'a, str>>,
}
parts!(Hello<'a> { version_min, version_max, features, client, store, token });

/// How new what is read must be. Unlike a position, it has a meaning on one machine, too: all is up to date there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Consistency {
    /// 0: what the server that is asked has; 1: what the leader has.
    pub level: u8,
    /// Waits until this position is there, if it is given: for who read it elsewhere.
    pub at_least: Option<Position>,
}
parts!(Consistency { level, at_least });

/// What a client asks for.
#[derive(Clone, PartialEq, Debug)]
pub enum Request<'a> {
    /// Begins the connection.
    Hello(Hello<'a>),
    /// Asks whether anybody is there.
    Ping,
    /// Asks for a handle of another store.
    OpenStore(Cow<'a, str>),
    /// Ends a request whose answers are still coming.
    Cancel(u64),
    /// Allows so many bytes more of answers to a request.
    Credit(u64, u64),
    /// Appends a batch.
    Append(Append<'a>),
    /// Appends a batch that an earlier request may have appended, unless it cannot be known any more whether one did that was sent when
    /// this was the next position, or later.
    AppendAgain(Append<'a>, Position),
    /// Reads, with so many bytes of credit.
    Read(Read<'a>, Consistency, u64),
    /// Follows, with so many bytes of credit.
    Follow(Follow<'a>, u64),
    /// A stream's last event.
    Head(Cow<'a, str>),
    /// All streams with their heads, with so many bytes of credit.
    Streams(u64),
    /// Where a cursor is.
    Cursor(Cow<'a, str>),
    /// All cursors.
    Cursors,
    /// Facts about the store.
    Stat,
    /// Checks everything.
    Verify,
    /// A stream's state: a snapshot, and the events behind it, with so many bytes of credit.
    Load(Load<'a>, u64),
    /// Writes a snapshot of a stream at a version.
    WriteSnapshot(NewSnapshot<'a>, Version),
    /// A stream's snapshots.
    Snapshots(Cow<'a, str>),
    /// Names of streams that have snapshots.
    SnapshotStreams,
    /// Deletes snapshots of a stream and name: that of a version, or all.
    DeleteSnapshots(Cow<'a, str>, Cow<'a, str>, Option<Version>),
    /// Creates a durable subscription.
    CreateSubscription(NewSubscription<'a>),
    /// Deletes one.
    DeleteSubscription(Cow<'a, str>),
    /// Begins one again from a place.
    ResetSubscription(Cow<'a, str>, Start),
    /// Stops one, for a reason.
    StopSubscription(Cow<'a, str>, Cow<'a, str>),
    /// Lets one go on.
    ResumeSubscription(Cow<'a, str>),
    /// How one stands.
    Subscription(Cow<'a, str>),
    /// How all stand.
    Subscriptions,
    /// The parked events of one.
    Parked(Cow<'a, str>),
    /// Has parked events handed out again.
    ReplayParked(Cow<'a, str>, ParkedChoice),
    /// Is done with parked events.
    DiscardParked(Cow<'a, str>, ParkedChoice),
    /// Becomes a member of one, and is handed events as long as this request lasts, with so many bytes of credit.
    Join(Cow<'a, str>, u64),
    /// Events that the member, by its request, was handed are done with.
    Ack(u64, Vec<DeliveryId>),
    /// An event that the member was handed could not be handled.
    Nack(u64, DeliveryId, Nack<'a>),
    /// The member needs more time.
    Renew(u64),
    /// Creates a store.
    CreateStore(Cow<'a, str>),
    /// Names of the stores.
    Stores,
    /// Drops a store with all that is in it.
    DropStore(Cow<'a, str>),
}

macro_rules! kinds {
    ($($number:literal = $variant:ident $(($($part:ident),*))?),* $(,)?) => {
        impl<'a> Request<'a> {
            /// The kind that its frame has.
            #[must_use]
            pub fn kind(&self) -> u16 {
                match self {
                    Self::Ack(..) => ACK,
                    $(Self::$variant { .. } => $number),*
                }
            }

            /// Appends its body.
            pub fn encode(&self, to: &mut BytesMut) {
                match self {
                    Self::Ack(member, ids) => {
                        member.put(to);
                        put_list(ids, to);
                    }
                    $(Self::$variant $(($($part),*))? => { $($($part.put(to);)*)? let _ = to; })*
                }
            }

            /// Takes a body apart.
            ///
            /// # Errors
            /// It is none of this kind, or of no kind that there is.
            pub fn decode(kind: u16, body: &'a [u8]) -> Result<Self, Malformed> {
                let mut rest = Rest::new(body);
                let request = match kind {
                    ACK => Self::Ack(Wire::take(&mut rest)?, rest.list(limits::OPEN_MAX)?),
                    $($number => Self::$variant $(($({ let $part = Wire::take(&mut rest)?; $part }),*))?,)*
                    _ => return Err(Malformed { what: "an unknown kind of request", unknown_kind: Some(kind) }),
                };
                // What a newer client says of itself besides is of no interest here.
                if !matches!(request, Self::Hello(_)) {
                    rest.end()?;
                }
                Ok(request)
            }
        }
    };
}

const ACK: u16 = 41;

kinds! {
    1 = Hello(hello),
    2 = Ping,
    3 = OpenStore(name),
    4 = Cancel(request),
    5 = Credit(request, bytes),
    10 = Append(append),
    11 = Read(read, consistency, credit),
    12 = Follow(follow, credit),
    13 = Head(stream),
    14 = Streams(credit),
    15 = Cursor(name),
    16 = Cursors,
    17 = Stat,
    18 = Verify,
    19 = AppendAgain(append, since),
    20 = Load(load, credit),
    21 = WriteSnapshot(snapshot, version),
    22 = Snapshots(stream),
    23 = SnapshotStreams,
    24 = DeleteSnapshots(stream, name, version),
    30 = CreateSubscription(new),
    31 = DeleteSubscription(name),
    32 = ResetSubscription(name, start),
    33 = StopSubscription(name, reason),
    34 = ResumeSubscription(name),
    35 = Subscription(name),
    36 = Subscriptions,
    37 = Parked(name),
    38 = ReplayParked(name, which),
    39 = DiscardParked(name, which),
    40 = Join(name, credit),
    42 = Nack(member, id, nack),
    43 = Renew(member),
    50 = CreateStore(name),
    51 = Stores,
    52 = DropStore(name),
}
