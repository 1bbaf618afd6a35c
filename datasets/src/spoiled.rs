//! What nobody would send: valid events of the catalogue, cut, joined, flipped and repeated at random.
//!
//! Tests feed every entry with it, for `FUZZ_SECONDS` (2 unless given). A failure prints the seed of its input: `FUZZ_SEED`
//! runs that input alone.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use schemas::{
    Catalogue,
    envelope::{STYLES, dress},
    examples,
};

/// What means something to a parser.
const TELLING: [&[u8]; 14] =
    [b"\"", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\\", b"null", b"1e999", b"-0", b"\xff\xfe", b"\\ud800"];

/// Run `entry` on inputs made from seeds, until the time is over.
///
/// # Panics
/// When `entry` does.
pub fn try_inputs(mut entry: impl FnMut(&mut ChaCha8Rng)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("FUZZ_SECONDS").unwrap_or(2);
    let only = number("FUZZ_SEED");
    let end = Instant::now() + Duration::from_secs(seconds);
    let first = only.unwrap_or_else(|| rand::rng().random());
    let mut runs = 0_u64;
    while runs == 0 || (only.is_none() && Instant::now() < end) {
        let seed = first.wrapping_add(runs);
        let run = catch_unwind(AssertUnwindSafe(|| entry(&mut ChaCha8Rng::seed_from_u64(seed))));
        assert!(run.is_ok(), "failed with FUZZ_SEED={seed}");
        runs += 1;
    }
    println!("{runs} inputs from seed {first}");
}

/// A valid event of the catalogue, in some envelope; one of few ids, so that some come twice.
#[must_use]
pub fn event(catalogue: &Catalogue, rng: &mut ChaCha8Rng) -> Vec<u8> {
    let events: Vec<_> = catalogue.events().collect();
    let (Some((context, definition)), Some(style)) = (events.choose(rng), STYLES.choose(rng)) else {
        return Vec::new();
    };
    let mut example = examples::event(context, definition);
    example["eventId"] = format!("e-{}", rng.random_range(0..50)).into();
    dress(style.style, catalogue, &context.name, definition, &example).to_string().into_bytes()
}

/// Change bytes at a few places: flipped, cut, repeated, or replaced by what means something to a parser.
pub fn spoil(bytes: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
    for _ in 0..rng.random_range(0..4) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.random_range(0..bytes.len());
        let to = rng.random_range(at..bytes.len().min(at + 40) + 1).min(bytes.len());
        match rng.random_range(0..4) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => drop(bytes.drain(at..to)),
            2 => {
                let piece = bytes[at..to].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let telling = TELLING[rng.random_range(0..TELLING.len())];
                bytes.splice(at..to, telling.iter().copied());
            }
        }
    }
}

/// A body: events of which some are spoiled, as lines or an array, which may be spoiled as well.
#[must_use]
pub fn body(catalogue: &Catalogue, rng: &mut ChaCha8Rng) -> Vec<u8> {
    let events: Vec<Vec<u8>> = (0..rng.random_range(0..6))
        .map(|_| {
            let mut event = event(catalogue, rng);
            spoil(&mut event, rng);
            event
        })
        .collect();
    let mut body = match rng.random_range(0..3) {
        0 => events.join(&b"\n"[..]),
        1 => [b"[".to_vec(), events.join(&b","[..]), b"]".to_vec()].concat(),
        _ => events.concat(),
    };
    if rng.random_bool(0.3) {
        spoil(&mut body, rng);
    }
    body
}
