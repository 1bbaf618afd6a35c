//! `forecourt catalogue`: what events there are.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context, bail};
use schemas::{
    Catalogue, Context as EventContext, EventDefinition, compatibility,
    envelope::{Envelope, STYLES, dress},
    examples,
    export::{asyncapi, json_schema, markdown, summary},
};
use serde_json::{Value, json};

use crate::{
    arguments::{CatalogueAction, CatalogueCommand, ExportForm},
    catalogue_files, output_error, tables,
};

pub(crate) fn run(arguments: &CatalogueCommand) -> anyhow::Result<ExitCode> {
    let catalogue = catalogue_files::load(arguments.catalogue.as_deref())?;
    match &arguments.action {
        CatalogueAction::List { context, json } => list(&catalogue, context.as_deref(), *json)?,
        CatalogueAction::Show { name, envelope, json } => show(&catalogue, name, envelope.as_deref(), *json)?,
        CatalogueAction::Check { against } => {
            return check(&catalogue, against.as_deref());
        }
        CatalogueAction::Export { form, output } => export(&catalogue, *form, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Print to standard output; a reader that has seen enough is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{text}").map_err(output_error)
}

fn pretty(value: &Value) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)?)
}

fn list(catalogue: &Catalogue, context: Option<&str>, as_json: bool) -> anyhow::Result<()> {
    if let Some(name) = context.filter(|name| catalogue.context(name).is_none()) {
        let known: Vec<_> = catalogue.contexts().iter().map(|context| context.name.as_str()).collect();
        bail!("there is no context {name:?}; there are {}", known.join(", "));
    }
    let chosen = |name: &str| context.is_none_or(|context| context == name);
    if as_json {
        let mut listed = summary::list(catalogue);
        if let Some(contexts) = listed["contexts"].as_array_mut() {
            contexts.retain(|it| it["name"].as_str().is_some_and(chosen));
        }
        return print(&pretty(&listed)?);
    }
    let mut table = tables::fitted(["event", "version", "kept", "delivery", "what happened"]);
    let events = catalogue.events().filter(|(context, _)| chosen(&context.name));
    let mut count = 0;
    for (context, event) in events {
        count += 1;
        table.add_row([
            format!("{}.{}", context.name, event.name),
            event.version.to_string(),
            event.retention.as_str().to_owned(),
            event.delivery.as_str().to_owned(),
            event.meaning.clone(),
        ]);
    }
    print(&format!("{table}\n{count} events. forecourt catalogue show NAME tells more of one."))
}

/// The event of a name, or who else has it.
fn find<'a>(catalogue: &'a Catalogue, name: &str) -> anyhow::Result<(&'a EventContext, &'a EventDefinition)> {
    match catalogue.candidates(name) {
        [] => bail!("there is no event {name:?}{}", closest(catalogue, name)),
        [only] => Ok((catalogue.context_at(only.context), catalogue.event_at(*only))),
        several => {
            let names: Vec<_> = several.iter().map(|index| catalogue.qualified_name(*index)).collect();
            bail!("{name:?} is the name of several events; say one of {}", names.join(", "))
        }
    }
}

/// Names that hold the one asked for, whatever their case.
fn closest(catalogue: &Catalogue, name: &str) -> String {
    const SHOWN: usize = 5;
    let wanted = name.to_lowercase().replace('_', "");
    let names = catalogue.events().map(|(context, event)| format!("{}.{}", context.name, event.name));
    let near: Vec<_> = names.filter(|known| known.to_lowercase().contains(&wanted)).take(SHOWN).collect();
    if near.is_empty() {
        "; forecourt catalogue list shows all".to_owned()
    } else {
        format!("; did you mean {}?", near.join(", "))
    }
}

