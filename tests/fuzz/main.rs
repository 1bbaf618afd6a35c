//! Every entry, fed with what nobody would send.
//!
//! Valid events are cut, joined, flipped and repeated at random, and go in by each entry for `FUZZ_SECONDS` (2 unless
//! given). An entry may refuse anything; it may not panic, lose an event that is whole, or take more than it was given.
//! A failure prints the seed of its input: `FUZZ_SEED` runs that input alone.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use ingest::{
    RawMessage, SeenEvents,
    backfill::Chunks,
    encoding::Encoding,
    splitter::{BodyForm, Splitter},
};
use processors::decode::decode;
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use schemas::{
    Catalogue, Position,
    catalogue::EMBEDDED,
    envelope::{STYLES, dress, structured},
    examples,
    validation::parse_event,
};

/// Run `entry` on inputs made from seeds, until the time is over.
fn fuzz(mut entry: impl FnMut(&mut ChaCha8Rng)) {
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

/// A valid event of the catalogue, in some envelope.
fn event(catalogue: &Catalogue, rng: &mut ChaCha8Rng) -> Vec<u8> {
    let events: Vec<_> = catalogue.events().collect();
    let (context, definition) = events.choose(rng).unwrap();
    let mut example = examples::event(context, definition);
    example["eventId"] = format!("e-{}", rng.random_range(0..50)).into();
    let style = STYLES.choose(rng).unwrap().style;
    dress(style, catalogue, &context.name, definition, &example).to_string().into_bytes()
}

/// Bytes changed at a few places: flipped, cut, repeated, or replaced by what means something to a parser.
fn mutate(bytes: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
    const TELLING: [&[u8]; 14] =
        [b"\"", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\\", b"null", b"1e999", b"-0", b"\xff\xfe", b"\\ud800"];
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
            _ => drop(bytes.splice(at..to, TELLING.choose(rng).unwrap().iter().copied())),
        }
    }
}

/// A body: events of which some are spoiled, as lines or an array, which may be spoiled as well.
fn body(catalogue: &Catalogue, rng: &mut ChaCha8Rng) -> Vec<u8> {
    let events: Vec<Vec<u8>> = (0..rng.random_range(0..6))
        .map(|_| {
            let mut event = event(catalogue, rng);
            mutate(&mut event, rng);
            event
        })
        .collect();
    let mut body = match rng.random_range(0..3) {
        0 => events.join(&b"\n"[..]),
        1 => [b"[".to_vec(), events.join(&b","[..]), b"]".to_vec()].concat(),
        _ => events.concat(),
    };
    if rng.random_bool(0.3) {
        mutate(&mut body, rng);
    }
    body
}

fn compressed(encoding: Encoding, body: &[u8]) -> Vec<u8> {
    match encoding {
        Encoding::Identity => body.to_vec(),
        Encoding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        Encoding::Zstd => zstd::encode_all(body, 1).unwrap(),
    }
}

#[test]
fn a_request_body_of_any_bytes_is_cut_and_judged() {
    let catalogue = Catalogue::embedded().unwrap();
    fuzz(|rng| {
        let body = body(&catalogue, rng);
        let form = if rng.random() { BodyForm::Any } else { BodyForm::Ndjson };
        let mut splitter = Splitter::new(form);
        let mut items = Vec::new();
        let mut rest: &[u8] = &body;
        while !rest.is_empty() {
            let (piece, others) = rest.split_at(rng.random_range(1..=rest.len().min(200)));
            items.extend(splitter.push(piece));
            rest = others;
        }
        items.extend(splitter.finish());
        if form == BodyForm::Ndjson {
            let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
            // A byte order mark at the start is no text.
            assert!(lines - items.len() <= usize::from(lines > 0 && body[0] >= 0x80), "{lines} lines");
        }
        for item in items {
            if let Ok(text) = item.text {
                let _ = parse_event(&catalogue, &text, None);
            }
        }
    });
}

