//! The file of a simulated history's truth, and its summary.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use datasets::truth::Truth;

/// The file for the truth. It is created before the history is generated, so that a wrong path fails at once.
pub(super) struct TruthFile {
    path: PathBuf,
    output: BufWriter<File>,
}

impl TruthFile {
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path: path.to_owned(), output: BufWriter::new(file) })
    }

    pub(super) fn write(mut self, truth: &Truth) -> anyhow::Result<()> {
        let failed = || format!("cannot write {}", self.path.display());
        serde_json::to_writer(&mut self.output, truth).with_context(failed)?;
        self.output.flush().with_context(failed)
    }
}

/// The numbers of events, late events, duplicates and malformed lines.
pub(super) fn summary(truth: &Truth) -> String {
    let Truth { events, duplicates, malformed, late, .. } = truth;
    match (duplicates, malformed.len(), late) {
        (0, 0, 0) => format!("{events} events"),
        (duplicates, malformed, late) => {
            format!("{events} events, {late} of them late, {duplicates} duplicates and {malformed} malformed lines")
        }
    }
}
