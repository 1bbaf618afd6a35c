//! One JSON Schema (2020-12) per event and version: the canonical envelope with the event's payload.

use serde_json::{Map, Value, json};

use crate::{
    Context, EventDefinition,
    catalogue::Column,
    examples,
    field_type::FieldType,
    limits::{Limits, Rule},
    versions::{Step, Version, steps_from},
};

/// The dialect of every schema.
pub const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A version of an event and its schema.
#[derive(Clone, Debug)]
pub struct VersionSchema {
    pub version: Version,
    pub schema: Value,
}

/// The schemas of an event, the current version first.
#[must_use]
pub fn of_event(context: &Context, definition: &EventDefinition) -> Vec<VersionSchema> {
    let older = definition.older.iter().rev().map(|older| older.version.clone());
    let versions = [definition.version.clone()].into_iter().chain(older);
    versions.map(|version| VersionSchema { schema: schema(context, definition, &version), version }).collect()
}

/// The file a version's schema is exported to: `inventory.PriceSet.1.0.json`.
#[must_use]
pub fn file_name(context: &Context, definition: &EventDefinition, version: &Version) -> String {
    format!("{}.{}.{version}.json", context.name, definition.name)
}

fn schema(context: &Context, definition: &EventDefinition, version: &Version) -> Value {
    let current = *version == definition.version;
    let payload = payload(context, definition, version);
    let mut schema = json!({
        "$schema": DIALECT,
        "$id": format!("urn:forecourt:event:{}.{}:{version}", context.name, definition.name),
        "title": format!("{}.{}", context.name, definition.name),
        "description": definition.meaning,
        "type": "object",
        "required": required_members(definition),
        "properties": {
            "eventId": {
                "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$",
                "description": "The producer's id of the event; it takes effect once.",
            },
            "eventType": {"enum": names(context, definition), "description": "The event's name."},
            "eventVersion": event_version(version, current),
            "timestamp": time("When it happened."),
            "aggregateType": {"type": ["string", "null"], "description": format!("{} unless given.", definition.aggregate)},
            "aggregateId": {"type": ["string", "null"], "minLength": 1, "description": "What it happened to."},
            "tenantId": {"type": ["string", "null"], "minLength": 1, "description": "Whose marketplace; main unless given."},
            "correlationId": {"type": ["string", "null"]},
            "causationId": {"type": ["string", "null"], "description": "The id of the event that led to this one."},
            "source": {"type": ["string", "null"], "description": "What produced it."},
            "data": payload,
        },
        "x-retention": definition.retention.as_str(),
        "x-retention-days": definition.retention.days(),
        "x-delivery": definition.delivery.as_str(),
        "x-audit": definition.audit,
    });
    match &definition.key {
        None => schema["properties"]["aggregateId"]["type"] = "string".into(),
        Some(key)
            if !schema["properties"]["data"]["required"].as_array().is_some_and(|it| it.contains(&json!(key))) =>
        {
            let text = json!({"type": "string", "minLength": 1});
            let own = json!({"required": ["aggregateId"], "properties": {"aggregateId": text}});
            let of_data = json!({"properties": {"data": {"required": [key], "properties": {key: text}}}});
            schema["anyOf"] = json!([own, of_data]);
        }
        Some(_) => {}
    }
    if let Some(person) = &definition.person {
        schema["x-person"] = person.as_str().into();
    }
    if current {
        schema["examples"] = json!([examples::event(context, definition)]);
    } else {
        // An older version must say that it is one; without a version an event has the current shape.
        push(&mut schema["required"], "eventVersion");
    }
    schema
}

/// The current shape also goes without a version, or under a newer one; an older one under its own alone.
fn event_version(version: &Version, current: bool) -> Value {
    if current { json!({"type": ["string", "number", "null"]}) } else { json!({"const": version.as_str()}) }
}

fn required_members(definition: &EventDefinition) -> Vec<&'static str> {
    let mut required = vec!["eventId", "eventType", "timestamp", "data"];
    if definition.key.is_none() {
        required.push("aggregateId");
    }
    required
}

fn names(context: &Context, definition: &EventDefinition) -> Vec<String> {
    let qualified = format!("{}.{}", context.name, definition.name);
    [definition.name.clone(), qualified].into_iter().chain(definition.aliases.iter().cloned()).collect()
}

