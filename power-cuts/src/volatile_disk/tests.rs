use std::ffi::OsStr;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{Inode, ROOT, Rules, Survival, VolatileDisk};

fn name(text: &str) -> &OsStr {
    OsStr::new(text)
}

fn disk() -> VolatileDisk {
    VolatileDisk::new(Rules { journaled_folder: Some("journaled".into()), broken_folder: Some("broken".into()) })
}

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// A file with a synced name, of which "synced" is synced and the rest is not.
fn half_synced() -> (VolatileDisk, Inode) {
    let mut disk = disk();
    let file = disk.create_file(ROOT, name("file"), 0o600).unwrap();
    disk.sync_folder(ROOT).unwrap();
    disk.write(file, 0, b"synced").unwrap();
    disk.sync_file(file).unwrap();
    disk.write(file, 6, b" and not").unwrap();
    (disk, file)
}

#[test]
fn a_power_failure_takes_what_was_not_synced() {
    let (mut disk, file) = half_synced();
    assert_eq!(disk.read(file, 0, 100).unwrap(), b"synced and not");
    disk.lose_power(Survival::Synced, &mut rng(1));
    assert_eq!(disk.read(file, 0, 100).unwrap(), b"synced");
    // What is durable once stays so.
    disk.lose_power(Survival::Some, &mut rng(2));
    assert_eq!(disk.read(file, 0, 100).unwrap(), b"synced");
}

#[test]
fn some_of_what_was_not_synced_may_survive() {
    let mut sizes: Vec<usize> = (0..50)
        .map(|seed| {
            let (mut disk, file) = half_synced();
            disk.lose_power(Survival::Some, &mut rng(seed));
            disk.read(file, 0, 100).unwrap().len()
        })
        .collect();
    sizes.sort_unstable();
    sizes.dedup();
    assert_eq!(sizes, [6, 14], "all of a write within a sector, or nothing of it");
}

#[test]
fn a_file_whose_name_was_not_synced_is_gone() {
    let mut disk = disk();
    let file = disk.create_file(ROOT, name("file"), 0o600).unwrap();
    disk.write(file, 0, b"content").unwrap();
    disk.sync_file(file).unwrap();
    disk.lose_power(Survival::Synced, &mut rng(1));
    assert!(disk.lookup(ROOT, name("file")).is_err());
    assert!(disk.node(file).is_err());
}

#[test]
fn a_removal_or_a_rename_that_was_not_synced_did_not_happen() {
    let (mut disk, file) = half_synced();
    disk.rename((ROOT, name("file")), (ROOT, name("other")), true).unwrap();
    disk.remove_file(ROOT, name("other")).unwrap();
    disk.lose_power(Survival::Synced, &mut rng(1));
    assert_eq!(disk.lookup(ROOT, name("file")).unwrap(), file);
    assert_eq!(disk.entries(ROOT).unwrap().len(), 1);
}

#[test]
fn a_rename_between_folders_is_whole_whichever_of_them_is_synced() {
    for synced in [0, 1] {
        let mut disk = disk();
        let folders = ["a", "b"].map(|folder| disk.create_folder(ROOT, name(folder), 0o700).unwrap());
        disk.sync_folder(ROOT).unwrap();
        let file = disk.create_file(folders[0], name("x"), 0o600).unwrap();
        disk.rename((folders[0], name("x")), (folders[1], name("y")), true).unwrap();
        disk.sync_folder(folders[synced]).unwrap();
        disk.lose_power(Survival::Synced, &mut rng(1));
        assert!(disk.lookup(folders[0], name("x")).is_err());
        assert_eq!(disk.lookup(folders[1], name("y")).unwrap(), file);
    }
}

#[test]
fn a_linked_file_outlives_its_first_name() {
    let (mut disk, file) = half_synced();
    disk.link(file, ROOT, name("entry")).unwrap();
    assert!(disk.link(file, ROOT, name("entry")).is_err(), "a link replaces nothing");
    disk.remove_file(ROOT, name("file")).unwrap();
    disk.sync_folder(ROOT).unwrap();
    disk.lose_power(Survival::Synced, &mut rng(1));
    assert_eq!(disk.lookup(ROOT, name("entry")).unwrap(), file);
    assert_eq!(disk.read(file, 0, 100).unwrap(), b"synced");
}

#[test]
fn in_a_journaled_folder_a_new_files_first_sync_makes_its_path_durable() {
    let mut disk = disk();
    let top = disk.create_folder(ROOT, name("journaled"), 0o700).unwrap();
    let folder = disk.create_folder(top, name("folder"), 0o700).unwrap();
    let file = disk.create_file(folder, name("file"), 0o600).unwrap();
    disk.create_file(folder, name("other"), 0o600).unwrap();
    disk.write(file, 0, b"content").unwrap();
    disk.sync_file(file).unwrap();
    disk.rename((folder, name("file")), (folder, name("renamed")), true).unwrap();
    disk.lose_power(Survival::Synced, &mut rng(1));
    assert_eq!(disk.lookup(folder, name("file")).unwrap(), file);
    assert_eq!(disk.entries(folder).unwrap().len(), 1);
    assert_eq!(disk.read(file, 0, 100).unwrap(), b"content");
}

#[test]
fn a_path_that_is_durable_is_not_undone_by_what_came_before_it() {
    for seed in 0..20 {
        let mut disk = disk();
        let folder = disk.create_folder(ROOT, name("journaled"), 0o700).unwrap();
        disk.create_folder(folder, name("a"), 0o700).unwrap();
        disk.remove_folder(folder, name("a")).unwrap();
        let again = disk.create_folder(folder, name("a"), 0o700).unwrap();
        let file = disk.create_file(again, name("file"), 0o600).unwrap();
        disk.sync_file(file).unwrap();
        disk.lose_power(Survival::Some, &mut rng(seed));
        assert_eq!(disk.lookup(again, name("file")).unwrap(), file);
    }
}

#[test]
fn in_a_broken_folder_nothing_is_synced() {
    let mut disk = disk();
    let folder = disk.create_folder(ROOT, name("broken"), 0o700).unwrap();
    let file = disk.create_file(folder, name("file"), 0o600).unwrap();
    disk.write(file, 0, b"content").unwrap();
    disk.sync_file(file).unwrap();
    disk.sync_folder(folder).unwrap();
    disk.sync_folder(ROOT).unwrap();
    disk.lose_power(Survival::Synced, &mut rng(1));
    assert_eq!(disk.entries(folder).unwrap(), []);
}
