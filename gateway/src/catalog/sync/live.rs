//! Watching a source: what its plugin tells as it happens is ingested at once.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use recgate_plugin_api::{ErrorCode, Item};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{ScanError, Synchroniser};
use crate::{
    catalog::CatalogError,
    sources::{Live, SourceError},
};

/// Items of a watch that wait for the catalog; a full queue slows the plugin down. As many are ingested at once.
const QUEUE: usize = 64;

/// The pause after a watch has ended, which doubles from the first to the longest. One that has lasted is forgiven.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
const LASTED: Duration = Duration::from_secs(60);

/// A watch that has run for so long without saying that it listens is followed by a scan all the same.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);

/// What is said of it.
const DEAF: &str = "what its plugin tells of it is used at once, but the plugin doesn't say that it misses nothing; the log may say why";

/// How long a hint waits before it is looked into: a file that is replaced is gone for a moment.
const SETTLE: Duration = Duration::from_secs(2);

/// Complaints about what a watch told are counted anew after this.
const COMPLAINTS_AFRESH: Duration = Duration::from_secs(600);

impl Synchroniser {
    /// Watches until told to stop, if the plugin can. A watch that ends begins again; once it listens, a scan follows.
    pub(super) async fn watch(&self, stop: &CancellationToken) {
        if !self.media.watches() {
            return;
        }
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            let ended = self.watch_once(stop).await;
            let retry_after = match &ended {
                ScanError::Stopped => return,
                ScanError::Source(error) => Duration::from_millis(error.error.retry_after_ms),
                _ => Duration::ZERO,
            };
            let for_ever =
                matches!(&ended, ScanError::Source(error) if error.error.code == ErrorCode::Unsupported);
            self.say_why_unwatched(&ended, for_ever);
            // The first scan needn't wait for it.
            if !self.has_scanned() {
                self.wake.notify_one();
            }
            if for_ever {
                return;
            }
            if began.elapsed() >= LASTED {
                pause = FIRST_PAUSE;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause.max(retry_after).min(LONGEST_PAUSE)) => {}
            }
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }

    fn has_scanned(&self) -> bool {
        let progress = self.progress.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        progress.scanning || progress.last_scan_ms.is_some() || progress.error.is_some()
    }

    fn say_why_unwatched(&self, ended: &ScanError, for_ever: bool) {
        let why = match ended {
            ScanError::Source(error) => error.error.to_string(),
            other => other.to_string(),
        };
        let mut news = false;
        self.report(|progress| {
            progress.watched = false;
            news = progress.watch_problem.as_ref() != Some(&why);
            progress.watch_problem = Some(why.clone());
        });
        let (tenant, source) = (&*self.tenant.name, &*self.source.name);
        match (for_ever, news) {
            (true, _) => {
                tracing::info!(tenant, source, "it isn't watched, scans find what is new: {why}");
            }
            (false, true) => {
                tracing::warn!(tenant, source, "its watch has ended and will begin again: {why}");
            }
            (false, false) => tracing::debug!(tenant, source, "its watch has ended again: {why}"),
        }
    }

    /// One call of the plugin's watch, and why it has ended.
    async fn watch_once(&self, stop: &CancellationToken) -> ScanError {
        let (sender, receiver) = mpsc::channel(QUEUE);
        // A call that is abandoned may hold on to its end of the channel for ever, and one that is idle doesn't notice
        // that nobody listens.
        let (over, failed) = (CancellationToken::new(), CancellationToken::new());
        let call = async {
            let ended = tokio::select! {
                () = stop.cancelled() => ScanError::Stopped,
                () = failed.cancelled() => ScanError::Stopped,
                result = self.media.watch(sender) => match result {
                    Ok(()) => ScanError::Source(self.returned()),
                    Err(error) => error.into(),
                },
            };
            over.cancel();
            ended
        };
        let consume = async {
            let consumed = self.consume_live(receiver, &over).await;
            if consumed.is_err() {
                failed.cancel();
            }
            consumed
        };
        let (ended, consumed) = tokio::join!(call, consume);
        self.report(|progress| progress.watched = false);
        match consumed {
            Ok(()) => ended,
            Err(error) => error.into(),
        }
    }

    fn returned(&self) -> SourceError {
        let error = recgate_plugin_api::Error::new(
            ErrorCode::Internal,
            "the plugin's watch returned, though nobody asked it to",
        );
        SourceError { source_name: self.source.name.as_str().into(), error }
    }

    async fn consume_live(
        &self,
        mut told: mpsc::Receiver<Live>,
        over: &CancellationToken,
    ) -> Result<(), CatalogError> {
        let (mut said, mut said_since) = (0, Instant::now());
        let mut batch = Vec::new();
        let listens_by = tokio::time::sleep(LISTENS_WITHIN);
        tokio::pin!(listens_by);
        let mut scan_owed = true;
        loop {
            tokio::select! {
                biased;
                received = told.recv_many(&mut batch, QUEUE) => if received == 0 { return Ok(()) },
                () = over.cancelled() => return Ok(()),
                () = &mut listens_by, if scan_owed => {
                    scan_owed = false;
                    self.report(|progress| progress.watch_problem = Some(DEAF.to_owned()));
                    self.wake.notify_one();
                }
            }
            if said_since.elapsed() >= COMPLAINTS_AFRESH {
                (said, said_since) = (0, Instant::now());
            }
            let listens = batch.contains(&Live::Listening);
            let items = latest(batch.drain(..));
            if !items.is_empty() {
                self.heard.watched(&items);
                let ingested =
                    self.catalog.ingest(&self.tenant, &self.source, items, (self.now_ms)()).await?;
                self.complain(&ingested.complaints, &mut said);
                self.heard.changed(ingested.changed);
                self.heard.respelled(ingested.respelled);
            }
            if listens {
                scan_owed = false;
                self.report(|progress| {
                    progress.watched = true;
                    progress.watch_problem = None;
                });
                self.wake.notify_one();
            }
        }
    }

    /// Looks into what the watch has hinted at: that media have changed or are gone. Only a full scan makes one missing,
    /// so what is gone indeed asks for one.
    pub(super) async fn check_hints(&self, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.heard.hinted() => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(SETTLE) => {}
            }
            let hints = self.heard.take_hints();
            let changed = self.confirm_hinted(stop, hints.changed.into_iter().collect()).await;
            let gone = match hints.scan || changed.as_ref().is_ok_and(|many| *many) {
                true => Ok(true),
                false => self.is_any_gone(stop, hints.gone.into_iter().collect()).await,
            };
            if gone.as_ref().is_ok_and(|gone| *gone) {
                self.wake.notify_one();
            }
            for error in [changed.err(), gone.err()].into_iter().flatten() {
                match error {
                    ScanError::Stopped => return,
                    // The next scan finds out.
                    error => {
                        tracing::debug!(tenant = %self.tenant.name, source = %self.source.name, "a hint can't be looked into: {error}");
                    }
                }
            }
        }
    }
}

