//! What doors share: the lines that sessions write to the log, and the way to shut down.

mod drain;
mod session_log;

pub use drain::Drain;
pub use session_log::{SessionLog, Transfer, announce_door};
