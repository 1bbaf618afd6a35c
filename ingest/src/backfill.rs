//! Files cut into requests: whole events, bounded in number and size.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use schemas::{
    Rejection,
    splitter::{BodyForm, Item, Splitter},
};
use tokio::io::AsyncReadExt;

use crate::encoding::Reader;

/// Events in one request. With [`CHUNK_BYTES`] it keeps a request within a few atomic batches.
const CHUNK_EVENTS: usize = 4_000;
const CHUNK_BYTES: usize = 4 << 20;
/// Bytes read at once.
const READ: usize = 256 << 10;

/// Consecutive events of a file, to be sent as NDJSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// For each line of `text`, its place in the file, from 0: the line, or the item of an array.
    pub indexes: Vec<u64>,
    pub text: Bytes,
    /// What is no text of an event, and need not be sent.
    pub refused: Vec<(u64, Rejection)>,
}

impl Chunk {
    /// How many events, good or bad, it stands for.
    #[must_use]
    pub const fn events(&self) -> usize {
        self.indexes.len() + self.refused.len()
    }

    /// The text of the n-th line.
    #[must_use]
    pub fn line(&self, n: usize) -> Option<&[u8]> {
        self.text.split(|byte| *byte == b'\n').nth(n)
    }
}

/// Cuts NDJSON, arrays and single events into chunks of lines.
pub struct Chunks {
    input: Reader,
    splitter: Splitter,
    buffer: BytesMut,
    /// Items that came with the last read and found no room in its chunk.
    waiting: std::collections::VecDeque<Item>,
    ended: bool,
}

impl Chunks {
    #[must_use]
    pub fn new(input: Reader) -> Self {
        Self {
            input,
            splitter: Splitter::new(BodyForm::Any),
            buffer: BytesMut::with_capacity(READ),
            waiting: std::collections::VecDeque::new(),
            ended: false,
        }
    }

    /// The next chunk; `None` at the end.
    ///
    /// # Errors
    /// When the input cannot be read, or is not compressed as its name says.
    pub async fn next_chunk(&mut self) -> io::Result<Option<Chunk>> {
        let mut chunk = Chunk::default();
        let mut text = BytesMut::new();
        while chunk.events() < CHUNK_EVENTS && text.len() < CHUNK_BYTES {
            match self.waiting.pop_front() {
                Some(Item { index, text: Ok(event) }) => {
                    chunk.indexes.push(index);
                    put_line(&mut text, &event);
                }
                Some(Item { index, text: Err(rejection) }) => chunk.refused.push((index, rejection)),
                None if self.ended => break,
                None => self.read().await?,
            }
        }
        chunk.text = text.freeze();
        Ok((chunk.events() > 0).then_some(chunk))
    }

    async fn read(&mut self) -> io::Result<()> {
        self.buffer.clear();
        self.ended = self.input.read_buf(&mut self.buffer).await? == 0;
        let items = if self.ended { self.splitter.finish() } else { self.splitter.push(&self.buffer) };
        self.waiting.extend(items);
        Ok(())
    }
}

/// One event on one line. Within JSON a line break is only ever white space; what is no JSON is refused either way.
fn put_line(text: &mut BytesMut, event: &[u8]) {
    let start = text.len();
    text.put_slice(event);
    for byte in &mut text[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    text.put_u8(b'\n');
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use datasets::spoiled;
    use rand::{Rng, seq::IndexedRandom};

    use super::{CHUNK_EVENTS, Chunk, Chunks};
    use crate::encoding::Encoding;

    async fn chunks(text: String) -> std::io::Result<Vec<Chunk>> {
        let mut chunks = Chunks::new(Encoding::Identity.decode(std::io::Cursor::new(text.into_bytes())));
        let mut all = Vec::new();
        while let Some(chunk) = chunks.next_chunk().await? {
            all.push(chunk);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn an_array_becomes_lines_however_many_lines_its_items_have() -> std::io::Result<()> {
        let all = chunks(" [\n{\"a\":\n1},\n{} ,\n]\n".to_owned()).await?;
        assert_eq!(all.len(), 1);
        assert_eq!((&all[0].text[..], &all[0].indexes[..]), (&b"{\"a\": 1}\n{}\n"[..], &[0, 1][..]));
        assert_eq!((all[0].refused.len(), all[0].refused[0].0), (1, 2));
        Ok(())
    }

    #[tokio::test]
    async fn chunks_are_whole_lines_and_know_their_places() -> std::io::Result<()> {
        let text: String = (0..CHUNK_EVENTS + 3).map(|i| format!("{{\"n\":{i}}}\n")).collect();
        let all = chunks(text.clone()).await?;
        let places: Vec<_> = all.iter().map(|chunk| (chunk.indexes[0], chunk.events())).collect();
        assert_eq!(places, [(0, CHUNK_EVENTS), (CHUNK_EVENTS as u64, 3)]);
        let joined: Vec<u8> = all.iter().flat_map(|chunk| chunk.text.to_vec()).collect();
        assert_eq!(joined, text.as_bytes());
        assert_eq!(all[1].line(2), Some(format!("{{\"n\":{}}}", CHUNK_EVENTS + 2).as_bytes()));
        Ok(())
    }

    fn compressed(encoding: Encoding, body: &[u8]) -> Vec<u8> {
        match encoding {
            Encoding::Identity => body.to_vec(),
            Encoding::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(body).unwrap();
                encoder.finish().unwrap()
            }
            Encoding::Zstd => zstd::encode_all(body, 1).unwrap(),
        }
    }

    #[test]
    fn a_spoiled_file_is_read_to_its_end_or_refused() {
        let catalogue = schemas::Catalogue::embedded().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        spoiled::try_inputs(|rng| {
            let encoding = *[Encoding::Identity, Encoding::Gzip, Encoding::Zstd].choose(rng).unwrap();
            let mut file = compressed(encoding, &spoiled::body(&catalogue, rng));
            if rng.random_bool(0.5) {
                spoiled::spoil(&mut file, rng);
            }
            runtime.block_on(async {
                let mut chunks = Chunks::new(encoding.decode(std::io::Cursor::new(file)));
                while let Ok(Some(chunk)) = chunks.next_chunk().await {
                    let lines = chunk.text.iter().filter(|byte| **byte == b'\n').count();
                    assert_eq!(lines, chunk.indexes.len());
                }
            });
        });
    }
}
