//! What the fuzz targets in `tests/fuzz` call; exists with `--cfg fuzzing` and in tests alone.

use chrono_tz::Tz;
use recgate_plugin_api::fact;

use crate::columns::Column;
use crate::facts::{self, Origin};
use crate::names::FileName;
use crate::rows;

/// Reads an index file.
pub fn index(input: &[u8]) {
    let mut last = 0;
    let _ = rows::read(input, &mut |notice| assert!(!notice.is_empty()), &mut |line, row| {
        assert_eq!(line, last + 1);
        last = line;
        let name = row.cell(Column::FileName).unwrap_or_default();
        let Some(medium) = FileName::medium(&name) else { return Ok(()) };
        for zone in [None, Some(Tz::America__Los_Angeles)] {
            let origin = Origin { path: "S20160606/x", medium: &medium, revision: line, zone };
            let told = facts::of(&row, origin, &mut |problem| assert!(!problem.is_empty()));
            assert!(told.values.len() <= 256);
            let mut keys: Vec<_> = told.values.iter().map(|(key, _)| key).collect();
            keys.sort_unstable();
            assert!(keys.windows(2).all(|two| two.first() != two.last()), "a key came twice: {keys:?}");
            for (key, value) in &told.values {
                assert!(!key.is_empty() && key.len() <= 128 && !key.contains(char::is_control), "{key:?}");
                assert!(!value.is_empty() && value.len() <= 8192);
            }
            let ms = |wanted| told.values.iter().find(|(key, _)| key == wanted)?.1.parse::<i64>().ok();
            if let (Some(started), Some(stopped)) = (ms(fact::STARTED_AT), ms(fact::STOPPED_AT)) {
                assert!(
                    0 <= started && started <= stopped && stopped <= 253_402_300_799_999 + 7 * 86_400_000
                );
            }
        }
        Ok(())
    });
}
