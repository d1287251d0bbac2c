//! Operations, and what goes wrong at them.

use super::*;
use std::io::ErrorKind;
use std::thread;
use std::time::Duration;

#[test]
fn every_change_and_sync_is_an_operation() {
    let disk = SimulatedDisk::new(1);
    disk.create_dirs(path("/s")).unwrap();
    disk.write_new(path("/s/a"), b"").unwrap();
    disk.preallocate(path("/s/b"), BLOCK as u64, &mut |_| true).unwrap();
    disk.rename(path("/s/b"), path("/s/log")).unwrap();
    disk.remove(path("/s/a")).unwrap();
    disk.sync_dir(path("/s")).unwrap();
    assert_eq!(disk.operations(), 6);
    let file = open_log(&disk);
    write_blocks(&*file, 0, &[1]).unwrap();
    file.sync().unwrap();
    file.punch_from(0).unwrap();
    assert_eq!(disk.operations(), 9);
    let mut map = disk.open(path("/s/log"), Access::Shared).unwrap().map_shared().unwrap();
    map.store(0, b"x");
    map.sync().unwrap();
    disk.list(path("/s")).unwrap();
    disk.remove(path("/s/none")).unwrap_err();
    assert_eq!(disk.clone().operations(), 11);
}

#[test]
fn a_fault_strikes_its_operation_once_or_for_good() {
    let disk = disk_with_log(1, 1);
    let file = open_log(&disk);
    disk.fail_at(2, Fault::EIO, Repeat::Once);
    disk.fail_at(4, Fault::Error(ErrorKind::StorageFull), Repeat::ForGood);
    let results: Vec<_> = (0..6).map(|_| write_blocks(&*file, 0, &[1])).collect();
    assert!(results[0].is_ok() && results[2].is_ok());
    assert_eq!(results[1].as_ref().unwrap_err().raw_os_error(), Some(5));
    assert!(results[3..].iter().all(|result| result.as_ref().unwrap_err().kind() == ErrorKind::StorageFull));
    disk.clear_faults();
    write_blocks(&*file, 0, &[1]).unwrap();
    disk.fail_at(8, Fault::ENOSPC, Repeat::Once);
    assert_eq!(disk.remove(path("/s/log")).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(disk.paths(), [path("/s/log")]);
}

/// What others do meanwhile is not held up, and sees what is half done.
#[test]
fn a_slow_disk_does_the_same_later() {
    let disk = disk_with_log(3, 2);
    disk.set_slowness(Duration::from_millis(20));
    disk.fail_at(1, Fault::Short, Repeat::ForGood);
    let writer = {
        let file = open_log(&disk);
        thread::spawn(move || {
            for filled in 1..=40 {
                write_blocks(&*file, 0, &[filled; 2 * BLOCK]).unwrap();
            }
        })
    };
    let (mut halves, mut looks) = (0, 0);
    while !writer.is_finished() {
        let seen = latest(&disk, "/s/log");
        halves += u32::from(seen[0] != seen[2 * BLOCK - 1]);
        looks += 1;
    }
    writer.join().unwrap();
    assert!(looks > 40, "nobody waits for another's operation: {looks} looks");
    assert!(halves > 0, "no write was seen half done in {looks} looks");
    assert_eq!(device(&disk, "/s/log"), [40; 2 * BLOCK]);
    assert_eq!(latest(&disk.crash(1), "/s/log"), [40; 2 * BLOCK]);
}

#[test]
fn a_failed_durable_write_changes_nothing() {
    let disk = disk_with_log(1, 1);
    disk.fail_at(1, Fault::EIO, Repeat::Once);
    write_blocks(&*open_log(&disk), 0, &[1; BLOCK]).unwrap_err();
    assert_eq!(latest(&disk, "/s/log"), [0; BLOCK]);
    assert_eq!(device(&disk, "/s/log"), [0; BLOCK]);
}

#[test]
fn a_short_write_is_completed() {
    let disk = disk_with_log(1, 1);
    disk.fail_at(1, Fault::Short, Repeat::ForGood);
    write_blocks(&*open_log(&disk), 0, &[1; BLOCK]).unwrap();
    assert_eq!(device(&disk, "/s/log"), [1; BLOCK]);
    disk.write_new(path("/s/a"), b"a").unwrap();
}

#[test]
fn a_short_write_that_fails_leaves_its_first_sectors() {
    let mut lengths = std::collections::BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = disk_with_log(seed, 1);
        disk.fail_at(1, Fault::ShortThenError, Repeat::Once);
        let error = write_blocks(&*open_log(&disk), 0, &[1; BLOCK]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(5));
        let written = sectors(&device(&disk, "/s/log"));
        let len = written.iter().filter(|written| **written).count();
        assert!(written[..len].iter().all(|written| *written), "not a first part");
        lengths.insert(len);
    }
    assert_eq!(lengths, (0..8).collect());
}