/// The items, and of several that tell of one medium the last: what it was before is over.
fn latest(told: impl Iterator<Item = Live>) -> Vec<Item> {
    let mut items: Vec<Option<Item>> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for live in told {
        let Live::Item(item) = live else { continue };
        let id = match &item {
            Item::Media(media) => Some(&media.id),
            Item::MediaGone(id) => Some(id),
            Item::Facts(_) => None,
        };
        if let Some(before) = id.and_then(|id| places.insert(id.clone(), items.len()))
            && let Some(before) = items.get_mut(before)
        {
            *before = None;
        }
        items.push(Some(item));
    }
    items.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use recgate_plugin_api::{Facts, Media};

    use super::*;

    #[test]
    fn the_last_word_about_a_medium_counts() {
        let media = |id: &str, size| Item::Media(Media { id: id.into(), size, ..Media::default() });
        let facts = |revision| Item::Facts(Facts { id: "a".into(), revision, ..Facts::default() });
        let gone = |id: &str| Item::MediaGone(id.into());
        let told = [
            media("a", 1),
            facts(1),
            media("b", 1),
            gone("c"),
            media("a", 2),
            facts(1),
            media("c", 3),
            gone("b"),
        ];
        let latest = latest(told.into_iter().map(Live::Item).chain([Live::Listening]));
        assert_eq!(latest, [facts(1), media("a", 2), facts(1), media("c", 3), gone("b")]);
    }
}
