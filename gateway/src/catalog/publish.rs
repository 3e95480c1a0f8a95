//! Recording changes: journal first, store second, other views third; and catching up after a crash.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::{Catalog, CatalogError, Writer, apply, entries::Entry, keys, rows, txn::Txn};
use crate::state::{Batch, Changes, NewEntry, Store, StoreError};

/// A batch on its way to the store.
pub(super) struct Pending {
    changes: Arc<Changes>,
    done: JoinHandle<Result<u64, StoreError>>,
}

/// Batches that the store has refused after all. The journal gives their names back, but facts aren't in it: who has
/// told them must not count them as kept.
#[derive(Default)]
pub(super) struct Lost {
    count: u64,
    last: Option<StoreError>,
}

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

    /// Waits until the store has all that is in the journal.
    pub(super) async fn ensure_caught_up(&self, writer: &mut Writer) -> Result<(), CatalogError> {
        if self.settle_pending(writer).await.is_err() || !writer.caught_up {
            self.replay(writer).await?;
        }
        Ok(())
    }

    /// How many batches the store has refused so far, for [`Catalog::settle`].
    pub(super) async fn lost(&self) -> u64 {
        self.writer.lock().await.lost.count
    }

    /// Waits for what is on its way to the store, if anything is.
    ///
    /// # Errors
    ///
    /// The store has refused a batch, of whomever, since there were so many: what was told since must be told again.
    pub(super) async fn settle(&self, lost_before: u64) -> Result<(), CatalogError> {
        let mut writer = self.writer.lock().await;
        self.ensure_caught_up(&mut writer).await?;
        match &writer.lost {
            Lost { count, last: Some(error) } if *count > lost_before => Err(error.again().into()),
            _ => Ok(()),
        }
    }

    /// What is on its way to the store: who doesn't wait for it has to look there first.
    pub(super) async fn pending(&self, writer: &mut Writer) -> Result<Arc<Changes>, CatalogError> {
        match &writer.pending {
            Some(pending) if writer.caught_up && !pending.done.is_finished() => {
                Ok(Arc::clone(&pending.changes))
            }
            _ => {
                self.ensure_caught_up(writer).await?;
                Ok(Arc::default())
            }
        }
    }

    /// The same, and what came of it is the caller's to know.
    pub(super) async fn settle_pending(&self, writer: &mut Writer) -> Result<(), CatalogError> {
        let Some(pending) = &mut writer.pending else { return Ok(()) };
        let done = (&mut pending.done).await;
        writer.pending = None;
        let stopping = || StoreError::Engine { store: "catalog".into(), detail: "the gateway stops".into() };
        let Err(error) = done.unwrap_or_else(|_| Err(stopping())) else { return Ok(()) };
        writer.caught_up = false;
        writer.lost = Lost { count: writer.lost.count.saturating_add(1), last: Some(error.again()) };
        Err(error.into())
    }

    async fn replay(&self, writer: &mut Writer) -> Result<u64, CatalogError> {
        writer.sequences.clear();
        writer.erasures.clear();
        self.builds.disturb_all();
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
        txn: Txn<'_>,
        entries: &[Entry],
    ) -> Result<(), CatalogError> {
        let batch = self.write_ahead(writer, txn, entries).await?;
        let committed = self.store.commit(batch).await;
        writer.caught_up = committed.is_ok();
        // What the journal has counts, whether the store has it or not.
        self.tell_view(entries, writer).await;
        committed?;
        Ok(())
    }

    /// The same without waiting for the store at the end: the next batch can be prepared meanwhile. What it refuses after
    /// all is applied from the journal by whoever comes next, and [`Catalog::settle`] tells who has more to lose.
    pub(super) async fn record_on(
        &self,
        writer: &mut Writer,
        txn: Txn<'_>,
        entries: &[Entry],
    ) -> Result<(), CatalogError> {
        let batch = self.write_ahead(writer, txn, entries).await?;
        let (store, changes) = (Arc::clone(&self.store), Arc::clone(&batch.changes));
        let done = tokio::spawn(async move { store.commit(batch).await });
        writer.pending = Some(Pending { changes, done });
        writer.caught_up = true;
        self.tell_view(entries, writer).await;
        Ok(())
    }

    /// Writes the entries to the journal, and returns what then goes to the store, which has all that came before.
    async fn write_ahead(
        &self,
        writer: &mut Writer,
        mut txn: Txn<'_>,
        entries: &[Entry],
    ) -> Result<Batch, CatalogError> {
        let lines = entries.iter().map(Entry::to_journal).collect::<Result<Vec<_>, _>>()?;
        // From here until the commit the store is behind; if anything fails in between, or this future is
        // dropped, the next one to hold the lock applies what the journal has.
        writer.caught_up = false;
        // All wait in the journal's queue at once, so that few writes to the disk are enough.
        let appends = portions(lines).into_iter().map(|lines| self.journal.append(lines));
        for appended in futures_util::future::join_all(appends).await {
            writer.last = writer.last.max(appended?.last);
        }
        self.settle_pending(writer).await?;
        self.builds.note(&*self.store, &txn).await?;
        if !entries.is_empty() {
            txn.put(keys::APPLIED.to_vec(), &writer.last)?;
        }
        Ok(txn.into_batch())
    }

    async fn tell_view(&self, entries: &[Entry], writer: &Writer) {
        if let (Some(view), false) = (&self.view, entries.is_empty()) {
            view.apply(entries, writer.last).await;
        }
    }
}

/// Entries in portions that the journal takes at once (512 KiB). Each entry is a change of its own.
fn portions(lines: Vec<NewEntry>) -> Vec<Vec<NewEntry>> {
    let mut portions = vec![Vec::new()];
    let mut bytes = 0;
    for line in lines {
        // The chain's own fields take up to about 300 bytes more.
        let length = line.data().len().saturating_add(512);
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
