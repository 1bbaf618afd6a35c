//! The filters that a text says in words: `blue 2019 civic under 20k near toronto` is a colour, a year, a model, a price and
//! a place.
//!
//! Values are those that listings have ([`Lexicon`]); numbers and places are read by rules. What is read is told, and what
//! is not stays text. Where the request has a filter already, it counts, or the words do ([`Overrules`]).

use std::collections::BTreeMap;

use crate::{
    geo::Place,
    lexicon::Lexicon,
    query::{Bounds, Facet, Range, SearchRequest},
    words::{plain, synonyms},
};

/// How far from a place is near it, unless it is said, in km.
const NEAR_KM: f64 = 50.0;
const KM_PER_MILE: f64 = 1.609_344;
/// Larger numbers mean nothing here.
const LARGEST: f64 = 1e9;
/// Words of the longest value that is looked for.
const LONGEST_VALUE: usize = 4;
/// Numbers that are model years, and the least that is a price.
const YEARS: std::ops::RangeInclusive<f64> = 1_950.0..=2_035.0;
const LEAST_PRICE: f64 = 500.0;
/// Shorter names of provinces and models are words of their own: `on`, `3`.
const SHORTEST_NAME: usize = 3;

/// What counts where words say otherwise than a filter that the request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overrules {
    /// The filter: its words are found as text, or passed over.
    Filter,
    /// The words: they were written after it.
    Words,
}

/// A text, as it was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// What is left to be found as text.
    pub text: String,
    pub read: Vec<Read>,
    /// Words that say a bound which the request has already: its own counts.
    pub passed_over: Vec<Read>,
}

/// Words that were read as a filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    pub words: String,
    pub means: Meaning,
}

/// What words mean.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    /// One of these values.
    Values(Facet, Vec<String>),
    Bounds(Range, Bounds),
    /// At most so much a month.
    Payment(f64),
    Near {
        city: String,
        place: Place,
        radius_km: f64,
    },
    OwnersMax(i64),
    AccidentFree,
    PriceDrop,
}

/// Facets in the order in which a word is taken for one of their values.
const FACETS: [Facet; 9] = [
    Facet::Make,
    Facet::BodyType,
    Facet::FuelType,
    Facet::Transmission,
    Facet::Drivetrain,
    Facet::Color,
    Facet::Model,
    Facet::City,
    Facet::Features,
];

/// Words for what no listing has as a value.
const FLAGS: [(&str, Flag); 17] = [
    ("accident free", Flag::AccidentFree),
    ("no accidents", Flag::AccidentFree),
    ("no accident", Flag::AccidentFree),
    ("without accidents", Flag::AccidentFree),
    ("never crashed", Flag::AccidentFree),
    ("clean history", Flag::AccidentFree),
    ("one owner", Flag::OneOwner),
    ("1 owner", Flag::OneOwner),
    ("single owner", Flag::OneOwner),
    ("first owner", Flag::OneOwner),
    ("price drop", Flag::PriceDrop),
    ("price drops", Flag::PriceDrop),
    ("price reduced", Flag::PriceDrop),
    ("reduced price", Flag::PriceDrop),
    ("reduced", Flag::PriceDrop),
    ("certified", Flag::Certified),
    ("cpo", Flag::Certified),
];

#[derive(Clone, Copy, Debug)]
enum Flag {
    AccidentFree,
    OneOwner,
    PriceDrop,
    Certified,
}

/// Words before a number, the longest first, and what they make of it.
const LIMITS: [(&str, Limit); 30] = [
    ("no more than", Limit::Most),
    ("no less than", Limit::Least),
    ("not more than", Limit::Most),
    ("starting at", Limit::Least),
    ("cheaper than", Limit::Most),
    ("cheaper then", Limit::Most),
    ("older than", Limit::Before),
    ("newer than", Limit::After),
    ("less than", Limit::Most),
    ("less then", Limit::Most),
    ("fewer than", Limit::Most),
    ("lower than", Limit::Most),
    ("more than", Limit::Least),
    ("higher than", Limit::Least),
    ("at least", Limit::Least),
    ("at most", Limit::Most),
    ("up to", Limit::Most),
    ("under", Limit::Most),
    ("below", Limit::Most),
    ("max", Limit::Most),
    ("maximum", Limit::Most),
    ("before", Limit::Before),
    ("after", Limit::After),
    ("since", Limit::Least),
    ("from", Limit::Least),
    ("over", Limit::Least),
    ("above", Limit::Least),
    ("min", Limit::Least),
    ("minimum", Limit::Least),
    ("<", Limit::Most),
];

