//! Log lines of one scan, of which there are never too many.

use recgate_plugin_api::{Host, Level};

const TARGET: &str = "wazo";
/// Warnings that one scan writes in full; the rest are counted.
const WARNINGS: u32 = 20;

/// The log of one scan.
pub(crate) struct Reports<'h> {
    host: &'h dyn Host,
    warned: u32,
}

impl<'h> Reports<'h> {
    pub(crate) fn new(host: &'h dyn Host) -> Self {
        Self { host, warned: 0 }
    }

    /// Something that the operator should look at.
    pub(crate) fn warn(&mut self, message: &str) {
        self.warned = self.warned.saturating_add(1);
        if self.warned <= WARNINGS {
            self.host.log(Level::Warn, TARGET, message);
        }
    }

    /// Something that is normal.
    pub(crate) fn debug(&mut self, message: &str) {
        self.host.log(Level::Debug, TARGET, message);
    }

    /// Says how many warnings were not written.
    pub(crate) fn finish(self) {
        if let Some(unwritten) = self.warned.checked_sub(WARNINGS).filter(|&count| count > 0) {
            self.host.log(
                Level::Warn,
                TARGET,
                &format!("{unwritten} more warnings of this scan are not shown"),
            );
        }
    }
}