fn show(catalogue: &Catalogue, name: &str, envelope: Option<&str>, as_json: bool) -> anyhow::Result<()> {
    let (context, definition) = find(catalogue, name)?;
    let example = examples::event(context, definition);
    if let Some(wanted) = envelope {
        let Some(Envelope { style, .. }) = STYLES.iter().find(|envelope| envelope.name == wanted) else {
            let known: Vec<_> = STYLES.iter().map(|envelope| envelope.name).collect();
            bail!("there is no envelope {wanted:?}; there are {}", known.join(", "));
        };
        return print(&pretty(&dress(*style, catalogue, &context.name, definition, &example))?);
    }
    if as_json {
        return print(&pretty(&summary::event(catalogue, context, definition))?);
    }
    let mut table = tables::fitted(["field", "column", "type", "", "meaning"]);
    for field in &definition.fields {
        let column = &context.columns[field.column];
        let limits = column.limits.to_string();
        let limits = if limits.is_empty() { limits } else { format!(" Is {limits}.") };
        let unit = column.unit.as_ref().map(|unit| format!(" ({unit})")).unwrap_or_default();
        table.add_row([
            column.field.clone(),
            column.name.clone(),
            format!("{}{unit}", column.kind),
            if field.required { "required" } else { "" }.to_owned(),
            format!("{}{limits}", column.meaning),
        ]);
    }
    let older: Vec<_> = definition.older.iter().map(|older| older.version.as_str()).collect();
    let older = if older.is_empty() { String::new() } else { format!(" (older: {})", older.join(", ")) };
    let person = definition.person.as_ref().map(|person| format!(", personal data of {person}")).unwrap_or_default();
    print(&format!(
        "{}.{} version {}{older}\n{}\nview {}.{}, about: {}, kept {} days{person}\n{table}\n\nexample:\n{}",
        context.name,
        definition.name,
        definition.version,
        definition.meaning,
        context.name,
        definition.view,
        definition.aggregate,
        definition.retention.days(),
        pretty(&example)?
    ))
}

fn check(catalogue: &Catalogue, against: Option<&Path>) -> anyhow::Result<ExitCode> {
    let events = catalogue.events().count();
    println!("{} contexts, {events} events: valid", catalogue.contexts().len());
    let Some(folder) = against else { return Ok(ExitCode::SUCCESS) };
    let earlier = catalogue_files::load_alone(folder)?;
    let breaking = compatibility::breaking(&earlier, catalogue);
    for change in &breaking {
        println!("breaking: {change}");
    }
    match breaking.len() {
        0 => {
            println!("every event of {} is still taken", folder.display());
            Ok(ExitCode::SUCCESS)
        }
        _ => Ok(ExitCode::FAILURE),
    }
}

fn export(catalogue: &Catalogue, form: ExportForm, output: &Path) -> anyhow::Result<()> {
    let to_stdout = output == Path::new("-");
    let text = match form {
        ExportForm::JsonSchema if !to_stdout => return export_schemas(catalogue, output),
        ExportForm::JsonSchema => pretty(&all_schemas(catalogue))?,
        ExportForm::Asyncapi => pretty(&asyncapi::document(catalogue))?,
        ExportForm::Markdown => markdown::dictionary(catalogue)?,
    };
    if to_stdout {
        return print(text.trim_end());
    }
    fs::write(output, text).with_context(|| format!("cannot write {}", output.display()))?;
    println!("wrote {}", output.display());
    Ok(())
}

/// Every schema by its file's name: one document on standard output.
fn all_schemas(catalogue: &Catalogue) -> Value {
    let schemas = catalogue.events().flat_map(|(context, definition)| {
        let versions = json_schema::of_event(context, definition).into_iter();
        versions.map(|it| (json_schema::file_name(context, definition, &it.version), it.schema))
    });
    json!(schemas.collect::<serde_json::Map<_, _>>())
}

fn export_schemas(catalogue: &Catalogue, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot use the folder {}", folder.display()))?;
    let mut files = 0;
    for (context, definition) in catalogue.events() {
        for version in json_schema::of_event(context, definition) {
            let path = folder.join(json_schema::file_name(context, definition, &version.version));
            let text = pretty(&version.schema)?;
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            files += 1;
        }
    }
    println!("wrote {files} files to {}", folder.display());
    Ok(())
}
