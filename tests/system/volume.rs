//! Many events with what producers get wrong, and a body far larger than memory may grow.

use std::{
    collections::HashMap,
    io::{BufWriter, Write},
    path::Path,
};

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use schemas::{Catalogue, examples};
use serde_json::{Value, json};

use crate::{
    door::Wire,
    support::{Forecourt, Nats, counted, forecourt},
};

/// How many, unless `FORECOURT_TEST_EVENTS` says otherwise: a million takes minutes in a development build.
const EVENTS: u64 = 200_000;
const MALFORMED: f64 = 0.02;
const REPEATED: f64 = 0.05;

/// What a file holds, by the one who wrote it.
#[derive(Default)]
struct Written {
    good: u64,
    repeated: u64,
    /// By the code each must be refused with.
    malformed: HashMap<&'static str, u64>,
}

/// Events of every type of the catalogue, some malformed, some sent before.
fn write(path: &Path, events: u64) -> Written {
    let catalogue = Catalogue::embedded().unwrap();
    let templates: Vec<(String, String)> = catalogue
        .events()
        .map(|(context, definition)| {
            let mut event = examples::event(context, definition);
            event["eventId"] = json!("<id>");
            let text = event.to_string();
            let (before, after) = text.split_once("<id>").unwrap();
            (before.to_owned(), after.to_owned())
        })
        .collect();
    let mut rng = ChaCha8Rng::seed_from_u64(42);
    let mut file = BufWriter::new(std::fs::File::create(path).unwrap());
    let mut written = Written::default();
    for number in 0..events {
        let (before, after) = templates.choose(&mut rng).unwrap();
        let chance: f64 = rng.random();
        if chance < MALFORMED {
            let (code, line) = match rng.random_range(0..4) {
                0 => ("invalid_json", format!("{before}m-{number}{}", &after[..after.len() / 2])),
                1 => (
                    "unknown_event_type",
                    format!("{before}m-{number}{after}").replacen("\"eventType\":\"", "\"eventType\":\"no.", 1),
                ),
                2 => ("missing_field", format!("{{\"eventId\":\"m-{number}\"}}")),
                _ => ("not_an_object", number.to_string()),
            };
            *written.malformed.entry(code).or_default() += 1;
            writeln!(file, "{line}").unwrap();
        } else if chance < MALFORMED + REPEATED && written.good > 0 {
            // The id decides, whatever else the repetition says.
            written.repeated += 1;
            writeln!(file, "{before}g-{}{after}", rng.random_range(0..written.good)).unwrap();
        } else {
            writeln!(file, "{before}g-{}{after}", written.good).unwrap();
            written.good += 1;
        }
    }
    file.flush().unwrap();
    written
}

#[tokio::test]
async fn many_events_are_accepted_once_or_refused_with_a_reason_and_every_position_is_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("million.ndjson");
    let asked = std::env::var("FORECOURT_TEST_EVENTS").ok().map(|events| events.parse().unwrap());
    let events = asked.unwrap_or(EVENTS);
    let written = write(&file, events);
    let malformed: u64 = written.malformed.values().sum();
    assert_eq!(written.good + written.repeated + malformed, events);
    let nats = Nats::start().await;
    let server = Forecourt::start(&nats, &folder.path().join("data")).await;
    let rejected = folder.path().join("rejected.ndjson");
    let send = || {
        let (file, rejected) = (file.to_str().unwrap(), rejected.to_str().unwrap());
        let output = forecourt(&["ingest", file, "--to", &server.url, "--rejected", rejected]);
        String::from_utf8(output.stdout).unwrap()
    };
    let table = send();
    assert_eq!((counted(&table, "accepted"), counted(&table, "duplicates")), (written.good, written.repeated));
    for (code, count) in &written.malformed {
        assert_eq!(counted(&table, &format!("rejected: {code}")), *count, "{table}");
    }
    let explained = std::fs::read_to_string(&rejected).unwrap();
    assert_eq!(explained.lines().count() as u64, malformed);
    for line in explained.lines() {
        let refused: Value = serde_json::from_str(line).unwrap();
        assert!(refused["message"].as_str().is_some_and(|message| !message.is_empty()), "{line}");
    }

    // Some reach the stream by themselves: good, repeated and malformed.
    let mut wire = Wire::connect(&nats.url()).await;
    for number in 0..100 {
        let event = |id: String| {
            json!({"eventId": id, "eventType": "PriceSet", "timestamp": "2026-11-02T08:30:00Z", "data": {"listingId": "l", "price": 9}})
                .to_string()
        };
        wire.publish("events.inventory.PriceSet.l", event(format!("w-{number}")).as_bytes()).await;
        wire.publish("events.inventory.PriceSet.l", event(format!("g-{number}")).as_bytes()).await;
        wire.publish("events.inventory.PriceSet.l", format!("malformed {number}").as_bytes()).await;
    }
    let position = written.good + 300;
    server.reflects(position).await;
    let count = async |table: &str| {
        let rows = server.sql(&format!("SELECT count(*), count(DISTINCT position) FROM {table}"), position).await;
        assert_eq!(rows[0][0], rows[0][1], "a position twice in {table}");
        rows[0][0].as_u64().unwrap()
    };
    let counts = [count("lake.events").await, count("system.dead_letters").await, count("system.duplicates").await];
    assert_eq!(counts, [written.good + 100, 100, 100]);
    assert_eq!(counts.into_iter().sum::<u64>(), position);

    let again = send();
    assert_eq!((counted(&again, "accepted"), counted(&again, "duplicates")), (0, written.good + written.repeated));
}

#[tokio::test]
async fn memory_stays_flat_while_a_large_body_streams_in() {
    const BODY: u64 = 1 << 30;
    /// What the process may take beside what it takes at rest: batches on their way, the tail, the caches.
    const ALLOWED: u64 = 700 << 20;
    let folder = tempfile::tempdir().unwrap();
    // How much the log may hold does not follow from what else is on the disk now.
    let nats = Nats::start_with("max_file_store: 1TB, sync_interval: always").await;
    let server = Forecourt::start(&nats, folder.path()).await;
    let before = peak_memory(server.id());
    let text = "x".repeat(60_000);
    let event = move |number: u64| {
        json!({
            "eventId": format!("big-{number}"), "eventType": "SupportTicketCreated", "timestamp": "2026-11-02T08:30:00Z",
            "data": {"ticketId": format!("t-{number}"), "customerId": "c", "note": text}
        })
        .to_string()
            + "\n"
    };
    let events = BODY / event(0).len() as u64;
    let body = futures::stream::iter((0..events).map(move |number| Ok::<_, std::io::Error>(event(number))));
    let (status, report) = server.publish(reqwest::Body::wrap_stream(body)).await;
    assert_eq!((status, &report["accepted"]), (reqwest::StatusCode::OK, &json!(events)));
    server.reflects(events).await;
    let rows = server.sql("SELECT count(*) FROM support.support_ticket_created", events).await;
    assert_eq!(rows, [json!([events])]);
    let grown = peak_memory(server.id()) - before;
    assert!(grown < ALLOWED, "grew by {} MB", grown >> 20);
}

/// The most memory a process has had, in bytes.
fn peak_memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}
