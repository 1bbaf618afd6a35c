//! From the bytes of a message to a typed event, or the reason why not.

use serde_json::{Map, Value};

use crate::{
    Catalogue, EventId, EventIndex,
    field_type::{Cell, parse_timestamp},
};

/// Largest event accepted, in bytes of JSON. One NATS message of the default size, 1 MiB, holds it and its headers.
pub const MAX_EVENT_BYTES: usize = (1 << 20) - 4_096;

/// Why an event cannot be taken. The codes are stable: clients and dead letters carry them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectionCode {
    EventTooLarge,
    InvalidJson,
    NotAnObject,
    MissingField,
    WrongType,
    InvalidValue,
    UnknownEventType,
    AmbiguousEventType,
    SubjectMismatch,
}

impl RejectionCode {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EventTooLarge => "event_too_large",
            Self::InvalidJson => "invalid_json",
            Self::NotAnObject => "not_an_object",
            Self::MissingField => "missing_field",
            Self::WrongType => "wrong_type",
            Self::InvalidValue => "invalid_value",
            Self::UnknownEventType => "unknown_event_type",
            Self::AmbiguousEventType => "ambiguous_event_type",
            Self::SubjectMismatch => "subject_mismatch",
        }
    }
}

/// An event that cannot be taken: what is wrong, where, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    pub code: RejectionCode,
    /// The field at fault, such as `data.price`.
    pub field: Option<String>,
    /// The event's id, where it could be read.
    pub event_id: Option<String>,
    pub message: String,
}

impl Rejection {
    #[must_use]
    pub fn new(code: RejectionCode, message: impl Into<String>) -> Self {
        Self { code, field: None, event_id: None, message: message.into() }
    }

    fn at(code: RejectionCode, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, field: Some(field.into()), event_id: None, message: message.into() }
    }

    /// An event over [`MAX_EVENT_BYTES`].
    #[must_use]
    pub fn too_large(bytes: usize) -> Self {
        let message = format!("the event has {bytes} bytes; at most {MAX_EVENT_BYTES} are accepted");
        Self::new(RejectionCode::EventTooLarge, message)
    }
}

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

/// Read and check one event.
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
        return Err(Rejection::new(RejectionCode::NotAnObject, "an event is a JSON object"));
    };
    let event_id = object.get("eventId").and_then(Value::as_str).map(str::to_owned);
    check(catalogue, object, context).map_err(|rejection| Rejection { event_id, ..rejection })
}

