//! The data dictionary: every context, event and field, in Markdown.

use std::fmt::{self, Write};

use crate::{Catalogue, Context, EventDefinition};

/// The dictionary of a catalogue.
///
/// # Errors
/// Never: text is written to memory.
pub fn dictionary(catalogue: &Catalogue) -> Result<String, fmt::Error> {
    let mut text = String::new();
    let events = catalogue.events().count();
    writeln!(text, "# Data dictionary\n")?;
    writeln!(
        text,
        "{} contexts, {events} events. A column of SQL has the name in the second column.\n",
        catalogue.contexts().len()
    )?;
    writeln!(text, "| context | events | what it is |\n|---|---:|---|")?;
    for context in catalogue.contexts() {
        writeln!(text, "| [{0}](#{0}) | {1} | {2} |", context.name, context.events.len(), cell(&context.meaning))?;
    }
    for context in catalogue.contexts() {
        writeln!(text, "\n## {}\n\n{}", context.name, context.meaning)?;
        for definition in &context.events {
            event(&mut text, context, definition)?;
        }
    }
    Ok(text)
}

fn event(text: &mut String, context: &Context, definition: &EventDefinition) -> fmt::Result {
    let EventDefinition { name, view, version, meaning, aggregate, .. } = definition;
    writeln!(text, "\n### {}.{name}\n\n{meaning}\n", context.name)?;
    write!(text, "View `{}.{view}` · version {version} · about: {aggregate}", context.name)?;
    if let Some(key) = &definition.key {
        write!(text, ", by `{key}`")?;
    }
    write!(text, " · kept {} days · {}", definition.retention.days(), definition.delivery.as_str())?;
    if definition.audit {
        write!(text, " · for auditors")?;
    }
    if let Some(person) = &definition.person {
        write!(text, " · personal data of `{person}`")?;
    }
    if !definition.aliases.is_empty() {
        write!(text, " · also `{}`", definition.aliases.join("`, `"))?;
    }
    let older: Vec<_> = definition.older.iter().map(|older| older.version.as_str()).collect();
    if !older.is_empty() {
        write!(text, " · older versions {}", older.join(", "))?;
    }
    writeln!(text, "\n\n| field | column | type | required | meaning |\n|---|---|---|---|---|")?;
    for field in &definition.fields {
        let column = &context.columns[field.column];
        let required = if field.required { "yes" } else { "" };
        let mut meaning = cell(&column.meaning);
        let limits = column.limits.to_string();
        if !limits.is_empty() {
            write!(meaning, " Is {}.", cell(&limits))?;
        }
        if column.personal {
            meaning.push_str(" Personal.");
        }
        let unit = column.unit.as_ref().map(|unit| format!(", {unit}")).unwrap_or_default();
        writeln!(
            text,
            "| `{}` | `{}` | {}{} | {required} | {meaning} |",
            column.field,
            column.name,
            cell(&column.kind.to_string()),
            cell(&unit)
        )?;
    }
    Ok(())
}

/// Text that does not end a table's cell, nor begins an element.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace('\n', " ")
}