#[test]
fn a_file_of_any_bytes_is_read_to_its_end_or_refused() {
    let catalogue = Catalogue::embedded().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    fuzz(|rng| {
        let encoding = *[Encoding::Identity, Encoding::Gzip, Encoding::Zstd].choose(rng).unwrap();
        let mut file = compressed(encoding, &body(&catalogue, rng));
        if rng.random_bool(0.5) {
            mutate(&mut file, rng);
        }
        runtime.block_on(async {
            let mut chunks = Chunks::new(encoding.decode(std::io::Cursor::new(file)));
            while let Ok(Some(chunk)) = chunks.next_chunk().await {
                let lines = chunk.text.iter().filter(|byte| **byte == b'\n').count();
                assert_eq!(lines, chunk.indexes.len());
            }
        });
    });
}

#[test]
fn headers_of_any_text_make_a_cloud_event_or_none() {
    let catalogue = Catalogue::embedded().unwrap();
    fuzz(|rng| {
        let names =
            ["ce-specversion", "ce-id", "ce-type", "ce-time", "ce-", "content-type", "ce-data", "ce-datacontenttype"];
        let values =
            ["1.0", "inventory.PriceSet", "%", "%zz%20", "application/json", "2026-11-02T00:00:00Z", "\u{e9}", ""];
        let headers: Vec<(&str, &str)> =
            (0..rng.random_range(0..8)).map(|_| (*names.choose(rng).unwrap(), *values.choose(rng).unwrap())).collect();
        let mut body = event(&catalogue, rng);
        mutate(&mut body, rng);
        if let Some(Ok(event)) = structured(headers, &body) {
            let _ = parse_event(&catalogue, &event, None);
        }
    });
}

#[test]
fn a_message_of_any_subject_and_bytes_is_a_row_a_dead_letter_or_a_duplicate() {
    let catalogue = Catalogue::embedded().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let seen = SeenEvents::open(folder.path(), "fuzz", Position::new(u64::MAX)).unwrap();
    let mut position = 0;
    fuzz(|rng| {
        let messages: Vec<RawMessage> = (0..rng.random_range(1..20))
            .map(|_| {
                position += 1;
                let mut payload = event(&catalogue, rng);
                mutate(&mut payload, rng);
                let mut subject = match parse_event(&catalogue, &payload, None) {
                    Ok(event) => {
                        let context = &catalogue.context_at(event.kind.context).name;
                        let name = &catalogue.event_at(event.kind).name;
                        ingest::topology::event_subject(context, name, &event.aggregate_id).into_bytes()
                    }
                    Err(_) => b"events.inventory.PriceSet.x".to_vec(),
                };
                if rng.random_bool(0.2) {
                    mutate(&mut subject, rng);
                }
                let subject = String::from_utf8_lossy(&subject).into_owned();
                RawMessage { position: Position::new(position), ingested_at: 0, subject, payload: payload.into() }
            })
            .collect();
        let count = messages.len();
        let decoded = decode(&catalogue, &seen, &messages).unwrap();
        assert_eq!(decoded.events + decoded.duplicates + decoded.dead_letters.len(), count);
        let rows: usize = decoded.tables.iter().map(|(_, batch)| batch.num_rows()).sum();
        assert_eq!(rows, count, "every position is one row of one table");
    });
}

#[test]
fn a_catalogue_file_of_any_text_is_read_or_refused_with_a_line() {
    fuzz(|rng| {
        let (file, text) = EMBEDDED.choose(rng).unwrap();
        let mut bytes = text.as_bytes().to_vec();
        mutate(&mut bytes, rng);
        let text = String::from_utf8_lossy(&bytes);
        match Catalogue::parse([(*file, text.as_ref())]) {
            Ok(parsed) => assert_eq!(parsed.contexts().len(), 1),
            Err(error) => assert!(error.to_string().starts_with(&format!("{file}:")), "{error}"),
        }
    });
}
