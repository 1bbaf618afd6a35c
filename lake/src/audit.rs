//! Whether a table's files hold what the table says of them: its position, and each file's statistics.
//!
//! Queries trust both: rows after the position come from the tail, and a file whose statistics rule it out is not read.

use std::{collections::BTreeMap, ops::RangeInclusive};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, RecordBatch},
        compute::{cast, partition},
        datatypes::{DataType, Int64Type, TimestampMicrosecondType},
    },
    common::Result,
    prelude::SessionContext,
};
use futures::TryStreamExt;
use schemas::{Position, field_type::parse_timestamp};
use serde_json::Value;

use crate::{committed_rows::FILE_COLUMN, view::TableView};

/// Bounds of times are written to the millisecond, downwards.
const TIME_STEP: i64 = 999;

/// A text at least this long may be shortened in statistics.
const SHORTENED_TO: usize = 31;

/// What the committed rows of a table are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    pub files: u64,
    /// The last position among the rows.
    pub last: Option<Position>,
    /// What is not as the table says.
    pub differences: Vec<String>,
}

/// A value of a column with statistics; numbers and times are numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bound {
    Number(i64),
    Text(String),
}

#[derive(Clone, Debug, Default)]
struct ColumnFacts {
    nulls: u64,
    bounds: Option<RangeInclusive<Bound>>,
}

/// What is in one file.
#[derive(Clone, Debug, Default)]
struct FileFacts {
    rows: u64,
    columns: BTreeMap<String, ColumnFacts>,
}

pub(crate) async fn audit(context: SessionContext, table: TableView) -> Result<Audit> {
    let columns: Vec<&str> = table.spec.statistics.split(',').collect();
    let rows = table.committed.rows_with_files(None)?;
    let mut rows = context.read_table(rows)?.execute_stream().await?;
    let mut files: BTreeMap<String, FileFacts> = BTreeMap::new();
    let mut last = None;
    while let Some(batch) = rows.try_next().await? {
        let Some(names) = batch.column_by_name(FILE_COLUMN) else { continue };
        let names = cast(names, &DataType::Utf8)?;
        for range in partition(std::slice::from_ref(&names))?.ranges() {
            let name = names.as_string::<i32>().value(range.start);
            let rows = batch.slice(range.start, range.len());
            last = last.max(highest(&rows));
            files.entry(name.to_owned()).or_default().add(&rows, &columns);
        }
    }
    let mut audit = Audit { files: 0, last: last.map(Position::from_i64), differences: Vec::new() };
    for file in table.committed.version().log_data().iter() {
        audit.files += 1;
        let path = file.path();
        let facts = files.remove(path.as_ref()).unwrap_or_default();
        let says: Value = file.stats().and_then(|stats| serde_json::from_str(&stats).ok()).unwrap_or_default();
        let differ = facts.differences(&says).into_iter();
        audit.differences.extend(differ.map(|what| format!("{}/{path}: {what}", table.spec.name)));
    }
    Ok(audit)
}

fn highest(rows: &RecordBatch) -> Option<i64> {
    let positions = rows.column_by_name("position")?.as_primitive_opt::<Int64Type>()?;
    positions.iter().flatten().max()
}

impl FileFacts {
    fn add(&mut self, rows: &RecordBatch, columns: &[&str]) {
        self.rows += rows.num_rows() as u64;
        for name in columns {
            let Some(values) = rows.column_by_name(name) else { continue };
            let facts = self.columns.entry((*name).to_owned()).or_default();
            facts.nulls += values.null_count() as u64;
            let known = facts.bounds.take();
            facts.bounds = match (known, bounds(values)) {
                (Some(a), Some(b)) => Some(a.start().min(b.start()).clone()..=a.end().max(b.end()).clone()),
                (a, b) => a.or(b),
            };
        }
    }

    fn differences(&self, says: &Value) -> Vec<String> {
        let mut differences = Vec::new();
        if says["numRecords"].as_u64() != Some(self.rows) {
            differences.push(format!("it has {} rows and its statistics say {}", self.rows, says["numRecords"]));
        }
        for (name, facts) in &self.columns {
            let nulls = &says["nullCount"][name];
            if nulls.as_u64() != Some(facts.nulls) {
                differences.push(format!("{name} is null {} times and its statistics say {nulls}", facts.nulls));
            }
            let Some(bounds) = &facts.bounds else { continue };
            let (least, most) = (&says["minValues"][name], &says["maxValues"][name]);
            if !agrees(bounds.start(), least, false) || !agrees(bounds.end(), most, true) {
                let (from, to) = (told(bounds.start()), told(bounds.end()));
                differences.push(format!(
                    "{name} is between {from} and {to} and its statistics say between {least} and {most}"
                ));
            }
        }
        differences
    }
}

/// The least and the greatest of some values; none of a type that has no statistics.
fn bounds(values: &ArrayRef) -> Option<RangeInclusive<Bound>> {
    fn of<T: Ord + Copy>(values: impl Iterator<Item = T>, bound: impl Fn(T) -> Bound) -> Option<RangeInclusive<Bound>> {
        let ends = values.fold(None, |ends: Option<(T, T)>, value| {
            Some(ends.map_or((value, value), |(least, most)| (least.min(value), most.max(value))))
        });
        ends.map(|(least, most)| bound(least)..=bound(most))
    }
    let text = |value: &str| Bound::Text(value.to_owned());
    match values.data_type() {
        DataType::Int64 => of(values.as_primitive::<Int64Type>().iter().flatten(), Bound::Number),
        DataType::Timestamp(..) => {
            of(values.as_primitive_opt::<TimestampMicrosecondType>()?.iter().flatten(), Bound::Number)
        }
        DataType::Utf8 => of(values.as_string::<i32>().iter().flatten(), text),
        DataType::Utf8View => of(values.as_string_view().iter().flatten(), text),
        _ => None,
    }
}

/// Whether a bound is what is written of it. A long text may be written as a shorter one beyond it, and a time to the
/// millisecond.
fn agrees(actual: &Bound, says: &Value, is_upper: bool) -> bool {
    match actual {
        Bound::Number(actual) => match says {
            Value::String(time) => parse_timestamp(time).is_some_and(|at| (at..=at + TIME_STEP).contains(actual)),
            says => says.as_i64() == Some(*actual),
        },
        Bound::Text(actual) => says.as_str().is_some_and(|says| {
            let beyond = if is_upper { says > actual.as_str() } else { says < actual.as_str() };
            says == actual || (beyond && says.chars().count() >= SHORTENED_TO)
        }),
    }
}

fn told(bound: &Bound) -> String {
    match bound {
        Bound::Number(number) => number.to_string(),
        Bound::Text(text) => text.clone(),
    }
}
