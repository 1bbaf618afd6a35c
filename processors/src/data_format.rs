//! The formats of a data folder's parts, so that another version knows what it has before it.
//!
//! `format.json` in the folder names each part's format. What can be built again from the lake (the index, the seen event
//! ids) is emptied when its format is older, and built again at the start. A newer format is refused: it is not guessed at.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// The file in the data folder.
const FILE: &str = "format.json";

/// A part of the data folder.
struct Part {
    name: &'static str,
    /// What this version reads and writes.
    format: u32,
    /// The oldest that it brings up to its own when it opens the folder.
    oldest: u32,
    /// What a folder without `format.json` has: version 0.1 wrote none.
    first: u32,
    /// The folder that is emptied to have the part built again from the lake; none for primary data.
    rebuilt: Option<&'static str>,
}

const PARTS: [Part; 5] = [
    Part { name: "log", format: ingest::LOG_FORMAT, oldest: 1, first: 1, rebuilt: None },
    // Opening it adds the tables and columns that it lacks.
    Part { name: "lake", format: lake::LAKE_FORMAT, oldest: 1, first: 1, rebuilt: None },
    Part { name: "kpi_snapshots", format: lake::KPI_SNAPSHOT_FORMAT, oldest: 1, first: 1, rebuilt: None },
    Part { name: "seen", format: ingest::SEEN_FORMAT, oldest: 0, first: 1, rebuilt: Some("seen") },
    Part { name: "index", format: search_index::INDEX_FORMAT, oldest: 0, first: 6, rebuilt: Some("index") },
];

/// What the folder is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatAccess {
    /// Older parts are brought to this version's format, and the file says so.
    ReadWrite,
    /// Nothing is changed.
    ReadOnly,
}

/// A data folder that this version cannot use.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error("{}: cannot read what format the data folder has", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}: not a description of formats; restore the file from a copy of the folder", path.display())]
    Malformed {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error(
        "{}: forecourt {written_by} wrote this data folder, and its {part} has format {found}, where this version ({}) reads up \
         to {known}. Start forecourt {written_by} or later on it; nothing was changed",
        folder.display(), env!("CARGO_PKG_VERSION")
    )]
    Newer { folder: PathBuf, written_by: String, part: String, found: u32, known: u32 },
    #[error(
        "{}: the {part} has format {found}, which this version no longer migrates. Start the version that wrote it, \
         forecourt {written_by}, once with an earlier release between the two",
        folder.display()
    )]
    TooOld { folder: PathBuf, written_by: String, part: String, found: u32 },
    #[error(
        "{}: the {part} has format {found}, and this version reads {known}. Start `forecourt up` on the folder once: it brings \
         it up to that",
        folder.display()
    )]
    Outdated { folder: PathBuf, part: String, found: u32, known: u32 },
    #[error("{}: cannot bring the data folder to this version's format", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Formats {
    /// The version that gave the folder these formats.
    written_by: String,
    parts: BTreeMap<String, u32>,
}

impl Formats {
    fn current() -> Self {
        Self::of(|part| part.format)
    }

    fn of(format: impl Fn(&Part) -> u32) -> Self {
        let parts = PARTS.iter().map(|part| (part.name.to_owned(), format(part))).collect();
        Self { written_by: env!("CARGO_PKG_VERSION").to_owned(), parts }
    }

    /// What the folder says, or what version 0.1 wrote; none for a new folder.
    fn read(folder: &Path) -> Result<Option<Self>, FormatError> {
        let path = folder.join(FILE);
        match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map(Some).map_err(|source| FormatError::Malformed { path, source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let first = Self { written_by: "0.1.0".to_owned(), ..Self::of(|part| part.first) };
                Ok(folder.join("lake").is_dir().then_some(first))
            }
            Err(source) => Err(FormatError::Read { path, source }),
        }
    }

    fn write(&self, folder: &Path) -> io::Result<()> {
        let (path, new) = (folder.join(FILE), folder.join(format!("{FILE}.new")));
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        fs::write(&new, text)?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(&new, &path)?;
        fs::File::open(folder)?.sync_all()
    }
}

/// Check a data folder's formats, and bring older parts to this version's. Returns the parts of an older format: with
/// [`FormatAccess::ReadWrite`] they are built again, with [`FormatAccess::ReadOnly`] they are as they were.
///
/// # Errors
/// [`FormatError::Newer`] when a later version wrote it; nothing is changed then.
pub fn open_data_folder(folder: &Path, access: FormatAccess) -> Result<Vec<&'static str>, FormatError> {
    let found = Formats::read(folder)?;
    let current = Formats::current();
    let Some(found) = found else {
        if access == FormatAccess::ReadWrite {
            current.write(folder).map_err(|source| FormatError::Write { path: folder.join(FILE), source })?;
        }
        return Ok(Vec::new());
    };
    let outdated = outdated(folder, &found, access)?;
    if access == FormatAccess::ReadOnly {
        return Ok(outdated);
    }
    for part in &outdated {
        let path = folder.join(part);
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(FormatError::Write { path, source }),
            _ => tracing::info!(part, "an older version wrote it; building it again from the lake"),
        }
    }
    if found.parts != current.parts || !folder.join(FILE).exists() {
        current.write(folder).map_err(|source| FormatError::Write { path: folder.join(FILE), source })?;
    }
    Ok(outdated)
}

