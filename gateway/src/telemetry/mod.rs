//! Logs, metrics, health.
//!
//! Logs go to standard error: as text for people or as one JSON object a line. Metrics and health are asked for over
//! HTTP, see [`watch`].

use std::{backtrace::Backtrace, panic::PanicHookInfo, sync::OnceLock};

use tracing_subscriber::{
    EnvFilter, Registry, fmt,
    layer::{Layer, SubscriberExt},
    reload,
    util::SubscriberInitExt,
};

use crate::config::Log;

mod metrics;
mod pulse;
pub mod watch;

pub use metrics::*;
pub use pulse::Pulse;

/// The running filter, which a reload of the configuration replaces.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Why logging can't be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The filter can't be read.
    #[error("the log filter \"{filter}\" can't be read: {reason}")]
    Filter {
        /// What was configured.
        filter: String,
        /// What tracing said.
        reason: String,
    },
    /// There is a subscriber already: a defect, or a second call.
    #[error("logging is set up already")]
    Twice,
}

/// Sets up logging for the whole process, and a hook that logs panics like anything else that fails.
///
/// # Errors
/// A filter that can't be read; a second call.
pub fn init(log: &Log) -> Result<(), TelemetryError> {
    let (filter, handle) = reload::Layer::new(parsed(&log.filter)?);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = if log.json {
        lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
    } else {
        // Escape sequences would only be in the way in files and in the system's journal.
        lines.with_ansi(rustix::termios::isatty(std::io::stderr())).boxed()
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|_| TelemetryError::Twice)?;
    let _ = FILTER.set(handle);
    std::panic::set_hook(Box::new(log_panic));
    // They count from here: the start of the process.
    metrics();
    Ok(())
}

/// Replaces the filter of a process whose logging is set up; otherwise does nothing.
///
/// # Errors
/// A filter that can't be read; the old one stays.
pub fn set_filter(filter: &str) -> Result<(), TelemetryError> {
    let filter = parsed(filter)?;
    if let Some(handle) = FILTER.get() {
        handle.reload(filter).map_err(|_| TelemetryError::Twice)?;
    }
    Ok(())
}

fn parsed(filter: &str) -> Result<EnvFilter, TelemetryError> {
    filter
        .parse()
        .map_err(|error| TelemetryError::Filter { filter: filter.to_owned(), reason: format!("{error}") })
}

fn log_panic(info: &PanicHookInfo<'_>) {
    metrics().panicked();
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    let backtrace = Backtrace::capture();
    tracing::error!(
        target: "recgate::panic",
        message = panic_message(info.payload()),
        place,
        thread,
        %backtrace,
    );
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned());
    format!("panic: {}", text.as_deref().unwrap_or("without a message"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn a_bad_filter_is_named() {
        let error = init(&Log { json: false, filter: "recgate=loud".to_owned() }).unwrap_err();
        assert!(error.to_string().starts_with("the log filter \"recgate=loud\" can't be read"), "{error}");
        assert!(set_filter("recgate=loud").is_err());
    }

    #[test]
    fn panics_tell_their_message() {
        for (payload, text) in [
            (Box::new("static") as Box<dyn std::any::Any + Send>, "panic: static"),
            (Box::new("owned".to_owned()), "panic: owned"),
            (Box::new(7_u8), "panic: without a message"),
        ] {
            assert_eq!(panic_message(payload.as_ref()), text);
        }
    }
}
