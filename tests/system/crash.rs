//! Killed at random in the middle of 100,000 events, the system ends where an undisturbed one does.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use std::path::Path;

use crate::{
    door::everything,
    support::{Forecourt, Nats, assert_same, counted, eventually, finish, ingest, market},
};

/// Vehicles whose lives are more than 100,000 events.
const VEHICLES: u32 = 340;
const KILLS: u64 = 3;

/// The undisturbed answers, and how many events there are.
async fn undisturbed(file: &Path, data: &Path) -> (Value, u64) {
    let nats = Nats::start().await;
    let forecourt = Forecourt::start(&nats, data).await;
    let table = finish(ingest(file, &forecourt.url));
    let events = counted(&table, "accepted");
    assert!(events >= 100_000, "{events}");
    (everything(&forecourt, counted(&table, "position")).await, events)
}

/// A position in each third of the history.
fn instants(seed: u64, events: u64) -> Vec<u64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let third = events / KILLS;
    (0..KILLS).map(|kill| kill * third + rng.random_range(third / 10..third * 9 / 10)).collect()
}

pub(crate) async fn reached(forecourt: &Forecourt, position: u64) {
    eventually("the position to kill at", || async {
        forecourt.position().await.filter(|at| *at >= position).map(drop)
    })
    .await;
}

/// The log's end, as the restarted system knows it.
async fn settled(forecourt: &mut Forecourt) -> u64 {
    forecourt.ready().await;
    forecourt.get("/ready").await["log_end_at_start"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_forecourt_or_nats_in_the_middle_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = market(folder.path(), 21, 120, VEHICLES);
    let (expected, events) = undisturbed(&file, &folder.path().join("calm")).await;

    let nats = Nats::start().await;
    let mut forecourt = Forecourt::start(&nats, &folder.path().join("killed")).await;
    let sending = ingest(&file, &forecourt.url);
    for position in instants(1, events) {
        reached(&forecourt, position).await;
        forecourt.kill();
        forecourt.launch();
    }
    let table = finish(sending);
    assert_eq!(counted(&table, "accepted") + counted(&table, "duplicates"), events);
    forecourt.kill();
    forecourt.launch();
    let end = settled(&mut forecourt).await;
    assert_same(&everything(&forecourt, end).await, &expected, "after kills of forecourt");
    drop(forecourt);

    let mut nats = Nats::start().await;
    let mut forecourt = Forecourt::start(&nats, &folder.path().join("cut_off")).await;
    let sending = ingest(&file, &forecourt.url);
    for position in instants(2, events) {
        reached(&forecourt, position).await;
        nats.kill();
        nats.restart().await;
    }
    let table = finish(sending);
    assert_eq!(counted(&table, "accepted") + counted(&table, "duplicates"), events);
    assert_same(&everything(&forecourt, counted(&table, "position")).await, &expected, "after kills of nats-server");
    forecourt.stop();
}

#[tokio::test]
async fn a_deleted_or_damaged_index_is_built_again_from_the_lake() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let nats = Nats::start().await;
    let mut forecourt = Forecourt::start(&nats, &data).await;
    let file = market(folder.path(), 9, 60, 15);
    let position = counted(&finish(ingest(&file, &forecourt.url)), "position");
    let expected = everything(&forecourt, position).await;
    forecourt.stop();

    let index = data.join("index");
    std::fs::remove_dir_all(&index).unwrap();
    forecourt.launch();
    forecourt.ready().await;
    assert_same(&everything(&forecourt, position).await, &expected, "after deletion");
    forecourt.stop();

    let files = std::fs::read_dir(&index).unwrap().map(|entry| entry.unwrap().path());
    let largest = files.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&largest, bytes).unwrap();
    forecourt.launch();
    forecourt.ready().await;
    assert_same(&everything(&forecourt, position).await, &expected, "after damage");
}
