//! `kpis`: what a poll costs, answered from the board, as unchanged, anew, and beside them as SQL; how soon an event is on
//! the board while others come; and what a late event costs as history grows. `BENCH_KPIS_DATA=DIR` measures with the data that a
//! `forecourt up --data DIR` has left there, and publishes its events into it.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use ingest::server::NatsServer;
use reqwest::{Client, StatusCode, header};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::MissedTickBehavior};

use crate::{freshness::send, server::Server};

const SEED: u64 = 4;
const DAYS: u32 = 365;
/// Over a million events, in two parts: what a late event costs is measured after each.
const VEHICLES: u32 = 2_600;
const FIRST_PART: f64 = 0.25;
/// How long each kind of poll, and the load, lasts.
const LASTS: Duration = Duration::from_secs(10);
const RATE: f64 = 5_000.0;
const CONNECTIONS: usize = 8;
const LATE_EVENTS: usize = 20;
const PROBE_EVERY: Duration = Duration::from_millis(400);
const POLL: &str = "/v1/kpis/sales_volume?grain=day&from=2025-06-01&to=2025-07-01&compare=previous";
const SAME_IN_SQL: &str = "SELECT bucket, units_sold, revenue FROM kpi.sales_volume WHERE bucket >= TIMESTAMP '2025-05-02' \
    AND bucket < TIMESTAMP '2025-07-01' ORDER BY bucket";

pub(crate) fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let own = std::env::var_os("BENCH_KPIS_DATA").map(PathBuf::from);
        // Into data that is there already, events that have not come before.
        let seed = if own.is_some() { rand::random() } else { SEED };
        let mut text = Vec::new();
        datasets::Market::new(seed, 1_735_689_600_000_000, DAYS, VEHICLES).write(&mut text)?;
        let text = Bytes::from(text);
        let lines: Vec<Bytes> = text.split_inclusive(|byte| *byte == b'\n').map(|line| text.slice_ref(line)).collect();
        let folder = tempfile::tempdir()?;
        let data = own.clone().unwrap_or_else(|| folder.path().join("data"));
        let nats = NatsServer::start(&data.join("nats")).await?;
        let server = Server::start(&data, nats.url(), &["--retention", "off"])?;
        println!("\nkpis: over HTTP, client and server on the same machine");
        let (first, rest) = lines.split_at((lines.len() as f64 * FIRST_PART) as usize);
        let (rest, load) = rest.split_at(rest.len() - RATE as usize * LASTS.as_secs() as usize);
        if own.is_some() {
            late(&server.url).await?;
        } else {
            for part in [first, rest] {
                let file = folder.path().join("part.ndjson");
                fs::write(&file, part.concat())?;
                server.backfill(&file)?;
                late(&server.url).await?;
            }
        }
        polls(&server.url).await?;
        let (sent, waits) = tokio::join!(send(&server.url, load, RATE as usize), board(&server.url, LASTS));
        println!("  from an event's acknowledgement to the board, at {:.0} events/s:", sent?);
        told("    sales of a day", waits?, None);
        server.stop()?;
        let server = Server::start(&data, nats.url(), &["--retention", "off"])?;
        let names: Value = Client::new().get(format!("{}/v1/kpis", server.url)).send().await?.json().await?;
        let names: Vec<&str> =
            names["kpis"].as_array().into_iter().flatten().filter_map(|kpi| kpi["name"].as_str()).collect();
        let started = Instant::now();
        get(&server.url, &format!("/v1/kpis?grain=day&names={}", names.join(","))).await?;
        println!("  all {} KPIs by day after a restart: {:.2} s", names.len(), started.elapsed().as_secs_f64());
        drop(server);
        nats.stop().await;
        anyhow::Ok(())
    })
}

async fn get(url: &str, path: &str) -> anyhow::Result<Value> {
    Ok(Client::new().get(format!("{url}{path}")).send().await?.error_for_status()?.json().await?)
}

fn told(name: &str, mut times: Vec<f64>, rate: Option<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let rate = rate.map_or(String::new(), |rate| format!("{rate:.0}/s"));
    println!("  {name:<48} {:>9.2} {:>9.2} {:>9.2} {rate:>10}", at(0.5), at(0.99), at(1.0));
}

/// A sale of long ago, its own listing's.
fn sale(number: usize) -> Value {
    json!({
        "eventId": format!("late-{}", uuid::Uuid::now_v7()), "eventType": "VehicleSold", "timestamp": "2025-06-15T12:00:00Z",
        "data": {"listingId": format!("late-{number}"), "finalPrice": 20_000, "soldAt": "2025-06-15T12:00:00Z"},
    })
}

/// Publish a late sale; how long until the board has it.
async fn until_on_board(client: &Client, url: &str, number: usize) -> anyhow::Result<f64> {
    let request = client.post(format!("{url}/v1/events")).body(sale(number).to_string());
    let answer: Value = request.send().await?.json().await?;
    let position = answer["position"].as_u64().with_context(|| answer.to_string())?;
    let asked = Instant::now();
    let path = format!("{url}{POLL}&min_position={position}&wait_ms=20000");
    let answer = client.get(path).send().await?;
    ensure!(answer.status() == StatusCode::OK, "{}", answer.text().await?);
    Ok(asked.elapsed().as_secs_f64() * 1e3)
}

