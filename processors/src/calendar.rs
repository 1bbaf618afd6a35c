//! Buckets of time: hours to years, in any time zone.

use std::{fmt, str::FromStr};

pub use chrono::Weekday;
use chrono::{
    DateTime, Datelike, Days, Duration, LocalResult, Months, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone,
    Timelike,
};
use chrono_tz::Tz;
use schemas::time::MICROS_PER_HOUR;
use serde::Serialize;

/// Clocks change at such minutes of an hour, and by such steps: a quarter of it.
const CLOCK_STEP: usize = 15 * 60 * 1_000_000;

/// The width of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grain {
    Hour,
    Day,
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
    /// The first day of a week.
    pub week_start: Weekday,
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
                let start = micros - into - micros.rem_euclid(1_000_000);
                // Where clocks change within an hour, by half of one, its later part begins there.
                let offset = |at: i64| {
                    Some(self.zone.offset_from_utc_datetime(&DateTime::from_timestamp_micros(at)?.naive_utc()).fix())
                };
                let own = offset(micros);
                return (start..=micros).step_by(CLOCK_STEP).find(|at| offset(*at) == own);
            }
            Grain::Day => date,
            Grain::Week => date.checked_sub_days(Days::new(date.weekday().days_since(self.week_start).into()))?,
            Grain::Month => date.with_day(1)?,
            Grain::Quarter => NaiveDate::from_ymd_opt(date.year(), date.month0() / 3 * 3 + 1, 1)?,
            Grain::Year => NaiveDate::from_ymd_opt(date.year(), 1, 1)?,
        };
        self.midnight(first)
    }

    /// The start of the bucket after the one that starts at `start`.
    #[must_use]
    pub fn next(&self, start: i64) -> Option<i64> {
        self.offset(start, 1)
    }

    /// The start of the bucket so many after the one that starts at `start`; before it, when negative.
    #[must_use]
    pub fn offset(&self, start: i64, count: i64) -> Option<i64> {
        match self.grain {
            Grain::Hour if count == 1 => {
                let whole = start + MICROS_PER_HOUR;
                let part = (start..whole).step_by(CLOCK_STEP).skip(1).find(|at| self.start(*at) == Some(*at));
                Some(part.unwrap_or(whole))
            }
            Grain::Hour => self.start(start.checked_add(count.checked_mul(MICROS_PER_HOUR)?)?),
            Grain::Day => self.moved(start, count, 0),
            Grain::Week => self.moved(start, count.checked_mul(7)?, 0),
            Grain::Month => self.moved(start, 0, count),
            Grain::Quarter => self.moved(start, 0, count.checked_mul(3)?),
            Grain::Year => self.moved(start, 0, count.checked_mul(12)?),
        }
    }

    /// How many years lie between two times: of each year its part, by its own length.
    #[must_use]
    pub fn years(&self, from: i64, to: i64) -> Option<f64> {
        let years = Self { grain: Grain::Year, ..*self };
        let at = |time: i64| {
            let start = years.start(time)?;
            let year = DateTime::from_timestamp_micros(start)?.with_timezone(&self.zone).year();
            #[expect(clippy::cast_precision_loss, reason = "less than a year and its length")]
            let part = (time - start) as f64 / (years.next(start)? - start) as f64;
            Some((year, part))
        };
        let ((first, begun), (last, ended)) = (at(from)?, at(to)?);
        Some(f64::from(last - first) + (ended - begun))
    }

    /// The start of the bucket of the same grain that lies so long before, by the local calendar.
    #[must_use]
    pub fn ago(&self, start: i64, ago: Ago) -> Option<i64> {
        let (days, months) = match ago {
            Ago::Days(days) => (days, 0),
            Ago::Months(months) => (0, months),
        };
        if self.grain == Grain::Hour {
            // The same hour of the clock, or the next there is.
            let local = DateTime::from_timestamp_micros(start)?.with_timezone(&self.zone);
            let date = moved(local.date_naive(), -days, -months)?;
            let at = NaiveDateTime::new(date, local.time());
            let at = [0, 1, 2]
                .into_iter()
                .find_map(|hours| self.zone.from_local_datetime(&(at + Duration::hours(hours))).earliest());
            return self.start(at?.timestamp_micros());
        }
        self.start(self.moved(start, -days, -months)?)
    }

    fn moved(&self, start: i64, days: i64, months: i64) -> Option<i64> {
        let date = DateTime::from_timestamp_micros(start)?.with_timezone(&self.zone).date_naive();
        self.midnight(moved(date, days, months)?)
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

/// How long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ago {
    Days(i64),
    Months(i64),
}

fn moved(date: NaiveDate, days: i64, months: i64) -> Option<NaiveDate> {
    let by = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
    let date = if months < 0 { date.checked_sub_months(by) } else { date.checked_add_months(by) }?;
    date.checked_add_signed(Duration::try_days(days)?)
}

#[cfg(test)]
mod tests {
    use super::{Ago, Calendar, Grain};
    use chrono::Weekday;
    use chrono_tz::Tz;

