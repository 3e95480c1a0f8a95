//! Recording changes: journal first, store second, other views third; and catching up after a crash.

use super::{Catalog, CatalogError, Writer, apply, entries::Entry, keys, rows, txn::Txn};
use crate::state::{Batch, NewEntry, Store};

impl Catalog {
    /// Applies what the journal has and the store lacks: all of it when the store is new, and then also what the index
    /// files tell. Called at start, before anything else.
    pub async fn catch_up(&self) -> Result<u64, CatalogError> {
        let mut writer = self.writer.lock().await;
        self.note_loss().await?;
        let count = self.replay(&mut writer).await?;
        self.recover(&mut writer).await?;
        Ok(count)
    }

    /// The number of the last entry that the store has applied.
    pub async fn applied(&self) -> Result<u64, CatalogError> {
        applied(&*self.store).await
    }

    pub(super) async fn ensure_caught_up(&self, writer: &mut Writer) -> Result<(), CatalogError> {
        if !writer.caught_up {
            self.replay(writer).await?;
        }
        Ok(())
    }

    async fn replay(&self, writer: &mut Writer) -> Result<u64, CatalogError> {
        writer.sequences.clear();
        writer.erasures.clear();
        writer.recovered.clear();
        // What somebody had queued and didn't wait for is settled first; both queues keep their order.
        self.journal.sync().await?;
        self.store.commit(Batch::new()).await?;
        let mut applied = self.applied().await?;
        let mut count = 0;
        if self.journal.head().sequence > applied {
            let mut reader = Some(self.journal.read_from(applied.saturating_add(1))?);
            while let Some(current) = reader.take() {
                let (page, rest) = current.page().await?;
                let mut txn = Txn::new(&*self.store);
                for entry in &page {
                    if let Some(own) = Entry::from_journal(&entry.kind, &entry.data)? {
                        let at_ms = i64::try_from(entry.at_ms).unwrap_or(i64::MAX);
                        apply::replay(&mut txn, &own, at_ms).await?;
                    }
                    applied = entry.sequence;
                    count += 1;
                }
                if !page.is_empty() {
                    txn.put(keys::APPLIED.to_vec(), &applied)?;
                    self.store.commit(txn.into_batch()).await?;
                    reader = Some(rest);
                }
            }
        }
        writer.caught_up = true;
        Ok(count)
    }

    /// Writes the entries to the journal, then the changes to the store.
    pub(super) async fn record(
        &self,
        writer: &mut Writer,
        mut txn: Txn<'_>,
        entries: &[Entry],
    ) -> Result<(), CatalogError> {
        if entries.is_empty() {
            writer.caught_up = false;
            self.store.commit(txn.into_batch()).await?;
            writer.caught_up = true;
            return Ok(());
        }
        let lines = entries.iter().map(Entry::to_journal).collect::<Result<Vec<_>, _>>()?;
        // From here until the commit the store is behind; if anything fails in between, or this future is
        // dropped, the next one to hold the lock applies what the journal has.
        writer.caught_up = false;
        let mut last = 0;
        for lines in portions(lines) {
            last = self.journal.append(lines).await?.last;
        }
        txn.put(keys::APPLIED.to_vec(), &last)?;
        self.store.commit(txn.into_batch()).await?;
        writer.caught_up = true;
        if let Some(view) = &self.view {
            view.apply(entries, last).await;
        }
        Ok(())
    }
}

/// Entries in portions that the journal takes at once (512 KiB). Each entry is a change of its own.
fn portions(lines: Vec<NewEntry>) -> Vec<Vec<NewEntry>> {
    let mut portions = vec![Vec::new()];
    let mut bytes = 0;
    for line in lines {
        // The chain's own fields take up to about 300 bytes more.
        let length = line.data.to_string().len().saturating_add(512);
        if bytes + length > 384 << 10 {
            portions.push(Vec::new());
            bytes = 0;
        }
        bytes += length;
        if let Some(last) = portions.last_mut() {
            last.push(line);
        }
    }
    portions.retain(|portion| !portion.is_empty());
    portions
}

/// The number of the last entry that a catalog's store has applied.
pub async fn applied(store: &dyn Store) -> Result<u64, CatalogError> {
    match store.get(keys::APPLIED).await? {
        Some(row) => rows::decode(&row.value),
        None => Ok(0),
    }
}
