//! Want of file descriptors, silent and slow clients, a lake that is gone: the server refuses, deletes nothing and goes on.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use reqwest::StatusCode;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    door::event,
    support::{Forecourt, Nats, eventually},
};

/// Connections that say nothing.
const SILENT: usize = 1_200;

fn good(id: &str) -> String {
    event(id, "PriceSet", "lst-1", json!({"listingId": "lst-1", "price": 9})).to_string()
}

/// This process needs as many files as the connections it makes.
fn allow_many_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

async fn silent(address: &str, count: usize) -> Vec<TcpStream> {
    let mut connections = Vec::new();
    for _ in 0..count {
        connections.push(TcpStream::connect(address).await.unwrap());
    }
    connections
}

async fn published(server: &Forecourt, id: &str) -> u64 {
    eventually("an event taken", || async {
        let request = server.client.post(format!("{}/v1/events", server.url)).body(good(id)).send().await.ok()?;
        request.json::<Value>().await.ok()?["position"].as_u64()
    })
    .await
}

#[tokio::test]
async fn with_1024_files_and_1200_silent_connections_it_serves_and_deletes_nothing() {
    allow_many_files();
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let mut server = Forecourt::new(&nats, folder.path(), &[]);
    server.open_files = Some(1_024);
    server.launch();
    server.ready().await;
    published(&server, "before").await;
    let index = folder.path().join("index");
    let created = fs::metadata(&index).unwrap().created().unwrap();
    let http = server.url.trim_start_matches("http://").to_owned();
    let mut connections =
        [silent(&http, SILENT).await, silent(&server.postgres(), 210).await, silent(&server.flight(), 210).await];
    // Every other one has begun a request and goes on no more.
    for connection in connections[0].iter_mut().step_by(2) {
        // The server may have closed it already.
        let _ = connection.write_all(b"GET /v1/search HTTP/1.1\r\nhost: x\r\nx-slow: ").await;
    }
    for number in 0..20 {
        let position = published(&server, &format!("beside-{number}")).await;
        let rows = server.sql("SELECT count(*) FROM inventory.price_set", position).await;
        assert_eq!(rows, [json!([number + 2])]);
    }
    // One that has been silent for a moment gives its place.
    let address = format!("{} dbname=forecourt user=analyst", host_and_port(&server.postgres()));
    let (client, connection) = eventually("a Postgres connection", || async {
        tokio_postgres::connect(&address, tokio_postgres::NoTls).await.ok()
    })
    .await;
    tokio::spawn(connection);
    assert_eq!(client.simple_query("SELECT 1").await.unwrap().len(), 3);
    // So does Flight SQL: the greeting of HTTP/2 is answered.
    let flight = server.flight();
    eventually("a Flight SQL connection", || async {
        let mut stream = TcpStream::connect(&flight).await.ok()?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.ok()?;
        let answer = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut [0; 64])).await.ok()?;
        (answer.ok()? > 0).then_some(())
    })
    .await;
    drop(connections);
    assert!(!server.has_ended());
    assert_eq!(fs::metadata(&index).unwrap().created().unwrap(), created, "the index was deleted");
    assert!(!server.said().contains("damaged"), "{}", server.said());
}

/// The Postgres wire takes as many connections as open files allow, and the lake writes on beside those.
#[tokio::test]
async fn with_128_files_silent_postgres_connections_leave_the_lake_its_files() {
    allow_many_files();
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let mut server = Forecourt::new(&nats, folder.path(), &["--flush-seconds", "1"]);
    server.open_files = Some(128);
    server.launch();
    server.ready().await;
    let _held = silent(&server.postgres(), 100).await;
    for number in 0..5 {
        let position = published(&server, &format!("beside-{number}")).await;
        server.reflects(position).await;
        eventually("what was published in files", || async {
            server.said().contains(&format!("flushed the lake position={position} ")).then_some(())
        })
        .await;
    }
    assert!(!server.has_ended(), "{}", server.said());
    assert!(!server.said().contains("panicked"), "{}", server.said());
}

fn host_and_port(address: &str) -> String {
    let (host, port) = address.split_once(':').unwrap();
    format!("host={host} port={port}")
}

