//! The envelopes events come in, declared: where each keeps what the canonical one says.
//!
//! | style | told by | made by |
//! |---|---|---|
//! | canonical | `eventId` | Forecourt's own producers |
//! | snake case | `event_id` | the course platform |
//! | business | `businessId`, `metadata` or `version` beside `eventId` | the loyalty programme |
//! | [CloudEvents] 1.0 | `specversion` | whoever follows the standard |
//!
//! An envelope's members are found by its row alone: a further style is a further row of [`STYLES`].
//!
//! [CloudEvents]: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

use crate::{Catalogue, Rejection, RejectionCode, catalogue::EventDefinition, rejection::quoted};

/// What an envelope says of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    Id,
    Type,
    Version,
    Time,
    AggregateType,
    AggregateId,
    Tenant,
    Correlation,
    Causation,
    Source,
    Data,
}

/// A style of envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Canonical,
    SnakeCase,
    Business,
    CloudEvents,
}

/// How a style spells the type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TypeName {
    /// `VehicleSold`.
    Bare,
    /// `loyalty.points.earned` where the catalogue has such a name, else as `Bare`.
    Alias,
    /// `inventory.VehicleSold`, and read with any prefix, such as `com.example.inventory.VehicleSold`.
    Qualified,
}

/// Where a style keeps what.
#[derive(Debug)]
pub struct Envelope {
    pub style: Style,
    pub name: &'static str,
    /// A message with one of these members has this style.
    told_by: &'static [&'static str],
    /// Unless it has one of these.
    unless: &'static [&'static str],
    /// Each member by the first of its names that is there. `a.b` is member `b` of the object `a`.
    members: [(Member, &'static [&'static str]); 11],
    /// Members that say nothing of the event itself.
    formal: &'static [&'static str],
    type_name: TypeName,
    /// Whether payload fields are spelled `vehicle_id` rather than `vehicleId`.
    snake_fields: bool,
}

/// What stands for "no source" where a style requires one.
const NO_SOURCE: &str = "/";

/// Every style, the most telling first.
pub static STYLES: [Envelope; 4] = [
    Envelope {
        style: Style::CloudEvents,
        name: "cloudevents",
        told_by: &["specversion"],
        unless: &[],
        members: [
            (Member::Id, &["id"]),
            (Member::Type, &["type"]),
            (Member::Version, &["eventversion"]),
            (Member::Time, &["time"]),
            (Member::AggregateType, &["aggregatetype"]),
            (Member::AggregateId, &["subject"]),
            (Member::Tenant, &["tenantid"]),
            (Member::Correlation, &["correlationid"]),
            (Member::Causation, &["causationid"]),
            (Member::Source, &["source"]),
            (Member::Data, &["data"]),
        ],
        formal: &["specversion", "datacontenttype"],
        type_name: TypeName::Qualified,
        snake_fields: false,
    },
    Envelope {
        style: Style::SnakeCase,
        name: "snake_case",
        told_by: &["event_id"],
        unless: &["eventId"],
        members: [
            (Member::Id, &["event_id"]),
            (Member::Type, &["event_type", "event_name"]),
            (Member::Version, &["event_version", "version"]),
            (Member::Time, &["occurred_on", "occurred_at", "timestamp"]),
            (Member::AggregateType, &["aggregate_type"]),
            (Member::AggregateId, &["aggregate_id"]),
            (Member::Tenant, &["tenant_id"]),
            (Member::Correlation, &["correlation_id"]),
            (Member::Causation, &["causation_id"]),
            (Member::Source, &["source"]),
            (Member::Data, &["payload", "data"]),
        ],
        formal: &[],
        type_name: TypeName::Bare,
        snake_fields: true,
    },
    Envelope {
        style: Style::Business,
        name: "business",
        told_by: &["businessId", "metadata", "version"],
        unless: &["eventVersion", "tenantId"],
        members: [
            (Member::Id, &["eventId"]),
            (Member::Type, &["eventType"]),
            (Member::Version, &["version"]),
            (Member::Time, &["timestamp"]),
            (Member::AggregateType, &["aggregateType"]),
            (Member::AggregateId, &["aggregateId"]),
            (Member::Tenant, &["businessId"]),
            (Member::Correlation, &["metadata.correlationId", "correlationId"]),
            (Member::Causation, &["metadata.causationId", "causationId"]),
            (Member::Source, &["metadata.source", "source"]),
            (Member::Data, &["data"]),
        ],
        formal: &[],
        type_name: TypeName::Alias,
        snake_fields: false,
    },
    Envelope {
        style: Style::Canonical,
        name: "canonical",
        told_by: &[],
        unless: &[],
        members: [
            (Member::Id, &["eventId"]),
            (Member::Type, &["eventType"]),
            (Member::Version, &["eventVersion"]),
            (Member::Time, &["timestamp"]),
            (Member::AggregateType, &["aggregateType"]),
            (Member::AggregateId, &["aggregateId"]),
            (Member::Tenant, &["tenantId"]),
            (Member::Correlation, &["correlationId"]),
            (Member::Causation, &["causationId"]),
            (Member::Source, &["source"]),
            (Member::Data, &["data"]),
        ],
        formal: &[],
        type_name: TypeName::Bare,
        snake_fields: false,
    },
];

