//! `forecourt import`: turn a listing file into events.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, bail};
use datasets::import::{self, ImportReport, Refused, mapping::Mapping, source::Source};
use indicatif::{ProgressBar, ProgressStyle};
use schemas::Catalogue;

use crate::{
    arguments::Import,
    event_file::{self, EventFile},
    rejected_file::RejectedFile,
    tables,
};

/// Refused rows shown; all are counted.
const SHOWN: u64 = 20;

pub(crate) fn run(arguments: &Import) -> anyhow::Result<ExitCode> {
    let catalogue = Catalogue::embedded()?;
    let file = &arguments.file;
    let named = || file.display().to_string();
    let written = [Some(&arguments.output), arguments.rejected.as_ref()];
    event_file::all_different([file.as_path()].into_iter().chain(written.into_iter().flatten().map(PathBuf::as_path)))?;
    let source = Source::open(file).with_context(named)?;
    let mapping = match &arguments.mapping {
        Some(name) => mapping_named(&catalogue, name)?,
        None => mapping_of(&catalogue, &source, file)?,
    };
    let mut rejected = match &arguments.rejected {
        Some(path) => Some(RejectedFile::open(path, false)?),
        None => None,
    };
    let mut output = EventFile::create(&arguments.output)?;
    let started = Instant::now();
    let progress = ProgressBar::new_spinner()
        .with_style(ProgressStyle::with_template("{spinner} {human_pos} rows read, {per_sec}")?);
    let mut shown = 0;
    let mut failed = None;
    let mut tell = |row: Refused| {
        let Refused { line, code, field, message } = row;
        if let Some(rejected) = &mut rejected {
            let written = rejected.write(file, line, code, field.as_deref(), &message, None);
            failed = failed.take().or(written.err());
        }
        shown += 1;
        if shown <= SHOWN {
            progress.suspend(|| eprintln!("{}:{line}: {code}: {message}", file.display()));
        } else if shown == SHOWN + 1 {
            progress.suspend(|| eprintln!("more rows are of no use; they are counted below"));
        }
    };
    let rows = progress.wrap_iter(source.rows);
    let source = Source { columns: source.columns, rows: Box::new(rows) };
    let report = import::import(&catalogue, &mapping, source, &mut output, &mut tell).with_context(named)?;
    output.finish().with_context(|| format!("cannot write {}", arguments.output.display()))?;
    progress.finish_and_clear();
    if let Some(error) = failed {
        return Err(error);
    }
    if let Some(mut rejected) = rejected {
        rejected.flush()?;
    }
    show(&report, &mapping);
    let rate = report.events as f64 / started.elapsed().as_secs_f64().max(1e-9);
    eprintln!("wrote {} events to {} ({rate:.0}/s)", report.events, arguments.output.display());
    Ok(if report.listings > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A shipped mapping, or a file's.
fn mapping_named(catalogue: &Catalogue, name: &str) -> anyhow::Result<Mapping> {
    let shipped = Mapping::shipped(catalogue)?;
    let names = names(&shipped);
    if let Some(mapping) = shipped.into_iter().find(|mapping| mapping.name == name) {
        return Ok(mapping);
    }
    if Path::new(name).extension().is_none_or(|ending| ending != "toml") {
        bail!("there is no mapping {name:?}; say one of {names}, or a .toml file of your own");
    }
    let text = fs::read_to_string(name).with_context(|| format!("cannot read {name}"))?;
    Ok(Mapping::parse(catalogue, name, &text)?)
}

/// The shipped mapping that reads this file's columns.
fn mapping_of(catalogue: &Catalogue, source: &Source, file: &Path) -> anyhow::Result<Mapping> {
    let shipped = Mapping::shipped(catalogue)?;
    let names = names(&shipped);
    let reads = |mapping: &Mapping| mapping.columns().all(|column| source.columns.iter().any(|name| name == column));
    shipped.into_iter().find(reads).with_context(|| {
        format!(
            "no mapping that comes with forecourt ({names}) reads {}; write one and name it with --mapping FILE.toml. Its columns \
             are {}",
            file.display(),
            source.columns.join(", ")
        )
    })
}

fn names(mappings: &[Mapping]) -> String {
    mappings.iter().map(|mapping| mapping.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn show(report: &ImportReport, mapping: &Mapping) {
    let mut rows = tables::fitted([&mapping.name, "count"]);
    tables::align_right(&mut rows, 1);
    rows.add_row(["rows".to_owned(), report.rows.to_string()]);
    for (code, count) in &report.refused {
        rows.add_row([format!("refused: {code}"), count.to_string()]);
    }
    rows.add_row(["listings".to_owned(), report.listings.to_string()]);
    rows.add_row(["events".to_owned(), report.events.to_string()]);
    eprintln!("{rows}");
    if report.missing.is_empty() {
        return;
    }
    let mut fields = tables::fitted(["field", "listings without", "values left out", "the first"]);
    tables::align_right(&mut fields, 1);
    tables::align_right(&mut fields, 2);
    for field in &mapping.fields {
        let (missing, left_out) = (report.missing.get(&field.name), report.left_out.get(&field.name));
        if missing.is_none() && left_out.is_none() {
            continue;
        }
        let first = left_out.map(|left_out| format!("line {}: {:?}", left_out.first_line, left_out.first_text));
        fields.add_row([
            field.name.clone(),
            missing.copied().unwrap_or_default().to_string(),
            left_out.map_or(0, |left_out| left_out.rows).to_string(),
            first.unwrap_or_default(),
        ]);
    }
    eprintln!("\n{fields}");
}
