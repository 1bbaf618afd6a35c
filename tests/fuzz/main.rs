//! What reads bytes of others and needs no engine, fed with what nobody would send: see [`datasets::spoiled`].
//!
//! An entry may refuse anything; it may not panic, lose an event that is whole, or take more than it was given. Files and
//! messages of the log are tried in the tests of `ingest` and `processors`.

use datasets::spoiled::{self, try_inputs};
use rand::{Rng, seq::IndexedRandom};
use schemas::{
    Catalogue,
    catalogue::EMBEDDED,
    envelope::structured,
    splitter::{BodyForm, Splitter},
    validation::parse_event,
};

#[test]
fn a_spoiled_request_body_is_cut_and_judged() {
    let catalogue = Catalogue::embedded().unwrap();
    try_inputs(|rng| {
        let body = spoiled::body(&catalogue, rng);
        let form = if rng.random() { BodyForm::Any } else { BodyForm::Ndjson };
        let mut splitter = Splitter::new(form);
        let mut items = Vec::new();
        let mut rest: &[u8] = &body;
        while !rest.is_empty() {
            let (piece, others) = rest.split_at(rng.random_range(1..=rest.len().min(200)));
            items.extend(splitter.push(piece));
            rest = others;
        }
        items.extend(splitter.finish());
        if form == BodyForm::Ndjson {
            let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
            // A byte order mark at the start is no text.
            assert!(lines - items.len() <= usize::from(lines > 0 && body[0] >= 0x80), "{lines} lines");
        }
        for item in items {
            if let Ok(text) = item.text {
                let _ = parse_event(&catalogue, &text, None);
            }
        }
    });
}

#[test]
fn spoiled_headers_make_a_cloud_event_or_none() {
    let catalogue = Catalogue::embedded().unwrap();
    try_inputs(|rng| {
        let names =
            ["ce-specversion", "ce-id", "ce-type", "ce-time", "ce-", "content-type", "ce-data", "ce-datacontenttype"];
        let values =
            ["1.0", "inventory.PriceSet", "%", "%zz%20", "application/json", "2026-11-02T00:00:00Z", "\u{e9}", ""];
        let headers: Vec<(&str, &str)> =
            (0..rng.random_range(0..8)).map(|_| (*names.choose(rng).unwrap(), *values.choose(rng).unwrap())).collect();
        let mut body = spoiled::event(&catalogue, rng);
        spoiled::spoil(&mut body, rng);
        if let Some(Ok(event)) = structured(headers, &body) {
            let _ = parse_event(&catalogue, &event, None);
        }
    });
}

#[test]
fn a_spoiled_catalogue_file_is_read_or_refused_with_a_line() {
    try_inputs(|rng| {
        let (file, text) = EMBEDDED.choose(rng).unwrap();
        let mut bytes = text.as_bytes().to_vec();
        spoiled::spoil(&mut bytes, rng);
        let text = String::from_utf8_lossy(&bytes);
        match Catalogue::parse([(*file, text.as_ref())]) {
            Ok(parsed) => assert_eq!(parsed.contexts().len(), 1),
            Err(error) => assert!(error.to_string().starts_with(&format!("{file}:")), "{error}"),
        }
    });
}
