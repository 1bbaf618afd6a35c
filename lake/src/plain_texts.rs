//! Inside a query a text is a view of its bytes: quick to compare, and moved without being copied. What leaves a query has
//! the common type of text, which every client reads.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, RecordBatch, RecordBatchOptions},
        compute::cast,
        datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef},
        error::ArrowError,
    },
    execution::SendableRecordBatchStream,
    physical_plan::stream::RecordBatchStreamAdapter,
};
use futures::TryStreamExt;

/// The type that leaves.
pub(crate) fn plain_type(kind: &DataType) -> DataType {
    let field = |field: &FieldRef| Arc::new(Field::clone(field).with_data_type(plain_type(field.data_type())));
    match kind {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) => DataType::List(field(item)),
        DataType::LargeList(item) => DataType::LargeList(field(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(field(item), *size),
        DataType::Map(entries, sorted) => DataType::Map(field(entries), *sorted),
        DataType::Dictionary(key, value) => DataType::Dictionary(key.clone(), Box::new(plain_type(value))),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        other => other.clone(),
    }
}

/// The columns that leave.
pub(crate) fn plain_schema(schema: &Schema) -> SchemaRef {
    let plain = |field: &FieldRef| Field::clone(field).with_data_type(plain_type(field.data_type()));
    let fields: Fields = schema.fields().iter().map(plain).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

pub(crate) fn plain_array(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    cast(array, &plain_type(array.data_type()))
}

fn plain_batch(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(plain_array).collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(plain_schema(batch.schema_ref()), columns, &options)
}

/// The same rows.
pub fn plain(rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
    let schema = plain_schema(&rows.schema());
    if schema == rows.schema() {
        return rows;
    }
    Box::pin(RecordBatchStreamAdapter::new(schema, rows.and_then(async |batch| Ok(plain_batch(&batch)?))))
}
