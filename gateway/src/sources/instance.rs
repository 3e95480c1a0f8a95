//! One configured source: its calls.

#![expect(unsafe_code, reason = "calls a plugin's functions")]

use std::{
    any::Any,
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use async_trait::async_trait;
use bytes::Bytes;
use recgate_plugin_api::{
    Capabilities, Error, ErrorCode, Health, Item, Media, ScanEnd,
    abi::{
        self, CURSOR_MAX, ID_MAX, Prefixed as _, RgBytes, RgCall, RgCapabilities, RgError, RgHandle,
        RgHealth, RgInstance, RgItem, RgScanEnd, RgScanFrom, RgStr,
    },
};
use tokio::sync::mpsc;

use super::{
    CallLimits, Live, MediaSource, OpenMedia, Plugin, ScanStart, SourceError, SourceStatus, convert,
    convert::{Nonsense, internal},
    pool::{ABANDONED_MAX, Call, Lane, Pool},
    scan::Sink,
    watch,
};

/// Calls at once where neither plugin nor configuration says anything, and at most.
const CALLS_DEFAULT: usize = 8;
const CALLS_MAX: usize = 64;
/// Bytes of one read.
const READ_MAX: usize = 64 << 20;

/// One configured source.
pub struct Instance {
    core: Arc<Core>,
}

/// What every call holds: the plugin's instance is destroyed when nobody holds it any more.
pub(super) struct Core {
    name: Arc<str>,
    plugin: Arc<Plugin>,
    instance: InstancePtr,
    capabilities: Capabilities,
    /// It can be watched.
    watches: bool,
    pool: Arc<Pool>,
    last_error: Mutex<Option<String>>,
}

#[derive(Clone, Copy)]
struct InstancePtr(*mut RgInstance);

// SAFETY: the header promises that an instance may be used from any thread, at once.
unsafe impl Send for InstancePtr {}
// SAFETY: as above.
unsafe impl Sync for InstancePtr {}

#[derive(Clone, Copy)]
struct HandlePtr(*mut RgHandle);

// SAFETY: the header promises that a handle may be used from any thread, at once.
unsafe impl Send for HandlePtr {}
// SAFETY: as above.
unsafe impl Sync for HandlePtr {}

impl Instance {
    /// Makes an instance, on the thread of the caller.
    pub(super) fn create(
        plugin: Arc<Plugin>,
        name: Arc<str>,
        settings: &str,
        limits: CallLimits,
    ) -> Result<Arc<Self>, Error> {
        let create = needed(plugin.table().create)?;
        let mut instance = ptr::null_mut();
        let mut error = RgError::empty();
        // SAFETY: text and pointers live for the call and are as the header describes.
        let code = unsafe { create(RgStr::new(settings), &mut instance, &mut error) };
        outcome(&plugin, &name, "create", code, &error)?;
        if instance.is_null() {
            return Err(internal("create says that all is well, and made no instance"));
        }
        let instance = InstancePtr(instance);
        let told = ask_capabilities(&plugin, &name, instance);
        let (capabilities, watches) = told.clone().unwrap_or_default();
        let asked = match capabilities.max_concurrent_calls as usize {
            0 => CALLS_DEFAULT,
            asked => asked,
        };
        let allowed = if limits.max_calls == 0 { CALLS_MAX } else { limits.max_calls.min(CALLS_MAX) };
        let pool = Pool::new(Arc::clone(&name), limits.timeout, asked.min(allowed));
        let last_error = Mutex::new(None);
        let core = Arc::new(Core { name, plugin, instance, capabilities, watches, pool, last_error });
        // With an error, the core is dropped and the instance destroyed.
        told?;
        Ok(Arc::new(Self { core }))
    }

    /// Takes no more calls and cancels those that run. Open media can't be read any more.
    pub fn close(&self) {
        self.core.pool.close();
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = &*self.core.name;
        f.debug_struct("Instance").field("name", &name).field("plugin", &self.core.plugin.name()).finish()
    }
}

/// What the instance can do, and whether it can be watched.
fn ask_capabilities(
    plugin: &Plugin,
    name: &str,
    instance: InstancePtr,
) -> Result<(Capabilities, bool), Error> {
    let capabilities = needed(plugin.table().capabilities)?;
    let mut out = RgCapabilities::empty();
    let mut error = RgError::empty();
    // SAFETY: the instance lives; pointers live for the call and are as the header describes.
    let code = unsafe { capabilities(instance.0, &mut out, &mut error) };
    outcome(plugin, name, "capabilities", code, &error)?;
    let refused = |what| Error::new(ErrorCode::Unsupported, what);
    let told = whole(out)?;
    let capabilities = convert::capabilities(&told, plugin.abi_minor()).map_err(refused)?;
    let watches = told.bits & abi::CAP_WATCH != 0;
    if watches && plugin.table().watch.is_none() {
        return Err(refused("it declares RG_CAP_WATCH, and its table has no `watch`".to_owned()));
    }
    Ok((capabilities, watches))
}

#[async_trait]
impl MediaSource for Instance {
    fn name(&self) -> &str {
        &self.core.name
    }

    fn capabilities(&self) -> Capabilities {
        self.core.capabilities.clone()
    }

    fn status(&self) -> SourceStatus {
        let load = self.core.pool.load();
        SourceStatus {
            available: load.abandoned < ABANDONED_MAX && !load.closed,
            running_calls: load.running,
            abandoned_calls: load.abandoned,
            last_error: self.core.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    fn remains(&self) -> Weak<dyn Any + Send + Sync> {
        let pool: Weak<Pool> = Arc::downgrade(&self.core.pool);
        pool
    }

    async fn health(&self) -> Result<Health, SourceError> {
        self.core.call(Lane::Calls, "health", Core::health).await
    }

    async fn scan(&self, from: ScanStart, items: mpsc::Sender<Vec<Item>>) -> Result<ScanEnd, SourceError> {
        let runtime = tokio::runtime::Handle::current();
        let body = move |core: &Arc<Core>, call: &Arc<Call>| core.scan(call, &from, items, runtime);
        self.core.call(Lane::Scans, "scan", body).await
    }

    fn watches(&self) -> bool {
        self.core.watches
    }

    async fn watch(&self, told: mpsc::Sender<Live>) -> Result<(), SourceError> {
        let runtime = tokio::runtime::Handle::current();
        let body = move |core: &Arc<Core>, call: &Arc<Call>| core.watch(call, told, runtime);
        self.core.call(Lane::Watch, "watch", body).await
    }

    async fn stat(&self, id: &str, version: Option<&str>) -> Result<Media, SourceError> {
        let (id, version) = (id.to_owned(), version.map(str::to_owned));
        let body = move |core: &Arc<Core>, call: &Arc<Call>| core.stat(call, &id, version.as_deref());
        self.core.call(Lane::Calls, "stat", body).await
    }

    async fn open(&self, id: &str, version: &str) -> Result<Arc<dyn OpenMedia>, SourceError> {
        Ok(self.open_with_first(id, version, 0).await?.0)
    }

    async fn open_with_first(
        &self,
        id: &str,
        version: &str,
        len: usize,
    ) -> Result<(Arc<dyn OpenMedia>, Option<Bytes>), SourceError> {
        let (id, version) = (id.to_owned(), version.to_owned());
        let body = move |core: &Arc<Core>, call: &Arc<Call>| {
            let handle = core.open(call, &id, &version)?;
            let first = match len {
                0 => None,
                _ => handle.read(call, 0, len.min(READ_MAX)).ok().filter(|first| first.len() == len),
            };
            Ok((handle, first))
        };
        let (handle, first) = self.core.call(Lane::Calls, "open", body).await?;
        Ok((Arc::new(Medium { handle: Arc::new(handle) }), first))
    }
}

impl Core {
    async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        lane: Lane,
        what: &'static str,
        body: impl FnOnce(&Arc<Self>, &Arc<Call>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, SourceError> {
        let core = Arc::clone(self);
        let result = self.pool.call(lane, what, move |call| body(&core, call)).await;
        result.map_err(|error| self.failed(what, error))
    }

    fn failed(&self, what: &str, error: Error) -> SourceError {
        // What says something of one medium or one caller says nothing of the source.
        let of_the_source = !matches!(
            error.code,
            ErrorCode::NotFound
                | ErrorCode::Precondition
                | ErrorCode::Range
                | ErrorCode::Invalid
                | ErrorCode::Cancelled
                | ErrorCode::Archived
                | ErrorCode::LockedRetention
                | ErrorCode::LockedHold
        ) && (what, error.code) != ("watch", ErrorCode::Unsupported);
        if of_the_source {
            let (source, plugin) = (&*self.name, self.plugin.name());
            tracing::warn!(source, plugin, call = what, code = ?error.code, "{}", error.message);
            self.remember(format!("{what}: {error}"));
        }
        SourceError { source_name: Arc::clone(&self.name), error }
    }

    fn remember(&self, error: String) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    fn outcome(&self, what: &str, code: i32, error: &RgError) -> Result<(), Error> {
        outcome(&self.plugin, &self.name, what, code, error)
    }

    fn health(self: &Arc<Self>, call: &Arc<Call>) -> Result<Health, Error> {
        let health = needed(self.plugin.table().health)?;
        let mut out = RgHealth::empty();
        let mut error = RgError::empty();
        // SAFETY: the instance lives as long as `self`; the rest lives for the call and is as the header describes.
        let code = unsafe { health(self.instance.0, &rg_call(call), &mut out, &mut error) };
        self.outcome("health", code, &error)?;
        convert::health(&whole(out)?).map_err(|what| internal(format!("health answered nonsense: {what}")))
    }

    fn scan(
        self: &Arc<Self>,
        call: &Arc<Call>,
        from: &ScanStart,
        items: mpsc::Sender<Vec<Item>>,
        runtime: tokio::runtime::Handle,
    ) -> Result<ScanEnd, Error> {
        let scan = needed(self.plugin.table().scan)?;
        let (kind, cursor) = match from {
            ScanStart::Full => (abi::SCAN_FULL, &[][..]),
            ScanStart::Since(cursor) => (abi::SCAN_SINCE, cursor.as_slice()),
        };
        if cursor.len() > CURSOR_MAX {
            let message =
                format!("a cursor of {} bytes is no plugin's, {CURSOR_MAX} is the most", cursor.len());
            return Err(Error::new(ErrorCode::Invalid, message));
        }
        let from = RgScanFrom { kind, cursor: RgBytes::new(cursor), ..RgScanFrom::empty() };
        let mut sink = Sink::new(&self.name, self.plugin.name(), call, items, runtime);
        let mut out = RgScanEnd::empty();
        let mut error = RgError::empty();
        let ctx = ptr::from_mut(&mut sink).cast();
        // SAFETY: the instance lives as long as `self`; `scan::emit` is made for this context; the rest lives for the
        // call and is as the header describes.
        let code = unsafe {
            scan(self.instance.0, &rg_call(call), &from, super::scan::emit, ctx, &mut out, &mut error)
        };
        if let Some(dropped) = sink.report() {
            self.remember(dropped);
        }
        self.outcome("scan", code, &error)?;
        sink.finish()?;
        let told = sink.told();
        let end = convert::scan_end(&whole(out)?);
        let end = end.map_err(|what| internal(format!("scan ended with nonsense: {what}")))?;
        if !end.complete && told == 0 && end.cursor == cursor {
            return Err(internal("scan says that there is more, tells nothing and stays where it is"));
        }
        Ok(end)
    }

    fn watch(
        self: &Arc<Self>,
        call: &Arc<Call>,
        told: mpsc::Sender<Live>,
        runtime: tokio::runtime::Handle,
    ) -> Result<(), Error> {
        if !self.watches {
            return Err(Error::new(ErrorCode::Unsupported, "the plugin can't watch this source"));
        }
        let watch = needed(self.plugin.table().watch)?;
        let reported = |fault| self.remember(fault);
        let mut sink = watch::Sink::new(&self.name, self.plugin.name(), call, told, runtime, &reported);
        let mut error = RgError::empty();
        let ctx = ptr::from_mut(&mut sink).cast();
        // SAFETY: the instance lives as long as `self`; `watch::emit` is made for this context; the rest lives for the
        // call and is as the header describes.
        let code = unsafe { watch(self.instance.0, &rg_call(call), watch::emit, ctx, &mut error) };
        self.outcome("watch", code, &error)
    }

    fn stat(self: &Arc<Self>, call: &Arc<Call>, id: &str, version: Option<&str>) -> Result<Media, Error> {
        check_id(id, "id")?;
        check_id(version.unwrap_or("-"), "version")?;
        let stat = needed(self.plugin.table().stat)?;
        let mut told = Told(None);
        let mut error = RgError::empty();
        let wanted = version.map_or(RgStr::EMPTY, RgStr::new);
        let ctx = ptr::from_mut(&mut told).cast();
        // SAFETY: the instance lives as long as `self`; `emit_one` is made for this context; the rest lives for the
        // call and is as the header describes.
        let code = unsafe {
            stat(self.instance.0, &rg_call(call), RgStr::new(id), wanted, emit_one, ctx, &mut error)
        };
        self.outcome("stat", code, &error)?;
        let media = match told.0 {
            Some(Ok(Item::Media(media))) if media.id == id => media,
            Some(Ok(Item::Media(other))) => {
                return Err(internal(format!("stat of {id:?} told the medium {:?}", other.id)));
            }
            Some(Ok(_)) => {
                return Err(internal(format!("stat of {id:?} told something that isn't a medium")));
            }
            Some(Err(nonsense)) => {
                return Err(internal(format!("stat of {id:?} told nonsense: {}", nonsense.what)));
            }
            None => return Err(internal(format!("stat of {id:?} says that all is well, and told nothing"))),
        };
        match version {
            Some(wanted) if wanted != media.version => {
                let message = format!("{id:?} has version {:?} by now, not {wanted:?}", media.version);
                Err(Error::new(ErrorCode::Precondition, message))
            }
            _ => Ok(media),
        }
    }

    fn open(self: &Arc<Self>, call: &Arc<Call>, id: &str, version: &str) -> Result<Handle, Error> {
        check_id(id, "id")?;
        check_id(version, "version")?;
        let open = needed(self.plugin.table().open)?;
        let mut handle = ptr::null_mut();
        let mut error = RgError::empty();
        // SAFETY: the instance lives as long as `self`; the rest lives for the call and is as the header describes.
        let code = unsafe {
            let (id, version) = (RgStr::new(id), RgStr::new(version));
            open(self.instance.0, &rg_call(call), id, version, &mut handle, &mut error)
        };
        self.outcome("open", code, &error)?;
        if handle.is_null() {
            return Err(internal(format!("open of {id:?} says that all is well, and opened nothing")));
        }
        Ok(Handle { core: Arc::clone(self), handle: HandlePtr(handle) })
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let Some(destroy) = self.plugin.table().destroy else { return };
        let instance = self.instance;
        self.pool.finish(move || {
            let instance = instance;
            // SAFETY: every call and every handle holds the core, so none is left; this runs once.
            unsafe { destroy(instance.0) };
        });
    }
}

/// An open handle; every read holds it, and it is closed when the last lets go.
struct Handle {
    core: Arc<Core>,
    handle: HandlePtr,
}

impl Handle {
    fn read(&self, call: &Arc<Call>, offset: u64, len: usize) -> Result<Bytes, Error> {
        let read_at = needed(self.core.plugin.table().read_at)?;
        let mut buffer = vec![0; len];
        let mut got = 0;
        let mut error = RgError::empty();
        // SAFETY: instance and handle live as long as `self`; the buffer is this call's own; the rest lives for the
        // call and is as the header describes.
        let code = unsafe {
            let (instance, handle) = (self.core.instance.0, self.handle.0);
            let (buf, len) = (buffer.as_mut_ptr(), len as u64);
            read_at(instance, &rg_call(call), handle, offset, buf, len, &mut got, &mut error)
        };
        self.core.outcome("read_at", code, &error)?;
        match usize::try_from(got) {
            Ok(got) if got <= len => {
                buffer.truncate(got);
                Ok(buffer.into())
            }
            _ => Err(internal(format!("read_at says that it put {got} bytes into a buffer of {len}"))),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let Some(close) = self.core.plugin.table().close else { return };
        let (core, handle) = (Arc::clone(&self.core), self.handle);
        self.core.pool.run_later(move || {
            let handle = handle;
            // SAFETY: every read holds the handle, so none is left; the instance lives as long as the core; this runs
            // once.
            unsafe { close(core.instance.0, handle.0) };
        });
    }
}

/// A handle, as the reader of media sees it.
struct Medium {
    handle: Arc<Handle>,
}

#[async_trait]
impl OpenMedia for Medium {
    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, SourceError> {
        if len == 0 {
            return Ok(Bytes::new());
        }
        let core = &self.handle.core;
        if len > READ_MAX || offset.checked_add(len as u64).is_none() {
            let message = format!("a read of {len} bytes at {offset}: {READ_MAX} bytes is the most");
            return Err(core.failed("read_at", Error::new(ErrorCode::Invalid, message)));
        }
        let handle = Arc::clone(&self.handle);
        core.call(Lane::Calls, "read_at", move |_, call| handle.read(call, offset, len)).await
    }
}

/// What stat told; the first counts, and it may tell one.
struct Told(Option<Result<Item, Nonsense>>);

unsafe extern "C" fn emit_one(ctx: *mut c_void, item: *const RgItem) -> i32 {
    // SAFETY: the header demands of plugins that the item lives for the call.
    let told = catch_unwind(AssertUnwindSafe(|| unsafe { convert::item(item) }));
    // SAFETY: the context that `Core::stat` gave, which waits for the call.
    let Some(room) = (unsafe { ctx.cast::<Told>().as_mut() }) else { return ErrorCode::Internal as i32 };
    let again = room.0.is_some();
    room.0 = Some(match told {
        _ if again => Err(Nonsense { id: String::new(), what: "more than one medium".to_owned() }),
        Ok(told) => told,
        Err(_) => Err(Nonsense { id: String::new(), what: "the host failed to read it".to_owned() }),
    });
    abi::OK
}

/// The C form of a call; lives no longer than the call.
fn rg_call(call: &Arc<Call>) -> RgCall {
    RgCall { ctx: Arc::as_ptr(call).cast_mut().cast(), is_cancelled: Some(is_cancelled), ..RgCall::empty() }
}

unsafe extern "C" fn is_cancelled(ctx: *mut c_void) -> u32 {
    // SAFETY: the context of `rg_call`, which lives for the plugin's call, in which alone this may be called.
    let cancelled = unsafe { ctx.cast::<Call>().as_ref() }.is_none_or(Call::is_cancelled);
    cancelled.into()
}

fn outcome(plugin: &Plugin, source: &str, what: &str, code: i32, error: &RgError) -> Result<(), Error> {
    if code == abi::OK {
        return Ok(());
    }
    let error = convert::error(code, error);
    if error.code == ErrorCode::Panic {
        let plugin = plugin.name();
        tracing::error!(source, plugin, call = what, "the plugin panicked: {}", error.message);
    }
    Err(error)
}

/// A struct that the plugin filled; what it says it has not filled is zero.
fn whole<T: abi::Prefixed>(out: T) -> Result<T, Error> {
    let mut out = out;
    let size = ptr::from_mut(&mut out).cast::<u32>();
    // SAFETY: such a type begins with its struct_size; the struct is ours and whole, so it says no more than that.
    unsafe {
        size.write(size.read().min(size_of::<T>() as u32));
        abi::read_prefix(&out)
    }
    .map_err(|e| internal(format!("the plugin filled a struct and gave it {e}")))
}

fn check_id(id: &str, what: &str) -> Result<(), Error> {
    if id.is_empty() || id.len() > ID_MAX {
        let message = format!("the {what} has {} bytes; 1 to {ID_MAX} are possible", id.len());
        return Err(Error::new(ErrorCode::Invalid, message));
    }
    Ok(())
}

/// A function of the table. Loading has checked that it is there.
fn needed<F>(function: Option<F>) -> Result<F, Error> {
    function.ok_or_else(|| internal("a needed function is missing"))
}
