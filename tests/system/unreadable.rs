//! What nobody can read, in the log: each becomes a dead letter with its bytes, and what comes after it is read.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::{
    door::{Wire, event},
    support::{Forecourt, Nats, eventually, forecourt, stdout},
};

fn good(id: &str) -> String {
    event(id, "PriceSet", "lst-1", json!({"listingId": "lst-1", "price": 9})).to_string()
}

/// Publish an event over HTTP, and wait until SQL has it; its position.
async fn read_after(server: &Forecourt, id: &str) -> u64 {
    let (_, report) = server.publish(good(id)).await;
    let position = report["position"].as_u64().unwrap_or_else(|| panic!("{report}"));
    let rows = server.sql(&format!("SELECT count(*) FROM inventory.price_set WHERE event_id = '{id}'"), position).await;
    assert_eq!(rows, [json!([1])], "{id}");
    position
}

/// `forecourt verify` finds no difference.
fn verified(server: &Forecourt) {
    let said = stdout(&forecourt(&["verify", "--to", &server.url]));
    assert!(said.contains("positions"), "{said}");
}

/// A subject, a block of headers and a payload.
pub(crate) type Bytes = (Vec<u8>, Option<Vec<u8>>, Vec<u8>);

/// What a client library does not take for a message.
pub(crate) fn unreadable() -> Vec<Bytes> {
    let block = |lines: &[u8]| Some([b"NATS/1.0\r\n", lines, b"\r\n\r\n"].concat());
    let listing = b"events.inventory.PriceSet.l1".to_vec();
    let mut all = vec![(b"events.\xff".to_vec(), None, b"{}".to_vec())];
    for lines in [
        &b"X City: a"[..],
        b"X-City: Montr\xe9al",
        "Ville-\u{e9}: a".as_bytes(),
        b"a line without a colon",
        // It ends the task of the client library that reads its connection.
        b"X-City: a\rb",
    ] {
        all.push((listing.clone(), block(lines), good("in-a-bad-envelope").into_bytes()));
    }
    all.push((listing, Some(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()), b"{}".to_vec()));
    all
}

