//! recgate plugin: the `monitor` folder of a Wazo PBX and its call data records.
//!
//! Wazo (MixMonitor) writes recordings flat into `/var/lib/wazo/sounds/tenants/<tenant>/monitor`, since 21.02 as
//! `<recording uuid>.wav`, and ConfBridge puts `conference-<id>.wav` beside them. What is known about a recording
//! stands in the call data records of wazo-call-logd, which an operator lays down as JSON files in the shape of its
//! `GET /cdr`. Both folders are only ever read.
//!
//! A scan walks the monitor folder first, then tells the records: a recording that was paused looked complete then, and
//! the gateway must learn that it has gone on before a record lets it be published. It keeps nothing between two scans:
//! each tells everything. Between them a [`watch`] tells what happens in the folders.

mod cdr;
mod facts;
mod folder;
#[cfg(fuzzing)]
pub mod fuzzing;
mod media;
mod names;
mod report;
mod settings;
mod watch;
mod wav;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use recgate_plugin_api::{
    Call, Capabilities, Emit, Error, ErrorCode, Health, Host, Item, Media, ScanEnd, ScanFrom, Source, Watcher,
};

use crate::folder::{Folder, Stamp};
use crate::media::Clock;
use crate::names::Name;
use crate::report::Reports;
use crate::settings::Settings;
use crate::watch::Memory;

/// Bytes that a read should ask for: large enough that the check after each read costs nothing beside it.
const PREFERRED_READ_SIZE: u32 = 256 * 1024;

/// Between a look at a file that grows and the next one.
const DELAY_AT_LEAST: Duration = Duration::from_millis(200);
const DELAY_AT_MOST: Duration = Duration::from_secs(600);

/// One Wazo tenant's monitor folder, with the folder of its call data records where there is one.
pub struct Wazo {
    settings: Settings,
    host: Arc<dyn Host>,
    memory: Memory,
}

/// An open recording: exactly the version that was asked for, or reads fail.
#[derive(Debug)]
pub struct Recording {
    id: String,
    file: File,
    stamp: Stamp,
}

impl Source for Wazo {
    type Handle = Recording;

    const NAME: &'static str = "wazo";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const LICENCE: &'static str = env!("CARGO_PKG_LICENSE");
    const WATCHES: bool = true;

    fn config_schema() -> String {
        settings::schema().to_string()
    }

    /// The folders needn't be there yet (a disk that is mounted later): [`Source::health`] and scans say so.
    fn create(config_json: &str, host: Arc<dyn Host>) -> Result<Self, Error> {
        Ok(Self { settings: Settings::parse(config_json)?, host, memory: Memory::default() })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { facts: true, max_concurrent_calls: 0, preferred_read_size: PREFERRED_READ_SIZE }
    }

    fn health(&self, _call: &dyn Call) -> Result<Health, Error> {
        let mut problems = Vec::new();
        if let Err(error) = Folder::open(&self.settings.root, "root").and_then(|folder| folder.probe()) {
            problems.push(error.message);
        }
        if let Some(path) = &self.settings.cdr_dir
            && let Err(error) = Folder::open(path, "cdr_dir").and_then(|folder| folder.probe())
        {
            problems.push(error.message);
        }
        Ok(Health { reachable: problems.is_empty(), message: problems.join("; "), storage_time_ms: None })
    }

    /// Every scan is a full one, whatever cursor it is given.
    ///
    /// The watermark is when the scan began, or, where recordings are running, the earliest start among those. It
    /// can't speak for records that the operator's export has not laid down yet: those come as late facts. Where
    /// something could not be read at all, or a record file is just being written, it is `i64::MIN`: can't tell.
    fn scan(&self, call: &dyn Call, _from: ScanFrom<'_>, emit: Emit<'_>) -> Result<ScanEnd, Error> {
        let began_ms = self.host.now_ms();
        let mut reports = Reports::new(&*self.host);
        let root = Folder::open(&self.settings.root, "root")?;
        let records = match &self.settings.cdr_dir {
            Some(path) => Some(Folder::open(path, "cdr_dir")?),
            None => None,
        };

        let walked = self.walk(&root, call, &mut reports, emit)?;
        let mut told_all = walked.told_all;
        if let Some(records) = &records {
            told_all &= cdr::scan(records, &self.settings, self.clock(), call, &mut reports, emit)?;
        }
        reports.finish();

        let watermark_ms = if told_all {
            walked.running_since_ms.map_or(began_ms, |since| since.min(began_ms))
        } else {
            i64::MIN
        };
        Ok(ScanEnd { cursor: b"full".to_vec(), complete: true, watermark_ms })
    }

    fn stat(&self, _call: &dyn Call, id: &str, version: Option<&str>) -> Result<Media, Error> {
        let name = Name::parse(id).ok_or_else(|| not_found(id))?;
        let regular = Folder::open(&self.settings.root, "root")?.file(id)?.ok_or_else(|| not_found(id))?;
        if let Some(version) = version {
            regular.stamp.expect(id, version)?;
        }
        let closed = self.memory.was_closed(id, &regular.stamp.version());
        let seen = media::examine(id, &name, &regular, closed, self.clock())
            .map_err(|error| folder::io_error(&error, format!("recording {id:?} can't be read")))?;
        if let Some(version) = version
            && seen.media.version != version
        {
            return Err(folder::changed(id, version, &seen.media.version));
        }
        Ok(seen.media)
    }

