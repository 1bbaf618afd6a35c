//! A whole history, in event-time order.
//!
//! Every vehicle's life is a thread of its own, with its own random numbers, so that lives are told on every core and the
//! history is the same. What is told waits until nothing earlier can come; memory holds the lives that overlap, however
//! long the history is.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Write},
    num::NonZero,
    thread,
};

use schemas::{
    Catalogue,
    catalogue::CatalogueError,
    envelope::{Style, dress},
    time::{MICROS_PER_DAY, MICROS_PER_HOUR},
};
use serde_json::Value;

use crate::{
    acquisition, after_sale,
    calendar::{self, Calendar},
    car::KINDS,
    courses, dealers,
    disorder::{Arrivals, Disorder},
    listing, loyalty, office, production, sale, shop,
    stock::{self, MEAN_STAY_DAYS},
    story::{Story, Told},
    truth::Truth,
};

/// A vehicle's life from its first offer to its last claim takes about this long; a shorter history tells it faster.
const LIFE_DAYS: f64 = 90.0;
/// Threads of a seed that are days', beside the vehicles'.
const DAY_STREAMS: u64 = 1 << 40;
/// And those of the cars that dealers list, so many a day at most.
const STOCK_STREAMS: u64 = 1 << 41;
const MAX_STOCK_PER_DAY: u64 = 1 << 20;
/// The day, since 1970, whose markets have the bare seed.
const FIRST_OF_2026: i64 = 20_454;
/// An odd number whose multiples look like random ones (2^64 divided by the golden ratio).
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
/// Lives told at once, by all cores together.
const AT_ONCE: u32 = 256;

/// A market to be simulated. The same market is the same bytes.
#[derive(Clone, Copy, Debug)]
pub struct Market {
    pub seed: u64,
    pub days: u32,
    /// How many vehicles the marketplace buys.
    pub vehicles: u32,
    /// About how many cars dealers have on offer at any time. Only their listing events are generated.
    pub stock: u32,
    /// The first midnight: microseconds since 1970, UTC.
    pub start: i64,
    /// Nothing happens at or after this, though the market's days go on.
    pub until: i64,
    /// How its events are written.
    pub style: Style,
    /// What befalls its events on their way.
    pub disorder: Disorder,
}

