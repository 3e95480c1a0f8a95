//! Following a source: scans at intervals, what they tell, what they no longer tell, and what a watch tells meanwhile.
//!
//! A scan reads a medium at one moment and is ingested at a later one; a watch may have told something newer in between.
//! So of media that a watch has told since the scan began, the watch's word counts ([`Heard`]).

use std::{
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};

use recgate_plugin_api::Item;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::{Catalog, CatalogError, keys, rows::SourceRow, txn::Txn, unmatched::UNMATCHED_MAX};
use crate::{
    config::{Source, Tenant},
    sources::{MediaSource, ScanStart, SourceError},
};

mod confirm;
mod heard;
mod live;

use confirm::Changed;

pub use heard::Heard;

/// Batches of a scan that wait for the catalog; a full queue slows the plugin down. All that wait are ingested at once:
/// what is written to the disk in between costs more than what it is about. A batch has 256 items or 128 KiB.
const QUEUE: usize = 16;

/// The part of a source's media that may vanish between two scans, or be another than was published. More looks like an
/// unmounted disk, or one whose times were changed.
const VANISH_PERCENT: u64 = 5;

/// A watermark that is further ahead of the clock than this was told while the clock was wrong.
const AHEAD_MS: i64 = 60_000;

/// Complaints of one scan that are logged.
const COMPLAINTS: usize = 10;

/// A scan that was asked for waits this many times as long as the last one took, so that scans of a large archive don't
/// follow each other without end, and these times at least and at most.
const REST: u32 = 4;
const REST_AT_LEAST: Duration = Duration::from_secs(1);
const REST_AT_MOST: Duration = Duration::from_secs(600);

/// After this many failures in a row the pause that doubles from one to the next has its longest, 64 s.
const DOUBLINGS: u32 = 6;
/// What a source that fails may ask for: not to be scanned again for so long, whatever its interval is.
const RETRY_AFTER_AT_MOST: Duration = Duration::from_secs(3600);

/// How long the first scan waits for the watch to listen: so that what comes during the scan isn't missed.
const LISTEN_FIRST: Duration = Duration::from_secs(2);

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
    /// Its plugin tells what happens as it happens.
    pub watched: bool,
    /// Why it isn't watched although its plugin can watch.
    pub watch_problem: Option<String>,
    /// Media that the last scan missed, too many to be believed.
    pub unbelieved_loss: Option<u64>,
    /// As many may be gone, an administrator says. The next full scan takes that word, and no other.
    pub accepted_loss: Option<u64>,
    /// The last complete scan couldn't read everything: what is new there isn't known.
    pub partial: bool,
    /// Sets of facts that the last complete scan told and that weren't kept, because too many join no medium.
    pub left_out: u64,
    /// How often it has told what it must not, since it is followed.
    pub complaints: u64,
    /// What that was the last time.
    pub complaint: Option<String>,
}

/// What comes of what a scan tells.
#[derive(Default)]
struct Outcome {
    /// Media.
    told: u64,
    /// Published media that were told with another version.
    changed: Changed,
    /// Sets of facts that were left out.
    left_out: u64,
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
    /// What its watch has told lately.
    pub heard: Heard,
    /// The clock, Unix milliseconds UTC.
    pub now_ms: fn() -> i64,
}

/// Why a scan was not complete, or a watch has ended.
#[derive(Debug, thiserror::Error)]
enum ScanError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(
        "{vanished} of {known} media vanished at once, more than {VANISH_PERCENT} % or all: nothing was marked missing. Is its storage mounted whole? If they were removed on purpose, say so: recgate source accept-loss {whose}"
    )]
    Vanished { vanished: u64, known: u64, whose: String },
    #[error(
        "{changed} of {told} media have another version than was published, more than {VANISH_PERCENT} %: none more was marked changed. Were the files copied or touched, or is their storage mounted otherwise? They can be read again with their old times and sizes"
    )]
    Changed { changed: u64, told: u64 },
    #[error("the scan did not end: it returned MORE with the same cursor")]
    Stuck,
    #[error("stopped")]
    Stopped,
}

