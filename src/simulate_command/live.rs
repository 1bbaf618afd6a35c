//! Playing a market to a running server, at a steady rate.

use std::{
    io,
    process::ExitCode,
    sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use datasets::{Market, MarketError, truth::Truth};
use indicatif::{ProgressBar, ProgressStyle};
use ingest::Backoff;
use reqwest::{Client, StatusCode, header};
use serde::Deserialize;
use tokio::{signal::unix, task::JoinSet, time::MissedTickBehavior};

use super::truth_file::{TruthFile, summary};
use crate::{arguments::Simulate, tables};

/// How often events are sent.
const TICK: Duration = Duration::from_millis(20);
/// Most events in one request, so that what was missed is caught up in pieces.
const MOST_AT_ONCE: usize = 5_000;
/// Requests on their way at once.
const IN_FLIGHT: usize = 16;
/// How long a server that cannot take events is asked again, before giving up.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long an answer may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long what is on its way may still take after an interruption.
const GRACE: Duration = Duration::from_secs(5);
/// Lines that are told ahead of being sent.
const AHEAD: usize = 20_000;

/// What the server made of a request's events.
#[derive(Deserialize)]
pub(crate) struct Report {
    accepted: u64,
    duplicates: u64,
    rejected_total: u64,
    pub position: Option<u64>,
}

#[derive(Default)]
struct Played {
    accepted: u64,
    duplicates: u64,
    rejected: u64,
    position: Option<u64>,
    /// From sending a request to its answer.
    latencies: Vec<Duration>,
}

/// Play the market to its end, or until interrupted.
pub(crate) fn run(market: Market, arguments: &Simulate) -> anyhow::Result<ExitCode> {
    let kept = arguments.truth.as_deref().map(TruthFile::create).transpose()?;
    let (lines, told_lines) = sync_channel(AHEAD);
    let teller = thread::spawn(move || tell(&market, &lines));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let started = Instant::now();
    let (played, interrupted) = runtime.block_on(play(arguments, told_lines))?;
    let elapsed = started.elapsed().as_secs_f64().max(1e-9);
    let truth = teller.join().map_err(|_| anyhow::anyhow!("the market could not be told"))?;
    show(played, arguments.rate, elapsed);
    match truth {
        Ok(truth) if !interrupted => {
            eprintln!("played {}", summary(&truth));
            if let Some(kept) = kept {
                kept.write(&truth)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Ok(_) | Err(MarketError::Write(_)) => {
            if arguments.truth.is_some() {
                eprintln!("interrupted: the truth of half a history is not written");
            }
            Ok(ExitCode::from(130))
        }
        Err(error @ MarketError::Catalogue(_)) => Err(error.into()),
    }
}

/// Tell the market's lines for as long as somebody takes them.
fn tell(market: &Market, lines: &SyncSender<String>) -> Result<Truth, MarketError> {
    market.play(&mut |line| lines.send(line.to_owned()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe)))
}

async fn play(arguments: &Simulate, lines: Receiver<String>) -> anyhow::Result<(Played, bool)> {
    let mut interrupt = unix::signal(unix::SignalKind::interrupt())?;
    let client = Client::builder().timeout(REQUEST_TIMEOUT).build()?;
    let url = format!("{}/v1/events", arguments.to.trim_end_matches('/'));
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {msg}, {elapsed}")?);
    bar.set_message(format!("waiting for {url}"));
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (started, rate) = (Instant::now(), f64::from(arguments.rate));
    let (mut sent, mut played, mut ended, mut interrupted) = (0_usize, Played::default(), false, false);
    let mut in_flight = JoinSet::new();
    let grace = tokio::time::sleep(GRACE);
    tokio::pin!(grace);
    while !ended || !in_flight.is_empty() {
        tokio::select! {
            Some(answer) = in_flight.join_next() => {
                let (report, latency): (Report, Duration) = answer??;
                played.accepted += report.accepted;
                played.duplicates += report.duplicates;
                played.rejected += report.rejected_total;
                played.position = played.position.max(report.position);
                played.latencies.push(latency);
                let total = played.accepted + played.duplicates + played.rejected;
                let reached = total as f64 / started.elapsed().as_secs_f64().max(1e-9);
                bar.set_message(format!("{total} lines answered, {reached:.0}/s of {rate:.0}/s"));
            }
            // Interrupted again, it ends at once.
            _ = interrupt.recv() => {
                if interrupted {
                    break;
                }
                (ended, interrupted) = (true, true);
                grace.as_mut().reset(tokio::time::Instant::now() + GRACE);
            }
            () = &mut grace, if interrupted => break,
            _ = tick.tick(), if !ended && in_flight.len() < IN_FLIGHT => {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "lines of a play")]
                let due = (started.elapsed().as_secs_f64() * rate) as usize;
                let (body, count, more) = gather(&lines, due.saturating_sub(sent).min(MOST_AT_ONCE));
                ended = !more;
                sent += count;
                if count > 0 {
                    in_flight.spawn(post(client.clone(), url.clone(), body));
                }
            }
        }
    }
    bar.finish_and_clear();
    Ok((played, interrupted))
}

