//! Histograms whose buckets are round numbers.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::query::Range;

/// Buckets shown at most.
const MAX_BUCKETS: i64 = 20;

/// The spread of a field over the matches.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RangeSummary {
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub buckets: Vec<RangeBucket>,
}

/// How many matches lie in `[from, to)`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RangeBucket {
    pub from: i64,
    pub to: i64,
    pub count: u64,
}

/// Counts values finely, and coarsens when everything is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct RangeCounter {
    min: Option<f64>,
    max: Option<f64>,
    fine: BTreeMap<i64, u64>,
}

/// The finest bucket of a range; all others are multiples.
const fn finest(range: Range) -> i64 {
    match range {
        Range::Price => 500,
        Range::Year => 1,
        Range::Mileage => 1_000,
    }
}

/// Multiples of the finest that make round buckets.
const STEPS: [i64; 13] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];

impl RangeCounter {
    #[expect(clippy::cast_possible_truncation, reason = "prices, years and kilometres are far below 2^53")]
    pub(crate) fn add(&mut self, range: Range, value: f64) {
        self.min = Some(self.min.map_or(value, |min| min.min(value)));
        self.max = Some(self.max.map_or(value, |max| max.max(value)));
        *self.fine.entry((value as i64).div_euclid(finest(range))).or_default() += 1;
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.min = [self.min, other.min].into_iter().flatten().reduce(f64::min);
        self.max = [self.max, other.max].into_iter().flatten().reduce(f64::max);
        for (bucket, count) in other.fine {
            *self.fine.entry(bucket).or_default() += count;
        }
    }

    pub(crate) fn summary(self, range: Range) -> RangeSummary {
        let (Some((&first, _)), Some((&last, _))) = (self.fine.first_key_value(), self.fine.last_key_value()) else {
            return RangeSummary::default();
        };
        let fits = |step: &i64| last.div_euclid(*step).saturating_sub(first.div_euclid(*step)) < MAX_BUCKETS;
        let step = STEPS.into_iter().find(fits).unwrap_or(last.saturating_sub(first) / MAX_BUCKETS + 1);
        let mut coarse: BTreeMap<i64, u64> = BTreeMap::new();
        for (bucket, count) in self.fine {
            *coarse.entry(bucket.div_euclid(step)).or_default() += count;
        }
        let width = step.saturating_mul(finest(range));
        let buckets = coarse.into_iter().map(|(bucket, count)| RangeBucket {
            from: bucket.saturating_mul(width),
            to: bucket.saturating_add(1).saturating_mul(width),
            count,
        });
        RangeSummary { min: self.min, max: self.max, buckets: buckets.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::{RangeBucket, RangeCounter};
    use crate::query::Range;

    #[test]
    fn buckets_are_round_few_and_count_everything() {
        let mut counter = RangeCounter::default();
        for price in [999.5, 10_000.0, 10_499.0, 61_000.0] {
            counter.add(Range::Price, price);
        }
        let summary = counter.summary(Range::Price);
        assert_eq!((summary.min, summary.max), (Some(999.5), Some(61_000.0)));
        let bucket = |from, to, count| RangeBucket { from, to, count };
        assert_eq!(summary.buckets, [bucket(0, 5_000, 1), bucket(10_000, 15_000, 2), bucket(60_000, 65_000, 1)]);
    }
}
