//! Every event of every catalogue: taken in every envelope, stored with its types, documented with a valid example.

use std::{
    collections::BTreeMap,
    io::Write,
    process::{Command, Stdio},
};

use reqwest::StatusCode;
use schemas::{
    Catalogue,
    envelope::{STYLES, dress},
    examples,
};
use serde_json::{Value, json};

use crate::{
    door::Wire,
    support::{Forecourt, Nats, counted, finish, forecourt, ingest, stdout},
};

#[tokio::test]
async fn every_event_in_every_envelope_goes_in_and_is_queryable_in_its_own_view_with_its_types() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = Catalogue::embedded().unwrap();
    let path = folder.path().join("everything.ndjson");
    let mut file = std::fs::File::create(&path).unwrap();
    let (mut sent, mut expected) = (0, BTreeMap::new());
    for (context, definition) in catalogue.events() {
        let view = format!("{}.{}", context.name, definition.view);
        for envelope in &STYLES {
            let mut event = examples::event(context, definition);
            event["eventId"] = json!(format!("{view}-{}", envelope.name));
            let dressed = dress(envelope.style, &catalogue, &context.name, definition, &event);
            writeln!(file, "{dressed}").unwrap();
            sent += 1;
        }
        let columns = definition.fields.iter().map(|field| &context.columns[field.column]);
        expected.insert(view, columns.map(|column| (column.name.clone(), column.kind)).collect::<Vec<_>>());
    }
    drop(file);
    assert_eq!(sent, expected.len() * STYLES.len());

    let nats = Nats::start().await;
    let server = Forecourt::start(&nats, &folder.path().join("data")).await;
    let table = finish(ingest(&path, &server.url));
    assert_eq!(counted(&table, "accepted"), sent as u64);
    let position = counted(&table, "position");
    for (view, columns) in expected {
        let names: Vec<_> = columns.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let query = format!("SELECT {} FROM {view}", names.join(", "));
        let (status, answer) = server.try_sql(&query, position).await;
        assert_eq!(status, StatusCode::OK, "{query}: {answer}");
        let rows = answer["rows"].as_array().unwrap();
        assert_eq!(rows.len(), STYLES.len(), "{view}");
        // The same event in every envelope: the same row, and no field lost.
        assert!(rows.iter().all(|row| row == &rows[0]), "{view}: {rows:?}");
        for ((value, (name, kind)), column) in
            rows[0].as_array().unwrap().iter().zip(&columns).zip(answer["columns"].as_array().unwrap())
        {
            assert!(!value.is_null(), "{view}.{name} is null");
            assert_eq!(column["type"], sql_name(&kind.to_string()), "{view}.{name}");
        }
    }
}

/// The SQL type of a catalogue's type.
fn sql_name(kind: &str) -> &'static str {
    match kind {
        "id" | "string" | "json" => "text",
        "integer" => "bigint",
        "number" => "double",
        "money" => "decimal(12,2)",
        "boolean" => "boolean",
        "timestamp" => "timestamptz",
        "list<string>" | "list<json>" => "text[]",
        other => panic!("no SQL type for {other}"),
    }
}

fn price_set(id: &str, price: i64) -> Value {
    json!({
        "eventId": id, "eventType": "PriceSet", "timestamp": "2026-11-02T08:30:00Z",
        "data": {"listingId": "lst-1", "price": price}
    })
}