impl Envelope {
    /// The envelope of a message.
    #[must_use]
    pub fn of(message: &Map<String, Value>) -> &'static Self {
        let [others @ .., canonical] = &STYLES;
        let has = |names: &[&str]| names.iter().any(|name| message.contains_key(*name));
        others.iter().find(|envelope| has(envelope.told_by) && !has(envelope.unless)).unwrap_or(canonical)
    }

    /// The envelope of a style.
    #[must_use]
    pub fn of_style(style: Style) -> &'static Self {
        let [others @ .., canonical] = &STYLES;
        others.iter().find(|envelope| envelope.style == style).unwrap_or(canonical)
    }

    /// A member's names in this style, the usual one first.
    fn names(&self, member: Member) -> &'static [&'static str] {
        self.members.iter().find(|(known, _)| *known == member).map_or(&[], |(_, names)| *names)
    }

    /// A member's usual name in this style: what a message about it says.
    #[must_use]
    pub fn name_of(&self, member: Member) -> &'static str {
        self.names(member).first().copied().unwrap_or_default()
    }

    /// Take a member out of a message: the name it had, and its value. `null` is no value.
    pub(crate) fn take(&self, message: &mut Map<String, Value>, member: Member) -> Option<(&'static str, Value)> {
        let taken = self.names(member).iter().find_map(|name| Some((*name, take_path(message, name)?)));
        taken.filter(|(_, value)| !(member == Member::Source && self.no_source(value)))
    }

    fn no_source(&self, value: &Value) -> bool {
        self.style == Style::CloudEvents && value == NO_SOURCE
    }

    /// Remove what is a matter of form alone, and read a payload that came as text.
    ///
    /// # Errors
    /// When the message breaks its style's rules.
    pub(crate) fn strip(&self, message: &mut Map<String, Value>) -> Result<(), Rejection> {
        if self.style == Style::CloudEvents {
            check_cloud_event(message)?;
        }
        for name in self.formal {
            message.remove(*name);
        }
        Ok(())
    }

    /// The names an event type may be known by, the most telling first.
    pub(crate) fn type_names<'a>(&self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let prefixed = self.type_name == TypeName::Qualified;
        let last_two = name.rmatch_indices('.').nth(1).map(|(at, _)| &name[at + 1..]);
        let last = name.rsplit_once('.').map(|(_, last)| last);
        let shorter = [last_two, last].into_iter().flatten().filter(move |_| prefixed);
        [name].into_iter().chain(shorter).flat_map(|name| [Some(name), name.strip_suffix("Event")]).flatten()
    }

    /// Spell payload fields as the catalogue does, where this style spells them otherwise.
    pub(crate) fn canonical_fields<'a>(
        &self,
        data: &mut Map<String, Value>,
        fields: impl Iterator<Item = (&'a str, &'a str)>,
    ) {
        if !self.snake_fields {
            return;
        }
        for (field, snake) in fields.filter(|(field, snake)| field != snake) {
            // Where both are there, the other stays, as something unknown.
            if data.get(field).is_none_or(Value::is_null)
                && let Some(value) = data.remove(snake)
            {
                data.insert(field.to_owned(), value);
            }
        }
    }
}

fn take_path(object: &mut Map<String, Value>, path: &str) -> Option<Value> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let Some(rest) = rest else { return object.remove(first).filter(|value| !value.is_null()) };
    let Some(Value::Object(inner)) = object.get_mut(first) else { return None };
    let taken = take_path(inner, rest);
    if inner.is_empty() {
        object.remove(first);
    }
    taken
}

fn check_cloud_event(message: &mut Map<String, Value>) -> Result<(), Rejection> {
    let invalid = |field: &str, text: String| Rejection::at(RejectionCode::InvalidValue, field, text);
    let version = message.get("specversion").and_then(Value::as_str).unwrap_or_default();
    if version != "1.0" {
        return Err(invalid("specversion", format!("specversion is \"1.0\", not {}", quoted(version))));
    }
    if let Some(kind) = message.get("datacontenttype").and_then(Value::as_str)
        && !is_json(kind)
    {
        return Err(invalid("datacontenttype", format!("data is application/json, not {}", quoted(kind))));
    }
    if let Some(encoded) = message.remove("data_base64") {
        let decoded = encoded.as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
        let data = decoded.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let data = data.ok_or_else(|| invalid("data_base64", "data_base64 is JSON in Base64".to_owned()))?;
        message.insert("data".to_owned(), data);
    }
    Ok(())
}

