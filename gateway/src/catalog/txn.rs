//! Changes being prepared: reads see them before they are committed, and what was read stays in hand.
//!
//! Only the catalog's one writer uses it, so what was read can't change underneath.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use serde::{Serialize, de::DeserializeOwned};

use super::{CatalogError, keys, rows};
use crate::state::{Changes, Store};

/// What a batch changes. Shared between who writes it to the store and who prepares the next one meanwhile.
#[derive(Debug, Clone, Default)]
pub struct Prepared {
    /// The rows.
    pub rows: Arc<Changes>,
    /// The keys of published recordings among them, in order.
    names: Arc<BTreeSet<Vec<u8>>>,
}

/// A prepared batch with its view of the store.
pub struct Txn<'a> {
    store: &'a dyn Store,
    /// A batch that is on its way to the store.
    before: Prepared,
    read: HashMap<Vec<u8>, Option<Bytes>, RandomState>,
    changes: Changes,
    names: BTreeSet<Vec<u8>>,
}

impl<'a> Txn<'a> {
    /// Nothing changed yet.
    pub fn new(store: &'a dyn Store) -> Self {
        Self::after(Prepared::default(), store)
    }

    /// Nothing changed yet, on a store that will have these changes before the ones that are prepared.
    pub fn after(before: Prepared, store: &'a dyn Store) -> Self {
        let (read, changes) = (HashMap::default(), Changes::default());
        Self { store, before, read, changes, names: BTreeSet::new() }
    }

    /// A row that doesn't come from the store.
    fn changed(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        self.changes.get(key).or_else(|| self.before.rows.get(key)).map(Option::as_deref)
    }

    /// Reads many keys at once, for later gets.
    pub async fn prefetch(&mut self, keys: impl IntoIterator<Item = Vec<u8>>) -> Result<(), CatalogError> {
        let mut wanted: Vec<Vec<u8>> = keys
            .into_iter()
            .filter(|key| !self.read.contains_key(key) && self.changed(key).is_none())
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() {
            return Ok(());
        }
        let values = self.store.get_many(&wanted).await?;
        for (key, value) in wanted.into_iter().zip(values) {
            self.read.insert(key, value.map(|versioned| versioned.value));
        }
        Ok(())
    }

    /// A row as it will be after this batch.
    pub async fn get<T: DeserializeOwned>(&mut self, key: &[u8]) -> Result<Option<T>, CatalogError> {
        if let Some(changed) = self.changed(key) {
            return changed.map(rows::decode).transpose();
        }
        if !self.read.contains_key(key) {
            self.prefetch([key.to_vec()]).await?;
        }
        match self.read.get(key) {
            Some(Some(bytes)) => rows::decode(bytes).map(Some),
            _ => Ok(None),
        }
    }

    /// Writes a row.
    pub fn put<T: Serialize>(&mut self, key: Vec<u8>, row: &T) -> Result<(), CatalogError> {
        let value = Bytes::from(rows::encode(row)?);
        if keys::is_recording(&key) && !self.names.contains(&key) {
            self.names.insert(key.clone());
        }
        self.changes.insert(key, Some(value));
        Ok(())
    }

    /// Deletes a row.
    pub fn delete(&mut self, key: Vec<u8>) {
        if matches!(self.read.get(&key), Some(None)) && !self.before.rows.contains_key(&key) {
            // The store has nothing to delete.
            self.changes.remove(&key);
        } else {
            self.changes.insert(key, None);
        }
    }

    /// Says that a row can't be there yet, because something new is part of its key.
    pub fn is_new(&mut self, key: Vec<u8>) {
        self.read.insert(key, None);
    }

    /// Whether there will be a row after this batch.
    pub async fn contains(&mut self, key: &[u8]) -> Result<bool, CatalogError> {
        if let Some(changed) = self.changed(key) {
            return Ok(changed.is_some());
        }
        if !self.read.contains_key(key) {
            self.prefetch([key.to_vec()]).await?;
        }
        Ok(matches!(self.read.get(key), Some(Some(_))))
    }

    /// Keys of published recordings with this prefix from `from` on, as they will be after this batch, and where the next
    /// page begins. The store, the batch on its way to it and this one add at most `limit` each.
    pub async fn names(
        &self,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<(BTreeSet<Vec<u8>>, Option<Vec<u8>>), CatalogError> {
        let page = self.store.scan(prefix, from, limit).await?;
        let mut keys: BTreeSet<Vec<u8>> = page.rows.iter().map(|row| row.key.to_vec()).collect();
        let mut next = page.next;
        for names in [&*self.before.names, &self.names] {
            let mut own = names.range(from.to_vec()..).take_while(|key| key.starts_with(prefix));
            keys.extend(own.by_ref().take(limit).cloned());
            // Nothing is said of what lies behind the end of any of the three.
            let more = own.next().cloned();
            next = match (next, more) {
                (Some(next), Some(more)) => Some(next.min(more)),
                (next, more) => next.or(more),
            };
        }
        if let Some(next) = &next {
            drop(keys.split_off(next));
        }
        Ok((keys, next))
    }

    /// Published recordings with this prefix that are written: key and encoded row.
    pub fn recordings<'b>(&'b self, prefix: &[u8]) -> Vec<(&'b [u8], &'b [u8])> {
        let names = self.names.range(prefix.to_vec()..).take_while(|key| key.starts_with(prefix));
        names.filter_map(|key| Some((key.as_slice(), self.changes.get(key)?.as_deref()?))).collect()
    }

    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// What is to be committed.
    pub fn into_prepared(self) -> Prepared {
        Prepared { rows: Arc::new(self.changes), names: Arc::new(self.names) }
    }

    /// Whether a row was written by the batch that is on its way to the store.
    pub fn is_pending(&self, key: &[u8]) -> bool {
        self.before.rows.contains_key(key)
    }
}