/// What a late sale costs, with nothing else going on.
async fn late(url: &str) -> anyhow::Result<()> {
    let client = Client::new();
    get(url, &format!("{POLL}&wait_ms=60000")).await?;
    let events = get(url, "/v1/tables?wait_ms=60000").await?["as_of"]["position"].as_u64().unwrap_or_default();
    let mut times = Vec::new();
    for number in 0..LATE_EVENTS {
        times.push(until_on_board(&client, url, number).await?);
    }
    println!("  {:<48} {:>9} {:>9} {:>9}", "ms", "p50", "p99", "max");
    told(&format!("a late sale until on the board, {events} events"), times, None);
    Ok(())
}

async fn board(url: &str, lasts: Duration) -> anyhow::Result<Vec<f64>> {
    let (client, started) = (Client::new(), Instant::now());
    let mut ticks = tokio::time::interval(PROBE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut times = Vec::new();
    while started.elapsed() < lasts {
        ticks.tick().await;
        times.push(until_on_board(&client, url, times.len()).await?);
    }
    Ok(times)
}

/// Each kind of poll, as fast as some connections go, and at a rate.
async fn polls(url: &str) -> anyhow::Result<()> {
    let answer = Client::new().get(format!("{url}{POLL}")).send().await?;
    let tag = answer.headers().get(header::ETAG).context("no ETag")?.clone();
    println!("  {:<48} {:>9} {:>9} {:>9}", "a poll, ms", "p50", "p99", "max");
    let (client, poll) = (Client::new(), format!("{url}{POLL}"));
    let hit = move |_: usize| client.get(&poll);
    let (client, poll) = (Client::new(), format!("{url}{POLL}"));
    let unchanged = move |_: usize| client.get(&poll).header(header::IF_NONE_MATCH, tag.clone());
    let (client, kpi) = (Client::new(), format!("{url}/v1/kpis/sales_volume?grain=day"));
    let anew = move |number: usize| {
        // Other bounds are another answer of the same series.
        let (from, month, to) = (number % 28 + 1, number / 28 % 6 + 5, number / 168 % 28 + 1);
        client.get(format!("{kpi}&from=2025-02-{from:02}&to=2025-{month:02}-{to:02}"))
    };
    let (client, asked) = (Client::new(), format!("{url}/v1/sql"));
    let sql = move |_: usize| client.post(&asked).json(&json!({"query": SAME_IN_SQL}));
    both("from the board", &hit, StatusCode::OK).await?;
    both("unchanged (304)", &unchanged, StatusCode::NOT_MODIFIED).await?;
    let (times, rate) = closed(&anew, StatusCode::OK).await?;
    told("written anew, as fast as 8 connections go", times, Some(rate));
    let (times, rate) = closed(&sql, StatusCode::OK).await?;
    told("the same as SQL, as fast as 8 connections go", times, Some(rate));
    Ok(())
}

async fn both(
    name: &str,
    request: &(impl Fn(usize) -> reqwest::RequestBuilder + Clone + Send + 'static),
    expected: StatusCode,
) -> anyhow::Result<()> {
    let (times, rate) = closed(request, expected).await?;
    told(&format!("{name}, as fast as {CONNECTIONS} connections go"), times, Some(rate));
    told(&format!("{name}, at {RATE:.0}/s"), open(request, expected).await?, None);
    Ok(())
}

/// One after another, on each connection.
async fn closed(
    request: &(impl Fn(usize) -> reqwest::RequestBuilder + Clone + Send + 'static),
    expected: StatusCode,
) -> anyhow::Result<(Vec<f64>, f64)> {
    let started = Instant::now();
    let mut connections = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let request = request.clone();
        connections.spawn(async move {
            let mut times = Vec::new();
            while started.elapsed() < LASTS {
                let asked = Instant::now();
                let answer = request(times.len() * CONNECTIONS + connection).send().await?;
                ensure!(answer.status() == expected, "{}", answer.status());
                answer.bytes().await?;
                times.push(asked.elapsed().as_secs_f64() * 1e3);
            }
            Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = connections.join_next().await {
        times.extend(done??);
    }
    let rate = times.len() as f64 / started.elapsed().as_secs_f64();
    Ok((times, rate))
}

/// At a rate, whether or not those before were answered; each is timed from when it is sent.
async fn open(
    request: &(impl Fn(usize) -> reqwest::RequestBuilder + Clone + Send + 'static),
    expected: StatusCode,
) -> anyhow::Result<Vec<f64>> {
    let started = tokio::time::Instant::now();
    let mut under_way = JoinSet::new();
    let mut times = Vec::new();
    let count = (RATE * LASTS.as_secs_f64()) as usize;
    for number in 0..count {
        let due = started + Duration::from_secs_f64(number as f64 / RATE);
        // The timer ticks in milliseconds: some are sent together.
        if due > tokio::time::Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        let (request, sent) = (request(number), Instant::now());
        under_way.spawn(async move {
            let answer = request.send().await?;
            ensure!(answer.status() == expected, "{}", answer.status());
            answer.bytes().await?;
            anyhow::Ok(sent.elapsed().as_secs_f64() * 1e3)
        });
        while let Some(done) = under_way.try_join_next() {
            times.push(done??);
        }
    }
    while let Some(done) = under_way.join_next().await {
        times.push(done??);
    }
    ensure!(started.elapsed() < LASTS.mul_f64(1.1), "the rate was not kept: it took {:?}", started.elapsed());
    Ok(times)
}
