//! What is kept, where and until when, while nothing fails.

use super::*;
use crate::disk::maps::Advice;
use std::io::ErrorKind;

#[test]
fn a_new_file_keeps_its_content_but_its_name_only_after_sync_dir() {
    let disk = disk(1);
    disk.write_new(path("/s/a"), b"content").unwrap();
    assert_eq!(latest(&disk, "/s/a"), b"content");
    assert_sometimes(count(|seed| match disk.crash(seed).read(path("/s/a")) {
        Ok(content) => content == b"content",
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound);
            false
        }
    }));
    disk.sync_dir(path("/s")).unwrap();
    assert_eq!(count(|seed| latest(&disk.crash(seed), "/s/a") == b"content"), SEEDS);
    assert_eq!(disk.name(), "simulated");
}

#[test]
fn directories_are_made_durably() {
    let disk = SimulatedDisk::default();
    disk.create_dirs(path("/a/b/c")).unwrap();
    disk.create_dirs(path("a/b/c")).unwrap();
    let disk = disk.crash(3);
    assert_eq!(disk.list(path("/a/b")).unwrap(), ["c"]);
    assert_eq!(disk.list(path("/x")).unwrap_err().kind(), ErrorKind::NotFound);
    disk.put_raw(path("/a/file"), b"");
    assert_eq!(disk.create_dirs(path("/a/file/d")).unwrap_err().kind(), ErrorKind::NotADirectory);
    assert_eq!(disk.read(path("/a/b")).unwrap_err().kind(), ErrorKind::IsADirectory);
}

#[test]
fn changes_of_names_survive_a_crash_as_a_first_part() {
    let disk = disk(1);
    disk.put_raw(path("/s/current"), b"old");
    disk.write_new(path("/s/temporary"), b"new").unwrap();
    disk.rename(path("/s/temporary"), path("/s/current")).unwrap();
    disk.write_new(path("/s/other"), b"").unwrap();
    disk.remove(path("/s/other")).unwrap();
    assert_eq!(disk.list(path("/s")).unwrap(), ["current"]);
    let mut found = std::collections::BTreeSet::new();
    for seed in 0..SEEDS {
        let after = disk.crash(seed);
        found.insert((after.list(path("/s")).unwrap(), latest(&after, "/s/current")));
    }
    let state = |names: &[&str], content: &[u8]| {
        (names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), content.to_vec())
    };
    let expected = [
        state(&["current"], b"old"),
        state(&["current", "temporary"], b"old"),
        state(&["current"], b"new"),
        state(&["current", "other"], b"new"),
    ];
    assert_eq!(found, expected.into());
    disk.sync_dir(path("/s")).unwrap();
    assert_eq!(count(|seed| latest(&disk.crash(seed), "/s/current") == b"new"), SEEDS);
}

#[test]
fn a_removal_that_is_not_synced_may_be_undone_by_a_crash() {
    let disk = disk_with_log(1, 1);
    let open = open_log(&disk);
    disk.remove(path("/s/log")).unwrap();
    assert_eq!(open.len().unwrap(), BLOCK as u64, "an open file outlives its name");
    write_blocks(&*open, 0, &[1; BLOCK]).unwrap();
    assert_sometimes(count(|seed| {
        let after = disk.crash(seed);
        after.contents(path("/s/log")).is_some_and(|content| content == [1; BLOCK])
    }));
    assert!(disk.remove(path("/s/log")).is_err());
}

