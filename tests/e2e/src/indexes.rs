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
    let (header, mut reader) = open(bytes);
    let rows = reader
        .records()
        .map(|record| header.iter().cloned().zip(record.unwrap().iter().map(str::to_owned)).collect())
        .collect();
    (header, rows)
}

/// The cells that an index has in these columns, row by row; for indexes that are too large for [`read_index`].
pub fn read_columns<const N: usize>(bytes: &[u8], columns: &[&str; N]) -> Vec<[String; N]> {
    let (header, mut reader) = open(bytes);
    let places = columns.map(|column| {
        header.iter().position(|name| name == column).unwrap_or_else(|| panic!("no {column} in {header:?}"))
    });
    reader.records().map(|record| record.unwrap()).map(|row| places.map(|at| row[at].to_owned())).collect()
}

fn open(bytes: &[u8]) -> (Vec<String>, csv::Reader<&[u8]>) {
    let text = std::str::from_utf8(bytes).expect("an index that is not UTF-8");
    assert!(text.ends_with("\r\n"), "an index whose last line has no end: {text:?}");
    let mut reader = csv::ReaderBuilder::new().flexible(false).from_reader(bytes);
    let header = reader.headers().unwrap().iter().map(str::to_owned).collect();
    (header, reader)
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
