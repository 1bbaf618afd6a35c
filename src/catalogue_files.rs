//! The catalogue compiled into the program, and the files of a folder beside it.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context, bail};
use schemas::{Catalogue, catalogue::EMBEDDED};

/// The embedded catalogue, with the contexts of a folder's `*.toml` files.
pub(crate) fn load(folder: Option<&Path>) -> anyhow::Result<Arc<Catalogue>> {
    let files = folder.map(read).transpose()?.unwrap_or_default();
    let own = files.iter().map(|(file, text)| (file.as_str(), text.as_str()));
    Ok(Arc::new(Catalogue::parse(EMBEDDED.into_iter().chain(own))?))
}

/// The contexts of a folder's files alone.
pub(crate) fn load_alone(folder: &Path) -> anyhow::Result<Catalogue> {
    let files = read(folder)?;
    Ok(Catalogue::parse(files.iter().map(|(file, text)| (file.as_str(), text.as_str())))?)
}

/// The catalogue files of a folder, by name: where each is, and its text.
fn read(folder: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let failed = || format!("cannot read the catalogue folder {}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.push((path.display().to_string(), text));
        }
    }
    if files.is_empty() {
        bail!("the catalogue folder {} holds no .toml file", folder.display());
    }
    files.sort();
    Ok(files)
}