    fn buckets(zone: Tz, grain: Grain, from: &str, to: &str) -> Vec<String> {
        let calendar = Calendar { grain, zone, week_start: Weekday::Mon };
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
    fn a_years_buckets_are_parts_of_it_that_add_up() {
        for zone in [Tz::UTC, Tz::America__Toronto, Tz::Australia__Lord_Howe] {
            for grain in [Grain::Hour, Grain::Day, Grain::Month, Grain::Quarter, Grain::Year] {
                let calendar = Calendar { grain, zone, week_start: Weekday::Mon };
                let (from, to) = (calendar.parse("2023-01-01").unwrap(), calendar.parse("2026-01-01").unwrap());
                let (mut start, mut sum) = (from, 0.0);
                while start < to {
                    let next = calendar.next(start).unwrap();
                    sum += calendar.years(start, next).unwrap();
                    start = next;
                }
                assert!((sum - 3.0).abs() < 1e-9, "{zone} {grain}: {sum}");
                assert_eq!(calendar.years(from, to), Some(3.0));
            }
        }
        let calendar = Calendar { grain: Grain::Day, zone: Tz::UTC, week_start: Weekday::Mon };
        let day = |text: &str| calendar.parse(text).unwrap();
        let years = calendar.years(day("2024-02-28"), day("2024-03-01")).unwrap();
        assert!((years - 2.0 / 366.0).abs() < 1e-12, "{years}");
    }

    #[test]
    fn hours_follow_the_zones_own_minutes() {
        let kathmandu = buckets(Tz::Asia__Kathmandu, Grain::Hour, "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
        assert_eq!(kathmandu, ["2026-01-01T05:00:00+05:45", "2026-01-01T06:00:00+05:45"]);
    }

    #[test]
    fn where_clocks_change_by_half_an_hour_the_hour_ends_there() {
        let lord_howe = Tz::Australia__Lord_Howe;
        let spring = buckets(lord_howe, Grain::Hour, "2026-10-04T01:00:00+10:30", "2026-10-04T04:00:00+11:00");
        let expected = ["01:00:00+10:30", "02:30:00+11:00", "03:00:00+11:00"].map(|hour| format!("2026-10-04T{hour}"));
        assert_eq!(spring, expected);
        let autumn = buckets(lord_howe, Grain::Hour, "2026-04-05T00:00:00+11:00", "2026-04-05T03:00:00+10:30");
        let expected = ["00:00:00+11:00", "01:00:00+11:00", "01:30:00+10:30", "02:00:00+10:30"];
        assert_eq!(autumn, expected.map(|hour| format!("2026-04-05T{hour}")));
        let days = buckets(lord_howe, Grain::Day, "2026-10-03", "2026-10-06");
        let expected = ["2026-10-03T00:00:00+10:30", "2026-10-04T00:00:00+10:30", "2026-10-05T00:00:00+11:00"];
        assert_eq!(days, expected);
    }

    #[test]
    fn weeks_begin_on_monday_across_the_year() {
        let weeks = buckets(Tz::UTC, Grain::Week, "2025-12-31", "2026-01-06");
        assert_eq!(weeks, ["2025-12-29T00:00:00Z", "2026-01-05T00:00:00Z"]);
        let quarters = buckets(Tz::UTC, Grain::Quarter, "2026-05-05", "2026-08-01");
        assert_eq!(quarters, ["2026-04-01T00:00:00Z", "2026-07-01T00:00:00Z"]);
        assert_eq!(buckets(Tz::UTC, Grain::Year, "2026-05-05", "2027-01-01"), ["2026-01-01T00:00:00Z"]);
    }

    #[test]
    fn a_bucket_is_compared_with_the_same_of_the_local_calendar() {
        let toronto = |grain| Calendar { grain, zone: Tz::America__Toronto, week_start: Weekday::Mon };
        let before = |grain, at: &str, ago| {
            let calendar: Calendar = toronto(grain);
            calendar.format(calendar.ago(calendar.parse(at).unwrap(), ago).unwrap())
        };
        assert_eq!(before(Grain::Day, "2026-03-09", Ago::Days(1)), "2026-03-08T00:00:00-05:00");
        assert_eq!(before(Grain::Day, "2024-02-29", Ago::Months(12)), "2023-02-28T00:00:00-05:00");
        assert_eq!(before(Grain::Hour, "2027-03-14T12:00:00-04:00", Ago::Months(12)), "2026-03-14T12:00:00-04:00");
        // The hour that was skipped that day is answered by the next.
        assert_eq!(before(Grain::Hour, "2026-03-09T02:00:00-04:00", Ago::Days(1)), "2026-03-08T03:00:00-04:00");
        assert_eq!(before(Grain::Week, "2027-01-04", Ago::Days(364)), "2026-01-05T00:00:00-05:00");
        let sundays = Calendar { week_start: Weekday::Sun, ..toronto(Grain::Week) };
        assert_eq!(
            sundays.format(sundays.start(sundays.parse("2026-11-19").unwrap()).unwrap()),
            "2026-11-15T00:00:00-05:00"
        );
        let months = toronto(Grain::Month);
        assert_eq!(
            months.format(months.offset(months.parse("2026-03-01").unwrap(), -3).unwrap()),
            "2025-12-01T00:00:00-05:00"
        );
    }
}
