//! Following a source: scans at intervals, what they tell, and what they no longer tell.

use std::{
    sync::{Arc, RwLock},
    time::Duration,
};

use recgate_plugin_api::{ErrorCode, Item};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    Catalog, CatalogError, keys,
    rows::{self, Condition, MediaRow, SourceRow},
    seen::Seen,
    txn::Txn,
};
use crate::{
    config::{Source, Tenant},
    sources::{MediaSource, ScanStart, SourceError},
};

/// Batches of a scan that wait for the catalog; a full queue slows the plugin down.
const QUEUE: usize = 4;

/// The part of a source's media that may vanish between two scans; more looks like an unmounted disk.
const VANISH_PERCENT: u64 = 5;

/// How a source's synchronisation goes, for `status` and the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Progress {
    /// A scan runs now.
    pub scanning: bool,
    /// Start of the last complete scan, Unix milliseconds UTC.
    pub last_scan_ms: Option<i64>,
    /// Media that it told.
    pub media: u64,
    /// What is wrong; `None` when the last scan was complete and believed.
    pub error: Option<String>,
}

/// Follows one source of one tenant.
pub struct Synchroniser {
    /// The catalog that it feeds.
    pub catalog: Arc<Catalog>,
    /// Whose source it is.
    pub tenant: Arc<Tenant>,
    /// Its configuration.
    pub source: Source,
    /// The source itself.
    pub media: Arc<dyn MediaSource>,
    /// Where it says how it goes.
    pub progress: Arc<RwLock<Progress>>,
    /// Asks for a scan before the interval is over.
    pub wake: Arc<Notify>,
    /// The clock, Unix milliseconds UTC.
    pub now_ms: fn() -> i64,
}

/// Why a scan was not complete.
#[derive(Debug, thiserror::Error)]
enum ScanError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(
        "{vanished} of {known} media vanished at once, more than {VANISH_PERCENT} %: nothing was marked missing. Is its storage mounted whole?"
    )]
    Vanished { vanished: u64, known: u64 },
    #[error("the scan did not end: it returned MORE with the same cursor")]
    Stuck,
}

