//! The safe face of the ABI: implement [`Source`], then export it with `recgate_plugin_api::export!`.

use crate::types::{Capabilities, Error, ErrorCode, Health, Item, Media, ScanEnd, ScanFrom};

/// Severity of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Level {
    /// Something failed.
    Error = 1,
    /// Something is odd but handled.
    Warn = 2,
    /// What an operator wants to know.
    Info = 3,
    /// What a developer wants to know.
    Debug = 4,
    /// Every step.
    Trace = 5,
}

/// What the host offers for the life of an instance.
pub trait Host: Send + Sync + 'static {
    /// Writes a line to the gateway's log.
    fn log(&self, level: Level, target: &str, message: &str);
    /// The gateway's time, Unix milliseconds UTC.
    fn now_ms(&self) -> i64;
}

/// What the host offers for one call.
pub trait Call {
    /// Whether the host wants this call to end: check between steps and return `Cancelled`.
    fn is_cancelled(&self) -> bool;
}

/// Takes what a scan tells. An error means: stop and return it.
pub type Emit<'a> = &'a mut dyn FnMut(Item) -> Result<(), Error>;

/// Takes what a watch tells, and blocks while the host is busy. An error means: stop and return it.
pub trait Watcher {
    /// From here on nothing is missed: the host scans for what came before, so that needn't be told. To be said once
    /// the plugin listens, not before, and again whenever it may have missed something (a queue of events that has run
    /// over, a connection that was lost for a while). Where it isn't said within 10 seconds, a scan follows anyway.
    fn listening(&mut self) -> Result<(), Error>;
    /// Something is new, has changed or is gone, and is told as it is now. The order counts: of several items about one
    /// medium the last one holds, also against those of a scan that began earlier. A medium that goes on being written
    /// is told as [`Growing`](crate::MediaState::Growing) before any facts with a start that come meanwhile, for those
    /// let what is available be published.
    fn tell(&mut self, item: Item) -> Result<(), Error>;
}

/// One configured instance of a plugin. Methods are called from many threads at once.
pub trait Source: Sized + Send + Sync + 'static {
    /// An open medium; reads run on it at once.
    type Handle: Send + Sync + 'static;

    /// The plugin's name, as configurations spell it.
    const NAME: &'static str;
    /// The plugin's version.
    const VERSION: &'static str;
    /// SPDX licence expression.
    const LICENCE: &'static str;
    /// Whether it implements [`Source::watch`], which is never called without this.
    const WATCHES: bool = false;

    /// The JSON Schema of the configuration.
    fn config_schema() -> String;
    /// Makes an instance from its configuration, JSON that satisfies the schema.
    fn create(config_json: &str, host: std::sync::Arc<dyn Host>) -> Result<Self, Error>;
    /// What this instance can do.
    fn capabilities(&self) -> Capabilities;
    /// How it is. An unreachable storage is a `Health`, not an error.
    fn health(&self, call: &dyn Call) -> Result<Health, Error>;
    /// Tells media and facts, in any order. After an end that isn't complete the host calls again with the cursor; no
    /// two scans of an instance run at once.
    ///
    /// A full scan that has ended complete is where the host learns what is missing: it asks [`Self::stat`] for each
    /// medium that was not told, and `NotFound` makes it missing; where many are at once, none is. So a storage that is
    /// away is an error (`Unavailable`), not an empty storage, and a medium that can't be read just now is another
    /// error of `stat`.
    fn scan(&self, call: &dyn Call, from: ScanFrom<'_>, emit: Emit<'_>) -> Result<ScanEnd, Error>;
    /// One medium as it is now. With a version: `Precondition` where it is another by now.
    fn stat(&self, call: &dyn Call, id: &str, version: Option<&str>) -> Result<Media, Error>;
    /// Opens exactly this version for reading; `Precondition` where it is another by now.
    fn open(&self, call: &dyn Call, id: &str, version: &str) -> Result<Self::Handle, Error>;
    /// Fills `buf` from `offset`, short only at the end; returns the bytes filled. Stored bytes, unpatched.
    fn read_at(
        &self,
        call: &dyn Call,
        handle: &Self::Handle,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize, Error>;
    /// Tells what happens as it happens, on a thread of its own, without a deadline and beside all other calls, until
    /// the call is cancelled; then it returns `Cancelled` soon (a look each 200 ms is soon). A storage that announces
    /// nothing may be polled here.
    ///
    /// `Unsupported` where this instance can't be watched: it isn't tried again. After any other return it is, after
    /// pauses that grow from a second to five minutes. Needs [`Self::WATCHES`].
    fn watch(&self, call: &dyn Call, to: &mut dyn Watcher) -> Result<(), Error> {
        let _ = (call, to);
        Err(Error::new(ErrorCode::Unsupported, "this plugin doesn't watch"))
    }
}
