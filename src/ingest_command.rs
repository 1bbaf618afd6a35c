//! `forecourt ingest`: send files to a running server.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table, presets::UTF8_HORIZONTAL_ONLY};
use indicatif::{ProgressBar, ProgressStyle};
use ingest::backfill::Chunks;
use reqwest::{Client, StatusCode, header};
use serde::Deserialize;

use crate::arguments::Ingest;

/// Requests on their way at once: the server groups them into batches.
const IN_FLIGHT: usize = 4;
/// How long a server that cannot take events is asked again, before giving up.
const PATIENCE: Duration = Duration::from_secs(120);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Refused lines shown; all are counted.
const SHOWN_REJECTIONS: usize = 20;

/// What became of the files' events.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub accepted: u64,
    pub duplicates: u64,
    pub rejected: BTreeMap<String, u64>,
    pub position: Option<u64>,
}

#[derive(Deserialize)]
struct Report {
    accepted: u64,
    duplicates: u64,
    rejected: Vec<Rejected>,
    position: Option<u64>,
}

#[derive(Deserialize)]
struct Rejected {
    index: u64,
    code: String,
    message: String,
}

pub(crate) fn run(arguments: &Ingest) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let summary = send(&arguments.files, &arguments.to)?;
    println!("{}", table(&summary, started.elapsed()));
    Ok(if summary.rejected.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Send files, in order, with a progress bar.
pub(crate) fn send(files: &[PathBuf], to: &str) -> anyhow::Result<Summary> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = Client::builder().build().context("cannot make HTTP requests")?;
        let mut summary = Summary::default();
        for file in files {
            send_file(&client, to, file, &mut summary).await?;
        }
        Ok(summary)
    })
}

async fn send_file(client: &Client, to: &str, path: &Path, summary: &mut Summary) -> anyhow::Result<()> {
    let failed = || format!("cannot read {}", path.display());
    let (input, size): (Box<dyn BufRead>, Option<u64>) = if path == Path::new("-") {
        (Box::new(BufReader::new(io::stdin())), None)
    } else {
        let file = File::open(path).with_context(failed)?;
        let size = file.metadata().with_context(failed)?.len();
        (Box::new(BufReader::with_capacity(1 << 20, file)), Some(size))
    };
    let bar = progress(path, size);
    let mut chunks = Chunks::new(input);
    let mut in_flight = tokio::task::JoinSet::new();
    let mut left = true;
    while left || !in_flight.is_empty() {
        while left && in_flight.len() < IN_FLIGHT {
            match chunks.next_chunk().with_context(failed)? {
                Some(chunk) => {
                    let (client, url) = (client.clone(), format!("{}/v1/events", to.trim_end_matches('/')));
                    in_flight.spawn(async move { post(&client, &url, chunk).await });
                }
                None => left = false,
            }
        }
        let Some(answer) = in_flight.join_next().await else { continue };
        let (first_line, bytes, report) = answer??;
        bar.inc(bytes as u64);
        summary.accepted += report.accepted;
        summary.duplicates += report.duplicates;
        summary.position = summary.position.max(report.position);
        for rejected in report.rejected {
            let seen: u64 = summary.rejected.values().sum();
            if seen < SHOWN_REJECTIONS as u64 {
                let line = first_line + rejected.index;
                bar.suspend(|| eprintln!("{}:{line}: {}: {}", path.display(), rejected.code, rejected.message));
            }
            *summary.rejected.entry(rejected.code).or_default() += 1;
        }
        bar.set_message(format!("{} accepted, {} duplicates", summary.accepted, summary.duplicates));
    }
    bar.finish_and_clear();
    Ok(())
}

async fn post(client: &Client, url: &str, chunk: ingest::backfill::Chunk) -> anyhow::Result<(u64, usize, Report)> {
    let deadline = Instant::now() + PATIENCE;
    let bytes = chunk.text.len();
    let text = bytes::Bytes::from(chunk.text);
    loop {
        let kind = if chunk.is_array { "application/json" } else { "application/x-ndjson" };
        let sent = client.post(url).header(header::CONTENT_TYPE, kind).body(text.clone()).send().await;
        let problem = match sent {
            Ok(answer) => match answer.status() {
                StatusCode::OK | StatusCode::UNPROCESSABLE_ENTITY => {
                    let report = answer.json().await.context("the server's answer cannot be read")?;
                    return Ok((chunk.first_line, bytes, report));
                }
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => answer.text().await?,
                status => bail!("{url} answered {status}: {}", answer.text().await.unwrap_or_default()),
            },
            // What was taken before the connection broke is a duplicate when it is sent again.
            Err(error) if error.is_connect() || error.is_request() || error.is_body() => error.to_string(),
            Err(error) => return Err(error).with_context(|| format!("cannot send to {url}")),
        };
        if Instant::now() > deadline {
            bail!("{url} does not take events: {problem}. Is `forecourt up` running? Sending the file again is safe");
        }
        tokio::time::sleep(ASK_AGAIN_AFTER).await;
    }
}

fn progress(path: &Path, size: Option<u64>) -> ProgressBar {
    let hidden = !io::stderr().is_terminal();
    let template = match size {
        Some(_) => "{prefix} {bar:30} {percent:>3} %  {binary_bytes_per_sec}  {eta} left  {msg}",
        None => "{prefix} {spinner} {binary_bytes}  {binary_bytes_per_sec}  {msg}",
    };
    let bar = match (hidden, size) {
        (true, _) => ProgressBar::hidden(),
        (false, Some(size)) => ProgressBar::new(size),
        (false, None) => ProgressBar::new_spinner(),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_prefix(path.display().to_string())
}

fn table(summary: &Summary, elapsed: Duration) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY).set_header(["events", "count"]);
    table.add_row(["accepted".to_owned(), summary.accepted.to_string()]);
    table.add_row(["duplicates".to_owned(), summary.duplicates.to_string()]);
    for (code, count) in &summary.rejected {
        table.add_row([format!("rejected: {code}"), count.to_string()]);
    }
    let rejected: u64 = summary.rejected.values().sum();
    let total = summary.accepted + summary.duplicates + rejected;
    let rate = total as f64 / elapsed.as_secs_f64().max(1e-9);
    table.add_row(["in all".to_owned(), format!("{total} ({rate:.0}/s)")]);
    if let Some(position) = summary.position {
        table.add_row(["position".to_owned(), position.to_string()]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
