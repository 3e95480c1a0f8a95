//! Log lines of one scan, of which there are never too many.

use recgate_plugin_api::{Host, Level};

/// Warnings that one scan writes in full; the rest are counted.
const WARNINGS: u32 = 20;

/// The log of one scan.
pub struct Reports<'h> {
    host: &'h dyn Host,
    target: &'static str,
    warned: u32,
}

impl<'h> Reports<'h> {
    /// An empty log, whose lines are the plugin's of this name.
    pub fn new(host: &'h dyn Host, target: &'static str) -> Self {
        Self { host, target, warned: 0 }
    }

    /// Something that the operator should look at.
    pub fn warn(&mut self, message: &str) {
        self.warned = self.warned.saturating_add(1);
        if self.warned <= WARNINGS {
            self.host.log(Level::Warn, self.target, message);
        }
    }

    /// Something that is normal.
    pub fn debug(&mut self, message: &str) {
        self.host.log(Level::Debug, self.target, message);
    }

    /// Says how many warnings were not written.
    pub fn finish(self) {
        if let Some(unwritten) = self.warned.checked_sub(WARNINGS).filter(|&count| count > 0) {
            self.host.log(
                Level::Warn,
                self.target,
                &format!("{unwritten} more warnings of this scan are not shown"),
            );
        }
    }
}
