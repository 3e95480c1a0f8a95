//! recgate plugin: recordings that are computed, not stored.
//!
//! Any number of calls, spread over days, each with its facts and a WAV of tones, all of it a function of the call's
//! number. So a catalog of millions can be tried and measured on a disk that has room for none of the media. Nothing
//! is kept in memory, and every scan tells the same.

mod calls;
mod settings;
mod sound;

use std::sync::Arc;

use recgate_plugin_api::{
    Call, Capabilities, Emit, Error, ErrorCode, Health, Host, Item, Media, ScanEnd, ScanFrom, Source,
};

use crate::calls::Calls;
use crate::settings::Settings;

/// Calls that one round of a scan tells; the host asks for the next with the cursor.
const ROUND: u64 = 100_000;

/// Invented calls.
pub struct Synthetic {
    calls: Calls,
    host: Arc<dyn Host>,
}

impl Source for Synthetic {
    /// The number of the call.
    type Handle = u64;

    const NAME: &'static str = "synthetic";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const LICENCE: &'static str = env!("CARGO_PKG_LICENSE");

    fn config_schema() -> String {
        settings::schema().to_string()
    }

    fn create(config_json: &str, host: Arc<dyn Host>) -> Result<Self, Error> {
        Ok(Self { calls: Calls::new(&Settings::parse(config_json)?), host })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { facts: true, ..Capabilities::default() }
    }

    fn health(&self, _call: &dyn Call) -> Result<Health, Error> {
        Ok(Health { reachable: true, ..Health::default() })
    }

    /// Tells facts and media of one call after the other, in the order of their starts, and of those that have ended
    /// by now only.
    fn scan(&self, call: &dyn Call, from: ScanFrom<'_>, emit: Emit<'_>) -> Result<ScanEnd, Error> {
        let now_ms = self.host.now_ms();
        let first = match from {
            ScanFrom::Full => 0,
            ScanFrom::Since(cursor) => next_of(cursor)?,
        };
        let end = first.saturating_add(ROUND).min(self.calls.count());
        for number in first..end {
            if call.is_cancelled() {
                return Err(Error::new(ErrorCode::Cancelled, "the gateway has cancelled the call"));
            }
            let invented = self.calls.call(number);
            // A call may end after one that began later, so each is looked at.
            if invented.stop_ms() <= now_ms {
                emit(Item::Facts(invented.facts()))?;
                emit(Item::Media(invented.media()))?;
            }
        }
        let complete = end == self.calls.count();
        let cursor = if complete { 0 } else { end };
        // What has not ended yet is still to be told.
        let watermark_ms = now_ms.saturating_sub(calls::LONGEST_MS);
        Ok(ScanEnd { cursor: cursor.to_be_bytes().to_vec(), complete, watermark_ms })
    }

    fn stat(&self, _call: &dyn Call, id: &str, version: Option<&str>) -> Result<Media, Error> {
        let media = self.calls.call(self.number(id)?).media();
        match version {
            Some(version) if version != media.version => Err(changed(id, version)),
            _ => Ok(media),
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
}

recgate_plugin_api::export!(Synthetic);

impl Synthetic {
    fn number(&self, id: &str) -> Result<u64, Error> {
        calls::number_of(id)
            .filter(|number| *number < self.calls.count())
            .ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no call {id:?}")))
    }
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
