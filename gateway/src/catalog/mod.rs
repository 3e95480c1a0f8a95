//! Recordings, their facts and names, and the indexes about them.
//!
//! One writer changes the catalog, so that names are given in one order; readers never wait for it.
//! A change goes to the index files and to the journal (both fsynced), then to the store, which remembers the
//! number of the last entry that it has applied. What a crash leaves between two of these steps is finished
//! at the next start: bytes beyond an index's committed length don't count, and entries that the store
//! lacks are applied again. Where the store itself is lost, the journal gives names back, and the published
//! index files what they tell.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use tokio::sync::Mutex;

use crate::{
    layout::{LocalDay, UtcDay},
    state::{Journal, JournalError, Store, StoreError},
};

mod apply;
mod entries;
mod erase;
mod index;
mod ingest;
mod join;
mod keys;
mod naming;
mod publish;
mod recover;
mod republish;
mod rows;
mod search;
mod seen;
mod sync;
mod txn;
mod unmatched;

#[cfg(test)]
mod tests;

pub use entries::{Actor, Entry, FactsErased, Learned, Published, Subject};
pub use erase::{ErasedRow, Erasure, KEPT as KEPT_FACTS, is_personal};
pub use index::{IndexPart, Overdue, Turn};
pub use ingest::Ingested;
pub use keys::Place;
pub use publish::applied;
pub use republish::{Indexed, Marked};
pub use rows::{
    Condition, Counts, Details, FactsRow, FolderRow, Frozen, IndexFile, Listed, MediaRow, Recording,
    RootIndexRow, SourceRow, Told,
};
pub use search::{Bounds, Described, Found, Position, Search, SearchPage, State};
pub use sync::{Heard, Progress, Synchroniser, is_ahead};
pub use unmatched::UnmatchedRow;