#[tokio::test]
async fn bodies_come_compressed_in_pieces_and_as_cloud_events_in_headers() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let server = Forecourt::start(&nats, folder.path()).await;
    let url = format!("{}/v1/events", server.url);
    let lines: String = (0..3_000).map(|i| format!("{}\n", price_set(&format!("gz-{i}"), i + 1))).collect();
    for (encoding, body) in [
        ("gzip", compressed("gzip", lines.as_bytes())),
        ("zstd", compressed("zstd", lines.replace("gz-", "zst-").as_bytes())),
        ("identity", lines.replace("gz-", "plain-").into_bytes()),
    ] {
        let pieces: Vec<Result<Vec<u8>, std::io::Error>> = body.chunks(1_000).map(|piece| Ok(piece.to_vec())).collect();
        let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
        let answer = server.client.post(&url).header("content-encoding", encoding).body(body).send().await.unwrap();
        let report: Value = answer.json().await.unwrap();
        assert_eq!((&report["accepted"], &report["rejected_total"]), (&json!(3_000), &json!(0)), "{encoding}");
    }
    let broken = compressed("gzip", lines.as_bytes());
    let answer = server.client.post(&url).header("content-encoding", "gzip").body(broken[..500].to_vec()).send().await;
    let (status, problem) = status_and_body(answer.unwrap()).await;
    assert_eq!((status, &problem["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_body")), "{problem}");
    let answer = server.client.post(&url).header("content-encoding", "br").body("x").send().await;
    let (status, problem) = status_and_body(answer.unwrap()).await;
    assert_eq!((status, &problem["code"]), (StatusCode::UNSUPPORTED_MEDIA_TYPE, &json!("unknown_encoding")));

    let binary = |id: &str, body: &str| {
        let headers = [
            ("ce-specversion", "1.0"),
            ("ce-type", "com.example.inventory.PriceSet"),
            ("ce-source", "/dealers/7"),
            ("ce-time", "2026-11-02T08:30:00Z"),
        ];
        let request = server.client.post(&url).header("ce-id", id).header("content-type", "application/json");
        headers.into_iter().fold(request, |request, (name, value)| request.header(name, value)).body(body.to_owned())
    };
    let answer = binary("ce-1", r#"{"listingId":"lst-1","price":7}"#).send().await;
    let (_, report) = status_and_body(answer.unwrap()).await;
    assert_eq!(report["accepted"], 1, "{report}");
    let rows = server
        .sql(
            "SELECT source, price FROM inventory.price_set WHERE event_id = 'ce-1'",
            report["position"].as_u64().unwrap(),
        )
        .await;
    assert_eq!(rows, [json!(["/dealers/7", 7.0])]);
    let (status, report) = status_and_body(binary("ce-2", "no json").send().await.unwrap()).await;
    assert_eq!((status, &report["rejected"][0]["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("invalid_json")));

    let mut doubtful = price_set("w-1", 9);
    doubtful["timestamp"] = json!("2199-01-01T00:00:00Z");
    let (_, report) = server.publish(doubtful.to_string()).await;
    assert_eq!((&report["accepted"], &report["warnings"][0]["code"]), (&json!(1), &json!("future_time")));
}

async fn status_and_body(answer: reqwest::Response) -> (StatusCode, Value) {
    (answer.status(), answer.json().await.unwrap())
}

/// By the system's own tools, as a producer would.
pub(crate) fn compressed(tool: &str, bytes: &[u8]) -> Vec<u8> {
    match tool {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        _ => zstd::encode_all(bytes, 1).unwrap(),
    }
}

pub(crate) const TELEMETRY: &str = "
context = 'telemetry'
title = 'Telemetry'
meaning = 'What cars report.'
retention = 'short'
delivery = 'batch'

[fields]
carId = { type = 'id', meaning = 'The car.' }
speed = { type = 'integer', unit = 'km/h', meaning = 'Speed.', min = 0 }

[events.SpeedMeasured]
meaning = 'A car told its speed.'
aggregate = 'Car'
key = 'carId'
required = ['carId', 'speed']
";

#[tokio::test]
async fn a_users_own_catalogue_mends_dead_letters_and_a_bad_one_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own");
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("telemetry.toml"), TELEMETRY).unwrap();
    let catalogue = own.to_str().unwrap();
    let nats = Nats::start().await;
    let data = folder.path().join("data");
    let mut server = Forecourt::start(&nats, &data).await;
    let measured = |id: &str, speed: i64| {
        json!({
            "eventId": id, "eventType": "SpeedMeasured", "timestamp": "2026-11-02T08:30:00Z",
            "data": {"carId": "car-1", "speed": speed}
        })
        .to_string()
    };
    let mut wire = Wire::connect(&nats.url()).await;
    for (id, speed) in [("t-1", 80), ("t-2", 90), ("t-3", -5)] {
        // Under its id, as the server's own recognition of duplicates has it.
        wire.publish_as(id, "events.telemetry.SpeedMeasured.car-1", measured(id, speed).as_bytes()).await;
    }
    wire.publish("events.telemetry.SpeedMeasured.car-1", b"no event at all").await;
    let letters = server.get("/v1/dead-letters?min_position=4").await;
    assert_eq!(letters["dead_letters"].as_array().unwrap().len(), 4);
    let list = stdout(&forecourt(&["dead-letters", "list", "--to", &server.url]));
    assert!(list.contains("unknown_event_type") && list.contains("invalid_json"), "{list}");
    let show = stdout(&forecourt(&["dead-letters", "show", "1", "--to", &server.url]));
    assert!(show.ends_with(&format!("{}\n", measured("t-1", 80))), "{show}");
    // Who reads no further, as `head` does, ends it quietly.
    let mut unread = Command::new(env!("CARGO_BIN_EXE_forecourt"))
        .args(["dead-letters", "show", "1", "--to", &server.url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(unread.stdout.take());
    let unread = unread.wait_with_output().unwrap();
    assert_eq!((unread.status.code(), String::from_utf8(unread.stderr).unwrap().as_str()), (Some(141), ""));
    let retried = forecourt(&["dead-letters", "retry", "--all", "--to", &server.url]);
    assert_eq!(retried.status.code(), Some(1));
    server.stop();

    let mut server = Forecourt::start_with(&nats, &data, &["--catalogue", catalogue]).await;
    let retried = forecourt(&["dead-letters", "retry", "--reason", "unknown_event_type", "--to", &server.url]);
    let told = String::from_utf8(retried.stdout).unwrap();
    assert!(told.contains("data.speed is at least 0, not -5"), "{told}");
    assert!(told.contains("accepted 2, duplicates 0, still refused 1"), "{told}");
    let rows = server.sql("SELECT event_id, speed FROM telemetry.speed_measured ORDER BY event_id", 6).await;
    assert_eq!(rows, [json!(["t-1", 80]), json!(["t-2", 90])]);
    assert!(!forecourt(&["dead-letters", "drop", "4", "--to", &server.url]).status.success());
    let dropped = stdout(&forecourt(&["dead-letters", "drop", "4", "--yes", "--to", &server.url]));
    assert_eq!(dropped, "dropped 1\n");
    let statuses = async |server: &Forecourt| {
        server.sql("SELECT position, status, retried_as FROM system.dead_letters ORDER BY position", 6).await
    };
    let expected =
        [json!([1, "retried", 5]), json!([2, "retried", 6]), json!([3, "open", null]), json!([4, "dropped", null])];
    assert_eq!(statuses(&server).await, expected);
    // Retrying what is closed does nothing; the events are known however they come again.
    assert!(forecourt(&["dead-letters", "retry", "1", "--to", &server.url]).status.success());
    let (_, report) = server.publish(measured("t-1", 80)).await;
    assert_eq!(report["duplicates"], 1);
    server.kill();
    server.launch();
    server.ready().await;
    assert_eq!(statuses(&server).await, expected);
    let tables = server.get("/v1/tables").await;
    assert!(tables["tables"].as_array().unwrap().iter().any(|table| table["name"] == "speed_measured"));
    let event = server.get("/v1/catalogue/SpeedMeasured").await;
    assert_eq!(event["examples"]["canonical"]["data"]["speed"], 3);
    server.stop();

    // Without the catalogue its table would be hidden: that is refused, and so is a file that is wrong.
    let refused = up_refused(&nats, &data, &[]);
    assert!(refused.contains("telemetry") && refused.contains("--catalogue"), "{refused}");
    std::fs::write(own.join("telemetry.toml"), TELEMETRY.replace("'speed']", "'pace']")).unwrap();
    let refused = up_refused(&nats, &data, &["--catalogue", catalogue]);
    assert!(refused.contains("telemetry.toml:16: event SpeedMeasured: field pace is not in [fields]"), "{refused}");
}

/// What `forecourt up` says when it refuses to start.
fn up_refused(nats: &Nats, data: &std::path::Path, more: &[&str]) -> String {
    let (url, data) = (nats.url(), data.to_str().unwrap());
    let arguments = ["up", "--nats", &url, "--http", "127.0.0.1:0", "--data", data];
    let output = forecourt(&[&arguments[..], more].concat());
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn a_recreated_log_is_refused_and_a_deleted_one_goes_on_after_the_lake() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let mut server = Forecourt::start(&nats, folder.path()).await;
    let (_, report) = server.publish(format!("{}\n{}", price_set("a", 1), price_set("b", 2))).await;
    assert_eq!(report["position"], 2);
    // Only a lake that has something to lose minds what became of its log.
    server.reflects(2).await;
    server.stop();

    let mut wire = Wire::connect(&nats.url()).await;
    let config = wire.stream_config("EVENTS").await;
    wire.delete_stream("EVENTS").await;
    wire.create_stream(&config).await;
    let event = price_set("c", 3).to_string();
    for _ in 0..5 {
        wire.publish("events.inventory.PriceSet.lst-1", event.as_bytes()).await;
    }
    let refused = up_refused(&nats, folder.path(), &[]);
    assert!(refused.contains("it was recreated") && refused.contains("nats stream rm EVENTS"), "{refused}");

    wire.delete_stream("EVENTS").await;
    server.launch();
    server.ready().await;
    let (_, report) = server.publish(format!("{}\n{}", price_set("a", 1), price_set("d", 4))).await;
    assert_eq!((&report["accepted"], &report["duplicates"], &report["position"]), (&json!(1), &json!(1), &json!(3)));
    let rows = server.sql("SELECT position, event_id FROM lake.events ORDER BY position", 3).await;
    assert_eq!(rows, [json!([1, "a"]), json!([2, "b"]), json!([3, "d"])]);

    // Recreated while it runs: it stops, and says why.
    wire.delete_stream("EVENTS").await;
    wire.create_stream(&config).await;
    let said = server.wait_for_end().await;
    assert!(said.contains("it was recreated") || said.contains("was rewound"), "{said}");
}

#[tokio::test]
async fn a_server_that_does_not_sync_every_write_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start_with("sync_interval: \"1m\"").await;
    let refused = up_refused(&nats, folder.path(), &["--nats-monitor", &nats.monitor()]);
    assert!(refused.contains("sync_interval: always"), "{refused}");
    let nats = Nats::start().await;
    drop(Forecourt::start_with(&nats, folder.path(), &["--nats-monitor", &nats.monitor()]).await);
}

#[tokio::test]
async fn a_backfill_reads_many_files_tells_what_it_refuses_and_goes_on_where_it_was_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let server = Forecourt::start(&nats, &folder.path().join("data")).await;
    let lines = |name: &str| -> String {
        (0..9_000).map(|i| format!("{}\n", price_set(&format!("{name}-{i}"), i % 100))).collect()
    };
    let (gz, zst, array) =
        (folder.path().join("a.ndjson.gz"), folder.path().join("b.ndjson.zst"), folder.path().join("c.json"));
    std::fs::write(&gz, compressed("gzip", lines("gz").as_bytes())).unwrap();
    std::fs::write(&zst, compressed("zstd", lines("zst").as_bytes())).unwrap();
    std::fs::write(&array, format!("[{},\n{},7]", price_set("arr-1", 5), price_set("arr-2", 6))).unwrap();
    let (rejected, resume) = (folder.path().join("refused.ndjson"), folder.path().join("progress.json"));
    let run = || {
        let mut arguments = vec!["ingest", gz.to_str().unwrap(), zst.to_str().unwrap(), array.to_str().unwrap()];
        arguments.extend(["--to", &server.url, "--rejected", rejected.to_str().unwrap()]);
        arguments.extend(["--resume", resume.to_str().unwrap()]);
        forecourt(&arguments)
    };
    let output = run();
    assert_eq!(output.status.code(), Some(1));
    let table = String::from_utf8(output.stdout).unwrap();
    // Of 100 prices one is 0, which no price is; and the array's last item is no event.
    assert_eq!((counted(&table, "accepted"), counted(&table, "rejected: invalid_value")), (17_822, 180));
    assert_eq!(counted(&table, "rejected: not_an_object"), 1);
    let refused = std::fs::read_to_string(&rejected).unwrap();
    let refused: Vec<Value> = refused.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(refused.len(), 181);
    assert_eq!((&refused[1]["line"], &refused[1]["field"]), (&json!(101), &json!("data.price")));
    assert_eq!(refused[1]["message"], "data.price is above 0, not 0");
    assert_eq!(refused[1]["text"], price_set("gz-100", 0).to_string());
    assert!(!resume.exists(), "everything was sent");

    // As an interrupted run leaves it: what it had acknowledged is not sent again.
    let metadata = gz.metadata().unwrap();
    let modified = metadata.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    let files = json!({gz.to_str().unwrap(): {"bytes": metadata.len(), "modified": modified, "events": 8_000}});
    let done = json!({"files": files, "rejected": {"invalid_value": 80}});
    std::fs::write(&resume, done.to_string()).unwrap();
    let table = String::from_utf8(run().stdout).unwrap();
    assert_eq!((counted(&table, "accepted"), counted(&table, "done before")), (0, 8_000));
    assert_eq!(counted(&table, "duplicates"), 17_822 - 7_920);
    // What the interrupted run was refused is still told, and its file goes on.
    assert_eq!(counted(&table, "rejected: invalid_value"), 180);
    assert_eq!(std::fs::read_to_string(&rejected).unwrap().lines().count(), 181 + 101);
}

#[test]
fn the_catalogue_is_listed_shown_checked_and_exported() {
    let folder = tempfile::tempdir().unwrap();
    let list = stdout(&forecourt(&["catalogue", "list"]));
    let catalogue = Catalogue::embedded().unwrap();
    assert!(list.contains(&format!("{} events", catalogue.events().count())));
    let shown: Value =
        serde_json::from_str(&stdout(&forecourt(&["catalogue", "show", "PointsEarned", "--envelope", "business"])))
            .unwrap();
    assert_eq!(shown["eventType"], "loyalty.points.earned");
    let ambiguous = forecourt(&["catalogue", "show", "OrderPlaced"]);
    let said = String::from_utf8_lossy(&ambiguous.stderr).into_owned();
    assert!(said.contains("shop.OrderPlaced") && said.contains("courses.OrderPlaced"), "{said}");

    let schemas = folder.path().join("schemas");
    stdout(&forecourt(&["catalogue", "export", "--as", "json-schema", "-o", schemas.to_str().unwrap()]));
    let versions: usize = catalogue.events().map(|(_, event)| 1 + event.older.len()).sum();
    assert_eq!(std::fs::read_dir(&schemas).unwrap().count(), versions);
    let asyncapi: Value =
        serde_json::from_str(&stdout(&forecourt(&["catalogue", "export", "--as", "asyncapi"]))).unwrap();
    assert_eq!(asyncapi["components"]["messages"].as_object().unwrap().len(), catalogue.events().count());
    let dictionary = stdout(&forecourt(&["catalogue", "export", "--as", "markdown"]));
    assert!(dictionary.contains("### loyalty.PointsEarned"));

    let (before, after) = (folder.path().join("before"), folder.path().join("after"));
    for (path, text) in [(&before, TELEMETRY.to_owned()), (&after, TELEMETRY.replace("'integer'", "'number'"))] {
        std::fs::create_dir(path).unwrap();
        std::fs::write(path.join("telemetry.toml"), text).unwrap();
    }
    let check = |now: &std::path::Path, then: &std::path::Path| {
        forecourt(&["catalogue", "check", "--catalogue", now.to_str().unwrap(), "--against", then.to_str().unwrap()])
    };
    assert!(check(&before, &before).status.success());
    let refused = check(&after, &before);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(said.contains("telemetry.SpeedMeasured: field speed was integer and is number"), "{said}");
}
