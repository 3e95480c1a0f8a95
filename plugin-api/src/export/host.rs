//! The host and its calls, seen from the plugin.

use std::{
    ffi::c_void,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    abi::{self, RgCall, RgHost, RgStr},
    sdk::{Call, Host, Level},
    types::{Error, ErrorCode},
};

/// The host of this library: given once, in `rg_plugin_init`, and valid for ever.
static HOST: Mutex<Option<Arc<AbiHost>>> = Mutex::new(None);

/// # Safety
///
/// `host` is NULL or as the header demands of the argument of `rg_plugin_init`.
pub(super) unsafe fn remember(host: *const RgHost) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    let table = unsafe { abi::read_prefix(host) }.map_err(|e| super::invalid("rg_plugin_init: host", &e))?;
    *HOST.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(AbiHost { table }));
    Ok(())
}

pub(super) fn remembered() -> Result<Arc<AbiHost>, Error> {
    HOST.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
        .ok_or_else(|| Error::new(ErrorCode::Invalid, "rg_plugin_init was not called"))
}

/// A copy of the host's table.
pub(super) struct AbiHost {
    table: RgHost,
}

// SAFETY: the header promises that the host's functions may be called from any thread at any time with this ctx.
unsafe impl Send for AbiHost {}
// SAFETY: as above.
unsafe impl Sync for AbiHost {}

impl AbiHost {
    /// The smaller of the host's minor and this SDK's.
    pub(super) fn abi_minor(&self) -> u32 {
        self.table.abi_minor.min(abi::ABI_MINOR)
    }

    /// A host that knows nothing but its version.
    #[cfg(test)]
    pub(super) fn of_minor(abi_minor: u32) -> Self {
        Self { table: RgHost { abi_minor, ..abi::Prefixed::empty() } }
    }
}

impl Host for AbiHost {
    fn log(&self, level: Level, target: &str, message: &str) {
        if let Some(log) = self.table.log {
            // SAFETY: the header's promise; both texts live for the call.
            unsafe { log(self.table.ctx, level as u32, RgStr::new(target), RgStr::new(message)) };
        }
    }

    fn now_ms(&self) -> i64 {
        // SAFETY: the header's promise.
        self.table.now_ms.map_or(0, |now_ms| unsafe { now_ms(self.table.ctx) })
    }
}

/// One call; lives until the entry point returns.
pub(super) struct AbiCall {
    ctx: *mut c_void,
    is_cancelled: Option<unsafe extern "C" fn(*mut c_void) -> u32>,
}

impl AbiCall {
    /// # Safety
    ///
    /// `call` is as the header demands, and outlives the value.
    pub(super) unsafe fn new(call: *const RgCall) -> Result<Self, Error> {
        // SAFETY: the caller's promise.
        let call = unsafe { abi::read_prefix(call) }.map_err(|e| super::invalid("call", &e))?;
        Ok(Self { ctx: call.ctx, is_cancelled: call.is_cancelled })
    }
}

impl Call for AbiCall {
    fn is_cancelled(&self) -> bool {
        // SAFETY: the promise of `new`.
        self.is_cancelled.is_some_and(|is_cancelled| unsafe { is_cancelled(self.ctx) } != 0)
    }
}
