//! `forecourt ingest`: send files to a running server.

mod progress_file;

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
    os::fd::AsFd,
    path::{Path, PathBuf},
    pin::Pin,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{self, Poll},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use comfy_table::Table;
use futures::{StreamExt, stream::FuturesOrdered};
use indicatif::{ProgressBar, ProgressStyle};
use ingest::{
    Backoff,
    backfill::{Chunk, Chunks},
    encoding::{Encoding, Reader},
};
use reqwest::{Client, StatusCode, header};
use serde::Deserialize;
use tokio::{
    fs::File,
    io::{AsyncRead, BufReader, ReadBuf},
    signal::unix,
};

use self::progress_file::{ProgressFile, Source};
use crate::{arguments::Ingest, rejected_file::RejectedFile, tables};

/// Requests on their way at once: the server groups them into batches.
const IN_FLIGHT: usize = 4;
/// How long a server that cannot take events is asked again, before giving up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Refused lines shown; all are counted.
const SHOWN_REJECTIONS: u64 = 20;
/// Bytes read from a file at once.
const READ: usize = 1 << 20;

/// What is sent where.
#[derive(Debug)]
pub(crate) struct Backfill {
    files: Vec<PathBuf>,
    to: String,
    rejected: Option<PathBuf>,
    resume: Option<PathBuf>,
}

/// What became of the files' events.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub accepted: u64,
    pub duplicates: u64,
    pub rejected: BTreeMap<String, u64>,
    /// Events of earlier runs, acknowledged then.
    pub skipped: u64,
    pub position: Option<u64>,
    pub interrupted: bool,
}

impl Summary {
    fn rejected_total(&self) -> u64 {
        self.rejected.values().sum()
    }
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
    field: Option<String>,
    message: String,
}

pub(crate) fn run(arguments: &Ingest) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let backfill = Backfill {
        files: arguments.files.clone(),
        to: arguments.to.clone(),
        rejected: arguments.rejected.clone(),
        resume: arguments.resume.clone(),
    };
    if backfill.resume.is_some() && backfill.files.iter().any(|file| file == Path::new("-")) {
        bail!("standard input cannot be read again from where it was interrupted; give --resume files");
    }
    let summary = send(&backfill)?;
    println!("{}", table(&summary, started.elapsed()));
    if summary.interrupted {
        eprintln!("interrupted; run the same command again to go on: what was acknowledged takes effect once");
        return Ok(ExitCode::from(130));
    }
    Ok(if summary.rejected.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Send files, in order, with a progress bar.
pub(crate) fn send(backfill: &Backfill) -> anyhow::Result<Summary> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let interrupt = unix::signal(unix::SignalKind::interrupt())?;
        let progress_file = backfill.resume.as_deref().map(ProgressFile::open).transpose()?;
        let goes_on = progress_file.as_ref().is_some_and(ProgressFile::goes_on);
        let refused_before = progress_file.as_ref().map(|file| file.rejected().clone()).unwrap_or_default();
        let mut sender = Sender {
            interrupt,
            client: Client::builder().read_timeout(PATIENCE).build().context("cannot make HTTP requests")?,
            url: format!("{}/v1/events", backfill.to.trim_end_matches('/')),
            bar: progress(&backfill.files),
            read: Arc::new(AtomicU64::new(0)),
            summary: Summary { rejected: refused_before, ..Summary::default() },
            rejected: backfill.rejected.as_deref().map(|path| RejectedFile::open(path, goes_on)).transpose()?,
            progress: progress_file,
        };
        let sent = sender.send_files(&backfill.files).await;
        sender.bar.finish_and_clear();
        if let Some(rejected) = &mut sender.rejected {
            rejected.flush()?;
        }
        match &mut sender.progress {
            Some(progress) if sent.is_err() || sender.summary.interrupted => progress.save()?,
            Some(progress) => progress.remove()?,
            None => {}
        }
        sent.map(|()| sender.summary)
    })
}

