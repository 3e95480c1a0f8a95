//! Recording changes: index files and journal first, then the store and other views; and catching up after a crash.

use std::{path::PathBuf, sync::Arc};

use tokio::task::{JoinError, JoinHandle};

use super::{
    Catalog, CatalogError, View, Writer, apply,
    entries::Entry,
    index::{Append, append_all},
    keys, rows,
    txn::{Prepared, Txn},
};
use crate::state::{Batch, Changes, Journal, NewEntry, Store};

/// A batch on its way to the store.
pub(super) struct Pending {
    /// The tenant and the source that have told it; `None` where it is waited for.
    whose: Option<(u32, u32)>,
    prepared: Prepared,
    done: JoinHandle<Result<(), CatalogError>>,
}

/// Batches of a source that were taken and could not be kept after all. The journal may have their names, but facts aren't
/// in it: who has told them must not count them as kept.
#[derive(Default)]
pub(super) struct Lost {
    count: u64,
    /// Why the last one.
    why: String,
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

    /// How many batches of a source could not be kept so far, for [`Catalog::settle`].
    pub(super) async fn lost(&self, tenant: u32, source: u32) -> u64 {
        self.writer.lock().await.lost.get(&(tenant, source)).map_or(0, |lost| lost.count)
    }

    /// Waits for what is on its way to the store, if anything is.
    ///
    /// # Errors
    ///
    /// A batch of the source could not be kept since there were so many: what it has told since must be told again.
    pub(super) async fn settle(
        &self,
        tenant: u32,
        source: u32,
        lost_before: u64,
    ) -> Result<(), CatalogError> {
        let mut writer = self.writer.lock().await;
        self.ensure_caught_up(&mut writer).await?;
        match writer.lost.get(&(tenant, source)) {
            Some(lost) if lost.count > lost_before => Err(CatalogError::Lost(lost.why.clone())),
            _ => Ok(()),
        }
    }

    /// What is on its way to the store: who doesn't wait for it has to look there first. Only the source whose it is does
    /// not wait, so that what can't be kept takes nothing of another one along.
    pub(super) async fn pending(
        &self,
        writer: &mut Writer,
        whose: (u32, u32),
    ) -> Result<Prepared, CatalogError> {
        match &writer.pending {
            Some(Pending { whose: Some(others), prepared, done })
                if *others == whose && writer.caught_up && !done.is_finished() =>
            {
                Ok(prepared.clone())
            }
            _ => {
                self.ensure_caught_up(writer).await?;
                Ok(Prepared::default())
            }
        }
    }

    /// Waits for what is on its way to the store, if anything is. What came of it is the caller's to know, too.
    pub(super) async fn settle_pending(&self, writer: &mut Writer) -> Result<(), CatalogError> {
        let Some(pending) = &mut writer.pending else { return Ok(()) };
        let done = (&mut pending.done).await;
        let whose = pending.whose;
        writer.pending = None;
        let ended = |error: JoinError| {
            let why = if error.is_panic() { "a defect has ended the writing" } else { "the gateway stops" };
            Err(CatalogError::Lost(why.into()))
        };
        let Err(error) = done.unwrap_or_else(ended) else { return Ok(()) };
        writer.caught_up = false;
        if let Some(whose) = whose {
            let lost = writer.lost.entry(whose).or_default();
            *lost = Lost { count: lost.count.saturating_add(1), why: error.to_string() };
        }
        Err(error)
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
                    self.store.commit(Batch::of(txn.into_prepared().rows)).await?;
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
        entries: Vec<Entry>,
    ) -> Result<(), CatalogError> {
        self.send(writer, None, txn, entries, Vec::new()).await?;
        self.settle_pending(writer).await
    }

    /// The same for what a source has told, with these rows for the index files, and without waiting for any of it: the
    /// next batch can be prepared meanwhile. [`Catalog::settle`] tells what came of it.
    pub(super) async fn record_on(
        &self,
        writer: &mut Writer,
        whose: (u32, u32),
        txn: Txn<'_>,
        entries: Vec<Entry>,
        appends: Vec<Append>,
    ) -> Result<(), CatalogError> {
        self.send(writer, Some(whose), txn, entries, appends).await
    }

    async fn send(
        &self,
        writer: &mut Writer,
        whose: Option<(u32, u32)>,
        txn: Txn<'_>,
        entries: Vec<Entry>,
        appends: Vec<Append>,
    ) -> Result<(), CatalogError> {
        self.settle_pending(writer).await?;
        self.builds.note(&*self.store, &txn).await?;
        let prepared = txn.into_prepared();
        let parcel = Parcel {
            store: Arc::clone(&self.store),
            journal: Arc::clone(&self.journal),
            view: self.view.clone(),
            index_dir: self.index_dir.clone(),
            appends,
            entries,
            changes: Arc::clone(&prepared.rows),
        };
        writer.pending = Some(Pending { whose, prepared, done: tokio::spawn(parcel.deliver()) });
        Ok(())
    }
}

/// A batch with all that it needs on its way.
struct Parcel {
    store: Arc<dyn Store>,
    journal: Arc<Journal>,
    view: Option<Arc<dyn View>>,
    index_dir: PathBuf,
    appends: Vec<Append>,
    entries: Vec<Entry>,
    changes: Arc<Changes>,
}

impl Parcel {
    /// Index files and journal, then the store. If one fails, or the gateway ends in between, what the journal has is
    /// applied by whoever comes next; then it isn't known what the index files have of it, and until they are written anew
    /// nothing is appended to them, so that their order stays that of publication.
    async fn deliver(self) -> Result<(), CatalogError> {
        let Self { store, journal, view, index_dir, appends, entries, changes } = self;
        // Each waits for the disk, and neither for the other.
        let (appended, last) = tokio::join!(append_all(index_dir, appends), write_ahead(&journal, &entries));
        let last = last?;
        // What the journal has counts, whatever becomes of the rest.
        if let (Some(view), Some(last)) = (&view, last) {
            view.apply(&entries, last).await;
        }
        appended?;
        let mut batch = Batch::of(changes);
        if let Some(last) = last {
            batch.put(keys::APPLIED, rows::encode(&last)?);
        }
        store.commit(batch).await?;
        Ok(())
    }
}

/// Writes entries to the journal. Returns the number of the last one.
async fn write_ahead(journal: &Journal, entries: &[Entry]) -> Result<Option<u64>, CatalogError> {
    let lines = entries.iter().map(Entry::to_journal).collect::<Result<Vec<_>, _>>()?;
    // All wait in the journal's queue at once, so that few writes to the disk are enough.
    let appends = portions(lines).into_iter().map(|lines| journal.append(lines));
    let mut last = None;
    for appended in futures_util::future::join_all(appends).await {
        last = last.max(Some(appended?.last));
    }
    Ok(last)
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
