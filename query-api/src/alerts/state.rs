//! The alerts there are and what they matched: a fold of the log's events about them.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use lake::arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use schemas::Position;
use url::Url;

use crate::consistency;

/// Facts kept of unknown alerts: some arrive before their alert. Facts beyond this are in the lake's table alone.
const MAX_EARLY_FACTS: usize = 100_000;
/// Matches of an alert that are kept at hand; the lake has all.
const KEPT_MATCHES: usize = 1_000;

/// A saved search.
#[derive(Default, Clone, Debug)]
pub(crate) struct Alert {
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    pub(crate) user_id: Option<String>,
    /// The parameters of a search, as a query string.
    pub(crate) search: String,
    pub(crate) webhook: Option<Url>,
    pub(crate) created_at: i64,
    /// Where the log has it: what the log says before was there already.
    pub(super) position: Position,
    pub(crate) expires_at: Option<i64>,
    /// The latest, in the order of the log.
    pub(crate) matches: VecDeque<Match>,
    pub(crate) match_count: u64,
    /// Every listing it was told of.
    pub(super) listings: Arc<HashSet<String>>,
    /// What became of matches that are not known yet.
    pub(super) early: BTreeMap<String, bool>,
}

impl Alert {
    /// Whether it has ended by itself.
    pub(crate) fn is_over(&self, now: i64) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}

/// A listing that an alert was told of.
#[derive(Clone, Debug)]
pub(crate) struct Match {
    pub(crate) id: String,
    pub(crate) listing_id: String,
    pub(crate) matched_at: i64,
    pub(crate) position: Position,
    /// Whether its webhook took it; none, while that is not known or nobody waits for it.
    pub(crate) delivered: Option<bool>,
}

/// What the alerts reflect.
#[derive(Clone, Debug)]
pub(crate) struct Reflects {
    pub(super) position: Position,
    pub(super) event_time: Option<i64>,
}

impl consistency::Reflects for Reflects {
    fn position(&self) -> Position {
        self.position
    }

    fn event_time(&self) -> Option<i64> {
        self.event_time
    }
}

/// Something that happened to alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    Created {
        id: String,
        search: String,
        name: Option<String>,
        user_id: Option<String>,
        webhook: Option<Url>,
        created_at: i64,
        expires_at: Option<i64>,
    },
    Deleted {
        id: String,
    },
    Matched {
        alert: String,
        id: String,
        listing_id: String,
        matched_at: i64,
    },
    Notified {
        alert: String,
        match_id: String,
        delivered: bool,
    },
}

/// What rows of the alerts' table say, in the order of the log.
pub(super) fn facts(batches: &[RecordBatch]) -> Vec<(Position, Fact)> {
    let mut facts: Vec<(Position, Fact)> = batches.iter().flat_map(facts_of).collect();
    facts.sort_by_key(|(position, _)| *position);
    facts
}

