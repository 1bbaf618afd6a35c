//! `freshness`: from the acknowledgement of an event to its row in SQL, alone and while others pour in, against the same query
//! with nothing to wait for.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use ingest::server::NatsServer;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use bench::yardstick::{Better, Figure, ROUNDS, Recorder, quantile};

use crate::server::Server;

/// A market of some 600,000 events.
const DAYS: u32 = 365;
const VEHICLES: u32 = 1_300;
/// How long each load lasts.
const LASTS: Duration = Duration::from_secs(5);
const RATE: usize = 5_000;
/// How often a body is sent, and how often an event is followed.
const SEND_EVERY: Duration = Duration::from_millis(20);
const PROBE_EVERY: Duration = Duration::from_millis(50);

pub(crate) fn run(recorder: &mut Recorder) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let mut text = Vec::new();
        datasets::Market::new(3, 1_735_689_600_000_000, DAYS, VEHICLES).write(&mut text)?;
        let text = Bytes::from(text);
        let lines: Vec<Bytes> = text.split_inclusive(|byte| *byte == b'\n').map(|line| text.slice_ref(line)).collect();
        let folder = tempfile::tempdir()?;
        let nats = NatsServer::start(&folder.path().join("nats")).await?;
        let server = Server::start(&folder.path().join("data"), &nats.context().login_url(), &[])?;
        let measured = measure(recorder, &server.url, &lines).await;
        drop(server);
        nats.stop().await;
        measured
    })
}

async fn measure(recorder: &mut Recorder, url: &str, lines: &[Bytes]) -> anyhow::Result<()> {
    let mut loads = lines.chunks(RATE * LASTS.as_secs() as usize);
    for _ in 0..ROUNDS {
        for (name, rate) in [("nothing else comes", 0), ("5,000 events/s come", RATE)] {
            let load = if rate == 0 { &[] } else { loads.next().context("the market is too small")? };
            let (sent, waits) = tokio::join!(send(url, load, rate), probe(url));
            sent?;
            let (fresh, known) = waits?;
            for (at, share) in [("p50", 0.5), ("p99", 0.99)] {
                let name = format!("acknowledged until in SQL, {name}, {at}");
                let limit = "the same query, nothing to wait for";
                let figure = Figure { name: &name, unit: "ms", better: Better::Lower, limit };
                recorder.record(figure, quantile(fresh.clone(), share), quantile(known.clone(), share));
            }
        }
    }
    Ok(())
}

/// Send the events at a rate; the rate that came of it.
pub(crate) async fn send(url: &str, events: &[Bytes], rate: usize) -> anyhow::Result<f64> {
    if rate == 0 {
        return Ok(0.0);
    }
    let (client, started) = (Client::new(), Instant::now());
    let mut ticks = tokio::time::interval(SEND_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut under_way = tokio::task::JoinSet::new();
    for body in events.chunks(rate * SEND_EVERY.as_millis() as usize / 1_000) {
        ticks.tick().await;
        let body: Vec<u8> = body.concat();
        let request = client.post(format!("{url}/v1/events")).body(body);
        under_way.spawn(async move { request.send().await?.error_for_status() });
        while under_way.len() > 32 {
            under_way.join_next().await.context("nothing is under way")???;
        }
    }
    while let Some(sent) = under_way.join_next().await {
        sent??;
    }
    Ok(events.len() as f64 / started.elapsed().as_secs_f64())
}

/// Publish an event now and then and ask for it: how long that takes, and how long it takes once it is there.
async fn probe(url: &str) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let (client, started) = (Client::new(), Instant::now());
    let (mut fresh, mut known) = (Vec::new(), Vec::new());
    let mut ticks = tokio::time::interval(PROBE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while started.elapsed() < LASTS {
        ticks.tick().await;
        let event = json!({
            "eventId": format!("probe-{}", uuid::Uuid::now_v7()), "eventType": "PriceSet",
            "timestamp": "2026-01-01T00:00:00Z", "data": {"listingId": "probe", "price": 1},
        });
        let answer: Value =
            client.post(format!("{url}/v1/events")).body(event.to_string()).send().await?.json().await?;
        let position = answer["position"].as_u64().with_context(|| answer.to_string())?;
        for times in [&mut fresh, &mut known] {
            let asked = Instant::now();
            let query = format!("SELECT count(*) FROM inventory.price_set WHERE position = {position}");
            let request = client.post(format!("{url}/v1/sql?min_position={position}&wait_ms=10000"));
            let answer: Value = request.json(&json!({"query": query})).send().await?.json().await?;
            ensure!(answer["rows"] == json!([[1]]), "{answer}");
            times.push(asked.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok((fresh, known))
}
