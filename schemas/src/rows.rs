//! From a context's record batch back to JSON: the inverse of [`crate::columns`].

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType},
};
use serde_json::{Map, Value};

use crate::{
    Context,
    columns::EXTRA,
    field_type::{FieldType, format_timestamp},
};

/// The payload of row `row` as the JSON object its event carried: the fields of its type, and what was unknown.
///
/// `batch` has a context's columns by name; columns it lacks are read as null.
#[must_use]
pub fn payload(context: &Context, batch: &RecordBatch, row: usize) -> Map<String, Value> {
    let mut object = Map::new();
    for column in &context.columns {
        if let Some(array) = batch.column_by_name(&column.name)
            && array.is_valid(row)
        {
            object.insert(column.field.clone(), value(column.kind, array.as_ref(), row));
        }
    }
    let extra = batch.column_by_name(EXTRA).and_then(|array| array.as_string_opt::<i32>());
    if let Some(extra) = extra.filter(|extra| extra.is_valid(row))
        && let Ok(Value::Object(unknown)) = serde_json::from_str(extra.value(row))
    {
        object.extend(unknown);
    }
    object
}

/// One cell as JSON. The array has the kind's Arrow type and is valid at `row`.
#[must_use]
pub fn value(kind: FieldType, array: &dyn Array, row: usize) -> Value {
    let parsed = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
    match kind {
        FieldType::Id | FieldType::String => array.as_string::<i32>().value(row).into(),
        FieldType::Json => parsed(array.as_string::<i32>().value(row)),
        FieldType::Integer => array.as_primitive::<Int64Type>().value(row).into(),
        FieldType::Number => array.as_primitive::<Float64Type>().value(row).into(),
        FieldType::Money => money(array.as_primitive::<Decimal128Type>().value(row)),
        FieldType::Boolean => array.as_boolean().value(row).into(),
        FieldType::Timestamp => format_timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row)).into(),
        FieldType::StringList | FieldType::JsonList => {
            let items = array.as_list::<i32>().value(row);
            let items = items.as_string::<i32>().iter().flatten();
            match kind {
                FieldType::JsonList => items.map(parsed).collect(),
                _ => items.collect(),
            }
        }
    }
}

/// Cents as an amount; whole amounts without decimals.
#[must_use]
pub fn money(cents: i128) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "decimal(12,2) fits a float's 53 bits")]
    let amount = cents as f64 / 100.0;
    match i64::try_from(cents) {
        Ok(cents) if cents % 100 == 0 => (cents / 100).into(),
        _ => amount.into(),
    }
}
