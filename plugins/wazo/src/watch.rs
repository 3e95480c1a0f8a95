//! Tells what happens in the folders as it happens, by inotify.
//!
//! When is a recording complete? A scan has nothing but quiet time. Here the writer's own word counts: a file that is
//! closed after writing, or moved into place, and whose header has the right sizes (Asterisk writes them when it closes)
//! is told as available after [`SETTLE`]. The short wait is for those who set a file's times after closing it (`tar`):
//! the version is made of them.
//!
//! That can be wrong for a while: a recording that is paused is closed, and appended to when it is resumed. So
//!
//! - the first write to a file is told at once, as a medium that grows, which takes back that it was available. Nothing
//!   is published before its call data record, and Wazo writes that when the whole call is over, long after the last
//!   resumption began to write;
//! - all that happened in the monitor folder is told before the records of the same turn, and each record as late as it
//!   is there: so the record finds the recording in its newest state.
//!
//! A file that is never seen closed (a hard link, a writer that crashed or goes on after the watch began) is looked at
//! again when it has been quiet for long enough, by the rules of scans. What nobody announces (a network file system) is
//! left to scans.

mod listener;
mod memory;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::thread;
use std::time::{Duration, Instant};

use recgate_plugin_api::{Call, Error, ErrorCode, Item, Level, Source as _, Watcher};

use self::listener::{Change, Listener, Network, Place};
use self::memory::Wait;
use crate::folder::{self, Folder};
use crate::media::{self, Seen};
use crate::names::Name;
use crate::report::Reports;
use crate::{Wazo, cancelled, cdr};

pub(crate) use memory::Memory;

/// Between the close of a file and the look at it.
const SETTLE: Duration = Duration::from_millis(500);
/// Between two looks whether the watch is to end.
const LOOK: Duration = Duration::from_millis(200);
/// How long events are gathered.
const GATHER: Duration = Duration::from_millis(20);
// A recording is to be there two seconds after the last fact that it needs. These waits are all that lies on its way by
// intention; the rest of the time is the gateway's and the machine's.
const _: () = assert!(SETTLE.as_millis() + LOOK.as_millis() + GATHER.as_millis() <= 1000);
/// Between two looks whether the folders are still those that are listened to.
const CHECK: Duration = Duration::from_secs(5);
/// How much longer than a file is young it is remembered that it was closed.
const CLOSED_FOR: Duration = Duration::from_secs(60);
/// Warnings are counted anew after this.
const REPORTS_AFRESH: Duration = Duration::from_secs(600);
/// Files of records that wait for their end. What is more is left to scans.
const RECORDS_MAX: usize = 1000;

/// Listens until the call is cancelled, a folder is replaced, or nobody takes what is told.
pub(crate) fn run(wazo: &Wazo, call: &dyn Call, to: &mut dyn Watcher) -> Result<(), Error> {
    listen(wazo, call, to, &Folder::network)
}

/// The same, asking this whether a folder lies on a network.
fn listen(wazo: &Wazo, call: &dyn Call, to: &mut dyn Watcher, network: &Network) -> Result<(), Error> {
    let (listener, deaf) = Listener::open(&wazo.settings, network)?;
    for deaf in &deaf {
        wazo.host.log(Level::Warn, "wazo", &format!("{deaf}; scans find what is new there"));
    }
    let _watching = wazo.memory.begin();
    // Where a folder can't be listened to, it would be wrong to say that nothing is missed.
    let hears_all = deaf.is_empty();
    if hears_all {
        to.listening()?;
    }
    let (mut checked, mut reported) = (Instant::now(), Instant::now());
    let mut turns = Turns {
        wazo,
        call,
        to,
        reports: Reports::new(&*wazo.host, Wazo::NAME),
        records: BTreeMap::new(),
        hears_all,
    };
    loop {
        if call.is_cancelled() {
            return Err(cancelled());
        }
        if listener.wait(LOOK)? {
            // What comes in bursts is looked at once.
            thread::sleep(GATHER);
        }
        turns.turn(&listener)?;
        if checked.elapsed() >= CHECK {
            listener.check()?;
            checked = Instant::now();
        }
        if reported.elapsed() >= REPORTS_AFRESH {
            std::mem::replace(&mut turns.reports, Reports::new(&*wazo.host, Wazo::NAME)).finish();
            reported = Instant::now();
        }
    }
}

/// What turns of the watch share.
struct Turns<'a> {
    wazo: &'a Wazo,
    call: &'a dyn Call,
    to: &'a mut dyn Watcher,
    reports: Reports<'a>,
    /// All folders are listened to.
    hears_all: bool,
    /// Files of records that were written to and not closed: when they are read all the same.
    records: BTreeMap<OsString, Instant>,
}

