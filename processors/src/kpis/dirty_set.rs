//! The buckets that new events change: by their times, and by keys that facts share with them.

use std::collections::{BTreeSet, HashMap};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::TimestampMicrosecondType,
};
use schemas::Catalogue;

use super::series::{EARLIEST, LATEST};
use crate::kpi_definition::{IDS, KpiDefinition, LOOKUPS, Touches};

/// Times are rounded down to this: every time zone's hours begin on a multiple of it.
pub(super) const TIME_STEP: i64 = 15 * 60 * 1_000_000;

/// Texts that one query names at most.
const MAX_KEYS: usize = 5_000;

/// A condition of facts in SQL, and the earliest time they may count at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FactCondition {
    pub(super) condition: String,
    pub(super) from: i64,
}

/// How facts are found whose keys are more than one query names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precision {
    /// In parts.
    Exact,
    /// All facts at once: that is cheaper than many parts, and right as well where more may be touched than is.
    Rounded,
}

impl Precision {
    fn conditions(self, texts: &BTreeSet<String>, condition: impl Fn(&str) -> String) -> Vec<String> {
        if self == Self::Rounded && texts.len() > MAX_KEYS {
            return vec!["true".to_owned()];
        }
        let quoted: Vec<String> = texts.iter().map(|text| format!("'{}'", text.replace('\'', "''"))).collect();
        quoted.chunks(MAX_KEYS).map(|some| condition(&some.join(", "))).collect()
    }
}

/// The times and keys by which new events make buckets dirty.
#[derive(Clone, Debug, Default)]
pub struct DirtySet {
    /// Times by KPI, to [`TIME_STEP`].
    pub(super) times: HashMap<String, BTreeSet<i64>>,
    /// Values of the column that facts share with an event, by KPI and input, and the earliest time they matter from.
    pub(super) keys: HashMap<(usize, usize), (BTreeSet<String>, i64)>,
    /// Ids that a lookup's events are about, by lookup and input.
    pub(super) looked_up: HashMap<(usize, usize), BTreeSet<String>>,
}

impl DirtySet {
    /// Add the rows of tables, numbered as in [`lake::LakeView::tables`].
    pub fn mark(&mut self, definitions: &[KpiDefinition], catalogue: &Catalogue, tables: &[(usize, RecordBatch)]) {
        let rows_of = |context: &str| {
            let (index, _) = catalogue.context(context)?;
            tables.iter().find(|(table, _)| *table == index.get()).map(|(_, batch)| batch)
        };
        for (kpi_index, kpi) in definitions.iter().enumerate() {
            for (input_index, input) in kpi.inputs.iter().enumerate() {
                let Some(batch) = rows_of(&input.context) else { continue };
                match &input.touches {
                    Touches::TimeOf(column) => {
                        let times = self.times.entry(kpi.name.clone()).or_default();
                        each_row(catalogue, &input.context, &input.view, batch, |row| {
                            let named = column.as_ref().and_then(|name| time_at(batch, name, row));
                            if let Some(time) = named.or_else(|| time_at(batch, "event_time", row)) {
                                times.insert(time - time.rem_euclid(TIME_STEP));
                            }
                        });
                    }
                    Touches::FactsBy { key, after } => {
                        let (keys, from) =
                            self.keys.entry((kpi_index, input_index)).or_insert((BTreeSet::new(), LATEST));
                        let column = batch.column_by_name(key).and_then(|column| column.as_string_opt::<i32>());
                        each_row(catalogue, &input.context, &input.view, batch, |row| {
                            keys.extend(column.filter(|ids| ids.is_valid(row)).map(|ids| ids.value(row).to_owned()));
                            let time = if *after { time_at(batch, "event_time", row) } else { None };
                            *from = (*from).min(time.unwrap_or(EARLIEST));
                        });
                    }
                }
            }
        }
        for (lookup_index, lookup) in LOOKUPS.iter().enumerate() {
            for (input_index, (context, view, column, _)) in lookup.inputs.iter().enumerate() {
                let Some(batch) = rows_of(context) else { continue };
                let column = batch.column_by_name(column).and_then(|column| column.as_string_opt::<i32>());
                let ids = self.looked_up.entry((lookup_index, input_index)).or_default();
                each_row(catalogue, context, view, batch, |row| {
                    ids.extend(column.filter(|ids| ids.is_valid(row)).map(|ids| ids.value(row).to_owned()));
                });
            }
        }
    }

    /// The facts of a KPI, the one with this index, that the events are about beside those at their own times: they share a
    /// key with them, or one of these dimensions is looked up in them.
    pub(super) fn facts<'a>(
        &self,
        index: usize,
        kpi: &'a KpiDefinition,
        dimensions: impl Iterator<Item = &'a String>,
        precision: Precision,
    ) -> BTreeSet<FactCondition> {
        let mut found_conditions = BTreeSet::new();
        for ((_, input), (keys, from)) in self.keys.iter().filter(|((of, _), _)| *of == index) {
            let Touches::FactsBy { key, .. } = &kpi.inputs[*input].touches else { continue };
            let conditions = precision.conditions(keys, |keys| format!("{key} IN ({keys})"));
            found_conditions.extend(conditions.into_iter().map(|condition| FactCondition { condition, from: *from }));
        }
        for (table, column) in kpi.lookups(dimensions) {
            for ((lookup, input), ids) in
                self.looked_up.iter().filter(|((lookup, _), _)| LOOKUPS[*lookup].name == table)
            {
                let (.., found) = LOOKUPS[*lookup].inputs[*input];
                let conditions = precision.conditions(ids, |ids| format!("{column} IN ({})", found.replace(IDS, ids)));
                found_conditions
                    .extend(conditions.into_iter().map(|condition| FactCondition { condition, from: EARLIEST }));
            }
        }
        found_conditions
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (kpi, times) in other.times {
            self.times.entry(kpi).or_default().extend(times);
        }
        for (input, (keys, from)) in other.keys {
            let (known, earliest) = self.keys.entry(input).or_insert((BTreeSet::new(), LATEST));
            known.extend(keys);
            *earliest = from.min(*earliest);
        }
        for (input, ids) in other.looked_up {
            self.looked_up.entry(input).or_default().extend(ids);
        }
    }
}

/// Each row of an event type.
fn each_row(catalogue: &Catalogue, context: &str, view: &str, batch: &RecordBatch, mut each: impl FnMut(usize)) {
    let context = catalogue.context(context).map(|(_, context)| context);
    let event = context.and_then(|context| context.events.iter().find(|event| event.view == view));
    let types = batch.column_by_name("event_type").map(|types| types.as_string::<i32>());
    let (Some(event), Some(types)) = (event, types) else { return };
    for row in (0..batch.num_rows()).filter(|&row| types.value(row) == event.name) {
        each(row);
    }
}

fn time_at(batch: &RecordBatch, column: &str, row: usize) -> Option<i64> {
    let times = batch.column_by_name(column)?.as_primitive_opt::<TimestampMicrosecondType>()?;
    times.is_valid(row).then(|| times.value(row))
}