    fn open(&self, _call: &dyn Call, id: &str, version: &str) -> Result<Recording, Error> {
        Name::parse(id).ok_or_else(|| not_found(id))?;
        let regular = Folder::open(&self.settings.root, "root")?.file(id)?.ok_or_else(|| not_found(id))?;
        regular.stamp.expect(id, version)?;
        Ok(Recording { id: id.to_owned(), file: regular.file, stamp: regular.stamp })
    }

    /// The version is checked again after the bytes are there, so that a file that was written over or cut while
    /// it was read gives `Precondition`, never a mixture of two versions.
    fn read_at(
        &self,
        call: &dyn Call,
        handle: &Recording,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize, Error> {
        let size = handle.stamp.size;
        let Some(left) = size.checked_sub(offset) else {
            let message = format!("offset {offset} is beyond the {size} bytes of recording {:?}", handle.id);
            return Err(Error::new(ErrorCode::Range, message));
        };
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let buf = buf.get_mut(..wanted).unwrap_or_default();
        let failed = |error| folder::io_error(&error, format!("recording {:?} can't be read", handle.id));

        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            if call.is_cancelled() {
                return Err(cancelled());
            }
            match handle.file.read_at(rest, offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(read) => filled = filled.saturating_add(read),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let now = Stamp::of(&handle.file.metadata().map_err(failed)?);
        now.expect(&handle.id, &handle.stamp.version())?;
        if filled < wanted {
            let message =
                format!("recording {:?} ended at {filled} of {wanted} bytes from {offset}", handle.id);
            return Err(Error::new(ErrorCode::Corrupt, message));
        }
        Ok(filled)
    }

    fn watch(&self, call: &dyn Call, to: &mut dyn Watcher) -> Result<(), Error> {
        watch::run(self, call, to)
    }
}

recgate_plugin_api::export!(Wazo);

/// What a walk of the monitor folder found.
struct Walked {
    told_all: bool,
    running_since_ms: Option<i64>,
}

impl Wazo {
    fn clock(&self) -> Clock {
        Clock { now_ms: self.host.now_ms(), growing_after_ms: self.settings.growing_after_ms() }
    }

    /// How long it is until then, within reason.
    fn delay_until(&self, at_ms: i64) -> Duration {
        let ms = u64::try_from(at_ms.saturating_sub(self.host.now_ms())).unwrap_or(0);
        Duration::from_millis(ms).clamp(DELAY_AT_LEAST, DELAY_AT_MOST)
    }

    /// Streams the monitor folder: one file is open at a time, no list of them is held.
    fn walk(
        &self,
        root: &Folder,
        call: &dyn Call,
        reports: &mut Reports<'_>,
        emit: Emit<'_>,
    ) -> Result<Walked, Error> {
        let mut walked = Walked { told_all: true, running_since_ms: None };
        let (mut told, mut ignored) = (0_u64, 0_u64);
        for entry in root.entries()? {
            if call.is_cancelled() {
                return Err(cancelled());
            }
            let raw = entry?;
            let Some(id) = raw.to_str() else {
                reports.warn(&format!("root: {raw:?} is ignored, its name is not UTF-8; rename it"));
                continue;
            };
            let Some(name) = Name::parse(id) else {
                ignored = ignored.saturating_add(1);
                continue;
            };
            let seen = match root.file(id) {
                Ok(Some(regular)) => {
                    let closed = self.memory.was_closed(id, &regular.stamp.version());
                    media::examine(id, &name, &regular, closed, self.clock())
                        .map_err(|error| folder::io_error(&error, format!("recording {id:?} can't be read")))
                }
                // A link, a pipe, a device, a folder; or it has just been deleted.
                Ok(None) => {
                    ignored = ignored.saturating_add(1);
                    continue;
                }
                Err(error) => Err(error),
            };
            match seen {
                Ok(seen) => {
                    if let Some(complete_ms) = seen.complete_ms {
                        self.memory.await_completion(id, self.delay_until(complete_ms));
                    }
                    if let Some(since) = seen.running_since_ms {
                        walked.running_since_ms =
                            Some(walked.running_since_ms.map_or(since, |known| known.min(since)));
                    }
                    emit(Item::Media(seen.media))?;
                    told = told.saturating_add(1);
                }
                // Out of file descriptors: that is no matter of this one file.
                Err(error) if error.code == ErrorCode::Busy => return Err(error),
                // Not told at all rather than told as failed: told so, a slip in the permissions of the
                // folder would make orphans of everything.
                Err(error) => {
                    walked.told_all = false;
                    reports.warn(&format!("root: {}", error.message));
                }
            }
        }
        reports.debug(&format!("root: {told} recordings, {ignored} other files ignored"));
        Ok(walked)
    }
}

fn not_found(id: &str) -> Error {
    Error::new(ErrorCode::NotFound, format!("no recording {id:?} in root"))
}

fn cancelled() -> Error {
    Error::new(ErrorCode::Cancelled, "the gateway has cancelled the call")
}

#[cfg(test)]
mod tests;
