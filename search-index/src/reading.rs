//! The filters that a text says in words: `blue 2019 civic under 20k near toronto` is a colour, a year, a model, a price and
//! a place.
//!
//! Values are those that listings have ([`Lexicon`]); numbers and places are read by rules. What is read is told, and what
//! is not stays text. Where the request has a filter already, it counts, or the words do ([`Overrules`]).

mod numbers;

use std::collections::BTreeMap;

use crate::{
    geo::Place,
    lexicon::Lexicon,
    query::{Bounds, Facet, Range, SearchRequest},
    words::{plain, synonyms},
};

/// How far from a place is near it, unless it is said, in km.
const NEAR_KM: f64 = 50.0;
/// Words of the longest value that is looked for.
const LONGEST_VALUE: usize = 4;
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

/// Words between spaces.
#[derive(Clone, Copy, Debug)]
struct Piece<'a> {
    text: &'a str,
    from: usize,
    to: usize,
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

#[cfg(test)]
mod tests;
