//! From a request body to the log: check each event, publish the good ones, answer for every one.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use schemas::{Catalogue, MAX_EVENT_BYTES, Position, Rejection, RejectionCode, validation::parse_event};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    Publisher,
    publisher::{MAX_BATCH, Outcome, Outgoing, PublishError},
    topology::event_subject,
};

/// What became of a request's events.
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
pub struct IntakeReport {
    pub accepted: u64,
    pub duplicates: u64,
    pub rejected: Vec<Rejected>,
    /// The highest position of an event of this request, accepted or duplicate.
    pub position: Option<u64>,
}

/// One event that was not taken.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Rejected {
    /// Its place in the body, from 0: the line of NDJSON, the item of an array.
    pub index: usize,
    pub event_id: Option<String>,
    pub code: &'static str,
    /// The field at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    pub message: String,
}

/// How a body holds its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyForm {
    /// One JSON object, or an array of them, or NDJSON: told apart by the text itself.
    Any,
    /// One event per line, empty lines ignored.
    Ndjson,
}

/// The door of the log.
#[derive(Clone, Debug)]
pub struct Intake {
    catalogue: Arc<Catalogue>,
    publisher: Publisher,
}

impl Intake {
    #[must_use]
    pub const fn new(catalogue: Arc<Catalogue>, publisher: Publisher) -> Self {
        Self { catalogue, publisher }
    }

    /// Take every good event of a body. When this returns, the accepted ones are on disk.
    ///
    /// # Errors
    /// When the log does not acknowledge; sending the body again is safe.
    pub async fn take(&self, body: Bytes, form: BodyForm) -> Result<IntakeReport, PublishError> {
        let mut report = IntakeReport::default();
        let mut waiting: Vec<Outgoing> = Vec::new();
        for item in items(&body, form) {
            let (index, checked) = match item {
                Item { index, range: Ok(range) } => (index, self.check(body.slice(range))),
                Item { index, range: Err(rejection) } => (index, Err(rejection)),
            };
            match checked {
                Ok(outgoing) => waiting.push(outgoing),
                Err(rejection) => report.rejected.push(Rejected {
                    index,
                    event_id: rejection.event_id,
                    code: rejection.code.as_str(),
                    field: rejection.field,
                    message: rejection.message,
                }),
            }
            if waiting.len() == MAX_BATCH {
                self.publish(&mut report, std::mem::take(&mut waiting)).await?;
            }
        }
        self.publish(&mut report, waiting).await?;
        Ok(report)
    }

    fn check(&self, text: Bytes) -> Result<Outgoing, Rejection> {
        let event = parse_event(&self.catalogue, &text, None)?;
        let context = &self.catalogue.context_at(event.kind.context).name;
        let name = &self.catalogue.event_at(event.kind).name;
        let subject = event_subject(context, name, &event.aggregate_id);
        Ok(Outgoing { key: event.id.key(), event_id: event.id.as_str().to_owned(), subject, payload: text })
    }

    async fn publish(&self, report: &mut IntakeReport, events: Vec<Outgoing>) -> Result<(), PublishError> {
        if events.is_empty() {
            return Ok(());
        }
        for outcome in self.publisher.publish(events).await? {
            let position: Position = match outcome {
                Outcome::Accepted(position) => {
                    report.accepted += 1;
                    position
                }
                Outcome::Duplicate(position) => {
                    report.duplicates += 1;
                    position
                }
            };
            report.position = report.position.max(Some(position.get()));
        }
        Ok(())
    }
}

/// One event's text in a body, or why there is none.
struct Item {
    index: usize,
    range: Result<Range<usize>, Rejection>,
}

impl Item {
    /// An item that is checked for its size before anything else is done with it.
    fn new(index: usize, range: Range<usize>) -> Self {
        let bytes = range.len();
        Self { index, range: if bytes > MAX_EVENT_BYTES { Err(Rejection::too_large(bytes)) } else { Ok(range) } }
    }
}

fn items(body: &[u8], form: BodyForm) -> Vec<Item> {
    let start = body.iter().position(|byte| !byte.is_ascii_whitespace());
    match (form, start.map(|start| body[start])) {
        (_, None) => Vec::new(),
        (BodyForm::Any, Some(b'[')) => array_items(body).unwrap_or_else(|| lines(body)),
        (BodyForm::Any, Some(_)) if is_one_value(body) => vec![Item::new(0, 0..body.len())],
        (BodyForm::Any | BodyForm::Ndjson, Some(_)) => lines(body),
    }
}

fn is_one_value(body: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(body).is_ok()
}

/// The items of an array; `None` when it is none, but there are further lines that may be events.
fn array_items(body: &[u8]) -> Option<Vec<Item>> {
    match serde_json::from_slice::<Vec<&RawValue>>(body) {
        Ok(values) => {
            let base = body.as_ptr().addr();
            let range = |value: &RawValue| {
                let start = value.get().as_ptr().addr() - base;
                start..start + value.get().len()
            };
            Some(values.into_iter().enumerate().map(|(index, value)| Item::new(index, range(value))).collect())
        }
        Err(_) if body.trim_ascii().contains(&b'\n') => None,
        Err(error) => {
            let message = format!("the body is not a JSON array: {error}");
            Some(vec![Item { index: 0, range: Err(Rejection::new(RejectionCode::InvalidJson, message)) }])
        }
    }
}

fn lines(body: &[u8]) -> Vec<Item> {
    let mut start = 0;
    let mut items = Vec::new();
    for (index, line) in body.split(|&byte| byte == b'\n').enumerate() {
        let range = start..start + line.len();
        start += line.len() + 1;
        if !line.trim_ascii().is_empty() {
            items.push(Item::new(index, range));
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::{BodyForm, items};
    use schemas::MAX_EVENT_BYTES;

    fn texts(body: &str, form: BodyForm) -> Vec<(usize, Result<String, &'static str>)> {
        let text = |range: std::ops::Range<usize>| body[range].to_owned();
        items(body.as_bytes(), form)
            .into_iter()
            .map(|item| (item.index, item.range.map(text).map_err(|rejection| rejection.code.as_str())))
            .collect()
    }

    #[test]
    fn a_body_is_one_event_or_an_array_or_lines() {
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(texts(" \n ", BodyForm::Any), []);
        assert_eq!(texts("{\n\"a\":1}", BodyForm::Any), [(0, ok("{\n\"a\":1}"))]);
        assert_eq!(texts("[{\"a\":1} , 7]", BodyForm::Any), [(0, ok("{\"a\":1}")), (1, ok("7"))]);
        assert_eq!(texts("{}\n\nnot json\n{}", BodyForm::Any), [(0, ok("{}")), (2, ok("not json")), (3, ok("{}"))]);
        assert_eq!(texts("[1]\n{}", BodyForm::Ndjson), [(0, ok("[1]")), (1, ok("{}"))]);
        assert_eq!(texts("[{},", BodyForm::Any), [(0, Err("invalid_json"))]);
        assert_eq!(texts("[INFO] rotated\n{}", BodyForm::Any), [(0, ok("[INFO] rotated")), (1, ok("{}"))]);
    }

    #[test]
    fn an_oversized_line_spoils_only_itself() {
        let body = format!("{{}}\n{}\n{{}}", "x".repeat(MAX_EVENT_BYTES + 1));
        let codes: Vec<_> = texts(&body, BodyForm::Any).into_iter().map(|(index, text)| (index, text.err())).collect();
        assert_eq!(codes, [(0, None), (1, Some("event_too_large")), (2, None)]);
    }
}
