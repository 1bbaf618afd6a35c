//! `forecourt sql`: ask a running server, or a folder.

use std::{
    io::{self, IsTerminal, Read, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use comfy_table::Table;
use futures::StreamExt;
use lake::{Lake, LakeView, QueryLimits, QueryRows, ResultFormat, SqlError, SqlSession, result_json, session};
use processors::{derived_tables::derived_tables, kpi_definition::KpiDefinition};
use schemas::{Position, field_type::parse_timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::{Handle, Runtime};

use crate::{
    arguments::{Format, Sql},
    catalogue_files, tables, up,
};

/// Rows that people look at, unless they ask for more.
const DEFAULT_ROWS: usize = 10_000;

/// Rows for people.
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
    if matches!(arguments.format, Format::Arrow | Format::Parquet) && io::stdout().is_terminal() {
        bail!("this format is no text; send it to a file: > result.parquet");
    }
    let runtime = Runtime::new()?;
    let answered = match &arguments.data {
        None => runtime.block_on(ask_server(arguments, &query)),
        Some(data) => runtime.block_on(ask_folder(arguments, data, &query)),
    };
    runtime.shutdown_background();
    if let Some(answer) = answered? {
        println!("{}", table(&answer));
        if answer.truncated {
            eprintln!("there are more rows than {}; raise --limit", arguments.limit.unwrap_or(DEFAULT_ROWS));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Rows to be shown in a table; none, when they are printed already.
async fn ask_server(arguments: &Sql, query: &str) -> anyhow::Result<Option<Answer>> {
    let url = format!("{}/v1/sql", arguments.to.trim_end_matches('/'));
    let format = result_format(arguments.format).unwrap_or(ResultFormat::Json);
    let body = json!({
        "query": query, "limit": arguments.limit, "as_of": arguments.as_of, "format": format.name(),
        "timeout_ms": arguments.timeout * 1_000,
    });
    let mut request = reqwest::Client::new().post(&url).json(&body);
    if let Some(position) = arguments.min_position {
        request = request.query(&[("min_position", position)]);
    }
    let answer = request.send().await.with_context(|| format!("cannot ask {url}; is `forecourt up` running?"))?;
    if !answer.status().is_success() {
        let body = answer.text().await?;
        let problem: Value = serde_json::from_str(&body).unwrap_or_default();
        let detail = problem["detail"].as_str().unwrap_or(&body);
        return Err(refused(detail, query, problem["line"].as_u64().zip(problem["column"].as_u64())));
    }
    if arguments.format == Format::Table {
        return Ok(Some(answer.json().await.context("the server's answer cannot be read")?));
    }
    let (mut bytes, mut output) = (answer.bytes_stream(), io::stdout().lock());
    while let Some(chunk) = bytes.next().await {
        output.write_all(&chunk.context("the server broke off: the query failed on its way, and its log says why")?)?;
    }
    if arguments.format == Format::Json {
        writeln!(output)?;
    }
    Ok(None)
}

/// As [`ask_server`], of a folder that no server uses.
async fn ask_folder(arguments: &Sql, data: &Path, query: &str) -> anyhow::Result<Option<Answer>> {
    if !data.join("lake").is_dir() {
        bail!("there is no lake in {}", data.display());
    }
    let _lock = up::lock(data)?;
    let catalogue = catalogue_files::load(arguments.catalogue.as_deref())?;
    let root = lake::folder_url(&data.join("lake"))?;
    let view = Arc::new(Lake::look(&root, catalogue).await?);
    let sql = SqlSession::new(Handle::current(), derived_tables(&KpiDefinition::embedded()?))?;
    let within = Duration::from_secs(arguments.timeout);
    // After a crash some tables may be ahead of the others: all are cut at one position.
    let position = match &arguments.as_of {
        None => view.position,
        Some(text) => position_of(&sql, &view, text, within).await?,
    };
    let view = sql.cut(&view, position, within).await?;
    let people = matches!(arguments.format, Format::Table | Format::Json);
    let rows = arguments.limit.unwrap_or(if people { DEFAULT_ROWS } else { usize::MAX });
    let limits = QueryLimits { rows, time: within };
    let none = session::parameters(&[]).map_err(|_| anyhow!("no parameters"))?;
    let answered = async {
        let mut rows = sql.query(&view, Vec::new(), sql.parse(query)?, none, limits).await?;
        let Some(format) = result_format(arguments.format) else { return Ok(Some(read(&mut rows).await?)) };
        let (mut chunks, mut output) = (sql.encode(rows, format, ()), io::stdout().lock());
        while let Some(chunk) = chunks.next().await {
            output.write_all(&chunk?)?;
        }
        if format == ResultFormat::Json {
            writeln!(output)?;
        }
        anyhow::Ok(None)
    };
    answered.await.map_err(|error| wrong(error, query))
}

/// What a position, or a time of the log, means.
async fn position_of(sql: &SqlSession, view: &Arc<LakeView>, text: &str, within: Duration) -> anyhow::Result<Position> {
    let position = match (text.parse().map(Position::new), parse_timestamp(text)) {
        (Ok(position), _) => position,
        (Err(_), Some(time)) => sql.position_at(view, time, within).await?,
        (Err(_), None) => bail!("--as-of is a position or a time, such as 1200 or 2026-11-02T08:30:00Z, not {text:?}"),
    };
    if position > view.position {
        bail!("the folder reflects position {}, and {position} is asked for", view.position);
    }
    Ok(position)
}

async fn read(rows: &mut QueryRows) -> Result<Answer, SqlError> {
    let columns = rows.schema.fields().iter().map(|field| Column { name: field.name().clone() }).collect();
    let batches = rows.collect().await?;
    let values = result_json::rows(&batches).filter_map(|row| match row {
        Value::Array(cells) => Some(cells),
        _ => None,
    });
    Ok(Answer { columns, rows: values.collect(), truncated: rows.is_truncated() })
}

/// None for what is shown in a table.
const fn result_format(format: Format) -> Option<ResultFormat> {
    match format {
        Format::Table => None,
        Format::Json => Some(ResultFormat::Json),
        Format::Ndjson => Some(ResultFormat::Ndjson),
        Format::Csv => Some(ResultFormat::Csv),
        Format::Arrow => Some(ResultFormat::Arrow),
        Format::Parquet => Some(ResultFormat::Parquet),
    }
}

fn wrong(error: anyhow::Error, query: &str) -> anyhow::Error {
    match error.downcast_ref() {
        Some(SqlError::Invalid { message, at, .. }) => refused(message, query, *at),
        _ => error,
    }
}

fn refused(detail: &str, query: &str, at: Option<(u64, u64)>) -> anyhow::Error {
    match at {
        Some((line, column)) => anyhow!("{detail}\n{}", pointed(query, line, column)),
        None => anyhow!("{detail}"),
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
