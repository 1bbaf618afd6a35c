//! The door of a running `forecourt`, against raw atomic batches to the same `nats-server`.
//!
//! - `intake`: NDJSON over HTTP, every event checked and on disk before the reply;
//! - `backfill`: `forecourt ingest` of a file;
//! - `single`: one event per request at 64 connections, against batches of 64, one at a time.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, ensure};
use async_nats::{HeaderMap, jetstream};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use ingest::{
    publisher::MAX_BATCH,
    server::{NatsContext, NatsServer},
    topology::event_subject,
};
use serde_json::Value;

use bench::yardstick::{Better, Figure, ROUNDS, Recorder, in_turn, milliseconds, quantile};

use crate::server::{Server, connect};

/// A market of some 70,000 events.
const fn market(seed: u64) -> datasets::Market {
    datasets::Market::new(seed, 1_767_225_600_000_000, 120, 150)
}
/// Bodies, and raw batches, on their way at once.
const AT_ONCE: usize = 4;
/// Connections that send single events, and how many each sends in a round.
const CONNECTIONS: usize = 64;
const SINGLES: usize = 100;
/// Events published one at a time to know what one fsync each takes.
const ONE_BY_ONE: usize = 300;
/// No workload may take longer.
const DEADLINE: Duration = Duration::from_secs(900);

pub(crate) fn intake(recorder: &mut Recorder) -> anyhow::Result<()> {
    measured(async |_, raw, server| {
        for round in 0..ROUNDS {
            let events = lines(round as u64 + 1)?;
            let ours = async || server.intake(&events).await;
            let limit = async || raw.batches(&events, MAX_BATCH, AT_ONCE).await;
            let (ours, limit) = in_turn(round, ours, limit).await?;
            let name = "POST /v1/events, 4 bodies at once";
            recorder.record(batches(name), rate(events.len(), ours), rate(events.len(), limit));
            server.catches_up().await?;
        }
        Ok(())
    })
}

pub(crate) fn backfill(recorder: &mut Recorder) -> anyhow::Result<()> {
    measured(async |folder, raw, server| {
        for round in 0..ROUNDS {
            let events = lines(round as u64 + 1)?;
            let file = folder.join("market.ndjson");
            tokio::fs::write(&file, joined(&events)).await?;
            let ours = async || server.backfill(&file);
            let limit = async || raw.batches(&events, MAX_BATCH, AT_ONCE).await;
            let (ours, limit) = in_turn(round, ours, limit).await?;
            let name = "forecourt ingest of a file, its start included";
            recorder.record(batches(name), rate(events.len(), ours), rate(events.len(), limit));
            server.catches_up().await?;
        }
        Ok(())
    })
}

pub(crate) fn single(recorder: &mut Recorder) -> anyhow::Result<()> {
    measured(async |_, raw, server| {
        let events = lines(1)?;
        for (round, events) in events.chunks(CONNECTIONS * SINGLES).take(ROUNDS).enumerate() {
            let ours = async || server.singles(events).await;
            let limit = async || raw.batches(events, CONNECTIONS, 1).await;
            let ((ours, latencies), limit) = in_turn(round, ours, limit).await?;
            let figure = Figure {
                name: "an event per request, 64 connections",
                unit: "events/s",
                better: Better::Higher,
                limit: "raw atomic batches of 64, one at a time",
            };
            recorder.record(figure, rate(events.len(), ours), rate(events.len(), limit));
            let few = &events[..ONE_BY_ONE.min(events.len())];
            let alone = milliseconds(raw.one_by_one(few).await?) / few.len() as f64;
            for (name, share) in [("acknowledged, p50", 0.5), ("acknowledged, p99", 0.99)] {
                let limit = "one raw event and its fsync, alone";
                let figure = Figure { name, unit: "ms", better: Better::Lower, limit };
                recorder.record(figure, quantile(latencies.iter().copied().map(milliseconds), share), alone);
            }
            server.catches_up().await?;
        }
        Ok(())
    })
}

/// Run a workload with a folder, the raw server and ours.
fn measured(work: impl AsyncFnOnce(&Path, &Raw, &Server) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let folder = tempfile::tempdir()?;
        let nats = NatsServer::start(&folder.path().join("nats")).await?;
        let raw = Raw::open(nats.context()).await?;
        let server = Server::start(&folder.path().join("data"), &nats.context().login_url(), &["--retention", "off"])?;
        let done = tokio::time::timeout(DEADLINE, work(folder.path(), &raw, &server)).await;
        drop(server);
        nats.stop().await;
        done.map_err(|_| anyhow!("not done within {DEADLINE:?}"))?
    })
}

fn batches(name: &str) -> Figure<'_> {
    Figure { name, unit: "events/s", better: Better::Higher, limit: "raw atomic batches" }
}

fn rate(events: usize, elapsed: Duration) -> f64 {
    events as f64 / elapsed.as_secs_f64()
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
    async fn open(context: &NatsContext) -> anyhow::Result<Self> {
        let client = connect(context).await?;
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
        // Ids of their own: the server remembers those of minutes ago.
        let salt = uuid::Uuid::now_v7().simple().to_string();
        let started = Instant::now();
        let batches = events.chunks(size).enumerate();
        stream::iter(batches)
            .map(|(number, batch)| self.batch(&salt, number, batch))
            .buffer_unordered(at_once)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(started.elapsed())
    }

    async fn batch(&self, salt: &str, number: usize, events: &[Event]) -> anyhow::Result<()> {
        let headers = |sequence: usize| {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", format!("{salt}-{number}-{sequence}"));
            headers.insert("Nats-Batch-Id", format!("{salt}-{number}"));
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
