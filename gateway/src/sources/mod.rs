//! The plugin host: loads plugins, checks them, calls them and watches over them.
//!
//! Above this module nobody knows what a plugin is: the catalog and the vfs see [`MediaSource`].

mod check;
mod convert;
mod elf;
mod error;
mod host;
mod instance;
mod library;
mod measured;
mod plugin;
mod pool;
mod scan;
mod slot;
mod watch;

use std::{
    any::Any,
    sync::{Arc, Weak},
};

use async_trait::async_trait;
use bytes::Bytes;
use recgate_plugin_api::{Capabilities, Error, ErrorCode, Health, Item, Media, ScanEnd};
use tokio::sync::mpsc;

pub use self::{
    error::LoadError,
    instance::Instance,
    library::{Found, PluginInfo, Plugins, Trust},
    plugin::{CallLimits, Plugin, SettingsProblem},
    slot::Slot,
};

/// A failed call of a source.
#[derive(Debug, Clone, thiserror::Error)]
#[error("source {source_name}: {error}")]
pub struct SourceError {
    /// The source's configured name.
    pub source_name: Arc<str>,
    /// What the plugin, or the host on its behalf, reports.
    pub error: Error,
}

impl SourceError {
    /// A read that ended before the medium's size: its bytes are not those that were promised.
    pub fn short_read(source_name: &str, id: &str, offset: u64, wanted: usize, got: usize) -> Self {
        let message = format!("{id:?} ends early: {wanted} bytes were asked for at {offset}, {got} came");
        Self { source_name: source_name.into(), error: Error::new(ErrorCode::Corrupt, message) }
    }
}

/// Where a scan begins; the owned form of [`recgate_plugin_api::ScanFrom`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScanStart {
    /// Tell everything.
    Full,
    /// Tell what has changed since this cursor.
    Since(Vec<u8>),
}

/// What a watch tells.
#[expect(clippy::large_enum_variant, reason = "nearly all are items")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Live {
    /// From here on nothing is missed; what came before is for a scan to find.
    Listening,
    /// Something is new, has changed or is gone.
    Item(Item),
}

/// One configured source, as the catalog and the vfs use it.
#[async_trait]
pub trait MediaSource: Send + Sync {
    /// The source's configured name.
    fn name(&self) -> &str;
    /// What the instance can do.
    fn capabilities(&self) -> Capabilities;
    /// Whether calls are taken now, and what was wrong last.
    fn status(&self) -> SourceStatus;
    /// Dies with the last of the instance: its calls, its open media, its threads, and itself at the plugin.
    fn remains(&self) -> Weak<dyn Any + Send + Sync> {
        Weak::<()>::new()
    }
    /// Asks the plugin how its storage is.
    async fn health(&self) -> Result<Health, SourceError>;
    /// One call of the plugin's scan; a second one waits for the first to end. Items arrive checked, in batches; a full channel slows the plugin down.
    async fn scan(&self, from: ScanStart, items: mpsc::Sender<Vec<Item>>) -> Result<ScanEnd, SourceError>;
    /// Whether the plugin can tell what happens as it happens.
    fn watches(&self) -> bool {
        false
    }
    /// Lets the plugin tell what happens as it happens, until it returns: never with success before this future is
    /// dropped, but for a plugin that misbehaves. Dropping it cancels the call, and a second one waits for the first to
    /// end, or to be abandoned. Items arrive checked; a full channel slows the plugin down. `Unsupported` stays so.
    async fn watch(&self, told: mpsc::Sender<Live>) -> Result<(), SourceError> {
        drop(told);
        let error = Error::new(ErrorCode::Unsupported, "its plugin doesn't watch");
        Err(SourceError { source_name: self.name().into(), error })
    }
    /// One medium as it is now.
    async fn stat(&self, id: &str, version: Option<&str>) -> Result<Media, SourceError>;
    /// Opens exactly this version.
    async fn open(&self, id: &str, version: &str) -> Result<Arc<dyn OpenMedia>, SourceError>;
    /// The same with the first `len` bytes in one go. Where they can't be had, or none are asked for, there are none: what
    /// is wrong shows when they are read.
    async fn open_with_first(
        &self,
        id: &str,
        version: &str,
        _len: usize,
    ) -> Result<(Arc<dyn OpenMedia>, Option<Bytes>), SourceError> {
        Ok((self.open(id, version).await?, None))
    }
}

/// An open medium. Dropping it closes it, without waiting.
#[async_trait]
pub trait OpenMedia: Send + Sync {
    /// Reads `len` bytes at `offset`, at most 64 MiB; fewer only at the end of the medium.
    ///
    /// Only the caller knows where that should be: one who gets fewer bytes than the medium's size promises must not
    /// pass them on, and reports [`SourceError::short_read`].
    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, SourceError>;
}

/// How a source is, from the host's sight.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct SourceStatus {
    /// Whether calls are taken: false while too many calls are abandoned.
    pub available: bool,
    /// Calls running now.
    pub running_calls: usize,
    /// Calls that passed their deadline and have not returned.
    pub abandoned_calls: usize,
    /// The last error, for the operator.
    pub last_error: Option<String>,
}
