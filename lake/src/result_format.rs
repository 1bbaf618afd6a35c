//! A query's result as it is sent, chunk by chunk: memory is bounded however many rows there are.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use datafusion::{
    arrow::{
        array::RecordBatch,
        datatypes::{Field, SchemaRef},
        error::ArrowError,
        ipc::writer::StreamWriter,
    },
    error::DataFusionError,
};
use futures::{FutureExt, future::BoxFuture};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};

use crate::{QueryRows, RowReader, SqlError, SqlSession, result_json, row_stream::AbortOnDrop, sql_type::sql_type};

/// Chunks that wait for whoever reads them.
const CHUNK_QUEUE: usize = 2;
/// Bytes handed over at once: a client that takes them slowly is seen to take them.
const MAX_CHUNK_BYTES: usize = 64 << 10;
/// Rows of a Parquet row group: what is held until it is written.
const ROW_GROUP: usize = 64 * 1024;

/// How a result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultFormat {
    /// One object: `columns`, `rows` as arrays, `row_count`, `truncated`, and the position as `as_of`.
    Json,
    /// An object per line, by column name.
    Ndjson,
    /// RFC 4180, with a header.
    Csv,
    /// Arrow's IPC stream.
    Arrow,
    Parquet,
}

impl ResultFormat {
    pub const ALL: [Self; 5] = [Self::Json, Self::Ndjson, Self::Csv, Self::Arrow, Self::Parquet];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Arrow => "arrow",
            Self::Parquet => "parquet",
        }
    }

    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// A result on its way, in bytes. Dropped, the query ends.
pub struct EncodedRows {
    chunks: mpsc::Receiver<Result<Option<Vec<u8>>, SqlError>>,
    /// What of a chunk is still to be handed over.
    rest: Bytes,
    reader: RowReader,
    ended: bool,
    deadline: Instant,
    limit: Duration,
    _task: AbortOnDrop<()>,
}

impl EncodedRows {
    /// The next bytes; none after the last of them or an error, and one of both always comes.
    pub fn next_chunk(&mut self) -> BoxFuture<'_, Option<Result<Bytes, SqlError>>> {
        async move {
            self.reader.touch();
            if !self.rest.is_empty() {
                let next = self.rest.len().min(MAX_CHUNK_BYTES);
                return Some(Ok(self.rest.split_to(next)));
            }
            if self.ended {
                return None;
            }
            let chunk = tokio::time::timeout_at(self.deadline, self.chunks.recv()).await.unwrap_or_default();
            let chunk = chunk.unwrap_or_else(|| Err(SqlError::broken_off(self.deadline, self.limit)));
            self.ended = !matches!(chunk, Ok(Some(_)));
            let chunk = chunk.transpose()?;
            Some(chunk.map(|chunk| {
                self.rest = Bytes::from(chunk);
                self.rest.split_to(self.rest.len().min(MAX_CHUNK_BYTES))
            }))
        }
        .boxed()
    }
}

impl SqlSession {
    /// Write rows in a format, where queries run. `permit` is held until all is written or the query's time is up.
    #[must_use]
    pub fn encode(&self, rows: QueryRows, format: ResultFormat, permit: impl Send + 'static) -> EncodedRows {
        let (sender, chunks) = mpsc::channel(CHUNK_QUEUE);
        let (deadline, limit, reader) = (rows.deadline, rows.limit(), rows.reader());
        let task = self.spawn(async move {
            let _permit = permit;
            // Whoever went away, or reads too slowly, is told nothing more.
            let _ = tokio::time::timeout_at(deadline, async {
                if let Err(error) = encode_all(rows, format, &sender).await {
                    let _ = sender.send(Err(error)).await;
                }
            })
            .await;
        });
        EncodedRows { chunks, rest: Bytes::new(), reader, ended: false, deadline, limit, _task: task }
    }
}

async fn encode_all(
    mut rows: QueryRows,
    format: ResultFormat,
    sender: &mpsc::Sender<Result<Option<Vec<u8>>, SqlError>>,
) -> Result<(), SqlError> {
    // The rows are there; what cannot be written is a type that the format has not.
    let unwritten = |error: ArrowError| SqlError::Invalid {
        message: format!("{} cannot hold a column of this result: {error}; cast it", format.name()),
        at: None,
        source: Box::new(DataFusionError::from(error)),
    };
    let mut encoder = Encoder::new(format, &rows.schema).map_err(unwritten)?;
    while let Some(batch) = rows.next_batch().await {
        let bytes = encoder.encode(&batch?).map_err(unwritten)?;
        if !bytes.is_empty() && sender.send(Ok(Some(bytes))).await.is_err() {
            return Ok(());
        }
    }
    let bytes = encoder.finish(&rows).map_err(unwritten)?;
    if sender.send(Ok(Some(bytes))).await.is_ok() {
        let _ = sender.send(Ok(None)).await;
    }
    Ok(())
}

