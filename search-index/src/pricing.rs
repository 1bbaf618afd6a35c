//! What cars like one are offered for: a model of asking prices.
//!
//! The logarithm of a price is a line through age and mileage, fitted to all cars at once; body types, makes, a make's body
//! types, then models bend it where they have listings enough, then trims and places move it. Each step explains what those before it left
//! unexplained, shrinks towards nothing where listings are few (ridge regression), and gives less weight to prices far
//! from it, so that a wrong price moves little (Huber's weights; P. J. Huber, "Robust Estimation of a Location
//! Parameter", 1964).

use std::{collections::BTreeMap, hash::Hash};

/// Prices further from a fit than so many of its deviations count less, the further the less.
const HUBER: f64 = 1.345;
/// From a median absolute deviation to a standard deviation, for what is distributed normally.
const MAD: f64 = 1.4826;
/// Rounds of giving weights and fitting again.
const ROUNDS: usize = 4;
/// How many listings without any difference a group's own are weighed against.
const OF_BODY: [f64; 3] = [3.0, 1.0, 1.0];
const OF_MAKE: [f64; 3] = [3.0, 1.0, 1.0];
const OF_KIND: [f64; 3] = [3.0, 1.0, 1.0];
const OF_MODEL: [f64; 3] = [1.0, 0.5, 0.5];
const OF_TRIM: [f64; 1] = [1.0];
const OF_PLACE: [f64; 1] = [20.0];
/// What holds every slope to zero, by listing: it decides only what the listings do not, such as how age and its square part
/// where all are of one year.
const HELD: f64 = 1e-6;
/// Listings of a kind without which nothing is said of its price.
const FEWEST: u32 = 5;
/// Listings count as comparable when they are this many years apart at most.
const YEARS_APART: i32 = 2;
/// What a car is driven in a year, where its mileage is not known, in km.
const DRIVEN: f64 = 15_000.0;
/// One listing in so many is held out to measure the error.
const HELD_OUT: usize = 5;

/// What decides a car's price, names as numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Car {
    pub(crate) make: u32,
    pub(crate) model: u32,
    pub(crate) trim: Option<u32>,
    pub(crate) body: Option<u32>,
    pub(crate) province: Option<u32>,
    pub(crate) year: i32,
    /// Kilometres.
    pub(crate) mileage: Option<f64>,
}

/// What cars like one are offered for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub price: f64,
    /// Listings of the kind that are not much older or newer; a listing itself is among its own.
    pub comparables: u32,
    pub kind: Kind,
}

/// What listings have in common with the one that they are compared with: the closest of which there are enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Model and trim.
    Trim,
    Model,
    /// Make and body type.
    Body,
}

impl Kind {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trim => "trim",
            Self::Model => "model",
            Self::Body => "body_type",
        }
    }
}

/// How wrong the model is about listings it has not seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeldOut {
    pub listings: usize,
    /// The median of the differences between price and estimate, as a share of the price.
    pub median_error: f64,
}

/// A group's own line: what to add to those before it.
type Line = [f64; 3];

#[derive(Debug)]
struct Group<const N: usize> {
    line: [f64; N],
    /// Listings by model year.
    years: BTreeMap<i32, u32>,
}

impl<const N: usize> Group<N> {
    fn comparables(&self, year: i32) -> u32 {
        self.years
            .range(year.saturating_sub(YEARS_APART)..=year.saturating_add(YEARS_APART))
            .map(|(_, count)| count)
            .sum()
    }
}

#[derive(Debug, Default)]
pub(crate) struct PriceModel {
    /// This year, with its part that has passed.
    now: f64,
    base: [f64; 4],
    bodies: BTreeMap<u32, Group<3>>,
    makes: BTreeMap<u32, Group<3>>,
    /// Body types of makes.
    kinds: BTreeMap<(u32, u32), Group<3>>,
    models: BTreeMap<(u32, u32), Group<3>>,
    trims: BTreeMap<(u32, u32, u32), Group<1>>,
    places: BTreeMap<u32, Group<1>>,
}

