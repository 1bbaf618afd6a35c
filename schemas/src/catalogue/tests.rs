use std::collections::HashSet;

use super::{Catalogue, CatalogueError};

#[test]
fn the_core_has_14_contexts_176_definitions_and_175_names() -> Result<(), CatalogueError> {
    let catalogue = Catalogue::embedded()?;
    let events: Vec<_> = catalogue.contexts().iter().flat_map(|context| &context.events).collect();
    let names: HashSet<_> = events.iter().map(|event| &event.name).collect();
    assert_eq!((catalogue.contexts().len(), events.len(), names.len()), (14, 176, 175));
    Ok(())
}

#[test]
fn financing_approved_has_two_shapes() -> Result<(), CatalogueError> {
    let catalogue = Catalogue::embedded()?;
    let shapes: Vec<_> = catalogue
        .candidates("FinancingApproved")
        .iter()
        .map(|&index| {
            let context = catalogue.context_at(index.context);
            let fields = catalogue.event_at(index).fields.iter();
            let required = fields.filter(|f| f.required).map(|f| context.columns[f.column].field.as_str());
            (context.name.as_str(), required.collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(
        shapes,
        [
            ("purchase", vec!["financingApplicationId", "approvedAmount"]),
            ("financing", vec!["applicationId", "approvedAmount"]),
        ]
    );
    Ok(())
}

#[test]
fn every_definition_is_complete_and_every_field_is_used() -> Result<(), CatalogueError> {
    let catalogue = Catalogue::embedded()?;
    for context in catalogue.contexts() {
        let mut used = HashSet::new();
        for event in &context.events {
            assert!(!event.fields.is_empty(), "{}.{} has no fields", context.name, event.name);
            assert!(event.meaning.ends_with('.'), "{}.{}: {}", context.name, event.name, event.meaning);
            used.extend(event.fields.iter().map(|field| field.column));
        }
        for (index, column) in context.columns.iter().enumerate() {
            assert!(used.contains(&index), "{}: no event carries {}", context.name, column.field);
            assert!(column.meaning.ends_with('.'), "{}.{}: {}", context.name, column.field, column.meaning);
        }
    }
    Ok(())
}

#[test]
fn a_bad_file_is_refused_with_its_name_and_reason() {
    let head = "context='c'\ntitle='t'\nmeaning='m'\nretention='short'\ndelivery='batch'\n";
    let fields = "[fields]\nid={type='id',meaning='m'}\nmail={type='string',meaning='m',personal=true}\n";
    let event = |rest: &str| format!("{head}{fields}[events.E]\nmeaning='m'\naggregate='A'\n{rest}");
    for (text, reason) in [
        (format!("{head}[fields]\nid={{type='uuid',meaning='m'}}\n[events]\n"), "not a catalogue file"),
        (event("key='id'\nrequired=['id','nope']"), "field nope is not in [fields]"),
        (event("key='id'\nrequired=['id','id']"), "field id is named twice"),
        (event("key='mail'\nrequired=['id']"), "key mail is not one of its fields"),
        (event("key='id'\nperson='x'\nrequired=['id']"), "person x is not one of its fields"),
        (event("key='id'\nrequired=['id','mail']"), "carries the personal field mail but names no person"),
    ] {
        let error = Catalogue::parse([("c.toml", text.as_str())]).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.starts_with("c.toml: ") && error.ends_with(reason), "{error}");
    }
}
