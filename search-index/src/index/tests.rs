use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemas::Position;

use super::{Entry, IndexError, ListingIndex, ListingSnapshot, MOST_FRESH, MOST_IN_MEMORY, Reflected};
use crate::{Listing, ListingStatus, search::tests::listing};

/// Entities by key: their states.
type Entities = BTreeMap<String, Vec<u8>>;

fn reflected(position: u64) -> Reflected {
    let event_time = Some(i64::try_from(position).unwrap() * 7);
    Reflected { position: Position::new(position), event_time, retirements: position / 100 }
}

fn check(snapshot: &ListingSnapshot, entities: &Entities, position: u64) {
    assert_eq!(snapshot.reflected(), reflected(position));
    assert!(snapshot.keys().unwrap().iter().eq(entities.keys()), "at {position}");
    for (key, state) in entities {
        assert_eq!(snapshot.state(key).unwrap().as_ref(), Some(state), "{key} at {position}");
    }
    assert_eq!(snapshot.state("listing/none").unwrap(), None);
    let public = entities.keys().filter_map(|key| key.strip_prefix("listing/"));
    assert_eq!(snapshot.public_ids().unwrap(), public.collect::<Vec<_>>(), "at {position}");
}

#[test]
fn what_is_put_is_seen_by_refresh_and_kept_by_commit_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let mut index = ListingIndex::open(folder.path()).unwrap();
    index.commit(reflected(0)).unwrap();
    // What each position has: a refresh, or a commit, made it.
    let mut history: BTreeMap<u64, Entities> = BTreeMap::from([(0, Entities::new())]);
    let (mut entities, mut position, mut waited_for) = (Entities::new(), 0, BTreeSet::from([0]));
    let mut held: Option<(Arc<ListingSnapshot>, u64)> = None;
    // Commits taken in beside what was refreshed since; reopened at one that nobody waited for, and before the last refresh.
    let (mut beside, mut in_background, mut lost) = (0, 0, 0);
    for step in 0..2_000_u32 {
        match rng.random_range(0..100) {
            0..75 => {
                // Seldom more than a refresh has room for.
                let changes = if rng.random_bool(0.01) { MOST_FRESH + 5 } else { rng.random_range(0..40) };
                for _ in 0..changes {
                    let id = rng.random_range(0..1_500);
                    let key = format!("{}/{id:04}", if id % 3 == 0 { "vehicle" } else { "listing" });
                    if rng.random_bool(0.2) {
                        index.delete(&key).unwrap();
                        entities.remove(&key);
                        continue;
                    }
                    let listing = key.strip_prefix("listing/").map(|id| Listing {
                        listing_id: id.to_owned(),
                        status: ListingStatus::Public,
                        ..Listing::default()
                    });
                    let state = step.to_be_bytes().to_vec();
                    let entry = Entry { key: &key, state: &state, listing: listing.as_ref() };
                    index.put(&entry, Position::new(position + 1)).unwrap();
                    entities.insert(key, state);
                }
                position += 1;
                if rng.random_bool(0.3) {
                    // However slow commits are here, some end while this goes on.
                    while index.store.is_running() {
                        std::thread::yield_now();
                    }
                }
                let shown = if rng.random_bool(0.03) {
                    waited_for.insert(position);
                    index.commit(reflected(position)).unwrap()
                } else {
                    let (committed, newer) = (index.committed(), index.fresh.iter().any(|fresh| !fresh.in_commit));
                    let shown = index.refresh(reflected(position)).unwrap();
                    beside += u32::from(committed != index.committed() && newer);
                    shown
                };
                if rng.random_bool(0.2) {
                    check(&shown, &entities, position);
                }
                history.insert(position, entities.clone());
                if rng.random_bool(0.1) {
                    held = Some((shown, position));
                }
            }
            75..97 => {
                if index.keep().unwrap() {
                    assert_eq!(index.committed(), Position::new(position));
                    history.retain(|of, _| *of >= position);
                    held = held.filter(|(_, of)| *of == position);
                }
            }
            _ => {
                // The process ends: what a commit reflects is there, no more and no less.
                drop(index);
                index = ListingIndex::open(folder.path()).unwrap();
                let reopened = index.snapshot().position.get();
                lost += u32::from(reopened < position);
                in_background += u32::from(!waited_for.contains(&reopened));
                position = reopened;
                entities = history[&position].clone();
                history.split_off(&(position + 1));
                check(&index.snapshot(), &entities, position);
                held = held.filter(|(_, of)| *of <= position);
            }
        }
        // What a search reads does not change under it.
        if step % 50 == 0
            && let Some((snapshot, of)) = &held
        {
            check(snapshot, &history[of], *of);
        }
    }
    check(&index.snapshot(), &entities, position);
    assert!(beside > 10 && in_background > 10 && lost > 10, "{beside} {in_background} {lost}");
}

