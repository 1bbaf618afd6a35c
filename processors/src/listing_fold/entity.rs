//! Entities and their facts: registers that the latest event wins, links that only grow, and views by day.

use std::collections::{BTreeMap, BTreeSet};

use schemas::Position;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Days of views that popularity remembers: what retention removes after 30 days must not weigh.
const REMEMBERED_DAYS: i64 = 30;

/// Photos of a listing that are shown: the first that came. The lake has all.
pub(super) const MAX_PHOTOS: usize = 200;

/// An entity's name: `vehicle/…`, `listing/…`, `reservation/…` or `inspection/…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntityKey(String);

/// The kind of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntityKind {
    Vehicle,
    Listing,
    Reservation,
    Inspection,
}

impl EntityKind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Vehicle => "vehicle/",
            Self::Listing => "listing/",
            Self::Reservation => "reservation/",
            Self::Inspection => "inspection/",
        }
    }

    /// The key of one entity of this kind.
    #[must_use]
    pub fn key(self, id: &str) -> EntityKey {
        EntityKey(format!("{}{id}", self.prefix()))
    }
}

impl EntityKey {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id, if the entity is of this kind.
    #[must_use]
    pub fn id(&self, kind: EntityKind) -> Option<&str> {
        self.0.strip_prefix(kind.prefix())
    }
}

/// When a fact was written, and by which event: the later one wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WriteStamp {
    /// Microseconds since 1970, UTC.
    pub(super) time: i64,
    pub(super) event_id: String,
    /// Where the log has it: the same for an event, whatever came between.
    pub(super) position: Position,
}

/// A fact and the stamp of its write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Register(pub(super) WriteStamp, pub(super) Value);

/// The facts of one entity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Entity {
    #[serde(rename = "f")]
    pub(super) facts: BTreeMap<String, Register>,
    #[serde(rename = "l", default, skip_serializing_if = "BTreeSet::is_empty")]
    links: BTreeSet<EntityKey>,
    /// Views and favourites by day since 1970.
    #[serde(rename = "v", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) views: BTreeMap<i64, i64>,
}

/// One change that an event makes to an entity.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Set { name: String, stamp: WriteStamp, value: Value },
    Link(EntityKey),
    View { day: i64, weight: i64 },
}

impl Entity {
    /// Take in a change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Set { name, stamp, value } => match self.facts.get_mut(&name) {
                Some(Register(known, _)) if *known >= stamp => {}
                Some(register) => *register = Register(stamp, value),
                None => {
                    self.facts.insert(name, Register(stamp, value));
                }
            },
            Change::Link(key) => {
                self.links.insert(key);
            }
            Change::View { day, weight } => {
                *self.views.entry(day).or_default() += weight;
                if let Some((&last, _)) = self.views.last_key_value() {
                    self.views = self.views.split_off(&(last - REMEMBERED_DAYS));
                }
            }
        }
    }

    /// Whether nothing is known of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The entities it is linked to.
    pub fn links(&self) -> impl Iterator<Item = &EntityKey> {
        self.links.iter()
    }

    /// The vehicle it belongs to.
    #[must_use]
    pub fn vehicle(&self) -> Option<EntityKey> {
        self.text("vehicle_id").map(|id| EntityKind::Vehicle.key(id))
    }

    pub(super) fn register(&self, name: &str) -> Option<&Register> {
        self.facts.get(name)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.register(name).and_then(|Register(_, value)| value.as_str())
    }
}