/// The payload's schema as a version has it: the current one, with the steps since taken back.
fn payload(context: &Context, definition: &EventDefinition, version: &Version) -> Value {
    let mut properties = Map::new();
    let mut required: Vec<String> = Vec::new();
    for field in &definition.fields {
        let column = &context.columns[field.column];
        properties.insert(column.field.clone(), property(column, field.required));
        if field.required {
            required.push(column.field.clone());
        }
    }
    if *version < definition.version {
        let steps: Vec<&Step> = steps_from(&definition.older, version).collect();
        for step in steps.into_iter().rev() {
            take_back(step, &mut properties, &mut required);
        }
    }
    json!({
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": true,
    })
}

fn take_back(step: &Step, properties: &mut Map<String, Value>, required: &mut Vec<String>) {
    match step {
        Step::Rename { rename, to } => {
            if let Some(property) = properties.get(to).cloned() {
                // The new name is taken too, so neither is required alone.
                properties.insert(rename.clone(), property);
                required.retain(|name| name != to);
            }
        }
        Step::Default { default, .. } => required.retain(|name| name != default),
        Step::Split { split, into, .. } => {
            required.retain(|name| !into.contains(name));
            properties.insert(split.clone(), json!({"type": ["string", "null"]}));
        }
        Step::Multiply { convert, .. } => {
            properties.insert(convert.clone(), json!({"type": ["number", "string", "null"]}));
        }
        Step::Values { convert, .. } | Step::Retype { convert, .. } => {
            properties.insert(convert.clone(), json!({}));
        }
        Step::Drop { drop } => {
            properties.entry(drop.clone()).or_insert_with(|| json!({}));
        }
    }
}

/// A field's schema. An optional field may also be null, which is the same as absent.
#[must_use]
pub fn property(column: &Column, required: bool) -> Value {
    let mut schema = of_type(column.kind);
    if required && column.kind == FieldType::Json {
        schema["not"] = json!({"type": "null"});
    }
    limit(&mut schema, &column.limits);
    if !required {
        match schema.get_mut("type") {
            Some(Value::Array(kinds)) => kinds.push("null".into()),
            Some(kind) => *kind = json!([kind, "null"]),
            None => {}
        }
        if let Some(values) = schema.get_mut("enum") {
            push(values, Value::Null);
        }
    }
    schema["description"] = column.meaning.as_str().into();
    if let Some(unit) = &column.unit {
        schema["x-unit"] = unit.as_str().into();
    }
    if column.personal {
        schema["x-personal-data"] = true.into();
    }
    schema["examples"] = json!([examples::field(column)]);
    schema
}

fn of_type(kind: FieldType) -> Value {
    match kind {
        FieldType::Id => json!({"type": "string", "minLength": 1}),
        FieldType::String => json!({"type": "string"}),
        FieldType::Integer => json!({"type": "integer"}),
        FieldType::Number => json!({"type": "number"}),
        FieldType::Money => json!({
            "type": ["number", "string"],
            "exclusiveMinimum": -1e10, "exclusiveMaximum": 1e10, "pattern": r"^-?[0-9]{1,10}(\.[0-9]{1,2})?$",
            "x-scale": 2,
        }),
        FieldType::Boolean => json!({"type": "boolean"}),
        FieldType::Timestamp => time(""),
        FieldType::Json => json!({}),
        FieldType::StringList => json!({"type": "array", "items": {"type": "string"}}),
        FieldType::JsonList => json!({"type": "array"}),
    }
}

/// RFC 3339, or a plain date. `format` alone would exclude the date.
fn time(description: &str) -> Value {
    let mut schema = json!({
        "type": "string",
        "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2}))?$",
    });
    if !description.is_empty() {
        schema["description"] = description.into();
    }
    schema
}

fn limit(schema: &mut Value, limits: &Limits) {
    let Limits { values, min, max, above, rule } = limits;
    if !values.is_empty() {
        schema["enum"] = json!(values);
    }
    for (name, bound) in [("minimum", min), ("maximum", max), ("exclusiveMinimum", above)] {
        if let Some(bound) = bound {
            schema[name] = json!(bound);
        }
    }
    match rule {
        Some(Rule::ModelYear) => schema["minimum"] = json!(1886),
        Some(Rule::Vin) => schema["x-warning"] = "The check digit should be right.".into(),
        None => {}
    }
}

fn push(list: &mut Value, item: impl Into<Value>) {
    if let Value::Array(items) = list {
        items.push(item.into());
    }
}
