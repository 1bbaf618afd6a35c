//! The file that `--rejected` names: what was refused, why, and its text.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde_json::json;

/// Refused events, one JSON object per line.
#[derive(Debug)]
pub(crate) struct RejectedFile {
    path: PathBuf,
    output: BufWriter<File>,
}

impl RejectedFile {
    /// A new file; or, when a run goes on, the end of the one there is.
    pub(crate) fn open(path: &Path, goes_on: bool) -> anyhow::Result<Self> {
        let mut options = File::options();
        options.create(true).append(goes_on).write(true).truncate(!goes_on);
        let file = options.open(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path: path.to_owned(), output: BufWriter::new(file) })
    }

    /// Add a refused event. Text that is not UTF-8 is shown with replacement characters.
    pub(crate) fn write(
        &mut self,
        file: &Path,
        line: u64,
        code: &str,
        field: Option<&str>,
        message: &str,
        text: Option<&[u8]>,
    ) -> anyhow::Result<()> {
        let text = text.map(String::from_utf8_lossy);
        let refused = json!({
            "file": file.display().to_string(), "line": line, "code": code, "field": field, "message": message,
            "text": text,
        });
        writeln!(self.output, "{refused}").with_context(|| format!("cannot write {}", self.path.display()))
    }

    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        self.output.flush().with_context(|| format!("cannot write {}", self.path.display()))
    }
}
