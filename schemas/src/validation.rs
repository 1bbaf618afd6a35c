//! From the bytes of a message to a typed event, or the reason why not.

use serde_json::{Map, Value};

use crate::{
    Catalogue, EventDefinition, EventId, EventIndex,
    envelope::{Envelope, Member},
    field_type::{Cell, format_timestamp, parse_timestamp},
    limits::Doubt,
    names::snake_case,
    rejection::{MAX_EVENT_BYTES, Rejection, RejectionCode, describe, quoted},
    time::MICROS_PER_DAY,
    versions::{self, Version},
};

/// A valid event, typed and ready for its columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub kind: EventIndex,
    pub id: EventId,
    pub version: String,
    /// Microseconds since 1970, UTC.
    pub time: i64,
    pub tenant_id: String,
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
    pub source: Option<String>,
    /// Index into the context's columns, with the value.
    pub cells: Vec<(usize, Cell)>,
    /// What the catalogue does not know, as JSON text: members of `data`, and under `$envelope` those beside it.
    pub extra: Option<String>,
}

/// The tenant of an event that names none.
const DEFAULT_TENANT: &str = "main";

/// Under this name `extra` keeps envelope members the catalogue does not know.
const UNKNOWN_ENVELOPE: &str = "$envelope";

/// What may be wrong with an event that is taken nevertheless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub code: &'static str,
    pub field: String,
    pub message: String,
}

/// Read and check one event, in any of the [envelopes](crate::envelope).
///
/// `context` is the context a message's subject names; it decides what a bare name shared by contexts means.
///
/// # Errors
/// The first thing found wrong.
pub fn parse_event(catalogue: &Catalogue, bytes: &[u8], context: Option<&str>) -> Result<Event, Rejection> {
    if bytes.len() > MAX_EVENT_BYTES {
        return Err(Rejection::too_large(bytes.len()));
    }
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| Rejection::new(RejectionCode::InvalidJson, format!("not JSON: {error}")))?;
    let Value::Object(object) = value else {
        let message = format!("an event is a JSON object, not {}", describe(&value));
        return Err(Rejection::new(RejectionCode::NotAnObject, message));
    };
    let envelope = Envelope::of(&object);
    let event_id = object.get(envelope.name_of(Member::Id)).and_then(Value::as_str).and_then(EventId::parse);
    let event_id = event_id.map(|id| id.as_str().to_owned());
    check(catalogue, envelope, object, context).map_err(|rejection| Rejection { event_id, ..rejection })
}

fn check(
    catalogue: &Catalogue,
    envelope: &'static Envelope,
    mut object: Map<String, Value>,
    subject_context: Option<&str>,
) -> Result<Event, Rejection> {
    envelope.strip(&mut object)?;
    let mut members = Members { envelope, object };
    let id_text = members.required_text(Member::Id)?;
    let id = EventId::parse(&id_text).ok_or_else(|| {
        let name = envelope.name_of(Member::Id);
        let found = quoted(&id_text);
        let message = format!("{name} has 1 to 128 printable ASCII characters and no spaces, not {found}");
        Rejection::at(RejectionCode::InvalidValue, name, message)
    })?;
    let type_name = members.required_text(Member::Type)?;
    let time_text = members.required_text(Member::Time)?;
    let time = parse_timestamp(&time_text).ok_or_else(|| {
        let name = envelope.name_of(Member::Time);
        let message = format!("{name} is an RFC 3339 time between 1970 and 2200, not {}", quoted(&time_text));
        Rejection::at(RejectionCode::InvalidValue, name, message)
    })?;
    let data_name = envelope.name_of(Member::Data);
    let mut data = match envelope.take(&mut members.object, Member::Data) {
        Some((_, Value::Object(data))) => data,
        None => return Err(missing(data_name)),
        Some((name, other)) => return Err(wrong_type(name, "an object", &other)),
    };
    let kind = resolve(catalogue, envelope, &type_name, &data, subject_context)?;
    let definition = catalogue.event_at(kind);

    let version = match envelope.take(&mut members.object, Member::Version) {
        None => definition.version.as_str().to_owned(),
        Some((_, Value::String(text))) if !text.is_empty() => text,
        Some((_, Value::Number(number))) => number.to_string(),
        Some((name, other)) => return Err(wrong_type(name, "a version such as \"1.0\"", &other)),
    };
    to_current_shape(catalogue, envelope, kind, &version, &mut data);
    let aggregate_id = match members.optional_text(Member::AggregateId)? {
        Some(id) => id,
        None => aggregate_of(definition, &data).ok_or_else(|| no_aggregate(envelope, definition))?,
    };
    let aggregate_type = members.optional_text(Member::AggregateType)?.unwrap_or_else(|| definition.aggregate.clone());
    let tenant_id = members.optional_text(Member::Tenant)?.unwrap_or_else(|| DEFAULT_TENANT.to_owned());
    let correlation_id = members.optional_text(Member::Correlation)?;
    let causation_id = members.optional_text(Member::Causation)?;
    let source = members.optional_text(Member::Source)?;
    let cells = typed_cells(catalogue, envelope, kind, time, &mut data)?;
    if !members.object.is_empty() {
        data.insert(UNKNOWN_ENVELOPE.to_owned(), Value::Object(members.object));
    }
    let extra = (!data.is_empty()).then(|| Value::Object(data).to_string());
    Ok(Event {
        kind,
        id,
        version,
        time,
        tenant_id,
        aggregate_type,
        aggregate_id,
        correlation_id,
        causation_id,
        source,
        cells,
        extra,
    })
}