impl PriceModel {
    /// Learn from what is offered. `now` is this year, with its part that has passed.
    pub(crate) fn learn(offers: &[(Car, f64)], now: f64) -> Self {
        let mut model = Self { now, ..Self::default() };
        let mut left: Vec<f64> = offers.iter().map(|(_, price)| price.ln()).collect();
        let every: Vec<([f64; 4], f64)> =
            offers.iter().zip(&left).map(|((car, _), price)| (model.shape(car), *price)).collect();
        model.base = fit(&every, [0.0; 4]);
        for ((shape, _), left) in every.iter().zip(&mut left) {
            *left -= dot(shape, &model.base);
        }
        let line = |car: &Car| {
            let [one, age, _, mileage] = model.shape(car);
            [one, age, mileage]
        };
        let bodies = groups(offers, &mut left, |car| car.body, line, OF_BODY);
        let makes = groups(offers, &mut left, |car| Some(car.make), line, OF_MAKE);
        let kinds = groups(offers, &mut left, |car| Some((car.make, car.body?)), line, OF_KIND);
        let models = groups(offers, &mut left, |car| Some((car.make, car.model)), line, OF_MODEL);
        let trim = |car: &Car| Some((car.make, car.model, car.trim?));
        let trims = groups(offers, &mut left, trim, |_| [1.0], OF_TRIM);
        let places = groups(offers, &mut left, |car| car.province, |_| [1.0], OF_PLACE);
        Self { bodies, makes, kinds, models, trims, places, ..model }
    }

    /// What cars like this one are offered for; none, when too few are like it.
    pub(crate) fn estimate(&self, car: &Car) -> Option<Estimate> {
        let body = car.body.and_then(|body| self.bodies.get(&body));
        let make = self.makes.get(&car.make);
        let kind = car.body.and_then(|body| self.kinds.get(&(car.make, body)));
        let model = self.models.get(&(car.make, car.model));
        let trim = car.trim.and_then(|trim| self.trims.get(&(car.make, car.model, trim)));
        let place = car.province.and_then(|province| self.places.get(&province));
        let counts = [
            (Kind::Trim, trim.map_or(0, |trim| trim.comparables(car.year))),
            (Kind::Model, model.map_or(0, |model| model.comparables(car.year))),
            (Kind::Body, kind.map_or(0, |kind| kind.comparables(car.year))),
        ];
        let (compared, comparables) = counts.into_iter().find(|(_, comparables)| *comparables >= FEWEST)?;
        let shape = self.shape(car);
        let [one, age, _, mileage] = shape;
        let line: Line = [one, age, mileage];
        let lines = [body, make, kind, model].into_iter().flatten().map(|group| dot(&line, &group.line));
        let constants = [trim, place].into_iter().flatten().map(|group| group.line[0]);
        let price = (dot(&shape, &self.base) + lines.sum::<f64>() + constants.sum::<f64>()).exp();
        Some(Estimate { price, comparables, kind: compared })
    }

    /// Learn from some of each market, and see how far the price of the others is from what is estimated for them.
    pub(crate) fn held_out<'a>(markets: impl Iterator<Item = &'a [(Car, f64)]>, now: f64) -> Option<HeldOut> {
        // In an order that has nothing to do with how they lie.
        let is_held_out = |index: usize| (index.wrapping_mul(0x9E37_79B9) / 1_024).is_multiple_of(HELD_OUT);
        let mut errors: Vec<f64> = Vec::new();
        for offers in markets {
            let (mut known, mut unknown) = (Vec::new(), Vec::new());
            for (index, offer) in offers.iter().enumerate() {
                if is_held_out(index) { &mut unknown } else { &mut known }.push(*offer);
            }
            let model = Self::learn(&known, now);
            let estimated = unknown.iter().filter_map(|(car, price)| Some(model.estimate(car)?.price / price - 1.0));
            errors.extend(estimated.map(f64::abs));
        }
        let listings = errors.len();
        Some(HeldOut { listings, median_error: median(&mut errors)? })
    }

    /// One, age in tens of years, its square, and mileage in hundreds of thousands of km.
    fn shape(&self, car: &Car) -> [f64; 4] {
        let years = (self.now - f64::from(car.year)).clamp(0.0, 30.0);
        let mileage = car.mileage.unwrap_or(years * DRIVEN).clamp(0.0, 500_000.0);
        let age = years / 10.0;
        [1.0, age, age * age, mileage / 100_000.0]
    }
}

