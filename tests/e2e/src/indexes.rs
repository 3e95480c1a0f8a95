//! Index files, read as their readers do, and mirrored trees.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// One row of an index: column to cell.
pub type Row = BTreeMap<String, String>;

/// Header and rows of an index. It has to be RFC 4180 with CRLF and UTF-8, each row as long as the header.
pub fn read_index(bytes: &[u8]) -> (Vec<String>, Vec<Row>) {
    let text = std::str::from_utf8(bytes).expect("an index that is not UTF-8");
    assert!(text.ends_with("\r\n"), "an index whose last line has no end: {text:?}");
    let mut reader = csv::ReaderBuilder::new().flexible(false).from_reader(bytes);
    let header: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let rows = reader
        .records()
        .map(|record| header.iter().cloned().zip(record.unwrap().iter().map(str::to_owned)).collect())
        .collect();
    (header, rows)
}

/// The files below a folder: relative path to bytes.
pub fn files_below(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(relative) = folders.pop() {
        for entry in fs::read_dir(folder.join(&relative)).unwrap() {
            let entry = entry.unwrap();
            let below = relative.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(below);
            } else {
                files.insert(below.to_str().unwrap().to_owned(), fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}