/// What is doubtful about an event that is taken. `now` is in microseconds since 1970, UTC.
#[must_use]
pub fn warnings(catalogue: &Catalogue, event: &Event, now: i64) -> Vec<Warning> {
    let columns = &catalogue.context_at(event.kind.context).columns;
    let doubts = event.cells.iter().filter_map(|(index, cell)| {
        let column = &columns[*index];
        match column.limits.doubt(cell)? {
            Doubt::VinCheckDigit => Some(Warning {
                code: "vin_check_digit",
                field: format!("data.{}", column.field),
                message: format!("data.{} is no VIN whose check digit is right", column.field),
            }),
        }
    });
    let mut warnings: Vec<Warning> = doubts.collect();
    // Clocks differ; by more than a day one of them is wrong.
    if event.time > now.saturating_add(MICROS_PER_DAY) {
        warnings.push(Warning {
            code: "future_time",
            field: "timestamp".to_owned(),
            message: format!("timestamp {} is more than a day ahead of the clock here", format_timestamp(event.time)),
        });
    }
    warnings
}

/// Bring the payload to the spelling and shape of the current version.
fn to_current_shape(
    catalogue: &Catalogue,
    envelope: &Envelope,
    kind: EventIndex,
    version: &str,
    data: &mut Map<String, Value>,
) {
    let (context, definition) = (catalogue.context_at(kind.context), catalogue.event_at(kind));
    let columns = definition.fields.iter().map(|field| &context.columns[field.column]);
    envelope.canonical_fields(data, columns.map(|column| (column.field.as_str(), column.snake.as_str())));
    let Some(version) = Version::parse(version).filter(|version| *version < definition.version) else { return };
    let steps = || versions::steps_from(&definition.older, &version);
    let spellings: Vec<_> = steps().filter_map(|step| step.takes()).map(|field| (field, snake_case(field))).collect();
    envelope.canonical_fields(data, spellings.iter().map(|(field, snake)| (*field, snake.as_str())));
    let kind_of = |field: &str| context.columns.iter().find(|column| column.field == field).map(|column| column.kind);
    versions::upgrade(&definition.older, &version, data, &kind_of);
}

fn aggregate_of(definition: &EventDefinition, data: &Map<String, Value>) -> Option<String> {
    let id = data.get(definition.key.as_ref()?)?.as_str()?;
    (!id.is_empty()).then(|| id.to_owned())
}

fn no_aggregate(envelope: &Envelope, definition: &EventDefinition) -> Rejection {
    let name = envelope.name_of(Member::AggregateId);
    let message = match &definition.key {
        Some(key) => format!("{name} is missing, and so is data.{key}, which could stand for it"),
        None => format!("{name} is required"),
    };
    Rejection::at(RejectionCode::MissingField, name, message)
}

/// The members of a message that have not been read yet.
struct Members {
    envelope: &'static Envelope,
    object: Map<String, Value>,
}

impl Members {
    fn required_text(&mut self, member: Member) -> Result<String, Rejection> {
        self.optional_text(member)?.ok_or_else(|| missing(self.envelope.name_of(member)))
    }

    fn optional_text(&mut self, member: Member) -> Result<Option<String>, Rejection> {
        match self.envelope.take(&mut self.object, member) {
            None => Ok(None),
            Some((_, Value::String(text))) if !text.is_empty() => Ok(Some(text)),
            Some((name, other)) => Err(wrong_type(name, "a non-empty string", &other)),
        }
    }
}