enum Encoder {
    Json {
        /// What comes before the first row.
        before: String,
        rows: u64,
    },
    /// Its columns' names, quoted.
    Ndjson {
        columns: Vec<String>,
    },
    Csv {
        header: Option<Vec<u8>>,
    },
    Arrow(Box<StreamWriter<Vec<u8>>>),
    Parquet(Box<ArrowWriter<Vec<u8>>>),
}

impl Encoder {
    fn new(format: ResultFormat, schema: &SchemaRef) -> Result<Self, ArrowError> {
        let names = || schema.fields().iter().map(|field| field.name().clone());
        Ok(match format {
            ResultFormat::Json => {
                let typed = |field: &Arc<Field>| json!({"name": field.name(), "type": sql_type(field.data_type())});
                let columns: Vec<Value> = schema.fields().iter().map(typed).collect();
                Self::Json { before: format!("{{\"columns\":{},\"rows\":[", Value::from(columns)), rows: 0 }
            }
            ResultFormat::Ndjson => {
                Self::Ndjson { columns: names().map(|name| Value::from(name).to_string()).collect() }
            }
            ResultFormat::Csv => {
                let cells: Vec<Value> = names().map(Value::from).collect();
                Self::Csv { header: Some(csv_line(&cells).into_bytes()) }
            }
            ResultFormat::Arrow => Self::Arrow(Box::new(StreamWriter::try_new(Vec::new(), schema)?)),
            ResultFormat::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_max_row_group_row_count(Some(ROW_GROUP))
                    .build();
                let writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties))?;
                Self::Parquet(Box::new(writer))
            }
        })
    }

    fn encode(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
        let cells = |row| batch.columns().iter().map(move |column| result_json::cell(column.as_ref(), row));
        let mut text = String::new();
        match self {
            Self::Json { before, rows } => {
                text.push_str(&std::mem::take(before));
                for row in 0..batch.num_rows() {
                    if *rows > 0 {
                        text.push(',');
                    }
                    *rows += 1;
                    text.push_str(&cells(row).collect::<Value>().to_string());
                }
            }
            Self::Ndjson { columns } => {
                for row in 0..batch.num_rows() {
                    // In the columns' order.
                    let members = columns.iter().zip(cells(row)).map(|(name, value)| format!("{name}:{value}"));
                    text.push_str(&format!("{{{}}}\n", members.collect::<Vec<_>>().join(",")));
                }
            }
            Self::Csv { header } => {
                let mut bytes = header.take().unwrap_or_default();
                for row in 0..batch.num_rows() {
                    bytes.extend_from_slice(csv_line(&cells(row).collect::<Vec<_>>()).as_bytes());
                }
                return Ok(bytes);
            }
            Self::Arrow(writer) => {
                writer.write(batch)?;
                return Ok(std::mem::take(writer.get_mut()));
            }
            Self::Parquet(writer) => {
                writer.write(batch)?;
                return Ok(std::mem::take(writer.inner_mut()));
            }
        }
        Ok(text.into_bytes())
    }

    fn finish(self, answered: &QueryRows) -> Result<Vec<u8>, ArrowError> {
        Ok(match self {
            Self::Json { before, rows } => {
                let (truncated, as_of) = (answered.is_truncated(), answered.as_of());
                let after = format!("],\"row_count\":{rows},\"truncated\":{truncated},\"as_of\":{as_of}}}");
                (before + &after).into_bytes()
            }
            Self::Ndjson { .. } => Vec::new(),
            Self::Csv { header } => header.unwrap_or_default(),
            Self::Arrow(writer) => writer.into_inner()?,
            Self::Parquet(writer) => writer.into_inner()?,
        })
    }
}

/// A line of CSV: nothing for null, text as it is, and the rest as JSON; quoted where it would be misread.
fn csv_line(cells: &[Value]) -> String {
    let cell = |value: &Value| match value {
        Value::Null => String::new(),
        // An empty text is none of the nulls.
        Value::String(text) if text.is_empty() || text.contains([',', '"', '\n', '\r']) => quoted(text),
        Value::String(text) => text.clone(),
        other => {
            let text = other.to_string();
            if text.contains([',', '"']) { quoted(&text) } else { text }
        }
    };
    let mut line = cells.iter().map(cell).collect::<Vec<_>>().join(",");
    line.push_str("\r\n");
    line
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}