#[test]
fn a_failed_creation_leaves_nothing_something_or_a_name() {
    let mut found = std::collections::BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = disk(seed);
        disk.fail_at(1, Fault::ENOSPC, Repeat::Once);
        disk.write_new(path("/s/a"), b"content").unwrap_err();
        disk.sync_dir(path("/s")).unwrap();
        let content = disk.read(path("/s/a")).ok();
        if content.is_some() {
            assert_eq!(device(&disk.crash(seed), "/s/a"), b"");
        }
        found.insert(content);
        disk.set_capacity(100);
        disk.fail_at(3, Fault::EIO, Repeat::Once);
        let result = disk.preallocate(path("/s/b"), u64::MAX, &mut |_| true);
        assert_eq!(result.unwrap_err().raw_os_error(), Some(5));
    }
    assert_eq!(found, [None, Some(Vec::new()), Some(b"content".to_vec())].into());
}

#[test]
fn a_failed_sync_says_so_once_and_forgets() {
    let disk = disk_with_log(1, 1);
    let file = disk.open(path("/s/log"), Access::Shared).unwrap();
    let mut map = file.map_shared().unwrap();
    map.store(0, &[1; BLOCK]);
    disk.fail_at(1, Fault::EIO, Repeat::Once);
    map.sync().unwrap_err();
    file.sync().unwrap();
    assert_eq!(latest(&disk, "/s/log"), [1; BLOCK], "the cache still has it");
    assert_eq!(device(&disk, "/s/log"), [0; BLOCK]);
    assert_eq!(latest(&disk.kill(), "/s/log"), [1; BLOCK]);
    assert_eq!(count(|seed| latest(&disk.crash(seed), "/s/log") == [0; BLOCK]), SEEDS);
}

#[test]
fn a_failed_sync_of_a_directory_forgets_its_names() {
    let disk = disk(1);
    disk.write_new(path("/s/a"), b"").unwrap();
    disk.fail_at(2, Fault::EIO, Repeat::Once);
    disk.sync_dir(path("/s")).unwrap_err();
    disk.sync_dir(path("/s")).unwrap();
    assert_eq!(disk.paths(), [path("/s/a")]);
    assert_eq!(count(|seed| disk.crash(seed).paths().is_empty()), SEEDS);
    disk.rename(path("/s/a"), path("/s/b")).unwrap();
    disk.sync_dir(path("/s")).unwrap();
    assert_eq!(disk.crash(1).paths(), [path("/s/b")]);
}

#[test]
fn a_frozen_write_leaves_any_subset_of_its_sectors_and_nothing_follows() {
    let found = |seed| {
        let disk = disk_with_log(seed, 3);
        let file = open_log(&disk);
        let mut map = disk.open(path("/s/log"), Access::Shared).unwrap().map_shared().unwrap();
        disk.freeze_at(2);
        write_blocks(&*file, 0, &[1; BLOCK]).unwrap();
        assert!(!disk.is_frozen());
        write_blocks(&*file, 1, &[1; BLOCK]).unwrap_err();
        assert!(disk.is_frozen());
        write_blocks(&*file, 2, &[1; BLOCK]).unwrap_err();
        map.store(2 * BLOCK, &[1; BLOCK]);
        map.sync().unwrap_err();
        disk.remove(path("/s/log")).unwrap_err();
        assert_eq!(disk.operations(), 5);
        let after = disk.crash(seed);
        assert!(!after.is_frozen());
        assert_eq!(after.operations(), 0);
        write_blocks(&*open_log(&after), 2, &[0]).unwrap();
        let image = sectors(&device(&after, "/s/log"));
        assert!(image[..8].iter().all(|kept| *kept), "the acknowledged write is there");
        assert!(!image[16..].iter().any(|kept| *kept), "nothing that came later is");
        image[8..16].to_vec()
    };
    assert_sometimes(count(|seed| found(seed).iter().all(|kept| *kept)));
    assert_sometimes(count(|seed| !found(seed).iter().any(|kept| *kept)));
    assert_sometimes(count(|seed| found(seed).windows(2).any(|two| two == [false, true])));
}