/// Which event a name means: by the subject's context, else by the required fields the payload carries.
fn resolve(
    catalogue: &Catalogue,
    envelope: &Envelope,
    name: &str,
    data: &Map<String, Value>,
    subject_context: Option<&str>,
) -> Result<EventIndex, Rejection> {
    let context_of = |index: &EventIndex| catalogue.context_at(index.context).name.as_str();
    let member = envelope.name_of(Member::Type);
    let candidates = envelope.type_names(name).map(|name| catalogue.candidates(name)).find(|found| !found.is_empty());
    let Some(candidates) = candidates else {
        let message = format!("{member} {} is not in the catalogue", quoted(name));
        return Err(Rejection::at(RejectionCode::UnknownEventType, member, message));
    };
    if let Some(context) = subject_context {
        let found = candidates.iter().find(|index| context_of(index) == context);
        return found.copied().ok_or_else(|| {
            let message = format!("the subject says context {context}, which has no event {}", quoted(name));
            Rejection::at(RejectionCode::SubjectMismatch, member, message)
        });
    }
    if let [only] = candidates {
        return Ok(*only);
    }
    let lacking: Vec<Vec<&str>> = candidates.iter().map(|index| lacks(catalogue, *index, data)).collect();
    let mut fitting = candidates.iter().zip(&lacking).filter(|(_, lacking)| lacking.is_empty());
    if let (Some((only, _)), None) = (fitting.next(), fitting.next()) {
        return Ok(*only);
    }
    let names = candidates.iter().zip(&lacking).map(|(index, lacking)| {
        let qualified = format!("{}.{}", context_of(index), catalogue.event_at(*index).name);
        if lacking.is_empty() { qualified } else { format!("{qualified} (lacks {})", lacking.join(", ")) }
    });
    let names = names.collect::<Vec<_>>().join(", ");
    let message = format!("{member} {} is ambiguous; name one of {names}", quoted(name));
    Err(Rejection::at(RejectionCode::AmbiguousEventType, member, message))
}

/// The required fields that a payload does not carry, in either spelling.
fn lacks<'a>(catalogue: &'a Catalogue, index: EventIndex, data: &Map<String, Value>) -> Vec<&'a str> {
    let columns = &catalogue.context_at(index.context).columns;
    let carries = |name: &str| data.get(name).is_some_and(|value| !value.is_null());
    let required = catalogue.event_at(index).fields.iter().filter(|field| field.required);
    let required = required.map(|field| &columns[field.column]);
    required.filter(|it| !carries(&it.field) && !carries(&it.snake)).map(|column| column.field.as_str()).collect()
}

/// Take the event's fields out of `data`, typed and within their limits. What remains is unknown to the catalogue.
fn typed_cells(
    catalogue: &Catalogue,
    envelope: &Envelope,
    kind: EventIndex,
    event_time: i64,
    data: &mut Map<String, Value>,
) -> Result<Vec<(usize, Cell)>, Rejection> {
    let context = catalogue.context_at(kind.context);
    let definition = catalogue.event_at(kind);
    let mut cells = Vec::with_capacity(definition.fields.len());
    for field in &definition.fields {
        let column = &context.columns[field.column];
        let place = || {
            let spelling = envelope.spelling(&column.field, &column.snake);
            format!("{}.{spelling}", envelope.name_of(Member::Data))
        };
        match data.remove(&column.field) {
            Some(Value::Null) | None if field.required => return Err(missing(&place())),
            Some(Value::Null) | None => {}
            Some(value) => {
                let wrong = || wrong_type(&place(), column.kind.expects(), &value);
                let cell = column.kind.cell(&value).ok_or_else(wrong)?;
                if !column.limits.allow(&cell, event_time) {
                    let message = format!("{} is {}, not {}", place(), column.limits, describe(&value));
                    return Err(Rejection::at(RejectionCode::InvalidValue, place(), message));
                }
                cells.push((field.column, cell));
            }
        }
    }
    Ok(cells)
}

fn missing(field: &str) -> Rejection {
    Rejection::at(RejectionCode::MissingField, field, format!("{field} is required"))
}

fn wrong_type(field: &str, expected: &str, found: &Value) -> Rejection {
    let message = format!("{field} is {expected}, not {}", describe(found));
    Rejection::at(RejectionCode::WrongType, field, message)
}

#[cfg(test)]
mod tests;
