//! Listing files, row by row: CSV and Parquet look the same from here on.

use std::{fs::File, path::Path};

use arrow::{
    array::{Array, AsArray, StringArray},
    compute::cast,
    datatypes::DataType,
    error::ArrowError,
    record_batch::RecordBatchReader,
};
use parquet::{arrow::arrow_reader::ParquetRecordBatchReaderBuilder, errors::ParquetError};

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("cannot be opened")]
    Open(#[from] std::io::Error),
    #[error("is no CSV")]
    Csv(#[from] csv::Error),
    #[error("is no Parquet file")]
    Parquet(#[from] ParquetError),
    #[error("its columns cannot be read as text")]
    Column(#[from] ArrowError),
    #[error("is neither .csv nor .parquet; name it as what it is")]
    UnknownKind,
}

/// One row. A cell that holds nothing is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The line it begins on, from 1; in a Parquet file its number, from 1.
    pub line: u64,
    pub cells: Vec<String>,
}

type Rows = Box<dyn Iterator<Item = Result<Row, SourceError>>>;

/// A file's columns and rows.
pub struct Source {
    pub columns: Vec<String>,
    pub rows: Rows,
}

impl Source {
    /// Open a file; its name's ending says what it is.
    ///
    /// # Errors
    /// When it cannot be read as that.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        match ending.to_ascii_lowercase().as_str() {
            "csv" => Self::csv(File::open(path)?),
            "parquet" => Self::parquet(File::open(path)?),
            _ => Err(SourceError::UnknownKind),
        }
    }

    fn csv(file: File) -> Result<Self, SourceError> {
        // A row with a cell too many or too few is that row's fault.
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
        let columns = reader.headers()?.iter().map(|name| name.trim().to_owned()).collect();
        let rows = reader.into_records().map(|record| {
            let record = record?;
            let line = record.position().map_or(0, csv::Position::line);
            Ok(Row { line, cells: record.iter().map(str::to_owned).collect() })
        });
        Ok(Self { columns, rows: Box::new(rows) })
    }

    fn parquet(file: File) -> Result<Self, SourceError> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(file)?.build()?;
        let columns = reader.schema().fields().iter().map(|field| field.name().clone()).collect();
        let mut line = 0;
        let rows = reader.flat_map(move |batch| {
            let texts = batch.and_then(|batch| {
                let texts = batch.columns().iter().map(|column| cast(column, &DataType::Utf8));
                Ok((batch.num_rows(), texts.collect::<Result<Vec<_>, _>>()?))
            });
            let rows: Vec<Result<Row, SourceError>> = match texts {
                Err(error) => vec![Err(error.into())],
                Ok((rows, texts)) => {
                    let texts: Vec<_> = texts.iter().map(|text| text.as_string::<i32>()).collect();
                    let cell =
                        |text: &StringArray, row| if text.is_valid(row) { text.value(row) } else { "" }.to_owned();
                    let first = line + 1;
                    line += rows as u64;
                    let cells = |row| texts.iter().map(|text| cell(text, row)).collect();
                    (0..rows).map(|row| Ok(Row { line: first + row as u64, cells: cells(row) })).collect()
                }
            };
            rows
        });
        Ok(Self { columns, rows: Box::new(rows) })
    }
}
