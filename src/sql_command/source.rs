//! Where `forecourt sql` sends a statement: a running server, or a folder; and its answer as a table.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use comfy_table::Table;
use futures::StreamExt;
use lake::{
    Lake, LakeView, QueryLimits, QueryRows, ResultFormat, SqlError, SqlSession, result_json, session,
    sql_type::sql_type, table_description::ColumnDescription,
};
use processors::derived_tables::derived_tables;
use schemas::{Position, field_type::parse_timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::{
    arguments::{Format, Sql},
    catalogue_files, output_error, tables, up,
};

/// Rows that people look at, unless they ask for more.
const DEFAULT_ROWS: usize = 10_000;

/// Rows for people.
#[derive(Deserialize)]
pub(super) struct Answer {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Value>>,
    pub(super) truncated: bool,
    pub(super) as_of: AsOf,
}

#[derive(Deserialize)]
pub(super) struct Column {
    pub(super) name: String,
}

#[derive(Deserialize)]
pub(super) struct AsOf {
    pub(super) position: u64,
}

/// A table as the shell tells of it.
#[derive(Deserialize)]
pub(super) struct TableInfo {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) meaning: String,
    pub(super) columns: Vec<ColumnInfo>,
}

#[derive(Deserialize)]
pub(super) struct ColumnInfo {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) meaning: String,
}

/// Who is asked.
pub(super) enum Source {
    Server { client: reqwest::Client, url: String },
    Folder(Box<Folder>),
}

/// A folder that no server uses.
pub(super) struct Folder {
    _lock: File,
    sql: SqlSession,
    view: Arc<LakeView>,
}

impl Source {
    pub(super) async fn open(arguments: &Sql) -> anyhow::Result<Self> {
        match &arguments.data {
            None => {
                let url = arguments.to.trim_end_matches('/').to_owned();
                Ok(Self::Server { client: reqwest::Client::new(), url })
            }
            Some(data) => Folder::open(arguments, data).await.map(|folder| Self::Folder(Box::new(folder))),
        }
    }

    /// Rows to be shown in a table; none, when they are printed already.
    pub(super) async fn ask(&self, arguments: &Sql, query: &str) -> anyhow::Result<Option<Answer>> {
        match self {
            Self::Server { client, url } => ask_server(client, url, arguments, query).await,
            Self::Folder(folder) => folder.ask(arguments, query).await,
        }
    }

    pub(super) async fn tables(&self) -> anyhow::Result<Vec<TableInfo>> {
        match self {
            Self::Server { client, url } => {
                #[derive(Deserialize)]
                struct Tables {
                    tables: Vec<TableInfo>,
                }
                let answer = client.get(format!("{url}/v1/tables")).send().await;
                let answer = answer.with_context(|| format!("cannot ask {url}; is `forecourt up` running?"))?;
                let tables: Tables = answer.json().await.context("the server's answer cannot be read")?;
                Ok(tables.tables)
            }
            Self::Folder(folder) => {
                let tables = folder.sql.tables(&folder.view).await?.iter().map(|table| TableInfo {
                    schema: table.schema.clone(),
                    name: table.name.clone(),
                    meaning: table.meaning.clone(),
                    columns: table.columns.iter().map(ColumnInfo::from).collect(),
                });
                Ok(tables.collect())
            }
        }
    }
}

impl From<&ColumnDescription> for ColumnInfo {
    fn from(column: &ColumnDescription) -> Self {
        let (name, kind, meaning) = (column.name.clone(), sql_type(&column.kind), column.comment());
        Self { name, kind, meaning }
    }
}

async fn ask_server(
    client: &reqwest::Client,
    url: &str,
    arguments: &Sql,
    query: &str,
) -> anyhow::Result<Option<Answer>> {
    let url = format!("{url}/v1/sql");
    let format = result_format(arguments.format).unwrap_or(ResultFormat::Json);
    let body = json!({
        "query": query, "limit": arguments.limit, "as_of": arguments.as_of, "format": format.name(),
        "timeout_ms": arguments.timeout * 1_000,
    });
    let mut request = client.post(&url).json(&body);
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
        let chunk = chunk.context("the server broke off: the query failed on its way, and its log says why")?;
        output.write_all(&chunk).map_err(output_error)?;
    }
    if arguments.format == Format::Json {
        writeln!(output).map_err(output_error)?;
    }
    Ok(None)
}

impl Folder {
    async fn open(arguments: &Sql, data: &Path) -> anyhow::Result<Self> {
        if !data.join("lake").is_dir() {
            bail!("there is no lake in {}", data.display());
        }
        let lock = up::lock(data)?;
        processors::open_data_folder(data, processors::FormatAccess::ReadOnly)?;
        let catalogue = catalogue_files::load(arguments.catalogue.as_deref())?;
        let root = lake::folder_url(&data.join("lake"))?;
        let view = Arc::new(Lake::look(&root, catalogue).await?);
        let sql = SqlSession::new(Handle::current(), derived_tables(&arguments.kpis.definitions()?))?;
        Ok(Self { _lock: lock, sql, view })
    }

    async fn ask(&self, arguments: &Sql, query: &str) -> anyhow::Result<Option<Answer>> {
        let (sql, within) = (&self.sql, Duration::from_secs(arguments.timeout));
        // After a crash some tables may be ahead of the others: all are cut at one position.
        let position = match &arguments.as_of {
            None => self.view.position,
            Some(text) => position_of(sql, &self.view, text, within).await?,
        };
        let view = sql.cut(&self.view, position, within).await?;
        let people = matches!(arguments.format, Format::Table | Format::Json);
        let rows = arguments.limit.unwrap_or(if people { DEFAULT_ROWS } else { usize::MAX });
        let limits = QueryLimits { rows, time: within };
        let none = session::parameters(&[]).map_err(|_| anyhow!("no parameters"))?;
        let answered = async {
            let mut rows = sql.query(&view, Vec::new(), sql.parse(query)?, none, limits).await?;
            let Some(format) = result_format(arguments.format) else {
                return Ok(Some(read(&mut rows, position).await?));
            };
            let (mut chunks, mut output) = (sql.encode(rows, format, ()), io::stdout().lock());
            while let Some(chunk) = chunks.next_chunk().await {
                output.write_all(&chunk?).map_err(output_error)?;
            }
            if format == ResultFormat::Json {
                writeln!(output).map_err(output_error)?;
            }
            anyhow::Ok(None)
        };
        answered.await.map_err(|error| wrong(error, query))
    }
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

async fn read(rows: &mut QueryRows, position: Position) -> Result<Answer, SqlError> {
    let columns = rows.schema.fields().iter().map(|field| Column { name: field.name().clone() }).collect();
    let batches = rows.collect().await?;
    let values = result_json::rows(&batches).filter_map(|row| match row {
        Value::Array(cells) => Some(cells),
        _ => None,
    });
    let (rows, truncated) = (values.collect(), rows.is_truncated());
    Ok(Answer { columns, rows, truncated, as_of: AsOf { position: position.get() } })
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

pub(super) fn table(answer: &Answer) -> Table {
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
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
