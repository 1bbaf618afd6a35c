//! `forecourt simulate`: write a market's history, or play it.

mod live;

use std::{fs::File, io::BufWriter, path::Path, process::ExitCode, time::Instant};

use anyhow::Context;
use datasets::{Market, truth::Truth};

use crate::{arguments::Simulate, event_file::EventFile};

pub(crate) fn run(arguments: &Simulate) -> anyhow::Result<ExitCode> {
    let Simulate { seed, days, vehicles, scale, start, envelope, disorder, .. } = *arguments;
    let mut market = Market::new(seed, start, days, vehicles.saturating_mul(scale));
    market.style = envelope;
    market.disorder = disorder.unwrap_or_default();
    if arguments.live {
        return live::run(market, arguments);
    }
    let started = Instant::now();
    let truth = write(&market, &arguments.output)?;
    let rate = truth.lines as f64 / started.elapsed().as_secs_f64().max(1e-9);
    eprintln!("wrote {} to {} ({rate:.0}/s)", told(&truth), arguments.output.display());
    keep_truth(&truth, arguments.truth.as_deref())?;
    Ok(ExitCode::SUCCESS)
}

/// Write the market's events to a file, or to standard output for `-`; what happened in them.
pub(crate) fn write(market: &Market, path: &Path) -> anyhow::Result<Truth> {
    let mut output = EventFile::create(path)?;
    let failed = || format!("cannot write {}", path.display());
    let truth = market.write(&mut output).with_context(failed)?;
    output.finish().with_context(failed)?;
    Ok(truth)
}

fn told(truth: &Truth) -> String {
    let Truth { events, duplicates, malformed, late, .. } = truth;
    match (duplicates, malformed.len(), late) {
        (0, 0, 0) => format!("{events} events"),
        (duplicates, malformed, late) => {
            format!("{events} events, {late} of them late, {duplicates} duplicates and {malformed} malformed lines")
        }
    }
}

fn keep_truth(truth: &Truth, path: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let failed = || format!("cannot write {}", path.display());
    let output = BufWriter::new(File::create(path).with_context(failed)?);
    serde_json::to_writer(output, truth).with_context(failed)
}
