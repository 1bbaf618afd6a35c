use std::collections::HashSet;

use super::{Catalogue, CatalogueError};

#[test]
fn every_system_has_the_events_its_document_defines() -> Result<(), CatalogueError> {
    let catalogue = Catalogue::embedded()?;
    // What forecourt itself says, and the systems beside the marketplace.
    let others = ["alerts", "shop", "dealers", "courses", "loyalty"];
    let core: Vec<_> = catalogue.events().filter(|(context, _)| !others.contains(&context.name.as_str())).collect();
    let names: HashSet<_> = core.iter().map(|(_, event)| &event.name).collect();
    assert_eq!((catalogue.contexts().len() - others.len(), core.len(), names.len()), (14, 176, 175));
    let counted = others.map(|name| catalogue.context(name).map_or(0, |(_, context)| context.events.len()));
    assert_eq!(counted, [4, 38, 28, 19, 9]);
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
fn a_bad_file_is_refused_with_its_line_and_reason() {
    let head = "context='c'\ntitle='t'\nmeaning='m'\nretention='short'\ndelivery='batch'\n";
    let fields = "[fields]\nid={type='id',meaning='m'}\nmail={type='string',meaning='m',personal=true}\n";
    let event = |rest: &str| format!("{head}{fields}[events.E]\nmeaning='m'\naggregate='A'\n{rest}");
    for (text, line, reason) in [
        (format!("{head}[fields]\nid={{type='uuid',meaning='m'}}\n[events]\n"), 7, "unknown type \"uuid\""),
        (format!("{head}[fields]\nid={{type='id',meaning='m',size=3}}\n[events]\n"), 7, "unknown field `size`"),
        (format!("{head}[fields]\nid={{type='id'\n"), 7, ""),
        (format!("{head}[fields]\n"), 1, "no table [events]"),
        (format!("{head}[fields]\na-b={{type='id',meaning='m'}}\n[events]\n"), 7, "is no name"),
        (format!("{head}[fields]\nab={{type='id',meaning='m',min=1}}\n[events]\n"), 7, "are for integer"),
        (head.replace("'c'", "'lake'") + "[fields]\n[events]\n", 1, "schema of its own"),
        (head.replace("'c'", "'No'") + "[fields]\n[events]\n", 1, "is no name"),
        (event("key='id'\nrequired=['id',\n'nope']"), 14, "field nope is not in [fields]"),
        (event("key='id'\nrequired=['id','id']"), 13, "field id is named twice"),
        (event("key='mail'\nrequired=['id']"), 12, "key mail is not one of its fields"),
        (event("key='id'\nperson='x'\nrequired=['id']"), 13, "person x is not one of its fields"),
        (event("key='id'\nrequired=['id','mail']"), 9, "carries the personal field mail but names no person"),
        (event("version='new'"), 12, "is no version"),
        (event("version='2'\n[[events.E.versions]]\nversion='2'\nsteps=[]"), 14, "is not older than 2"),
        (event("version='2'\n[[events.E.versions]]\nversion='1'\nsteps=[{move='a'}]"), 15, "a step is one of"),
    ] {
        let error = Catalogue::parse([("c.toml", text.as_str())]).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.starts_with(&format!("c.toml:{line}: ")) && error.contains(reason), "{error}\n{text}");
    }
}
