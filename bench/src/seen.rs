//! `seen`: whether event ids are new, as the store grows: each id is looked up and recorded, as reading the log does.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use ingest::seen::SeenEvents;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemas::{EventKey, Position};
use uuid::Uuid;

use bench::yardstick::{Better, Figure, ROUNDS, Recorder, limit_goes_first};

/// Ids of a round; the store grows by them.
const IDS: u64 = 2_000_000;
/// Ids asked of at once.
const BATCH: u64 = 1_000;

pub(crate) fn run(recorder: &mut Recorder) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let end = Position::new(IDS * ROUNDS as u64);
    let store = SeenEvents::open(&folder.path().join("seen"), "bench", end)?;
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut position = 0;
    for round in 0..ROUNDS {
        let id = |_| {
            position += 1;
            (EventKey::of(&Uuid::from_u128(random.random()).to_string()), Position::new(position))
        };
        let ids: Vec<_> = (0..IDS).map(id).collect();
        let ours = || -> anyhow::Result<Duration> {
            let started = Instant::now();
            for batch in ids.chunks(BATCH as usize) {
                let last = batch.last().map_or(Position::START, |(_, position)| *position);
                store.observe(batch, last)?;
            }
            Ok(started.elapsed())
        };
        let limit = || -> anyhow::Result<Duration> {
            let started = Instant::now();
            let mut known = HashMap::new();
            for (id, position) in &ids {
                known.entry(*id).or_insert(*position);
            }
            anyhow::ensure!(known.len() == ids.len(), "random ids are not new");
            Ok(started.elapsed())
        };
        let (ours, limit) = if limit_goes_first(round) {
            let limit = limit()?;
            (ours()?, limit)
        } else {
            (ours()?, limit()?)
        };
        let figure = Figure {
            name: "ids looked up and recorded, 2 to 20 million known",
            unit: "ids/s",
            better: Better::Higher,
            limit: "a hash map in memory that begins empty",
        };
        recorder.record(figure, IDS as f64 / ours.as_secs_f64(), IDS as f64 / limit.as_secs_f64());
    }
    Ok(())
}
