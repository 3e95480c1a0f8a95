//! Names, days and index rows: pure functions, no I/O, no clock.
//!
//! - [`UtcDay`], [`UtcSecond`]: where a recording lies (`S20160606/`), always UTC;
//! - [`LocalDay`], [`TenantZone`]: which root index (`Index/I20160606.csv`) names it, always the tenant's zone;
//! - [`RecordingName`], [`Extension`]: `R201606060001170000.wav`, both ways;
//! - [`IndexRow`], [`IndexLine`], [`IndexKind`]: the rows of the index files, both ways.
//!
//! All of it covers the instants from 1970-01-01T00:00:00Z to 9999-12-31T23:59:59.999Z: eight digits name a date.

mod day;
mod index;
mod name;
mod zone;

#[cfg(test)]
mod vectors;

pub use day::{LocalDay, UtcDay, UtcSecond};
pub use index::{IndexKind, IndexLine, IndexRow, append_row, header, text_cell};
pub use name::{Extension, ExtensionError, NameForm, RecordingName};
pub use zone::{LocalTime, TenantZone, ZoneError};
