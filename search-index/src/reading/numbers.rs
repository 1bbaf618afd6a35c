//! What numbers of a text mean: years, prices, kilometres, payments and seats, with the words that limit them.

use std::collections::BTreeMap;

use super::{Meaning, Read, Reader, Reading};
use crate::{
    query::{Bounds, Facet, Range},
    words::plain,
};

const KM_PER_MILE: f64 = 1.609_344;
/// Larger numbers mean nothing here.
const LARGEST: f64 = 1e9;
/// Numbers that are model years, and the least that is a price.
const YEARS: std::ops::RangeInclusive<f64> = 1_950.0..=2_035.0;
const LEAST_PRICE: f64 = 500.0;

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

/// A number of a text, and how many pieces it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    pub(super) value: f64,
    unit: Unit,
    /// It was said in miles, and is in km.
    in_miles: bool,
    /// It is written as a year is.
    plain: bool,
    pub(super) pieces: usize,
}

impl Reader<'_> {
    /// `under 20k`, `2018-2020`, `2019 or newer`, `less than 80,000 km`, `7 seats`, and a year.
    pub(super) fn number(
        &self,
        at: usize,
        known: &BTreeMap<Range, Bounds>,
        reading: &Reading,
    ) -> Option<(Meaning, usize)> {
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
    pub(super) fn asked_already(&self, at: usize, reading: &Reading) -> Option<(Meaning, usize)> {
        let (means, pieces) = self.number(at, &BTreeMap::new(), reading)?;
        let is_asked = matches!(&means, Meaning::Bounds(range, said)
            if self.request.ranges.contains_key(range) && said.min != said.max);
        is_asked.then_some((means, pieces))
    }

    /// `2019 or 2021`: the year that was read before goes on to this one.
    pub(super) fn other_year(&self, at: usize, reading: &mut Reading) -> Option<usize> {
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

    pub(super) fn number_at(&self, at: usize, first: &str) -> Option<Number> {
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
