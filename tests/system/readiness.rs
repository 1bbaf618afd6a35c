//! `/ready` tells what is: while a server starts, when its log is not read, when its store takes nothing.

use std::{fs, path::PathBuf, process::Command, time::Instant};

use serde_json::{Value, json};

use crate::{
    door::event,
    support::{Forecourt, Nats, eventually},
};

fn price(id: &str) -> String {
    event(id, "PriceSet", "lst-1", json!({"listingId": "lst-1", "price": 9})).to_string()
}

/// What `/ready` of a part answers: its status, and the codes of its reasons.
async fn readiness(server: &Forecourt, part: &str) -> (u16, Vec<String>) {
    let answer = server.client.get(format!("{}/ready?part={part}", server.url)).send().await.unwrap();
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    let codes = body["reasons"].as_array().unwrap().iter().map(|reason| reason["code"].as_str().unwrap().to_owned());
    (status, codes.collect())
}

/// Wait until a part is not ready for this reason alone.
async fn is_refused(server: &Forecourt, part: &str, code: &str) {
    eventually(&format!("{part} not being ready: {code}"), || async {
        (readiness(server, part).await == (503, vec![code.to_owned()])).then_some(())
    })
    .await;
}

fn signal(process: u32, name: &str) {
    assert!(Command::new("kill").args([name, &process.to_string()]).status().unwrap().success());
}

#[tokio::test]
async fn a_server_that_starts_says_so_and_lives() {
    let folder = tempfile::tempdir().unwrap();
    let spill = folder.path().join("spill");
    fs::create_dir(&spill).unwrap();
    fs::write(spill.join("of a killed query"), "rows").unwrap();
    let nats = Nats::start().await;
    let mut server = Forecourt::new(&nats, folder.path(), &[]);
    signal(nats.id(), "-STOP");
    server.launch();
    let asked = |path: &str| server.client.get(format!("{}{path}", server.url)).send();
    eventually("an answer while it starts", || async { asked("/health").await.ok() }).await;
    for part in ["intake", "search", "kpis", "sql"] {
        assert_eq!(readiness(&server, part).await, (503, vec!["starting".to_owned()]), "{part}");
    }
    assert_eq!(asked("/health").await.unwrap().status(), 200);
    assert_eq!(asked("/ready?part=cellar").await.unwrap().status(), 400);
    let search = asked("/v1/search").await.unwrap();
    assert_eq!((search.status().as_u16(), search.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    assert_eq!(search.json::<Value>().await.unwrap()["code"], "not_yet");
    // A stop is a stop, also now.
    server.stop();
    server.launch();
    signal(nats.id(), "-CONT");
    server.ready().await;
    assert!(!spill.join("of a killed query").exists());
    let search = server.client.get(format!("{}/v1/search", server.url)).send().await.unwrap();
    assert_eq!(search.headers()["x-forecourt-position"], "0");
}

/// What the lake's store does not take is in the log and in memory: reads go on until that is full, and it heals.
#[tokio::test]
async fn a_store_that_takes_no_commit_is_a_reason_until_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let mut server = Forecourt::start_with(&nats, folder.path(), &["--flush-seconds", "1"]).await;
    server.publish(price("before")).await;
    let commits: PathBuf = folder.path().join("lake/inventory/_delta_log");
    let aside = folder.path().join("aside");
    fs::rename(&commits, &aside).unwrap();
    let began = Instant::now();
    fs::write(&commits, "in the way").unwrap();
    let (_, report) = server.publish(price("meanwhile")).await;
    is_refused(&server, "intake", "store_refuses").await;
    let position = report["position"].as_u64().unwrap();
    let count = "SELECT count(*) FROM inventory.price_set";
    assert_eq!(server.sql(count, position).await, [json!([2])]);
    assert_eq!(readiness(&server, "sql").await, (200, vec![]));
    // More than is kept in memory: from then on nothing is read, though the log grows.
    let mut last = position;
    for number in 0..6 {
        let prices: Vec<String> = (0..20_000).map(|price_of| price(&format!("more-{number}-{price_of}"))).collect();
        let (_, report) = server.publish(prices.join("\n")).await;
        assert_eq!(report["accepted"], 20_000);
        last = report["position"].as_u64().unwrap();
    }
    for part in ["sql", "search", "kpis"] {
        is_refused(&server, part, "stalled").await;
    }
    assert!(server.position().await.unwrap() < last);
    assert!(server.metrics().await.lines().any(|line| {
        let lag = line.strip_prefix("pipeline_lag_positions ").and_then(|lag| lag.parse::<f64>().ok());
        lag.is_some_and(|lag| lag > 0.0)
    }));
    // A fault is a line a minute, however often what fails is tried again.
    let (said, minutes) = (server.said(), began.elapsed().as_secs() / 60);
    let lines = said.matches("does not take a commit").count() as u64;
    assert!((1..=minutes + 1).contains(&lines), "{lines} in {minutes} minutes: {said}");
    fs::remove_file(&commits).unwrap();
    fs::rename(&aside, &commits).unwrap();
    eventually("everything being ready", || async { server.is_ready().await.then_some(()) }).await;
    server.stop();
    server.launch();
    server.ready().await;
    assert_eq!(server.sql(count, last).await, [json!([120_002])]);
}
