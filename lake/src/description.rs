//! What tables there are and what they mean, for everybody who looks: `/v1/tables`, `information_schema`, `pg_catalog`.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, Field, Schema},
    common::Result,
    prelude::SessionContext,
};
use schemas::{
    Catalogue, ContextIndex, EventDefinition,
    columns::{ENVELOPE, EXTRA, EXTRA_MEANING, timestamp_type},
};

use crate::{
    ledger::{DEAD_LETTERS, DUPLICATES, GAPS, KPI_HISTORY, RETIRED},
    schema_names::{DEFAULT_SCHEMA, SYSTEM},
    sql_catalog::ExtraTable,
    table_description::{ColumnDescription, TableDescription},
    view::LakeView,
};

/// Every table, schema by schema. `extra` are those beside the events.
pub(crate) async fn describe(
    base: &SessionContext,
    view: &Arc<LakeView>,
    extra: &[ExtraTable],
) -> Result<Vec<TableDescription>> {
    let mut tables = vec![every_event(), dead_letters(), duplicates(), gaps(), retired(), kpi_history()];
    for (index, context) in view.catalogue.indexed() {
        tables.extend(context.events.iter().map(|event| event_table(&view.catalogue, index, event)));
    }
    for table in extra {
        let columns = table.schema(base, view).await?;
        let column = |field: &Arc<Field>| {
            let known = table.columns.iter().find(|known| known.name == *field.name());
            ColumnDescription {
                name: field.name().clone(),
                kind: field.data_type().clone(),
                nullable: field.is_nullable(),
                meaning: known.map(|known| known.meaning.clone()).unwrap_or_default(),
                unit: known.and_then(|known| known.unit.clone()),
            }
        };
        tables.push(TableDescription {
            schema: table.schema.to_owned(),
            name: table.name.clone(),
            meaning: table.meaning.clone(),
            columns: columns.fields().iter().map(column).collect(),
        });
    }
    tables.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    Ok(tables)
}

fn column(name: &str, kind: DataType, nullable: bool, meaning: &str) -> ColumnDescription {
    ColumnDescription { name: name.to_owned(), kind, nullable, meaning: meaning.to_owned(), unit: None }
}

/// The envelope's columns, with the types they have in every context.
fn envelope() -> impl Iterator<Item = ColumnDescription> {
    ENVELOPE.iter().map(|envelope| {
        let field = envelope.field();
        column(envelope.name, field.data_type().clone(), field.is_nullable(), envelope.meaning)
    })
}

fn event_table(catalogue: &Catalogue, index: ContextIndex, event: &EventDefinition) -> TableDescription {
    let context = catalogue.context_at(index);
    let payload = event.fields.iter().map(|field| {
        let column = &context.columns[field.column];
        ColumnDescription {
            name: column.name.clone(),
            kind: column.kind.arrow(),
            nullable: !field.required,
            meaning: column.meaning.clone(),
            unit: column.unit.clone(),
        }
    });
    let extra = column(EXTRA, DataType::Utf8, true, EXTRA_MEANING);
    TableDescription {
        schema: context.name.clone(),
        name: event.view.clone(),
        meaning: event.meaning.clone(),
        columns: envelope().chain(payload).chain([extra]).collect(),
    }
}

fn every_event() -> TableDescription {
    let more = [
        column("context", DataType::Utf8, false, "The part of the business that its type belongs to: its schema."),
        column("data", DataType::Utf8, true, "Its payload, as JSON text."),
    ];
    TableDescription {
        schema: DEFAULT_SCHEMA.to_owned(),
        name: "events".to_owned(),
        meaning: "Every event: its envelope, its context, and its payload as JSON text in data.".to_owned(),
        columns: envelope().chain(more).collect(),
    }
}

fn dead_letters() -> TableDescription {
    let meaning = |name: &str| match name {
        "position" => "Where the message stands in the log.",
        "ingested_at" => "When the log took it; UTC.",
        "stage" => "Where it was found to be no event.",
        "reason" => "Why, as a code.",
        "message" => "Why, in words.",
        "field" => "The field at fault.",
        "event_id" => "The event id it carries, if it could be read.",
        "subject" => "The subject it was published to.",
        "payload" => "The message itself, whole.",
        "payload_bytes" => "How many bytes it had.",
        "headers" => "Its block of headers as the log holds it, if that cannot be read.",
        _ => "",
    };
    let own = columns_of(&DEAD_LETTERS, meaning);
    let ends = [
        column("status", DataType::Utf8, false, "What became of it: open, retried or dropped."),
        column("closed_at", timestamp_type(), true, "When that was decided; UTC."),
        column("closed_by", DataType::Utf8, true, "Who decided it."),
        column("retried_as", DataType::Int64, true, "The position of the event it became."),
    ];
    let words = "Every message of the log that is no event, and what became of it.";
    system_table("dead_letters", words, own.chain(ends))
}

fn duplicates() -> TableDescription {
    let meaning = |name: &str| match name {
        "position" => "Where the repetition stands in the log.",
        "ingested_at" => "When the log took it; UTC.",
        "event_id" => "The id that had taken effect before.",
        "first_position" => "Where it took effect.",
        _ => "",
    };
    let words = "Every event whose id had taken effect before: it has no effect of its own.";
    system_table("duplicates", words, columns_of(&DUPLICATES, meaning))
}

fn gaps() -> TableDescription {
    let meaning = |name: &str| match name {
        "position" => "The last position of the gap.",
        "first_position" => "Its first.",
        "ingested_at" => "When the log took the message after it; UTC.",
        _ => "",
    };
    let words = "Positions that the log no longer had when it was read: somebody deleted their messages.";
    system_table("gaps", words, columns_of(&GAPS, meaning))
}

fn retired() -> TableDescription {
    let meaning = |name: &str| match name {
        "position" => "Where the event stood in the log.",
        "event_id" => "Its id, which stays taken.",
        "context" => "The context it belonged to.",
        "event_type" => "What it was.",
        "retired_at" => "When it was taken out; UTC.",
        _ => "",
    };
    let words = "Every event that was past its time and is gone; its position is still accounted for.";
    system_table("retired", words, columns_of(&RETIRED, meaning))
}

fn kpi_history() -> TableDescription {
    let meaning = |name: &str| match name {
        "position" => "The position that the bucket reflected.",
        "kpi" => "The KPI.",
        "grain" => "How long the bucket is: hour, day, week, month, quarter or year.",
        "dimension" => "What the KPI is grouped by; null for the whole.",
        "dimension_value" => "The group; null for the whole, or for what has no value.",
        "bucket" => "When the bucket begins; UTC.",
        "measure" => "Which of the KPI's values it is.",
        "amount" => "The value, in the measure's unit.",
        "frozen_at" => "When it was kept: since then it does not change; UTC.",
        _ => "",
    };
    let words = "What KPIs said of buckets that have lost events to retention, a row per value: they stay at it.";
    system_table("kpi_history", words, columns_of(&KPI_HISTORY, meaning))
}

fn system_table(name: &str, meaning: &str, columns: impl Iterator<Item = ColumnDescription>) -> TableDescription {
    TableDescription {
        schema: SYSTEM.to_owned(),
        name: name.to_owned(),
        meaning: meaning.to_owned(),
        columns: columns.collect(),
    }
}

fn columns_of(schema: &Schema, meaning: fn(&str) -> &'static str) -> impl Iterator<Item = ColumnDescription> {
    let columns = schema.fields().iter();
    columns
        .map(move |field| column(field.name(), field.data_type().clone(), field.is_nullable(), meaning(field.name())))
}
