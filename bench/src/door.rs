//! The door of a running `forecourt`, against raw atomic batches to the same `nats-server`.
//!
//! - `intake`: NDJSON over HTTP, every event checked and on disk before the reply;
//! - `backfill`: `forecourt ingest` of a file;
//! - `single`: one event per request at 64 connections, against one event and one fsync at a time.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, ensure};
use async_nats::{HeaderMap, jetstream};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use ingest::{publisher::MAX_BATCH, server::NatsServer, topology::event_subject};
use serde_json::Value;

use crate::{Side, report, server::Server};

/// A market of some 280,000 events.
const fn market(seed: u64) -> datasets::Market {
    datasets::Market::new(seed, 1_767_225_600_000_000, 120, 700)
}
/// Bodies, and raw batches, on their way at once.
const AT_ONCE: usize = 4;
/// Connections that send single events, and how many each sends.
const CONNECTIONS: usize = 64;
const SINGLES: usize = 300;
/// Events published one at a time to know what one fsync each gives.
const ONE_BY_ONE: usize = 2_000;
/// No workload may take longer.
const DEADLINE: Duration = Duration::from_secs(600);

/// Which of the door's workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    Intake,
    Backfill,
    Single,
}

pub(crate) fn run(workload: Workload) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let folder = tempfile::tempdir()?;
        let nats = NatsServer::start(&folder.path().join("nats")).await?;
        let measured = tokio::time::timeout(DEADLINE, measure(workload, folder.path(), nats.url())).await;
        nats.stop().await;
        measured.map_err(|_| anyhow!("not done within {DEADLINE:?}"))?
    })
}

async fn measure(workload: Workload, folder: &Path, nats: &str) -> anyhow::Result<()> {
    let events = lines(1)?;
    let raw = Raw::open(nats).await?;
    match workload {
        Workload::Intake => {
            let limit = raw.batches(&events, MAX_BATCH, AT_ONCE).await?;
            let server = Server::start(&folder.join("data"), nats, &[])?;
            let sent = server.intake(&events).await?;
            report(
                "intake: NDJSON over HTTP, checked and fsynced before the reply",
                &[
                    side("raw atomic batches", events.len(), limit),
                    side("POST /v1/events, 4 bodies at once", events.len(), sent),
                ],
            );
        }
        Workload::Backfill => {
            let limit = raw.batches(&events, MAX_BATCH, AT_ONCE).await?;
            let server = Server::start(&folder.join("data"), nats, &[])?;
            let file = folder.join("market.ndjson");
            tokio::fs::write(&file, joined(&events)).await?;
            let sent = server.backfill(&file)?;
            report(
                "backfill: forecourt ingest of a file",
                &[
                    side("raw atomic batches", events.len(), limit),
                    side("forecourt ingest, its start included", events.len(), sent),
                ],
            );
        }
        Workload::Single => {
            let limit = raw.one_by_one(&events[..ONE_BY_ONE]).await?;
            let events = &events[..CONNECTIONS * SINGLES];
            let batches = raw.batches(events, CONNECTIONS, 1).await?;
            let server = Server::start(&folder.join("data"), nats, &[])?;
            let (sent, mut latencies) = server.singles(events).await?;
            latencies.sort();
            report(
                "single: an event per request, 64 connections",
                &[
                    side("raw, one event and one fsync at a time", ONE_BY_ONE, limit),
                    side("raw atomic batches of 64, one at a time", events.len(), batches),
                    side("POST /v1/events, one event each", events.len(), sent),
                ],
            );
            let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
            println!("  an acknowledged event takes {:.2} ms at p50, {:.2} ms at p99", at(0.5), at(0.99));
        }
    }
    Ok(())
}

fn side(name: &'static str, events: usize, elapsed: Duration) -> Side {
    Side { name, events: events as u64, seconds: elapsed.as_secs_f64() }
}

/// An event's text with its line break, and the subject it has in the raw stream: like its own, but for the first token.
struct Event {
    text: Bytes,
    subject: String,
}

fn joined(events: &[Event]) -> Bytes {
    events.iter().flat_map(|event| event.text.iter().copied()).collect()
}

