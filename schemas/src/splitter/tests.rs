use proptest::prelude::*;

use super::{BodyForm, Item, Splitter};
use crate::MAX_EVENT_BYTES;

/// The items of a body that comes in pieces of this size.
fn items(body: &[u8], form: BodyForm, piece: usize) -> Vec<Item> {
    let mut splitter = Splitter::new(form);
    let mut items: Vec<Item> = body.chunks(piece).flat_map(|piece| splitter.push(piece)).collect();
    items.extend(splitter.finish());
    items
}

fn texts(body: &str, form: BodyForm) -> Vec<(u64, Result<String, &'static str>)> {
    let whole = items(body.as_bytes(), form, usize::MAX);
    for piece in 1..body.len().min(9) {
        assert_eq!(items(body.as_bytes(), form, piece), whole, "in pieces of {piece}: {body:?}");
    }
    let text = |item: Item| {
        let text = item.text.map(|text| String::from_utf8_lossy(&text).into_owned());
        (item.index, text.map_err(|rejection| rejection.code.as_str()))
    };
    whole.into_iter().map(text).collect()
}

#[test]
fn a_body_is_one_event_or_an_array_or_lines() {
    let ok = |text: &str| Ok(text.to_owned());
    let any = |body| texts(body, BodyForm::Any);
    assert_eq!(any(" \n "), []);
    assert_eq!(any("{\n\"a\":1}"), [(0, ok("{\n\"a\":1}"))]);
    assert_eq!(any("{\n\"a\":1}\n{\n}\n"), [(0, ok("{\n\"a\":1}")), (2, ok("{\n}"))]);
    assert_eq!(any("\u{feff}{}\n{}"), [(0, ok("{}")), (1, ok("{}"))]);
    assert_eq!(any("[{\"a\":\"]\\\",\"} , 7]"), [(0, ok("{\"a\":\"]\\\",\"}")), (1, ok("7"))]);
    assert_eq!(any("[]"), []);
    assert_eq!(any("[1,]"), [(0, ok("1")), (1, Err("invalid_json"))]);
    assert_eq!(any("[{},"), [(0, ok("{}")), (1, Err("invalid_json"))]);
    assert_eq!(any("[1]\n{}"), [(0, ok("1")), (2, ok("{}"))]);
    assert_eq!(any("{}\n\nnot json\n{}"), [(0, ok("{}")), (2, ok("not json")), (3, ok("{}"))]);
    assert_eq!(any("[INFO] rotated\n{}"), [(0, ok("[INFO] rotated")), (1, ok("{}"))]);
    assert_eq!(texts("[1]\n{}", BodyForm::Ndjson), [(0, ok("[1]")), (1, ok("{}"))]);
}

#[test]
fn a_broken_line_spoils_only_itself_wherever_it_stands() {
    let ok = |text: &str| Ok(text.to_owned());
    for broken in ["{\"a\":", "{\"a\":\"x", "{\"a\":[", "}{", "\"", "[", "{{", "{]", "[x"] {
        let body = format!("{broken}\n{{\"b\":1}}\n{{\"c\":2}}");
        let lines = [(0, ok(broken)), (1, ok("{\"b\":1}")), (2, ok("{\"c\":2}"))];
        assert_eq!(texts(&body, BodyForm::Ndjson), lines);
        if !broken.starts_with('[') {
            assert_eq!(texts(&body, BodyForm::Any), lines);
        }
        let body = format!("{{\"b\":1}}\n{broken}\n{{\"c\":2}}");
        assert_eq!(texts(&body, BodyForm::Any), [(0, ok("{\"b\":1}")), (1, ok(broken)), (2, ok("{\"c\":2}"))]);
    }
}

#[test]
fn an_oversized_text_spoils_only_itself() {
    let large = "x".repeat(MAX_EVENT_BYTES + 1);
    let value = format!("{{\"a\":\"{large}\"}}");
    for (body, expected) in [
        (format!("{{}}\n{large}\n{{}}"), [(0, None), (1, Some("event_too_large")), (2, None)]),
        (format!("{value}\n{{}}\n{{}}"), [(0, Some("event_too_large")), (1, None), (2, None)]),
        (format!("[{{}},{value},{{}}]"), [(0, None), (1, Some("event_too_large")), (2, None)]),
    ] {
        for piece in [1 << 16, usize::MAX] {
            let codes = items(body.as_bytes(), BodyForm::Any, piece);
            let codes: Vec<_> =
                codes.into_iter().map(|it| (it.index, it.text.err().map(|e| e.code.as_str()))).collect();
            assert_eq!(codes, expected);
        }
    }
    let full = format!("\"{}\"", "x".repeat(MAX_EVENT_BYTES - 2));
    assert!(items(full.as_bytes(), BodyForm::Ndjson, 1 << 16)[0].text.is_ok());
}

proptest! {
    #[test]
    fn pieces_do_not_matter_and_lines_lose_nothing(
        body in prop::collection::vec(prop::sample::select(b"{}[]\"\\,:\n a1".to_vec()), 0..60), piece in 1..8_usize
    ) {
        for form in [BodyForm::Any, BodyForm::Ndjson] {
            prop_assert_eq!(items(&body, form, piece), items(&body, form, usize::MAX));
        }
        let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
        prop_assert_eq!(items(&body, BodyForm::Ndjson, piece).len(), lines);
    }

    #[test]
    fn an_array_or_lines_of_values_give_those_values(
        values in prop::collection::vec("\\{\"[a-z]{1,3}\":(\"([a-z,\\]\\[{}]|\\\\\\\\|\\\\\")*\"|\\[1,2\\])\\}", 1..8), piece in 1..40_usize
    ) {
        for body in [format!("[{}]", values.join(" ,\n")), values.join("\n"), values.join("\r\n") + "\n"] {
            let found = items(body.as_bytes(), BodyForm::Any, piece);
            let found: Vec<_> = found.into_iter().map(|it| it.text.map(|text| text.trim_ascii().to_vec())).collect();
            let expected: Vec<_> = values.iter().map(|value| Ok(value.clone().into_bytes())).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
