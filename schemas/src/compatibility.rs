//! Whether a catalogue still takes what an earlier one took.

use std::fmt;

use crate::{
    Catalogue, Context, EventDefinition,
    catalogue::Column,
    field_type::FieldType,
    limits::Limits,
    versions::{Step, steps_from},
};

/// A change that events written for the earlier catalogue do not survive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaking {
    /// `context.Name`.
    pub event: String,
    pub change: Change,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    EventRemoved,
    FieldRemoved { field: String },
    FieldRetyped { field: String, from: FieldType, to: FieldType },
    FieldRequired { field: String },
    ValueRemoved { field: String, value: String },
    LimitTightened { field: String, limits: String },
    VersionLowered { from: String, to: String },
}

impl fmt::Display for Breaking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = &self.event;
        match &self.change {
            Change::EventRemoved => {
                write!(f, "{event}: the event is gone; keep it, or give its new name the old as alias")
            }
            Change::FieldRemoved { field } => {
                write!(f, "{event}: field {field} is gone without a step; add one of rename, split or drop")
            }
            Change::FieldRetyped { field, from, to } => {
                write!(f, "{event}: field {field} was {from} and is {to} without a step; add a convert")
            }
            Change::FieldRequired { field } => {
                write!(f, "{event}: field {field} is required now without a step; add a default, or make it optional")
            }
            Change::ValueRemoved { field, value } => {
                write!(f, "{event}: field {field} no longer allows {value:?} without a step; add a convert")
            }
            Change::LimitTightened { field, limits } => {
                write!(
                    f,
                    "{event}: field {field} is {limits} now, which not all values were; loosen it, or add a convert"
                )
            }
            Change::VersionLowered { from, to } => write!(f, "{event}: the version went back from {from} to {to}"),
        }
    }
}

/// Every breaking change from one catalogue to another, in the earlier one's order.
#[must_use]
pub fn breaking(from: &Catalogue, to: &Catalogue) -> Vec<Breaking> {
    let mut found = Vec::new();
    for (context, earlier) in from.events() {
        let event = format!("{}.{}", context.name, earlier.name);
        let place = to.candidates(&event).first();
        let changes = match place {
            Some(place) => event_changes(context, earlier, to.context_at(place.context), to.event_at(*place)),
            None => vec![Change::EventRemoved],
        };
        found.extend(changes.into_iter().map(|change| Breaking { event: event.clone(), change }));
    }
    found
}

fn event_changes(
    from_context: &Context,
    earlier: &EventDefinition,
    to_context: &Context,
    later: &EventDefinition,
) -> Vec<Change> {
    let mut changes = Vec::new();
    if later.version < earlier.version {
        changes.push(Change::VersionLowered { from: earlier.version.to_string(), to: later.version.to_string() });
    }
    // Steps are taken by events of an older version: without a new version there are none.
    let steps: Vec<&Step> =
        if later.version > earlier.version { steps_from(&later.older, &earlier.version).collect() } else { Vec::new() };
    let taken = |field: &str| steps.iter().any(|step| step.takes() == Some(field));
    let given = |field: &str| steps.iter().any(|step| step.gives().contains(&field));
    let converted = |field: &str| taken(field) && given(field);
    let before = |field: &str| find(from_context, earlier, field);
    for field in &earlier.fields {
        let column = &from_context.columns[field.column];
        let name = &column.field;
        match find(to_context, later, name) {
            None if taken(name) => {}
            None => changes.push(Change::FieldRemoved { field: name.clone() }),
            Some(_) if converted(name) => {}
            Some((now, _)) if now.kind != column.kind => {
                let (from, to) = (column.kind, now.kind);
                changes.push(Change::FieldRetyped { field: name.clone(), from, to });
            }
            Some((now, _)) => {
                changes.extend(removed_values(column, now));
                if is_tighter(&column.limits, &now.limits) {
                    changes.push(Change::LimitTightened { field: name.clone(), limits: now.limits.to_string() });
                }
            }
        }
    }
    for field in later.fields.iter().filter(|field| field.required) {
        let name = &to_context.columns[field.column].field;
        let was_required = before(name).is_some_and(|(_, required)| required);
        if !was_required && !given(name) {
            changes.push(Change::FieldRequired { field: name.clone() });
        }
    }
    changes
}