#[tokio::test]
async fn a_message_that_no_library_reads_is_a_dead_letter_with_its_bytes_and_the_next_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let mut server = Forecourt::start(&nats, folder.path()).await;
    let mut wire = Wire::connect(&nats.url()).await;
    let mut expected = Vec::new();
    for (number, (subject, headers, payload)) in unreadable().into_iter().enumerate() {
        wire.publish_bytes(&subject, headers.as_deref(), &payload).await;
        let position = read_after(&server, &format!("after-{number}")).await;
        let letter = server.get(&format!("/v1/dead-letters/{}", position - 1)).await;
        assert_eq!(letter["reason"], "unreadable_message", "{letter}");
        assert_eq!(letter["payload"].as_str().map(str::as_bytes), Some(payload.as_slice()), "{letter}");
        assert_eq!(letter["headers_base64"], json!(headers.map(|block| BASE64_STANDARD.encode(block))), "{letter}");
        expected.push(position - 1);
    }
    let letters = async |server: &Forecourt| -> Vec<u64> {
        let rows = server.sql("SELECT position FROM system.dead_letters ORDER BY position", 0).await;
        rows.iter().map(|row| row[0].as_u64().unwrap()).collect()
    };
    assert_eq!(letters(&server).await, expected);
    for position in &expected {
        let named = |line: &&str| line.contains("cannot be read") && line.contains(&format!("position={position} "));
        assert_eq!(server.said().lines().filter(named).count(), 1, "position {position}: {}", server.said());
    }
    // Read again from the log after a kill, and compared with it: the same.
    server.kill();
    server.launch();
    server.ready().await;
    read_after(&server, "after-a-start").await;
    assert_eq!(letters(&server).await, expected);
    verified(&server);

    // Corrected with an id of its own alone; its bytes stay.
    let (letter, url) = (expected[0], format!("{}/v1/dead-letters/{}/correct", server.url, expected[0]));
    let correct = async |body: String| {
        let answer = server.client.post(&url).body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    assert_eq!(correct("no event".to_owned()).await.0, 422);
    let (status, taken) = correct(good("after-1")).await;
    assert_eq!((status, &taken["code"]), (409, &json!("duplicate_event_id")), "{taken}");
    let (status, corrected) = correct(good("what-was-meant")).await;
    assert_eq!(status, 200, "{corrected}");
    let after = corrected["position"].as_u64().unwrap();
    let rows = server.sql("SELECT count(*) FROM inventory.price_set WHERE event_id = 'what-was-meant'", after).await;
    assert_eq!(rows, [json!([1])]);
    let closed = server.get(&format!("/v1/dead-letters/{letter}?min_position={after}")).await;
    assert_eq!(
        (&closed["status"], &closed["retried_as"], &closed["payload"]),
        (&json!("retried"), &json!(after), &json!("{}"))
    );
    assert_eq!(correct(good("once-more")).await.0, 409);
    // By the command; the bytes of its headers stay as well.
    let file = folder.path().join("meant.json");
    std::fs::write(&file, good("what-was-meant-too")).unwrap();
    let (letter, file) = (expected[1].to_string(), file.to_str().unwrap());
    let headers = server.get(&format!("/v1/dead-letters/{letter}")).await["headers_base64"].take();
    let said = stdout(&forecourt(&["dead-letters", "correct", &letter, file, "--to", &server.url]));
    let after = said.trim().rsplit(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{said}"));
    let rows =
        server.sql("SELECT count(*) FROM inventory.price_set WHERE event_id = 'what-was-meant-too'", after).await;
    assert_eq!(rows, [json!([1])]);
    let closed = server.get(&format!("/v1/dead-letters/{letter}?min_position={after}")).await;
    assert_eq!((&closed["status"], &closed["headers_base64"]), (&json!("retried"), &headers));
    // Once caught up, lag is told beside readiness: in the body, in headers and as a metric.
    let ready = server.client.get(format!("{}/ready", server.url)).send().await.unwrap();
    for header in ["x-forecourt-position", "x-forecourt-lag-positions", "x-forecourt-lag-seconds"] {
        let value = ready.headers()[header].to_str().unwrap();
        assert!(value.parse::<f64>().is_ok(), "{header}: {value}");
    }
    assert!(server.metrics().await.lines().any(|line| line.starts_with("pipeline_lag_positions ")));

    // One that is the last of the log holds up no start either.
    wire.publish_bytes(b"events.inventory.PriceSet.l1", Some(b"NATS/1.0 404\r\n\r\n"), b"{}").await;
    server.kill();
    server.launch();
    server.ready().await;
}

#[tokio::test]
async fn a_message_as_large_as_the_server_takes_is_a_dead_letter_and_the_next_is_read() {
    const MAX_PAYLOAD_BYTES: usize = 16 << 20;
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let server = Forecourt::start(&nats, folder.path()).await;
    let mut wire = Wire::connect(&nats.url()).await;
    for size in [MAX_PAYLOAD_BYTES - 66, MAX_PAYLOAD_BYTES - 1, MAX_PAYLOAD_BYTES] {
        wire.publish(&format!("events.inventory.PriceSet.l{size}"), &vec![b'x'; size]).await;
        let position = read_after(&server, &format!("after-{size}")).await;
        let rows =
            server.sql("SELECT position, reason, payload_bytes FROM system.dead_letters ORDER BY 1 DESC LIMIT 1", 0);
        assert_eq!(rows.await, [json!([position - 1, "event_too_large", size])]);
    }
    verified(&server);
}

#[tokio::test]
async fn a_dead_letter_stream_that_is_gone_or_full_holds_up_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let server = Forecourt::start(&nats, folder.path()).await;
    let mut wire = Wire::connect(&nats.url()).await;
    wire.publish("events.inventory.PriceSet.x", b"no event").await;
    let copied = async |wire: &mut Wire, count: u64| {
        let deadline = Instant::now() + crate::support::DEADLINE;
        while wire.stream_messages("DEAD_LETTERS").await != count {
            assert!(Instant::now() < deadline, "not {count} copies");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    copied(&mut wire, 1).await;
    wire.delete_stream("DEAD_LETTERS").await;
    wire.publish("events.inventory.PriceSet.x", b"no event either").await;
    let position = read_after(&server, "after-the-deletion").await;
    let rows = server.sql("SELECT count(*) FROM system.dead_letters", position).await;
    assert_eq!(rows, [json!([2])]);
    // It is made again, and has all of them.
    copied(&mut wire, 2).await;

    let mut config = wire.stream_config("DEAD_LETTERS").await;
    config["max_msgs"] = json!(2);
    config["discard"] = json!("new");
    wire.update_stream(&config).await;
    for number in 0..3 {
        wire.publish("events.inventory.PriceSet.x", b"still no event").await;
        read_after(&server, &format!("while-full-{number}")).await;
    }
    assert_eq!(server.sql("SELECT count(*) FROM system.dead_letters", 0).await, [json!([5])]);
    eventually("the lag of the copy on /metrics", || async {
        let metrics = server.metrics().await;
        let lag = metrics.lines().find_map(|line| line.strip_prefix("dead_letter_copy_lag_positions "));
        lag.is_some_and(|lag| lag.parse::<f64>().is_ok_and(|lag| lag > 0.0)).then_some(())
    })
    .await;
    config["max_msgs"] = json!(-1);
    wire.update_stream(&config).await;
    copied(&mut wire, 5).await;
    let warnings = server.said().matches("cannot be copied").count();
    assert!((1..=2).contains(&warnings), "{warnings}: {}", server.said());
}

#[tokio::test]
async fn positions_deleted_by_hand_are_gaps_and_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let mut server = Forecourt::start(&nats, folder.path()).await;
    let first = read_after(&server, "before").await;
    server.stop();
    let mut wire = Wire::connect(&nats.url()).await;
    for number in 0..6 {
        wire.publish("events.inventory.PriceSet.lst-1", good(&format!("unread-{number}")).as_bytes()).await;
    }
    for position in [first + 1, first + 3, first + 4] {
        wire.delete_message("EVENTS", position).await;
    }
    server.launch();
    server.ready().await;
    let last = read_after(&server, "after").await;
    let rows = server.sql("SELECT first_position, position FROM system.gaps ORDER BY 1", last).await;
    assert_eq!(rows, [json!([first + 1, first + 1]), json!([first + 3, first + 4])]);
    verified(&server);
    let metrics = server.metrics().await;
    assert!(metrics.contains("pipeline_gap_positions_total 3"), "{metrics}");
    // What the lake has already is no gap.
    server.stop();
    wire.delete_message("EVENTS", last).await;
    server.launch();
    server.ready().await;
    read_after(&server, "after-that").await;
    assert_eq!(server.sql("SELECT count(*) FROM system.gaps", 0).await, [json!([2])]);
    verified(&server);
}

/// One odd byte in the files of the log's server: what it cannot read any more is passed over, and accounted for.
#[tokio::test]
async fn a_damaged_file_of_the_log_costs_the_damaged_message_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut nats = Nats::start().await;
    let mut server = Forecourt::start(&nats, folder.path()).await;
    let first = read_after(&server, "before").await;
    server.stop();
    let mut wire = Wire::connect(&nats.url()).await;
    for number in 1..=9 {
        wire.publish("events.inventory.PriceSet.lst-1", good(&format!("unread-{number}")).as_bytes()).await;
    }
    // A file that is not its last: that one it looks through when it starts, and cuts it at what it finds damaged.
    let mut large = event("large", "PriceSet", "lst-1", json!({"listingId": "lst-1", "price": 9}));
    large["data"]["note"] = json!("x".repeat(9 << 20));
    wire.publish("events.inventory.PriceSet.lst-1", large.to_string().as_bytes()).await;
    wire.publish("events.inventory.PriceSet.lst-1", good("in-the-next-file").as_bytes()).await;
    nats.stop();
    let file = nats.message_files().join("1.blk");
    let mut bytes = std::fs::read(&file).unwrap();
    let damaged = bytes.windows(8).position(|at| at == b"unread-4").unwrap();
    bytes[damaged + 3] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    nats.restart().await;
    server.launch();
    server.ready().await;
    read_after(&server, "after").await;
    let rows = server.sql("SELECT position FROM inventory.price_set ORDER BY 1", 0).await;
    let read: Vec<u64> = rows.iter().map(|row| row[0].as_u64().unwrap()).collect();
    // The large one is larger than an event may be: a dead letter.
    let expected: Vec<u64> = (first..=first + 12).filter(|position| ![4, 10].contains(&(position - first))).collect();
    assert_eq!(read, expected);
    let rows = server.sql("SELECT first_position, position FROM system.gaps", 0).await;
    assert_eq!(rows, [json!([first + 4, first + 4])]);
    verified(&server);
}

