//! From what people type to what the index is asked.
//!
//! Every word has to be found, in the field where it counts most: as it is, by its stem, by a word that means the same,
//! as the beginning of a word while it is still being typed, or, when nothing else has it, as a word it was meant to be.
//! Scores are sums of these weights, without frequencies: they do not change when other listings come or go, so that pages
//! follow each other. Which word a mistyped one was meant to be may change with them.

use std::collections::{BTreeMap, HashSet};

use tantivy::{
    Term,
    query::{BooleanQuery, ConstScoreQuery, DisjunctionMaxQuery, FuzzyTermQuery, Occur, Query, TermQuery},
    schema::IndexRecordOption,
};

use crate::{
    fields::TextField,
    index::{IndexError, ListingSnapshot},
    words::{Word, phrases, stem, synonyms, text_of, words},
};

/// How much a word counts that was found another way than as it is.
const SYNONYM: f32 = 0.9;
const PREFIX: f32 = 0.7;
const STEM: f32 = 0.6;
const TYPO: f32 = 0.5;
/// Words that a mistyped one may have been meant to be.
const MOST_CORRECTIONS: usize = 5;
/// Shorter words are as they are.
const SHORTEST_PREFIX: usize = 2;

/// A text, as it is asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// All of them have to be found.
    phrases: Vec<Phrase>,
}

/// Words of the text, and what finds them: any of it.
#[derive(Clone, Debug)]
struct Phrase {
    words: Vec<Word>,
    ways: Vec<Way>,
}

/// Words that have to be found together, and how much that counts.
#[derive(Clone, Debug)]
struct Way {
    words: Vec<String>,
    weight: f32,
    /// The last word may go on.
    prefix: bool,
}

/// A word that was not found, and the one that was taken for it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Correction {
    pub from: String,
    pub to: String,
}

/// What finds a listing, to be shown in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    words: HashSet<String>,
    stems: HashSet<String>,
    prefixes: Vec<String>,
}