/// Whether a media type is JSON: `application/json`, `text/json` or `application/…+json`.
#[must_use]
pub fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}

/// The prefix of a header that carries an attribute in CloudEvents' binary mode.
pub const BINARY_PREFIX: &str = "ce-";

/// A CloudEvent in binary mode, attributes in headers and payload in the body, as one in structured mode.
///
/// `headers` are names, in lower case, with their values. `None` when they hold no `ce-specversion`: it is none.
///
/// # Errors
/// When the body is not JSON.
pub fn structured<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    body: &[u8],
) -> Option<Result<Vec<u8>, Rejection>> {
    let mut attributes = Map::new();
    for (name, value) in headers {
        if let Some(attribute) = name.strip_prefix(BINARY_PREFIX) {
            attributes.insert(attribute.to_owned(), percent_decoded(value).into());
        } else if name == "content-type" {
            attributes.insert("datacontenttype".to_owned(), value.into());
        }
    }
    attributes.contains_key("specversion").then(|| {
        let event_id = attributes.get("id").and_then(Value::as_str).map(str::to_owned);
        let data: Value = serde_json::from_slice(body).map_err(|error| Rejection {
            event_id,
            ..Rejection::new(RejectionCode::InvalidJson, format!("the body is not JSON: {error}"))
        })?;
        attributes.insert("data".to_owned(), data);
        Ok(Value::Object(attributes).to_string().into_bytes())
    })
}

/// `Euro%20%E2%82%AC` → `Euro €`, as CloudEvents' HTTP binding encodes header values.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        let digits = others.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match digits.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[2..];
            }
            None => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A canonical event in another style: the inverse of reading it.
///
/// `definition` is the event's, in the context of that name.
#[must_use]
pub fn dress(style: Style, catalogue: &Catalogue, context: &str, definition: &EventDefinition, event: &Value) -> Value {
    let (canonical, envelope) = (Envelope::of_style(Style::Canonical), Envelope::of_style(style));
    let Value::Object(mut rest) = event.clone() else { return event.clone() };
    let mut dressed = Map::new();
    for (member, _) in &canonical.members {
        let Some((_, mut value)) = canonical.take(&mut rest, *member) else { continue };
        match (member, &mut value) {
            (Member::Type, value) => *value = envelope.spell_type(catalogue, context, definition).into(),
            (Member::Data, Value::Object(data)) if envelope.snake_fields => {
                let columns = catalogue.context(context).map_or(&[][..], |(_, context)| &context.columns);
                for column in definition.fields.iter().filter_map(|field| columns.get(field.column)) {
                    if let Some(value) = data.remove(&column.field) {
                        data.insert(column.snake.clone(), value);
                    }
                }
            }
            _ => {}
        }
        put_path(&mut dressed, envelope.name_of(*member), value);
    }
    if style == Style::CloudEvents {
        dressed.insert("specversion".to_owned(), json!("1.0"));
        dressed.insert("datacontenttype".to_owned(), json!("application/json"));
        dressed.entry("source").or_insert_with(|| json!(NO_SOURCE));
    }
    if style == Style::Business {
        // What tells the style: without it the event would be a canonical one, which means the same.
        dressed.entry("metadata").or_insert_with(|| json!({}));
    }
    dressed.extend(rest);
    Value::Object(dressed)
}

impl Envelope {
    fn spell_type(&self, catalogue: &Catalogue, context: &str, definition: &EventDefinition) -> String {
        let shared = catalogue.candidates(&definition.name).len() > 1;
        match (self.type_name, definition.aliases.first()) {
            (TypeName::Alias, Some(alias)) => alias.clone(),
            (TypeName::Bare | TypeName::Alias, _) if !shared => definition.name.clone(),
            (TypeName::Bare | TypeName::Alias | TypeName::Qualified, _) => format!("{context}.{}", definition.name),
        }
    }

    /// A payload field as this style spells it.
    pub(crate) const fn spelling<'a>(&self, field: &'a str, snake: &'a str) -> &'a str {
        if self.snake_fields { snake } else { field }
    }
}

fn put_path(object: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            object.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = object.entry(first).or_insert_with(|| json!({}));
            if let Value::Object(inner) = inner {
                put_path(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