/// Fit each group to what is left of the prices, and take from that what it explains.
fn groups<K: Ord + Hash, const N: usize>(
    offers: &[(Car, f64)],
    left: &mut [f64],
    key: impl Fn(&Car) -> Option<K>,
    shape: impl Fn(&Car) -> [f64; N],
    against: [f64; N],
) -> BTreeMap<K, Group<N>> {
    let mut members: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    for (index, (car, _)) in offers.iter().enumerate() {
        if let Some(key) = key(car) {
            members.entry(key).or_default().push(index);
        }
    }
    let groups = members.into_iter().map(|(key, members)| {
        let rows: Vec<([f64; N], f64)> = members.iter().map(|&index| (shape(&offers[index].0), left[index])).collect();
        let mut group = Group { line: fit(&rows, against), years: BTreeMap::new() };
        for (&index, (shape, _)) in members.iter().zip(&rows) {
            left[index] -= dot(shape, &group.line);
            *group.years.entry(offers[index].0.year).or_default() += 1;
        }
        (key, group)
    });
    groups.collect()
}

/// The weights of a row's numbers whose sum is nearest to its value, over all rows; `against` holds each to zero.
fn fit<const N: usize>(rows: &[([f64; N], f64)], against: [f64; N]) -> [f64; N] {
    let mut found = [0.0; N];
    let mut deviation = f64::INFINITY;
    for _ in 0..ROUNDS {
        let mut sums = [[0.0; N]; N];
        let mut values = [0.0; N];
        for (at, held) in against.iter().enumerate() {
            sums[at][at] = held + HELD * weight_of(rows.len());
        }
        for (row, value) in rows {
            let apart = (value - dot(row, &found)).abs();
            let weight = if apart > HUBER * deviation { HUBER * deviation / apart } else { 1.0 };
            for (sums, (sum, x)) in sums.iter_mut().zip(values.iter_mut().zip(row)) {
                *sum += weight * x * value;
                sums.iter_mut().zip(row).for_each(|(sum, y)| *sum += weight * x * y);
            }
        }
        found = solve(sums, values);
        let mut apart: Vec<f64> = rows.iter().map(|(row, value)| (value - dot(row, &found)).abs()).collect();
        deviation = median(&mut apart).map_or(f64::INFINITY, |median| (MAD * median).max(1e-3));
    }
    found
}

/// Gauss's elimination; the sums are symmetric, and what is added to their diagonal keeps every pivot from zero.
fn solve<const N: usize>(mut sums: [[f64; N]; N], mut values: [f64; N]) -> [f64; N] {
    for at in 0..N {
        let (pivot, value) = (sums[at], values[at]);
        for below in at + 1..N {
            let factor = sums[below][at] / pivot[at];
            sums[below].iter_mut().zip(pivot).for_each(|(sum, above)| *sum -= factor * above);
            values[below] -= factor * value;
        }
    }
    let mut found = [0.0; N];
    for at in (0..N).rev() {
        let known: f64 = (at + 1..N).map(|other| sums[at][other] * found[other]).sum();
        let value = (values[at] - known) / sums[at][at];
        // What no listing tells apart says nothing.
        found[at] = if value.is_finite() { value } else { 0.0 };
    }
    found
}

#[expect(clippy::cast_precision_loss, reason = "listings are far below 2^53")]
fn weight_of(rows: usize) -> f64 {
    (rows + 1) as f64
}

fn dot<const N: usize>(a: &[f64; N], b: &[f64; N]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f64::total_cmp).1)
}

#[cfg(test)]
mod tests;