/// Why the catalog failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// Its store failed.
    #[error("the catalog's store failed: {0}")]
    Store(#[from] StoreError),
    /// The journal refused an entry.
    #[error("the journal failed: {0}")]
    Journal(#[from] JournalError),
    /// A row or entry can't be read or written.
    #[error("the catalog holds something unreadable: {0}")]
    Row(String),
    /// What was told before, and was on its way, could not be kept.
    #[error("something that was told could not be kept: {0}")]
    Lost(String),
    /// An index file can't be read or written.
    #[error("the index file {path}: {source}")]
    Index {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// Told about each entry after it is in the journal, in order.
///
/// Governance implements it: its store is another view of the same journal.
#[async_trait::async_trait]
pub trait View: Send + Sync {
    /// Applies entries; `last` is the number of the last one. A failure is the view's to mend: it knows from its
    /// own count what it lacks.
    async fn apply(&self, entries: &[Entry], last: u64);
}

/// The catalog of all tenants.
pub struct Catalog {
    store: Arc<dyn Store>,
    journal: Arc<Journal>,
    index_dir: PathBuf,
    view: Option<Arc<dyn View>>,
    /// Facts of a source that are kept though they join no medium.
    unmatched_max: u64,
    writer: Mutex<Writer>,
    builds: index::Builds,
}

/// What only the one who holds the lock may use.
#[derive(Default)]
struct Writer {
    /// What is free in seconds and days that were used lately.
    sequences: naming::Sequences,
    /// A batch that gives sequences is being prepared, or was given up before it was sent.
    unsent: bool,
    /// Tenants of which something was erased once, as far as it was looked at.
    erasures: HashMap<u32, bool>,
    /// Tenants of which something is known from index files alone, as far as it was looked at.
    recovered: HashMap<u32, bool>,
    /// The store has applied all that is in the journal, or will have with what is pending.
    caught_up: bool,
    /// What is on its way to the store.
    pending: Option<publish::Pending>,
    /// What could not be kept, by tenant and source.
    lost: HashMap<(u32, u32), publish::Lost>,
}

impl Catalog {
    /// A catalog on its store; [`Catalog::catch_up`] comes next.
    pub fn new(
        store: Arc<dyn Store>,
        journal: Arc<Journal>,
        index_dir: PathBuf,
        view: Option<Arc<dyn View>>,
    ) -> Self {
        let unmatched_max = unmatched::UNMATCHED_MAX;
        let (writer, builds) = (Mutex::default(), index::Builds::default());
        Self { store, journal, index_dir, view, unmatched_max, writer, builds }
    }

    /// Day folders from `from` on, ascending, and where the next page begins.
    pub async fn folders(
        &self,
        tenant: u32,
        from: Option<UtcDay>,
    ) -> Result<(Vec<(UtcDay, FolderRow)>, Option<UtcDay>), CatalogError> {
        let start = from.map_or_else(|| keys::folders(tenant), |day| keys::folder(tenant, day));
        let page = self.store.scan(&keys::folders(tenant), &start, PAGE).await?;
        let rows = days(&page, UtcDay::from_number)?;
        Ok((rows, page.next.as_deref().and_then(keys::day_of).and_then(UtcDay::from_number)))
    }

    /// One day folder; `None` when no recording of that day is published.
    pub async fn folder(&self, tenant: u32, day: UtcDay) -> Result<Option<FolderRow>, CatalogError> {
        self.row(&keys::folder(tenant, day)).await
    }

    /// Published recordings of a day from `from` on, in the order of their names, and where the next page begins.
    pub async fn recordings(
        &self,
        tenant: u32,
        day: UtcDay,
        from: Option<Place>,
    ) -> Result<(Vec<(Place, Listed)>, Option<Place>), CatalogError> {
        let prefix = keys::recordings_of(tenant, day);
        let start = from.map_or_else(|| prefix.clone(), |place| keys::recording(tenant, place));
        let page = self.store.scan(&prefix, &start, PAGE).await?;
        let mut rows = Vec::with_capacity(page.rows.len());
        for row in &page.rows {
            if let Some(place) = keys::place_of_recording(&row.key) {
                rows.push((place, Recording::decode_listed(&row.value)?));
            }
        }
        Ok((rows, page.next.as_deref().and_then(keys::place_of_recording)))
    }

    /// One published recording.
    pub async fn recording(&self, tenant: u32, place: Place) -> Result<Option<Recording>, CatalogError> {
        self.row(&keys::recording(tenant, place)).await
    }

    /// Root indexes from `from` on, published or not, and where the next page begins.
    pub async fn root_indexes(
        &self,
        tenant: u32,
        from: Option<LocalDay>,
    ) -> Result<(Vec<(LocalDay, RootIndexRow)>, Option<LocalDay>), CatalogError> {
        let start = from.map_or_else(|| keys::root_indexes(tenant), |day| keys::root_index(tenant, day));
        let page = self.store.scan(&keys::root_indexes(tenant), &start, PAGE).await?;
        let rows = days(&page, LocalDay::from_number)?;
        Ok((rows, page.next.as_deref().and_then(keys::day_of).and_then(LocalDay::from_number)))
    }

    /// The root index of a local day.
    pub async fn root_index(&self, tenant: u32, day: LocalDay) -> Result<Option<RootIndexRow>, CatalogError> {
        self.row(&keys::root_index(tenant, day)).await
    }

    /// What is remembered of a source's scans.
    pub async fn source(&self, tenant: u32, source: u32) -> Result<SourceRow, CatalogError> {
        Ok(self.row(&keys::source(tenant, source)).await?.unwrap_or_default())
    }

    /// How many recordings a tenant has.
    pub async fn counts(&self, tenant: u32) -> Result<Counts, CatalogError> {
        let row: Option<rows::TenantRow> = self.row(&keys::tenant(tenant)).await?;
        Ok(row.map(|row| row.counts).unwrap_or_default())
    }

    async fn row<T: serde::de::DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, CatalogError> {
        self.store.get(key).await?.map(|versioned| rows::decode(&versioned.value)).transpose()
    }
}

/// Rows of a page: few enough that a listing stays small, enough that their number doesn't matter.
const PAGE: usize = 512;

fn days<D, T: serde::de::DeserializeOwned>(
    page: &crate::state::Page,
    day: impl Fn(i32) -> Option<D>,
) -> Result<Vec<(D, T)>, CatalogError> {
    let mut rows = Vec::with_capacity(page.rows.len());
    for row in &page.rows {
        if let Some(day) = keys::day_of(&row.key).and_then(&day) {
            rows.push((day, rows::decode(&row.value)?));
        }
    }
    Ok(rows)
}
