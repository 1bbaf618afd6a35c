//! Named workloads, each measured against its limit in the same run.
//!
//! `make bench` runs all of them and writes `target/bench.json` and `docs/benchmarks.md`; `make bench WORKLOADS=pipeline`
//! runs those named and writes `target/bench.json` alone; `make bench-compare` compares that with `bench/baseline.json`.

mod analyst;
mod door;
mod freshness;
mod kpis;
mod pipeline;
mod search;
mod seen;
mod server;
mod updates;

use std::{fs, process::ExitCode};

use anyhow::bail;

use bench::yardstick::{Recorder, root};

/// The server's, so that its engine is measured as it runs there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A workload: what measures it.
type Workload = fn(&mut Recorder) -> anyhow::Result<()>;

/// Every workload by name.
const WORKLOADS: [(&str, Workload); 10] = [
    ("intake", door::intake),
    ("backfill", door::backfill),
    ("single", door::single),
    ("pipeline", pipeline::run),
    ("seen", seen::run),
    ("freshness", freshness::run),
    ("analyst", analyst::run),
    ("search", search::run),
    ("updates", updates::run),
    ("kpis", kpis::run),
];

fn main() -> anyhow::Result<ExitCode> {
    let named: Vec<String> = std::env::args().skip(1).collect();
    if named == ["compare"] {
        return Ok(if bench::yardstick::compare()? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    if let Some(unknown) = named.iter().find(|name| !WORKLOADS.iter().any(|(known, _)| known == name)) {
        let known: Vec<&str> = WORKLOADS.iter().map(|(name, _)| *name).collect();
        bail!("there is no workload {unknown:?}; there are {}, and compare", known.join(", "));
    }
    let mut recorder = Recorder::new()?;
    for (name, run) in WORKLOADS {
        if named.is_empty() || named.iter().any(|wanted| wanted == name) {
            recorder.begin(name);
            run(&mut recorder)?;
        }
    }
    let report = recorder.report()?;
    println!("{}", report.table());
    report.write(&root().join("target/bench.json"))?;
    if named.is_empty() {
        fs::write(root().join("docs/benchmarks.md"), report.markdown())?;
    }
    Ok(ExitCode::SUCCESS)
}