/// A history that could not be told.
#[derive(Debug, thiserror::Error)]
pub enum MarketError {
    #[error("the catalogue cannot be read")]
    Catalogue(#[from] CatalogueError),
    #[error("the history cannot be written")]
    Write(#[from] io::Error),
}

impl Market {
    /// A market whose events are canonical, and arrive as they happen.
    #[must_use]
    pub const fn new(seed: u64, start: i64, days: u32, vehicles: u32) -> Self {
        Self {
            seed,
            days,
            vehicles,
            stock: 0,
            start,
            until: i64::MAX,
            style: Style::Canonical,
            disorder: Disorder::NONE,
        }
    }

    /// Write the history, one event per line, in the order in which the events arrive; what happened in it.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn write(&self, output: &mut dyn Write) -> Result<Truth, MarketError> {
        self.play(&mut |line| {
            output.write_all(line.as_bytes())?;
            output.write_all(b"\n")
        })
    }

    /// Give every line to `sink`, in the order in which the events arrive; what happened in them.
    ///
    /// # Errors
    /// What `sink` says.
    pub fn play(&self, sink: &mut dyn FnMut(&str) -> io::Result<()>) -> Result<Truth, MarketError> {
        self.play_on(thread::available_parallelism().map_or(1, NonZero::get), sink)
    }

    /// Give every event with its time to `sink`, in the order in which they happen.
    ///
    /// # Errors
    /// What `sink` says.
    pub fn events(&self, sink: &mut dyn FnMut(i64, &str) -> io::Result<()>) -> Result<(), MarketError> {
        let catalogue = Catalogue::embedded()?;
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let mut history = History::new(self, &catalogue, cores);
        while let Some(told) = history.next_event() {
            sink(told.time, &told.line)?;
        }
        Ok(())
    }

    fn play_on(&self, cores: usize, sink: &mut dyn FnMut(&str) -> io::Result<()>) -> Result<Truth, MarketError> {
        let catalogue = Catalogue::embedded()?;
        let mut truth = Truth::default();
        let mut arrivals = Arrivals::new(self.seed, self.disorder);
        let mut history = History::new(self, &catalogue, cores);
        let mut name = String::new();
        while let Some(told) = history.next_event() {
            arrivals.before(told.time, &mut truth, sink)?;
            name.clear();
            name.extend([told.context, ".", told.name]);
            truth.count(&name);
            for fact in &told.facts {
                truth.take(told.time, fact);
            }
            let line = if self.style == Style::Canonical { told.line } else { self.dressed(&catalogue, &told) };
            arrivals.send(told.time, line, &mut truth, sink)?;
        }
        arrivals.before(i64::MAX, &mut truth, sink)?;
        Ok(truth)
    }

    fn dressed(&self, catalogue: &Catalogue, told: &Told) -> String {
        let event: Value = serde_json::from_str(&told.line).unwrap_or_default();
        let definition = catalogue.context(told.context).and_then(|(_, context)| context.event(told.name));
        definition.map_or_else(String::new, |definition| {
            dress(self.style, catalogue, told.context, definition, &event).to_string()
        })
    }

    /// The midnight after its last day, in microseconds since 1970, UTC.
    #[must_use]
    pub fn end(&self) -> i64 {
        self.start + i64::from(self.days) * MICROS_PER_DAY
    }

    fn pace(&self) -> f64 {
        (f64::from(self.days) / LIFE_DAYS).min(1.0)
    }

    /// One vehicle's life, which begins at `begin`.
    fn vehicle(&self, catalogue: &Catalogue, told: &mut Vec<Told>, number: u32, begin: i64) {
        let mut story = Story::new(catalogue, told, self.thread_seed(), u64::from(number), begin, self.pace());
        acquisition::offers_that_fail(&mut story, number, self.start);
        let mut car = acquisition::meet(&mut story, number, self.start);
        let cost = acquisition::buy(&mut story, &car);
        if !production::recondition(&mut story, &mut car) {
            return;
        }
        let price = listing::publish(&mut story, &car, cost);
        let sold = sale::sell(&mut story, &car, price);
        if let Some(sold) = sold {
            after_sale::deliver_and_keep(&mut story, &car, &sold);
        }
    }

    /// A day of everything around the vehicles.
    fn day(&self, catalogue: &Catalogue, told: &mut Vec<Told>, day: u32) {
        let begin = self.start + i64::from(day) * MICROS_PER_DAY;
        let per_day = f64::from(self.vehicles) / f64::from(self.days);
        let story =
            &mut Story::new(catalogue, told, self.thread_seed(), DAY_STREAMS + u64::from(day), begin, self.pace());
        office::day(story, day, self.vehicles);
        shop::day(story, day, per_day);
        dealers::day(story, day, per_day);
        courses::day(story, day, per_day);
        loyalty::day(story, day, per_day);
        office::alert(story, day, begin);
        self.stock(catalogue, told, day, begin);
    }

    /// The cars that dealers list on a day.
    fn stock(&self, catalogue: &Catalogue, told: &mut Vec<Told>, day: u32, begin: i64) {
        let first = STOCK_STREAMS + u64::from(day) * MAX_STOCK_PER_DAY;
        let per_day = f64::from(self.stock) / (MEAN_STAY_DAYS * self.pace());
        let mut nothing = Vec::new();
        let counter = Story::new(catalogue, &mut nothing, self.thread_seed(), first, begin, self.pace());
        let listed = u64::from(counter.count(per_day * calendar::weight(begin)));
        for number in 1..=listed.min(MAX_STOCK_PER_DAY - 1) {
            let mut story = Story::new(catalogue, told, self.thread_seed(), first + number, begin, self.pace());
            #[expect(clippy::cast_possible_truncation, reason = "a part of a day")]
            let offset = (calendar::at_share(story.between(0.0, 1.0)) * MICROS_PER_HOUR as f64) as i64;
            story.jump(begin + offset / 1_000 * 1_000);
            stock::offer(&mut story, self.start);
        }
    }

    /// Another seed and another first day give other ids.
    const fn thread_seed(&self) -> u64 {
        let day = self.start.div_euclid(MICROS_PER_DAY) - FIRST_OF_2026;
        self.seed ^ day.cast_unsigned().wrapping_mul(SPREAD)
    }
}

/// The events of a market in order.
struct History<'a> {
    market: &'a Market,
    catalogue: &'a Catalogue,
    calendar: Calendar,
    next_vehicle: u32,
    next_day: u32,
    cores: usize,
    /// What has been told and may still be preceded, by its hour.
    waiting: BTreeMap<i64, Vec<Told>>,
    ready: VecDeque<Told>,
}

