//! Takes what a watch tells: checks it, passes it on at once.
//!
//! Nothing is gathered here: what waited for company would be late. The channel is the batch, and when it is full the
//! plugin's thread waits.

#![expect(unsafe_code, reason = "a function that plugins call")]

use std::{ffi::c_void, sync::Arc};

use recgate_plugin_api::{
    ErrorCode,
    abi::{self, RgItem},
};
use tokio::{
    runtime::Handle,
    sync::mpsc::{self, error::TrySendError},
};

use super::{
    Live,
    convert::{self, Nonsense},
    pool::Call,
    scan::contained,
};

/// Faults of one watch that are logged one by one; later ones when their number has doubled.
const LOGGED: u64 = 5;

/// The other end of a watch's emit.
pub(super) struct Sink<'a> {
    source: &'a str,
    plugin: &'a str,
    call: &'a Arc<Call>,
    live: mpsc::Sender<Live>,
    runtime: Handle,
    /// Takes what an operator should know.
    report: &'a dyn Fn(String),
    told: u64,
    dropped: u64,
}

/// The emit of a watch.
///
/// # Safety
///
/// `ctx` points to a [`Sink`] that nobody else uses, `item` is as the header demands.
pub(super) unsafe extern "C" fn emit(ctx: *mut c_void, item: *const RgItem) -> i32 {
    // SAFETY: the caller's promise, twice.
    unsafe { contained(ctx, |sink: &mut Sink<'_>| sink.take(|| convert::live(item))) }
}

impl<'a> Sink<'a> {
    pub(super) fn new(
        source: &'a str,
        plugin: &'a str,
        call: &'a Arc<Call>,
        live: mpsc::Sender<Live>,
        runtime: Handle,
        report: &'a dyn Fn(String),
    ) -> Self {
        Self { source, plugin, call, live, runtime, report, told: 0, dropped: 0 }
    }

    fn take(&mut self, told: impl FnOnce() -> Result<Live, Nonsense>) -> i32 {
        if self.call.is_cancelled() {
            return ErrorCode::Cancelled as i32;
        }
        self.told = self.told.saturating_add(1);
        match told() {
            Ok(live) => self.pass_on(live),
            Err(nonsense) => {
                self.drop_item(&nonsense);
                abi::OK
            }
        }
    }

    fn drop_item(&mut self, nonsense: &Nonsense) {
        self.dropped = self.dropped.saturating_add(1);
        if self.dropped > LOGGED && !self.dropped.is_power_of_two() {
            return;
        }
        let (source, plugin, dropped, told) = (self.source, self.plugin, self.dropped, self.told);
        let fault = format!("{:?}: {}", nonsense.id, nonsense.what);
        tracing::warn!(
            source,
            plugin,
            dropped,
            "the plugin told nonsense while it watched, which is dropped: {fault}"
        );
        (self.report)(format!(
            "watch: {dropped} of {told} items were dropped as nonsense, the last: {fault}"
        ));
    }

    fn pass_on(&mut self, live: Live) -> i32 {
        let live = match self.live.try_send(live) {
            Ok(()) => return abi::OK,
            Err(TrySendError::Closed(_)) => return ErrorCode::Cancelled as i32,
            Err(TrySendError::Full(live)) => live,
        };
        let sent = self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.call.cancelled() => false,
                sent = self.live.send(live) => sent.is_ok(),
            }
        });
        if sent { abi::OK } else { ErrorCode::Cancelled as i32 }
    }
}
