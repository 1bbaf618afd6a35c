//! Listing files, row by row: CSV and Parquet look the same from here on.

use std::{fs::File, path::Path};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatchReader, StringArray, new_null_array},
    compute::{can_cast_types, cast},
    datatypes::DataType,
    error::ArrowError,
};
use csv::StringRecord;
use parquet::{arrow::arrow_reader::ParquetRecordBatchReaderBuilder, errors::ParquetError};
use schemas::field_type::UTC;

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("cannot be opened")]
    Open(#[from] std::io::Error),
    #[error("cannot be read as CSV")]
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
    /// None when a cell is no text.
    pub cells: Option<Vec<String>>,
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
        let rows = reader.into_byte_records().map(|record| {
            let record = record?;
            let line = record.position().map_or(0, csv::Position::line);
            let text = StringRecord::from_byte_record(record).ok();
            Ok(Row { line, cells: text.map(|text| text.iter().map(str::to_owned).collect()) })
        });
        Ok(Self { columns, rows: Box::new(rows) })
    }

    fn parquet(file: File) -> Result<Self, SourceError> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(file)?.build()?;
        let columns = reader.schema().fields().iter().map(|field| field.name().clone()).collect();
        let mut line = 0;
        let rows = reader.flat_map(move |batch| {
            let texts = batch.and_then(|batch| {
                let texts = batch.columns().iter().map(text_of);
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
                    (0..rows).map(|row| Ok(Row { line: first + row as u64, cells: Some(cells(row)) })).collect()
                }
            };
            rows
        });
        Ok(Self { columns, rows: Box::new(rows) })
    }
}

/// A column as text. Times without a zone are UTC; what has no text, such as a list, is empty.
fn text_of(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if let DataType::Timestamp(unit, None) = column.data_type() {
        return cast(&cast(column, &DataType::Timestamp(*unit, Some(UTC.into())))?, &DataType::Utf8);
    }
    if can_cast_types(column.data_type(), &DataType::Utf8) {
        return cast(column, &DataType::Utf8);
    }
    Ok(new_null_array(&DataType::Utf8, column.len()))
}
