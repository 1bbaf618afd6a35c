//! What befalls events on their way: they come again, late, in another order, and spoiled.

use std::{cmp::Reverse, collections::BinaryHeap, io, str::FromStr};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::truth::{MalformedTruth, Truth};

const MICROS_PER_SECOND: f64 = 1e6;
/// A late event is late by a second to three weeks, as many by minutes as by hours or days.
const LATE_SECONDS: (f64, f64) = (1.0, 21.0 * 86_400.0);
/// A repetition follows within three days.
const REPEATED_SECONDS: (f64, f64) = (0.001, 3.0 * 86_400.0);
/// What is shuffled is overtaken by what happened within this.
const SHUFFLED_SECONDS: f64 = 60.0;
/// The random numbers' thread, beside those of the stories.
const STREAM: u64 = u64::MAX;

/// How much of each there is: shares of the events, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Disorder {
    pub duplicates: f64,
    pub late: f64,
    pub malformed: f64,
    pub shuffled: f64,
}

impl Disorder {
    pub const NONE: Self = Self { duplicates: 0.0, late: 0.0, malformed: 0.0, shuffled: 0.0 };
}

/// A disorder that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a list such as duplicates=0.05,late=0.1,malformed=0.02,shuffled=0.25 with shares from 0 to 1, not {0:?}")]
pub struct DisorderError(String);

impl FromStr for Disorder {
    type Err = DisorderError;

    fn from_str(text: &str) -> Result<Self, DisorderError> {
        let mut disorder = Self::default();
        for part in text.split(',') {
            let wrong = || DisorderError(part.to_owned());
            let (name, share) = part.split_once('=').ok_or_else(wrong)?;
            let share: f64 = share.trim().parse().map_err(|_| wrong())?;
            if !(0.0..=1.0).contains(&share) {
                return Err(wrong());
            }
            match name.trim() {
                "duplicates" => disorder.duplicates = share,
                "late" => disorder.late = share,
                "malformed" => disorder.malformed = share,
                "shuffled" => disorder.shuffled = share,
                _ => return Err(wrong()),
            }
        }
        Ok(disorder)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Event,
    Duplicate,
    Malformed(&'static str),
}

/// A line on its way: when it arrives, which of those it is, when it happened, what it is, and what it says.
type Arrival = Reverse<(i64, u64, i64, Kind, String)>;

/// Lines on their way.
pub(crate) struct Arrivals {
    disorder: Disorder,
    rng: ChaCha8Rng,
    on_their_way: BinaryHeap<Arrival>,
    number: u64,
    /// The latest event time that has arrived.
    latest: i64,
}

impl Arrivals {
    pub(crate) fn new(seed: u64, disorder: Disorder) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(STREAM);
        Self { disorder, rng, on_their_way: BinaryHeap::new(), number: 0, latest: i64::MIN }
    }

    /// Send an event that happens at `time` (microseconds since 1970, UTC).
    pub(crate) fn send(
        &mut self,
        time: i64,
        line: String,
        truth: &mut Truth,
        sink: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.disorder == Disorder::NONE {
            return self.arrive(time, Kind::Event, &line, truth, sink);
        }
        let Disorder { duplicates, late, malformed, shuffled } = self.disorder;
        let mut arrives = time;
        if self.rng.random::<f64>() < shuffled {
            arrives += seconds(self.rng.random::<f64>() * SHUFFLED_SECONDS);
        }
        if self.rng.random::<f64>() < late {
            arrives += self.spread(LATE_SECONDS);
        }
        if self.rng.random::<f64>() < malformed {
            let (code, spoiled) = self.spoil(&line);
            self.put(arrives, time, Kind::Malformed(code), spoiled);
        }
        if self.rng.random::<f64>() < duplicates {
            let again = arrives + self.spread(REPEATED_SECONDS);
            self.put(again, time, Kind::Duplicate, line.clone());
        }
        self.put(arrives, time, Kind::Event, line);
        Ok(())
    }

    /// Give everything that arrives before `time` to `sink`.
    pub(crate) fn before(
        &mut self,
        time: i64,
        truth: &mut Truth,
        sink: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> io::Result<()> {
        while self.on_their_way.peek().is_some_and(|Reverse((arrives, ..))| *arrives < time)
            && let Some(Reverse((_, _, happened, kind, line))) = self.on_their_way.pop()
        {
            self.arrive(happened, kind, &line, truth, sink)?;
        }
        Ok(())
    }

    fn arrive(
        &mut self,
        happened: i64,
        kind: Kind,
        line: &str,
        truth: &mut Truth,
        sink: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> io::Result<()> {
        truth.lines += 1;
        match kind {
            Kind::Event => {
                truth.late += u64::from(happened < self.latest);
                self.latest = self.latest.max(happened);
            }
            Kind::Duplicate => truth.duplicates += 1,
            Kind::Malformed(code) => truth.malformed.push(MalformedTruth { line: truth.lines, code }),
        }
        sink(line)
    }

    fn put(&mut self, arrives: i64, happened: i64, kind: Kind, line: String) {
        self.number += 1;
        self.on_their_way.push(Reverse((arrives, self.number, happened, kind, line)));
    }

    /// A time between two numbers of seconds, as likely in each order of magnitude.
    fn spread(&mut self, (from, to): (f64, f64)) -> i64 {
        seconds((from.ln() + (to / from).ln() * self.rng.random::<f64>()).exp())
    }

    /// A line that no producer meant, and the code that the door refuses it with.
    fn spoil(&mut self, line: &str) -> (&'static str, String) {
        match self.rng.random_range(0..4) {
            // Every event has text in all its first half: cut there, it is no JSON.
            0 => ("invalid_json", line.chars().take(line.len() / 2).collect()),
            1 => ("not_an_object", self.rng.random_range(0..1_000_000).to_string()),
            2 => ("missing_field", format!("{{\"eventId\":\"malformed-{}\"}}", self.number)),
            _ => (
                "unknown_event_type",
                format!(
                    "{{\"eventId\":\"malformed-{}\",\"eventType\":\"VehicleTeleported\",\"timestamp\":\"2026-01-01T00:00:00Z\",\"data\":{{}}}}",
                    self.number
                ),
            ),
        }
    }
}

fn seconds(seconds: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "weeks at most")]
    let micros = (seconds * MICROS_PER_SECOND) as i64;
    micros
}
