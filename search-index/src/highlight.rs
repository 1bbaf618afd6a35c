//! The words that found a listing, marked in its texts.

use std::collections::BTreeMap;

use crate::{
    listing::Listing,
    text::Marks,
    words::{stem, words},
};

/// Bytes of a long text that are shown around the first mark.
const AROUND: usize = 160;

/// By field, the text as HTML with `<mark>` around what was found: only fields in which something was.
pub(crate) fn highlights(listing: &Listing, marks: &Marks) -> BTreeMap<&'static str, String> {
    if marks.is_empty() {
        return BTreeMap::new();
    }
    let features = listing.features.join(" · ");
    let texts = [
        ("title", listing.title.as_deref()),
        ("description", listing.description.as_deref()),
        ("features", Some(features.as_str())),
        ("dealer_name", listing.dealer_name.as_deref()),
    ];
    texts.into_iter().filter_map(|(name, text)| Some((name, marked(text?, marks)?))).collect()
}

fn marked(text: &str, marks: &Marks) -> Option<String> {
    let found: Vec<(usize, usize)> = words(text)
        .into_iter()
        .filter(|word| marks.has(&word.text, &stem(&word.text)))
        .map(|word| (word.from, word.to))
        .collect();
    let first = found.first()?.0;
    let (from, to) = window(text, first);
    let mut html = String::new();
    if from > 0 {
        html.push('…');
    }
    let mut at = from;
    for (begin, end) in found.into_iter().filter(|(begin, end)| *begin >= from && *end <= to) {
        escape(&text[at..begin], &mut html);
        html.push_str("<mark>");
        escape(&text[begin..end], &mut html);
        html.push_str("</mark>");
        at = end;
    }
    escape(&text[at..to], &mut html);
    if to < text.len() {
        html.push('…');
    }
    Some(html)
}

/// The part of a text that is shown: whole words around a place.
fn window(text: &str, place: usize) -> (usize, usize) {
    if text.len() <= 2 * AROUND {
        return (0, text.len());
    }
    let from = place.saturating_sub(AROUND);
    let from = text[..place].char_indices().find(|(at, letter)| *at >= from && letter.is_whitespace());
    let from = if place <= AROUND { 0 } else { from.map_or(place, |(at, letter)| at + letter.len_utf8()) };
    let to = text[place..].char_indices().map(|(at, letter)| (place + at, letter));
    let to = to.filter(|(_, letter)| letter.is_whitespace()).find(|(at, _)| *at >= place + AROUND);
    (from, to.map_or(text.len(), |(at, _)| at))
}

fn escape(text: &str, html: &mut String) {
    for letter in text.chars() {
        match letter {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
}
