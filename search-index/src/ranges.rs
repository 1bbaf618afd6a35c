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

/// Values counted finely, coarsened when everything is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct RangeCounter {
    extremes: Option<[f64; 2]>,
    /// In no order: there may be very many.
    fine: Vec<(i64, u64)>,
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

/// The number of the finest bucket that a value is in.
#[expect(clippy::cast_possible_truncation, reason = "prices, years and kilometres are far below 2^53")]
pub(crate) fn finest_bucket(range: Range, value: f64) -> i64 {
    (value as i64).div_euclid(finest(range))
}

impl RangeCounter {
    /// The least and the most there is, and how often each of the finest buckets is.
    pub(crate) const fn new(extremes: Option<[f64; 2]>, fine: Vec<(i64, u64)>) -> Self {
        Self { extremes, fine }
    }

    pub(crate) fn summary(self, range: Range) -> RangeSummary {
        let buckets = || self.fine.iter().map(|(bucket, _)| *bucket);
        let (Some(first), Some(last)) = (buckets().min(), buckets().max()) else { return RangeSummary::default() };
        let fits = |step: &i64| last.div_euclid(*step).saturating_sub(first.div_euclid(*step)) < MAX_BUCKETS;
        let step = STEPS.into_iter().find(fits).unwrap_or(last.saturating_sub(first) / MAX_BUCKETS + 1);
        let mut coarse: BTreeMap<i64, u64> = BTreeMap::new();
        for (bucket, count) in self.fine {
            *coarse.entry(bucket.div_euclid(step)).or_default() += count;
        }
        // What is empty between others is shown so.
        for bucket in first.div_euclid(step)..last.div_euclid(step) {
            coarse.entry(bucket).or_default();
        }
        let width = step.saturating_mul(finest(range));
        let buckets = coarse.into_iter().map(|(bucket, count)| RangeBucket {
            from: bucket.saturating_mul(width),
            to: bucket.saturating_add(1).saturating_mul(width),
            count,
        });
        RangeSummary {
            min: self.extremes.map(|[least, _]| least),
            max: self.extremes.map(|[_, most]| most),
            buckets: buckets.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{RangeBucket, RangeCounter, finest_bucket};
    use crate::query::Range;

    #[test]
    fn buckets_are_round_few_and_count_everything() {
        let fine = [10_000.0, 999.5, 21_000.0, 10_499.0].map(|price| (finest_bucket(Range::Price, price), 1));
        let summary = RangeCounter::new(Some([999.5, 21_000.0]), fine.into()).summary(Range::Price);
        assert_eq!((summary.min, summary.max), (Some(999.5), Some(21_000.0)));
        let counts = (0..).zip([1, 0, 0, 0, 2, 0, 0, 0, 1]);
        let buckets = counts.map(|(at, count)| RangeBucket { from: at * 2_500, to: (at + 1) * 2_500, count });
        assert_eq!(summary.buckets, buckets.collect::<Vec<_>>());
    }
}
