//! The catalogue: every context, event and field, as data.
//!
//! A context is one TOML file. Its `[fields]` table defines each payload name once, so a name has one type and
//! one meaning in a context and one column in its table; its `[events.Name]` tables say which of them an event
//! carries. [`Catalogue::embedded`] reads the files compiled into the program.

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::SchemaRef;
use serde::Deserialize;

use crate::{columns, field_type::FieldType, names::snake_case};

/// The files compiled into the program, in the order of the marketplace's process.
const EMBEDDED: [(&str, &str); 14] = [
    ("acquisition.toml", include_str!("../catalogue/acquisition.toml")),
    ("production.toml", include_str!("../catalogue/production.toml")),
    ("inventory.toml", include_str!("../catalogue/inventory.toml")),
    ("browsing.toml", include_str!("../catalogue/browsing.toml")),
    ("purchase.toml", include_str!("../catalogue/purchase.toml")),
    ("delivery.toml", include_str!("../catalogue/delivery.toml")),
    ("trial.toml", include_str!("../catalogue/trial.toml")),
    ("trade_in.toml", include_str!("../catalogue/trade_in.toml")),
    ("financing.toml", include_str!("../catalogue/financing.toml")),
    ("accounts.toml", include_str!("../catalogue/accounts.toml")),
    ("warranty.toml", include_str!("../catalogue/warranty.toml")),
    ("support.toml", include_str!("../catalogue/support.toml")),
    ("marketing.toml", include_str!("../catalogue/marketing.toml")),
    ("analytics.toml", include_str!("../catalogue/analytics.toml")),
];

/// How long an event is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retention {
    /// 30 days.
    Short,
    /// 2 years.
    Medium,
    /// 7 years.
    Long,
}

/// How soon consumers want an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    RealTime,
    Batch,
}

/// A context's place in the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContextIndex(usize);

impl ContextIndex {
    #[must_use]
    pub const fn get(self) -> usize {
        self.0
    }
}

/// An event's place in the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventIndex {
    pub context: ContextIndex,
    event: usize,
}

/// A payload field of a context, and its column.
#[derive(Clone, Debug)]
pub struct Column {
    /// As events spell it: `vehicleId`.
    pub field: String,
    /// As the lake spells it: `vehicle_id`. A name that the envelope already uses is prefixed with `data_`.
    pub name: String,
    pub kind: FieldType,
    pub meaning: String,
    pub unit: Option<String>,
    /// Whether it is personal data of the event's `person`.
    pub personal: bool,
}

/// A field as one event carries it.
#[derive(Clone, Copy, Debug)]
pub struct EventField {
    /// Index into [`Context::columns`].
    pub column: usize,
    pub required: bool,
}

/// One kind of event.
#[derive(Clone, Debug)]
pub struct EventDefinition {
    pub name: String,
    /// The SQL view: the name in snake_case.
    pub view: String,
    pub version: String,
    pub meaning: String,
    /// The aggregate's type, such as `Vehicle`.
    pub aggregate: String,
    /// The field that holds the aggregate's id.
    pub key: String,
    pub retention: Retention,
    pub delivery: Delivery,
    /// Whether auditors need it.
    pub audit: bool,
    /// The field that identifies whom the personal data is about.
    pub person: Option<String>,
    /// Required fields first, each in the file's order.
    pub fields: Vec<EventField>,
}

/// A bounded context: one table of the lake, one schema of SQL.
#[derive(Clone, Debug)]
pub struct Context {
    pub name: String,
    pub title: String,
    pub meaning: String,
    pub columns: Vec<Column>,
    pub events: Vec<EventDefinition>,
    /// Envelope, then payload columns, then `extra`.
    pub schema: SchemaRef,
}

impl Context {
    /// Whether every event of the context is kept only for the short class.
    #[must_use]
    pub fn is_short_lived(&self) -> bool {
        self.events.iter().all(|event| event.retention == Retention::Short)
    }

    #[must_use]
    pub fn event(&self, name: &str) -> Option<&EventDefinition> {
        self.events.iter().find(|event| event.name == name)
    }
}

/// Every context.
#[derive(Clone, Debug)]
pub struct Catalogue {
    contexts: Vec<Context>,
    by_name: HashMap<String, Vec<EventIndex>>,
}

/// A catalogue file that cannot be used. Fix the file and start again.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("{file}: not a catalogue file")]
    Syntax {
        file: String,
        #[source]
        source: Box<toml::de::Error>,
    },
    #[error("{file}: event {event}: {problem}")]
    Event { file: String, event: String, problem: Problem },
    #[error("context {context} is defined twice: again in {file}")]
    Repeated { context: String, file: String },
}

