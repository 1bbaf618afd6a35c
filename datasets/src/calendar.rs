//! When things begin: more on weekends and in spring, in the daytime, and never in the order of a clock.
//!
//! The weights are assumptions after what marketplaces publish about themselves: sellers ask for offers about a quarter
//! more on weekends than on weekdays, spring has about a fifth more than the year's mean and midwinter a fifth less, and
//! evenings are the busiest hours.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use schemas::{
    field_type::format_timestamp,
    time::{MICROS_PER_DAY, MICROS_PER_HOUR},
};

/// Monday to Sunday.
const WEEK: [f64; 7] = [0.95, 0.90, 0.90, 0.95, 1.00, 1.20, 1.10];
/// January to December.
const YEAR: [f64; 12] = [0.80, 0.85, 1.10, 1.20, 1.20, 1.10, 1.00, 1.00, 0.95, 0.95, 0.95, 0.90];
/// Midnight to midnight in UTC, for people whose clocks are five hours behind.
const DAY: [f64; 24] = [
    1.6, 1.8, 1.7, 1.3, 0.8, 0.4, 0.2, 0.1, 0.1, 0.1, 0.1, 0.2, 0.5, 0.8, 1.1, 1.3, 1.4, 1.5, 1.4, 1.3, 1.3, 1.3, 1.4,
    1.5,
];
/// The first of January 1970 was a Thursday.
const FIRST_WEEKDAY: i64 = 3;

/// When each of a number of things begins. They begin in the order of their numbers.
#[derive(Debug)]
pub(crate) struct Calendar {
    seed: u64,
    start: i64,
    things: f64,
    /// The weight of all days before each, and of all: of the last day, as much as there is.
    before: Vec<f64>,
}

impl Calendar {
    /// `things` that begin from `start`, a midnight, to `last`.
    pub(crate) fn new(seed: u64, start: i64, last: i64, things: u32) -> Self {
        let mut before = vec![0.0];
        let (mut sum, mut day) = (0.0, start);
        while day < last {
            sum += weight(day) * share_until((last - day) as f64 / MICROS_PER_HOUR as f64);
            before.push(sum);
            day += MICROS_PER_DAY;
        }
        Self { seed, start, things: f64::from(things), before }
    }

    /// When a thing begins, in microseconds since 1970, UTC, at a millisecond.
    pub(crate) fn begin(&self, number: u32) -> i64 {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ 0x00CA_1E4D_A200_0000);
        rng.set_stream(u64::from(number));
        let share = (f64::from(number) + rng.random::<f64>()) / self.things;
        let target = share * self.before.last().copied().unwrap_or_default();
        let day = self.before.partition_point(|before| *before <= target).clamp(1, self.before.len() - 1) - 1;
        let midnight = self.start + day as i64 * MICROS_PER_DAY;
        let of_day = (target - self.before[day]) / weight(midnight);
        #[expect(clippy::cast_possible_truncation, reason = "a part of a day")]
        let offset = (at_share(of_day) * MICROS_PER_HOUR as f64) as i64;
        midnight + offset / 1_000 * 1_000
    }
}

pub(crate) fn weight(day: i64) -> f64 {
    let days = day.div_euclid(MICROS_PER_DAY);
    let weekday = (days + FIRST_WEEKDAY).rem_euclid(7);
    let month = format_timestamp(day)["2026-".len().."2026-01".len()].parse().unwrap_or(1_usize);
    WEEK[weekday.unsigned_abs() as usize] * YEAR[month - 1]
}

/// The share of a day's things that has begun by this hour.
fn share_until(hour: f64) -> f64 {
    let parts = (0_u32..).zip(DAY).map(|(begin, weight)| weight * (hour - f64::from(begin)).clamp(0.0, 1.0));
    parts.sum::<f64>() / DAY.iter().sum::<f64>()
}

/// The hour of the day by which this share of the day's things has begun.
pub(crate) fn at_share(share: f64) -> f64 {
    let target = share * DAY.iter().sum::<f64>();
    let mut before = 0.0;
    for (hour, weight) in DAY.iter().enumerate() {
        if before + weight >= target {
            return hour as f64 + (target - before) / weight;
        }
        before += weight;
    }
    24.0
}
