//! A message as its stream stores it, asked for as data.
//!
//! `STREAM.MSG.GET` answers in JSON, with headers and payload in Base64: what a client cannot parse as a message, it can
//! still be told of.

use async_nats::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
    jetstream::{self, ErrorCode, context::RequestError, response::Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use schemas::{Position, field_type::parse_timestamp};
use serde::{Deserialize, Serialize};

/// What keeps a stored message from being read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoredMessageError {
    /// The server did not answer.
    #[error(transparent)]
    Away(#[from] RequestError),
    /// It answered that it cannot: of no message in particular.
    #[error("the NATS server does not hand messages over: {0}")]
    Refused(String),
    /// What it answered is no message.
    #[error("the NATS server's answer of the message at position {position} has {what}")]
    Malformed { position: Position, what: &'static str },
}

/// Which message is asked for.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Asked {
    /// The first at this position or after it.
    From {
        #[serde(rename = "seq")]
        position: u64,
        #[serde(rename = "next_by_subj")]
        subjects: &'static str,
    },
    Last {
        #[serde(rename = "last_by_subj")]
        subjects: &'static str,
    },
}

impl Asked {
    /// The last of a subject; with `>` alone the server says none when the last one was deleted.
    pub(crate) const fn last(subjects: &'static str) -> Self {
        Self::Last { subjects }
    }

    pub(crate) const fn from(position: Position) -> Self {
        Self::From { position: position.get(), subjects: ">" }
    }
}

#[derive(Debug)]
pub(crate) struct StoredMessage {
    pub(crate) position: Position,
    /// When the stream took it: microseconds since 1970, UTC.
    pub(crate) ingested_at: i64,
    /// What is no UTF-8 in it is replaced by U+FFFD.
    pub(crate) subject: String,
    /// The block of headers, if there is one.
    pub(crate) headers: Option<Bytes>,
    pub(crate) payload: Bytes,
}

#[derive(Deserialize)]
struct Answer {
    message: Encoded,
}

#[derive(Deserialize)]
struct Encoded {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: Option<String>,
    #[serde(default)]
    data: String,
    time: String,
}

/// Ask a stream for a message; `None` when there is no such message.
pub(crate) async fn get(
    jetstream: &jetstream::Context,
    stream: &'static str,
    asked: Asked,
) -> Result<Option<StoredMessage>, StoredMessageError> {
    let answer = jetstream.request(format!("STREAM.MSG.GET.{stream}"), &asked).await?;
    let encoded = match answer {
        Response::Ok(Answer { message }) => message,
        Response::Err { error } if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => return Ok(None),
        Response::Err { error } => return Err(StoredMessageError::Refused(error.to_string())),
    };
    encoded.decoded().map(Some)
}

impl Encoded {
    fn decoded(self) -> Result<StoredMessage, StoredMessageError> {
        let position = Position::new(self.seq);
        let malformed = |what| StoredMessageError::Malformed { position, what };
        let bytes = |text: &str| BASE64_STANDARD.decode(text).map_err(|_| malformed("no Base64"));
        Ok(StoredMessage {
            position,
            ingested_at: parse_timestamp(&self.time).ok_or_else(|| malformed("no time"))?,
            headers: self.hdrs.map(|text| bytes(&text)).transpose()?.map(Bytes::from),
            payload: bytes(&self.data)?.into(),
            subject: self.subject,
        })
    }
}

/// Read a block of headers as the client does; an error says what is wrong in it.
pub(crate) fn parse_headers(block: &[u8]) -> Result<HeaderMap, String> {
    let text = std::str::from_utf8(block)
        .map_err(|error| format!("the headers are no UTF-8 at byte {}", error.valid_up_to()))?;
    let mut lines = text.lines().peekable();
    match lines.next().and_then(|first| first.strip_prefix("NATS/1.0")).map(str::trim) {
        Some("") => {}
        // The client takes it for word from the server, and not for a message.
        Some(status) => {
            return Err(format!("the headers begin with the status {status:?}, as the server's own messages do"));
        }
        None => return Err("the headers do not begin with NATS/1.0".to_owned()),
    }
    let mut headers = HeaderMap::new();
    let mut number = 1;
    while let Some(line) = lines.next() {
        number += 1;
        if line.is_empty() {
            continue;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| format!("line {number} of the headers has no colon"))?;
        let name: HeaderName = name
            .parse()
            .map_err(|_| format!("line {number} of the headers has the name {name:?}, which no header may have"))?;
        let mut value = value.trim_start().to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            number += 1;
            value.push_str(more);
        }
        value.truncate(value.trim_end().len());
        let value: HeaderValue =
            value.parse().map_err(|_| format!("line {number} of the headers has a value that no header may have"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::{Asked, Position, parse_headers};

    #[test]
    fn headers_are_read_as_the_client_reads_them_or_refused_with_their_line() {
        let headers = parse_headers(b"NATS/1.0\r\nNats-Msg-Id: a b\r\nX: one\r\n two\r\n\r\n").unwrap();
        let value = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
        assert_eq!((value("Nats-Msg-Id"), value("X")), (Some("a b".to_owned()), Some("one two".to_owned())));
        for (block, told) in [
            (&b"NATS/1.0\r\nX City: a\r\n\r\n"[..], "line 2 of the headers has the name \"X City\""),
            (b"NATS/1.0\r\nX-City: Montr\xe9al\r\n\r\n", "the headers are no UTF-8 at byte 23"),
            ("NATS/1.0\r\nVille-\u{e9}: a\r\n\r\n".as_bytes(), "line 2 of the headers has the name \"Ville-\u{e9}\""),
            (b"NATS/1.0\r\nA: b\r\na line\r\n\r\n", "line 3 of the headers has no colon"),
            (b"NATS/1.0\r\nA: b\rc\r\n\r\n", "line 2 of the headers has a value that no header may have"),
            (b"NATS/1.0 503\r\nA: b\r\n\r\n", "the headers begin with the status \"503\""),
            (b"HTTP/1.1\r\n\r\n", "the headers do not begin with NATS/1.0"),
        ] {
            let refused = parse_headers(block).unwrap_err();
            assert!(refused.starts_with(told), "{refused}");
        }
    }

    #[test]
    fn a_question_is_what_the_server_expects() {
        let text = |asked| serde_json::to_string(&asked).unwrap();
        assert_eq!(text(Asked::from(Position::new(7))), r#"{"seq":7,"next_by_subj":">"}"#);
        assert_eq!(text(Asked::last("events.>")), r#"{"last_by_subj":"events.>"}"#);
    }
}
