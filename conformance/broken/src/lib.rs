//! A plugin that misbehaves on request: proof that the host contains what plugins do wrong.
//!
//! Its settings choose one of [`MISBEHAVIOURS`]; without one it behaves, and serves synthetic media from memory, fast
//! or with a delay: a storage for tests and benchmarks. What the SDK makes impossible is done behind it, in [`raw`].
//!
//! ```json
//! {"misbehave": "hang-in-read", "release": "/tmp/go-on", "media": [{"id": "a", "size": 1000}]}
//! {"count": 100, "size": 1048576, "delay_ms": 20, "step_ms": 800, "facts": true}
//! ```
//!
//! The bytes of a medium are known to whoever knows its id: byte `o` is byte `o % 8` of the little-endian
//! `(o / 8) * 0x9E3779B97F4A7C15 ^ seed`, wrapping, where `seed` is the 64-bit FNV-1a hash of the id.

mod raw;
mod settings;

use std::{path::Path, sync::Arc, thread, time::Duration};

use recgate_plugin_api::{
    Call, Capabilities, Emit, Error, ErrorCode, Facts, Health, Host, Item, JoinKey, JoinKind, Level, Media,
    MediaState, Precision, ScanEnd, ScanFrom, Source, Watcher, fact,
};

use crate::settings::{Medium, Settings};

/// What can be asked for in `misbehave`.
pub(crate) const MISBEHAVIOURS: &[&str] = &[
    // A panic in an entry point.
    "panic-in-create",
    "panic-in-health",
    "panic-in-scan",
    "panic-in-stat",
    "panic-in-open",
    "panic-in-read",
    "panic-in-close",
    "panic-in-watch",
    // A call that returns once the file `release` is there, and never looks whether it is cancelled.
    "hang-in-create",
    "hang-in-health",
    "hang-in-scan",
    "hang-in-stat",
    "hang-in-open",
    "hang-in-read",
    "hang-in-close",
    "hang-in-watch",
    // A call that returns when it is cancelled.
    "wait-in-scan",
    "wait-in-read",
    // Watches: one that behaves (it tells that it listens and all media, then waits until it is cancelled), and one that
    // returns at once, tells the first medium without end, tells nonsense before all media, never says that it listens.
    "wait-in-watch",
    "return-in-watch",
    "flood-in-watch",
    "nonsense-in-watch",
    "deaf-in-watch",
    // Reads that lie.
    "read-too-many",
    "read-short",
    // One item of a scan that is wrong; the others are right.
    "negative-size",
    "year-10000",
    "duplicate-id",
    "empty-id",
    "long-id",
    "control-id",
    "too-many-keys",
    "too-many-values",
    "huge-values",
    "long-patch",
    "slash-in-name",
    "bad-utf8",
    "null-text",
    "null-media",
    "unknown-state",
    "unknown-precision",
    "unknown-key-kind",
    "unknown-item",
    "small-struct",
    "absurd-length",
    // Scans whose end is wrong, or that have none.
    "endless-scan",
    "stuck-cursor",
    "bad-watermark",
    // Others.
    "unknown-capability",
    "stat-another",
    "stat-nothing",
    "unknown-error",
    "chatty",
];

/// Name of the wrong item in scans.
const BAD: &str = "bad";

struct Broken {
    settings: Settings,
    host: Arc<dyn Host>,
}

struct Handle {
    medium: Medium,
    seed: u64,
    on_close: String,
    release: Option<String>,
}

impl Source for Broken {
    type Handle = Handle;
    const NAME: &'static str = "broken";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const LICENCE: &'static str = env!("CARGO_PKG_LICENSE");
    const WATCHES: bool = true;

    fn config_schema() -> String {
        settings::schema()
    }

    fn create(config_json: &str, host: Arc<dyn Host>) -> Result<Self, Error> {
        let settings = Settings::parse(config_json)?;
        let broken = Self { settings, host };
        broken.misbehave("create");
        Ok(broken)
    }

    fn capabilities(&self) -> Capabilities {
        let marker = self.is("unknown-capability").then_some(raw::UNKNOWN_CAPABILITY);
        Capabilities {
            facts: self.settings.facts,
            max_concurrent_calls: self.settings.max_concurrent_calls,
            preferred_read_size: marker.unwrap_or(0),
        }
    }

    fn health(&self, _: &dyn Call) -> Result<Health, Error> {
        self.misbehave("health");
        if self.is("chatty") {
            for _ in 0..10_000 {
                self.host.log(Level::Info, "chat\nty", &"bla\u{1b}[31m\n".repeat(1000));
            }
        }
        if self.is("unknown-error") {
            return Err(Error::new(ErrorCode::Internal, raw::UNKNOWN_ERROR));
        }
        Ok(Health { reachable: true, message: String::new(), storage_time_ms: Some(self.host.now_ms()) })
    }