/// Words after a number that do the same.
const LIMITS_AFTER: [(&str, Limit); 8] = [
    ("or newer", Limit::Least),
    ("and newer", Limit::Least),
    ("or later", Limit::Least),
    ("and up", Limit::Least),
    ("or older", Limit::Most),
    ("or less", Limit::Most),
    ("or more", Limit::Least),
    ("max", Limit::Most),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Most,
    Least,
    /// Years: not itself.
    Before,
    After,
}

/// Words for what a number of seats counts, and numbers of them in words, from two.
const SEATS: [&str; 4] = ["seats", "seater", "seat", "passenger"];
const COUNTS: [&str; 8] = ["two", "three", "four", "five", "six", "seven", "eight", "nine"];

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    None,
    Money,
    Monthly,
    Kilometres,
}

/// Words between spaces.
#[derive(Clone, Copy, Debug)]
struct Piece<'a> {
    text: &'a str,
    from: usize,
    to: usize,
}

/// A number of a text, and how many pieces it takes.
#[derive(Clone, Copy, Debug)]
struct Number {
    value: f64,
    unit: Unit,
    /// It was said in miles, and is in km.
    in_miles: bool,
    /// It is written as a year is.
    plain: bool,
    pieces: usize,
}

impl Reading {
    /// Read a text. Where the words count, what they say otherwise is taken out of the request; which parameters said it, is
    /// told.
    #[must_use]
    pub fn of(text: &str, lexicon: &Lexicon, request: &mut SearchRequest, overrules: Overrules) -> (Self, Vec<String>) {
        let lower = text.to_lowercase();
        let has_make = request.filters.contains_key(&Facet::Make);
        let free = match overrules {
            Overrules::Filter => request.clone(),
            // Of equipment, what is written is meant beside what is chosen.
            Overrules::Words => SearchRequest {
                filters: request.filters.iter().filter(|(facet, _)| **facet == Facet::Features).map(owned).collect(),
                ..SearchRequest::default()
            },
        };
        // Lower case may be longer: what is told is the text as it is compared.
        let reader = Reader { text: &lower, pieces: pieces(&lower), lexicon, request: &free, has_make };
        let reading = reader.read();
        let overruled = if overrules == Overrules::Words { reading.overrule(request) } else { Vec::new() };
        (reading, overruled)
    }

    /// Take out of a request what the words say otherwise; the parameters that say it.
    fn overrule(&self, request: &mut SearchRequest) -> Vec<String> {
        let mut gone: Vec<String> = Vec::new();
        let says =
            |facet: Facet| self.read.iter().any(|it| matches!(it.means, Meaning::Values(known, _) if known == facet));
        let (make, model) = (says(Facet::Make), says(Facet::Model));
        for facet in Facet::ALL {
            // Another model is maybe of another make, and of another trim.
            let is_other = match facet {
                Facet::Make | Facet::Model => make || model,
                Facet::Trim => make || model || says(facet),
                Facet::Features => false,
                facet => says(facet),
            };
            if is_other && request.filters.remove(&facet).is_some() {
                gone.push(facet.name().to_owned());
            }
        }
        for read in &self.read {
            match &read.means {
                Meaning::Bounds(range, said) => {
                    let Some(known) = request.ranges.get_mut(range) else { continue };
                    // Also the other end, where nothing is between them.
                    if known.min.is_some_and(|min| said.min.is_some() || said.max.is_some_and(|max| max < min)) {
                        known.min = None;
                        gone.push(format!("{}_min", range.name()));
                    }
                    if known.max.is_some_and(|max| said.max.is_some() || said.min.is_some_and(|min| min > max)) {
                        known.max = None;
                        gone.push(format!("{}_max", range.name()));
                    }
                }
                Meaning::Near { .. } if request.near.take().is_some() => {
                    request.radius_km = None;
                    gone.extend(["near".to_owned(), "radius_km".to_owned()]);
                }
                Meaning::Payment(_) if request.affordable.take().is_some() => gone.push("payment_max".to_owned()),
                Meaning::OwnersMax(_) if request.owners_max.take().is_some() => gone.push("owners_max".to_owned()),
                _ => {}
            }
        }
        gone
    }

