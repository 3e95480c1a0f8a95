//! An archive in 8x8's layout, as somebody has downloaded it over the years.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use chrono::{DateTime, TimeDelta, Utc};

use crate::indexes::Row;

/// The header of a full index, as it is spelled in the field.
pub const FIELD_HEADER: [&str; 21] = [
    "CALL TYPE",
    "START TIME",
    "STOP TIME",
    "AGENT NAME",
    "CUSTOMER NUMBER",
    "PHONE CHANNEL",
    "CALLED NUMBER",
    "CASEID",
    "DURATION",
    "FILENAME",
    "DIRECTORY",
    "ACCOUNT NUMBER",
    "START TIME UTC",
    "STOP TIME UTC",
    "QUEUE",
    "QUEUE NAME",
    "TRANS ID",
    "EXT VAR1",
    "EXT VAR2",
    "OUT DIAL CODE",
    "WRAP UP CODE",
];

/// One recording of an archive.
#[derive(Debug, Clone)]
pub struct Archived {
    /// When it began.
    pub start: DateTime<Utc>,
    /// Its name.
    pub name: String,
    /// The stored bytes.
    pub bytes: Vec<u8>,
    /// Its row, by the header of the field; `None` where no index speaks of it.
    pub row: Option<Row>,
}

impl Archived {
    /// Its folder.
    pub fn folder(&self) -> String {
        self.start.format("S%Y%m%d").to_string()
    }

    /// Folder and name.
    pub fn path(&self) -> String {
        format!("{}/{}", self.folder(), self.name)
    }
}

/// The files of one archive, of a tenant seven hours west of UTC.
#[derive(Debug)]
pub struct Archive {
    /// Where it lies.
    pub root: PathBuf,
    /// What is in it.
    pub recordings: Vec<Archived>,
}

impl Archive {
    /// An empty archive.
    pub fn new(root: &Path) -> Self {
        fs::create_dir_all(root).unwrap();
        Self { root: root.to_owned(), recordings: Vec::new() }
    }

    /// Adds a recording of some seconds with its row; nothing is written yet.
    pub fn add(&mut self, start: DateTime<Utc>, sequence: &str, seconds: u32) -> &mut Archived {
        let number = u32::try_from(self.recordings.len()).unwrap();
        let name = format!("R{}{sequence}.wav", start.format("%Y%m%d%H%M%S"));
        let stop = start + TimeDelta::seconds(seconds.into());
        let local = |at: DateTime<Utc>| (at - TimeDelta::hours(7)).format("%Y-%m-%d %H:%M:%S").to_string();
        let utc = |at: DateTime<Utc>| at.format("%Y-%m-%d %H:%M:%S").to_string();
        let call_type = ["Inbound", "Outbound", "Direct Agent Access"][number as usize % 3];
        let cells = [
            call_type.to_owned(),
            local(start),
            local(stop),
            ["Björn Ågren", "Doe, \"Jo\"", "=cmd|' /C calc'!A0"][number as usize / 3 % 3].to_owned(),
            format!("1202555{:04}", number % 10_000),
            "18005550100".to_owned(),
            if call_type == "Outbound" { "12025550143".to_owned() } else { String::new() },
            number.to_string(),
            seconds.to_string(),
            name.clone(),
            start.format("S%Y%m%d").to_string(),
            format!("A{number}"),
            utc(start),
            utc(stop),
            "inbound".to_owned(),
            "Sales; first line".to_owned(),
            (10_000 + number).to_string(),
            "one\ttwo".to_owned(),
            String::new(),
            String::new(),
            "done".to_owned(),
        ];
        let row = FIELD_HEADER.iter().map(|header| (*header).to_owned()).zip(cells).collect();
        self.recordings.push(Archived { start, name, bytes: wav(number, seconds), row: Some(row) });
        self.recordings.last_mut().unwrap()
    }

    /// Writes recordings and indexes, each of which was last changed long ago.
    pub fn write(&self) {
        let mut folders: BTreeMap<String, Vec<&Row>> = BTreeMap::new();
        let mut dates: BTreeMap<String, Vec<&Row>> = BTreeMap::new();
        for recording in &self.recordings {
            self.put(&recording.path(), &recording.bytes);
            let Some(row) = &recording.row else { continue };
            folders.entry(recording.folder()).or_default().push(row);
            let date = (recording.start - TimeDelta::hours(7)).format("%Y%m%d").to_string();
            dates.entry(date).or_default().push(row);
        }
        for (folder, rows) in folders {
            let date = folder.trim_start_matches('S');
            self.put(&format!("{folder}/I{date}.csv"), csv(&FIELD_HEADER[..12], &rows).as_bytes());
            self.put(&format!("{folder}/I{date}_version2.csv"), csv(&FIELD_HEADER, &rows).as_bytes());
        }
        for (date, rows) in dates {
            self.put(&format!("Index/I{date}.csv"), csv(&FIELD_HEADER, &rows).as_bytes());
        }
    }

    /// Writes one file.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let unfinished = path.with_extension("part");
        fs::write(&unfinished, bytes).unwrap();
        let file = File::options().write(true).open(&unfinished).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(86_400)).unwrap();
        fs::rename(&unfinished, path).unwrap();
    }
}

/// RFC 4180 with CRLF, every cell that needs it in quotes, a guard before what a spreadsheet would take for a formula.
fn csv(header: &[&str], rows: &[&Row]) -> String {
    let cell = |text: &str| {
        let guard = if text.starts_with(['=', '+', '-', '@']) { "'" } else { "" };
        format!("\"{guard}{}\"", text.replace('"', "\"\""))
    };
    let mut text = header.join(",") + "\r\n";
    for row in rows {
        let cells: Vec<String> = header.iter().map(|header| cell(&row[*header])).collect();
        write!(text, "{}\r\n", cells.join(",")).unwrap();
    }
    text
}

/// So many seconds of sound, 16-bit mono at 8 kHz, that are nobody else's.
fn wav(number: u32, seconds: u32) -> Vec<u8> {
    let data = seconds * 16_000;
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((data + 36).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data");
    bytes.extend(data.to_le_bytes());
    let samples = (0..data / 4).flat_map(|n| (n.wrapping_mul(2_654_435_761) ^ number).to_le_bytes());
    bytes.extend(samples);
    bytes
}