    fn scan(&self, call: &dyn Call, from: ScanFrom<'_>, emit: Emit<'_>) -> Result<ScanEnd, Error> {
        self.misbehave("scan");
        self.wait("scan", call)?;
        if self.is("stuck-cursor") {
            return Ok(ScanEnd { cursor: b"stuck".to_vec(), complete: false, watermark_ms: 0 });
        }
        for index in 0..self.settings.media_count() {
            if let Some(medium) = self.settings.medium(index) {
                emit(Item::Media(medium.told()))?;
                if self.settings.facts {
                    emit(Item::Facts(medium.facts()))?;
                }
            }
            if call.is_cancelled() {
                return Err(Error::new(ErrorCode::Cancelled, "cancelled between two media"));
            }
        }
        for told in &self.settings.told_facts {
            emit(Item::Facts(told.clone()))?;
        }
        self.tell_nonsense(emit)?;
        let watermark_ms = if self.is("bad-watermark") { i64::MAX } else { self.host.now_ms() };
        let cursor = match from {
            ScanFrom::Full => b"1".to_vec(),
            ScanFrom::Since(_) => b"2".to_vec(),
        };
        Ok(ScanEnd { cursor, complete: true, watermark_ms })
    }

    fn stat(&self, _: &dyn Call, id: &str, version: Option<&str>) -> Result<Media, Error> {
        self.misbehave("stat");
        let mut media = self.settings.find(id)?.told();
        if version.is_some_and(|wanted| wanted != media.version) {
            return Err(Error::new(ErrorCode::Precondition, format!("{id:?} has another version by now")));
        }
        if self.is("stat-another") {
            media.id = "another".to_owned();
        }
        if self.is("stat-nothing") {
            media.state_reason = raw::tamper("swallow");
        }
        Ok(media)
    }

    fn open(&self, _: &dyn Call, id: &str, version: &str) -> Result<Handle, Error> {
        self.misbehave("open");
        let medium = self.settings.find(id)?;
        if version != medium.version {
            return Err(Error::new(ErrorCode::Precondition, format!("{id:?} has another version by now")));
        }
        Ok(Handle {
            seed: seed(&medium.id),
            medium,
            on_close: self.settings.misbehave.clone(),
            release: self.settings.release.clone(),
        })
    }

    fn read_at(&self, call: &dyn Call, handle: &Handle, offset: u64, buf: &mut [u8]) -> Result<usize, Error> {
        self.misbehave("read");
        self.wait("read", call)?;
        if self.settings.delay_ms > 0 {
            thread::sleep(Duration::from_millis(self.settings.delay_ms));
        }
        let left = usize::try_from(handle.medium.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = left.min(buf.len());
        let (filled, _) = buf.split_at_mut(length);
        fill(filled, handle.seed, offset);
        if self.is("read-too-many") {
            return Ok(buf.len().saturating_add(1));
        }
        Ok(if self.is("read-short") { length / 2 } else { length })
    }

    fn watch(&self, call: &dyn Call, to: &mut dyn Watcher) -> Result<(), Error> {
        let Some(how) = self.settings.misbehave.strip_suffix("-in-watch") else {
            return Err(Error::new(ErrorCode::Unsupported, "not configured to watch"));
        };
        if how == "return" {
            return Ok(());
        }
        if how != "deaf" {
            to.listening()?;
        }
        self.misbehave("watch");
        match how {
            "flood" => loop {
                to.tell(Item::Media(self.settings.find_first()?.told()))?;
            },
            "nonsense" => {
                let media = Medium::new(BAD, 1000, 0).told();
                to.tell(Item::Media(Media { size: (-1_i64).cast_unsigned(), ..media.clone() }))?;
                to.tell(Item::Media(Media { start_ms: Some(253_402_300_800_000), ..media }))?;
                to.tell(Item::MediaGone("bad\nid".to_owned()))?;
                for _ in 0..100 {
                    to.tell(Item::Facts(Facts::default()))?;
                }
            }
            _ => {}
        }
        for index in 0..self.settings.media_count() {
            if let Some(medium) = self.settings.medium(index) {
                to.tell(Item::Media(medium.told()))?;
                to.tell(Item::Facts(medium.facts()))?;
            }
        }
        while !call.is_cancelled() {
            thread::sleep(Duration::from_millis(1));
        }
        Err(Error::new(ErrorCode::Cancelled, "watched until it was cancelled"))
    }
}

impl Broken {
    fn is(&self, what: &str) -> bool {
        self.settings.misbehave == what
    }

    #[expect(clippy::panic, reason = "panicking on request is what this plugin is for")]
    fn misbehave(&self, call: &str) {
        match self.settings.misbehave.split_once("-in-") {
            Some(("panic", place)) if place == call => panic!("panic in {call}, as configured"),
            Some(("hang", place)) if place == call => hang(self.settings.release.as_deref()),
            _ => {}
        }
    }

