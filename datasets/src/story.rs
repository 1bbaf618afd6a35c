//! One thread of events: it happens in order, to ids that agree.

use std::cell::RefCell;

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemas::{Catalogue, EventDefinition, field_type::format_timestamp, time::MICROS_PER_HOUR};
use serde_json::{Value, json};
use uuid::Builder;

use crate::{
    cars::{CITIES, City},
    truth::Fact,
};

const MICROS_PER_MINUTE: f64 = 60_000_000.0;

/// Local time of the market's middle: UTC less five hours.
const MICROS_TO_LOCAL: i64 = -5 * MICROS_PER_HOUR;
/// People sleep from midnight to seven, and most of them do nothing then.
const NIGHT_HOURS: i64 = 7;
const AWAKE_AT_NIGHT: f64 = 0.06;
/// A history told faster than this has no nights.
const SLOWEST_WITHOUT_NIGHTS: f64 = 0.5;

/// An event with its time, ready to be written.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// Microseconds since 1970, UTC.
    pub(crate) time: i64,
    /// Which thread told it, and its how-manieth event it is: what happens at one instant keeps this order.
    pub(crate) order: (u64, u32),
    pub(crate) context: &'static str,
    pub(crate) name: &'static str,
    pub(crate) line: String,
    pub(crate) facts: Vec<Fact>,
}

/// The teller of one thread.
pub(crate) struct Story<'a> {
    catalogue: &'a Catalogue,
    /// Behind a cell, so that an event's parts can be drawn while it is being told.
    rng: RefCell<ChaCha8Rng>,
    now: i64,
    /// What a minute of the story takes: less than a minute when the history is short.
    pace: f64,
    stream: u64,
    index: u32,
    told: &'a mut Vec<Told>,
}