fn facts_of(batch: &RecordBatch) -> Vec<(Position, Fact)> {
    let text = |name: &str, row: usize| {
        let column = batch.column_by_name(name)?.as_string_opt::<i32>()?;
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    let time = |name: &str, row: usize| {
        let column = batch.column_by_name(name)?.as_primitive_opt::<TimestampMicrosecondType>()?;
        column.is_valid(row).then(|| column.value(row))
    };
    let fact = |row: usize| {
        let positions = batch.column_by_name("position")?.as_primitive_opt::<Int64Type>()?;
        let position = Position::from_i64(positions.value(row));
        let (alert, at) = (text("alert_id", row)?, time("event_time", row)?);
        let fact = match text("event_type", row)?.as_str() {
            "SearchAlertCreated" => Fact::Created {
                id: alert,
                search: text("search", row)?,
                name: text("name", row),
                user_id: text("user_id", row),
                webhook: text("webhook", row).and_then(|text| Url::parse(&text).ok()),
                created_at: time("created_at", row).unwrap_or(at),
                expires_at: time("expires_at", row),
            },
            "SearchAlertDeleted" => Fact::Deleted { id: alert },
            "SearchAlertMatched" => Fact::Matched {
                alert,
                id: text("match_id", row).or_else(|| text("event_id", row))?,
                listing_id: text("listing_id", row)?,
                matched_at: time("matched_at", row).unwrap_or(at),
            },
            "SearchAlertNotified" => {
                let delivered = batch.column_by_name("delivered").and_then(|column| column.as_boolean_opt());
                let delivered = delivered.is_some_and(|it| it.is_valid(row) && it.value(row));
                Fact::Notified { alert, match_id: text("match_id", row)?, delivered }
            }
            _ => return None,
        };
        Some((position, fact))
    };
    (0..batch.num_rows()).filter_map(fact).collect()
}

/// Every alert, by id.
#[derive(Debug, Default)]
pub(super) struct AlertBook {
    pub(super) alerts: BTreeMap<String, Alert>,
    /// Given up; an alert that arrives after that stays so.
    deleted: HashSet<String>,
    /// What arrived before its alert, by its id.
    early: HashMap<String, Vec<(Position, Fact)>>,
    /// How much that is.
    early_facts: usize,
}

impl AlertBook {
    /// Whether nothing is known of an alert yet.
    pub(super) fn is_new(&self, id: &str) -> bool {
        !self.alerts.contains_key(id) && !self.deleted.contains(id)
    }

    /// Take what happened, in the order of the log. What came before its alert is taken with it.
    pub(super) fn apply(&mut self, position: Position, fact: Fact) {
        match fact {
            Fact::Created { id, search, name, user_id, webhook, created_at, expires_at } => {
                if !self.is_new(&id) {
                    return;
                }
                let alert = Alert {
                    id: id.clone(),
                    name,
                    user_id,
                    search,
                    webhook,
                    created_at,
                    position,
                    expires_at,
                    ..Alert::default()
                };
                let early = self.early.remove(&id).unwrap_or_default();
                self.early_facts -= early.len();
                self.alerts.insert(id, alert);
                for (position, fact) in early {
                    self.apply(position, fact);
                }
            }
            Fact::Deleted { id } => {
                self.alerts.remove(&id);
                self.early_facts -= self.early.remove(&id).map_or(0, |early| early.len());
                self.deleted.insert(id);
            }
            Fact::Matched { ref alert, .. } | Fact::Notified { ref alert, .. } if self.deleted.contains(alert) => {}
            Fact::Matched { ref alert, .. } | Fact::Notified { ref alert, .. } if !self.alerts.contains_key(alert) => {
                if self.early_facts < MAX_EARLY_FACTS {
                    self.early_facts += 1;
                    self.early.entry(alert.clone()).or_default().push((position, fact));
                }
            }
            Fact::Matched { alert, id, listing_id, matched_at } => {
                let Some(alert) = self.alerts.get_mut(&alert) else { return };
                if !alert.listings.contains(&listing_id) {
                    Arc::make_mut(&mut alert.listings).insert(listing_id.clone());
                    alert.match_count += 1;
                    let delivered = alert.early.remove(&id);
                    alert.matches.push_back(Match { id, listing_id, matched_at, position, delivered });
                    if alert.matches.len() > KEPT_MATCHES {
                        alert.matches.pop_front();
                    }
                }
            }
            Fact::Notified { alert, match_id, delivered } => {
                let Some(alert) = self.alerts.get_mut(&alert) else { return };
                match alert.matches.iter_mut().find(|found| found.id == match_id) {
                    Some(found) => found.delivered = Some(delivered),
                    None if alert.early.len() < KEPT_MATCHES => drop(alert.early.insert(match_id, delivered)),
                    None => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use schemas::Position;

    use super::{AlertBook, Fact, MAX_EARLY_FACTS};

    fn created(id: &str) -> Fact {
        Fact::Created {
            id: id.to_owned(),
            search: "make=Honda".to_owned(),
            name: None,
            user_id: None,
            webhook: None,
            created_at: 1,
            expires_at: None,
        }
    }

    fn matched(alert: &str, listing: &str) -> Fact {
        let (alert, listing_id) = (alert.to_owned(), listing.to_owned());
        Fact::Matched { id: format!("{alert}-{listing}"), alert, listing_id, matched_at: 2 }
    }

    #[test]
    fn what_is_kept_of_alerts_there_are_not_is_bounded() {
        let mut book = AlertBook::default();
        let mut positions = (1..).map(Position::new);
        let mut apply = |book: &mut AlertBook, fact| book.apply(positions.next().unwrap(), fact);
        for number in 0..MAX_EARLY_FACTS + 10 {
            apply(&mut book, matched(&format!("a{}", number % 10), &format!("l{number}")));
        }
        assert_eq!(book.early.values().map(Vec::len).sum::<usize>(), MAX_EARLY_FACTS);
        // One that comes has what was kept of it, and makes room.
        apply(&mut book, created("a3"));
        assert_eq!(book.alerts["a3"].match_count, MAX_EARLY_FACTS as u64 / 10);
        apply(&mut book, Fact::Deleted { id: "a4".to_owned() });
        assert_eq!(book.early_facts, MAX_EARLY_FACTS / 10 * 8);
        apply(&mut book, matched("a5", "another"));
        assert_eq!(book.early_facts, book.early.values().map(Vec::len).sum::<usize>());
        assert_eq!(book.early_facts, MAX_EARLY_FACTS / 10 * 8 + 1);
    }

    /// What is known is the same whatever order it arrived in, and however often.
    #[test]
    fn the_order_of_arrival_does_not_matter() {
        let notified = Fact::Notified { alert: "a".to_owned(), match_id: "a-l1".to_owned(), delivered: true };
        let facts = [
            created("a"),
            matched("a", "l1"),
            matched("a", "l1"),
            notified,
            created("b"),
            Fact::Deleted { id: "b".to_owned() },
        ];
        for turn in 0..facts.len() {
            let mut book = AlertBook::default();
            let turned = facts.iter().cycle().skip(turn).take(facts.len());
            for (position, fact) in (1..).zip(turned) {
                book.apply(Position::new(position), fact.clone());
            }
            let alerts: Vec<_> = book.alerts.values().collect();
            assert_eq!(alerts.len(), 1, "from {turn}");
            assert_eq!((alerts[0].match_count, alerts[0].matches[0].delivered), (1, Some(true)), "from {turn}");
        }
    }
}
