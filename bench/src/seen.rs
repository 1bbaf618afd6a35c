//! `seen`: whether event ids are new, as the store grows: each id is looked up and recorded, as reading the log does.

use std::time::Instant;

use ingest::seen::SeenEvents;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemas::{EventKey, Position};
use uuid::Uuid;

use crate::{Side, report};

/// Ids of each stretch that is measured, and stretches.
const STRETCH: u64 = 5_000_000;
const STRETCHES: [&str; 8] = [
    "the first 5 million ids",
    "of 10 million",
    "of 15 million",
    "of 20 million",
    "of 25 million",
    "of 30 million",
    "of 35 million",
    "of 40 million",
];
/// Ids asked of at once.
const BATCH: u64 = 1_000;

pub(crate) fn run() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let end = Position::new(STRETCH * STRETCHES.len() as u64);
    let store = SeenEvents::open(&folder.path().join("seen"), "bench", end)?;
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let (mut position, mut sides) = (0, Vec::new());
    for name in STRETCHES {
        let started = Instant::now();
        for _ in 0..STRETCH / BATCH {
            let id = |_| {
                position += 1;
                (EventKey::of(&Uuid::from_u128(random.random()).to_string()), Position::new(position))
            };
            let ids: Vec<_> = (0..BATCH).map(id).collect();
            store.observe(&ids, Position::new(position))?;
        }
        sides.push(Side { name, events: STRETCH, seconds: started.elapsed().as_secs_f64() });
    }
    report("seen", &sides);
    println!("  {:<44} {:>10.1} bytes an id", "on disk", store.disk_bytes() as f64 / position as f64);
    Ok(())
}
