//! The words a listing is found by. A term of the index is a word and how the listing has it: so one dictionary has the words
//! of all texts, and those of a word are beside each other.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use crate::{
    listing::Listing,
    query::Facet,
    words::{joined, stems, words},
};

/// Between a word and how a listing has it: before every letter.
pub(crate) const AFTER_WORD: char = '\0';

/// How a listing has a word: by the best of the texts that have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Has {
    /// In its title, or the name of its make or model.
    Name,
    Trim,
    /// Among its features and attributes, or its dealer's name.
    Detail,
    /// In its description.
    Sentence,
    /// Without its ending, in any text.
    Stem,
}

impl Has {
    const ALL: [Self; 5] = [Self::Name, Self::Trim, Self::Detail, Self::Sentence, Self::Stem];

    /// How much it counts.
    pub(crate) const fn boost(self) -> f32 {
        match self {
            Self::Name => 4.0,
            Self::Trim => 2.0,
            Self::Detail | Self::Stem => 1.0,
            Self::Sentence => 0.5,
        }
    }

    /// Whether a word that is being typed may begin one that is had like this: those of names, rather than sentences.
    pub(crate) const fn may_be_begun(self) -> bool {
        matches!(self, Self::Name | Self::Trim | Self::Detail)
    }

    const fn letter(self) -> char {
        match self {
            Self::Name => 'n',
            Self::Trim => 't',
            Self::Detail => 'd',
            Self::Sentence => 's',
            Self::Stem => 'w',
        }
    }

    /// The term of a word that is had like this.
    pub(crate) fn term(self, word: &str) -> String {
        format!("{word}{AFTER_WORD}{}", self.letter())
    }

    /// The word of a term, and how it is had.
    pub(crate) fn read(term: &[u8]) -> Option<(&str, Self)> {
        let (word, letter) = std::str::from_utf8(term).ok()?.split_once(AFTER_WORD)?;
        let has = Self::ALL.into_iter().find(|has| letter.chars().eq([has.letter()]))?;
        Some((word, has))
    }
}

/// The words of one listing.
#[derive(Debug, Default)]
pub(crate) struct OwnWords {
    words: BTreeMap<String, Has>,
    stems: BTreeSet<String>,
}

impl OwnWords {
    pub(crate) fn of(listing: &Listing) -> Self {
        let mut own = Self::default();
        for (has, text, joined) in texts(listing) {
            for text in text.as_deref().into_iter().chain(joined.as_deref()) {
                for word in words(text) {
                    let known = own.words.entry(word.text).or_insert(has);
                    *known = has.min(*known);
                }
            }
            own.stems.extend(text.as_deref().map(stems).into_iter().flatten().map(|word| word.text));
        }
        own
    }

    /// Whether it has a word; with `prefix`, also one that goes on from it.
    pub(crate) fn has(&self, word: &str, stem: &str, prefix: bool) -> bool {
        let goes_on = || {
            let from = self.words.range::<str, _>((Bound::Excluded(word), Bound::Unbounded));
            let mut longer = from.take_while(|(other, _)| other.starts_with(word));
            longer.any(|(_, has)| has.may_be_begun())
        };
        self.words.contains_key(word) || self.stems.contains(stem) || prefix && goes_on()
    }

    pub(crate) fn terms(&self) -> impl Iterator<Item = String> {
        let words = self.words.iter().map(|(word, has)| has.term(word));
        words.chain(self.stems.iter().map(|stem| Has::Stem.term(stem)))
    }
}

/// The texts of a listing, and how people also write one: F-150 as one word, and Land Rover too. The attributes are what
/// facets say of it, so that it is found by those words as well.
fn texts(listing: &Listing) -> [(Has, Option<Cow<'_, str>>, Option<String>); 8] {
    let attributes = Facet::ATTRIBUTES.iter().flat_map(|facet| facet.values(listing));
    let attributes: Vec<String> = attributes.chain(listing.year.map(|year| year.to_string())).collect();
    let [title, make, model, trim, dealer, description] =
        [&listing.title, &listing.make, &listing.model, &listing.trim, &listing.dealer_name, &listing.description]
            .map(|text| text.as_deref().map(Cow::Borrowed));
    let made = |texts: &[String]| Some(Cow::Owned(texts.join(" ")));
    let [make_joined, model_joined, trim_joined] = [&make, &model, &trim].map(|name| joined(name.as_deref()?));
    [
        (Has::Name, title, None),
        (Has::Name, make, make_joined),
        (Has::Name, model, model_joined),
        (Has::Trim, trim, trim_joined),
        (Has::Detail, made(&listing.features), None),
        (Has::Detail, dealer, None),
        (Has::Detail, made(&attributes), None),
        (Has::Sentence, description, None),
    ]
}

#[cfg(test)]
mod tests {
    use super::{Has, OwnWords};
    use crate::listing::Listing;

    #[test]
    fn a_word_is_had_by_the_best_text_that_has_it() {
        let text = |text: &str| Some(text.to_owned());
        let listing = Listing {
            title: text("Ford F-150"),
            model: text("F-150"),
            trim: text("Raptor"),
            features: vec!["Heated seats".to_owned()],
            description: text("A Ford with seats, as new"),
            ..Listing::default()
        };
        let own = OwnWords::of(&listing);
        let mut terms: Vec<String> = own.terms().collect();
        let words = [
            ("ford", Has::Name),
            ("f150", Has::Name),
            ("raptor", Has::Trim),
            ("seats", Has::Detail),
            ("new", Has::Sentence),
            ("seat", Has::Stem),
        ];
        for (word, has) in words {
            let term = has.term(word);
            assert!(terms.contains(&term), "{term:?}");
            assert_eq!(Has::read(term.as_bytes()), Some((word, has)));
        }
        assert!(own.has("ford", "?", false) && own.has("?", "seat", false) && !own.has("bus", "bus", true));
        // A name may be begun, a sentence not.
        assert!(own.has("rap", "rap", true) && !own.has("rap", "rap", false) && !own.has("ne", "ne", true));
        let count = terms.len();
        terms.sort();
        terms.dedup();
        assert_eq!(terms.len(), count, "each is told once");
        assert_eq!(
            [Has::read(b"ford"), Has::read(b"ford\0"), Has::read(b"ford\0nn"), Has::read(b"\xff\0n")],
            [None; 4]
        );
    }
}