#[test]
fn renaming_between_directories_is_durable_with_each_of_them() {
    let disk = disk_with_log(1, 1);
    disk.create_dirs(path("/t")).unwrap();
    disk.rename(path("/s/log"), path("/t/log")).unwrap();
    assert_eq!(disk.paths(), [path("/t/log")]);
    disk.sync_dir(path("/t")).unwrap();
    assert_sometimes(count(|seed| {
        let paths = disk.crash(seed).paths();
        assert!(paths.contains(&path("/t/log").to_owned()));
        paths.len() == 1
    }));
    assert_eq!(disk.rename(path("/s/log"), path("/t/x")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_durable_write_is_there_after_any_crash() {
    let disk = disk_with_log(1, 2);
    let file = open_log(&disk);
    write_blocks(&*file, 1, &[1; 2 * BLOCK]).unwrap();
    assert_eq!(file.len().unwrap(), 3 * BLOCK as u64);
    for seed in 0..SEEDS {
        let after = device(&disk.crash(seed), "/s/log");
        assert_eq!(after[..BLOCK], [0; BLOCK]);
        assert_eq!(after[BLOCK..], [1; 2 * BLOCK]);
    }
}

#[test]
fn a_write_off_the_blocks_is_refused_before_it_counts() {
    let disk = disk_with_log(1, 1);
    let file = open_log(&disk);
    let piece = Piece::copied(&[1]);
    let kind = |offset, bytes| file.write_durable(offset, &[IoSlice::new(bytes)]).unwrap_err().kind();
    assert_eq!(kind(512, piece.as_ref()), ErrorKind::InvalidInput);
    assert_eq!(kind(0, &piece.as_ref()[..512]), ErrorKind::InvalidInput);
    assert_eq!(file.read_device_at(&mut [0; 512], 0).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(disk.operations(), 0);
    drop(file);
    let reader = disk.open(path("/s/log"), Access::Read).unwrap();
    assert_eq!(write_blocks(&*reader, 0, &[1]).unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(reader.punch_from(0).unwrap_err().kind(), ErrorKind::PermissionDenied);
}

#[test]
fn one_handle_at_a_time_writes_a_file() {
    let disk = disk_with_log(1, 1);
    let first = open_log(&disk);
    assert_eq!(disk.open(path("/s/log"), Access::Log).unwrap_err().kind(), ErrorKind::WouldBlock);
    disk.open(path("/s/log"), Access::Read).unwrap();
    let after = disk.kill();
    open_log(&after);
    drop(first);
    open_log(&disk);
}

#[test]
fn reads_stop_at_the_end() {
    let disk = disk(1);
    disk.write_new(path("/s/a"), b"0123456789").unwrap();
    let file = disk.open(path("/s/a"), Access::Read).unwrap();
    let mut buffer = [0; 8];
    assert_eq!(file.read_at(&mut buffer, 4).unwrap(), 6);
    assert_eq!(&buffer[..6], b"456789");
    assert_eq!(file.read_at(&mut buffer, 10).unwrap(), 0);
    assert_eq!(file.read_at(&mut buffer, u64::MAX).unwrap(), 0);
    assert_eq!(disk.open(path("/s/b"), Access::Read).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_map_is_a_copy_of_its_time() {
    let disk = disk_with_log(1, 1);
    let file = open_log(&disk);
    let map = file.map(Advice::Scan).unwrap();
    write_blocks(&*file, 0, &[1; BLOCK]).unwrap();
    assert_eq!(map[..], [0; BLOCK]);
    assert_eq!(file.map(Advice::Scan).unwrap()[..], [1; BLOCK]);
}

#[test]
fn shared_stores_are_seen_at_once_and_durable_after_sync() {
    let disk = disk_with_log(1, 2);
    let shared = disk.open(path("/s/log"), Access::Shared).unwrap();
    let reader = disk.open(path("/s/log"), Access::Read).unwrap();
    let mut map = shared.map_shared().unwrap();
    map.store(0, &[1; 2 * BLOCK]);
    assert_eq!(&reader.map(Advice::Scan).unwrap()[..], [1; 2 * BLOCK]);
    assert_eq!(latest(&disk, "/s/log"), [1; 2 * BLOCK]);
    assert_eq!(disk.operations(), 0);

    let mut on_device = [9; BLOCK];
    assert_eq!(reader.read_device_at(&mut on_device, 0).unwrap(), BLOCK);
    assert_eq!(on_device, [0; BLOCK]);

    let kept = |seed| sectors(&device(&disk.crash(seed), "/s/log"));
    assert_sometimes(count(|seed| kept(seed).iter().all(|kept| *kept)));
    assert_sometimes(count(|seed| !kept(seed).iter().any(|kept| *kept)));
    assert_sometimes(count(|seed| kept(seed).windows(3).any(|three| three == [false, true, false])));
    assert_eq!(kept(5), kept(5), "a seed finds the same");

    map.sync().unwrap();
    assert_eq!(disk.operations(), 1);
    assert_eq!(count(|seed| device(&disk.crash(seed), "/s/log") == [1; 2 * BLOCK]), SEEDS);
}

#[test]
fn the_later_store_into_a_sector_brings_the_earlier() {
    let disk = disk_with_log(1, 1);
    let mut map = disk.open(path("/s/log"), Access::Shared).unwrap().map_shared().unwrap();
    map.store(0, b"first");
    map.store(100, b"second");
    for seed in 0..SEEDS {
        let after = device(&disk.crash(seed), "/s/log");
        assert!(&after[100..106] != b"second" || &after[..5] == b"first");
    }
}

#[test]
fn an_older_unsynced_write_never_undoes_a_durable_one() {
    let disk = disk_with_log(1, 1);
    let mut map = disk.open(path("/s/log"), Access::Shared).unwrap().map_shared().unwrap();
    map.store(0, &[2; 600]);
    write_blocks(&*open_log(&disk), 0, &[1; BLOCK]).unwrap();
    assert_eq!(count(|seed| device(&disk.crash(seed), "/s/log") == [1; BLOCK]), SEEDS);
    map.sync().unwrap();
    assert_eq!(device(&disk, "/s/log"), [1; BLOCK]);
}

#[test]
fn punching_zeroes_the_rest_durably() {
    let disk = disk(1);
    disk.put_raw(path("/s/log"), &[1; 2 * BLOCK]);
    let file = open_log(&disk);
    file.punch_from(BLOCK as u64).unwrap();
    file.punch_from(5 * BLOCK as u64).unwrap();
    let after = device(&disk.crash(1), "/s/log");
    assert_eq!(after[..BLOCK], [1; BLOCK]);
    assert_eq!(after[BLOCK..], [0; BLOCK]);
}

#[test]
fn preallocating_makes_zeros_and_asks_the_pace() {
    let disk = disk(1);
    let mut asked = Vec::new();
    disk.preallocate(path("/s/log"), 2 * ZEROING_BYTES + 1, &mut |bytes| {
        asked.push((bytes, disk.operations()));
        true
    })
    .unwrap();
    assert_eq!(asked, [(ZEROING_BYTES, 1), (ZEROING_BYTES, 1), (1, 1)]);
    let mut asked = 0;
    disk.preallocate(path("/s/log"), 2 * ZEROING_BYTES, &mut |_| {
        asked += 1;
        false
    })
    .unwrap();
    assert_eq!(asked, 1);
    disk.sync_dir(path("/s")).unwrap();
    let after = device(&disk.crash(1), "/s/log");
    assert_eq!(after.len() as u64, 2 * ZEROING_BYTES);
    assert!(after.iter().all(|byte| *byte == 0));
}

#[test]
fn capacity_limits_the_sum_of_lengths_and_removal_gives_back() {
    let disk = disk_with_log(1, 2);
    let full = |result: io::Result<()>| assert_eq!(result.unwrap_err().kind(), ErrorKind::StorageFull);
    disk.set_capacity(4 * BLOCK as u64);
    full(disk.preallocate(path("/s/a"), 3 * BLOCK as u64, &mut |_| panic!("nothing is zeroed")));
    full(disk.preallocate(path("/s/a"), u64::MAX - 1, &mut |_| panic!("nothing is zeroed")));
    disk.preallocate(path("/s/a"), 2 * BLOCK as u64, &mut |_| true).unwrap();
    full(disk.write_new(path("/s/b"), b"1"));
    let file = open_log(&disk);
    full(write_blocks(&*file, 2, &[1]));
    write_blocks(&*file, 1, &[1]).unwrap();
    disk.remove(path("/s/a")).unwrap();
    write_blocks(&*file, 2, &[1]).unwrap();
    full(write_blocks(&*file, 4, &[1]));
    disk.set_capacity(u64::MAX);
    write_blocks(&*file, 4, &[1]).unwrap();
    disk.set_capacity(0);
    disk.remove(path("/s/log")).unwrap();
    full(write_blocks(&*file, 5, &[1]));
}

#[test]
fn locks_have_one_holder_and_go_with_it() {
    let disk = disk(1);
    let lock = path("/s/lock");
    assert_eq!(disk.lock_holder(lock).unwrap(), None);
    let held = disk.lock(lock).unwrap().unwrap();
    let pid = Some(std::process::id());
    assert_eq!(disk.lock(lock).unwrap().unwrap_err(), pid);
    assert_eq!(disk.lock_holder(lock).unwrap(), pid);
    assert_eq!(disk.kill().lock_holder(lock).unwrap(), None);
    assert_eq!(disk.crash(1).lock_holder(lock).unwrap(), None);
    drop(held);
    assert_eq!(disk.lock_holder(lock).unwrap(), None);
    assert!(disk.lock(lock).unwrap().is_ok());
    assert_eq!(disk.lock(path("/x/lock")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.operations(), 0);
}

#[test]
fn damage_is_in_both_views_and_counts_as_nothing() {
    let disk = disk(1);
    let (a, b) = (path("/s/a"), path("/t/u/b"));
    disk.put_raw(a, b"abc");
    disk.put_raw(b, b"b");
    disk.flip_bit(a, 8);
    disk.overwrite(a, 2, b"xyz");
    disk.truncate(a, 4);
    assert_eq!(disk.contents(a).unwrap(), b"acxy");
    assert_eq!(latest(&disk, "/s/a"), disk.contents(a).unwrap());
    assert_eq!(disk.paths(), [a, b]);
    disk.remove_raw(a);
    assert_eq!(disk.contents(a), None);
    disk.put_raw(b, b"longer");
    let after = disk.crash(1);
    assert_eq!(after.paths(), [b]);
    assert_eq!(device(&after, "/t/u/b"), b"longer");
    assert_eq!(disk.operations(), 0);
}

#[test]
fn damage_spares_what_is_unsynced_beside_it() {
    let disk = disk_with_log(1, 1);
    let file = disk.open(path("/s/log"), Access::Shared).unwrap();
    file.map_shared().unwrap().store(0, &[1; 512]);
    disk.overwrite(path("/s/log"), 10, &[7]);
    file.sync().unwrap();
    let after = device(&disk, "/s/log");
    assert_eq!(after[..12], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 7, 1]);
    assert_eq!(after, latest(&disk, "/s/log"));
}