    /// Ask it: the filters are added to the request, and the text is what is left.
    pub fn ask(&self, request: &mut SearchRequest, affordable: impl Fn(f64) -> f64) {
        request.text.clone_from(&self.text);
        request.in_words = true;
        for read in &self.read {
            match &read.means {
                Meaning::Values(facet, values) => {
                    let known = request.filters.entry(*facet).or_default();
                    known.extend(values.iter().cloned());
                }
                Meaning::Bounds(range, bounds) => {
                    let known = request.ranges.entry(*range).or_default();
                    known.min = known.min.or(bounds.min);
                    known.max = known.max.or(bounds.max);
                }
                Meaning::Payment(monthly) => request.affordable = Some(affordable(*monthly)),
                Meaning::Near { place, radius_km, .. } => {
                    request.near = Some(*place);
                    request.radius_km.get_or_insert(*radius_km);
                }
                Meaning::OwnersMax(most) => request.owners_max = Some(*most),
                Meaning::AccidentFree => request.accident_free = true,
                Meaning::PriceDrop => request.price_drop = true,
            }
        }
    }
}

fn owned<K: Clone, V: Clone>((key, value): (&K, &V)) -> (K, V) {
    (key.clone(), value.clone())
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut from = None;
    for (at, letter) in text.char_indices().chain([(text.len(), ' ')]) {
        match (from, letter.is_whitespace()) {
            (None, false) => from = Some(at),
            (Some(begin), true) => {
                pieces.push(Piece { text: &text[begin..at], from: begin, to: at });
                from = None;
            }
            _ => {}
        }
    }
    pieces
}

struct Reader<'a> {
    text: &'a str,
    pieces: Vec<Piece<'a>>,
    lexicon: &'a Lexicon,
    request: &'a SearchRequest,
    /// Whether a make is chosen beside the text.
    has_make: bool,
}