/// A market's events.
fn lines(seed: u64) -> anyhow::Result<Vec<Event>> {
    let catalogue = schemas::Catalogue::embedded()?;
    let mut text = Vec::new();
    market(seed).write(&mut text)?;
    let text = Bytes::from(text);
    let event = |line: &[u8]| {
        let event = schemas::validation::parse_event(&catalogue, line, None)?;
        let (context, kind) = (catalogue.context_at(event.kind.context), catalogue.event_at(event.kind));
        let subject = event_subject(&context.name, &kind.name, &event.aggregate_id).replacen("events", "raw", 1);
        Ok(Event { text: text.slice_ref(line), subject })
    };
    text.split_inclusive(|byte| *byte == b'\n').map(event).collect()
}

/// The same server without us: a stream of its own.
struct Raw {
    client: async_nats::Client,
}

impl Raw {
    async fn open(url: &str) -> anyhow::Result<Self> {
        let client = async_nats::connect(url).await?;
        let config = jetstream::stream::Config {
            name: "RAW".to_owned(),
            subjects: vec!["raw.>".to_owned()],
            allow_atomic_publish: true,
            ..Default::default()
        };
        jetstream::new(client.clone()).create_stream(config).await?;
        Ok(Self { client })
    }

    /// Every event in atomic batches of `size`.
    async fn batches(&self, events: &[Event], size: usize, at_once: usize) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let batches = events.chunks(size).enumerate();
        stream::iter(batches)
            .map(|(number, batch)| self.batch(number, batch))
            .buffer_unordered(at_once)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(started.elapsed())
    }

    async fn batch(&self, number: usize, events: &[Event]) -> anyhow::Result<()> {
        let headers = |sequence: usize| {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", format!("{number}-{sequence}"));
            headers.insert("Nats-Batch-Id", format!("raw-{number}"));
            headers.insert("Nats-Batch-Sequence", sequence.to_string());
            headers
        };
        let [first @ .., last] = events else { return Ok(()) };
        for (index, event) in first.iter().enumerate() {
            self.client.publish_with_headers(event.subject.clone(), headers(index + 1), event.text.clone()).await?;
        }
        let mut commit = headers(events.len());
        commit.insert("Nats-Batch-Commit", "1");
        let reply = self.client.request_with_headers(last.subject.clone(), commit, last.text.clone()).await?;
        let reply: Value = serde_json::from_slice(&reply.payload)?;
        ensure!(reply["error"].is_null(), "{reply}");
        Ok(())
    }

    async fn one_by_one(&self, events: &[Event]) -> anyhow::Result<Duration> {
        let context = jetstream::new(self.client.clone());
        let started = Instant::now();
        for event in events {
            context.publish(event.subject.clone(), event.text.clone()).await?.await?;
        }
        Ok(started.elapsed())
    }
}

impl Server {
    async fn intake(&self, events: &[Event]) -> anyhow::Result<Duration> {
        let client = reqwest::Client::new();
        let bodies: Vec<Bytes> = events.chunks(events.len().div_ceil(AT_ONCE)).map(joined).collect();
        let started = Instant::now();
        let answers = bodies.into_iter().map(|body| self.post(&client, body));
        let accepted: u64 = futures::future::try_join_all(answers).await?.into_iter().sum();
        ensure!(accepted == events.len() as u64, "accepted {accepted} of {}", events.len());
        Ok(started.elapsed())
    }

    async fn post(&self, client: &reqwest::Client, body: Bytes) -> anyhow::Result<u64> {
        let answer = client.post(format!("{}/v1/events", self.url)).body(body).send().await?;
        let answer: Value = answer.json().await?;
        answer["accepted"].as_u64().with_context(|| answer.to_string())
    }

    async fn singles(&self, events: &[Event]) -> anyhow::Result<(Duration, Vec<Duration>)> {
        let client = reqwest::Client::new();
        let started = Instant::now();
        let senders = events.chunks(SINGLES).map(|own| {
            let client = client.clone();
            async move {
                let mut latencies = Vec::with_capacity(own.len());
                for event in own {
                    let sent = Instant::now();
                    ensure!(self.post(&client, event.text.clone()).await? == 1, "an event was not accepted");
                    latencies.push(sent.elapsed());
                }
                Ok(latencies)
            }
        });
        let latencies = futures::future::try_join_all(senders).await?.concat();
        Ok((started.elapsed(), latencies))
    }
}
