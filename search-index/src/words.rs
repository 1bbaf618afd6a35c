//! Words: how texts are cut into them, what is left of them without endings, and which mean the same.

use std::{cell::RefCell, collections::HashMap, sync::LazyLock};

use tantivy::tokenizer::{
    AsciiFoldingFilter, Language, LowerCaser, RemoveLongFilter, SimpleTokenizer, Stemmer, TextAnalyzer, TokenStream,
};

/// Longer "words" are not words.
const LONGEST_WORD: usize = 60;
/// Words of the longest phrase that has synonyms.
const LONGEST_PHRASE: usize = 4;

/// A word of a text, as it is compared, and the bytes it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// Words in lower case, without accents.
fn folded() -> TextAnalyzer {
    TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(RemoveLongFilter::limit(LONGEST_WORD))
        .filter(LowerCaser)
        .filter(AsciiFoldingFilter)
        .build()
}

/// The same, without endings.
fn stemmed() -> TextAnalyzer {
    TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(RemoveLongFilter::limit(LONGEST_WORD))
        .filter(LowerCaser)
        .filter(AsciiFoldingFilter)
        .filter(Stemmer::new(Language::English))
        .build()
}

thread_local! {
    static ANALYZERS: RefCell<[TextAnalyzer; 2]> = RefCell::new([folded(), stemmed()]);
}

fn cut(analyzer: usize, text: &str) -> Vec<Word> {
    ANALYZERS.with_borrow_mut(|analyzers| {
        let mut words = Vec::new();
        let mut stream = analyzers[analyzer].token_stream(text);
        while stream.advance() {
            let token = stream.token();
            words.push(Word { text: token.text.clone(), from: token.offset_from, to: token.offset_to });
        }
        words
    })
}

/// A text without some words that are in it one after another; without each of them, where they are not.
#[must_use]
pub fn without_words(text: &str, unwanted: &str) -> String {
    let (held, gone) = (words(text), words(unwanted));
    let follows = |at: usize| held[at..].iter().zip(&gone).all(|(word, gone)| word.text == gone.text);
    let run = (0..=held.len().saturating_sub(gone.len())).find(|at| held.len() >= gone.len() && follows(*at));
    let mut left = String::new();
    let mut from = 0;
    for (at, word) in held.iter().enumerate() {
        let is_gone = match run {
            Some(run) => (run..run + gone.len()).contains(&at),
            None => gone.iter().any(|gone| gone.text == word.text),
        };
        if is_gone {
            left.push_str(&text[from..word.from]);
            from = word.to;
        }
    }
    left.push_str(&text[from..]);
    left.split_whitespace().filter(|word| word.chars().any(char::is_alphanumeric)).collect::<Vec<_>>().join(" ")
}

/// A text with some words for others.
#[must_use]
pub fn with_words(text: &str, others: &HashMap<&str, &str>) -> String {
    let (mut changed, mut from) = (String::new(), 0);
    for word in words(text) {
        if let Some(other) = others.get(word.text.as_str()) {
            changed.push_str(&text[from..word.from]);
            changed.push_str(other);
            from = word.to;
        }
    }
    changed.push_str(&text[from..]);
    changed
}

/// The words of a text, in lower case and without accents.
pub(crate) fn words(text: &str) -> Vec<Word> {
    cut(0, text)
}

/// The words of a text without their endings.
pub(crate) fn stems(text: &str) -> Vec<Word> {
    cut(1, text)
}

/// A word without its ending.
pub(crate) fn stem(word: &str) -> String {
    stems(word).into_iter().next().map_or_else(|| word.to_owned(), |word| word.text)
}

/// A text as values are compared: its words, one space between.
pub(crate) fn plain(text: &str) -> String {
    let words: Vec<String> = words(text).into_iter().map(|word| word.text).collect();
    words.join(" ")
}