struct Sender {
    interrupt: unix::Signal,
    client: Client,
    url: String,
    bar: ProgressBar,
    /// Bytes read from files, as they lie on disk.
    read: Arc<AtomicU64>,
    summary: Summary,
    rejected: Option<RejectedFile>,
    progress: Option<ProgressFile>,
}

impl Sender {
    async fn send_files(&mut self, files: &[PathBuf]) -> anyhow::Result<()> {
        for file in files {
            self.send_file(file).await?;
            if self.summary.interrupted {
                break;
            }
        }
        Ok(())
    }

    async fn send_file(&mut self, path: &Path) -> anyhow::Result<()> {
        let failed = || format!("cannot read {}", path.display());
        let source = Source::of(path);
        let done = self.progress.as_ref().map_or(0, |progress| progress.done(&source));
        let mut chunks = Chunks::new(self.open(path).await.with_context(failed)?);
        let mut begun = 0;
        let mut in_flight = FuturesOrdered::new();
        let mut left = true;
        while left || !in_flight.is_empty() {
            while left && in_flight.len() < IN_FLIGHT {
                let chunk = tokio::select! {
                    chunk = chunks.next_chunk() => chunk.with_context(failed)?,
                    _ = self.interrupt.recv() => {
                        // What is on its way is acknowledged first; nothing more is read.
                        self.summary.interrupted = true;
                        None
                    }
                };
                let Some(chunk) = chunk else {
                    left = false;
                    break;
                };
                begun += chunk.events() as u64;
                // Chunks are cut alike in every run.
                if begun <= done {
                    self.summary.skipped += chunk.events() as u64;
                    continue;
                }
                let (client, url, bar, end) = (self.client.clone(), self.url.clone(), self.bar.clone(), begun);
                in_flight.push_back(tokio::spawn(async move {
                    let report = post(&client, &url, &chunk, &bar).await?;
                    anyhow::Ok((chunk, end, report))
                }));
            }
            tokio::select! {
                Some(answered) = in_flight.next() => {
                    let (chunk, end, report) = answered??;
                    self.count(path, &chunk, report)?;
                    if let Some(progress) = &mut self.progress
                        && progress.reached(&source, end, &self.summary.rejected)
                    {
                        // What is refused is on disk before it counts as done.
                        if let Some(rejected) = &mut self.rejected {
                            rejected.flush()?;
                        }
                        progress.save()?;
                    }
                }
                _ = self.interrupt.recv(), if left => {
                    self.summary.interrupted = true;
                    left = false;
                }
                else => {}
            }
        }
        Ok(())
    }

    async fn open(&self, path: &Path) -> io::Result<Reader> {
        if path == Path::new("-") {
            let input = File::from_std(io::stdin().as_fd().try_clone_to_owned()?.into());
            return Ok(Encoding::Identity.decode(BufReader::with_capacity(READ, input)));
        }
        let file = Counted { file: File::open(path).await?, read: Arc::clone(&self.read) };
        Ok(Encoding::of_file(path).decode(BufReader::with_capacity(READ, file)))
    }

    fn count(&mut self, path: &Path, chunk: &Chunk, report: Report) -> anyhow::Result<()> {
        self.summary.accepted += report.accepted;
        self.summary.duplicates += report.duplicates;
        self.summary.position = self.summary.position.max(report.position);
        for rejected in report.rejected {
            let line = usize::try_from(rejected.index).unwrap_or(usize::MAX);
            let index = chunk.indexes.get(line).copied().unwrap_or_default();
            self.refuse(path, index, &rejected, chunk.line(line))?;
        }
        for (index, rejection) in &chunk.refused {
            let (code, field) = (rejection.code.as_str().to_owned(), rejection.field.clone());
            let rejected = Rejected { index: 0, code, field, message: rejection.message.clone() };
            self.refuse(path, *index, &rejected, None)?;
        }
        self.bar.set_position(self.read.load(Ordering::Relaxed));
        let total = self.summary.accepted + self.summary.duplicates + self.summary.rejected_total();
        let rate = total as f64 / self.bar.elapsed().as_secs_f64().max(1e-9);
        let Summary { accepted, duplicates, .. } = self.summary;
        self.bar.set_message(format!(
            "{rate:.0} events/s: {accepted} accepted, {duplicates} duplicates, {} rejected",
            self.summary.rejected_total()
        ));
        Ok(())
    }

