//! recgate plugin: an archive in the layout of 8x8 Contact Center, with its index files.
//!
//! People who leave 8x8 bring what they have downloaded over years: `S20160606/R201606060001170000.wav`, the day folders'
//! indexes and those in `Index`. The archive is only ever read, and its recordings keep their names where these are free.
//!
//! A scan goes through the days in their order. The indexes of a day and of its neighbours come before the media of the
//! day, so that the gateway has the facts at hand when the media come. It keeps nothing between two scans: each tells
//! everything, and holds no more than the names of folders and one row at a time.

mod columns;
mod facts;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod media;
mod names;
mod rows;
mod scan;
mod settings;
mod survey;
mod text;
mod times;

use std::sync::Arc;

use recgate_plugin_api::{
    Call, Capabilities, Emit, Error, ErrorCode, Health, Host, Media, ScanEnd, ScanFrom, Source,
};
use recgate_plugin_common::clock::Clock;
use recgate_plugin_common::folder::{self, Folder, Regular};
use recgate_plugin_common::open::OpenFile;
use recgate_plugin_common::report::Reports;

use crate::names::Id;
use crate::settings::Settings;

/// Bytes that a read should ask for: large enough that the check after each read costs nothing beside it.
const PREFERRED_READ_SIZE: u32 = 256 * 1024;

/// One tenant's archive.
pub struct Archive {
    settings: Settings,
    host: Arc<dyn Host>,
}

impl Source for Archive {
    type Handle = OpenFile;

    const NAME: &'static str = "archive8x8";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const LICENCE: &'static str = env!("CARGO_PKG_LICENSE");

    fn config_schema() -> String {
        settings::schema().to_string()
    }

    /// The folder needn't be there yet (a disk that is mounted later): [`Source::health`] and scans say so.
    fn create(config_json: &str, host: Arc<dyn Host>) -> Result<Self, Error> {
        Ok(Self { settings: Settings::parse(config_json)?, host })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { facts: true, max_concurrent_calls: 0, preferred_read_size: PREFERRED_READ_SIZE }
    }

    fn health(&self, _call: &dyn Call) -> Result<Health, Error> {
        let probed = self.root().and_then(|root| root.probe());
        let message = probed.err().map(|error| error.message).unwrap_or_default();
        Ok(Health { reachable: message.is_empty(), message, storage_time_ms: None })
    }

    /// Every scan is a full one, whatever cursor it is given.
    ///
    /// The watermark is when the scan began, for nobody records into an archive; or, where files are just being copied
    /// in, the earliest start among those. Files that a copy has yet to bring are late, as nothing here tells of them.
    /// Where something could not be read, it is `i64::MIN`: can't tell.
    fn scan(&self, call: &dyn Call, _from: ScanFrom<'_>, emit: Emit<'_>) -> Result<ScanEnd, Error> {
        let began_ms = self.host.now_ms();
        let mut reports = Reports::new(&*self.host, Self::NAME);
        let root = self.root()?;
        let told = scan::run(&root, &self.settings, self.clock(), call, &mut reports, emit)?;
        reports.finish();
        let watermark_ms =
            if told.all { told.growing_since_ms.unwrap_or(began_ms).min(began_ms) } else { i64::MIN };
        Ok(ScanEnd { cursor: b"full".to_vec(), complete: true, watermark_ms })
    }

    fn stat(&self, _call: &dyn Call, path: &str, version: Option<&str>) -> Result<Media, Error> {
        let (id, regular) = self.find(path)?;
        if let Some(version) = version {
            regular.stamp.expect(path, version)?;
        }
        let seen = media::examine(path, &id, &regular, self.clock())
            .map_err(|error| folder::io_error(&error, format!("recording {path:?} can't be read")))?;
        if let Some(version) = version
            && seen.media.version != version
        {
            return Err(folder::changed(path, version, &seen.media.version));
        }
        Ok(seen.media)
    }

    fn open(&self, _call: &dyn Call, path: &str, version: &str) -> Result<OpenFile, Error> {
        let (_, regular) = self.find(path)?;
        OpenFile::new(path, version, regular)
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
}

recgate_plugin_api::export!(Archive);

impl Archive {
    fn clock(&self) -> Clock {
        Clock { now_ms: self.host.now_ms(), growing_after_ms: self.settings.growing_after_ms() }
    }

    fn root(&self) -> Result<Folder, Error> {
        Folder::open(&self.settings.root, "root")
    }

    /// Opens the file of an id.
    fn find<'a>(&self, path: &'a str) -> Result<(Id<'a>, Regular), Error> {
        let not_found = || Error::new(ErrorCode::NotFound, format!("no recording {path:?} in root"));
        let id = Id::parse(path).ok_or_else(not_found)?;
        let folder = survey::open(&self.root()?, id.base, id.folder)?.ok_or_else(not_found)?;
        let regular = folder.file(id.file)?.ok_or_else(not_found)?;
        Ok((id, regular))
    }
}

#[cfg(test)]
mod tests;
