//! What keeps recordings and what became of them: orphans today; retention, holds and deletion have their
//! place here.
//!
//! The state is a view of the journal's governance chain, in a store of its own. What the store lacks is
//! applied from the journal at start, so nothing stands on the store alone.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::{
    catalog::{CatalogError, Entry, Subject, View},
    state::{Batch, Journal, JournalError, Store, StoreError, write_snapshot},
};

/// Key of the number of the last entry that the store has applied.
const APPLIED: &[u8] = &[0, 0, 0, 0, 0xFF, b'a'];

/// What follows the tenant in a key. Numbers are part of the format on disk.
const ORPHAN: u8 = 1;

/// Why governance failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GovernanceError {
    /// Its store failed.
    #[error("the governance store failed: {0}")]
    Store(#[from] StoreError),
    /// The journal can't be read.
    #[error("the journal failed: {0}")]
    Journal(#[from] JournalError),
    /// An entry or a row can't be read.
    #[error("{0}")]
    Entry(#[from] CatalogError),
    /// A row can't be read or written.
    #[error("the governance store holds something unreadable: {0}")]
    Row(String),
}

/// A recording that no facts claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orphan {
    /// The recording.
    pub uid: uuid::Uuid,
    /// The source's id.
    pub source: u32,
    /// The media's id in the source.
    pub media: String,
}

/// The governed state of all recordings.
pub struct Governance {
    store: Arc<dyn Store>,
    journal: Arc<Journal>,
    /// Held while entries are applied, in their order.
    applying: Mutex<()>,
}

impl Governance {
    /// On its store; [`Governance::catch_up`] comes next.
    pub fn new(store: Arc<dyn Store>, journal: Arc<Journal>) -> Self {
        Self { store, journal, applying: Mutex::default() }
    }

    /// The number of the last entry that the store has applied.
    pub async fn applied(&self) -> Result<u64, GovernanceError> {
        applied(&*self.store).await
    }

    /// Writes what the store holds into a file, so that it can be made anew without the whole journal.
    pub async fn write_snapshot(&self, path: &Path, gateway: Uuid) -> Result<(), GovernanceError> {
        let _applying = self.applying.lock().await;
        write_snapshot(&*self.store, path, gateway).await?;
        Ok(())
    }

    /// Applies what the journal has and the store lacks.
    pub async fn catch_up(&self) -> Result<u64, GovernanceError> {
        let _applying = self.applying.lock().await;
        self.replay().await
    }

    /// The orphans of a tenant, a page from `from` on, and where the next page begins.
    pub async fn orphans(
        &self,
        tenant: u32,
        from: Option<Vec<u8>>,
    ) -> Result<(Vec<Orphan>, Option<Vec<u8>>), GovernanceError> {
        let prefix = orphans_of(tenant);
        let page = self.store.scan(&prefix, from.as_deref().unwrap_or(&prefix), 512).await?;
        let rows = page.rows.iter().map(|row| decode(&row.value)).collect::<Result<Vec<_>, _>>()?;
        Ok((rows, page.next))
    }

    /// At most so many orphans of a tenant, from a uid on, and the uid with which the next page begins.
    pub async fn orphans_from(
        &self,
        tenant: u32,
        from: [u8; 16],
        limit: usize,
    ) -> Result<(Vec<Orphan>, Option<[u8; 16]>), GovernanceError> {
        let page = self.store.scan(&orphans_of(tenant), &orphan(tenant, &from), limit).await?;
        let rows = page.rows.iter().map(|row| decode(&row.value)).collect::<Result<Vec<_>, _>>()?;
        let uid_of = |key: Vec<u8>| key.get(5..).and_then(|uid| uid.try_into().ok());
        Ok((rows, page.next.and_then(uid_of)))
    }

    async fn replay(&self) -> Result<u64, GovernanceError> {
        let mut applied = self.applied().await?;
        let mut count = 0;
        if self.journal.head().sequence <= applied {
            return Ok(0);
        }
        let mut reader = Some(self.journal.read_from(applied.saturating_add(1))?);
        while let Some(current) = reader.take() {
            let (page, rest) = current.page().await?;
            let mut batch = Batch::new();
            for entry in &page {
                if let Some(own) = Entry::from_journal(&entry.kind, &entry.data)? {
                    change(&mut batch, &own)?;
                }
                applied = entry.sequence;
                count += 1;
            }
            if !page.is_empty() {
                batch.put(APPLIED, applied.to_be_bytes());
                self.store.commit(batch).await?;
                reader = Some(rest);
            }
        }
        Ok(count)
    }

    async fn apply_new(&self, entries: &[Entry], last: u64) -> Result<(), GovernanceError> {
        let _applying = self.applying.lock().await;
        let first = last.saturating_sub(entries.len() as u64).saturating_add(1);
        if self.applied().await?.saturating_add(1) != first {
            // Something before these is missing (a commit that failed); the journal has it all.
            self.replay().await?;
            return Ok(());
        }
        let mut batch = Batch::new();
        for entry in entries {
            change(&mut batch, entry)?;
        }
        batch.put(APPLIED, last.to_be_bytes());
        self.store.commit(batch).await?;
        Ok(())
    }
}

#[async_trait]
impl View for Governance {
    async fn apply(&self, entries: &[Entry], last: u64) {
        if let Err(error) = self.apply_new(entries, last).await {
            tracing::error!(%error, "the governance store could not follow the journal; it will be brought up from it");
        }
    }
}

/// The number of the last entry that a governance store has applied.
pub async fn applied(store: &dyn Store) -> Result<u64, GovernanceError> {
    match store.get(APPLIED).await? {
        Some(row) => <[u8; 8]>::try_from(&*row.value)
            .map(u64::from_be_bytes)
            .map_err(|_| GovernanceError::Row("the number of the last entry is not eight bytes".into())),
        None => Ok(0),
    }
}

fn change(batch: &mut Batch, entry: &Entry) -> Result<(), GovernanceError> {
    match entry {
        Entry::Orphaned(Subject { tenant, uid, source, media }) => {
            let row = Orphan { uid: *uid, source: *source, media: media.clone() };
            batch.put(orphan(*tenant, uid.as_bytes()), encode(&row)?);
        }
        // Attached: it has a name now.
        Entry::Published(published) => {
            batch.delete(orphan(published.tenant, published.uid.as_bytes()));
        }
        Entry::Vanished(Subject { tenant, uid, .. }) => {
            batch.delete(orphan(*tenant, uid.as_bytes()));
        }
        Entry::Adopted(_)
        | Entry::Learned(_)
        | Entry::Missing(_)
        | Entry::Returned(_)
        | Entry::Corrupt(_)
        | Entry::FactsErased(_) => {}
    }
    Ok(())
}

fn orphans_of(tenant: u32) -> Vec<u8> {
    let mut key = tenant.to_be_bytes().to_vec();
    key.push(ORPHAN);
    key
}

fn orphan(tenant: u32, uid: &[u8; 16]) -> Vec<u8> {
    let mut key = orphans_of(tenant);
    key.extend_from_slice(uid);
    key
}

/// The format byte of JSON rows.
const FORMAT: u8 = b'j';

fn encode<T: Serialize>(row: &T) -> Result<Vec<u8>, GovernanceError> {
    let mut bytes = vec![FORMAT];
    serde_json::to_writer(&mut bytes, row).map_err(|error| GovernanceError::Row(error.to_string()))?;
    Ok(bytes)
}

fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, GovernanceError> {
    match bytes.split_first() {
        Some((&FORMAT, json)) => {
            serde_json::from_slice(json).map_err(|error| GovernanceError::Row(error.to_string()))
        }
        _ => Err(GovernanceError::Row("a row of a format that this release can't read".into())),
    }
}