    fn refuse(&mut self, path: &Path, index: u64, rejected: &Rejected, text: Option<&[u8]>) -> anyhow::Result<()> {
        let line = index + 1;
        if self.summary.rejected_total() < SHOWN_REJECTIONS {
            let told = format!("{}:{line}: {}: {}", path.display(), rejected.code, rejected.message);
            self.bar.suspend(|| eprintln!("{told}"));
        }
        if let Some(file) = &mut self.rejected {
            file.write(path, line, &rejected.code, rejected.field.as_deref(), &rejected.message, text)?;
        }
        *self.summary.rejected.entry(rejected.code.clone()).or_default() += 1;
        Ok(())
    }
}

async fn post(client: &Client, url: &str, chunk: &Chunk, bar: &ProgressBar) -> anyhow::Result<Report> {
    if chunk.text.is_empty() {
        return Ok(Report { accepted: 0, duplicates: 0, rejected: Vec::new(), position: None });
    }
    let (deadline, mut backoff) = (Instant::now() + PATIENCE, Backoff::default());
    let mut told = false;
    loop {
        let request = client.post(url).header(header::CONTENT_TYPE, "application/x-ndjson").body(chunk.text.clone());
        let problem = match request.send().await {
            Ok(answer) => match answer.status() {
                StatusCode::OK | StatusCode::UNPROCESSABLE_ENTITY => {
                    return answer.json().await.context("the server's answer cannot be read");
                }
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => answer.text().await?,
                status => bail!("{url} answered {status}: {}", answer.text().await.unwrap_or_default()),
            },
            // What was taken before the connection broke is a duplicate when it is sent again.
            Err(error) if error.is_connect() || error.is_request() || error.is_body() => error.to_string(),
            Err(error) => return Err(error).with_context(|| format!("cannot send to {url}")),
        };
        if !told {
            told = true;
            bar.suspend(|| eprintln!("waiting for {url}: {problem}"));
        }
        if Instant::now() > deadline {
            bail!("{url} does not take events: {problem}. Is `forecourt up` running? Sending the file again is safe");
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

/// A file that says how much of it has been read.
struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.file).poll_read(context, buffer);
        self.read.fetch_add((buffer.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

/// A bar over all files; a spinner when the size of one is not known.
fn progress(files: &[PathBuf]) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let sizes: Option<u64> = files
        .iter()
        .map(|path| std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len()))
        .sum();
    let (bar, template) = match sizes {
        Some(bytes) => (ProgressBar::new(bytes), "{bar:30} {percent:>3} %  {binary_bytes_per_sec}  {eta} left  {msg}"),
        None => (ProgressBar::new_spinner(), "{spinner} {binary_bytes}  {binary_bytes_per_sec}  {msg}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn table(summary: &Summary, elapsed: Duration) -> Table {
    let mut table = tables::table(["events", "count"]);
    table.add_row(["accepted".to_owned(), summary.accepted.to_string()]);
    table.add_row(["duplicates".to_owned(), summary.duplicates.to_string()]);
    for (code, count) in &summary.rejected {
        table.add_row([format!("rejected: {code}"), count.to_string()]);
    }
    if summary.skipped > 0 {
        table.add_row(["done before".to_owned(), summary.skipped.to_string()]);
    }
    let total = summary.accepted + summary.duplicates + summary.rejected_total();
    let rate = total as f64 / elapsed.as_secs_f64().max(1e-9);
    table.add_row(["in all".to_owned(), format!("{total} ({rate:.0}/s)")]);
    if let Some(position) = summary.position {
        table.add_row(["position".to_owned(), position.to_string()]);
    }
    tables::align_right(&mut table, 1);
    table
}