/// Lines that are told already, at most so many; how many; and whether there may be more.
fn gather(lines: &Receiver<String>, most: usize) -> (String, usize, bool) {
    let (mut body, mut count) = (String::new(), 0);
    while count < most {
        match lines.try_recv() {
            Ok(line) => {
                body.push_str(&line);
                body.push('\n');
                count += 1;
            }
            Err(TryRecvError::Empty) => break,
            Err(TryRecvError::Disconnected) => return (body, count, false),
        }
    }
    (body, count, true)
}

/// Send events, again while the server cannot take them; its report and how long it took.
pub(crate) async fn post(client: Client, url: String, body: String) -> anyhow::Result<(Report, Duration)> {
    let (started, mut backoff) = (Instant::now(), Backoff::default());
    loop {
        let request = client.post(&url).header(header::CONTENT_TYPE, "application/x-ndjson").body(body.clone());
        let problem = match request.send().await {
            Ok(answer) if matches!(answer.status(), StatusCode::OK | StatusCode::UNPROCESSABLE_ENTITY) => {
                let report = answer.json().await.context("the server's answer is no report")?;
                return Ok((report, started.elapsed()));
            }
            Ok(answer) if answer.status() == StatusCode::TOO_MANY_REQUESTS || answer.status().is_server_error() => {
                answer.status().to_string()
            }
            Ok(answer) => {
                anyhow::bail!("{url} answered {}: {}", answer.status(), answer.text().await.unwrap_or_default())
            }
            Err(error) => error.to_string(),
        };
        // What was on its way is sent again: an event takes effect once.
        if started.elapsed() > PATIENCE {
            anyhow::bail!("{url} does not take events: {problem}. Is `forecourt up` running?");
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

fn show(mut played: Played, rate: u32, elapsed: f64) {
    played.latencies.sort_unstable();
    let total = played.accepted + played.duplicates + played.rejected;
    let at = |share: f64| {
        let index = (played.latencies.len().saturating_sub(1) as f64 * share).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        let latency = played.latencies.get(index as usize).copied().unwrap_or_default();
        format!("{:.1} ms", latency.as_secs_f64() * 1e3)
    };
    let mut table = tables::table(["events", "count"]);
    tables::align_right(&mut table, 1);
    table.add_row(["accepted".to_owned(), played.accepted.to_string()]);
    table.add_row(["duplicates".to_owned(), played.duplicates.to_string()]);
    table.add_row(["rejected".to_owned(), played.rejected.to_string()]);
    table.add_row([format!("a second, of {rate}"), format!("{:.0}", total as f64 / elapsed)]);
    table.add_row(["acknowledged in, p50".to_owned(), at(0.5)]);
    table.add_row(["acknowledged in, p99".to_owned(), at(0.99)]);
    table.add_row(["position".to_owned(), played.position.map_or_else(|| "none".to_owned(), |it| it.to_string())]);
    println!("{table}");
}
