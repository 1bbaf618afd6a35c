//! `kpis`: what a poll costs, answered from the board, as unchanged, anew, and as SQL, against the smallest answer there is;
//! and how soon a late event is on the board, against the same poll with nothing to wait for.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ingest::server::NatsServer;
use reqwest::{Client, StatusCode, header};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use bench::yardstick::{Better, Figure, ROUNDS, Recorder, limit_goes_first, quantile};

use crate::server::Server;

/// A year of some 600,000 events.
const MARKET: datasets::Market = datasets::Market::new(4, 1_735_689_600_000_000, 365, 1_300);
/// How long each kind of poll lasts in a round.
const LASTS: Duration = Duration::from_secs(2);
const CONNECTIONS: usize = 8;
const LATE_EVENTS: usize = 10;
const POLL: &str = "/v1/kpis/sales_volume?grain=day&from=2025-06-01&to=2025-07-01&compare=previous";
const SAME_IN_SQL: &str = "SELECT bucket, units_sold, revenue FROM kpi.sales_volume WHERE bucket >= TIMESTAMP '2025-05-02' \
    AND bucket < TIMESTAMP '2025-07-01' ORDER BY bucket";

pub(crate) fn run(recorder: &mut Recorder) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("market.ndjson");
        MARKET.write(&mut std::io::BufWriter::new(std::fs::File::create(&file)?))?;
        let nats = NatsServer::start(&folder.path().join("nats")).await?;
        let server = Server::start(&folder.path().join("data"), &nats.context().login_url(), &["--retention", "off"])?;
        server.backfill(&file)?;
        server.catches_up().await?;
        let measured = measure(recorder, &server.url).await;
        drop(server);
        nats.stop().await;
        measured
    })
}

async fn measure(recorder: &mut Recorder, url: &str) -> anyhow::Result<()> {
    let client = Client::new();
    let answer = client.get(format!("{url}{POLL}&wait_ms=60000")).send().await?.error_for_status()?;
    ensure!(answer.headers().contains_key(header::ETAG), "no ETag");
    for round in 0..ROUNDS {
        polls(recorder, round, url).await?;
        let (mut late, mut known) = (Vec::new(), Vec::new());
        for number in 0..LATE_EVENTS {
            late.push(until_on_board(&client, url, round * LATE_EVENTS + number).await?);
            let asked = Instant::now();
            client.get(format!("{url}{POLL}")).send().await?.error_for_status()?.bytes().await?;
            known.push(asked.elapsed().as_secs_f64() * 1e3);
        }
        let limit = "the same poll, nothing to wait for";
        let figure = Figure { name: "a late sale until on the board, p50", unit: "ms", better: Better::Lower, limit };
        recorder.record(figure, quantile(late, 0.5), quantile(known, 0.5));
    }
    Ok(())
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

/// Each kind of poll as fast as some connections go, and the smallest answer there is.
async fn polls(recorder: &mut Recorder, round: usize, url: &str) -> anyhow::Result<()> {
    let client = Client::new();
    let health = format!("{url}/health");
    let smallest = {
        let (client, health) = (client.clone(), health.clone());
        move |_: usize| client.get(&health)
    };
    let before = if limit_goes_first(round) { Some(closed(&smallest, StatusCode::OK).await?) } else { None };
    let poll = format!("{url}{POLL}");
    let answer = client.get(&poll).send().await?;
    let tag = answer.headers().get(header::ETAG).context("no ETag")?.clone();
    let hit = {
        let (client, poll) = (client.clone(), poll.clone());
        move |_: usize| client.get(&poll)
    };
    let unchanged = {
        let client = client.clone();
        move |_: usize| client.get(&poll).header(header::IF_NONE_MATCH, tag.clone())
    };
    let anew = {
        let (client, kpi) = (client.clone(), format!("{url}/v1/kpis/sales_volume?grain=day"));
        move |number: usize| {
            // Other bounds are another answer of the same series.
            let number = number + round * 7;
            let (from, month, to) = (number % 28 + 1, number / 28 % 6 + 5, number / 168 % 28 + 1);
            client.get(format!("{kpi}&from=2025-02-{from:02}&to=2025-{month:02}-{to:02}"))
        }
    };
    let sql = {
        let (client, asked) = (client.clone(), format!("{url}/v1/sql"));
        move |_: usize| client.post(&asked).json(&json!({"query": SAME_IN_SQL}))
    };
    let rates = [
        ("from the board, 8 connections", closed(&hit, StatusCode::OK).await?),
        ("unchanged (304), 8 connections", closed(&unchanged, StatusCode::NOT_MODIFIED).await?),
        ("written anew, 8 connections", closed(&anew, StatusCode::OK).await?),
        ("the same as SQL, 8 connections", closed(&sql, StatusCode::OK).await?),
    ];
    let limit = match before {
        Some(before) => before,
        None => closed(&smallest, StatusCode::OK).await?,
    };
    for (name, rate) in rates {
        let figure = Figure { name, unit: "polls/s", better: Better::Higher, limit: "GET /health" };
        recorder.record(figure, rate, limit);
    }
    Ok(())
}

/// How many a second, one after another on each connection.
async fn closed(
    request: &(impl Fn(usize) -> reqwest::RequestBuilder + Clone + Send + 'static),
    expected: StatusCode,
) -> anyhow::Result<f64> {
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
    Ok(times.len() as f64 / started.elapsed().as_secs_f64())
}
