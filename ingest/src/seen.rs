//! The event ids that have taken effect, and where.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};

use schemas::{EventKey, Position};

/// Each accepted event's first position.
///
/// Two tasks share it: the pipeline, which decides, and the publisher, which asks before it publishes and learns
/// from each acknowledgement. Both hold the lock for one batch, and neither waits while holding it.
#[derive(Debug, Default)]
pub struct SeenEvents {
    first: Mutex<HashMap<EventKey, Position>>,
}

/// What the pipeline makes of an event id at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occurrence {
    /// The first: the event takes effect.
    First,
    /// A repetition of the event at this earlier position.
    Repeated(Position),
}

impl SeenEvents {
    fn lock(&self) -> MutexGuard<'_, HashMap<EventKey, Position>> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where each of these ids took effect, if it did.
    #[must_use]
    pub fn positions(&self, keys: &[EventKey]) -> Vec<Option<Position>> {
        let first = self.lock();
        keys.iter().map(|key| first.get(key).copied()).collect()
    }

    /// Record ids at their positions; an id keeps its lowest position.
    pub fn insert(&self, entries: impl IntoIterator<Item = (EventKey, Position)>) {
        let mut first = self.lock();
        for (key, position) in entries {
            let kept = first.entry(key).or_insert(position);
            *kept = position.min(*kept);
        }
    }

    /// Record these ids, and say of each whether it is the first. Reading a position again gives the same answer.
    pub fn observe(&self, entries: &[(EventKey, Position)]) -> Vec<Occurrence> {
        let mut first = self.lock();
        let observed = entries.iter().map(|&(key, position)| match first.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(position);
                Occurrence::First
            }
            Entry::Occupied(entry) if *entry.get() < position => Occurrence::Repeated(*entry.get()),
            Entry::Occupied(mut entry) => {
                entry.insert(position);
                Occurrence::First
            }
        });
        observed.collect()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use schemas::{EventKey, Position};

    use super::{Occurrence, SeenEvents};

    #[test]
    fn the_lowest_position_of_an_id_takes_effect_however_often_it_is_read() {
        let seen = SeenEvents::default();
        let (key, at) = (EventKey::of("e-1"), Position::new);
        seen.insert([(key, at(12))]);
        assert_eq!(seen.observe(&[(key, at(10))]), [Occurrence::First]);
        for _ in 0..2 {
            assert_eq!(seen.observe(&[(key, at(10))]), [Occurrence::First]);
            assert_eq!(seen.observe(&[(key, at(12))]), [Occurrence::Repeated(at(10))]);
        }
        assert_eq!(seen.positions(&[key, EventKey::of("e-2")]), [Some(at(10)), None]);
    }
}