impl Marks {
    pub(crate) fn has(&self, word: &str, stem: &str) -> bool {
        self.words.contains(word)
            || self.stems.contains(stem)
            || self.prefixes.iter().any(|prefix| word.starts_with(prefix.as_str()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }
}

impl Wanted {
    /// The last word may go on, unless a sign follows it.
    pub(crate) fn new(text: &str) -> Self {
        let words = words(text);
        let goes_on = words.last().is_some_and(|last| last.to == text.len());
        let last = words.len();
        let mut seen = 0;
        let phrase = |phrase: &[Word]| {
            seen += phrase.len();
            let own: Vec<String> = phrase.iter().map(|word| word.text.clone()).collect();
            let long = own.last().is_some_and(|word| word.len() >= SHORTEST_PREFIX);
            let mut ways = vec![Way { words: own, weight: 1.0, prefix: goes_on && long && seen == last }];
            ways.extend(synonyms(&text_of(phrase)).iter().map(|other| Way {
                words: other.split(' ').map(str::to_owned).collect(),
                weight: SYNONYM,
                prefix: false,
            }));
            Phrase { words: phrase.to_vec(), ways }
        };
        Self { phrases: phrases(&words).into_iter().map(phrase).collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.phrases.is_empty()
    }

    /// The same where words that nothing has are replaced by those they are most like; all words, with `thorough`.
    pub(crate) fn corrected(
        &self,
        snapshot: &ListingSnapshot,
        thorough: bool,
    ) -> Result<(Self, Vec<Correction>), IndexError> {
        let (mut corrected, mut corrections) = (self.clone(), Vec::new());
        for phrase in &mut corrected.phrases {
            let [word] = phrase.words.as_slice() else { continue };
            let prefix = phrase.ways.first().is_some_and(|way| way.prefix);
            if !thorough && snapshot.has_any(&phrase.ways)? {
                continue;
            }
            let likely = snapshot.like(&word.text, prefix)?;
            corrections.extend(likely.first().map(|best| Correction { from: word.text.clone(), to: best.clone() }));
            phrase.ways.extend(likely.into_iter().map(|word| Way { words: vec![word], weight: TYPO, prefix: false }));
        }
        Ok((corrected, corrections))
    }

    /// The same without each of its phrases, when there are several.
    pub(crate) fn without_each(&self) -> Vec<(String, Self)> {
        let count = if self.phrases.len() > 1 { self.phrases.len() } else { 0 };
        let without = |left_out: usize| {
            let mut phrases = self.phrases.clone();
            let word = text_of(&phrases.remove(left_out).words);
            (word, Self { phrases })
        };
        (0..count).map(without).collect()
    }

    /// What has to match, and scores.
    pub(crate) fn query(&self, snapshot: &ListingSnapshot) -> Vec<(Occur, Box<dyn Query>)> {
        let phrases = self.phrases.iter().map(|phrase| -> Box<dyn Query> {
            let ways = phrase.ways.iter().map(|way| way.query(snapshot));
            Box::new(DisjunctionMaxQuery::new(ways.collect()))
        });
        phrases.map(|phrase| (Occur::Must, phrase)).collect()
    }

    pub(crate) fn marks(&self) -> Marks {
        let mut marks = Marks::default();
        for way in self.phrases.iter().flat_map(|phrase| &phrase.ways) {
            for word in &way.words {
                marks.stems.insert(stem(word));
                marks.words.insert(word.clone());
            }
            marks.prefixes.extend(way.words.last().filter(|_| way.prefix).cloned());
        }
        marks
    }
}

impl Way {
    fn query(&self, snapshot: &ListingSnapshot) -> Box<dyn Query> {
        let last = self.words.len().saturating_sub(1);
        let words = self.words.iter().enumerate();
        let mut queries: Vec<Box<dyn Query>> =
            words.map(|(at, word)| self.word(snapshot, word, self.prefix && at == last)).collect();
        if queries.len() == 1 { queries.remove(0) } else { Box::new(BooleanQuery::intersection(queries)) }
    }

    fn word(&self, snapshot: &ListingSnapshot, word: &str, prefix: bool) -> Box<dyn Query> {
        // A phrase of several words counts as one.
        let weight = self.weight / self.words.len().max(1) as f32;
        let scored = |query: Box<dyn Query>, score: f32| -> Box<dyn Query> {
            Box::new(ConstScoreQuery::new(query, score * weight))
        };
        let term = |field: TextField, word: &str| Term::from_field_text(field.field, word);
        let exactly = snapshot
            .fields
            .texts
            .iter()
            .map(|&text| scored(Box::new(TermQuery::new(term(text, word), IndexRecordOption::Basic)), text.boost));
        let mut queries: Vec<Box<dyn Query>> = exactly.collect();
        let stems = snapshot.fields.stems;
        queries.push(scored(
            Box::new(TermQuery::new(term(stems, &stem(word)), IndexRecordOption::Basic)),
            stems.boost * STEM,
        ));
        if prefix {
            let begun = snapshot.fields.texts.iter().filter(|text| text.names).map(|&text| {
                scored(Box::new(FuzzyTermQuery::new_prefix(term(text, word), 0, true)), text.boost * PREFIX)
            });
            queries.extend(begun);
        }
        Box::new(DisjunctionMaxQuery::new(queries))
    }
}

impl ListingSnapshot {
    /// Whether anything has the words of one of these ways.
    fn has_any(&self, ways: &[Way]) -> Result<bool, IndexError> {
        for way in ways {
            let mut all = true;
            let last = way.words.len().saturating_sub(1);
            for (at, word) in way.words.iter().enumerate() {
                all &= self.has(word, way.prefix && at == last)?;
            }
            if all {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn has(&self, word: &str, prefix: bool) -> Result<bool, IndexError> {
        let stem = stem(word);
        let fields = &self.fields;
        for segment in self.searcher.segment_readers() {
            for text in &fields.texts {
                let index = segment.inverted_index(text.field)?;
                if index.terms().get(word).map_err(tantivy::TantivyError::from)?.is_some() {
                    return Ok(true);
                }
                if prefix && text.names {
                    let begun = FuzzyTermQuery::new_prefix(Term::from_field_text(text.field, word), 0, true);
                    let mut found =
                        index.terms().search(begun.automaton()?).into_stream().map_err(tantivy::TantivyError::from)?;
                    if found.advance() {
                        return Ok(true);
                    }
                }
            }
            let stems = segment.inverted_index(fields.stems.field)?;
            if stems.terms().get(&stem).map_err(tantivy::TantivyError::from)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The words of the index that this one may have been meant to be, the likeliest first.
    fn like(&self, word: &str, prefix: bool) -> Result<Vec<String>, IndexError> {
        let Some(distance) = typos(word) else { return Ok(Vec::new()) };
        // By word: how far it is, and how many listings have it, by how much the field counts.
        let mut likely: BTreeMap<String, (usize, f32)> = BTreeMap::new();
        for segment in self.searcher.segment_readers() {
            for text in &self.fields.texts {
                let index = segment.inverted_index(text.field)?;
                let term = Term::from_field_text(text.field, word);
                let wanted = if prefix && text.names {
                    FuzzyTermQuery::new_prefix(term, distance, true)
                } else {
                    FuzzyTermQuery::new(term, distance, true)
                };
                let mut found =
                    index.terms().search(wanted.automaton()?).into_stream().map_err(tantivy::TantivyError::from)?;
                while found.advance() {
                    let Ok(other) = std::str::from_utf8(found.key()) else { continue };
                    if other == word {
                        continue;
                    }
                    let far = if prefix {
                        let begun: String = other.chars().take(word.chars().count()).collect();
                        strsim::osa_distance(word, other).min(strsim::osa_distance(word, &begun))
                    } else {
                        strsim::osa_distance(word, other)
                    };
                    let known = likely.entry(other.to_owned()).or_insert((far, 0.0));
                    known.1 += text.boost * found.value().doc_freq as f32;
                }
            }
        }
        let first = word.chars().next();
        let mut likely: Vec<(String, usize, f32)> =
            likely.into_iter().map(|(other, (far, weight))| (other, far, weight)).collect();
        // People seldom mistype the first letter.
        likely.sort_by(|(a, a_far, a_weight), (b, b_far, b_weight)| {
            (a_far, a.chars().next() != first)
                .cmp(&(b_far, b.chars().next() != first))
                .then(b_weight.total_cmp(a_weight))
                .then_with(|| a.cmp(b))
        });
        let nearest = likely.first().map_or(0, |(_, far, _)| *far);
        likely.retain(|(_, far, _)| *far <= nearest);
        likely.truncate(MOST_CORRECTIONS);
        Ok(likely.into_iter().map(|(other, ..)| other).collect())
    }
}

/// How many letters of a word may be wrong; short words and those with digits are as they are.
fn typos(word: &str) -> Option<u8> {
    if word.chars().any(|letter| letter.is_ascii_digit()) {
        return None;
    }
    match word.chars().count() {
        0..=3 => None,
        4..=7 => Some(1),
        _ => Some(2),
    }
}
