//! Files cut into requests: whole lines, bounded in number and size.

use std::io::{self, BufRead};

/// Lines in one request. With [`CHUNK_BYTES`] it keeps a request within a few atomic batches.
const CHUNK_LINES: usize = 4_000;
const CHUNK_BYTES: usize = 4 << 20;

/// Consecutive lines of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The number of the first line, from 1.
    pub first_line: u64,
    pub lines: u64,
    /// Whether the text is one JSON array instead of lines.
    pub is_array: bool,
    pub text: Vec<u8>,
}

/// Cuts NDJSON into chunks. A line longer than a chunk is a chunk of its own, and so is a file that is one JSON array.
pub struct Chunks<R> {
    input: R,
    next_line: u64,
}

impl<R: BufRead> Chunks<R> {
    pub const fn new(input: R) -> Self {
        Self { input, next_line: 1 }
    }

    /// # Errors
    /// When the input cannot be read.
    pub fn next_chunk(&mut self) -> io::Result<Option<Chunk>> {
        let mut chunk = Chunk { first_line: self.next_line, lines: 0, is_array: false, text: Vec::new() };
        if self.next_line == 1 && self.input.fill_buf()?.trim_ascii_start().starts_with(b"[") {
            self.input.read_to_end(&mut chunk.text)?;
            chunk.lines = 1;
            chunk.is_array = true;
        }
        while (chunk.lines as usize) < CHUNK_LINES && chunk.text.len() < CHUNK_BYTES {
            match self.input.read_until(b'\n', &mut chunk.text)? {
                0 => break,
                _ => chunk.lines += 1,
            }
        }
        self.next_line += chunk.lines;
        Ok((chunk.lines > 0).then_some(chunk))
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK_LINES, Chunks};

    #[test]
    fn an_array_is_one_chunk_however_many_lines_it_has() -> std::io::Result<()> {
        let text = " [\n{},\n{}\n]\n";
        let mut chunks = Chunks::new(text.as_bytes());
        assert_eq!(chunks.next_chunk()?.map(|chunk| chunk.text), Some(text.as_bytes().to_vec()));
        assert_eq!(chunks.next_chunk()?, None);
        Ok(())
    }

    #[test]
    fn chunks_are_whole_lines_and_know_where_they_began() -> std::io::Result<()> {
        let text: String = (0..CHUNK_LINES + 3).map(|i| format!("{{\"n\":{i}}}\n")).collect();
        let mut chunks = Chunks::new(text.as_bytes());
        let (mut joined, mut starts) = (Vec::new(), Vec::new());
        while let Some(chunk) = chunks.next_chunk()? {
            starts.push((chunk.first_line, chunk.lines));
            joined.extend(chunk.text);
        }
        assert_eq!(starts, [(1, CHUNK_LINES as u64), (CHUNK_LINES as u64 + 1, 3)]);
        assert_eq!(joined, text.as_bytes());
        Ok(())
    }
}