/// A scan that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed {
    /// The source asks not to be scanned again for so long; zero where it doesn't say.
    retry_after: Duration,
}

fn retry_after(error: &ScanError) -> Duration {
    match error {
        ScanError::Source(error) => Duration::from_millis(error.error.retry_after_ms),
        _ => Duration::ZERO,
    }
}

/// How long after a scan the next one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pauses {
    /// At the earliest, if somebody asks for it.
    rest: Duration,
    /// At the latest.
    pause: Duration,
}

/// After a scan that took so long, the last of so many failures in a row. A source that fails must not be worked harder
/// than one that is well: each attempt may read all that it has.
fn pauses(failures: u32, took: Duration, retry_after: Duration, interval: Duration) -> Pauses {
    let rest = took.saturating_mul(REST);
    let pause = match failures {
        0 => interval,
        _ => Duration::from_secs(1 << failures.min(DOUBLINGS)).max(rest).min(interval),
    };
    let wanted = retry_after.min(RETRY_AFTER_AT_MOST);
    Pauses { rest: rest.clamp(REST_AT_LEAST, REST_AT_MOST).max(wanted), pause: pause.max(wanted) }
}

impl Synchroniser {
    /// Scans at intervals and watches until told to stop. A scan that fails is tried again before the interval is over,
    /// first soon, but the less often the longer it takes.
    pub async fn run(self, stop: CancellationToken) {
        tokio::join!(self.scan_at_intervals(&stop), self.watch(&stop), self.check_hints(&stop));
    }

