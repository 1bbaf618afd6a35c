//! Series of a KPI: their keys, their rows, and ranges of their buckets.

use std::collections::BTreeMap;

use chrono::Weekday;
use chrono_tz::Tz;
use schemas::Position;
use serde_json::{Map, Value};

use crate::calendar::{Calendar, Grain};

/// Days in UTC: the default calendar.
pub const DAYS: Calendar = Calendar { grain: Grain::Day, zone: Tz::UTC, week_start: Weekday::Mon };
/// Event times lie between these: 1970-01-01 and 2200-01-01.
pub(super) const EARLIEST: i64 = 0;
pub(super) const LATEST: i64 = 7_258_118_400_000_000;

/// More dirty ranges than this are computed as one.
const MAX_DIRTY_RANGES: usize = 8;

/// One KPI in one grain and time zone, by some dimensions, of some of its facts, over a window.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeriesKey {
    pub kpi: String,
    pub calendar: Calendar,
    /// Dimensions, in the order they are asked for.
    pub by: Vec<String>,
    /// Values of dimensions, of which a fact has one each.
    pub filters: Vec<(String, Vec<String>)>,
    /// Buckets that a window is long, its own the last; 1 is a bucket by itself.
    pub window: u32,
}

impl SeriesKey {
    /// A whole KPI, bucket by bucket.
    #[must_use]
    pub const fn whole(kpi: String, calendar: Calendar) -> Self {
        Self { kpi, calendar, by: Vec::new(), filters: Vec::new(), window: 1 }
    }

    pub(super) fn dimensions(&self) -> impl Iterator<Item = &String> {
        self.by.iter().chain(self.filters.iter().map(|(name, _)| name))
    }
}

/// Where a row of a series is: the start of its bucket (microseconds since 1970, UTC), and its dimensions' values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    pub bucket: i64,
    pub dimensions: Vec<Option<String>>,
}

impl RowKey {
    /// Before every row of this bucket.
    #[must_use]
    pub const fn first_of(bucket: i64) -> Self {
        Self { bucket, dimensions: Vec::new() }
    }
}

/// A row of a series.
#[derive(Clone, Debug)]
pub struct Row {
    pub values: Map<String, Value>,
    /// The position by which it became what it is.
    pub changed: Position,
}

/// A KPI's rows.
pub type Series = BTreeMap<RowKey, Row>;

/// The values of some facts, by their dimensions.
pub type Totals = BTreeMap<Vec<Option<String>>, Map<String, Value>>;

/// Add a range that begins no earlier than the others, joined with the last one where they meet.
pub(super) fn push_range(ranges: &mut Vec<(i64, i64)>, start: i64, end: i64) {
    match ranges.last_mut() {
        Some((_, known)) if *known >= start => *known = end.max(*known),
        _ => ranges.push((start, end)),
    }
}

/// The ranges, or one over all of them where they are many.
pub(super) fn coalesce_ranges(ranges: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    match (ranges.first(), ranges.last()) {
        (Some(&(from, _)), Some(&(_, to))) if ranges.len() > MAX_DIRTY_RANGES => vec![(from, to)],
        _ => ranges,
    }
}
