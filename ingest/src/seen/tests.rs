use std::collections::HashMap;

use proptest::prelude::*;
use schemas::{EventKey, Position};

use super::{Occurrence, SeenError, SeenEvents};

const END: Position = Position::new(u64::MAX);

fn at(position: u64) -> Position {
    Position::new(position)
}

#[test]
fn the_lowest_position_of_an_id_takes_effect_however_often_it_is_read() -> Result<(), SeenError> {
    let folder = tempfile::tempdir().unwrap();
    let seen = SeenEvents::open(folder.path(), "log-1", END)?;
    let key = EventKey::of("e-1");
    seen.insert(&[(key, at(12))], None)?;
    assert_eq!(seen.observe(&[(key, at(10))], at(10))?, [Occurrence::First]);
    for _ in 0..2 {
        assert_eq!(seen.observe(&[(key, at(10))], at(10))?, [Occurrence::First]);
        assert_eq!(seen.observe(&[(key, at(12))], at(12))?, [Occurrence::Repeated(at(10))]);
    }
    assert_eq!(seen.positions(&[key, EventKey::of("e-2")])?, [Some(at(10)), None]);
    assert_eq!(seen.position()?, at(12));
    Ok(())
}

#[test]
fn it_survives_a_restart_and_forgets_another_log() -> Result<(), SeenError> {
    let folder = tempfile::tempdir().unwrap();
    let key = EventKey::of("e-1");
    let seen = SeenEvents::open(folder.path(), "log-1", END)?;
    seen.observe(&[(key, at(300))], at(70_000))?;
    seen.write_out()?;
    seen.observe(&[(EventKey::of("e-2"), at(70_001))], at(70_001))?;
    drop(seen);
    let again = SeenEvents::open(folder.path(), "log-1", END)?;
    // What was not in a file is gone, and the position says so.
    assert_eq!((again.positions(&[key])?, again.position()?), (vec![Some(at(300))], at(70_000)));
    assert_eq!(again.positions(&[EventKey::of("e-2")])?, [None]);
    drop(again);
    let other = SeenEvents::open(folder.path(), "log-2", END)?;
    assert_eq!((other.positions(&[key])?, other.position()?), (vec![None], Position::START));
    Ok(())
}

#[test]
fn what_is_acknowledged_is_known_until_it_is_read_back_and_then_in_the_store() -> Result<(), SeenError> {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(EventKey::of);
    let seen = SeenEvents::open(folder.path(), "log", END)?;
    seen.acknowledge(&[(a, at(7)), (b, at(8))])?;
    assert_eq!(seen.positions(&[a, b, c])?, [Some(at(7)), Some(at(8)), None]);
    // Another message with the id of `b` is read first: a message straight to the stream, say.
    assert_eq!(seen.observe(&[(b, at(6)), (a, at(7))], at(7))?, [Occurrence::First, Occurrence::First]);
    assert_eq!(seen.observe(&[(b, at(8))], at(8))?, [Occurrence::Repeated(at(6))]);
    // An acknowledgement that comes after its event was read back changes nothing.
    seen.acknowledge(&[(a, at(7)), (b, at(8))])?;
    assert!(seen.ahead().first.is_empty());
    seen.write_out()?;
    drop(seen);
    assert_eq!(SeenEvents::open(folder.path(), "log", END)?.positions(&[a, b])?, [Some(at(7)), Some(at(6))]);
    Ok(())
}

#[test]
fn it_forgets_what_the_log_does_not_hold_and_what_is_no_event() -> Result<(), SeenError> {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (EventKey::of("e-1"), EventKey::of("e-2"));
    let seen = SeenEvents::open(folder.path(), "log-1", END)?;
    seen.observe(&[(first, at(3)), (second, at(4))], at(5))?;
    seen.forget(&[(first, at(3)), (second, at(9))])?;
    assert_eq!(seen.positions(&[first, second])?, [None, Some(at(4))]);
    // As the publisher records it, ahead of the reader.
    seen.insert(&[(first, at(8))], None)?;
    seen.write_out()?;
    drop(seen);
    assert_eq!(SeenEvents::open(folder.path(), "log-1", at(8))?.positions(&[first])?, [Some(at(8))]);
    assert_eq!(SeenEvents::open(folder.path(), "log-1", at(7))?.positions(&[first, second])?, [None, None]);
    Ok(())
}

#[test]
fn a_damaged_store_is_begun_anew() -> Result<(), SeenError> {
    let folder = tempfile::tempdir().unwrap();
    let key = EventKey::of("e-1");
    let seen = SeenEvents::open(folder.path(), "log-1", END)?;
    seen.observe(&[(key, at(3))], at(3))?;
    seen.write_out()?;
    drop(seen);
    for file in std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()) {
        if file.is_file() {
            std::fs::write(file, b"garbage").unwrap();
        }
    }
    let seen = SeenEvents::open(folder.path(), "log-1", END)?;
    assert_eq!((seen.positions(&[key])?, seen.position()?), (vec![None], Position::START));
    Ok(())
}

#[test]
fn an_event_takes_at_most_40_bytes_on_disk() -> Result<(), SeenError> {
    const EVENTS: u64 = 1_000_000;
    let folder = tempfile::tempdir().unwrap();
    let seen = SeenEvents::open(folder.path(), "log-1", END)?;
    let events: Vec<u64> = (1..=EVENTS).collect();
    for chunk in events.chunks(8_000) {
        let entries: Vec<_> = chunk.iter().map(|i| (EventKey::of(&format!("evt-{i}")), at(*i))).collect();
        let occurrences = seen.observe(&entries, at(chunk[chunk.len() - 1]))?;
        assert!(occurrences.iter().all(|occurrence| *occurrence == Occurrence::First));
    }
    seen.write_out()?;
    let bytes = seen.disk_bytes();
    assert!((20 * EVENTS..=40 * EVENTS).contains(&bytes), "{} bytes an event", bytes / EVENTS);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_history_of_reads_and_restarts_gives_each_id_its_lowest_position(
        history in prop::collection::vec((0_u8..20, 1_u64..500, any::<bool>(), 0_u8..12), 1..120)
    ) {
        let failed = |error: SeenError| TestCaseError::fail(error.to_string());
        let folder = tempfile::tempdir()?;
        let mut seen = SeenEvents::open(folder.path(), "log", END).map_err(failed)?;
        let mut lowest: HashMap<u8, u64> = HashMap::new();
        for (id, position, published, restart) in history {
            if restart == 0 {
                seen.write_out().map_err(failed)?;
                drop(seen);
                seen = SeenEvents::open(folder.path(), "log", END).map_err(failed)?;
            }
            let entry = [(EventKey::of(&id.to_string()), at(position))];
            let known = lowest.get(&id).copied();
            if published {
                seen.insert(&entry, None).map_err(failed)?;
            } else {
                let expected = match known {
                    Some(known) if known < position => Occurrence::Repeated(at(known)),
                    _ => Occurrence::First,
                };
                prop_assert_eq!(seen.observe(&entry, at(position)).map_err(failed)?, vec![expected]);
            }
            lowest.insert(id, known.map_or(position, |known| known.min(position)));
        }
        for (id, position) in lowest {
            let found = seen.positions(&[EventKey::of(&id.to_string())]).map_err(failed)?;
            prop_assert_eq!(found, vec![Some(at(position))]);
        }
    }
}