impl<'a> Story<'a> {
    /// The thread number `stream` of a seed, beginning at `now`.
    pub(crate) fn new(
        catalogue: &'a Catalogue,
        told: &'a mut Vec<Told>,
        seed: u64,
        stream: u64,
        now: i64,
        pace: f64,
    ) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self { catalogue, rng: RefCell::new(rng), now, pace, stream, index: 0, told }
    }

    pub(crate) const fn now(&self) -> i64 {
        self.now
    }

    /// Go on at another time, which may be earlier: a thread may run beside itself.
    pub(crate) const fn jump(&mut self, to: i64) {
        self.now = to;
    }

    /// Let between `from` and `to` minutes pass.
    pub(crate) fn wait(&mut self, from: f64, to: f64) {
        let minutes = self.between(from, to) * self.pace;
        #[expect(clippy::cast_possible_truncation, reason = "minutes of a history of ten years")]
        let micros = (minutes * MICROS_PER_MINUTE) as i64;
        // Milliseconds, as producers write them, and never at the same instant.
        self.now += (micros / 1_000).max(1) * 1_000;
    }

    /// Whoever acts next sleeps first, if it is night.
    pub(crate) fn sleep(&mut self) {
        let of_day = (self.now + MICROS_TO_LOCAL).rem_euclid(24 * MICROS_PER_HOUR);
        let until_morning = NIGHT_HOURS * MICROS_PER_HOUR - of_day;
        if self.pace < SLOWEST_WITHOUT_NIGHTS || until_morning <= 0 || self.chance(AWAKE_AT_NIGHT) {
            return;
        }
        self.now += until_morning;
        self.wait(0.0, 240.0);
    }

    pub(crate) fn hours(&mut self, from: f64, to: f64) {
        self.wait(from * 60.0, to * 60.0);
    }

    pub(crate) fn days(&mut self, from: f64, to: f64) {
        self.wait(from * 1_440.0, to * 1_440.0);
    }

    /// Some time after now, as text: a promise or an appointment.
    pub(crate) fn later(&self, hours: f64) -> String {
        #[expect(clippy::cast_possible_truncation, reason = "hours of a history of ten years")]
        let micros = (hours * 60.0 * self.pace * MICROS_PER_MINUTE) as i64;
        format_timestamp(self.now + micros / 1_000 * 1_000)
    }

    pub(crate) fn at(&self) -> String {
        format_timestamp(self.now)
    }

    pub(crate) fn between(&self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.rng.borrow_mut().random::<f64>()
    }

    pub(crate) fn whole(&self, from: i64, to: i64) -> i64 {
        self.rng.borrow_mut().random_range(from..=to)
    }

    pub(crate) fn chance(&self, probability: f64) -> bool {
        self.rng.borrow_mut().random::<f64>() < probability
    }

    /// About this many: the whole part, and one more as likely as the rest says.
    pub(crate) fn count(&self, expected: f64) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "orders of a day")]
        let whole = expected.max(0.0) as u32;
        whole + u32::from(self.chance(expected.fract()))
    }

    pub(crate) fn pick<'b, T>(&self, choices: &'b [T]) -> &'b T {
        &choices[self.rng.borrow_mut().random_range(0..choices.len())]
    }

    /// A city, the large ones more often.
    pub(crate) fn city(&self) -> &'static City {
        let all: u32 = CITIES.iter().map(|city| city.weight).sum();
        let mut left = self.rng.borrow_mut().random_range(0..all);
        let here = CITIES.iter().find(|city| {
            let here = left < city.weight;
            left = left.saturating_sub(city.weight);
            here
        });
        here.unwrap_or(&CITIES[0])
    }

    /// A new id of a kind: `off-1f2e3d4c5b6a`.
    pub(crate) fn id(&self, kind: &str) -> String {
        format!("{kind}-{:012x}", self.rng.borrow_mut().next_u64() >> 16)
    }

    /// An amount of money rounded to `step`.
    #[expect(clippy::cast_possible_truncation, reason = "prices of cars")]
    pub(crate) fn round(amount: f64, step: f64) -> i64 {
        ((amount / step).round() * step) as i64
    }

    /// Tell an event that happens now; a moment passes after it.
    pub(crate) fn tell(&mut self, context: &'static str, name: &'static str, data: Value) {
        let key = self.event(context, name).and_then(|event| event.key.as_deref()).unwrap_or_default();
        let about = data[key].clone();
        self.tell_about(context, name, about, data);
    }

    /// Tell an event of an aggregate that its fields do not name.
    pub(crate) fn tell_about(&mut self, context: &'static str, name: &'static str, about: Value, data: Value) {
        let (aggregate, version) = self
            .event(context, name)
            .map_or_else(|| ("", String::new()), |event| (event.aggregate.as_str(), event.version.as_str().to_owned()));
        let mut bytes = [0; 16];
        self.rng.borrow_mut().fill_bytes(&mut bytes);
        // The marketplace's own events go by their names; what other systems call the same is told apart.
        let shared = self.catalogue.candidates(name).len() > 1;
        let qualified = shared && OTHER_SYSTEMS.contains(&context);
        let kind = if qualified { format!("{context}.{name}") } else { name.to_owned() };
        let line = json!({
            "eventId": Builder::from_random_bytes(bytes).into_uuid(),
            "eventType": kind,
            "eventVersion": version,
            "timestamp": self.at(),
            "aggregateType": aggregate,
            "aggregateId": about,
            "tenantId": "main",
            "source": "simulator",
            "data": data,
        });
        let order = (self.stream, self.index);
        self.index += 1;
        self.told.push(Told { time: self.now, order, context, name, line: line.to_string(), facts: Vec::new() });
        self.wait(0.02, 0.5);
    }

    /// Note for the ledger what the last event says.
    pub(crate) fn fact(&mut self, fact: Fact) {
        if let Some(last) = self.told.last_mut() {
            last.facts.push(fact);
        }
    }

    fn event(&self, context: &str, name: &str) -> Option<&'a EventDefinition> {
        self.catalogue.context(context).and_then(|(_, context)| context.event(name))
    }
}

/// Contexts that are systems beside the marketplace's own.
pub(crate) const OTHER_SYSTEMS: [&str; 4] = ["shop", "dealers", "courses", "loyalty"];