#[tokio::test]
async fn without_a_file_to_open_it_refuses_and_goes_on_when_there_are_some() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let mut server = Forecourt::start(&nats, folder.path()).await;
    let car = [
        event(
            "car",
            "VehicleListingCreated",
            "lst-1",
            json!({"listingId": "lst-1", "vehicleId": "v-1", "make": "Honda"}),
        ),
        event("shown", "ListingPublished", "lst-1", json!({"listingId": "lst-1"})),
    ];
    server.publish(car.map(|event| event.to_string()).join("\n")).await;
    for number in 0..50 {
        published(&server, &format!("before-{number}")).await;
    }
    let pid = Pid::from_raw(i32::try_from(server.id()).unwrap());
    let before = prlimit(pid, Resource::Nofile, Rlimit { current: Some(64), maximum: Some(1_024) }).unwrap();
    // Whatever it does now: search, SQL, the index's commits, new connections.
    let started = Instant::now();
    let mut number = 0;
    while started.elapsed() < Duration::from_secs(8) {
        number += 1;
        let request = server.client.post(format!("{}/v1/events", server.url)).body(good(&format!("scarce-{number}")));
        let _ = tokio::time::timeout(Duration::from_secs(5), request.send()).await;
        let request = reqwest::Client::new().get(format!("{}/v1/search", server.url));
        let _ = tokio::time::timeout(Duration::from_secs(5), request.send()).await;
    }
    assert!(!server.has_ended(), "{}", server.said());
    let more = Rlimit { current: Some(1_024), ..before };
    prlimit(pid, Resource::Nofile, Rlimit { maximum: Some(1_024), ..more }).unwrap();
    let position = published(&server, "after").await;
    let found = server.get(&format!("/v1/listings/lst-1?wait_ms=60000&min_position={position}")).await;
    assert_eq!(found["listing_id"], "lst-1");
    assert!(!server.said().contains("damaged"), "{}", server.said());
    assert!(!server.said().contains("reading them from the lake"), "{}", server.said());
}

