//! `forecourt maintain`: what keeps the lake quick, now.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, bail};
use comfy_table::Table;
use processors::{MaintenanceOptions, TableReport, maintenance};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{arguments::Maintain, catalogue_files, log_lines::log_to_stderr, progress::ProgressIndicator, tables, up};

pub(crate) fn run(arguments: &Maintain) -> anyhow::Result<ExitCode> {
    let order = MaintenanceOptions { dry_run: arguments.dry_run, keep_old_files: arguments.keep_old_files };
    let runtime = Runtime::new()?;
    let working = ProgressIndicator::on("maintaining the lake");
    let tables = match &arguments.data {
        None => runtime.block_on(on_server(&arguments.to, order)),
        Some(data) => runtime.block_on(in_folder(data, arguments, order)),
    };
    drop(working);
    let tables = tables?;
    runtime.shutdown_background();
    let busy: Vec<_> = tables.iter().filter(|table| !is_idle(table)).collect();
    if busy.is_empty() {
        println!(
            "{} tables in {} files: nothing to do",
            tables.len(),
            tables.iter().map(|it| it.files_after).sum::<u64>()
        );
    } else {
        println!("{}", shown(&busy, order.dry_run));
    }
    Ok(ExitCode::SUCCESS)
}

async fn on_server(to: &str, order: MaintenanceOptions) -> anyhow::Result<Vec<TableReport>> {
    #[derive(Deserialize)]
    struct Report {
        tables: Vec<TableReport>,
    }
    let url = format!("{}/v1/maintenance", to.trim_end_matches('/'));
    let body = json!({"dry_run": order.dry_run, "keep_old_files_seconds": order.keep_old_files.as_secs()});
    let answer = reqwest::Client::new().post(&url).json(&body).send().await;
    let answer = answer.with_context(|| format!("cannot ask {url}; is `forecourt up` running?"))?;
    let (status, body) = (answer.status(), answer.json::<Value>().await.unwrap_or_default());
    if !status.is_success() {
        bail!("{}", body["detail"].as_str().unwrap_or(status.as_str()));
    }
    let report: Report = serde_json::from_value(body).context("the server's answer cannot be read")?;
    Ok(report.tables)
}

async fn in_folder(data: &Path, arguments: &Maintain, order: MaintenanceOptions) -> anyhow::Result<Vec<TableReport>> {
    if !data.join("lake").is_dir() {
        bail!("there is no lake in {}", data.display());
    }
    let filter = std::env::var("FORECOURT_LOG");
    log_to_stderr(filter.as_deref().unwrap_or("warn,buoyant_kernel=off"))?;
    let _lock = up::lock(data)?;
    processors::open_data_folder(data, processors::FormatAccess::ReadWrite)?;
    let catalogue = catalogue_files::load(arguments.catalogue.as_deref())?;
    let kpis = arguments.kpis.definitions()?;
    Ok(maintenance::of_folder(&data.join("lake"), catalogue, arguments.retention, kpis, order).await?)
}

const fn is_idle(table: &TableReport) -> bool {
    table.files_before == table.files_after && table.events_retired == 0 && table.files_deleted == 0
}

fn shown(tables: &[&TableReport], dry_run: bool) -> Table {
    let told = if dry_run {
        ["table", "files", "would be", "bytes", "events past their time", "files to delete", "bytes to free"]
    } else {
        ["table", "files", "now", "bytes", "events taken out", "files deleted", "bytes freed"]
    };
    let mut shown = tables::fitted(told);
    for column in 1..told.len() {
        tables::align_right(&mut shown, column);
    }
    for table in tables {
        shown.add_row([
            table.table.clone(),
            table.files_before.to_string(),
            table.files_after.to_string(),
            table.bytes_after.to_string(),
            table.events_retired.to_string(),
            table.files_deleted.to_string(),
            table.bytes_deleted.to_string(),
        ]);
    }
    shown
}
