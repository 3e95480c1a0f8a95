//! recgate plugin: the `monitor` folder of a Wazo PBX and its call data records.
//!
//! Wazo (MixMonitor) writes recordings flat into `/var/lib/wazo/sounds/tenants/<tenant>/monitor`, since 21.02 as
//! `<recording uuid>.wav`, and ConfBridge puts `conference-<id>.wav` beside them. What is known about a recording
//! stands in the call data records of wazo-call-logd: they are asked for over its HTTP API, or an operator lays them
//! down as JSON files in the shape of its `GET /cdr`. Both folders are only ever read.
//!
//! A scan walks the monitor folder first, then tells the records: a recording that was paused looked complete then, and
//! the gateway must learn that it has gone on before a record lets it be published. Of the folders nothing is kept between
//! two scans: each tells everything, and between them a [`watch`] tells what happens in them. What is asked for over HTTP,
//! and when, [`call_logd`] says.

mod call_logd;
mod cdr;
mod facts;
#[cfg(fuzzing)]
pub mod fuzzing;
mod media;
mod names;
mod settings;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use recgate_plugin_api::{
    Call, Capabilities, Emit, Error, ErrorCode, Health, Host, Item, Media, ScanEnd, ScanFrom, Source, Watcher,
};
use recgate_plugin_common::open::{OpenFile, cancelled};
use recgate_plugin_common::{folder, report, wav};

use crate::call_logd::CallLogd;
use crate::folder::Folder;
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

/// One Wazo tenant's monitor folder, with where its call data records come from.
pub struct Wazo {
    settings: Settings,
    call_logd: Option<CallLogd>,
    host: Arc<dyn Host>,
    memory: Memory,
}

impl Source for Wazo {
    type Handle = OpenFile;

    const NAME: &'static str = "wazo";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const LICENCE: &'static str = env!("CARGO_PKG_LICENSE");
    const WATCHES: bool = true;

    fn config_schema() -> String {
        settings::schema().to_string()
    }

    /// The folders needn't be there yet (a disk that is mounted later): [`Source::health`] and scans say so.
    fn create(config_json: &str, host: Arc<dyn Host>) -> Result<Self, Error> {
        let settings = Settings::parse(config_json)?;
        let call_logd = settings.call_logd.clone().map(CallLogd::new);
        Ok(Self { settings, call_logd, host, memory: Memory::default() })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { facts: true, max_concurrent_calls: 0, preferred_read_size: PREFERRED_READ_SIZE }
    }

    fn health(&self, call: &dyn Call) -> Result<Health, Error> {
        let mut problems = Vec::new();
        if let Err(error) = Folder::open(&self.settings.root, "root").and_then(|folder| folder.probe()) {
            problems.push(error.message);
        }
        if let Some(path) = &self.settings.cdr_dir
            && let Err(error) = Folder::open(path, "cdr_dir").and_then(|folder| folder.probe())
        {
            problems.push(error.message);
        }
        if let Some(call_logd) = &self.call_logd
            && let Err(error) = call_logd.probe(call, self.host.now_ms())
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
    ///
    /// Where wazo-call-logd fails, everything else is told, and the scan ends with the error: then the gateway has
    /// learned what is new, and decides nothing for want of a record.
    fn scan(&self, call: &dyn Call, from: ScanFrom<'_>, emit: Emit<'_>) -> Result<ScanEnd, Error> {
        if let (Some(call_logd), ScanFrom::Since(cursor)) = (&self.call_logd, from)
            && let Some(end) = call_logd.confirm(cursor)
        {
            return end;
        }
        let began_ms = self.host.now_ms();
        let mut reports = Reports::new(&*self.host, Self::NAME);
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
        let (mut failed, mut known_ms) = (None, began_ms);
        if let Some(call_logd) = &self.call_logd {
            call_logd.begin();
            failed = call_logd.tell_recent(&mut self.lend(call, &mut reports, emit))?;
            if failed.is_none() {
                failed = call_logd.tell_rest(&mut self.lend(call, &mut reports, emit))?;
            }
            known_ms = call_logd.watermark_ms().min(began_ms);
        }
        reports.finish();

        let watermark_ms = if told_all {
            walked.running_since_ms.map_or(known_ms, |since| since.min(known_ms))
        } else {
            i64::MIN
        };
        let end = match failed {
            None => Ok(ScanEnd { cursor: b"full".to_vec(), complete: true, watermark_ms }),
            Some(error) => Err(error),
        };
        match &self.call_logd {
            None => end,
            Some(call_logd) => Ok(call_logd.hold(end)),
        }
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

    fn open(&self, _call: &dyn Call, id: &str, version: &str) -> Result<OpenFile, Error> {
        Name::parse(id).ok_or_else(|| not_found(id))?;
        let regular = Folder::open(&self.settings.root, "root")?.file(id)?.ok_or_else(|| not_found(id))?;
        OpenFile::new(id, version, regular)
    }

    fn read_at(
        &self,
        call: &dyn Call,
        handle: &OpenFile,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize, Error> {
        handle.read_at(call, offset, buf)
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

    fn lend<'a, 'h>(
        &'a self,
        call: &'a dyn Call,
        reports: &'a mut Reports<'h>,
        emit: Emit<'a>,
    ) -> call_logd::Scan<'a, 'h> {
        call_logd::Scan { settings: &self.settings, host: &*self.host, call, reports, emit }
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

#[cfg(test)]
mod tests;