    fn wait(&self, what: &str, call: &dyn Call) -> Result<(), Error> {
        if self.settings.misbehave.strip_prefix("wait-in-") != Some(what) {
            return Ok(());
        }
        while !call.is_cancelled() {
            thread::sleep(Duration::from_millis(1));
        }
        Err(Error::new(ErrorCode::Cancelled, "waited until it was cancelled"))
    }

    /// Tells the item that is wrong.
    fn tell_nonsense(&self, emit: Emit<'_>) -> Result<(), Error> {
        let mut media = Media { id: BAD.to_owned(), ..Medium::new(BAD, 1000, 0).told() };
        let mut facts = Facts { id: BAD.to_owned(), ..Facts::default() };
        match self.settings.misbehave.as_str() {
            "negative-size" => media.size = (-1_i64).cast_unsigned(),
            "year-10000" => media.start_ms = Some(253_402_300_800_000),
            "empty-id" => media.id = String::new(),
            "long-id" => media.id = "x".repeat(1025),
            "control-id" => media.id = "bad\nid".to_owned(),
            "too-many-keys" => {
                media.keys = vec![JoinKey { kind: JoinKind::ObjectKey, value: "k".to_owned() }; 65];
            }
            "long-patch" => media.header_patch = vec![0; 4097],
            "slash-in-name" => media.preferred_name = Some("../x".to_owned()),
            "bad-utf8" | "null-text" | "null-media" | "unknown-state" | "unknown-precision"
            | "unknown-item" | "small-struct" | "absurd-length" => {
                media.state_reason = raw::tamper(&self.settings.misbehave);
            }
            "unknown-key-kind" => {
                media.keys = vec![JoinKey { kind: JoinKind::ObjectKey, value: "k".to_owned() }];
                media.state_reason = raw::tamper("unknown-key-kind");
            }
            "duplicate-id" => {
                return emit(Item::Media(Medium { size: 1, ..self.settings.find_first()? }.told()));
            }
            "too-many-values" => {
                facts.values = (0..257).map(|n| (format!("k{n}"), String::new())).collect();
                return emit(Item::Facts(facts));
            }
            "huge-values" => {
                facts.values = vec![("k".to_owned(), "x".repeat(8193))];
                return emit(Item::Facts(facts));
            }
            "endless-scan" => loop {
                emit(Item::Media(media.clone()))?;
            },
            _ => return Ok(()),
        }
        emit(Item::Media(media))
    }
}

impl Drop for Handle {
    #[expect(clippy::panic, reason = "panicking on request is what this plugin is for")]
    fn drop(&mut self) {
        match self.on_close.as_str() {
            "panic-in-close" => panic!("panic in close, as configured"),
            "hang-in-close" => hang(self.release.as_deref()),
            _ => {}
        }
    }
}

impl Medium {
    fn told(&self) -> Media {
        Media {
            id: self.id.clone(),
            version: self.version.clone(),
            size: self.size,
            media_type: self.media_type.clone(),
            start_ms: Some(self.start_ms),
            start_precision: if self.exact { Precision::Second } else { Precision::Day },
            stop_ms: self.start_ms.checked_add(self.duration_ms),
            duration_ms: u64::try_from(self.duration_ms).ok(),
            changed_ms: self.start_ms,
            state: MediaState::Available,
            keys: vec![JoinKey { kind: JoinKind::ObjectKey, value: self.id.clone() }],
            ..Media::default()
        }
    }

    fn facts(&self) -> Facts {
        let pair = |key: &str, value: String| (key.to_owned(), value);
        Facts {
            id: format!("facts of {}", self.id),
            revision: 1,
            gone: false,
            keys: vec![JoinKey { kind: JoinKind::ObjectKey, value: self.id.clone() }],
            values: vec![
                pair(fact::STARTED_AT, self.start_ms.to_string()),
                pair(fact::STOPPED_AT, self.start_ms.saturating_add(self.duration_ms).to_string()),
                pair(fact::AGENT_NAME, "Agent".to_owned()),
            ],
        }
    }
}

/// Returns when the file is there; without one, never.
fn hang(release: Option<&str>) {
    while !release.is_some_and(|file| Path::new(file).exists()) {
        thread::sleep(Duration::from_millis(2));
    }
}

/// 64-bit FNV-1a.
fn seed(id: &str) -> u64 {
    id.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

fn fill(buf: &mut [u8], seed: u64, offset: u64) {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut product = (offset / 8).wrapping_mul(STEP);
    let mut next = || {
        let word = (product ^ seed).to_le_bytes();
        product = product.wrapping_add(STEP);
        word
    };
    let within = (offset % 8) as usize;
    let lead = (8 - within) % 8;
    let (head, body) = buf.split_at_mut(lead.min(buf.len()));
    if lead > 0 {
        for (to, from) in head.iter_mut().zip(next().into_iter().skip(within)) {
            *to = from;
        }
    }
    // By whole words: benchmarks read gigabytes of this.
    let (words, tail) = body.as_chunks_mut();
    for to in words {
        *to = next();
    }
    for (to, from) in tail.iter_mut().zip(next()) {
        *to = from;
    }
}
