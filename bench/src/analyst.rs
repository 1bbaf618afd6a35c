//! `analyst`: what analysts ask, by us and by DuckDB over the same Parquet files, warm, on the same machine.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use ingest::server::NatsServer;
use lake::{Lake, LakeView, QueryLimits, SqlSession, result_json, session};
use processors::{derived_tables::derived_tables, kpi_definition::KpiDefinition};
use schemas::{Catalogue, field_type::parse_timestamp};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use bench::yardstick::{Better, Figure, ROUNDS, Recorder, in_turn, milliseconds};

use crate::server::{Server, forecourt};

/// A year of a market: over a million events.
const DAYS: u32 = 365;
const VEHICLES: u32 = 3_000;
const LIMIT: &str = "DuckDB over the same files, warm";
const LIMITS: QueryLimits = QueryLimits { rows: usize::MAX, time: Duration::from_secs(600) };
const QUERIES: &str = include_str!("../queries/analyst.sql");
const VEHICLES_NOW: &str = include_str!("../../processors/current/vehicles.sql");
const OFFERS_NOW: &str = include_str!("../../processors/current/offers.sql");

/// What one side said, and how long it took.
struct Answered {
    milliseconds: f64,
    rows: Vec<Vec<Value>>,
}

pub(crate) fn run(recorder: &mut Recorder) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let folder = tempfile::tempdir()?;
        let data = match std::env::var_os("BENCH_DATA") {
            Some(own) => PathBuf::from(own),
            None => loaded(folder.path()).await?,
        };
        let tidied = forecourt()?
            .args(["maintain", "--retention", "off", "--keep-old-files", "0s", "--data"])
            .arg(&data)
            .stdout(Stdio::null())
            .status()?;
        ensure!(tidied.success(), "forecourt maintain failed");
        measure(recorder, &data.join("lake")).await
    })
}

/// A lake with a year of the market, through the door.
async fn loaded(folder: &Path) -> anyhow::Result<PathBuf> {
    let file = folder.join("market.ndjson");
    let market = datasets::Market::new(1, 1_735_689_600_000_000, DAYS, VEHICLES);
    let mut output = BufWriter::new(File::create(&file)?);
    let written = market.write(&mut output)?;
    output.flush()?;
    let nats = NatsServer::start(&folder.join("nats")).await?;
    let server = Server::start(&folder.join("data"), &nats.context().login_url(), &["--retention", "off"])?;
    server.backfill(&file)?;
    server.reflects(written.lines).await?;
    server.stop()?;
    nats.stop().await;
    Ok(folder.join("data"))
}

async fn measure(recorder: &mut Recorder, lake: &Path) -> anyhow::Result<()> {
    let view = Arc::new(Lake::look(&lake::folder_url(lake)?, Catalogue::embedded()?).await?);
    let sql = SqlSession::new(Handle::current(), derived_tables(&KpiDefinition::embedded()?))?;
    let queries: Vec<(&str, &str)> = QUERIES
        .split("-- name: ")
        .skip(1)
        .filter_map(|text| text.trim().trim_end_matches(';').split_once('\n'))
        .collect();
    for round in 0..ROUNDS {
        let ours = async || {
            let mut answers = Vec::new();
            for (name, query) in &queries {
                answers.push(asked(&sql, &view, query).await.with_context(|| (*name).to_owned())?);
            }
            Ok(answers)
        };
        let limit = async || duckdb(&sql, &view, lake, &queries).await;
        let (ours, theirs) = in_turn(round, ours, limit).await?;
        let (mut logarithms, mut differing) = ((0.0, 0.0), Vec::new());
        for (((name, _), ours), theirs) in queries.iter().zip(&ours).zip(&theirs) {
            logarithms.0 += ours.milliseconds.ln();
            logarithms.1 += theirs.milliseconds.ln();
            recorder.record(figure(name), ours.milliseconds, theirs.milliseconds);
            if let Some(how) = difference(&ours.rows, &theirs.rows) {
                differing.push(format!("{name}: {how}"));
            }
        }
        let mean = |logarithms: f64| (logarithms / queries.len() as f64).exp();
        recorder.record(figure("all queries, geometric mean"), mean(logarithms.0), mean(logarithms.1));
        ensure!(differing.is_empty(), "the two differ: {}", differing.join("; "));
    }
    Ok(())
}

fn figure(name: &str) -> Figure<'_> {
    Figure { name, unit: "ms", better: Better::Lower, limit: LIMIT }
}

