//! `freshness`: from the acknowledgement of an event to its row in SQL, while others pour in; and whether queries that join
//! five event types see one cut while four times as many do.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use ingest::server::NatsServer;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use crate::server::Server;

/// A market of over 1,000,000 events.
const DAYS: u32 = 365;
const VEHICLES: u32 = 2_600;
/// How long each load lasts.
const LASTS: Duration = Duration::from_secs(40);
/// How often a body is sent, and how often an event is followed.
const SEND_EVERY: Duration = Duration::from_millis(20);
const PROBE_EVERY: Duration = Duration::from_millis(100);

/// Five event types, and every event: the numbers of one cut.
const JOINED: &str = "SELECT (SELECT count(*) FROM lake.events), count(DISTINCT sold.listing_id), sum(sold.final_price) \
    FROM acquisition.final_offer_confirmed AS offered \
    JOIN acquisition.vehicle_purchased AS bought ON bought.offer_id = offered.offer_id \
    JOIN production.vehicle_received_at_facility AS received ON received.vehicle_id = bought.vehicle_id \
    JOIN inventory.vehicle_listing_created AS listed ON listed.vehicle_id = received.vehicle_id \
    JOIN inventory.vehicle_sold AS sold ON sold.listing_id = listed.listing_id";
const FUNNEL: &str = "SELECT (SELECT count(*) FROM lake.events), count(*), count(viewed.user_id), count(saved.user_id), \
    count(started.user_id) FROM (SELECT DISTINCT user_id FROM browsing.user_searched) AS searched \
    LEFT JOIN (SELECT DISTINCT user_id FROM browsing.vehicle_viewed) AS viewed ON viewed.user_id = searched.user_id \
    LEFT JOIN (SELECT DISTINCT user_id FROM browsing.favorite_added) AS saved ON saved.user_id = searched.user_id \
    LEFT JOIN (SELECT DISTINCT user_id FROM browsing.vehicle_compared) AS compared ON compared.user_id = searched.user_id \
    LEFT JOIN (SELECT DISTINCT user_id FROM purchase.get_started_clicked) AS started ON started.user_id = searched.user_id";

pub(crate) fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let mut text = Vec::new();
        datasets::Market::new(3, 1_735_689_600_000_000, DAYS, VEHICLES).write(&mut text)?;
        let text = Bytes::from(text);
        let lines: Vec<Bytes> = text.split_inclusive(|byte| *byte == b'\n').map(|line| text.slice_ref(line)).collect();
        let folder = tempfile::tempdir()?;
        let nats = NatsServer::start(&folder.path().join("nats")).await?;
        let server = Server::start(&folder.path().join("data"), nats.url(), &[])?;
        let measured = measure(&server.url, &lines).await;
        drop(server);
        nats.stop().await;
        measured
    })
}

async fn measure(url: &str, lines: &[Bytes]) -> anyhow::Result<()> {
    println!("\nfreshness: from an event's acknowledgement to its row in SQL, over HTTP, while others come");
    println!("  {:<34} {:>10} {:>9} {:>9} {:>9}", "", "events/s", "p50 ms", "p99 ms", "max ms");
    let mut rest = lines;
    for (name, rate) in [("nothing else", 0_usize), ("5,000 events/s", 5_000)] {
        let (load, after) = rest.split_at((rate * LASTS.as_secs() as usize).min(rest.len()));
        rest = after;
        let (sent, waits) = tokio::join!(send(url, load, rate), probe(url));
        let (mut fresh, mut known) = waits?;
        let row = |what: String, times: &mut Vec<f64>, rate: f64| {
            times.sort_by(f64::total_cmp);
            let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
            println!("  {what:<34} {rate:>10.0} {:>9.1} {:>9.1} {:>9.1}", at(0.5), at(0.99), at(1.0));
        };
        let rate = sent?;
        row(name.to_owned(), &mut fresh, rate);
        row("  the same query, nothing to wait for".to_owned(), &mut known, rate);
    }
    let load = &rest[..rest.len().min(20_000 * LASTS.as_secs() as usize)];
    let (sent, joined, funnel) = tokio::join!(send(url, load, 20_000), cuts(url, JOINED), cuts(url, FUNNEL));
    println!(
        "  at {:.0} events/s: {} joins of five event types and {} funnels, each of one cut",
        sent?, joined?, funnel?
    );
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

/// Ask again and again; every answer counts as many events as its position says.
async fn cuts(url: &str, query: &str) -> anyhow::Result<u64> {
    let (client, started) = (Client::new(), Instant::now());
    let mut asked = 0;
    while started.elapsed() < LASTS {
        let request = client.post(format!("{url}/v1/sql")).json(&json!({"query": query}));
        let answer: Value = request.send().await?.json().await?;
        ensure!(answer["rows"][0][0] == answer["as_of"]["position"], "{answer}");
        asked += 1;
    }
    Ok(asked)
}
