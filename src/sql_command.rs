//! `forecourt sql`: ask a running server.

use std::{
    io::{self, Read, Write},
    process::ExitCode,
};

use anyhow::{Context, bail};
use comfy_table::Table;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    arguments::{Format, Sql},
    tables,
};

#[derive(Deserialize)]
struct Answer {
    columns: Vec<Column>,
    rows: Vec<Vec<Value>>,
    truncated: bool,
}

#[derive(Deserialize)]
struct Column {
    name: String,
}

pub(crate) fn run(arguments: &Sql) -> anyhow::Result<ExitCode> {
    let mut query = arguments.query.clone();
    if query == "-" {
        query.clear();
        io::stdin().read_to_string(&mut query).context("cannot read the query")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let body = runtime.block_on(ask(arguments, &query))?;
    if arguments.format == Format::Json {
        println!("{body}");
        return Ok(ExitCode::SUCCESS);
    }
    let answer: Answer = serde_json::from_str(&body).context("the server's answer cannot be read")?;
    match arguments.format {
        Format::Table => println!("{}", table(&answer)),
        Format::Csv | Format::Json => csv(&answer)?,
    }
    if answer.truncated {
        eprintln!("there are more rows than {}; raise --limit", arguments.limit);
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask(arguments: &Sql, query: &str) -> anyhow::Result<String> {
    let url = format!("{}/v1/sql", arguments.to.trim_end_matches('/'));
    let mut request = reqwest::Client::new().post(&url).json(&json!({"query": query, "limit": arguments.limit}));
    if let Some(position) = arguments.min_position {
        request = request.query(&[("min_position", position)]);
    }
    let answer = request.send().await.with_context(|| format!("cannot ask {url}; is `forecourt up` running?"))?;
    let status = answer.status();
    let body = answer.text().await?;
    if status.is_success() {
        return Ok(body);
    }
    let problem: Value = serde_json::from_str(&body).unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or(&body);
    match (problem["line"].as_u64(), problem["column"].as_u64()) {
        (Some(line), Some(column)) => bail!("{detail}\n{}", pointed(query, line, column)),
        _ => bail!("{detail}"),
    }
}

/// The line of the query at fault, with a mark under the place.
fn pointed(query: &str, line: u64, column: u64) -> String {
    let text = query.lines().nth(usize::try_from(line).unwrap_or(1).saturating_sub(1)).unwrap_or_default();
    let before = usize::try_from(column).unwrap_or(1).saturating_sub(1);
    format!("  {text}\n  {}^", " ".repeat(before))
}

fn table(answer: &Answer) -> Table {
    let mut table = tables::table(answer.columns.iter().map(|column| &column.name));
    for row in &answer.rows {
        table.add_row(row.iter().map(shown));
    }
    for index in 0..answer.columns.len() {
        if answer.rows.iter().any(|row| row.get(index).is_some_and(Value::is_number)) {
            tables::align_right(&mut table, index);
        }
    }
    table
}

/// A value for people: text without quotes, nothing for null.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn csv(answer: &Answer) -> io::Result<()> {
    let mut output = io::stdout().lock();
    let header: Vec<String> = answer.columns.iter().map(|column| quoted(&column.name)).collect();
    write!(output, "{}\r\n", header.join(","))?;
    for row in &answer.rows {
        let cells: Vec<String> = row.iter().map(|value| quoted(&shown(value))).collect();
        write!(output, "{}\r\n", cells.join(","))?;
    }
    Ok(())
}

/// RFC 4180: quoted where a comma, a quote or a line break would be misread.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