/// What is wrong with an event's definition.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("field {0} is not in [fields]")]
    UnknownField(String),
    #[error("field {0} is named twice")]
    RepeatedField(String),
    #[error("key {0} is not one of its fields")]
    UnknownKey(String),
    #[error("person {0} is not one of its fields")]
    UnknownPerson(String),
    #[error("carries the personal field {0} but names no person")]
    NoPerson(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ContextFile {
    context: String,
    title: String,
    meaning: String,
    retention: Retention,
    delivery: Delivery,
    fields: toml::map::Map<String, toml::Value>,
    events: toml::map::Map<String, toml::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldEntry {
    r#type: FieldType,
    meaning: String,
    unit: Option<String>,
    #[serde(default)]
    personal: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventEntry {
    meaning: String,
    aggregate: String,
    key: String,
    version: Option<String>,
    retention: Option<Retention>,
    delivery: Option<Delivery>,
    #[serde(default)]
    audit: bool,
    person: Option<String>,
    #[serde(default)]
    required: Vec<String>,
    #[serde(default)]
    optional: Vec<String>,
}

impl Catalogue {
    /// The catalogue compiled into the program.
    ///
    /// # Errors
    /// When an embedded file is not valid; a test keeps this from happening.
    pub fn embedded() -> Result<Arc<Self>, CatalogueError> {
        Self::parse(EMBEDDED).map(Arc::new)
    }

    /// A catalogue of `(file name, text)` pairs.
    ///
    /// # Errors
    /// With the file and what is wrong in it.
    pub fn parse<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, CatalogueError> {
        let mut catalogue = Self { contexts: Vec::new(), by_name: HashMap::new() };
        for (file, text) in files {
            let context = parse_context(file, text)?;
            if catalogue.context(&context.name).is_some() {
                return Err(CatalogueError::Repeated { context: context.name, file: file.to_owned() });
            }
            let index = ContextIndex(catalogue.contexts.len());
            for (event, definition) in context.events.iter().enumerate() {
                let place = EventIndex { context: index, event };
                let qualified = format!("{}.{}", context.name, definition.name);
                catalogue.by_name.entry(definition.name.clone()).or_default().push(place);
                catalogue.by_name.entry(qualified).or_default().push(place);
            }
            catalogue.contexts.push(context);
        }
        Ok(catalogue)
    }

    #[must_use]
    pub fn contexts(&self) -> &[Context] {
        &self.contexts
    }

    /// Each context with its index.
    pub fn indexed(&self) -> impl Iterator<Item = (ContextIndex, &Context)> {
        self.contexts.iter().enumerate().map(|(i, context)| (ContextIndex(i), context))
    }

    #[must_use]
    pub fn context(&self, name: &str) -> Option<(ContextIndex, &Context)> {
        self.indexed().find(|(_, context)| context.name == name)
    }

    /// The context at an index this catalogue gave out.
    #[must_use]
    pub fn context_at(&self, index: ContextIndex) -> &Context {
        &self.contexts[index.0]
    }

    /// The event at an index this catalogue gave out.
    #[must_use]
    pub fn event_at(&self, index: EventIndex) -> &EventDefinition {
        &self.contexts[index.context.0].events[index.event]
    }

    /// Every event that a bare or `context.Name` name may mean.
    #[must_use]
    pub fn candidates(&self, name: &str) -> &[EventIndex] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }
}

fn parse_context(file: &str, text: &str) -> Result<Context, CatalogueError> {
    let syntax = |source| CatalogueError::Syntax { file: file.to_owned(), source: Box::new(source) };
    let parsed: ContextFile = toml::from_str(text).map_err(syntax)?;
    let mut columns = Vec::with_capacity(parsed.fields.len());
    for (field, entry) in parsed.fields {
        let entry: FieldEntry = entry.try_into().map_err(syntax)?;
        columns.push(Column {
            name: column_name(&field),
            field,
            kind: entry.r#type,
            meaning: entry.meaning,
            unit: entry.unit,
            personal: entry.personal,
        });
    }
    let mut events = Vec::with_capacity(parsed.events.len());
    for (name, entry) in parsed.events {
        let entry: EventEntry = entry.try_into().map_err(syntax)?;
        let event = define(&name, entry, &columns, parsed.retention, parsed.delivery)
            .map_err(|problem| CatalogueError::Event { file: file.to_owned(), event: name, problem })?;
        events.push(event);
    }
    let schema = columns::schema(&columns);
    Ok(Context { name: parsed.context, title: parsed.title, meaning: parsed.meaning, columns, events, schema })
}

fn define(
    name: &str,
    entry: EventEntry,
    columns: &[Column],
    retention: Retention,
    delivery: Delivery,
) -> Result<EventDefinition, Problem> {
    let mut fields: Vec<EventField> = Vec::new();
    let named =
        entry.required.iter().map(|field| (field, true)).chain(entry.optional.iter().map(|field| (field, false)));
    for (field, required) in named {
        let column = columns.iter().position(|column| column.field == *field);
        let column = column.ok_or_else(|| Problem::UnknownField(field.clone()))?;
        if fields.iter().any(|known| known.column == column) {
            return Err(Problem::RepeatedField(field.clone()));
        }
        fields.push(EventField { column, required });
    }
    let carries = |name: &str| fields.iter().any(|field| columns[field.column].field == name);
    if !carries(&entry.key) {
        return Err(Problem::UnknownKey(entry.key));
    }
    if let Some(person) = entry.person.as_ref().filter(|person| !carries(person)) {
        return Err(Problem::UnknownPerson(person.clone()));
    }
    let personal = fields.iter().map(|field| &columns[field.column]).find(|column| column.personal);
    if let (Some(column), None) = (personal, &entry.person) {
        return Err(Problem::NoPerson(column.field.clone()));
    }
    Ok(EventDefinition {
        name: name.to_owned(),
        view: snake_case(name),
        version: entry.version.unwrap_or_else(|| "1.0".to_owned()),
        meaning: entry.meaning,
        aggregate: entry.aggregate,
        key: entry.key,
        retention: entry.retention.unwrap_or(retention),
        delivery: entry.delivery.unwrap_or(delivery),
        audit: entry.audit,
        person: entry.person,
        fields,
    })
}

fn column_name(field: &str) -> String {
    let name = snake_case(field);
    if columns::is_reserved(&name) { format!("data_{name}") } else { name }
}

#[cfg(test)]
mod tests;
