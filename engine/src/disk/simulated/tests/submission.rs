//! Writes in flight.

use super::*;
use crate::disk::Write;
use std::time::Duration;

fn submit(submitter: &mut dyn Submitter, file: &Arc<dyn File>, token: u64) {
    let offset = token * BLOCK as u64;
    let pieces = vec![Piece::copied(&[1; BLOCK])];
    submitter.submit(Write { token, file: Arc::clone(file), offset, pieces }, false);
}

fn submitter(disk: &SimulatedDisk) -> Box<dyn Submitter> {
    disk.submitter(Arc::new(Notify::new())).unwrap()
}

#[test]
fn writes_complete_at_once_unless_a_depth_is_set() {
    let disk = disk_with_log(1, 4);
    let file = open_log(&disk);
    let mut submitter = submitter(&disk);
    assert_eq!(submitter.pipelining().depth, 1);
    submit(&mut *submitter, &file, 0);
    assert_eq!(device(&disk, "/s/log")[0], 1);
    assert!(matches!(submitter.completed()[..], [(0, Ok(()))]));
}

#[test]
fn pending_writes_complete_in_any_order() {
    let order = |seed| {
        let disk = disk_with_log(seed, 4);
        disk.set_depth(4);
        let file = open_log(&disk);
        let mut submitter = submitter(&disk);
        assert_eq!(submitter.pipelining().depth, 4);
        (0..4).for_each(|token| submit(&mut *submitter, &file, token));
        assert_eq!(disk.operations(), 4);
        assert!(submitter.completed().is_empty());
        assert_eq!(device(&disk, "/s/log"), [0; 4 * BLOCK]);
        let mut order = Vec::new();
        while order.len() < 4 {
            submitter.wait();
            let completed = submitter.completed();
            assert!(!completed.is_empty());
            for (token, result) in completed {
                result.unwrap();
                order.push(token);
            }
        }
        assert_eq!(device(&disk, "/s/log"), [1; 4 * BLOCK]);
        order
    };
    assert_sometimes(count(|seed| order(seed).is_sorted()));
    assert_sometimes(count(|seed| order(seed)[0] == 3));
    assert_eq!(order(7), order(7));
}

#[test]
fn faults_strike_pending_writes_by_their_submission() {
    let disk = disk_with_log(1, 3);
    disk.set_depth(3);
    let file = open_log(&disk);
    let mut submitter = submitter(&disk);
    disk.fail_at(2, Fault::EIO, Repeat::Once);
    (0..3).for_each(|token| submit(&mut *submitter, &file, token));
    let mut failed = Vec::new();
    for _ in 0..3 {
        submitter.wait();
        let completed = submitter.completed();
        failed.extend(completed.into_iter().filter(|(_, result)| result.is_err()).map(|(token, _)| token));
        if failed.len() == 3 {
            break;
        }
    }
    drop(submitter);
    assert_eq!(failed, [1]);
    let kept = sectors(&device(&disk, "/s/log"));
    assert!(kept[..8].iter().chain(&kept[16..]).all(|kept| *kept) && !kept[8]);
}

#[test]
fn a_freeze_leaves_any_part_of_the_writes_in_flight() {
    let found = |seed| {
        let disk = disk_with_log(seed, 3);
        disk.set_depth(3);
        let file = open_log(&disk);
        let mut submitter = submitter(&disk);
        disk.freeze_at(3);
        (0..3).for_each(|token| submit(&mut *submitter, &file, token));
        let mut failed = 0;
        while failed < 3 {
            submitter.wait();
            failed += submitter.completed().into_iter().filter(|(_, result)| result.is_err()).count();
        }
        sectors(&device(&disk.crash(seed), "/s/log"))
    };
    for write in 0..3 {
        let part = |seed| found(seed)[write * 8..write * 8 + 8].to_vec();
        assert_sometimes(count(|seed| part(seed).iter().all(|kept| *kept)));
        assert_sometimes(count(|seed| !part(seed).iter().any(|kept| *kept)));
    }
    assert_sometimes(count(|seed| found(seed).windows(3).any(|three| three == [false, true, false])));
}

#[test]
fn a_crash_takes_writes_in_flight_as_they_are_and_leaves_them_pending() {
    let disk = disk_with_log(1, 1);
    disk.set_depth(2);
    let file = open_log(&disk);
    let mut submitter = submitter(&disk);
    submit(&mut *submitter, &file, 0);
    let kept = |seed| sectors(&device(&disk.crash(seed), "/s/log"));
    assert_sometimes(count(|seed| kept(seed).iter().all(|kept| *kept)));
    assert_sometimes(count(|seed| kept(seed).windows(2).any(|two| two == [false, true])));
    assert_eq!(device(&disk, "/s/log"), [0; BLOCK]);
    submitter.wait();
    assert!(matches!(submitter.completed()[..], [(0, Ok(()))]));
}

#[test]
fn waiting_for_nothing_ends_with_the_wake_up() {
    let disk = disk_with_log(1, 1);
    disk.set_depth(2);
    let wake = Arc::new(Notify::new());
    let mut submitter = disk.submitter(Arc::clone(&wake)).unwrap();
    wake.notify_one();
    submitter.wait();
    let ringer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        wake.notify_one();
    });
    submitter.wait();
    ringer.join().unwrap();
    assert!(submitter.completed().is_empty());
}

#[test]
fn a_dropped_submitter_leaves_nothing_in_flight() {
    let disk = disk_with_log(1, 1);
    disk.set_depth(2);
    let file = open_log(&disk);
    let mut submitter = submitter(&disk);
    submit(&mut *submitter, &file, 0);
    drop(submitter);
    assert_eq!(device(&disk, "/s/log"), [1; BLOCK]);
}