#[tokio::test]
async fn bodies_that_let_the_server_wait_make_room_for_others() {
    allow_many_files();
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let server = Forecourt::start(&nats, folder.path()).await;
    let address = server.url.trim_start_matches("http://").to_owned();
    // More than there are places: those that come last are told to come back.
    let mut slow = silent(&address, 300).await;
    for connection in &mut slow {
        connection.write_all(b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{").await.unwrap();
    }
    let slow_ones = &slow;
    eventually("all places taken", || async move {
        for connection in slow_ones {
            let told = tokio::time::timeout(Duration::from_millis(1), connection.peek(&mut [0; 1])).await;
            if matches!(told, Ok(Ok(1..))) {
                return Some(());
            }
        }
        None
    })
    .await;
    for number in 0..10 {
        published(&server, &format!("beside-{number}")).await;
    }
    // The first of them was ended, with the reason.
    let mut ended = 0;
    for connection in &mut slow {
        let mut answer = vec![0; 4_096];
        if let Ok(Ok(count)) = tokio::time::timeout(Duration::from_millis(5), connection.read(&mut answer)).await {
            let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
            // One that came when all places were taken was told to come back.
            let is_ended = answer.starts_with("HTTP/1.1 408") && answer.contains("body_slow");
            assert!(is_ended || answer.starts_with("HTTP/1.1 429"), "{answer}");
            ended += usize::from(is_ended);
        }
    }
    assert!(ended > 0 && ended <= 20, "{ended} were ended");
}

#[tokio::test]
async fn a_client_that_takes_all_it_can_leaves_others_their_share() {
    allow_many_files();
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let server = Forecourt::start(&nats, folder.path()).await;
    let address = server.url.trim_start_matches("http://").to_owned();
    // Each of its bodies goes on: none lets the server wait.
    let mut greedy = silent(&address, 256).await;
    for connection in &mut greedy {
        connection.write_all(b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n[").await.unwrap();
    }
    let flowing = tokio::spawn(async move {
        loop {
            for connection in &mut greedy {
                // Those that were refused are gone.
                let _ = connection.write_all(b" ").await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let event = good("from-elsewhere");
    let (address, event) = (&address, &event);
    eventually("an event of another client taken", || async move {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut stream = socket.connect(address.parse().unwrap()).await.ok()?;
        let head = format!(
            "POST /v1/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            event.len()
        );
        stream.write_all(format!("{head}{event}").as_bytes()).await.ok()?;
        let mut answer = String::new();
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await.ok()?.ok()?;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Some(())
    })
    .await;
    flowing.abort();
}

#[tokio::test]
async fn cursors_that_nobody_reads_hold_up_no_other_query() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let server = Forecourt::start(&nats, folder.path()).await;
    let address = format!("{} dbname=forecourt user=analyst", host_and_port(&server.postgres()));
    let mut clients = Vec::new();
    for _ in 0..2 {
        let (client, connection) = tokio_postgres::connect(&address, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute("SET statement_timeout = '600s'; BEGIN").await.unwrap();
        for cursor in 0..8 {
            let declare = format!("DECLARE c{cursor} CURSOR FOR SELECT * FROM generate_series(1, 100000000)");
            client.batch_execute(&declare).await.unwrap();
        }
        clients.push(client);
    }
    let rows = server.sql("SELECT count(*) FROM inventory.price_set", 0).await;
    assert_eq!(rows, [json!([0])]);
    // One of them gave way, and says so when it is read after all; the others go on.
    let mut refused = 0;
    for client in &clients {
        for cursor in 0..8 {
            match client.simple_query(&format!("FETCH 10 FROM c{cursor}")).await {
                Ok(rows) => assert_eq!(rows.len(), 12),
                Err(error) => {
                    let error = error.as_db_error().unwrap();
                    assert_eq!(error.code().code(), "53000", "{error}");
                    assert!(error.message().contains("nobody read the rows"), "{error}");
                    refused += 1;
                    client.batch_execute("ROLLBACK").await.unwrap();
                    break;
                }
            }
        }
    }
    assert_eq!(refused, 1);
}

#[tokio::test]
async fn a_stop_ends_within_its_bound_when_the_lake_is_gone_and_a_query_runs() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let mut server = Forecourt::start(&nats, folder.path()).await;
    published(&server, "before").await;
    let lake = folder.path().join("lake");
    fs::rename(&lake, folder.path().join("elsewhere")).unwrap();
    fs::write(&lake, "no folder").unwrap();
    published(&server, "to-be-flushed").await;
    let url = server.url.clone();
    let query = tokio::spawn(async move {
        let query = "SELECT count(*) FROM generate_series(1, 200000) AS a(x), generate_series(1, 200000) AS b(y) WHERE x + y = 0";
        let request = reqwest::Client::new().post(format!("{url}/v1/sql")).json(&json!({"query": query})).send().await;
        let answer = request.unwrap();
        let again = answer.headers().contains_key("retry-after");
        (answer.status(), again, answer.text().await.unwrap())
    });
    eventually("the query running", || async {
        let metrics = server.metrics().await;
        metrics.lines().any(|line| line.trim() == "sql_queries_running 1").then_some(())
    })
    .await;
    let started = Instant::now();
    let sent = Command::new("kill").arg("-TERM").arg(server.id().to_string()).status().unwrap();
    assert!(sent.success());
    let (status, again, body) = query.await.unwrap();
    assert_eq!((status, again), (StatusCode::SERVICE_UNAVAILABLE, true), "{body}");
    let said = server.wait_for_end().await;
    assert!(started.elapsed() < Duration::from_secs(90), "{:?}", started.elapsed());
    assert!(!said.contains("backtrace"), "{said}");
    assert!(!folder.path().join("spill").exists());
    // The log has what the lake had not.
    fs::remove_file(&lake).unwrap();
    fs::rename(folder.path().join("elsewhere"), &lake).unwrap();
    server.launch();
    server.ready().await;
    let rows = server.sql("SELECT count(*) FROM inventory.price_set", 0).await;
    assert_eq!(rows, [json!([2])]);
}