#[test]
fn other_operations_freeze_half_done_too() {
    let renamed = |seed| {
        let disk = disk_with_log(seed, 1);
        disk.freeze_at(1);
        disk.rename(path("/s/log"), path("/s/x")).unwrap_err();
        let after = disk.kill();
        assert_eq!(after.crash(seed).paths().len(), 1);
        after.paths() == [path("/s/x")]
    };
    assert_sometimes(count(renamed));
    let created = |seed| {
        let disk = disk(seed);
        disk.freeze_at(1);
        disk.write_new(path("/s/a"), &[1; BLOCK]).unwrap_err();
        disk.kill().contents(path("/s/a")).is_some()
    };
    assert_sometimes(count(created));
    let made = |seed| {
        let disk = SimulatedDisk::new(seed);
        disk.freeze_at(1);
        disk.create_dirs(path("/a/b")).unwrap_err();
        let after = disk.crash(seed);
        after.list(path("/a")).is_ok() && after.list(path("/a/b")).is_err()
    };
    assert_sometimes(count(made));
    let punched = |seed| {
        let disk = disk(seed);
        disk.put_raw(path("/s/log"), &[1; BLOCK]);
        let file = open_log(&disk);
        disk.freeze_at(1);
        file.punch_from(0).unwrap_err();
        sectors(&device(&disk.crash(seed), "/s/log")).iter().all(|kept| *kept)
    };
    assert_sometimes(count(punched));
}

#[test]
fn a_kill_keeps_what_was_written_and_leaves_it_unsynced() {
    let disk = disk_with_log(1, 1);
    let mut map = disk.open(path("/s/log"), Access::Shared).unwrap().map_shared().unwrap();
    map.store(0, &[1; BLOCK]);
    disk.write_new(path("/s/a"), b"").unwrap();
    let after = disk.kill();
    assert_eq!(after.operations(), 0);
    assert_eq!(latest(&after, "/s/log"), [1; BLOCK]);
    assert_eq!(after.list(path("/s")).unwrap(), ["a", "log"]);
    assert_eq!(device(&after, "/s/log"), [0; BLOCK]);
    assert_sometimes(count(|seed| latest(&after.crash(seed), "/s/log") == [1; BLOCK]));
    assert_sometimes(count(|seed| after.crash(seed).paths().len() == 2));
    map.store(0, &[2; BLOCK]);
    assert_eq!(latest(&after, "/s/log"), [1; BLOCK], "the copy is a disk of its own");
    after.open(path("/s/log"), Access::Read).unwrap().sync().unwrap();
    assert_eq!(device(&after, "/s/log"), [1; BLOCK]);
}

#[test]
fn a_killed_write_happened_or_not_and_may_still_be_lost() {
    let frozen = |seed| {
        let disk = disk_with_log(seed, 1);
        let file = open_log(&disk);
        disk.freeze_at(1);
        write_blocks(&*file, 0, &[1; BLOCK]).unwrap_err();
        disk.kill()
    };
    assert_sometimes(count(|seed| {
        let content = latest(&frozen(seed), "/s/log");
        assert!(content == [0; BLOCK] || content == [1; BLOCK]);
        content == [1; BLOCK]
    }));
    assert_sometimes(count(|seed| {
        let after = frozen(seed);
        latest(&after, "/s/log") == [1; BLOCK] && latest(&after.crash(seed), "/s/log") != [1; BLOCK]
    }));
}

#[test]
fn a_lying_disk_makes_nothing_durable() {
    let disk = disk_with_log(1, 1);
    disk.lie_about_sync(true);
    let file = open_log(&disk);
    write_blocks(&*file, 1, &[1; BLOCK]).unwrap();
    file.sync().unwrap();
    disk.write_new(path("/s/a"), b"content").unwrap();
    disk.sync_dir(path("/s")).unwrap();
    assert_eq!(latest(&disk, "/s/log").len(), 2 * BLOCK);
    assert_eq!(device(&disk, "/s/log"), [0; BLOCK]);
    assert_sometimes(count(|seed| disk.crash(seed).paths().len() == 1));
    assert_sometimes(count(|seed| device(&disk.crash(seed), "/s/log").len() == BLOCK));
    disk.lie_about_sync(false);
    file.sync().unwrap();
    disk.sync_dir(path("/s")).unwrap();
    assert_eq!(count(|seed| latest(&disk.crash(seed), "/s/log").len() == 2 * BLOCK), SEEDS);
}
