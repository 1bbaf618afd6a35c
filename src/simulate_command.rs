//! `forecourt simulate`: write a market's history, or play it.

pub(crate) mod live;
mod truth_file;

use std::{io, path::Path, process::ExitCode, time::Instant};

use anyhow::{Context, bail};
use datasets::{Market, truth::Truth};
use schemas::time::MICROS_PER_DAY;

use crate::{
    OutputClosed,
    arguments::Simulate,
    clock::now,
    event_file::{self, EventFile},
    progress::ProgressIndicator,
};
use truth_file::{TruthFile, summary};

/// 2026-01-01, in microseconds since 1970, UTC.
const DEFAULT_START: i64 = 1_767_225_600_000_000;
/// No event happens at or after this: 2200.
const LATEST: i64 = 7_258_118_400_000_000;

pub(crate) fn run(arguments: &Simulate) -> anyhow::Result<ExitCode> {
    let Simulate { days, vehicles, scale, envelope, disorder, stock, .. } = *arguments;
    let mut market = Market::new(seed(arguments), start(arguments), days, vehicles.saturating_mul(scale));
    market.stock = stock.saturating_mul(scale);
    if arguments.live && arguments.start.is_none() {
        market.until = now();
    }
    market.style = envelope;
    market.disorder = disorder.unwrap_or_default();
    if market.end() > LATEST {
        bail!("the history ends after 2199, and no event may; start earlier, or let it last fewer days");
    }
    if arguments.live {
        return live::run(market, arguments);
    }
    event_file::all_different(arguments.truth.as_deref().into_iter().chain([arguments.output.as_path()]))?;
    let kept = arguments.truth.as_deref().map(TruthFile::create).transpose()?;
    let started = Instant::now();
    let working = ProgressIndicator::on("writing the market");
    let truth = write(&market, &arguments.output);
    drop(working);
    let truth = truth.map_err(|error| {
        let is_closed = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
        let to_output = arguments.output == Path::new("-");
        let closed = to_output && error.chain().filter_map(|cause| cause.downcast_ref()).any(is_closed);
        if closed { OutputClosed.into() } else { error }
    })?;
    let rate = truth.lines as f64 / started.elapsed().as_secs_f64().max(1e-9);
    eprintln!("wrote {} to {} ({rate:.0}/s)", summary(&truth), arguments.output.display());
    if let Some(kept) = kept {
        kept.write(&truth)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The seed; of a live play that has none, one of its own, so that it is not what was played before.
fn seed(arguments: &Simulate) -> u64 {
    match arguments.seed {
        Some(seed) => seed,
        None if arguments.live => now().cast_unsigned(),
        None => 1,
    }
}

/// The first day; of a live play that has none, the one from which it lasts until today, so that what is there now changes.
fn start(arguments: &Simulate) -> i64 {
    match arguments.start {
        Some(start) => start,
        None if arguments.live => (now().div_euclid(MICROS_PER_DAY) + 1 - i64::from(arguments.days)) * MICROS_PER_DAY,
        None => DEFAULT_START,
    }
}

/// Write the market's events to a file, or to standard output for `-`; what happened in them.
pub(crate) fn write(market: &Market, path: &Path) -> anyhow::Result<Truth> {
    let mut output = EventFile::create(path)?;
    let failed = || format!("cannot write {}", path.display());
    let truth = market.write(&mut output).with_context(failed)?;
    output.finish().with_context(failed)?;
    Ok(truth)
}
