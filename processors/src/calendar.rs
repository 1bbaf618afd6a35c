//! Buckets of time: hours to years, in any time zone.

use std::{fmt, str::FromStr};

use chrono::{
    DateTime, Datelike, Days, Duration, LocalResult, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Timelike,
};
use chrono_tz::Tz;
use serde::Serialize;

/// The width of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grain {
    Hour,
    Day,
    /// From Monday.
    Week,
    Month,
    Quarter,
    Year,
}

impl Grain {
    pub const ALL: [Self; 6] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Quarter, Self::Year];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Quarter => "quarter",
            Self::Year => "year",
        }
    }
}

impl fmt::Display for Grain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Grain {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|grain| grain.name() == text).ok_or(())
    }
}

/// A grain in a time zone. Times are microseconds since 1970, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Calendar {
    pub grain: Grain,
    pub zone: Tz,
}

impl Calendar {
    /// The start of the bucket a time lies in. `None` beyond the calendar's years.
    #[must_use]
    pub fn start(&self, micros: i64) -> Option<i64> {
        let local = DateTime::from_timestamp_micros(micros)?.with_timezone(&self.zone);
        let date = local.date_naive();
        let first = match self.grain {
            Grain::Hour => {
                // Within an hour the offset is the instant's own: an hour repeated in autumn is two buckets.
                let into = i64::from(local.minute()) * 60_000_000 + i64::from(local.second()) * 1_000_000;
                return Some(micros - into - micros.rem_euclid(1_000_000));
            }
            Grain::Day => date,
            Grain::Week => date.checked_sub_days(Days::new(date.weekday().num_days_from_monday().into()))?,
            Grain::Month => date.with_day(1)?,
            Grain::Quarter => NaiveDate::from_ymd_opt(date.year(), date.month0() / 3 * 3 + 1, 1)?,
            Grain::Year => NaiveDate::from_ymd_opt(date.year(), 1, 1)?,
        };
        self.midnight(first)
    }

    /// The start of the bucket after the one that starts at `start`.
    #[must_use]
    pub fn next(&self, start: i64) -> Option<i64> {
        let date = DateTime::from_timestamp_micros(start)?.with_timezone(&self.zone).date_naive();
        let first = match self.grain {
            Grain::Hour => return Some(start + 3_600_000_000),
            Grain::Day => date.checked_add_days(Days::new(1))?,
            Grain::Week => date.checked_add_days(Days::new(7))?,
            Grain::Month => date.checked_add_months(Months::new(1))?,
            Grain::Quarter => date.checked_add_months(Months::new(3))?,
            Grain::Year => date.checked_add_months(Months::new(12))?,
        };
        self.midnight(first)
    }

    /// The first instant of a local day: not always midnight, where clocks change then.
    fn midnight(&self, date: NaiveDate) -> Option<i64> {
        /// Zones have skipped up to a whole day; clocks change in steps of at least this.
        const STEP_MINUTES: i64 = 15;
        const STEPS: i64 = 24 * 60 / STEP_MINUTES;
        let midnight = NaiveDateTime::new(date, NaiveTime::MIN);
        let instants =
            (0..=STEPS).map(|step| self.zone.from_local_datetime(&(midnight + Duration::minutes(step * STEP_MINUTES))));
        let mut valid = instants.filter_map(|instant| match instant {
            LocalResult::Single(time) | LocalResult::Ambiguous(time, _) => Some(time.timestamp_micros()),
            LocalResult::None => None,
        });
        valid.next()
    }

    /// RFC 3339 in the zone.
    #[must_use]
    pub fn format(&self, micros: i64) -> String {
        let time = DateTime::from_timestamp_micros(micros).map(|time| time.with_timezone(&self.zone));
        time.map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)).unwrap_or_default()
    }

    /// A time from a person: RFC 3339, or a date, which begins at the zone's midnight.
    #[must_use]
    pub fn parse(&self, text: &str) -> Option<i64> {
        match DateTime::parse_from_rfc3339(text) {
            Ok(time) => Some(time.timestamp_micros()),
            Err(_) => self.midnight(NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Calendar, Grain};
    use chrono_tz::Tz;

    fn buckets(zone: Tz, grain: Grain, from: &str, to: &str) -> Vec<String> {
        let calendar = Calendar { grain, zone };
        let end = calendar.parse(to).unwrap();
        let mut start = calendar.start(calendar.parse(from).unwrap()).unwrap();
        let mut starts = Vec::new();
        while start < end {
            assert_eq!(calendar.start(start), Some(start), "a bucket starts where it starts");
            starts.push(calendar.format(start));
            start = calendar.next(start).unwrap();
        }
        starts
    }

    #[test]
    fn days_keep_to_local_midnight_when_clocks_change() {
        let toronto = Tz::America__Toronto;
        assert_eq!(
            buckets(toronto, Grain::Day, "2026-03-07", "2026-03-10"),
            ["2026-03-07T00:00:00-05:00", "2026-03-08T00:00:00-05:00", "2026-03-09T00:00:00-04:00"]
        );
        assert_eq!(buckets(toronto, Grain::Hour, "2026-03-08", "2026-03-09").len(), 23);
        assert_eq!(buckets(toronto, Grain::Hour, "2026-11-01", "2026-11-02").len(), 25);
    }

    #[test]
    fn hours_follow_the_zones_own_minutes() {
        let kathmandu = buckets(Tz::Asia__Kathmandu, Grain::Hour, "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
        assert_eq!(kathmandu, ["2026-01-01T05:00:00+05:45", "2026-01-01T06:00:00+05:45"]);
    }

    #[test]
    fn weeks_begin_on_monday_across_the_year() {
        let weeks = buckets(Tz::UTC, Grain::Week, "2025-12-31", "2026-01-06");
        assert_eq!(weeks, ["2025-12-29T00:00:00Z", "2026-01-05T00:00:00Z"]);
        let quarters = buckets(Tz::UTC, Grain::Quarter, "2026-05-05", "2026-08-01");
        assert_eq!(quarters, ["2026-04-01T00:00:00Z", "2026-07-01T00:00:00Z"]);
        assert_eq!(buckets(Tz::UTC, Grain::Year, "2026-05-05", "2027-01-01"), ["2026-01-01T00:00:00Z"]);
    }
}