/// A field's column, and whether the event requires it.
fn find<'a>(context: &'a Context, definition: &EventDefinition, field: &str) -> Option<(&'a Column, bool)> {
    let mut fields = definition.fields.iter().map(|it| (&context.columns[it.column], it.required));
    fields.find(|(column, _)| column.field == field)
}

/// Whether limits exclude what the earlier ones allowed, single values aside.
fn is_tighter(from: &Limits, to: &Limits) -> bool {
    let raised = |from: Option<f64>, to: Option<f64>| to.is_some_and(|to| from.is_none_or(|from| to > from));
    let lowered = |from: Option<f64>, to: Option<f64>| to.is_some_and(|to| from.is_none_or(|from| to < from));
    // `above` a bound excludes the bound itself, which `min` does not.
    let least = |limits: &Limits| limits.min.or(limits.above);
    raised(least(from), to.min)
        || raised(least(from), to.above)
        || (to.above.is_some() && from.above.is_none() && from.min == to.above)
        || lowered(from.max, to.max)
        || (from.values.is_empty() && !to.values.is_empty())
}

fn removed_values(from: &Column, to: &Column) -> Vec<Change> {
    if to.limits.values.is_empty() {
        return Vec::new();
    }
    let gone = from.limits.values.iter().filter(|value| !to.limits.values.contains(value));
    gone.map(|value| Change::ValueRemoved { field: from.field.clone(), value: value.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::breaking;
    use crate::{Catalogue, catalogue::CatalogueError};

    const BEFORE: &str = "
context = 'telemetry'
title = 'Telemetry'
meaning = 'What cars report.'
retention = 'short'
delivery = 'batch'
[fields]
carId = { type = 'id', meaning = 'The car.' }
speed = { type = 'integer', meaning = 'Speed.' }
gear = { type = 'string', meaning = 'Gear.', values = ['P', 'D'] }
note = { type = 'string', meaning = 'A note.' }
[events.SpeedMeasured]
meaning = 'A car told its speed.'
aggregate = 'Car'
key = 'carId'
required = ['carId', 'speed']
optional = ['gear', 'note']
";

    fn changes(after: &str) -> Result<Vec<String>, CatalogueError> {
        let (from, to) = (Catalogue::parse([("a.toml", BEFORE)])?, Catalogue::parse([("b.toml", after)])?);
        Ok(breaking(&from, &to).iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_old_events_do_not_survive_is_named() -> Result<(), CatalogueError> {
        assert_eq!(changes(BEFORE)?, [""; 0]);
        let retyped = BEFORE
            .replace("speed = { type = 'integer'", "speed = { type = 'string'")
            .replace("'P', 'D'", "'P'")
            .replace(", 'note']", "]")
            .replace("['carId', 'speed']", "['carId', 'speed', 'road']")
            .replace("note = {", "road = {");
        assert_eq!(
            changes(&retyped)?,
            [
                "telemetry.SpeedMeasured: field speed was integer and is string without a step; add a convert",
                "telemetry.SpeedMeasured: field gear no longer allows \"D\" without a step; add a convert",
                "telemetry.SpeedMeasured: field note is gone without a step; add one of rename, split or drop",
                "telemetry.SpeedMeasured: field road is required now without a step; add a default, or make it optional",
            ]
        );
        let tightened = BEFORE
            .replace("meaning = 'Speed.'", "meaning = 'Speed.', min = 0, max = 300")
            .replace("meaning = 'A note.'", "meaning = 'A note.', values = ['slow']");
        assert_eq!(
            changes(&tightened)?,
            [
                "telemetry.SpeedMeasured: field speed is at least 0 and at most 300 now, which not all values were; \
                 loosen it, or add a convert",
                "telemetry.SpeedMeasured: field note is one of slow now, which not all values were; loosen it, or add \
                 a convert",
            ]
        );
        let stepped = format!(
            "{}version = '2.0'\n[[events.SpeedMeasured.versions]]\nversion = '1.0'\nsteps = [{{ convert = 'speed', to = \
             'string' }}, {{ convert = 'gear', values = {{ D = 'P' }} }}, {{ rename = 'note', to = 'road' }}]\n",
            retyped
        );
        assert_eq!(changes(&stepped)?, [""; 0]);
        assert_eq!(
            changes(&BEFORE.replace("SpeedMeasured", "SpeedTold"))?,
            ["telemetry.SpeedMeasured: the event is gone; keep it, or give its new name the old as alias"]
        );
        Ok(())
    }
}