/// How people also write a name of several words: in one. `F-150` is found by `f150`.
pub(crate) fn joined(name: &str) -> Option<String> {
    let words = words(name);
    (words.len() > 1).then(|| words.into_iter().map(|word| word.text).collect())
}

/// By phrase, the phrases that mean the same, without itself.
static SYNONYMS: LazyLock<HashMap<String, Vec<String>>> =
    LazyLock::new(|| read_synonyms(include_str!("../data/synonyms.txt")));

fn read_synonyms(text: &str) -> HashMap<String, Vec<String>> {
    let mut synonyms: HashMap<String, Vec<String>> = HashMap::new();
    let phrases =
        |list: &str| -> Vec<String> { list.split(',').map(plain).filter(|phrase| !phrase.is_empty()).collect() };
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let (from, to) = match line.split_once("=>") {
            Some((from, to)) => (phrases(from), phrases(to)),
            None => (phrases(line), phrases(line)),
        };
        for phrase in &from {
            let known = synonyms.entry(phrase.clone()).or_default();
            for other in &to {
                if other != phrase && !known.contains(other) {
                    known.push(other.clone());
                }
            }
        }
    }
    synonyms
}

/// What a phrase may also be called.
pub(crate) fn synonyms(phrase: &str) -> &'static [String] {
    SYNONYMS.get(phrase).map_or(&[], Vec::as_slice)
}

/// The words cut into phrases: the longest that have synonyms, else single words.
pub(crate) fn phrases(words: &[Word]) -> Vec<&[Word]> {
    let mut phrases = Vec::new();
    let mut rest = words;
    while !rest.is_empty() {
        let longest = rest.len().min(LONGEST_PHRASE);
        let length = (2..=longest).rev().find(|length| !synonyms(&text_of(&rest[..*length])).is_empty()).unwrap_or(1);
        let (phrase, after) = rest.split_at(length);
        phrases.push(phrase);
        rest = after;
    }
    phrases
}

/// Words with a space between.
pub(crate) fn text_of(words: &[Word]) -> String {
    let words: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::{joined, phrases, plain, read_synonyms, stem, synonyms, text_of, words};

    #[test]
    fn words_are_folded_and_stemmed() {
        assert_eq!(plain("  Citroën  C4-Cactus "), "citroen c4 cactus");
        assert_eq!((stem("trucks"), stem("truck")), ("truck".to_owned(), "truck".to_owned()));
        assert_eq!((joined("F-150").as_deref(), joined("Civic")), (Some("f150"), None));
    }

    #[test]
    fn synonyms_go_both_ways_or_one() {
        let read = read_synonyms("# no\nchevy => chevrolet\nfour wheel drive, 4x4\n");
        assert_eq!(read["chevy"], ["chevrolet"]);
        assert!(!read.contains_key("chevrolet"));
        assert_eq!(
            (&read["4x4"], &read["four wheel drive"]),
            (&vec!["four wheel drive".to_owned()], &vec!["4x4".to_owned()])
        );
    }

    #[test]
    fn the_longest_phrase_that_has_synonyms_is_taken() {
        let words = words("red four wheel drive pickup");
        let cut: Vec<String> = phrases(&words).into_iter().map(text_of).collect();
        assert_eq!(cut, ["red", "four wheel drive", "pickup"]);
        assert!(synonyms("pickup").contains(&"truck".to_owned()));
    }

    #[test]
    fn words_are_taken_out_of_a_text_whole() {
        for (text, unwanted, left) in [
            ("reduced red civic", "red", "reduced civic"),
            ("Coupé, zzz near Montréal", "coupe", ", zzz near Montréal"),
            ("a x-trail b", "x trail", "a b"),
            ("civic under 20k near toronto", "under 20k", "civic near toronto"),
            ("İ red", "red", "İ"),
            ("red blue", "blue red", ""),
            ("red", "", "red"),
        ] {
            let found = super::without_words(text, unwanted);
            assert_eq!(found, left.trim_start_matches(", "), "{text} - {unwanted}");
        }
    }
}
