//! Takes what a scan tells: checks it, batches it, passes it on.

#![expect(unsafe_code, reason = "a function that plugins call")]

use std::{
    ffi::c_void,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use recgate_plugin_api::{
    Error, ErrorCode, Item, JoinKey,
    abi::{self, RgItem},
};
use tokio::{runtime::Handle, sync::mpsc};

use super::{convert, pool::Call};

/// Items of one batch, and bytes of what they hold after which it is passed on.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 128 << 10;
/// A batch that has begun is passed on with the next item after this.
const BATCH_AGE: Duration = Duration::from_secs(1);
/// Items of one scan whose faults are logged one by one.
const LOGGED: u64 = 5;

/// The other end of a scan's emit.
pub(super) struct Sink<'a> {
    source: &'a str,
    plugin: &'a str,
    call: &'a Arc<Call>,
    items: mpsc::Sender<Vec<Item>>,
    runtime: Handle,
    batch: Vec<Item>,
    batch_bytes: usize,
    batch_began: Instant,
    told: u64,
    dropped: u64,
    first_fault: String,
}

/// The emit of scans.
///
/// # Safety
///
/// `ctx` points to a [`Sink`] that nobody else uses, `item` is as the header demands.
pub(super) unsafe extern "C" fn emit(ctx: *mut c_void, item: *const RgItem) -> i32 {
    // SAFETY: the caller's promise, twice.
    unsafe { contained(ctx, |sink: &mut Sink<'_>| sink.take(|| convert::item(item))) }
}

/// Calls `take` with the sink of an emit. Nothing unwinds into the plugin.
///
/// # Safety
///
/// `ctx` is null or points to an `S` that nobody else uses.
pub(super) unsafe fn contained<S>(ctx: *mut c_void, take: impl FnOnce(&mut S) -> i32) -> i32 {
    let result = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the caller's promise.
        unsafe { ctx.cast::<S>().as_mut() }.map_or(ErrorCode::Internal as i32, take)
    }));
    result.unwrap_or(ErrorCode::Internal as i32)
}

impl<'a> Sink<'a> {
    pub(super) fn new(
        source: &'a str,
        plugin: &'a str,
        call: &'a Arc<Call>,
        items: mpsc::Sender<Vec<Item>>,
        runtime: Handle,
    ) -> Self {
        Self {
            source,
            plugin,
            call,
            items,
            runtime,
            batch: Vec::new(),
            batch_bytes: 0,
            batch_began: Instant::now(),
            told: 0,
            dropped: 0,
            first_fault: String::new(),
        }
    }

    /// How many items were told, good or bad.
    pub(super) fn told(&self) -> u64 {
        self.told
    }

    /// Passes on what is left.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        match self.flush() {
            abi::OK => Ok(()),
            _ => Err(Error::new(ErrorCode::Cancelled, "the scan was cancelled")),
        }
    }

    /// What there is to say about items that were dropped.
    pub(super) fn report(&self) -> Option<String> {
        (self.dropped > 0).then(|| {
            let (source, plugin, dropped) = (self.source, self.plugin, self.dropped);
            let message = format!(
                "scan: {dropped} of {} items were dropped as nonsense, the first: {}",
                self.told, self.first_fault
            );
            tracing::warn!(source, plugin, "{message}");
            message
        })
    }

    fn take(&mut self, item: impl FnOnce() -> Result<Item, convert::Nonsense>) -> i32 {
        if self.call.is_cancelled() {
            return ErrorCode::Cancelled as i32;
        }
        self.call.progress();
        self.told = self.told.saturating_add(1);
        match item() {
            Ok(item) => {
                if self.batch.is_empty() {
                    self.batch_began = Instant::now();
                }
                self.batch_bytes = self.batch_bytes.saturating_add(bytes_of(&item));
                self.batch.push(item);
            }
            Err(nonsense) => self.drop_item(&nonsense),
        }
        let full = self.batch.len() >= BATCH || self.batch_bytes >= BATCH_BYTES;
        if full || self.batch_began.elapsed() >= BATCH_AGE {
            return self.flush();
        }
        abi::OK
    }

    fn drop_item(&mut self, nonsense: &convert::Nonsense) {
        self.dropped = self.dropped.saturating_add(1);
        let fault = format!("{:?}: {}", nonsense.id, nonsense.what);
        if self.dropped <= LOGGED {
            let (source, plugin) = (self.source, self.plugin);
            tracing::warn!(source, plugin, "the plugin told nonsense, which is dropped: {fault}");
        }
        if self.dropped == 1 {
            self.first_fault = fault;
        }
    }

    /// Passes the batch on. The deadline stands still while the receiver is slow.
    fn flush(&mut self) -> i32 {
        if self.batch.is_empty() {
            return abi::OK;
        }
        let batch = mem::take(&mut self.batch);
        self.batch_bytes = 0;
        self.call.pause();
        let sent = self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.call.cancelled() => false,
                sent = self.items.send(batch) => sent.is_ok(),
            }
        });
        self.call.progress();
        if sent { abi::OK } else { ErrorCode::Cancelled as i32 }
    }
}

/// About how much memory an item takes.
fn bytes_of(item: &Item) -> usize {
    let keys = |keys: &[JoinKey]| keys.iter().map(|key| key.value.len().saturating_add(32)).sum::<usize>();
    let held = match item {
        Item::Media(media) => {
            let text = [&media.id, &media.version, &media.media_type, &media.state_reason];
            let name = media.preferred_name.as_ref().map_or(0, String::len);
            text.iter().map(|text| text.len()).sum::<usize>()
                + name
                + media.header_patch.len()
                + keys(&media.keys)
        }
        Item::MediaGone(id) => id.len(),
        Item::Facts(facts) => {
            let values = facts.values.iter().map(|(key, value)| key.len() + value.len() + 48);
            facts.id.len() + keys(&facts.keys) + values.sum::<usize>()
        }
    };
    held.saturating_add(mem::size_of::<Item>())
}
