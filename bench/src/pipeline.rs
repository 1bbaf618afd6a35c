//! `pipeline`: events of a full log through all sinks, against a raw consumer that discards them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use async_nats::jetstream::{self, consumer::pull::OrderedConfig};
use futures::StreamExt;
use ingest::{
    Intake, Log, Publisher, SeenEvents,
    intake::BodyForm,
    server::{NatsContext, NatsServer},
};
use lake::{LakeConfig, Spill};
use processors::{Pipeline, PipelineConfig};
use schemas::{Catalogue, Position};
use tokio::{runtime::Runtime, task::JoinSet};
use tokio_util::sync::CancellationToken;

use bench::yardstick::{Better, Figure, ROUNDS, Recorder, limit_goes_first};

use crate::server::connect;

/// A market of some 120,000 events.
const MARKET: datasets::Market = datasets::Market::new(1, 1_767_225_600_000_000, 120, 270);
/// No round may take longer.
const DEADLINE: Duration = Duration::from_secs(300);
const LIMIT: &str = "a raw consumer that discards";

/// What took how long, for so many events.
struct Side {
    name: &'static str,
    seconds: f64,
}

pub(crate) fn run(recorder: &mut Recorder) -> anyhow::Result<()> {
    for round in 0..ROUNDS {
        let queries = Runtime::new()?;
        let main = Runtime::new()?;
        let (events, limit, sides) = main.block_on(measure(queries.handle().clone(), limit_goes_first(round)))?;
        queries.shutdown_background();
        for Side { name, seconds } in sides {
            let figure = Figure { name, unit: "events/s", better: Better::Higher, limit: LIMIT };
            recorder.record(figure, events as f64 / seconds, events as f64 / limit);
        }
    }
    Ok(())
}

/// How many events, how long the limit took, and each side.
type Sides = (u64, f64, Vec<Side>);

async fn measure(queries: tokio::runtime::Handle, limit_first: bool) -> anyhow::Result<Sides> {
    let folder = tempfile::tempdir()?;
    let server = NatsServer::start(&folder.path().join("nats")).await?;
    let measured = tokio::time::timeout(DEADLINE, sides(folder.path(), server.context(), queries, limit_first)).await;
    server.stop().await;
    measured.map_err(|_| anyhow!("not done within {DEADLINE:?}"))?
}

async fn sides(
    folder: &std::path::Path,
    context: &NatsContext,
    queries: tokio::runtime::Handle,
    limit_first: bool,
) -> anyhow::Result<Sides> {
    let catalogue = Catalogue::embedded()?;
    let log = Log::connect(&context.url, &context.access()).await?;
    log.prepare(Position::START).await?;
    let (events, filled) = fill(&catalogue, &log, &folder.join("door")).await?;
    let before = if limit_first { Some(consume(context, events).await?) } else { None };

    let config = PipelineConfig {
        kpis: processors::KpiDefinition::embedded()?,
        lake: folder.join("lake"),
        index: folder.join("index"),
        seen: folder.join("seen"),
        spill: Spill { folder: folder.to_owned(), most_bytes: u64::MAX },
        flush: LakeConfig::default(),
        accept_loss: false,
        retention: schemas::RetentionPolicy::OFF,
    };
    let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
    let started = Instant::now();
    let pipeline = Pipeline::start(config, catalogue, log, queries, &mut tasks, stop.clone()).await?;
    let end = Position::new(events);
    let mut views = pipeline.lake.clone();
    views.wait_for(|view| view.as_ref().is_some_and(|view| view.position >= end)).await?;
    let lake = started.elapsed();
    pipeline.listings.clone().wait_for(|listings| listings.as_ref().is_some_and(|it| it.position >= end)).await?;
    pipeline.kpis.cache.clone().wait_for(|board| board.as_ref().is_some_and(|board| board.position >= end)).await?;
    let all = started.elapsed();
    stop.cancel();
    while let Some(stage) = tasks.join_next().await {
        stage??;
    }
    let flushed = started.elapsed();
    let consumed = match before {
        Some(before) => before,
        None => consume(context, events).await?,
    };
    let side = |name, elapsed: Duration| Side { name, seconds: elapsed.as_secs_f64() };
    let sides = vec![
        side("in SQL (decoded, in the lake's view)", lake),
        side("in SQL, search and KPIs", all),
        side("and every row in Delta files", flushed),
        side("into the log: checked and fsynced", filled),
    ];
    Ok((events, consumed.as_secs_f64(), sides))
}

/// Publish the market through the door; how many events, and how long.
async fn fill(catalogue: &Arc<Catalogue>, log: &Log, seen: &std::path::Path) -> anyhow::Result<(u64, Duration)> {
    let mut text = Vec::new();
    let events = MARKET.write(&mut text)?;
    let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
    let seen = Arc::new(SeenEvents::open(seen, "bench", Position::new(u64::MAX))?);
    let publisher = Publisher::start(log.clone(), seen, &mut tasks, stop.clone());
    let intake = Intake::new(Arc::clone(catalogue), publisher, || 0);
    let started = Instant::now();
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let bodies =
        lines.chunks(4_000).map(|lines| intake.take(std::io::Cursor::new(lines.concat()), BodyForm::Ndjson, None));
    let mut answers = futures::stream::iter(bodies).buffer_unordered(4);
    while let Some(answer) = answers.next().await {
        let report = answer?;
        anyhow::ensure!(report.rejected.is_empty(), "{:?}", report.rejected.first());
    }
    let elapsed = started.elapsed();
    drop(answers);
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    Ok((events.lines, elapsed))
}

/// Read the whole log and look at nothing.
async fn consume(context: &NatsContext, events: u64) -> anyhow::Result<Duration> {
    let client = connect(context).await?;
    let stream = jetstream::new(client).get_stream("EVENTS").await?;
    let started = Instant::now();
    let consumer = stream.create_consumer(OrderedConfig::default()).await?;
    let mut messages = consumer.messages().await?;
    for _ in 0..events {
        messages.next().await.context("the log ended early")??;
    }
    Ok(started.elapsed())
}
