//! Why an event is refused: a stable code, the field at fault and a message of bounded length.

use serde_json::Value;

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
    UnreadableMessage,
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
            Self::UnreadableMessage => "unreadable_message",
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
        Self { code, field: None, event_id: None, message: bounded(message.into()) }
    }

    pub(crate) fn at(code: RejectionCode, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, field: Some(field.into()), event_id: None, message: bounded(message.into()) }
    }

    /// An event over [`MAX_EVENT_BYTES`].
    #[must_use]
    pub fn too_large(bytes: usize) -> Self {
        let message = format!("the event has {bytes} bytes; at most {MAX_EVENT_BYTES} are accepted");
        Self::new(RejectionCode::EventTooLarge, message)
    }
}

/// A value for a message: its kind, and the value itself where it is short.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// A message never repeats a megabyte of what it refuses.
fn bounded(mut message: String) -> String {
    const MAX_CHARACTERS: usize = 600;
    if let Some((end, _)) = message.char_indices().nth(MAX_CHARACTERS) {
        message.truncate(end);
        message.push('…');
    }
    message
}

/// Text in quotes, shortened: messages must not repeat a megabyte.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
