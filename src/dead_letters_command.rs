//! `forecourt dead-letters`: what was no event, and what is to become of it.

use std::{
    fs,
    io::{self, BufRead, IsTerminal, Read, Write},
    process::ExitCode,
};

use anyhow::{Context, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use comfy_table::Table;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

use crate::{
    arguments::{Chosen, DeadLettersAction, DeadLettersCommand},
    tables,
};

const NONE_OPEN: &str = "none of them is an open dead letter; `forecourt dead-letters list` tells which are";

pub(crate) fn run(arguments: &DeadLettersCommand) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let url = format!("{}/v1/dead-letters", arguments.to.trim_end_matches('/'));
    let client = Client::new();
    runtime.block_on(async {
        match &arguments.action {
            DeadLettersAction::List { status, reason, limit, json } => {
                let mut query = vec![("status", status.clone()), ("limit", limit.to_string())];
                query.extend(reason.as_ref().map(|reason| ("reason", reason.clone())));
                let answer = ask(client.get(&url).query(&query)).await?;
                println!("{}", if *json { serde_json::to_string_pretty(&answer)? } else { listed(&answer) });
            }
            DeadLettersAction::Show { position } => {
                println!("{}", shown(&ask(client.get(format!("{url}/{position}"))).await?));
            }
            DeadLettersAction::Retry(chosen) => {
                let answer = ask(client.post(format!("{url}/retry")).json(&choice(chosen))).await?;
                println!("{}", retried(&answer));
                if ["retried", "duplicates", "still_refused_total"].iter().all(|count| answer[*count] == 0) {
                    println!("{NONE_OPEN}");
                }
                return Ok(if answer["still_refused_total"] == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            DeadLettersAction::Correct { position, file } => {
                let event = match file {
                    Some(file) => fs::read(file).with_context(|| format!("cannot read {}", file.display()))?,
                    None => {
                        let mut event = Vec::new();
                        io::stdin().lock().read_to_end(&mut event).context("cannot read standard input")?;
                        event
                    }
                };
                let request = client.post(format!("{url}/{position}/correct")).query(&[("by", user())]).body(event);
                println!("its event is at position {}", ask(request).await?["position"]);
            }
            DeadLettersAction::Drop { chosen, yes } => {
                if !yes && !confirmed(chosen)? {
                    println!("nothing was dropped");
                    return Ok(ExitCode::FAILURE);
                }
                let answer = ask(client.post(format!("{url}/drop")).json(&choice(chosen))).await?;
                println!("dropped {}", answer["dropped"]);
                if answer["dropped"] == 0 {
                    println!("{NONE_OPEN}");
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn ask(request: RequestBuilder) -> anyhow::Result<Value> {
    let answer = request.send().await.context("cannot ask the server; is `forecourt up` running?")?;
    let status = answer.status();
    let body: Value = answer.json().await.context("the server's answer cannot be read")?;
    match body["detail"].as_str() {
        Some(detail) if !status.is_success() => bail!("{detail}"),
        _ if !status.is_success() => bail!("the server answered {status}"),
        _ => Ok(body),
    }
}

/// The user of this machine.
fn user() -> String {
    std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "unknown".to_owned())
}

/// Who decides is on record.
fn choice(chosen: &Chosen) -> Value {
    let mut choice = json!({"by": user()});
    match chosen {
        Chosen { all: true, .. } => choice["all"] = true.into(),
        Chosen { reason: Some(reason), .. } => choice["reason"] = reason.as_str().into(),
        Chosen { positions, .. } => choice["positions"] = json!(positions),
    }
    choice
}

fn confirmed(chosen: &Chosen) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("dropping asks first, and standard input is no terminal; say --yes");
    }
    let what = match chosen {
        Chosen { all: true, .. } => "all open dead letters".to_owned(),
        Chosen { reason: Some(reason), .. } => format!("all open dead letters with the reason {reason}"),
        Chosen { positions, .. } => format!("{} dead letters", positions.len()),
    };
    print!("Close {what} without their events? Their bytes stay in system.dead_letters. [y/N] ");
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn rows(answer: &Value, member: &str, header: &[&str]) -> Table {
    let mut table = tables::fitted(header);
    for row in answer[member].as_array().into_iter().flatten() {
        table.add_row(header.iter().map(|name| text(&row[*name])));
    }
    for (index, name) in header.iter().enumerate() {
        if matches!(*name, "position" | "count") {
            tables::align_right(&mut table, index);
        }
    }
    table
}

fn listed(answer: &Value) -> String {
    if answer["counts"].as_array().is_none_or(Vec::is_empty) {
        return "there are no dead letters".to_owned();
    }
    let letters = rows(answer, "dead_letters", &["position", "ingested_at", "reason", "event_id", "message"]);
    let counts = rows(answer, "counts", &["reason", "status", "count"]);
    let more = if answer["next_before"].is_null() { "" } else { "\nthere are more; raise --limit" };
    format!("{letters}{more}\n\n{counts}")
}

fn shown(letter: &Value) -> String {
    let mut lines = String::new();
    for name in [
        "position",
        "status",
        "reason",
        "message",
        "field",
        "event_id",
        "subject",
        "ingested_at",
        "closed_at",
        "closed_by",
        "retried_as",
    ] {
        let value = text(&letter[name]);
        if !value.is_empty() {
            lines.push_str(&format!("{name:<12} {value}\n"));
        }
    }
    if let Some(block) = letter["headers_base64"].as_str() {
        let block = BASE64_STANDARD.decode(block).unwrap_or_default();
        lines.push_str(&format!("\nits headers, escaped where they are no text:\n{}\n", block.escape_ascii()));
    }
    match letter["payload"].as_str() {
        Some(payload) => lines + "\n" + payload,
        None => lines + "\nno text; its bytes in Base64:\n" + &text(&letter["payload_base64"]),
    }
}

fn retried(answer: &Value) -> String {
    let summary = format!(
        "accepted {}, duplicates {}, still refused {}",
        answer["retried"], answer["duplicates"], answer["still_refused_total"]
    );
    if answer["still_refused"].as_array().is_none_or(Vec::is_empty) {
        return summary;
    }
    format!("{}\n{summary}", rows(answer, "still_refused", &["position", "code", "message"]))
}