fn check(
    catalogue: &Catalogue,
    mut object: Map<String, Value>,
    subject_context: Option<&str>,
) -> Result<Event, Rejection> {
    let id_text = required_text(&mut object, "eventId")?;
    let id = EventId::parse(&id_text).ok_or_else(|| {
        let message = "eventId has 1 to 128 printable ASCII characters and no spaces";
        Rejection::at(RejectionCode::InvalidValue, "eventId", message)
    })?;
    let type_name = required_text(&mut object, "eventType")?;
    let time_text = required_text(&mut object, "timestamp")?;
    let time = parse_timestamp(&time_text).ok_or_else(|| {
        let message = format!("timestamp is an RFC 3339 time between 1970 and 2200, not {}", quoted(&time_text));
        Rejection::at(RejectionCode::InvalidValue, "timestamp", message)
    })?;
    let mut data = match object.remove("data") {
        Some(Value::Object(data)) => data,
        None | Some(Value::Null) => return Err(missing("data")),
        Some(other) => return Err(wrong_type("data", "an object", &other)),
    };
    let kind = resolve(catalogue, &type_name, &data, subject_context)?;
    let definition = catalogue.event_at(kind);

    let version = match object.remove("eventVersion") {
        None | Some(Value::Null) => definition.version.clone(),
        Some(Value::String(text)) if !text.is_empty() => text,
        Some(Value::Number(number)) => number.to_string(),
        Some(other) => return Err(wrong_type("eventVersion", "a version such as \"1.0\"", &other)),
    };
    let aggregate_id = match optional_text(&mut object, "aggregateId")? {
        Some(id) => id,
        None => data.get(&definition.key).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| {
            let message =
                format!("aggregateId is missing, and so is data.{}, which could stand for it", definition.key);
            Rejection::at(RejectionCode::MissingField, "aggregateId", message)
        })?,
    };
    let aggregate_type = optional_text(&mut object, "aggregateType")?.unwrap_or_else(|| definition.aggregate.clone());
    let tenant_id = optional_text(&mut object, "tenantId")?.unwrap_or_else(|| DEFAULT_TENANT.to_owned());
    let correlation_id = optional_text(&mut object, "correlationId")?;
    let causation_id = optional_text(&mut object, "causationId")?;
    let source = optional_text(&mut object, "source")?;
    let cells = typed_cells(catalogue, kind, &mut data)?;
    if !object.is_empty() {
        data.insert(UNKNOWN_ENVELOPE.to_owned(), Value::Object(object));
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

/// Which event a name means: by the subject's context, else by the required fields the payload carries.
fn resolve(
    catalogue: &Catalogue,
    name: &str,
    data: &Map<String, Value>,
    subject_context: Option<&str>,
) -> Result<EventIndex, Rejection> {
    let context_of = |index: &EventIndex| catalogue.context_at(index.context).name.as_str();
    let candidates = catalogue.candidates(name);
    if candidates.is_empty() {
        let message = format!("eventType {} is not in the catalogue", quoted(name));
        return Err(Rejection::at(RejectionCode::UnknownEventType, "eventType", message));
    }
    if let Some(context) = subject_context {
        let found = candidates.iter().find(|index| context_of(index) == context);
        return found.copied().ok_or_else(|| {
            let message = format!("the subject says context {context}, which has no event {}", quoted(name));
            Rejection::at(RejectionCode::SubjectMismatch, "eventType", message)
        });
    }
    if let [only] = candidates {
        return Ok(*only);
    }
    let carried = |index: &&EventIndex| {
        let context = catalogue.context_at(index.context);
        let mut required = catalogue.event_at(**index).fields.iter().filter(|field| field.required);
        required.all(|field| data.get(&context.columns[field.column].field).is_some_and(|value| !value.is_null()))
    };
    let fitting: Vec<_> = candidates.iter().filter(carried).collect();
    if let [only] = fitting.as_slice() {
        return Ok(**only);
    }
    let names: Vec<_> = candidates.iter().map(|index| format!("{}.{name}", context_of(index))).collect();
    let message = format!("eventType {} is ambiguous; name one of {}", quoted(name), names.join(", "));
    Err(Rejection::at(RejectionCode::AmbiguousEventType, "eventType", message))
}

/// Take the event's fields out of `data`, typed. What remains is unknown to the catalogue.
fn typed_cells(
    catalogue: &Catalogue,
    kind: EventIndex,
    data: &mut Map<String, Value>,
) -> Result<Vec<(usize, Cell)>, Rejection> {
    let context = catalogue.context_at(kind.context);
    let definition = catalogue.event_at(kind);
    let mut cells = Vec::with_capacity(definition.fields.len());
    for field in &definition.fields {
        let column = &context.columns[field.column];
        match data.remove(&column.field) {
            Some(Value::Null) | None if field.required => return Err(missing(&format!("data.{}", column.field))),
            Some(Value::Null) | None => {}
            Some(value) => {
                let wrong = || wrong_type(&format!("data.{}", column.field), column.kind.expects(), &value);
                cells.push((field.column, column.kind.cell(&value).ok_or_else(wrong)?));
            }
        }
    }
    Ok(cells)
}

fn required_text(object: &mut Map<String, Value>, field: &str) -> Result<String, Rejection> {
    optional_text(object, field)?.ok_or_else(|| missing(field))
}

fn optional_text(object: &mut Map<String, Value>, field: &str) -> Result<Option<String>, Rejection> {
    match object.remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        Some(other) => Err(wrong_type(field, "a non-empty string", &other)),
    }
}

fn missing(field: &str) -> Rejection {
    Rejection::at(RejectionCode::MissingField, field, format!("{field} is required"))
}

fn wrong_type(field: &str, expected: &str, found: &Value) -> Rejection {
    let message = format!("{field} is {expected}, not {}", describe(found));
    Rejection::at(RejectionCode::WrongType, field, message)
}

/// A value for a message: its kind, and the value itself where it is short.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// Text in quotes, shortened: messages must not repeat a megabyte.
fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests;