impl Synchroniser {
    /// Scans at intervals until told to stop. A scan that fails is tried again, first soon, then at the interval.
    pub async fn run(self, stop: CancellationToken) {
        let mut failures = 0_u32;
        loop {
            match self.scan_once(&stop).await {
                Some(true) => {
                    if failures > 0 {
                        tracing::info!(tenant = %self.tenant.name, source = %self.source.name, "the source is well again");
                    }
                    failures = 0;
                }
                Some(false) => failures = failures.saturating_add(1),
                None => return,
            }
            let pause = match failures {
                0 => self.source.scan_interval,
                _ => Duration::from_secs(1 << failures.min(6)).min(self.source.scan_interval),
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Scans once and says whether that went well; `None` when it was told to stop.
    pub(super) async fn scan_once(&self, stop: &CancellationToken) -> Option<bool> {
        self.report(|progress| progress.scanning = true);
        let result = tokio::select! {
            () = stop.cancelled() => return None,
            result = self.scan() => result,
        };
        let error = result.err().map(|error| error.to_string());
        let well = error.is_none();
        let mut news = false;
        self.report(|progress| {
            progress.scanning = false;
            news = error.is_some() && progress.error != error;
            progress.error.clone_from(&error);
        });
        if let (true, Some(error)) = (news, error) {
            tracing::error!(tenant = %self.tenant.name, source = %self.source.name, "{error}");
        }
        Some(well)
    }

    fn report(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress.write().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    /// One full scan with all that follows from it.
    async fn scan(&self) -> Result<(), ScanError> {
        let started = (self.now_ms)();
        let known = self.catalog.source(self.tenant.id, self.source.id).await?;
        let mut seen = Seen::new(known.media.saturating_add(known.media / 4).saturating_add(1024));
        let mut told = 0;
        let mut changed = Vec::new();
        let mut start = ScanStart::Full;
        let watermark_ms = loop {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let (end, consumed) = tokio::join!(
                self.media.scan(start.clone(), sender),
                self.consume(receiver, &mut seen, &mut told, &mut changed)
            );
            // A failure of the catalog ends the scan, too; it is the cause then.
            consumed?;
            let end = end?;
            if end.complete {
                break end.watermark_ms;
            }
            let next = ScanStart::Since(end.cursor);
            if next == start {
                return Err(ScanError::Stuck);
            }
            start = next;
        };
        self.confirm_changed(changed).await?;
        self.decide_due(started).await?;
        let vanished = self.confirm_vanished(&seen).await;
        let row = SourceRow {
            watermark_ms: watermark_ms.max(known.watermark_ms),
            scanned_ms: started,
            media: told,
        };
        self.catalog.scanned(self.tenant.id, self.source.id, &row).await?;
        self.report(|progress| {
            progress.last_scan_ms = Some(started);
            progress.media = told;
        });
        vanished
    }

    async fn consume(
        &self,
        mut batches: mpsc::Receiver<Vec<Item>>,
        seen: &mut Seen,
        told: &mut u64,
        changed: &mut Vec<(String, String)>,
    ) -> Result<(), CatalogError> {
        while let Some(items) = batches.recv().await {
            for item in &items {
                if let Item::Media(media) = item {
                    seen.insert(&media.id);
                    *told = told.saturating_add(1);
                }
            }
            let ingested = self.catalog.ingest(&self.tenant, &self.source, items, (self.now_ms)()).await?;
            for complaint in &ingested.complaints {
                tracing::warn!(tenant = %self.tenant.name, source = %self.source.name, "{complaint}");
            }
            // The rest is told again by the next scan.
            let room = 10_000_usize.saturating_sub(changed.len());
            changed.extend(ingested.changed.into_iter().take(room));
        }
        Ok(())
    }

    /// A published medium that was told with another version is asked for again before that is believed.
    async fn confirm_changed(&self, changed: Vec<(String, String)>) -> Result<(), ScanError> {
        for (id, pinned) in changed {
            match self.media.stat(&id, None).await {
                Ok(media) if media.version == pinned => {}
                Ok(_) => {
                    let marked = self.mark(std::slice::from_ref(&id), Condition::Corrupt).await?;
                    if marked > 0 {
                        tracing::error!(tenant = %self.tenant.name, source = %self.source.name, media = %id, "its content has changed since it was published: it is no longer served");
                    }
                }
                Err(error) if error.error.code == ErrorCode::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn decide_due(&self, until_ms: i64) -> Result<(), CatalogError> {
        let mut from = None;
        loop {
            let (media, next) = self.catalog.due(&self.tenant, &self.source, until_ms, from).await?;
            if !media.is_empty() {
                self.catalog.process_due(&self.tenant, &self.source, &media, (self.now_ms)()).await?;
            }
            match next {
                Some(next) => from = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Media that the scan no longer told are missing if the source confirms each, and if they are few.
    async fn confirm_vanished(&self, seen: &Seen) -> Result<(), ScanError> {
        let (mut known, mut vanished) = (0_u64, Vec::new());
        let mut from = None;
        loop {
            let (page, next) = self.catalog.media_of(self.tenant.id, self.source.id, from).await?;
            for (id, row) in page {
                if row.told.version.is_empty() {
                    continue;
                }
                known = known.saturating_add(1);
                if !seen.may_contain(&id) {
                    vanished.push(id);
                }
            }
            // What is too much for the smallest catalog that is still to be read ends the search.
            match next {
                Some(next) => from = Some(next),
                None => break,
            }
            if vanished.len() > 1_000_000 {
                break;
            }
        }
        if vanished.is_empty() {
            return Ok(());
        }
        let count = vanished.len() as u64;
        // A single one may always go, so that small archives work; but never the last.
        let allowed = (known.saturating_mul(VANISH_PERCENT) / 100).max(1);
        if count > allowed || count == known {
            return Err(ScanError::Vanished { vanished: count, known });
        }
        let mut confirmed = Vec::new();
        for id in vanished {
            match self.media.stat(&id, None).await {
                Ok(_) => {}
                Err(error) if error.error.code == ErrorCode::NotFound => confirmed.push(id),
                Err(error) if error.error.code.is_retryable() => return Err(error.into()),
                // Not to be read isn't gone.
                Err(error) => {
                    tracing::warn!(tenant = %self.tenant.name, media = %id, %error, "not told any more, and not to be asked for")
                }
            }
        }
        let marked = self.mark(&confirmed, Condition::Missing).await?;
        if marked > 0 {
            tracing::warn!(tenant = %self.tenant.name, source = %self.source.name, count = marked, "published recordings have vanished from their source");
        }
        Ok(())
    }

    async fn mark(&self, media: &[String], condition: Condition) -> Result<u64, CatalogError> {
        let mut marked = 0;
        for page in media.chunks(256) {
            marked += self.catalog.mark(&self.tenant, &self.source, page, condition, (self.now_ms)()).await?;
        }
        Ok(marked)
    }
}

impl Catalog {
    /// Remembers how far a source's scans are.
    pub(super) async fn scanned(
        &self,
        tenant: u32,
        source: u32,
        row: &SourceRow,
    ) -> Result<(), CatalogError> {
        let mut writer = self.writer.lock().await;
        self.ensure_caught_up(&mut writer).await?;
        let mut txn = Txn::new(&*self.store);
        txn.put(keys::source(tenant, source), row)?;
        self.record(&mut writer, txn, &[]).await
    }

    async fn media_of(
        &self,
        tenant: u32,
        source: u32,
        from: Option<Vec<u8>>,
    ) -> Result<(Vec<(String, MediaRow)>, Option<Vec<u8>>), CatalogError> {
        let prefix = keys::media_of(tenant, source);
        let page = self.store.scan(&prefix, from.as_deref().unwrap_or(&prefix), 4096).await?;
        let mut media = Vec::with_capacity(page.rows.len());
        for row in &page.rows {
            if let Some(id) = keys::id_of_media(&row.key) {
                media.push((id.to_owned(), rows::decode(&row.value)?));
            }
        }
        Ok((media, page.next))
    }
}
