//! Cuts a stream of bytes into the texts of events, in bounded memory.
//!
//! Bytes come in pieces of any size; what a piece completes goes out at once. A text that is too large is not kept,
//! only measured, so the splitter holds at most one event's text.

use bytes::{Bytes, BytesMut};
use serde_json::{error::Category, value::RawValue};

use crate::{MAX_EVENT_BYTES, Rejection, RejectionCode};

/// How a body holds its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyForm {
    /// One JSON value, or several, or an array of them, or NDJSON: told apart by the text itself.
    Any,
    /// One event per line, empty lines ignored.
    Ndjson,
}

/// One event's text, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its place, from 0: the line of NDJSON, the item of an array.
    pub index: u64,
    pub text: Result<Bytes, Rejection>,
}

/// Where in the body the splitter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing but white space so far.
    Start,
    /// Lines are events.
    Lines,
    /// Within a value that began a body of any form and is not complete at the end of its line.
    Value,
    /// After `[`: whether it begins an array is not known yet.
    Bracket,
    /// Within an array, in or before an item.
    Array,
}

/// Follows JSON just far enough to know where a value ends.
#[derive(Clone, Copy, Debug, Default)]
struct Nesting {
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    /// Take the next byte. Afterwards `depth` is 0 and `in_string` false when a value is complete.
    fn take(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }

    const fn is_outside(self) -> bool {
        self.depth == 0 && !self.in_string
    }
}

/// The text being gathered. Beyond the limit only its length is.
#[derive(Debug, Default)]
struct Gathered {
    kept: BytesMut,
    length: usize,
}

impl Gathered {
    fn extend(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        // One byte more than an event may have, so that a full text is known from a cut one.
        let room = (MAX_EVENT_BYTES + 1).saturating_sub(self.kept.len());
        self.kept.extend_from_slice(&bytes[..room.min(bytes.len())]);
    }

    fn is_blank(&self) -> bool {
        self.kept.trim_ascii().is_empty() && self.length == self.kept.len()
    }

    fn take(&mut self) -> Result<Bytes, Rejection> {
        let (length, kept) = (std::mem::take(&mut self.length), self.kept.split().freeze());
        if length > MAX_EVENT_BYTES { Err(Rejection::too_large(length)) } else { Ok(kept) }
    }
}

/// Cuts one body.
#[derive(Debug)]
pub struct Splitter {
    form: BodyForm,
    state: State,
    gathered: Gathered,
    nesting: Nesting,
    /// The index of what is being gathered.
    index: u64,
    items: Vec<Item>,
}

impl Splitter {
    #[must_use]
    pub fn new(form: BodyForm) -> Self {
        Self {
            form,
            state: State::Start,
            gathered: Gathered::default(),
            nesting: Nesting::default(),
            index: 0,
            items: Vec::new(),
        }
    }

