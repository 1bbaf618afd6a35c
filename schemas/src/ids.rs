//! Ids and positions, each its own type.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An event's stream sequence in the log. Zero is before the first event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(u64);

impl Position {
    /// Before the first event.
    pub const START: Self = Self(0);

    #[must_use]
    pub const fn new(sequence: u64) -> Self {
        Self(sequence)
    }

    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// As the lake stores it. Delta has no unsigned integers; a stream never reaches 2^63 messages.
    #[must_use]
    pub const fn as_i64(self) -> i64 {
        self.0.cast_signed()
    }

    /// From the lake's column.
    #[must_use]
    pub const fn from_i64(value: i64) -> Self {
        Self(value.cast_unsigned())
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The producer's id of an event: 1 to 128 printable ASCII characters without spaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(String);

/// Longest event id accepted. A UUID has 36 characters.
const MAX_EVENT_ID: usize = 128;

impl EventId {
    /// The id, or `None` when it is empty, too long or holds a space, a control or a non-ASCII character.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=MAX_EVENT_ID).contains(&text.len());
        (fits && text.bytes().all(|b| b.is_ascii_graphic())).then(|| Self(text.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn key(&self) -> EventKey {
        EventKey::of(&self.0)
    }
}

/// The 128 bits by which repeated event ids are recognised.
///
/// A UUID is its own key, whatever its spelling; any other id is hashed (UUID version 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey([u8; 16]);

impl EventKey {
    /// The key of an id as text.
    #[must_use]
    pub fn of(id: &str) -> Self {
        let hyphenated = id.len() == 36;
        let uuid = hyphenated.then(|| Uuid::try_parse(id).ok()).flatten();
        Self(uuid.unwrap_or_else(|| Uuid::new_v5(&Uuid::NAMESPACE_OID, id.as_bytes())).into_bytes())
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::{EventId, EventKey};

    #[test]
    fn an_event_id_is_printable_and_bounded() {
        assert!(EventId::parse("evt-1").is_some());
        for bad in ["", "a b", "a\nb", "é", &"x".repeat(129)] {
            assert!(EventId::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_uuid_is_one_event_however_it_is_spelled() {
        let lower = EventKey::of("a1a2a3a4-b1b2-c1c2-d1d2-d3d4d5d6d7d8");
        assert_eq!(lower, EventKey::of("A1A2A3A4-B1B2-C1C2-D1D2-D3D4D5D6D7D8"));
        assert_ne!(EventKey::of("evt-1"), EventKey::of("EVT-1"));
    }
}
