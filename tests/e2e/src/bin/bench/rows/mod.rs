//! The rows, in groups that share a gateway.

mod scale;
mod sessions;
mod slow;
mod transfers;

use crate::{Bench, report::Report};

/// Rows that are measured together.
pub struct Group {
    pub rows: &'static [&'static str],
    /// Measures those that are asked for.
    pub measure: fn(&Bench, &[&str], &mut Report),
}

/// All rows, in the order of the tables.
pub const GROUPS: &[Group] = &[
    Group { rows: &["aes256-gcm", "aes128-gcm", "chacha20"], measure: transfers::get },
    Group { rows: &["list"], measure: transfers::list },
    Group { rows: &["many-files"], measure: transfers::many_files },
    Group { rows: &["slow-storage"], measure: slow::storage },
    Group { rows: &["sessions"], measure: sessions::many },
    Group { rows: &["idle"], measure: sessions::idle },
    Group { rows: &["slow-readers"], measure: sessions::slow_readers },
    Group { rows: &["prefetch"], measure: sessions::prefetch },
    Group { rows: &["scale"], measure: scale::catalogs },
];

/// The names of all rows.
pub fn names() -> Vec<&'static str> {
    GROUPS.iter().flat_map(|group| group.rows).copied().collect()
}