/// The folders of the parts that are to be built again.
fn outdated(folder: &Path, found: &Formats, access: FormatAccess) -> Result<Vec<&'static str>, FormatError> {
    let mut outdated = Vec::new();
    for (name, &format) in &found.parts {
        let part = PARTS.iter().find(|part| part.name == name);
        let known = part.map_or(0, |part| part.format);
        let (folder, written_by) = (folder.to_owned(), found.written_by.clone());
        match part.and_then(|part| part.rebuilt) {
            _ if format > known => {
                return Err(FormatError::Newer { folder, written_by, part: name.clone(), found: format, known });
            }
            Some(part) if format < known => outdated.push(part),
            None if format < known && part.is_some_and(|part| format >= part.oldest) => match access {
                FormatAccess::ReadWrite => {}
                FormatAccess::ReadOnly => {
                    return Err(FormatError::Outdated { folder, part: name.clone(), found: format, known });
                }
            },
            None if format < known => {
                return Err(FormatError::TooOld { folder, written_by, part: name.clone(), found: format });
            }
            _ => {}
        }
    }
    Ok(outdated)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{FILE, FormatAccess, FormatError, Formats, PARTS, open_data_folder};

    #[test]
    fn a_new_folder_is_given_its_formats_and_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        assert!(open_data_folder(folder.path(), FormatAccess::ReadOnly).unwrap().is_empty());
        assert!(!folder.path().join(FILE).exists());
        assert!(open_data_folder(folder.path(), FormatAccess::ReadWrite).unwrap().is_empty());
        assert_eq!(Formats::read(folder.path()).unwrap().unwrap(), Formats::current());
        assert!(open_data_folder(folder.path(), FormatAccess::ReadWrite).unwrap().is_empty());
    }

    #[test]
    fn a_newer_part_is_refused_and_nothing_is_changed() {
        for (name, format) in PARTS.iter().map(|part| (part.name, part.format + 1)).chain([("geo", 1)]) {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("index")).unwrap();
            let mut formats = Formats { written_by: "9.9.0".to_owned(), ..Formats::current() };
            formats.parts.insert(name.to_owned(), format);
            formats.write(folder.path()).unwrap();
            for access in [FormatAccess::ReadOnly, FormatAccess::ReadWrite] {
                let refused = open_data_folder(folder.path(), access).unwrap_err();
                assert!(matches!(&refused, FormatError::Newer { part, .. } if part == name), "{refused}");
                assert!(refused.to_string().contains("Start forecourt 9.9.0 or later"), "{refused}");
            }
            assert_eq!(Formats::read(folder.path()).unwrap().unwrap(), formats);
            assert!(folder.path().join("index").exists());
        }
    }

    #[test]
    fn an_older_copy_is_emptied_and_primary_data_stays() {
        let folder = tempfile::tempdir().unwrap();
        for part in ["index", "seen", "lake"] {
            fs::create_dir(folder.path().join(part)).unwrap();
        }
        let mut formats = Formats::current();
        formats.parts.insert("index".to_owned(), 5);
        formats.write(folder.path()).unwrap();
        assert_eq!(open_data_folder(folder.path(), FormatAccess::ReadOnly).unwrap(), ["index"]);
        assert!(folder.path().join("index").exists());
        assert_eq!(open_data_folder(folder.path(), FormatAccess::ReadWrite).unwrap(), ["index"]);
        assert!(!folder.path().join("index").exists() && folder.path().join("seen").exists());
        assert_eq!(Formats::read(folder.path()).unwrap().unwrap(), Formats::current());
        formats = Formats::current();
        formats.parts.insert("lake".to_owned(), 1);
        formats.write(folder.path()).unwrap();
        let refused = open_data_folder(folder.path(), FormatAccess::ReadOnly);
        assert!(matches!(refused, Err(FormatError::Outdated { known: 2, .. })), "{refused:?}");
        assert!(open_data_folder(folder.path(), FormatAccess::ReadWrite).unwrap().is_empty());
        assert_eq!(Formats::read(folder.path()).unwrap().unwrap(), Formats::current());
        formats.parts.insert("lake".to_owned(), 0);
        formats.write(folder.path()).unwrap();
        let refused = open_data_folder(folder.path(), FormatAccess::ReadWrite);
        assert!(matches!(refused, Err(FormatError::TooOld { .. })), "{refused:?}");
    }

    #[test]
    fn a_folder_of_version_0_1_has_no_file_and_is_given_one() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("lake")).unwrap();
        assert_eq!(Formats::read(folder.path()).unwrap().unwrap().parts["index"], 6);
        open_data_folder(folder.path(), FormatAccess::ReadWrite).unwrap();
        assert!(folder.path().join(FILE).exists());
        fs::write(folder.path().join(FILE), "{").unwrap();
        assert!(matches!(open_data_folder(folder.path(), FormatAccess::ReadOnly), Err(FormatError::Malformed { .. })));
    }
}