/// Ask our engine once to warm up, and once for the time.
async fn asked(sql: &SqlSession, view: &Arc<LakeView>, query: &str) -> anyhow::Result<Answered> {
    let mut answered = None;
    for _ in 0..2 {
        let none = session::parameters(&[]).map_err(|_| anyhow::anyhow!("no parameters"))?;
        let started = Instant::now();
        let mut answer = sql.query(view, Vec::new(), sql.parse(query)?, none, LIMITS).await?;
        let batches = answer.collect().await?;
        let milliseconds = milliseconds(started.elapsed());
        let rows = result_json::rows(&batches).filter_map(|row| row.as_array().cloned()).collect();
        answered = Some(Answered { milliseconds, rows });
    }
    answered.context("nothing was asked")
}

/// Ask DuckDB in a process of its own, over the same files and the same views.
async fn duckdb(
    sql: &SqlSession,
    view: &Arc<LakeView>,
    lake: &Path,
    queries: &[(&str, &str)],
) -> anyhow::Result<Vec<Answered>> {
    let mut views = Vec::new();
    for table in sql.tables(view).await? {
        let Some((_, context)) = view.catalogue.context(&table.schema) else { continue };
        let Some(event) = context.events.iter().find(|event| event.view == table.name) else { continue };
        let columns: Vec<String> = table.columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
        let files = lake.join(&context.name).join("partition_date=*/*.parquet");
        if !has_files(&lake.join(&context.name)) {
            continue;
        }
        views.push(json!({
            "schema": table.schema, "name": table.name,
            "sql": format!(
                "SELECT {} FROM read_parquet('{}', hive_partitioning = false) WHERE event_type = '{}'",
                columns.join(", "), files.display(), event.name
            ),
        }));
    }
    let contexts = view.catalogue.contexts().iter().filter(|context| has_files(&lake.join(&context.name)));
    let every = contexts.map(|context| {
        let files = lake.join(&context.name).join("partition_date=*/*.parquet");
        format!(
            "SELECT position, event_type, event_time, aggregate_id, '{}' AS context \
             FROM read_parquet('{}', hive_partitioning = false)",
            context.name,
            files.display()
        )
    });
    let every: Vec<String> = every.collect();
    views.push(json!({"schema": "lake", "name": "events", "sql": every.join(" UNION ALL ")}));
    views.push(json!({"schema": "current", "name": "vehicles", "sql": VEHICLES_NOW}));
    views.push(json!({"schema": "current", "name": "offers", "sql": OFFERS_NOW}));
    let order =
        json!({"views": views, "queries": queries.iter().map(|(_, query)| query).collect::<Vec<_>>(), "runs": 1});

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut child = Command::new(root.join(".tools/python/bin/python"))
        .arg(root.join("bench/duckdb_queries.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start Python with DuckDB; make bench installs it")?;
    let mut input = child.stdin.take().context("no input")?;
    input.write_all(order.to_string().as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "DuckDB failed");
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    let answered = answers.into_iter().map(|answer| {
        let rows = answer["rows"].as_array().context("no rows")?;
        let rows = rows.iter().filter_map(|row| row.as_array().cloned()).collect();
        Ok(Answered { milliseconds: answer["milliseconds"].as_f64().context("no time")?, rows })
    });
    answered.collect()
}

fn has_files(table: &Path) -> bool {
    let partitions = table.read_dir().into_iter().flatten().flatten();
    partitions
        .flat_map(|partition| partition.path().read_dir())
        .flatten()
        .flatten()
        .any(|file| file.path().extension().is_some_and(|ending| ending == "parquet"))
}

/// Where two answers are not the same: numbers to six digits, as means of money have six decimals here and more there;
/// times to the microsecond.
fn difference(ours: &[Vec<Value>], theirs: &[Vec<Value>]) -> Option<String> {
    if ours.len() != theirs.len() {
        return Some(format!("{} rows are {}", ours.len(), theirs.len()));
    }
    let same = |a: &Value, b: &Value| match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-6 * a.abs().max(b.abs()).max(1.0),
        _ => match (a.as_str().and_then(parse_timestamp), b.as_str().and_then(parse_timestamp)) {
            (Some(a), Some(b)) => a == b,
            _ => a == b,
        },
    };
    let differs = |(ours, theirs): &(&Vec<Value>, &Vec<Value>)| {
        ours.len() != theirs.len() || !ours.iter().zip(*theirs).all(|(a, b)| same(a, b))
    };
    let (number, (ours, theirs)) = ours.iter().zip(theirs).enumerate().find(|(_, pair)| differs(pair))?;
    Some(format!("row {number} is {ours:?} and {theirs:?}"))
}
