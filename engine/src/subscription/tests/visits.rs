//! Every state that a small machine can get into is visited, and those of a large one by chance.

use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

/// Visits every state that can be reached, and from each sees to it that it ends. Returns how many there are.
fn visit_all(settings: NewSubscription<'static>, streams: Vec<u64>, ops: &[Op]) -> usize {
    let first = World::new(settings, streams, a_moment());
    let mut seen = HashSet::from([first.fingerprint()]);
    let mut to_visit = VecDeque::from([first]);
    while let Some(world) = to_visit.pop_front() {
        for &op in ops {
            if matches!(op, Op::Join) && world.members.len() == 2 {
                continue;
            }
            let mut next = world.clone();
            next.step(op);
            if seen.insert(next.fingerprint()) {
                next.clone().check_that_it_ends();
                to_visit.push_back(next);
            }
        }
    }
    seen.len()
}

const ORDERS: [DeliveryOrder; 3] = [DeliveryOrder::ByStream, DeliveryOrder::Total, DeliveryOrder::Unordered];

#[test]
fn every_state_of_a_small_subscription_is_right_and_leads_to_the_end() {
    let handling = [
        Op::Offer,
        Op::Join,
        Op::Leave(0),
        Op::Take(0),
        Op::Take(1),
        Op::Ack(0),
        Op::Ack(1),
        Op::Retry(0),
        Op::LateAck(0),
        Op::Wait,
        Op::Flush,
        Op::Crash,
    ];
    for order in ORDERS {
        for membership in [Membership::Exclusive, Membership::Shared] {
            let states = visit_all(settings(membership, order, 1), vec![1, 1], &handling);
            eprintln!("{order:?} {membership:?}: {states} states");
            assert!(states > 300, "{states}");
        }
    }
}

#[test]
fn every_state_with_parking_stopping_and_resetting_is_right_and_leads_to_the_end() {
    let administering = [
        Op::Offer,
        Op::Join,
        Op::Take(0),
        Op::Ack(0),
        Op::Park(0),
        Op::Skip(0),
        Op::Stop(0),
        Op::Resume,
        Op::Replay,
        Op::Discard,
        Op::Reset(0),
        Op::Reset(1),
        Op::Crash,
    ];
    for order in ORDERS {
        let states = visit_all(settings(Membership::Shared, order, 2), vec![1, 2, 1], &administering);
        eprintln!("{order:?}: {states} states");
        assert!(states > 300, "{states}");
    }
}

fn ops() -> impl Strategy<Value = Op> {
    let member = 0..4_usize;
    prop_oneof![
        6 => Just(Op::Offer),
        1 => Just(Op::Join),
        1 => member.clone().prop_map(Op::Leave),
        8 => member.clone().prop_map(Op::Take),
        6 => member.clone().prop_map(Op::Ack),
        2 => member.clone().prop_map(Op::Retry),
        1 => member.clone().prop_map(Op::Park),
        1 => member.clone().prop_map(Op::Skip),
        1 => member.clone().prop_map(Op::Stop),
        1 => member.clone().prop_map(Op::Renew),
        1 => member.prop_map(Op::LateAck),
        2 => Just(Op::Wait),
        2 => Just(Op::Resume),
        1 => Just(Op::Replay),
        1 => Just(Op::Discard),
        1 => (0..30_u64).prop_map(Op::Reset),
        2 => Just(Op::Flush),
        1 => Just(Op::Crash),
    ]
}

proptest! {
    #[test]
    fn a_large_subscription_is_right_whatever_happens(
        ops in prop::collection::vec(ops(), 0..150),
        streams in prop::collection::vec(0..4_u64, 30),
        order in 0..3_usize,
        is_shared in any::<bool>(),
        in_flight_max in 1..4_u32,
    ) {
        let membership = if is_shared { Membership::Shared } else { Membership::Exclusive };
        let mut world = World::new(settings(membership, ORDERS[order], in_flight_max), streams, a_moment());
        ops.into_iter().for_each(|op| world.step(op));
        world.check_that_it_ends();
    }
}
