//! Tells calls as they come.

use std::thread;
use std::time::Duration;

use recgate_plugin_api::{Call, Error, Watcher};
use recgate_plugin_common::open::cancelled;

use crate::calls::LONGEST_MS;
use crate::{Synthetic, tell};

/// Between two looks at what is there.
const LOOK: Duration = Duration::from_millis(200);

/// Tells what comes until the call is cancelled. Where calls are there no longer, the host is to scan.
pub(crate) fn run(synthetic: &Synthetic, call: &dyn Call, to: &mut dyn Watcher) -> Result<(), Error> {
    let mut before = synthetic.present()?;
    to.listening()?;
    while !call.is_cancelled() {
        thread::sleep(LOOK);
        let now = synthetic.present()?;
        if now.count < before.count || now.now_ms < before.now_ms {
            to.listening()?;
        }
        // Calls before the first of these had ended when it was looked last.
        let first = synthetic.calls.first_from(before.now_ms.saturating_sub(LONGEST_MS)).min(before.count);
        let end = synthetic.calls.first_from(now.now_ms).min(now.count);
        for number in first..end {
            if call.is_cancelled() {
                return Err(cancelled());
            }
            let invented = synthetic.calls.call(number);
            if now.has(&invented) && !before.has(&invented) {
                tell(&invented, &mut |item| to.tell(item))?;
            }
        }
        before = now;
    }
    Err(cancelled())
}
