//! Files of events that commands write.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use anyhow::{Context, bail};

/// Fast, and a fifth of the text's size.
const LEVEL: i32 = 3;

/// Refuse to read and write, or to write twice, the same file.
pub(crate) fn all_different<'a>(paths: impl IntoIterator<Item = &'a Path>) -> anyhow::Result<()> {
    let mut seen = Vec::new();
    for path in paths.into_iter().filter(|path| *path != Path::new("-")) {
        let same = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if seen.contains(&same) {
            bail!("{} is named twice; what would be in it?", path.display());
        }
        seen.push(same);
    }
    Ok(())
}

/// A file to write events to: compressed when its name ends in .zst, standard output for `-`.
pub(crate) enum EventFile {
    Plain(Box<dyn Write>),
    Compressed(Box<zstd::Encoder<'static, BufWriter<File>>>),
}

impl EventFile {
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Plain(Box::new(BufWriter::new(io::stdout().lock()))));
        }
        if path.extension().is_some_and(|ending| ending == "gz") {
            bail!("cannot write {}: end its name in .zst to compress it", path.display());
        }
        let failed = || format!("cannot write {}", path.display());
        let file = BufWriter::with_capacity(1 << 20, File::create(path).with_context(failed)?);
        if path.extension().is_some_and(|ending| ending == "zst") {
            let encoder = zstd::Encoder::new(file, LEVEL).with_context(failed)?;
            return Ok(Self::Compressed(Box::new(encoder)));
        }
        Ok(Self::Plain(Box::new(file)))
    }

    /// Write what is still in memory. Without this, a compressed file has no end.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(mut output) => output.flush(),
            Self::Compressed(encoder) => encoder.finish()?.flush(),
        }
    }
}

impl Write for EventFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(output) => output.write(bytes),
            Self::Compressed(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(output) => output.flush(),
            Self::Compressed(encoder) => encoder.flush(),
        }
    }
}