impl Reader<'_> {
    fn read(&self) -> Reading {
        let mut reading = Reading::default();
        let mut left: Vec<&str> = Vec::new();
        let mut bounds: BTreeMap<Range, Bounds> = self.request.ranges.clone();
        let mut at = 0;
        while at < self.pieces.len() {
            let found = self
                .number(at, &bounds, &reading)
                .or_else(|| self.flag(at, &reading))
                .or_else(|| self.near(at, &reading));
            let found = found.or_else(|| self.value(at, &reading));
            if found.is_none() {
                if let Some((means, pieces)) = self.asked_already(at, &reading) {
                    reading.passed_over.push(Read { words: self.said(at, pieces), means });
                    at += pieces;
                    continue;
                }
                if let Some(pieces) = self.other_year(at, &mut reading) {
                    at += pieces;
                    continue;
                }
            }
            let Some((means, pieces)) = found else {
                left.push(self.pieces[at].text);
                at += 1;
                continue;
            };
            if let Meaning::Bounds(range, read) = &means {
                let known = bounds.entry(*range).or_default();
                known.min = known.min.or(read.min);
                known.max = known.max.or(read.max);
            }
            reading.read.push(Read { words: self.said(at, pieces), means });
            at += pieces;
        }
        // "and", "with", "cars" and their like find nothing of their own.
        left.retain(|word| !FILLERS.contains(word));
        reading.text = left.join(" ");
        reading
    }

    fn words(&self, at: usize, count: usize) -> Option<String> {
        let pieces = self.pieces.get(at..at + count)?;
        Some(pieces.iter().map(|piece| piece.text).collect::<Vec<_>>().join(" "))
    }

    /// Some pieces as they are said.
    fn said(&self, at: usize, pieces: usize) -> String {
        self.text[self.pieces[at].from..self.pieces[at + pieces - 1].to].to_owned()
    }

    /// How many pieces say this phrase.
    fn says(&self, at: usize, phrase: &str) -> Option<usize> {
        let count = phrase.split(' ').count();
        (self.words(at, count)?.trim_end_matches(',') == phrase).then_some(count)
    }

    fn flag(&self, at: usize, reading: &Reading) -> Option<(Meaning, usize)> {
        let (flag, count) = FLAGS.iter().find_map(|(phrase, flag)| Some((*flag, self.says(at, phrase)?)))?;
        let request = self.request;
        let means = match flag {
            Flag::AccidentFree => Meaning::AccidentFree,
            Flag::OneOwner if request.owners_max.is_none() => Meaning::OwnersMax(1),
            Flag::PriceDrop => Meaning::PriceDrop,
            Flag::Certified if self.is_free(Facet::Certified, reading) => {
                Meaning::Values(Facet::Certified, vec!["true".to_owned()])
            }
            Flag::OneOwner | Flag::Certified => return None,
        };
        Some((means, count))
    }

    /// Whether neither the request nor what was read so far chooses values of a facet.
    fn is_free(&self, facet: Facet, reading: &Reading) -> bool {
        let is_read = |read: &Read| matches!(&read.means, Meaning::Values(known, _) if *known == facet);
        !self.request.filters.contains_key(&facet) && !reading.read.iter().any(is_read)
    }

    /// Whether a word may be a value of a facet: also of one that was read before, when it is said to be one or the other.
    /// Of equipment both are meant, and the second is found as text.
    fn may_be(&self, facet: Facet, at: usize, reading: &Reading) -> bool {
        let before = at.checked_sub(1).map_or("", |before| self.pieces[before].text);
        let is_other = ["or", "and"].contains(&before) || before.ends_with(',');
        let is_asked = self.request.filters.contains_key(&facet);
        self.is_free(facet, reading) || !is_asked && is_other && facet != Facet::Features
    }

    /// `under 20k`, `2018-2020`, `2019 or newer`, `less than 80,000 km`, `7 seats`, and a year.
    fn number(&self, at: usize, known: &BTreeMap<Range, Bounds>, reading: &Reading) -> Option<(Meaning, usize)> {
        let before = LIMITS.iter().find_map(|(phrase, limit)| Some((*limit, self.says(at, phrase)?)));
        let glued = self.pieces[at].text.strip_prefix(['<', '≤']).map(|_| Limit::Most);
        let (mut limit, skip) = match (before, glued) {
            (Some((limit, count)), _) => (Some(limit), count),
            (None, Some(limit)) => (Some(limit), 0),
            (None, None) => (None, usize::from(self.pieces[at].text == "between")),
        };
        let first = self.pieces.get(at + skip)?.text.trim_start_matches(['<', '≤']);
        let is_between = skip == 1 && limit.is_none();
        if let Some((low, high, unit, pieces)) = self.span(at + skip, first, is_between).filter(|_| limit.is_none()) {
            let are_years = YEARS.contains(&low) && YEARS.contains(&high);
            let range = match unit {
                Unit::None if are_years => Range::Year,
                Unit::None if high >= LEAST_PRICE => Range::Price,
                Unit::None => return None,
                unit => range_of(high, unit)?,
            };
            // The ends that are free.
            let known = known.get(&range).copied().unwrap_or_default();
            let (min, max) = (Some(low).filter(|_| known.min.is_none()), Some(high).filter(|_| known.max.is_none()));
            let bounds = Bounds { min, max };
            return (!bounds.is_open()).then_some((Meaning::Bounds(range, bounds), skip + pieces));
        }
        if is_between {
            return None;
        }
        let number = self.number_at(at + skip, first)?;
        let mut count = skip + number.pieces;
        if limit.is_none() {
            let plus = self.pieces[at + count - 1].text.ends_with('+').then_some((Limit::Least, 0));
            let after = LIMITS_AFTER.iter().find_map(|(phrase, limit)| Some((*limit, self.says(at + count, phrase)?)));
            if let Some((after, more)) = plus.or(after) {
                limit = Some(after);
                count += more;
            }
        }
        if number.unit == Unit::Monthly {
            let is_most = limit.is_none_or(|limit| limit == Limit::Most) && self.request.affordable.is_none();
            let is_read = reading.read.iter().any(|read| matches!(read.means, Meaning::Payment(_)));
            return (is_most && !is_read).then_some((Meaning::Payment(number.value), count));
        }
        if limit.is_none()
            && number.unit == Unit::None
            && let Some(word) = self.pieces.get(at + count).map(|piece| piece.text)
            && SEATS.contains(&word)
            && (2.0..=60.0).contains(&number.value)
            && self.is_free(Facet::Seats, reading)
        {
            return Some((Meaning::Values(Facet::Seats, vec![number.value.to_string()]), count + 1));
        }
        let range = match number.unit {
            Unit::None if number.plain && YEARS.contains(&number.value) => Range::Year,
            unit => range_of(number.value, unit)?,
        };
        let (known, value) = (known.get(&range).copied().unwrap_or_default(), number.value);
        let step = f64::from(u8::from(range == Range::Year));
        let (min, max) = match limit {
            // A bare number is a year, or says nothing.
            None if range == Range::Year && known.is_open() && self.is_a_year(at, value) => (Some(value), Some(value)),
            Some(Limit::Most) if known.max.is_none() => (None, Some(value)),
            Some(Limit::Least) if known.min.is_none() => (Some(value), None),
            Some(Limit::Before) if known.max.is_none() => (None, Some(value - step)),
            Some(Limit::After) if known.min.is_none() => (Some(value + step), None),
            None | Some(_) => return None,
        };
        Some((Meaning::Bounds(range, Bounds { min, max }), count))
    }

    /// Words that say a bound which the request has: they would find nothing as text, but a year may.
    fn asked_already(&self, at: usize, reading: &Reading) -> Option<(Meaning, usize)> {
        let (means, pieces) = self.number(at, &BTreeMap::new(), reading)?;
        let is_asked = matches!(&means, Meaning::Bounds(range, said)
            if self.request.ranges.contains_key(range) && said.min != said.max);
        is_asked.then_some((means, pieces))
    }

    /// `2019 or 2021`: the year that was read before goes on to this one.
    fn other_year(&self, at: usize, reading: &mut Reading) -> Option<usize> {
        let [.., year, or] = self.pieces.get(..at)? else { return None };
        let (Meaning::Bounds(Range::Year, other), pieces) = self.number(at, &BTreeMap::new(), reading)? else {
            return None;
        };
        let Read { words, means: Meaning::Bounds(Range::Year, known) } = reading.read.last_mut()? else { return None };
        if or.text != "or" || !words.ends_with(year.text) || known.min.is_none() || known.max.is_none() {
            return None;
        }
        known.min = other.min.and_then(|min| known.min.map(|known| known.min(min)));
        known.max = other.max.and_then(|max| known.max.map(|known| known.max(max)));
        words.push_str(&self.text[year.to..self.pieces[at + pieces - 1].to]);
        Some(pieces)
    }

    /// A number of four digits is a year, unless it is a model and its make is said: a Peugeot 2008.
    fn is_a_year(&self, at: usize, value: f64) -> bool {
        let mut models = self.lexicon.named(&value.to_string()).filter(|entry| entry.facet == Facet::Model);
        let text = plain(self.text);
        let said = |make: &str| text.split(' ').any(|word| plain(make) == word);
        let is_model = models.any(|entry| entry.filters.first().is_some_and(|(_, make)| said(make)));
        !is_model || self.pieces.iter().take(at).any(|piece| piece.text == self.pieces[at].text)
    }

    /// `2018-2020`, `15k to 20k`, `between 15k and 20k`.
    fn span(&self, at: usize, first: &str, is_between: bool) -> Option<(f64, f64, Unit, usize)> {
        let (low, high, in_thousands, pieces) = if let Some((low, high)) = first.split_once(['-', '–']) {
            (number(low)?, self.number_at(at, high)?, high.contains('k'), 0)
        } else {
            let between = self.pieces.get(at + 1)?.text;
            if !(["to", "-", "–"].contains(&between) || is_between && between == "and") {
                return None;
            }
            let second = self.pieces.get(at + 2)?.text;
            (number(first)?, self.number_at(at + 2, second)?, second.contains('k'), 2)
        };
        let (low, _, low_unit) = low;
        let unit = if high.unit == Unit::None { low_unit } else { high.unit };
        // "15-20k" means both in thousands, and miles are those of both.
        let low = if in_thousands && low < 1_000.0 { low * 1_000.0 } else { low };
        let low = if high.in_miles { (low * KM_PER_MILE).round() } else { low };
        (low < high.value).then_some((low, high.value, unit, pieces + high.pieces))
    }

    fn number_at(&self, at: usize, first: &str) -> Option<Number> {
        let is_of_seats = || self.pieces.get(at + 1).is_some_and(|after| SEATS.contains(&after.text));
        if let Some(value) = COUNTS.iter().position(|word| *word == first).filter(|_| is_of_seats()) {
            let value = f64::from(u8::try_from(value).unwrap_or_default()) + 2.0;
            return Some(Number { value, unit: Unit::None, in_miles: false, plain: false, pieces: 1 });
        }
        let (value, plain, unit) = number(first.trim_end_matches(['+', ',']))?;
        let (after, more) = self.unit_after(at + 1);
        let (unit, more) = match (unit, after) {
            (Unit::None, after) => (after, more),
            (Unit::Money, Unit::Monthly) => (Unit::Monthly, more),
            (own, _) => (own, 0),
        };
        let miles = self.pieces.get(at + more).is_some_and(|piece| more > 0 && piece.text.starts_with("mi"));
        let value = if miles { (value * KM_PER_MILE).round() } else { value };
        Some(Number { value, unit, in_miles: miles, plain: plain && more == 0, pieces: 1 + more })
    }

    /// What the words after a number say it counts, and how many they are.
    fn unit_after(&self, at: usize) -> (Unit, usize) {
        const UNITS: [(&str, Unit); 17] = [
            ("per month", Unit::Monthly),
            ("a month", Unit::Monthly),
            ("/ month", Unit::Monthly),
            ("/month", Unit::Monthly),
            ("monthly", Unit::Monthly),
            ("km", Unit::Kilometres),
            ("kms", Unit::Kilometres),
            ("kilometers", Unit::Kilometres),
            ("kilometres", Unit::Kilometres),
            ("klicks", Unit::Kilometres),
            ("miles", Unit::Kilometres),
            ("mi", Unit::Kilometres),
            ("dollars", Unit::Money),
            ("bucks", Unit::Money),
            ("cad", Unit::Money),
            ("aud", Unit::Money),
            ("usd", Unit::Money),
        ];
        UNITS.iter().find_map(|(phrase, unit)| Some((*unit, self.says(at, phrase)?))).unwrap_or((Unit::None, 0))
    }

    /// `near toronto`, `within 100 km of toronto`.
    fn near(&self, at: usize, reading: &Reading) -> Option<(Meaning, usize)> {
        const NEAR: [&str; 5] = ["close to", "near to", "near", "around", "nearby"];
        let is_read = reading.read.iter().any(|read| matches!(read.means, Meaning::Near { .. }));
        if is_read || self.request.near.is_some() {
            return None;
        }
        let (radius, skip) = match NEAR.iter().find_map(|phrase| self.says(at, phrase)) {
            Some(skip) => (NEAR_KM, skip),
            None if self.pieces[at].text == "within" => {
                let number = self.number_at(at + 1, self.pieces.get(at + 1)?.text)?;
                let of = ["of", "from"].iter().find_map(|word| self.says(at + 1 + number.pieces, word))?;
                (number.value, 1 + number.pieces + of)
            }
            None => return None,
        };
        let (pieces, entry) = (1..=LONGEST_VALUE).rev().find_map(|pieces| {
            let words = self.words(at + skip, pieces)?;
            let mut cities = self.lexicon.named(&words).filter(|entry| entry.facet == Facet::City);
            Some((pieces, cities.find(|entry| entry.place.is_some())?))
        })?;
        let means = Meaning::Near { city: entry.value().to_owned(), place: entry.place?, radius_km: radius };
        Some((means, skip + pieces))
    }

    /// The longest words that are a value some listing has, or are called like one.
    fn value(&self, at: usize, reading: &Reading) -> Option<(Meaning, usize)> {
        let skip = usize::from(self.pieces[at].text == "in");
        (1..=LONGEST_VALUE).rev().find_map(|pieces| {
            let words = self.words(at + skip, pieces)?;
            let phrase = plain(&words);
            let called: Vec<&str> =
                std::iter::once(phrase.as_str()).chain(synonyms(&phrase).iter().map(String::as_str)).collect();
            let counted = FACETS.into_iter().map(|facet| {
                let is_place = facet == Facet::City;
                let may_be = (skip == 0 || is_place) && self.may_be(facet, at, reading);
                let named = called.iter().filter(|_| may_be).flat_map(|name| self.lexicon.named(name));
                let named = named.filter(|entry| entry.facet == facet && self.is_said(facet, entry.value(), reading));
                (facet, named.map(|entry| entry.count).sum::<u64>())
            });
            // What most listings mean by it; the first, where as many mean another.
            let (facet, count) = counted.reduce(|best, other| if other.1 > best.1 { other } else { best })?;
            if count == 0 {
                return None;
            }
            let mut values: Vec<String> = Vec::new();
            for name in &called {
                let more = match facet {
                    // A make is called nothing else; a model's number is in others' names.
                    Facet::Make | Facet::City => self.named(facet, name),
                    Facet::Model if is_short(name) => self.named(facet, name),
                    _ if self.named(facet, name).is_empty() => Vec::new(),
                    _ => self.lexicon.values_with(facet, name),
                };
                values.extend(more.into_iter().filter(|value| !values.contains(value)).collect::<Vec<_>>());
            }
            (!values.is_empty()).then_some((Meaning::Values(facet, values), skip + pieces))
        })
    }

    fn named(&self, facet: Facet, name: &str) -> Vec<String> {
        let mut values: Vec<String> = Vec::new();
        for entry in self.lexicon.named(name).filter(|entry| entry.facet == facet) {
            if !values.iter().any(|value| value == entry.value()) {
                values.push(entry.value().to_owned());
            }
        }
        values
    }

    /// Whether a name may be taken for the value: a model that is a number or a letter only after its make.
    fn is_said(&self, facet: Facet, value: &str, reading: &Reading) -> bool {
        if facet != Facet::Model || !is_short(value) {
            return plain(value).len() > 1;
        }
        let is_read = |read: &Read| matches!(&read.means, Meaning::Values(Facet::Make, _));
        reading.read.last().is_some_and(is_read) || self.has_make
    }
}