#[test]
fn an_index_whose_commit_failed_takes_nothing_more_and_can_be_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = ListingIndex::open(folder.path()).unwrap();
    let put = |index: &mut ListingIndex| {
        index.put(&Entry { key: "vehicle/v1", state: b"{}", listing: None }, Position::START)
    };
    put(&mut index).unwrap();
    index.refresh(reflected(1)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    // The writer may be putting something into it.
    while fs::remove_dir_all(folder.path()).is_err() {
        assert!(Instant::now() < deadline, "the folder cannot be removed");
    }
    let failed = loop {
        assert!(Instant::now() < deadline, "a commit without a folder does not fail");
        match index.keep() {
            Ok(kept) => assert!(!kept, "it cannot be kept"),
            Err(error) => break error,
        }
        std::thread::yield_now();
    };
    assert!(matches!(failed, IndexError::Engine(_)), "{failed:?}");
    assert!(matches!(put(&mut index), Err(IndexError::Failed)));
    assert!(matches!(index.refresh(reflected(2)), Err(IndexError::Failed)));
    assert!(matches!(index.commit(reflected(2)), Err(IndexError::Failed)));
    assert!(matches!(index.keep(), Err(IndexError::Failed)));
    drop(index);
    let mut index = ListingIndex::open(folder.path()).unwrap();
    assert_eq!(index.snapshot().position, Position::START);
    put(&mut index).unwrap();
    check(&index.commit(reflected(3)).unwrap(), &Entities::from([("vehicle/v1".to_owned(), b"{}".to_vec())]), 3);
}

#[test]
fn a_refresh_waits_for_a_commit_when_memory_has_enough() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = ListingIndex::open(folder.path()).unwrap();
    let mut most = 0;
    for number in 1..=40_u64 {
        for entity in 0..MOST_FRESH {
            let key = format!("vehicle/{number}-{entity}");
            index.put(&Entry { key: &key, state: b"{}", listing: None }, Position::START).unwrap();
        }
        index.refresh(reflected(number)).unwrap();
        most = most.max(index.fresh.iter().map(|fresh| fresh.said.len()).sum::<usize>());
    }
    assert!(most <= MOST_IN_MEMORY + MOST_FRESH, "{most} entities are in memory");
    assert!(index.committed() > Position::START);
    assert_eq!(index.snapshot().keys().unwrap().len(), 40 * MOST_FRESH);
}

#[test]
fn what_is_refreshed_stays_in_few_segments_and_leaves_memory_when_it_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = ListingIndex::open(folder.path()).unwrap();
    let mut most = 0;
    for number in 1..=400_u64 {
        for entity in 0..5 {
            let key = format!("vehicle/{number}-{entity}");
            index.put(&Entry { key: &key, state: b"{}", listing: None }, Position::START).unwrap();
        }
        let reflected = Reflected { position: Position::new(number), ..Reflected::default() };
        most = most.max(index.refresh(reflected).unwrap().segments.segments.len());
    }
    assert!(most <= 60, "{most} segments have 2,000 documents");
    keep(&mut index);
    assert!(index.fresh.is_empty());
    let snapshot = index.snapshot();
    assert_eq!((snapshot.segments.segments.len(), snapshot.keys().unwrap().len()), (1, 2_000));
}

#[test]
fn what_is_committed_is_rated_before_anybody_searches_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut index = ListingIndex::open(folder.path()).unwrap();
    let mut put = |index: &mut ListingIndex, number: usize| {
        let listing = listing(&mut rng, number);
        let key = format!("listing/{}", listing.listing_id);
        index.put(&Entry { key: &key, state: b"{}", listing: Some(&listing) }, Position::START).unwrap();
    };
    (0..200).for_each(|number| put(&mut index, number));
    let snapshot = index.commit(reflected(1)).unwrap();
    let market = Arc::new(snapshot.market().unwrap());
    snapshot.rate_with(&market);
    (200..300).for_each(|number| put(&mut index, number));
    index.refresh(reflected(2)).unwrap();
    keep(&mut index);
    let snapshot = index.snapshot();
    assert_eq!(snapshot.segments.segments.len(), 2);
    assert!(snapshot.segments.segments.iter().all(|segment| market.has_rated(segment)));
}

/// Until all is.
fn keep(index: &mut ListingIndex) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !index.keep().unwrap() {
        assert!(Instant::now() < deadline, "a commit does not end");
        std::thread::yield_now();
    }
}

#[test]
fn an_index_with_a_file_cut_short_or_spoiled_anywhere_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = ListingIndex::open(folder.path()).unwrap();
    index.put(&Entry { key: "vehicle/v1", state: b"{}", listing: None }, Position::START).unwrap();
    index.commit(Reflected { position: Position::new(7), ..Reflected::default() }).unwrap();
    drop(index);
    let entries = || fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let whole: Vec<(PathBuf, Vec<u8>)> =
        entries().filter(|path| path.is_file()).map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    let positions_with = |file: &PathBuf, spoiled: &[u8]| {
        for path in entries().filter(|path| path.is_file()) {
            fs::remove_file(path).unwrap();
        }
        for (path, bytes) in &whole {
            fs::write(path, if path == file { spoiled } else { bytes }).unwrap();
        }
        ListingIndex::open(folder.path()).unwrap().snapshot().position
    };
    let mut opened = 0;
    for (file, bytes) in whole.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        let name = file.file_name().unwrap().to_str().unwrap();
        assert_eq!(positions_with(file, bytes), Position::new(7), "{name}");
        let lengths = (0..16).chain([bytes.len() / 2, bytes.len() - 2]).filter(|length| *length < bytes.len());
        let cut = lengths.map(|length| bytes[..length].to_vec());
        let mut flipped = bytes.clone();
        flipped[0] ^= 4;
        for spoiled in cut.chain([flipped]) {
            opened += 1;
            let position = positions_with(file, &spoiled);
            // What the engine lists of its own files is no part of what the index says.
            let expected = if name == ".managed.json" { position } else { Position::START };
            assert_eq!(position, expected, "{name} with {} of {} bytes", spoiled.len(), bytes.len());
        }
    }
    assert!(opened > 50, "{opened}");
}