/// Random subjects, headers and bodies as raw protocol, each followed by an event, for `FUZZ_SECONDS`: a minute in CI, some
/// seconds otherwise.
#[tokio::test]
async fn spoiled_protocol_in_the_log_is_quarantined_and_the_event_after_each_is_read() {
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let seconds = seconds.unwrap_or(if std::env::var_os("CI").is_some() { 60 } else { 5 });
    let seed =
        std::env::var("FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| rand::rng().random());
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let server = Forecourt::start(&nats, folder.path()).await;
    let started = Instant::now();
    let (mut written, mut events) = (0, 0);
    while written == 0 || started.elapsed() < Duration::from_secs(seconds) {
        // What the server takes for a fault of the protocol ends the connection.
        let mut wire = Wire::connect(&nats.url()).await;
        let mut taken = 0;
        for _ in 0..20 {
            let (subject, headers, payload) = random_message(&mut rng);
            let Some(_) = wire.try_publish_bytes(&subject, headers.as_deref(), &payload).await else { break };
            taken += 1;
            wire.publish("events.inventory.PriceSet.lst-1", good(&format!("{seed}-{events}")).as_bytes()).await;
            events += 1;
        }
        written += taken;
        let position = read_after(&server, &format!("{seed}-probe-{written}-{events}")).await;
        let of = format!(
            "SELECT count(DISTINCT event_id) FROM inventory.price_set WHERE event_id LIKE '{seed}-%' AND event_id NOT LIKE '%probe%'"
        );
        assert_eq!(server.sql(&of, position).await, [json!([events])], "FUZZ_SEED={seed}");
    }
    let letters: Value = server
        .sql("SELECT count(*), count(*) FILTER (WHERE reason = 'unreadable_message') FROM system.dead_letters", 0)
        .await[0]
        .clone();
    // Past the capture of a test's output: how much was tried is to be seen when it passes.
    writeln!(
        std::io::stderr(),
        "raw protocol, seed {seed}: {written} messages, {} dead letters, {} of them unreadable; {events} events read",
        letters[0],
        letters[1]
    )
    .unwrap();
    verified(&server);
}

fn random_message(rng: &mut ChaCha8Rng) -> Bytes {
    let bytes = |rng: &mut ChaCha8Rng, most: usize| -> Vec<u8> {
        let count = rng.random_range(1..most);
        (0..count).map(|_| if rng.random_bool(0.7) { rng.random_range(b'!'..b'~') } else { rng.random() }).collect()
    };
    // White space ends a subject, and a dot at an end or beside another one is none of the stream's.
    let token = |rng: &mut ChaCha8Rng| -> Vec<u8> {
        let token = bytes(rng, 12).into_iter().filter(|byte| !b" \t\r\n\x0c\0.*>".contains(byte)).collect::<Vec<_>>();
        if token.is_empty() { b"x".to_vec() } else { token }
    };
    let mut subject = b"events".to_vec();
    for _ in 0..rng.random_range(1..4) {
        subject.push(b'.');
        subject.extend(token(rng));
    }
    let headers = rng.random_bool(0.6).then(|| {
        let mut block = if rng.random_bool(0.8) { b"NATS/1.0".to_vec() } else { bytes(rng, 9) };
        if rng.random_bool(0.1) {
            block.extend(format!(" {}", rng.random_range(90..600)).into_bytes());
        }
        block.extend(b"\r\n");
        for _ in 0..rng.random_range(0..4) {
            block.extend(bytes(rng, 10));
            if rng.random_bool(0.7) {
                block.extend(b": ");
            }
            block.extend(bytes(rng, 20));
            block.extend(b"\r\n");
        }
        block.extend(b"\r\n");
        block
    });
    let payload = if rng.random_bool(0.5) { bytes(rng, 200) } else { Vec::new() };
    (subject, headers, payload)
}
