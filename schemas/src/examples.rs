//! An example of every event, made from its definition.

use serde_json::{Map, Value, json};

use crate::{
    Context, EventDefinition,
    catalogue::Column,
    field_type::FieldType,
    limits::{Limits, Rule},
};

/// A valid event of this definition in the canonical envelope, with every field it may carry.
#[must_use]
pub fn event(context: &Context, definition: &EventDefinition) -> Value {
    let data: Map<String, Value> = definition
        .fields
        .iter()
        .map(|field| &context.columns[field.column])
        .map(|column| (column.field.clone(), field(column)))
        .collect();
    let key = definition.key.as_ref().and_then(|key| data.get(key)).cloned();
    json!({
        "eventId": format!("example-{}-{}", context.name, definition.view),
        "eventType": format!("{}.{}", context.name, definition.name),
        "eventVersion": definition.version.as_str(),
        "timestamp": "2026-11-02T08:30:00Z",
        "aggregateType": definition.aggregate,
        "aggregateId": key.unwrap_or_else(|| json!(format!("{}-1", definition.aggregate.to_lowercase()))),
        "tenantId": "main",
        "data": data,
    })
}

/// A value the field may have: the catalogue's own example, or one of its type and within its limits.
#[must_use]
pub fn field(column: &Column) -> Value {
    if let Some(example) = &column.example {
        return example.clone();
    }
    let Limits { values, min, max, above, rule } = &column.limits;
    if let Some(value) = values.first() {
        return value.as_str().into();
    }
    match column.kind {
        FieldType::Id => format!("{}-1", column.field.trim_end_matches("Id").to_lowercase()).into(),
        FieldType::String => match rule {
            Some(Rule::Vin) => "1M8GDM9AXKP042788".into(),
            Some(Rule::ModelYear) | None => format!("some {}", column.snake.replace('_', " ")).into(),
        },
        FieldType::Integer | FieldType::Number | FieldType::Money => {
            let least = above.map(|bound| bound + 1.0).or(*min);
            let usual = match (column.kind, rule) {
                (_, Some(Rule::ModelYear)) => 2021.0,
                (FieldType::Money, _) => 1_250.0,
                _ => 3.0,
            };
            let value = least.map_or(usual, |least| least.max(usual));
            json!(max.map_or(value, |max| value.min(max)) as i64)
        }
        FieldType::Boolean => true.into(),
        FieldType::Timestamp => "2026-11-02T08:00:00Z".into(),
        FieldType::Json => json!({"note": "any JSON"}),
        FieldType::StringList => json!([format!("some {}", column.snake.replace('_', " "))]),
        FieldType::JsonList => json!([{"note": "any JSON"}]),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use crate::{
        Catalogue,
        envelope::{STYLES, dress},
        examples,
        validation::parse_event,
    };

    #[test]
    fn every_event_has_an_example_that_is_valid_in_every_envelope_and_means_the_same()
    -> Result<(), Box<dyn std::error::Error>> {
        let catalogue = Catalogue::embedded()?;
        for (context, definition) in catalogue.events() {
            let example = examples::event(context, definition);
            let canonical = parse_event(&catalogue, example.to_string().as_bytes(), None)
                .map_err(|rejection| format!("{}.{}: {rejection}", context.name, definition.name))?;
            let carried: HashSet<usize> = canonical.cells.iter().map(|(column, _)| *column).collect();
            assert!(definition.fields.iter().all(|field| carried.contains(&field.column)), "{example}");
            assert_eq!(canonical.extra, None);
            for envelope in &STYLES {
                let dressed = dress(envelope.style, &catalogue, &context.name, definition, &example);
                let read = parse_event(&catalogue, dressed.to_string().as_bytes(), None);
                assert_eq!(read.as_ref(), Ok(&canonical), "{}: {dressed}", envelope.name);
            }
        }
        Ok(())
    }
}
