//! One thread of events: it happens in order, to ids that agree.

use std::cell::RefCell;

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemas::{Catalogue, field_type::format_timestamp};
use serde_json::{Value, json};
use uuid::Builder;

const MICROS_PER_MINUTE: f64 = 60_000_000.0;

/// An event with its time, ready to be written.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// Microseconds since 1970, UTC.
    pub(crate) time: i64,
    pub(crate) line: String,
}

/// The teller of one thread.
pub(crate) struct Story<'a> {
    catalogue: &'a Catalogue,
    /// Behind a cell, so that an event's parts can be drawn while it is being told.
    rng: RefCell<ChaCha8Rng>,
    now: i64,
    /// What a minute of the story takes: less than a minute when the history is short.
    pace: f64,
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
        Self { catalogue, rng: RefCell::new(rng), now, pace, told }
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

    pub(crate) fn pick<'b, T>(&self, choices: &'b [T]) -> &'b T {
        &choices[self.rng.borrow_mut().random_range(0..choices.len())]
    }

    /// A new id of a kind: `off-1f2e3d4c5b6a`.
    pub(crate) fn id(&self, kind: &str) -> String {
        format!("{kind}-{:012x}", self.rng.borrow_mut().next_u64() >> 16)
    }

    /// An amount of money rounded to `step`.
    pub(crate) fn round(amount: f64, step: f64) -> Value {
        #[expect(clippy::cast_possible_truncation, reason = "prices of cars")]
        let whole = ((amount / step).round() * step) as i64;
        whole.into()
    }

    /// Tell an event that happens now; a moment passes after it.
    pub(crate) fn tell(&mut self, context: &str, name: &str, data: Value) {
        let event = self.catalogue.context(context).and_then(|(_, context)| context.event(name));
        let (aggregate, version, key) = match event {
            Some(event) => (event.aggregate.as_str(), event.version.as_str(), event.key.as_deref().unwrap_or_default()),
            None => ("", "", ""),
        };
        let mut bytes = [0; 16];
        self.rng.borrow_mut().fill_bytes(&mut bytes);
        let line = json!({
            "eventId": Builder::from_random_bytes(bytes).into_uuid(),
            "eventType": name,
            "eventVersion": version,
            "timestamp": self.at(),
            "aggregateType": aggregate,
            "aggregateId": data[key],
            "tenantId": "main",
            "source": "simulator",
            "data": data,
        });
        self.told.push(Told { time: self.now, line: line.to_string() });
        self.wait(0.02, 0.5);
    }
}