impl<'a> History<'a> {
    fn new(market: &'a Market, catalogue: &'a Catalogue, cores: usize) -> Self {
        Self {
            market,
            catalogue,
            // Until the last day, though the last lives are not told to their end: a market does not stop.
            calendar: Calendar::new(market.seed, market.start, market.end(), market.vehicles),
            next_vehicle: 0,
            next_day: 0,
            cores,
            waiting: BTreeMap::new(),
            ready: VecDeque::new(),
        }
    }

    fn next_event(&mut self) -> Option<Told> {
        while self.ready.is_empty() {
            let horizon = self.horizon();
            let hour = self.waiting.first_key_value().map(|(hour, _)| *hour);
            match hour {
                Some(hour) if (hour + 1) * MICROS_PER_HOUR <= horizon => {
                    let mut told = self.waiting.pop_first().map(|(_, told)| told).unwrap_or_default();
                    told.sort_unstable_by_key(|event| (event.time, event.order));
                    self.ready.extend(told);
                }
                _ if horizon == i64::MAX => return None,
                _ => self.tell_more(),
            }
        }
        self.ready.pop_front()
    }

    /// Nothing that is still to be told is before this.
    fn horizon(&self) -> i64 {
        let vehicle = if self.next_vehicle < self.market.vehicles { self.begin(self.next_vehicle) } else { i64::MAX };
        let day = if self.next_day < self.market.days {
            self.market.start + i64::from(self.next_day) * MICROS_PER_DAY
        } else {
            i64::MAX
        };
        vehicle.min(day)
    }

    fn begin(&self, vehicle: u32) -> i64 {
        // The first of each kind begin at once, so that every kind of life is told to its end.
        if vehicle < KINDS { self.market.start + i64::from(vehicle) * 1_000 } else { self.calendar.begin(vehicle) }
    }

    /// Tell the next lives, and the days until then.
    fn tell_more(&mut self) {
        let from = self.next_vehicle;
        let to = from.saturating_add(AT_ONCE).min(self.market.vehicles);
        self.next_vehicle = to;
        let per_core = (to - from).div_ceil(u32::try_from(self.cores).unwrap_or(1)).max(1);
        let starts = (from..to).step_by(per_core as usize);
        let (market, catalogue, this) = (self.market, self.catalogue, &*self);
        let lives: Vec<Vec<Told>> = thread::scope(|scope| {
            let cores: Vec<_> = starts
                .map(|first| {
                    scope.spawn(move || {
                        let mut told = Vec::new();
                        for number in first..(first + per_core).min(to) {
                            market.vehicle(catalogue, &mut told, number, this.begin(number));
                        }
                        told
                    })
                })
                .collect();
            cores.into_iter().map(|core| core.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        let mut told = Vec::new();
        let until = if to < market.vehicles { self.begin(to) } else { i64::MAX };
        while self.next_day < market.days && market.start + i64::from(self.next_day) * MICROS_PER_DAY <= until {
            market.day(catalogue, &mut told, self.next_day);
            self.next_day += 1;
        }
        let end = market.end().min(market.until);
        for event in lives.into_iter().flatten().chain(told).filter(|event| event.time < end) {
            self.waiting.entry(event.time.div_euclid(MICROS_PER_HOUR)).or_default().push(event);
        }
    }
}

#[cfg(test)]
mod tests;
