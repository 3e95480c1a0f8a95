//! What the gateway offers to a plugin: the log and the clock.

#![expect(unsafe_code, reason = "functions that plugins call")]

use std::{
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use recgate_plugin_api::{
    Level,
    abi::{ABI_MINOR, Prefixed as _, RgHost, RgStr},
};

use super::{convert, pool};

/// Lines that a plugin may log in [`WINDOW`].
const LINES: u32 = 200;
const WINDOW: Duration = Duration::from_secs(10);
/// Bytes of a line that are kept.
const LINE_MAX: usize = 2048;
const TARGET_MAX: usize = 64;

/// The host of one plugin; lives for ever, as the plugin does.
struct Context {
    plugin: String,
    window: Mutex<Window>,
}

struct Window {
    began: Instant,
    lines: u32,
}

/// The table that a plugin gets. It is leaked: the plugin may keep it for ever.
pub(super) fn table(plugin: &str, abi_minor: u32) -> &'static RgHost {
    let window = Mutex::new(Window { began: Instant::now(), lines: 0 });
    let context: &'static Context = Box::leak(Box::new(Context { plugin: plugin.to_owned(), window }));
    Box::leak(Box::new(RgHost {
        abi_minor: abi_minor.min(ABI_MINOR),
        ctx: ptr::from_ref(context).cast_mut().cast(),
        log: Some(log),
        now_ms: Some(now_ms),
        ..RgHost::empty()
    }))
}

impl Context {
    fn log(&self, level: u32, target: &str, message: &str) {
        let Some(suppressed) = self.admit() else { return };
        let (plugin, source) = (self.plugin.as_str(), pool::current_source());
        let source = source.as_deref().unwrap_or("");
        if suppressed > 0 {
            tracing::warn!(plugin, suppressed, "the plugin logs too much; lines were dropped");
        }
        match level {
            l if l == Level::Error as u32 => tracing::error!(plugin, source, target, "{message}"),
            l if l == Level::Warn as u32 => tracing::warn!(plugin, source, target, "{message}"),
            l if l == Level::Info as u32 => tracing::info!(plugin, source, target, "{message}"),
            l if l == Level::Debug as u32 => tracing::debug!(plugin, source, target, "{message}"),
            _ => tracing::trace!(plugin, source, target, "{message}"),
        }
    }

    /// Whether a line may pass, and how many were dropped before it.
    fn admit(&self) -> Option<u32> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let mut suppressed = 0;
        if window.began.elapsed() >= WINDOW {
            suppressed = window.lines.saturating_sub(LINES);
            *window = Window { began: Instant::now(), lines: 0 };
        }
        window.lines = window.lines.saturating_add(1);
        (window.lines <= LINES).then_some(suppressed)
    }
}

unsafe extern "C" fn log(ctx: *mut c_void, level: u32, target: RgStr, message: RgStr) {
    // Nothing may unwind into the plugin.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the context that `table` gave, which is never freed.
        let Some(context) = (unsafe { ctx.cast::<Context>().as_ref() }) else { return };
        // SAFETY: the header demands of plugins that the texts live for the call.
        let (target, message) =
            unsafe { (convert::text_lossy(target, TARGET_MAX), convert::text_lossy(message, LINE_MAX)) };
        context.log(level, &target, &message);
    }));
}

unsafe extern "C" fn now_ms(_: *mut c_void) -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chatty_plugin_is_cut_off() {
        let window = Mutex::new(Window { began: Instant::now(), lines: 0 });
        let context = Context { plugin: "chatty".to_owned(), window };
        let passed = (0..1000).filter(|_| context.admit().is_some()).count();
        assert_eq!(passed, LINES as usize);
        context.window.lock().unwrap_or_else(PoisonError::into_inner).began -= WINDOW;
        assert_eq!(context.admit(), Some(800));
    }

    #[test]
    fn texts_of_the_plugin_are_bounded_and_escaped() {
        let text = "a\u{1b}[31m\nb".repeat(1000);
        // SAFETY: the text lives.
        let shown = unsafe { convert::text_lossy(RgStr::new(&text), LINE_MAX) };
        assert!(shown.starts_with("a\\u{1b}[31m\\nb"), "{shown}");
        assert!(shown.len() < 2 * LINE_MAX && !shown.contains('\n'));
        // SAFETY: NULL is never read.
        assert_eq!(unsafe { convert::text_lossy(RgStr { ptr: ptr::null(), len: 9 }, 10) }, "");
    }
}
