//! Work on the state of a stopped gateway. The caller holds the data folder's lock.

use std::{fmt, path::Path};

use serde::Serialize;

use crate::admin::BackupReport;

/// What was found or done, for people by `Display`, for programs by `Serialize`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Each damage that was found; empty where the state is whole.
    pub damage: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.damage.join("\n"))
    }
}

/// Why the work couldn't be done.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct MaintenanceError(pub String);

/// Checks that the journal's chains are whole and the stores open. Changes nothing.
///
/// # Errors
/// The state can't be read at all.
pub async fn verify(_data_dir: &Path) -> Result<Report, MaintenanceError> {
    Err(MaintenanceError("not put together yet".to_owned()))
}

/// Sets the stores aside and builds them again from the journal.
///
/// # Errors
/// The journal can't be used.
pub async fn rebuild(_data_dir: &Path) -> Result<Report, MaintenanceError> {
    Err(MaintenanceError("not put together yet".to_owned()))
}

/// Copies the state into a folder that is empty or not there yet.
///
/// # Errors
/// The state can't be read, or the copy can't be written.
pub async fn backup(_data_dir: &Path, _directory: &Path) -> Result<BackupReport, MaintenanceError> {
    Err(MaintenanceError("not put together yet".to_owned()))
}

/// Copies a backup into an empty data folder.
///
/// # Errors
/// The backup isn't whole, or can't be copied.
pub async fn restore(_directory: &Path, _data_dir: &Path) -> Result<Report, MaintenanceError> {
    Err(MaintenanceError("not put together yet".to_owned()))
}
