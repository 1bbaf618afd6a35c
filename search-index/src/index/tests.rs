use std::{fs, path::PathBuf};

use schemas::Position;

use super::{Entry, ListingIndex, Reflected};

#[test]
fn an_index_with_a_file_cut_short_or_spoiled_anywhere_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = ListingIndex::open(folder.path()).unwrap();
    index.put(&Entry { key: "vehicle/v1", state: b"{}", listing: None }, Position::START).unwrap();
    index.commit(Reflected { position: Position::new(7), ..Reflected::default() }).unwrap();
    drop(index);
    let entries = || fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let whole: Vec<(PathBuf, Vec<u8>)> =
        entries().filter(|path| path.is_file()).map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    let positions_with = |file: &PathBuf, spoiled: &[u8]| {
        for path in entries().filter(|path| path.is_file()) {
            fs::remove_file(path).unwrap();
        }
        for (path, bytes) in &whole {
            fs::write(path, if path == file { spoiled } else { bytes }).unwrap();
        }
        ListingIndex::open(folder.path()).unwrap().snapshot().position
    };
    let mut opened = 0;
    for (file, bytes) in whole.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        let name = file.file_name().unwrap().to_str().unwrap();
        assert_eq!(positions_with(file, bytes), Position::new(7), "{name}");
        let lengths = (0..16).chain([bytes.len() / 2, bytes.len() - 2]).filter(|length| *length < bytes.len());
        let cut = lengths.map(|length| bytes[..length].to_vec());
        let mut flipped = bytes.clone();
        flipped[0] ^= 4;
        for spoiled in cut.chain([flipped]) {
            opened += 1;
            let position = positions_with(file, &spoiled);
            // What the engine lists of its own files is no part of what the index says.
            let expected = if name == ".managed.json" { position } else { Position::START };
            assert_eq!(position, expected, "{name} with {} of {} bytes", spoiled.len(), bytes.len());
        }
    }
    assert!(opened > 50, "{opened}");
}
