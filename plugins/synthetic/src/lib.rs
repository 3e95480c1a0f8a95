//! recgate plugin: recordings that are computed, not stored.
//!
//! Any number of calls, spread over days, each with its facts and a WAV of tones, all of it a function of the call's
//! number. So a catalog of millions can be tried and measured on a disk that has room for none of the media. Nothing
//! is kept in memory, and every scan tells the same, but for calls that have come meanwhile: by the clock, or where a
//! file says so that somebody else writes.

mod calls;
mod present;
mod settings;
mod sound;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use recgate_plugin_api::{
    Call, Capabilities, Emit, Error, ErrorCode, Health, Host, Item, Media, ScanEnd, ScanFrom, Source, Watcher,
};
use recgate_plugin_common::open::cancelled;

use crate::calls::{Calls, Invented};
use crate::settings::Settings;

/// Calls that one round of a scan tells; the host asks for the next with the cursor.
const ROUND: u64 = 100_000;

/// Invented calls.
pub struct Synthetic {
    calls: Calls,
    count_file: Option<PathBuf>,
    host: Arc<dyn Host>,
}

impl Source for Synthetic {
    /// The number of the call.
    type Handle = u64;

    const NAME: &'static str = "synthetic";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const LICENCE: &'static str = env!("CARGO_PKG_LICENSE");
    const WATCHES: bool = true;

    fn config_schema() -> String {
        settings::schema().to_string()
    }

    fn create(config_json: &str, host: Arc<dyn Host>) -> Result<Self, Error> {
        let settings = Settings::parse(config_json)?;
        Ok(Self { calls: Calls::new(&settings), count_file: settings.count_file, host })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { facts: true, ..Capabilities::default() }
    }

    fn health(&self, _call: &dyn Call) -> Result<Health, Error> {
        let message = self.present().err().map(|error| error.message).unwrap_or_default();
        Ok(Health { reachable: message.is_empty(), message, storage_time_ms: None })
    }

    /// Tells facts and media of one call after the other, in the order of their starts, and of those that are there by
    /// now only.
    fn scan(&self, call: &dyn Call, from: ScanFrom<'_>, emit: Emit<'_>) -> Result<ScanEnd, Error> {
        let present = self.present()?;
        let first = match from {
            ScanFrom::Full => 0,
            ScanFrom::Since(cursor) => next_of(cursor)?,
        };
        let end = first.saturating_add(ROUND).min(present.count);
        for number in first..end {
            if call.is_cancelled() {
                return Err(cancelled());
            }
            let invented = self.calls.call(number);
            // A call may end after one that began later, so each is looked at.
            if present.has(&invented) {
                tell(&invented, &mut *emit)?;
            }
        }
        let complete = end >= present.count;
        let cursor = if complete { 0 } else { end };
        Ok(ScanEnd {
            cursor: cursor.to_be_bytes().to_vec(),
            complete,
            watermark_ms: present.watermark_ms(&self.calls),
        })
    }

    fn stat(&self, _call: &dyn Call, id: &str, version: Option<&str>) -> Result<Media, Error> {
        let invented = self.calls.call(self.number(id)?);
        if !self.present()?.has(&invented) {
            return Err(not_found(id));
        }
        match version {
            Some(version) if version != calls::VERSION => Err(changed(id, version)),
            _ => Ok(invented.media()),
        }
    }

    fn open(&self, _call: &dyn Call, id: &str, version: &str) -> Result<u64, Error> {
        let number = self.number(id)?;
        if version == calls::VERSION { Ok(number) } else { Err(changed(id, version)) }
    }

    fn read_at(&self, _call: &dyn Call, number: &u64, offset: u64, buf: &mut [u8]) -> Result<usize, Error> {
        let invented = self.calls.call(*number);
        let Some(left) = invented.size().checked_sub(offset) else {
            let message = format!("offset {offset} is beyond the {} bytes of call {number}", invented.size());
            return Err(Error::new(ErrorCode::Range, message));
        };
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let buf = buf.get_mut(..wanted).unwrap_or_default();
        sound::fill(*number, invented.samples(), offset, buf);
        Ok(wanted)
    }

    fn watch(&self, call: &dyn Call, to: &mut dyn Watcher) -> Result<(), Error> {
        watch::run(self, call, to)
    }
}

recgate_plugin_api::export!(Synthetic);

impl Synthetic {
    fn number(&self, id: &str) -> Result<u64, Error> {
        calls::number_of(id).filter(|number| *number < self.calls.count()).ok_or_else(|| not_found(id))
    }
}

/// Tells a call, its facts first.
fn tell(invented: &Invented, emit: Emit<'_>) -> Result<(), Error> {
    emit(Item::Facts(invented.facts()))?;
    emit(Item::Media(invented.media()))
}

fn not_found(id: &str) -> Error {
    Error::new(ErrorCode::NotFound, format!("there is no call {id:?}"))
}

/// Where a scan goes on. A cursor of an earlier configuration may lie beyond the end.
fn next_of(cursor: &[u8]) -> Result<u64, Error> {
    let bytes = cursor.try_into().map_err(|_| {
        Error::new(ErrorCode::Invalid, format!("a cursor of {} bytes is none of this plugin's", cursor.len()))
    })?;
    Ok(u64::from_be_bytes(bytes))
}

fn changed(id: &str, version: &str) -> Error {
    Error::new(
        ErrorCode::Precondition,
        format!("call {id:?} has version {}, not {version:?}", calls::VERSION),
    )
}

#[cfg(test)]
mod tests;
