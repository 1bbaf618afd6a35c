//! `forecourt verify`: prove that what is derived is what the log says.

mod check;
mod truth;

use std::{path::Path, process::ExitCode};

use anyhow::{Context, bail};
use processors::verify::{self, Folders};
use reqwest::Client;
use serde_json::Value;
use tokio::runtime::Runtime;

use check::Check;

use crate::{arguments::Verify, catalogue_files, progress::ProgressIndicator, tables, up};

pub(crate) fn run(arguments: &Verify) -> anyhow::Result<ExitCode> {
    let runtime = Runtime::new()?;
    let working = ProgressIndicator::on("verifying");
    let checks = match &arguments.data {
        Some(data) => runtime.block_on(of_folder(data, arguments.catalogue.as_deref()))?,
        None => runtime.block_on(of_server(arguments))?,
    };
    runtime.shutdown_background();
    drop(working);
    show(&checks);
    let holds = checks.iter().all(|check| check.different == 0);
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Ask a running server to prove itself; compare it with a ledger, if there is one.
async fn of_server(arguments: &Verify) -> anyhow::Result<Vec<Check>> {
    let (client, to) = (Client::new(), arguments.to.trim_end_matches('/'));
    let truth = arguments.truth.as_deref().map(truth::read).transpose()?;
    // Every event that happened has a position of its own.
    let happened = truth.as_ref().and_then(|truth| truth["events"].as_u64());
    let min_position = arguments.min_position.or(happened).unwrap_or_default();
    let mut reached = 0;
    let proof = loop {
        let request = client.post(format!("{to}/v1/verify?wait_ms=60000&min_position={min_position}"));
        let answer =
            request.send().await.with_context(|| format!("no answer from {to}; is `forecourt up` running?"))?;
        let (status, body) = (answer.status(), answer.json::<Value>().await.unwrap_or_default());
        if status.is_success() {
            break body;
        }
        // It comes nearer.
        let position = body["position"].as_u64().unwrap_or_default();
        if body["code"] != "not_yet" || position <= reached {
            bail!("{to} cannot verify: {}", body["detail"].as_str().unwrap_or(status.as_str()));
        }
        reached = position;
    };
    let mut checks: Vec<Check> = serde_json::from_value(proof["checks"].clone()).context("the answer is no proof")?;
    if let Some(truth) = truth {
        let position = proof["as_of"]["position"].as_u64().unwrap_or_default();
        checks.extend(truth::checks(&client, to, &truth, position).await?);
    }
    Ok(checks)
}

/// Verify what lies in a folder that no server uses. KPIs are computed when a server starts, and not kept there.
async fn of_folder(data: &Path, own: Option<&Path>) -> anyhow::Result<Vec<Check>> {
    if !data.join("lake").is_dir() {
        bail!("there is no lake in {}", data.display());
    }
    let _lock = up::lock(data)?;
    let outdated = processors::open_data_folder(data, processors::FormatAccess::ReadOnly)?;
    if !outdated.is_empty() {
        bail!(
            "an older version wrote {}: start `forecourt up` on {} once, then verify",
            outdated.join(" and "),
            data.display()
        );
    }
    let catalogue = catalogue_files::load(own)?;
    let runtime = tokio::runtime::Handle::current();
    let (lake, index, seen) = (data.join("lake"), data.join("index"), data.join("seen"));
    let folders = Folders { lake: &lake, index: &index, seen: &seen };
    let of_folder = verify::of_folders(&catalogue, folders, runtime).await?;
    if let Some(why) = of_folder.index_left_out {
        eprintln!("{why}: start forecourt to compare them");
    }
    let checks = of_folder.checks;
    Ok(serde_json::from_value(serde_json::to_value(checks)?)?)
}

fn show(checks: &[Check]) {
    for check in checks.iter().filter(|check| check.different > 0) {
        println!("{}:", check.name);
        for difference in &check.differences {
            println!("  {difference}");
        }
        let untold = check.different - check.differences.len() as u64;
        if untold > 0 {
            println!("  and {untold} more");
        }
        println!();
    }
    let mut table = tables::fitted(["check", "looked at", "differ", "what must hold"]);
    tables::align_right(&mut table, 1);
    tables::align_right(&mut table, 2);
    for check in checks {
        table.add_row([&check.name, &check.checked.to_string(), &check.different.to_string(), &check.claim]);
    }
    println!("{table}");
}