    async fn scan_at_intervals(&self, stop: &CancellationToken) {
        if self.media.watches() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(LISTEN_FIRST) => {}
            }
        }
        let mut failures = 0_u32;
        loop {
            let began = Instant::now();
            let retry_after = match self.scan_once(stop).await {
                Some(Ok(())) => {
                    if failures > 0 {
                        tracing::info!(tenant = %self.tenant.name, source = %self.source.name, "the source is well again");
                    }
                    failures = 0;
                    Duration::ZERO
                }
                Some(Err(failed)) => {
                    failures = failures.saturating_add(1);
                    failed.retry_after
                }
                None => return,
            };
            let Pauses { rest, pause } =
                pauses(failures, began.elapsed(), retry_after, self.source.scan_interval);
            let asked_for = async {
                tokio::time::sleep(rest).await;
                self.wake.notified().await;
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = asked_for => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Scans once; `None` when it was told to stop.
    ///
    /// Work of the catalog is never dropped in the middle: only waits for the source end at the stop.
    pub(super) async fn scan_once(&self, stop: &CancellationToken) -> Option<Result<(), Failed>> {
        self.report(|progress| progress.scanning = true);
        let (result, error) = match self.scan(stop).await {
            Ok(()) => (Ok(()), None),
            Err(ScanError::Stopped) => return None,
            Err(error) => (Err(Failed { retry_after: retry_after(&error) }), Some(error.to_string())),
        };
        let mut news = false;
        self.report(|progress| {
            progress.scanning = false;
            news = error.is_some() && progress.error != error;
            progress.error.clone_from(&error);
        });
        if let (true, Some(error)) = (news, error) {
            tracing::error!(tenant = %self.tenant.name, source = %self.source.name, "{error}");
        }
        Some(result)
    }

    fn report(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress.write().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    /// One full scan with all that follows from it.
    async fn scan(&self, stop: &CancellationToken) -> Result<(), ScanError> {
        let started = (self.now_ms)();
        let (tenant, source) = (self.tenant.id, self.source.id);
        let known = self.catalog.source(tenant, source).await?;
        let lost = self.catalog.lost(tenant, source).await;
        let _scan = self.heard.begin_scan(known.media.saturating_add(known.media / 4).saturating_add(1024));
        let mut outcome = Outcome::default();
        let mut start = ScanStart::Full;
        let watermark_ms = loop {
            let (sender, receiver) = mpsc::channel(QUEUE);
            // A call that is abandoned may hold on to its end of the channel for ever.
            let over = CancellationToken::new();
            let call = async {
                let end = or_stop(stop, self.media.scan(start.clone(), sender)).await;
                if end.is_err() {
                    over.cancel();
                }
                end
            };
            let (end, consumed) = tokio::join!(call, self.consume(receiver, &over, lost, &mut outcome));
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
        // One medium that can't be confirmed must not keep all others from being decided about.
        let changed = std::mem::take(&mut outcome.changed);
        let confirmed = self.confirm_changed(stop, changed, outcome.told).await;
        let vanished = self.confirm_vanished(stop).await;
        match &vanished {
            Ok(()) | Err(ScanError::Source(_)) => {}
            // A storage that shows too little completes no day, and nothing is decided about what it doesn't show.
            Err(_) => return vanished,
        }
        self.decide_due(started).await?;
        let dropped = self.catalog.drop_unmatched(tenant, source).await?;
        let left_out = outcome.left_out.saturating_add(dropped);
        let now = (self.now_ms)();
        let partial = watermark_ms == i64::MIN;
        let watermark_ms = later(known.watermark_ms, watermark_ms, now);
        let row = SourceRow { watermark_ms, scanned_ms: started, media: outcome.told };
        // What the watch has told meanwhile counts as told by the scan, and must not have been lost either.
        self.catalog.settle(tenant, source, lost).await?;
        self.catalog.scanned(tenant, source, &row).await?;
        let mut news = false;
        self.report(|progress| {
            news = left_out > 0 && progress.left_out == 0;
            progress.last_scan_ms = Some(started);
            progress.media = outcome.told;
            progress.partial = partial;
            progress.left_out = left_out;
        });
        if news {
            tracing::warn!(tenant = %self.tenant.name, source = %self.source.name, left_out, kept = UNMATCHED_MAX, "too many facts join no recording: those of the oldest calls are not kept");
        }
        confirmed?;
        vanished
    }

    async fn consume(
        &self,
        mut batches: mpsc::Receiver<Vec<Item>>,
        over: &CancellationToken,
        lost: u64,
        outcome: &mut Outcome,
    ) -> Result<(), CatalogError> {
        let mut said = 0;
        loop {
            let items = tokio::select! {
                biased;
                items = batches.recv() => items,
                () = over.cancelled() => None,
            };
            let Some(mut items) = items else {
                return self.catalog.settle(self.tenant.id, self.source.id, lost).await;
            };
            for _ in 1..QUEUE {
                let Ok(more) = batches.try_recv() else { break };
                items.extend(more);
            }
            outcome.told = outcome.told.saturating_add(self.heard.scanned(&mut items));
            let ingested = self.catalog.ingest_on(&self.tenant, &self.source, items, (self.now_ms)()).await?;
            self.complain(&ingested.complaints, &mut said);
            outcome.changed.add(ingested.changed, ingested.differing);
            self.heard.respelled(ingested.respelled);
            outcome.left_out = outcome.left_out.saturating_add(ingested.left_out);
        }
    }

    /// Logs what a source should not have told. What millions of items have in common is said a few times only.
    fn complain(&self, complaints: &[String], said: &mut usize) {
        if let Some(last) = complaints.last() {
            self.report(|progress| {
                progress.complaints = progress.complaints.saturating_add(complaints.len() as u64);
                progress.complaint = Some(last.clone());
            });
        }
        for complaint in complaints {
            *said = said.saturating_add(1);
            match *said {
                ..=COMPLAINTS => {
                    tracing::warn!(tenant = %self.tenant.name, source = %self.source.name, "{complaint}");
                }
                n if n == COMPLAINTS + 1 => {
                    tracing::warn!(tenant = %self.tenant.name, source = %self.source.name, "there is more of the kind in this scan");
                }
                _ => {}
            }
        }
    }

    /// Decides about media whose wait for facts has ended and that this scan has told: an estimated start mustn't give
    /// a name to media that isn't there.
    async fn decide_due(&self, until_ms: i64) -> Result<(), CatalogError> {
        let (mut from, mut said) = (None, 0);
        loop {
            let (mut media, next) = self.catalog.due(&self.tenant, &self.source, until_ms, from).await?;
            media.retain(|id| self.heard.was_told(id));
            if !media.is_empty() {
                let decided =
                    self.catalog.process_due(&self.tenant, &self.source, &media, (self.now_ms)()).await?;
                self.complain(&decided.complaints, &mut said);
            }
            match next {
                Some(next) => from = Some(next),
                None => return Ok(()),
            }
        }
    }
}

/// The watermark after a scan: it never goes back, unless it was told while the clock ran ahead. It is never ahead of the
/// clock, so that tomorrow doesn't look complete.
fn later(known_ms: i64, told_ms: i64, now_ms: i64) -> i64 {
    let believed = if is_ahead(known_ms, now_ms) { i64::MIN } else { known_ms };
    told_ms.max(believed).min(now_ms)
}

/// Whether a watermark is of a clock that was set back since.
pub fn is_ahead(watermark_ms: i64, now_ms: i64) -> bool {
    watermark_ms > now_ms.saturating_add(AHEAD_MS)
}

/// What a source answers, unless the stop comes first.
async fn or_stop<T>(
    stop: &CancellationToken,
    call: impl Future<Output = Result<T, SourceError>>,
) -> Result<T, ScanError> {
    tokio::select! {
        () = stop.cancelled() => Err(ScanError::Stopped),
        result = call => Ok(result?),
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
        self.record(&mut writer, txn, Vec::new()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn a_source_that_fails_is_not_worked_harder_than_one_that_is_well() {
        let interval = S(1800);
        let pause = |failures, took| pauses(failures, took, S(0), interval).pause;
        assert_eq!(pause(0, S(3)), interval);
        // Soon, where it costs little.
        assert_eq!([1, 2, 6, 7, u32::MAX].map(|failures| pause(failures, S(0))), [2, 4, 64, 64, 64].map(S));
        // Where each attempt walks through everything, most of the time is rest.
        assert_eq!(pause(1, S(120)), S(480));
        assert_eq!(pause(50, S(120)), S(480));
        assert_eq!(pause(1, S(4000)), interval);
        assert_eq!(pauses(9, S(1), S(0), S(10)).pause, S(10), "never longer than the interval");
    }

    #[test]
    fn a_source_that_names_a_time_is_left_alone_until_then() {
        let mut error = recgate_plugin_api::Error::new(recgate_plugin_api::ErrorCode::RateLimited, "slowly");
        error.retry_after_ms = 5000;
        let error = ScanError::from(SourceError { source_name: "one".into(), error });
        assert_eq!(retry_after(&error), S(5));
        assert_eq!(retry_after(&ScanError::Stuck), S(0));
        let after = |retry_after| pauses(1, S(0), retry_after, S(30));
        assert_eq!(after(S(0)), Pauses { rest: S(1), pause: S(2) });
        assert_eq!(after(S(300)), Pauses { rest: S(300), pause: S(300) });
        // Not for ever.
        assert_eq!(after(S(u64::MAX)), Pauses { rest: S(3600), pause: S(3600) });
    }

    #[test]
    fn what_is_asked_for_waits_for_a_rest() {
        let rest = |took| pauses(0, took, S(0), S(60)).rest;
        assert_eq!([S(0), S(10), S(100_000), Duration::MAX].map(rest), [1, 40, 600, 600].map(S));
    }
}
