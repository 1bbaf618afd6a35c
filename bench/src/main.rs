//! Named workloads, each measured against its raw limit in the same run.
//!
//! `make bench` runs all of them; `make bench WORKLOADS=pipeline` runs those named.

mod analyst;
mod door;
mod freshness;
mod kpis;
mod pipeline;
mod search;
mod seen;
mod server;
mod updates;

use anyhow::bail;

/// The server's, so that its engine is measured as it runs there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Every workload by name.
const WORKLOADS: [&str; 10] =
    ["intake", "backfill", "single", "pipeline", "seen", "freshness", "analyst", "search", "updates", "kpis"];

fn main() -> anyhow::Result<()> {
    let named: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = named.iter().find(|name| !WORKLOADS.contains(&name.as_str())) {
        bail!("there is no workload {unknown:?}; there are {}", WORKLOADS.join(", "));
    }
    for workload in WORKLOADS.iter().filter(|name| named.is_empty() || named.iter().any(|wanted| wanted == *name)) {
        match *workload {
            "intake" => door::run(door::Workload::Intake)?,
            "backfill" => door::run(door::Workload::Backfill)?,
            "single" => door::run(door::Workload::Single)?,
            "pipeline" => pipeline::run()?,
            "seen" => seen::run()?,
            "freshness" => freshness::run()?,
            "analyst" => analyst::run()?,
            "search" => search::run()?,
            "updates" => updates::run()?,
            "kpis" => kpis::run()?,
            other => bail!("the workload {other} has no code"),
        }
    }
    Ok(())
}

/// One measured side of a workload.
struct Side {
    name: &'static str,
    events: u64,
    seconds: f64,
}

impl Side {
    fn rate(&self) -> f64 {
        self.events as f64 / self.seconds
    }
}

/// Print the sides, each with its ratio to the first, the limit.
fn report(workload: &str, sides: &[Side]) {
    println!("\n{workload}");
    println!("  {:<44} {:>10} {:>9} {:>12} {:>7}", "", "events", "seconds", "events/s", "ratio");
    for side in sides {
        let ratio = side.rate() / sides[0].rate();
        println!("  {:<44} {:>10} {:>9.2} {:>12.0} {:>7.3}", side.name, side.events, side.seconds, side.rate(), ratio);
    }
}