/// Words that only hold others together.
const FILLERS: [&str; 14] =
    ["and", "the", "with", "for", "in", "or", "of", "car", "cars", "used", "sale", "vehicle", "vehicles", ","];

fn is_short(name: &str) -> bool {
    let name = plain(name);
    name.len() < SHORTEST_NAME || name.chars().all(|letter| letter.is_ascii_digit())
}

fn range_of(value: f64, unit: Unit) -> Option<Range> {
    match unit {
        Unit::Kilometres => Some(Range::Mileage),
        Unit::Money => Some(Range::Price),
        Unit::None if YEARS.contains(&value) && value.fract() == 0.0 => Some(Range::Year),
        Unit::None if value >= LEAST_PRICE => Some(Range::Price),
        Unit::None | Unit::Monthly => None,
    }
}

/// `20k`, `$20,000`, `80000km`, `$400/month`: how much, whether it has digits alone, and of what.
fn number(text: &str) -> Option<(f64, bool, Unit)> {
    let (text, month) = match ["/month", "/mo", "/mth"].iter().find_map(|ending| text.strip_suffix(ending)) {
        Some(text) => (text, true),
        None => (text, false),
    };
    let (text, kilometres) = match ["kms", "km"].iter().find_map(|ending| text.strip_suffix(ending)) {
        Some(text) => (text, true),
        None => (text, false),
    };
    let money = text.starts_with(['$', '€', '£']) || text.ends_with(['$', '€', '£']);
    let text = text.trim_matches(['$', '€', '£']);
    let (digits, thousands) = match text.strip_suffix('k') {
        Some(digits) => (digits, 1_000.0),
        None => (text, 1.0),
    };
    let is_number = digits.starts_with(|letter: char| letter.is_ascii_digit())
        && digits.chars().all(|letter| letter.is_ascii_digit() || letter == ',' || letter == '.');
    if !is_number {
        return None;
    }
    let value: f64 = digits.replace(',', "").parse().ok()?;
    if value > LARGEST {
        return None;
    }
    let unit = match (month, kilometres, money) {
        (true, ..) => Unit::Monthly,
        (_, true, _) => Unit::Kilometres,
        (_, _, true) => Unit::Money,
        _ => Unit::None,
    };
    Some((value * thousands, digits.chars().all(|letter| letter.is_ascii_digit()) && thousands == 1.0, unit))
}

#[cfg(test)]
mod tests;
