//! A query's result as JSON: numbers as numbers where they keep their digits, times as RFC 3339.

use chrono::{DateTime, NaiveDate};
use datafusion::arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{
        DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
        TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
        UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
    util::display::array_value_to_string,
};
use serde_json::{Map, Value};

/// Digits a JSON number keeps in every reader.
const SAFE_DIGITS: u32 = 15;

/// Each row as a list of values.
pub fn rows(batches: &[RecordBatch]) -> impl Iterator<Item = Value> + '_ {
    batches.iter().flat_map(|batch| {
        (0..batch.num_rows()).map(move |row| batch.columns().iter().map(|column| cell(column.as_ref(), row)).collect())
    })
}

/// One value. What JSON has no shape for is shown as text.
#[must_use]
pub fn cell(array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) || array.data_type().is_null() {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Int8 => array.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Float32 => f64::from(array.as_primitive::<Float32Type>().value(row)).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).into(),
        DataType::Decimal128(_, scale) => {
            decimal(array.as_primitive::<Decimal128Type>().value(row), *scale).unwrap_or_else(|| text(array, row))
        }
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).into(),
        DataType::Utf8View => array.as_string_view().value(row).into(),
        DataType::Date32 => date(array.as_primitive::<Date32Type>().value(row)),
        DataType::Timestamp(unit, zone) => {
            timestamp(array, row, *unit, zone.is_some()).unwrap_or_else(|| text(array, row))
        }
        DataType::List(_) => items(array.as_list::<i32>().value(row).as_ref()),
        DataType::LargeList(_) => items(array.as_list::<i64>().value(row).as_ref()),
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let members = fields.iter().zip(columns).map(|(field, column)| (field.name().clone(), cell(column, row)));
            Value::Object(members.collect::<Map<_, _>>())
        }
        _ => text(array, row),
    }
}

fn items(array: &dyn Array) -> Value {
    (0..array.len()).map(|row| cell(array, row)).collect()
}

fn text(array: &dyn Array, row: usize) -> Value {
    array_value_to_string(array, row).unwrap_or_default().into()
}

/// A number where it has few enough digits, else `None`.
fn decimal(unscaled: i128, scale: i8) -> Option<Value> {
    if unscaled.unsigned_abs() >= 10_u128.pow(SAFE_DIGITS) {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "at most 15 digits")]
    let value = unscaled as f64 / 10_f64.powi(i32::from(scale));
    Some(value.into())
}

fn date(days: i32) -> Value {
    let date = NaiveDate::default().checked_add_signed(chrono::Duration::days(days.into()));
    date.map_or(Value::Null, |date| date.to_string().into())
}

/// RFC 3339 in UTC; without an offset when the column has no time zone.
fn timestamp(array: &dyn Array, row: usize, unit: TimeUnit, zoned: bool) -> Option<Value> {
    let time = match unit {
        TimeUnit::Second => DateTime::from_timestamp(array.as_primitive::<TimestampSecondType>().value(row), 0)?,
        TimeUnit::Millisecond => {
            DateTime::from_timestamp_millis(array.as_primitive::<TimestampMillisecondType>().value(row))?
        }
        TimeUnit::Microsecond => {
            DateTime::from_timestamp_micros(array.as_primitive::<TimestampMicrosecondType>().value(row))?
        }
        TimeUnit::Nanosecond => {
            DateTime::from_timestamp_nanos(array.as_primitive::<TimestampNanosecondType>().value(row))
        }
    };
    let text = time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true);
    Some(if zoned { text.into() } else { text.trim_end_matches('Z').into() })
}
