//! `forecourt simulate`: write a market's history.

use std::{path::Path, process::ExitCode, time::Instant};

use anyhow::Context;
use datasets::Market;

use crate::{arguments::Simulate, event_file::EventFile};

pub(crate) fn run(arguments: &Simulate) -> anyhow::Result<ExitCode> {
    let Simulate { seed, days, vehicles, start, .. } = *arguments;
    let market = Market { seed, days, vehicles, start };
    let started = Instant::now();
    let events = write(&market, &arguments.output)?;
    let rate = events as f64 / started.elapsed().as_secs_f64().max(1e-9);
    eprintln!("wrote {events} events to {} ({rate:.0}/s)", arguments.output.display());
    Ok(ExitCode::SUCCESS)
}

/// Write the market's events to a file, or to standard output for `-`; how many there were.
pub(crate) fn write(market: &Market, path: &Path) -> anyhow::Result<u64> {
    let mut output = EventFile::create(path)?;
    let failed = || format!("cannot write {}", path.display());
    let events = market.write(&mut output).with_context(failed)?;
    output.finish().with_context(failed)?;
    Ok(events)
}
