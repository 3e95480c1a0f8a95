//! A Wazo PBX's `monitor` folder and its call data records, made of Debian's recordings.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use chrono::{DateTime, NaiveDateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

/// Where Debian's `asterisk-core-sounds-en-wav` and `asterisk-moh-opsound-wav` put theirs.
const SOUNDS: &str = "/usr/share/asterisk";

/// The tenant of all records.
pub const WAZO_TENANT: &str = "1b9cfe06-5c1f-4b0d-9a4e-6d4c2f0b7e11";

/// A UTC instant, from `2016-06-06 17:30:00`.
pub fn utc(text: &str) -> DateTime<Utc> {
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").unwrap().and_utc()
}

/// Recordings in Asterisk's WAV form, by ascending path: hundreds of short ones, a few of some MiB.
pub fn sounds() -> &'static [PathBuf] {
    static FOUND: OnceLock<Vec<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut found = Vec::new();
        let mut folders = vec![PathBuf::from(SOUNDS)];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder).unwrap_or_else(|error| {
                panic!("{}: {error}; `cargo xtask test` installs it", folder.display())
            });
            for entry in entries {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "wav") {
                    found.push(path);
                }
            }
        }
        found.sort();
        assert!(found.len() > 100, "only {} WAV files below {SOUNDS}; run `cargo xtask test`", found.len());
        found
    })
}

/// One recorded call.
#[derive(Debug, Clone)]
pub struct Call {
    /// The recording's uuid.
    pub uuid: String,
    /// The id of its record.
    pub id: u64,
    /// When the recording began.
    pub start: DateTime<Utc>,
    /// When it ended.
    pub stop: DateTime<Utc>,
    /// The stored bytes.
    pub bytes: Vec<u8>,
}

impl Call {
    /// The folder that it belongs into.
    pub fn folder(&self) -> String {
        self.start.format("S%Y%m%d").to_string()
    }

    /// Its name, where no other recording began in the same second.
    pub fn name(&self) -> String {
        self.start.format("R%Y%m%d%H%M%S0000.wav").to_string()
    }

    /// Folder and name.
    pub fn path(&self) -> String {
        format!("{}/{}", self.folder(), self.name())
    }

    /// Its record, an item of `GET /cdr`.
    pub fn record(&self) -> Value {
        record(self)
    }
}

/// The files of one PBX.
#[derive(Debug)]
pub struct WazoTree {
    /// Where the recordings lie.
    pub monitor: PathBuf,
    /// Where the records lie.
    pub cdr: PathBuf,
    next: u64,
}

impl WazoTree {
    /// An empty PBX in `folder`; `number` (of the tenant) keeps its uuids apart from those of others.
    pub fn new(folder: &Path, number: u32) -> Self {
        let (monitor, cdr) = (folder.join("monitor"), folder.join("cdr"));
        fs::create_dir_all(&monitor).unwrap();
        fs::create_dir_all(&cdr).unwrap();
        Self { monitor, cdr, next: u64::from(number) * 1_000_000 + 1 }
    }

    /// A call: its recording (the bytes of the `sound`-th of [`sounds`]) and its record.
    pub fn add(&mut self, start: DateTime<Utc>, sound: usize) -> Call {
        let call = self.plan(start, sound);
        self.write_record(&call);
        self.write_media(&call);
        call
    }

    /// A call of which nothing is written yet.
    pub fn plan(&mut self, start: DateTime<Utc>, sound: usize) -> Call {
        let sounds = sounds();
        let bytes = fs::read(&sounds[sound % sounds.len()]).unwrap();
        let id = self.next;
        self.next += 1;
        // 8000 samples of two bytes a second, after a header of 44 bytes.
        let milliseconds = i64::try_from(bytes.len().saturating_sub(44)).unwrap() / 16;
        let uuid = format!("{:08x}-0000-4000-8000-{id:012x}", id.wrapping_mul(2_654_435_761) & 0xffff_ffff);
        Call { uuid, id, start, stop: start + TimeDelta::milliseconds(milliseconds.max(1000)), bytes }
    }

    /// Writes the recording, with its stop as modification time.
    pub fn write_media(&self, call: &Call) {
        write_at(&self.media_path(call), &call.bytes, call.stop);
    }

    /// Writes the record, in the shape of `GET /cdr`.
    pub fn write_record(&self, call: &Call) {
        let answer = json!({"items": [record(call)], "total": 1, "filtered": 1});
        // Records come with the end of the call.
        write_at(&self.record_path(call), answer.to_string().as_bytes(), call.stop);
    }

    /// Where the recording lies.
    pub fn media_path(&self, call: &Call) -> PathBuf {
        self.monitor.join(format!("{}.wav", call.uuid))
    }

    /// Where the record lies.
    pub fn record_path(&self, call: &Call) -> PathBuf {
        self.cdr.join(format!("{}.json", call.id))
    }

    /// Some other file in the monitor folder.
    pub fn write_other(&self, name: &str, bytes: &[u8], modified: DateTime<Utc>) {
        write_at(&self.monitor.join(name), bytes, modified);
    }
}

fn write_at(path: &Path, bytes: &[u8], modified: DateTime<Utc>) {
    // Under another name first, as a PBX moves a finished file into place: no scan sees half of it.
    let unfinished = path.with_extension("part");
    fs::write(&unfinished, bytes).unwrap();
    let file = File::options().write(true).open(&unfinished).unwrap();
    let modified = Duration::from_millis(u64::try_from(modified.timestamp_millis()).unwrap());
    file.set_modified(SystemTime::UNIX_EPOCH + modified).unwrap();
    fs::rename(&unfinished, path).unwrap();
}

fn record(call: &Call) -> Value {
    let stamp = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Micros, false);
    let outbound = call.id.is_multiple_of(3);
    let (direction, source, destination) =
        if outbound { ("outbound", "1001", "12025550143") } else { ("inbound", "12025550143", "1001") };
    json!({
        "id": call.id,
        "tenant_uuid": WAZO_TENANT,
        "start": stamp(call.start - TimeDelta::seconds(9)),
        "answer": stamp(call.start - TimeDelta::seconds(1)),
        "end": stamp(call.stop),
        "answered": true,
        "duration": (call.stop - call.start).num_seconds() + 1,
        "call_direction": direction,
        "call_status": "answered",
        "conversation_id": format!("{}.{}", call.start.timestamp(), call.id),
        "destination_details": {"type": "group", "group_id": 4, "group_label": "Support, \"first\" line"},
        "destination_extension": destination,
        "destination_name": if outbound { Value::Null } else { json!("Björn Ågren") },
        "requested_extension": if outbound { "912025550143" } else { "18005550100" },
        "source_extension": source,
        "source_name": if outbound { "Björn Ågren" } else { "=cmd|' /C calc'!A0" },
        "tags": ["vip"],
        "recordings": [{
            "uuid": call.uuid,
            "start_time": stamp(call.start),
            "end_time": stamp(call.stop),
            "deleted": false,
            "filename": format!("{}-{}-{}.wav", call.start.format("%Y-%m-%dT%H_%M_%SUTC"), call.id, call.uuid),
        }],
    })
}
