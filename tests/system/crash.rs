//! Killed at random in the middle of 100,000 events, the system ends where an undisturbed one does.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use std::path::Path;

use crate::{
    door::everything,
    support::{Forecourt, Nats, assert_same, counted, eventually, finish, ingest, market, run, stdout},
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
    let ready = forecourt.get("/ready").await;
    // Nobody has searched, and who searches now does not wait.
    assert!(ready["market"] == true && ready["lexicon"] == true, "{ready}");
    ready["log_end_at_start"].as_u64().unwrap()
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

#[tokio::test]
async fn an_index_that_is_ahead_of_the_lake_is_right_however_soon_it_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let nats = Nats::start().await;
    let mut forecourt = Forecourt::start(&nats, &data).await;
    let file = market(folder.path(), 9, 60, 15);
    let position = counted(&finish(ingest(&file, &forecourt.url)), "position");
    eventually("a commit of the index", || async {
        let metrics = forecourt.metrics().await;
        let committed = metrics.lines().find_map(|line| line.strip_prefix("index_committed_position "))?;
        (committed.parse() == Ok(position)).then_some(())
    })
    .await;
    forecourt.kill();
    let lake = run(&["sql", "SELECT count(*) FROM lake.events", "--format", "csv", "--data", data.to_str().unwrap()]);
    let flushed: u64 = stdout(&lake).lines().nth(1).unwrap().parse().unwrap();
    assert!(flushed < position, "the lake has {flushed} of {position} events");
    // Views add up: what is folded twice makes cars more popular than they are.
    for _ in 0..3 {
        forecourt.launch();
        eventually("an answer", || forecourt.position()).await;
        forecourt.stop();
    }
    forecourt.launch();
    forecourt.ready().await;
    stdout(&run(&["verify", "--to", &forecourt.url]));
}