    /// Take the next bytes of the body, and hand out the items they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Item> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = match self.state {
                State::Start => self.start(rest),
                State::Lines => self.line(rest),
                State::Value => self.value(rest),
                State::Bracket => self.bracket(rest),
                State::Array => self.array(rest),
            };
            rest = &rest[taken..];
        }
        std::mem::take(&mut self.items)
    }

    /// The body has ended: hand out what is left.
    pub fn finish(&mut self) -> Vec<Item> {
        match self.state {
            State::Start => {}
            State::Lines => self.end_line(),
            State::Value => {
                self.value_was_lines();
                self.end_line();
            }
            State::Bracket | State::Array => {
                let text = "the array does not end: its closing bracket is missing";
                let rejection = match self.gathered.take() {
                    Err(too_large) => too_large,
                    Ok(_) => Rejection::new(RejectionCode::InvalidJson, text),
                };
                self.items.push(Item { index: self.index, text: Err(rejection) });
            }
        }
        self.state = State::Start;
        std::mem::take(&mut self.items)
    }

    fn start(&mut self, bytes: &[u8]) -> usize {
        /// What some programs write before UTF-8.
        const BYTE_ORDER_MARK: &[u8] = &[0xEF, 0xBB, 0xBF];
        let blank = |byte: &u8| byte.is_ascii_whitespace() || BYTE_ORDER_MARK.contains(byte);
        let Some(first) = bytes.iter().position(|byte| !blank(byte)) else {
            self.index += newlines(bytes);
            return bytes.len();
        };
        self.index += newlines(&bytes[..first]);
        match (self.form, bytes[first]) {
            (BodyForm::Any, b'[') => {
                self.state = State::Bracket;
                self.gathered.extend(b"[");
                first + 1
            }
            (BodyForm::Any, b'{') => {
                self.state = State::Value;
                self.nesting = Nesting::default();
                first
            }
            (BodyForm::Any | BodyForm::Ndjson, _) => {
                self.state = State::Lines;
                first
            }
        }
    }

    fn line(&mut self, bytes: &[u8]) -> usize {
        match bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                self.gathered.extend(&bytes[..end]);
                self.end_line();
                end + 1
            }
            None => {
                self.gathered.extend(bytes);
                bytes.len()
            }
        }
    }

    fn end_line(&mut self) {
        let blank = self.gathered.is_blank();
        let text = self.gathered.take();
        if !blank {
            self.items.push(Item { index: self.index, text });
        }
        self.index += 1;
    }

    /// Gather a value that may have several lines. If it turns out to be none, its lines are events, good or bad.
    fn value(&mut self, bytes: &[u8]) -> usize {
        // Never more than is kept: what turns out to be lines is read once more.
        let bytes = &bytes[..bytes.len().min(MAX_EVENT_BYTES + 1 - self.gathered.length)];
        let first_line = !self.gathered.kept.contains(&b'\n');
        for (at, byte) in bytes.iter().enumerate() {
            self.nesting.take(*byte);
            if self.nesting.is_outside() {
                self.gathered.extend(&bytes[..=at]);
                self.end_value();
                return at + 1;
            }
            if *byte == b'\n' && first_line {
                self.gathered.extend(&bytes[..=at]);
                // A line that is no beginning of a value is a bad event by itself.
                if !begins_value(&self.gathered.kept) {
                    self.value_was_lines();
                }
                return at + 1;
            }
        }
        self.gathered.extend(bytes);
        if self.gathered.length > MAX_EVENT_BYTES {
            self.value_was_lines();
        }
        bytes.len()
    }

    fn end_value(&mut self) {
        let lines = newlines(&self.gathered.kept);
        if lines == 0 {
            // An object on one line: the body is NDJSON, of which this may be the only line.
            self.state = State::Lines;
        } else if serde_json::from_slice::<&RawValue>(&self.gathered.kept).is_ok() {
            let text = self.gathered.take();
            self.items.push(Item { index: self.index, text });
            self.index += lines;
            self.state = State::Start;
        } else {
            self.value_was_lines();
        }
    }

    /// What was gathered as one value are lines; the last of them may go on.
    fn value_was_lines(&mut self) {
        let gathered = std::mem::take(&mut self.gathered);
        self.state = State::Lines;
        let mut rest: &[u8] = &gathered.kept;
        while !rest.is_empty() {
            rest = &rest[self.line(rest)..];
        }
    }

    fn bracket(&mut self, bytes: &[u8]) -> usize {
        let Some(first) = bytes.iter().position(|byte| !byte.is_ascii_whitespace()) else {
            self.gathered.extend(bytes);
            return bytes.len();
        };
        let begins = matches!(bytes[first], b'{' | b'[' | b'"' | b']' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n');
        if begins {
            self.gathered = Gathered::default();
            self.index = 0;
            self.nesting = Nesting::default();
            self.state = State::Array;
            first
        } else {
            // Something like `[INFO] started`: the body is lines, and this is one that is no event.
            self.value_was_lines();
            0
        }
    }

    fn array(&mut self, bytes: &[u8]) -> usize {
        for (at, byte) in bytes.iter().enumerate() {
            if self.nesting.is_outside() && matches!(byte, b',' | b']') {
                self.gathered.extend(&bytes[..at]);
                self.end_array_item(*byte == b']');
                return at + 1;
            }
            self.nesting.take(*byte);
        }
        self.gathered.extend(bytes);
        bytes.len()
    }

    fn end_array_item(&mut self, last: bool) {
        let blank = self.gathered.is_blank();
        let text = self.gathered.take();
        let is_empty_array = blank && last && self.index == 0;
        if !is_empty_array {
            let missing = || Rejection::new(RejectionCode::InvalidJson, "an item of the array is missing");
            let text = if blank { Err(missing()) } else { text.map(|text| trimmed(&text)) };
            self.items.push(Item { index: self.index, text });
            self.index += 1;
        }
        if last {
            // Further text is no part of the array.
            self.state = State::Lines;
        }
    }
}

/// Without the white space around it.
fn trimmed(text: &Bytes) -> Bytes {
    let start = text.len() - text.trim_ascii_start().len();
    text.slice(start..start + text[start..].trim_ascii_end().len())
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Whether more text could make this a JSON value.
fn begins_value(text: &[u8]) -> bool {
    match serde_json::from_slice::<&RawValue>(text) {
        Ok(_) => true,
        Err(error) => error.classify() == Category::Eof,
    }
}

#[cfg(test)]
mod tests;
