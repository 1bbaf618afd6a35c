//! One catalogue file: its syntax, and what must hold in it.
//!
//! Faults are told with their line: catalogue files are written by hand.

use serde::{Deserialize, de::IntoDeserializer};
use serde_json::Value;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::definition::{Column, Context, Delivery, EventDefinition, EventField};
use crate::{
    columns,
    field_type::FieldType,
    limits::{Limits, LimitsProblem, Rule},
    names::snake_case,
    retention::Retention,
    versions::{OlderVersion, Step, Version},
};

/// Schemas of SQL that are not contexts.
const RESERVED: [&str; 8] =
    ["lake", "system", "current", "kpi", "information_schema", "dead_letters", "dead_letter_closings", "duplicates"];

/// When an example happens, in microseconds since 1970, UTC: 2026.
const EXAMPLE_TIME: i64 = 1_793_608_200_000_000;

/// A catalogue that cannot be used. Fix the file and start again.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("{file}:{line}: {problem}")]
    File {
        file: String,
        /// From 1.
        line: usize,
        problem: Problem,
    },
    #[error("context {context} is defined twice: again in {file}")]
    Repeated { context: String, file: String },
    #[error("{file}: alias {alias} of event {event} is another name already; choose another")]
    Alias { file: String, event: String, alias: String },
}

/// What is wrong in a catalogue file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("{0}")]
    Syntax(String),
    #[error("context {0:?} is no name: it has lower-case letters, digits and underscores, and begins with a letter")]
    ContextName(String),
    #[error("{0} is the name of a schema of its own; call the context something else")]
    ReservedContext(String),
    #[error("event {0:?} is no name: it has letters and digits and begins with an upper-case letter")]
    EventName(String),
    #[error("events {0} and {1} would be the same view")]
    SameView(String, String),
    #[error("field {0:?} is no name: it has letters, digits and underscores and begins with a letter")]
    FieldName(String),
    #[error("fields {0} and {1} would be the same column")]
    SameColumn(String, String),
    #[error("field {field}: {problem}")]
    Limits { field: String, problem: LimitsProblem },
    #[error("field {field}: its example {example} is not {expected}")]
    Example { field: String, example: String, expected: String },
    #[error("event {event}: field {field} is not in [fields]")]
    UnknownField { event: String, field: String },
    #[error("event {event}: field {field} is named twice")]
    RepeatedField { event: String, field: String },
    #[error("event {event}: key {field} is not one of its fields")]
    UnknownKey { event: String, field: String },
    #[error("event {event}: person {field} is not one of its fields")]
    UnknownPerson { event: String, field: String },
    #[error("event {event}: carries the personal field {field} but names no person")]
    NoPerson { event: String, field: String },
    #[error("event {event}: {text:?} is no version; a version is a number such as 2 or 1.1")]
    Version { event: String, text: String },
    #[error("event {event}: version {version} is not older than {current}, the version the fields describe")]
    NotOlder { event: String, version: Version, current: Version },
    #[error("event {event}: version {version} comes after a newer one; list the oldest first")]
    VersionOrder { event: String, version: Version },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldEntry {
    r#type: FieldType,
    meaning: String,
    unit: Option<String>,
    #[serde(default)]
    personal: bool,
    example: Option<Value>,
    #[serde(default)]
    values: Vec<String>,
    min: Option<f64>,
    max: Option<f64>,
    above: Option<f64>,
    rule: Option<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventEntry {
    meaning: String,
    aggregate: String,
    key: Option<Spanned<String>>,
    #[serde(default)]
    alias: Vec<String>,
    version: Option<Spanned<String>>,
    #[serde(default)]
    versions: Vec<VersionEntry>,
    retention: Option<Retention>,
    delivery: Option<Delivery>,
    #[serde(default)]
    audit: bool,
    person: Option<Spanned<String>>,
    #[serde(default)]
    required: Vec<Spanned<String>>,
    #[serde(default)]
    optional: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VersionEntry {
    version: Spanned<String>,
    steps: Vec<Step>,
}

/// The members of a file beside its fields and events.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    context: Spanned<String>,
    title: String,
    meaning: String,
    retention: Retention,
    delivery: Delivery,
}

/// A problem and where it is: a byte of the file.
struct Fault {
    at: usize,
    problem: Problem,
}

impl From<toml::de::Error> for Fault {
    fn from(error: toml::de::Error) -> Self {
        Self { at: error.span().map_or(0, |span| span.start), problem: Problem::Syntax(error.message().to_owned()) }
    }
}

/// The context a file describes.
pub(super) fn parse(file: &str, text: &str) -> Result<Context, CatalogueError> {
    read(text).map_err(|Fault { at, problem }| {
        let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        CatalogueError::File { file: file.to_owned(), line, problem }
    })
}

fn read(text: &str) -> Result<Context, Fault> {
    let mut file = DeTable::parse(text)?.into_inner();
    let fields = section(&mut file, "fields")?;
    let events = section(&mut file, "events")?;
    let rest = Spanned::new(0..0, DeValue::Table(file));
    let head = Head::deserialize(rest.into_deserializer())?;
    let (at, name) = (head.context.span().start, head.context.into_inner());
    if !is_lower_name(&name) {
        return Err(Fault { at, problem: Problem::ContextName(name) });
    }
    if RESERVED.contains(&name.as_str()) {
        return Err(Fault { at, problem: Problem::ReservedContext(name) });
    }
    let columns = read_columns(fields)?;
    let events = read_events(events, &columns, head.retention, head.delivery)?;
    let schema = columns::schema(&columns);
    Ok(Context { name, title: head.title, meaning: head.meaning, columns, events, schema })
}

fn section<'a>(file: &mut DeTable<'a>, name: &str) -> Result<DeTable<'a>, Fault> {
    match file.remove(name).map(Spanned::into_inner) {
        Some(DeValue::Table(table)) => Ok(table),
        Some(_) | None => Err(Fault { at: 0, problem: Problem::Syntax(format!("the file has no table [{name}]")) }),
    }
}

