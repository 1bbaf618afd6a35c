//! The catalogue as JSON: what there is, and one event in full.

use serde_json::{Value, json};

use super::json_schema;
use crate::{
    Catalogue, Context, EventDefinition,
    envelope::{STYLES, dress},
    examples,
};

/// Every context with its events, a line each.
#[must_use]
pub fn list(catalogue: &Catalogue) -> Value {
    let contexts = catalogue.contexts().iter().map(|context| {
        let events = context.events.iter().map(|event| {
            json!({
                "name": event.name,
                "qualified_name": format!("{}.{}", context.name, event.name),
                "view": format!("{}.{}", context.name, event.view),
                "version": event.version.as_str(),
                "meaning": event.meaning,
                "aggregate": event.aggregate,
                "retention": event.retention.as_str(),
                "delivery": event.delivery.as_str(),
                "audit": event.audit,
            })
        });
        json!({
            "name": context.name,
            "title": context.title,
            "meaning": context.meaning,
            "events": events.collect::<Vec<_>>(),
        })
    });
    let definitions: usize = catalogue.contexts().iter().map(|context| context.events.len()).sum();
    json!({"contexts": contexts.collect::<Vec<_>>(), "definitions": definitions})
}

/// One event in full: its fields, its schemas by version, and an example in every envelope.
#[must_use]
pub fn event(catalogue: &Catalogue, context: &Context, definition: &EventDefinition) -> Value {
    let fields = definition.fields.iter().map(|field| {
        let column = &context.columns[field.column];
        let limits = column.limits.to_string();
        json!({
            "name": column.field,
            "column": column.name,
            "type": column.kind.to_string(),
            "required": field.required,
            "meaning": column.meaning,
            "unit": column.unit,
            "limits": (!limits.is_empty()).then_some(limits),
            "personal": column.personal,
        })
    });
    let older = definition.older.iter().map(|older| older.version.as_str().to_owned());
    let schemas = json_schema::of_event(context, definition);
    let schemas = schemas.into_iter().map(|it| (it.version.to_string(), it.schema));
    let example = examples::event(context, definition);
    let examples = STYLES.iter().map(|envelope| {
        let dressed = dress(envelope.style, catalogue, &context.name, definition, &example);
        (envelope.name.to_owned(), dressed)
    });
    json!({
        "name": definition.name,
        "qualified_name": format!("{}.{}", context.name, definition.name),
        "aliases": definition.aliases,
        "context": context.name,
        "view": format!("{}.{}", context.name, definition.view),
        "subject": format!("events.{}.{}.<aggregate id>", context.name, definition.name),
        "version": definition.version.as_str(),
        "older_versions": older.collect::<Vec<_>>(),
        "meaning": definition.meaning,
        "aggregate": definition.aggregate,
        "key": definition.key,
        "retention": definition.retention.as_str(),
        "retention_days": definition.retention.days(),
        "delivery": definition.delivery.as_str(),
        "audit": definition.audit,
        "person": definition.person,
        "fields": fields.collect::<Vec<_>>(),
        "schemas": schemas.collect::<serde_json::Map<_, _>>(),
        "examples": examples.collect::<serde_json::Map<_, _>>(),
    })
}