impl Turns<'_> {
    /// Tells what is new, recordings before records.
    fn turn(&mut self, listener: &Listener) -> Result<(), Error> {
        let news = listener.read()?;
        if news.lost {
            self.reports
                .warn("more happened than the kernel keeps for its listeners; a scan finds what was missed");
            if self.hears_all {
                self.to.listening()?;
            }
        }
        let due = self.wazo.memory.due();
        let (recordings, records): (Vec<_>, Vec<_>) =
            news.files.into_iter().partition(|((place, _), _)| *place == Place::Recordings);
        if !due.is_empty() || !recordings.is_empty() {
            let root = Folder::open(&self.wazo.settings.root, "root")?;
            for ((_, name), change) in recordings {
                self.recording(&root, &name, change)?;
            }
            for id in due {
                self.look_again(&root, &id)?;
            }
        }
        self.read_records(records.into_iter().map(|((_, name), change)| (name, change)))
    }

    /// Something has happened to a file in the monitor folder.
    fn recording(&mut self, root: &Folder, raw: &OsStr, change: Change) -> Result<(), Error> {
        let Some((id, name)) = raw.to_str().and_then(|id| Some((id, Name::parse(id)?))) else {
            return Ok(());
        };
        let (settle, quiet) = (Instant::now() + SETTLE, Instant::now() + self.quiet());
        let is_waiting = self.wazo.memory.change(id, |wait| match change {
            Change { closed: true, .. } => *wait = Wait { at: settle, closed: true },
            Change { written: true, .. } => *wait = Wait { at: quiet, closed: false },
            // Its times or its rights have changed.
            Change { .. } => wait.at = wait.at.max(settle),
        });
        // The gateway knows already that it grows.
        if is_waiting && !change.gone {
            return Ok(());
        }
        let wait = Wait { at: if change.closed { settle } else { quiet }, closed: change.closed };
        self.look(root, id, &name, false, wait)
    }

    /// The time of a recording has come, unless it has been written to meanwhile.
    fn look_again(&mut self, root: &Folder, id: &str) -> Result<(), Error> {
        let now = Instant::now();
        let wait = self.wazo.memory.waiting(id).filter(|wait| wait.at <= now);
        let (Some(name), Some(wait)) = (Name::parse(id), wait) else { return Ok(()) };
        self.look(root, id, &name, wait.closed, Wait { at: now + self.quiet(), closed: false })
    }

    /// Tells a recording as it is, and remembers to look at it again as long as it grows.
    fn look(&mut self, root: &Folder, id: &str, name: &Name, closed: bool, again: Wait) -> Result<(), Error> {
        let Some(seen) = self.examine(root, id, name, closed)? else { return Ok(()) };
        match seen.complete_ms {
            Some(complete_ms) => {
                let at = match again.closed {
                    true => again.at,
                    false => again.at.max(Instant::now() + self.wazo.delay_until(complete_ms)),
                };
                if !self.wazo.memory.wait(id, Wait { at, ..again }) {
                    self.reports
                        .warn("root: too many recordings grow at once; scans find when they are complete");
                }
            }
            None => self.wazo.memory.stop_waiting(id),
        }
        self.to.tell(Item::Media(seen.media))
    }

    /// What a recording is now; `None` where that can't be told, or it is gone, which is told.
    fn examine(&mut self, root: &Folder, id: &str, name: &Name, closed: bool) -> Result<Option<Seen>, Error> {
        let memory = &self.wazo.memory;
        let found = root.file(id).and_then(|file| {
            let Some(regular) = file else { return Ok(None) };
            let version = regular.stamp.version();
            // Without the room to remember it, a scan would take back what is told here.
            let keep = self.quiet() + CLOSED_FOR;
            let closed = memory.was_closed(id, &version) || (closed && memory.close(id, &version, keep));
            media::examine(id, name, &regular, closed, self.wazo.clock())
                .map(Some)
                .map_err(|error| folder::io_error(&error, format!("recording {id:?} can't be read")))
        });
        match found {
            Ok(Some(seen)) => Ok(Some(seen)),
            Ok(None) => {
                memory.forget(id);
                self.to.tell(Item::MediaGone(id.to_owned()))?;
                Ok(None)
            }
            Err(error) if error.code == ErrorCode::Busy => Err(error),
            Err(error) => {
                memory.forget(id);
                self.reports.warn(&format!("root: {}", error.message));
                Ok(None)
            }
        }
    }

    /// Tells the records of files that were closed or moved into place, and of those that have been quiet.
    fn read_records(&mut self, written: impl Iterator<Item = (OsString, Change)>) -> Result<(), Error> {
        let now = Instant::now();
        let quiet = now + self.quiet();
        for (name, change) in written {
            if !name.to_str().is_some_and(|name| name.ends_with(".json")) {
                continue;
            }
            match change {
                Change { closed: true, .. } => drop(self.records.insert(name, now)),
                _ if self.records.len() < RECORDS_MAX || self.records.contains_key(&name) => {
                    self.records.insert(name, quiet);
                }
                _ => self.reports.warn("cdr_dir: too many files are written at once; scans read them"),
            }
        }
        let due: Vec<OsString> =
            self.records.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).collect();
        let Some(path) = self.wazo.settings.cdr_dir.as_deref().filter(|_| !due.is_empty()) else {
            return Ok(());
        };
        let folder = Folder::open(path, "cdr_dir")?;
        for name in due {
            self.records.remove(&name);
            let Some(text) = name.to_str() else { continue };
            let (settings, clock) = (&self.wazo.settings, self.wazo.clock());
            let to = &mut *self.to;
            let mut emit = |item| to.tell(item);
            let told_all =
                cdr::tell_file(&folder, text, settings, clock, self.call, &mut self.reports, &mut emit)?;
            if !told_all {
                self.records.insert(name, quiet);
            }
        }
        Ok(())
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.wazo.settings.growing_after_ms()).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests;