fn read_columns(fields: DeTable<'_>) -> Result<Vec<Column>, Fault> {
    let mut columns: Vec<Column> = Vec::with_capacity(fields.len());
    for (field, entry) in fields {
        let at = field.span().start;
        let field = field.into_inner().into_owned();
        if !is_field_name(&field) {
            return Err(Fault { at, problem: Problem::FieldName(field) });
        }
        let entry = FieldEntry::deserialize(entry.into_deserializer())?;
        let snake = snake_case(&field);
        let name = if columns::is_reserved(&snake) { format!("data_{snake}") } else { snake.clone() };
        if let Some(same) = columns.iter().find(|known| known.name == name) {
            return Err(Fault { at, problem: Problem::SameColumn(same.field.clone(), field) });
        }
        let FieldEntry { values, min, max, above, rule, .. } = entry;
        let limits = Limits { values, min, max, above, rule };
        if let Err(problem) = limits.check_type(entry.r#type) {
            return Err(Fault { at, problem: Problem::Limits { field, problem } });
        }
        if let Some(example) = &entry.example {
            check_example(&field, example, entry.r#type, &limits).map_err(|problem| Fault { at, problem })?;
        }
        columns.push(Column {
            field,
            snake,
            name,
            kind: entry.r#type,
            limits,
            example: entry.example,
            meaning: entry.meaning,
            unit: entry.unit,
            personal: entry.personal,
        });
    }
    Ok(columns)
}

fn check_example(field: &str, example: &Value, kind: FieldType, limits: &Limits) -> Result<(), Problem> {
    let wrong =
        |expected: String| Err(Problem::Example { field: field.to_owned(), example: example.to_string(), expected });
    match kind.cell(example) {
        None => wrong(kind.expects().to_owned()),
        Some(cell) if !limits.allow(&cell, EXAMPLE_TIME) => wrong(limits.to_string()),
        Some(_) => Ok(()),
    }
}

fn read_events(
    events: DeTable<'_>,
    columns: &[Column],
    retention: Retention,
    delivery: Delivery,
) -> Result<Vec<EventDefinition>, Fault> {
    let mut definitions: Vec<EventDefinition> = Vec::with_capacity(events.len());
    for (name, entry) in events {
        let at = name.span().start;
        let name = name.into_inner().into_owned();
        if !is_event_name(&name) {
            return Err(Fault { at, problem: Problem::EventName(name) });
        }
        let entry = EventEntry::deserialize(entry.into_deserializer())?;
        let definition = define(name, at, entry, columns, retention, delivery)?;
        if let Some(same) = definitions.iter().find(|known| known.view == definition.view) {
            return Err(Fault { at, problem: Problem::SameView(same.name.clone(), definition.name) });
        }
        definitions.push(definition);
    }
    Ok(definitions)
}

fn define(
    name: String,
    at: usize,
    entry: EventEntry,
    columns: &[Column],
    retention: Retention,
    delivery: Delivery,
) -> Result<EventDefinition, Fault> {
    let mut fields: Vec<EventField> = Vec::new();
    let required = entry.required.into_iter().map(|field| (field, true));
    let optional = entry.optional.into_iter().map(|field| (field, false));
    for (field, required) in required.chain(optional) {
        let (at, field) = (field.span().start, field.into_inner());
        let Some(column) = columns.iter().position(|column| column.field == field) else {
            return Err(Fault { at, problem: Problem::UnknownField { event: name, field } });
        };
        if fields.iter().any(|known| known.column == column) {
            return Err(Fault { at, problem: Problem::RepeatedField { event: name, field } });
        }
        fields.push(EventField { column, required });
    }
    let carries = |name: &str| fields.iter().any(|field| columns[field.column].field == name);
    if let Some(key) = entry.key.as_ref().filter(|key| !carries(key.as_ref())) {
        let problem = Problem::UnknownKey { event: name, field: key.as_ref().clone() };
        return Err(Fault { at: key.span().start, problem });
    }
    if let Some(person) = entry.person.as_ref().filter(|person| !carries(person.as_ref())) {
        let problem = Problem::UnknownPerson { event: name, field: person.as_ref().clone() };
        return Err(Fault { at: person.span().start, problem });
    }
    let personal = fields.iter().map(|field| &columns[field.column]).find(|column| column.personal);
    if let (Some(column), None) = (personal, &entry.person) {
        return Err(Fault { at, problem: Problem::NoPerson { event: name, field: column.field.clone() } });
    }
    let version = match entry.version {
        Some(text) => version(&name, &text)?,
        None => Version::default(),
    };
    let older = older_versions(&name, &version, entry.versions)?;
    Ok(EventDefinition {
        view: snake_case(&name),
        name,
        aliases: entry.alias,
        version,
        older,
        meaning: entry.meaning,
        aggregate: entry.aggregate,
        key: entry.key.map(Spanned::into_inner),
        retention: entry.retention.unwrap_or(retention),
        delivery: entry.delivery.unwrap_or(delivery),
        audit: entry.audit,
        person: entry.person.map(Spanned::into_inner),
        fields,
    })
}

fn version(event: &str, text: &Spanned<String>) -> Result<Version, Fault> {
    Version::parse(text.as_ref()).ok_or_else(|| Fault {
        at: text.span().start,
        problem: Problem::Version { event: event.to_owned(), text: text.as_ref().clone() },
    })
}

fn older_versions(event: &str, current: &Version, entries: Vec<VersionEntry>) -> Result<Vec<OlderVersion>, Fault> {
    let mut older: Vec<OlderVersion> = Vec::with_capacity(entries.len());
    for entry in entries {
        let at = entry.version.span().start;
        let version = version(event, &entry.version)?;
        let event = event.to_owned();
        if version >= *current {
            return Err(Fault { at, problem: Problem::NotOlder { event, version, current: current.clone() } });
        }
        if older.last().is_some_and(|before| before.version >= version) {
            return Err(Fault { at, problem: Problem::VersionOrder { event, version } });
        }
        older.push(OlderVersion { version, steps: entry.steps });
    }
    Ok(older)
}

fn is_lower_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn is_event_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase()) && name.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn is_field_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
