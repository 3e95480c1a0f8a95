//! What a source seems to have lost or changed is asked for before it is believed.

use recgate_plugin_api::{ErrorCode, Media, MediaState};
use tokio_util::sync::CancellationToken;

use super::{ScanError, Synchroniser, VANISH_PERCENT};
use crate::{
    catalog::{
        Catalog, CatalogError, keys,
        rows::{self, Condition, MediaRow, Recording},
    },
    sources::SourceError,
};

/// Changed media that one scan asks for. The next one tells the rest again.
const CHANGED_MAX: usize = 10_000;

/// Published media that a scan has told with another version.
#[derive(Default)]
pub(super) struct Changed {
    /// Those that aren't known to have changed: id, and the version that was published. [`CHANGED_MAX`] at most.
    media: Vec<(String, String)>,
    /// How many there are, those that are known to have changed included.
    count: u64,
}

impl Changed {
    /// A part of the scan has told these more.
    pub(super) fn add(&mut self, media: Vec<(String, String)>, count: u64) {
        self.count = self.count.saturating_add(count);
        let room = CHANGED_MAX.saturating_sub(self.media.len());
        self.media.extend(media.into_iter().take(room));
    }
}

/// Media that can't be asked for, before a source is taken to be down.
const FAILURES: usize = 8;

/// See [`Synchroniser::untold`].
struct Untold {
    known: u64,
    untold: Vec<String>,
    /// Where the next page begins.
    next: Option<Vec<u8>>,
}

/// How many of so many media may be otherwise at once. A single one may always, so that small archives work.
fn believed(known: u64) -> u64 {
    (known.saturating_mul(VANISH_PERCENT) / 100).max(1)
}

impl Synchroniser {
    /// Published media that were told with another version are asked for again before that is believed, if they are few.
    pub(super) async fn confirm_changed(
        &self,
        stop: &CancellationToken,
        changed: Changed,
        told: u64,
    ) -> Result<(), ScanError> {
        if changed.count > believed(told) {
            return Err(ScanError::Changed { changed: changed.count, told });
        }
        let (media, failed) = self.changed_indeed(stop, changed.media).await?;
        self.mark_changed(&media).await?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// The same for what a watch has told, before or after a scan. Whether there are so many that only a scan can tell.
    pub(super) async fn confirm_hinted(
        &self,
        stop: &CancellationToken,
        changed: Vec<(String, String)>,
    ) -> Result<bool, ScanError> {
        let (media, failed) = self.changed_indeed(stop, changed).await?;
        if !media.is_empty() {
            let known = self.catalog.source(self.tenant.id, self.source.id).await?.media;
            // Those of the tenant's other sources are among them; a scan knows better.
            let before = self.catalog.counts(self.tenant.id).await?.corrupt;
            if before.saturating_add(media.len() as u64) > believed(known) {
                return Ok(true);
            }
            self.mark_changed(&media).await?;
        }
        failed.map_or(Ok(false), |error| Err(error.into()))
    }

    /// Those of these media (id, and the version that was published) that have another version indeed, and why one of
    /// the others could not be asked for.
    async fn changed_indeed(
        &self,
        stop: &CancellationToken,
        changed: Vec<(String, String)>,
    ) -> Result<(Vec<String>, Option<SourceError>), ScanError> {
        let (mut confirmed, mut failures) = (Vec::new(), Vec::new());
        for (id, pinned) in changed {
            if failures.len() >= FAILURES {
                break;
            }
            match self.ask(stop, &id).await? {
                Ok(media) if media.version == pinned => {}
                // Still being written: what it becomes is told when it is whole.
                Ok(media) if matches!(media.state, MediaState::Growing | MediaState::Uploading) => {}
                Ok(_) => confirmed.push(id),
                Err(error) if error.error.code == ErrorCode::NotFound => {}
                Err(error) if error.error.code.is_retryable() => failures.push(error),
                Err(error) => {
                    tracing::warn!(tenant = %self.tenant.name, media = %id, %error, "told with another version, and not to be asked for")
                }
            }
        }
        Ok((confirmed, failures.into_iter().next()))
    }

    async fn mark_changed(&self, media: &[String]) -> Result<(), CatalogError> {
        let marked = self.mark(media, Condition::Corrupt).await?;
        if let (1.., Some(first)) = (marked, media.first()) {
            tracing::error!(tenant = %self.tenant.name, source = %self.source.name, media = %first, count = marked, "the content of recordings has changed since they were published: they are no longer served");
        }
        Ok(())
    }

    /// Whether the source confirms that one of these media, which the catalog has, is gone.
    pub(super) async fn is_any_gone(
        &self,
        stop: &CancellationToken,
        media: Vec<String>,
    ) -> Result<bool, ScanError> {
        for id in media {
            let row = self.catalog.medium(self.tenant.id, self.source.id, &id).await?;
            if row.is_none_or(|row| row.told.version.is_empty()) {
                continue;
            }
            match self.ask(stop, &id).await? {
                Err(error) if error.error.code == ErrorCode::NotFound => return Ok(true),
                // A source that is down is the next scan's matter.
                Err(error) if error.error.code.is_retryable() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(false)
    }

    /// The medium as it is now.
    async fn ask(&self, stop: &CancellationToken, id: &str) -> Result<Result<Media, SourceError>, ScanError> {
        tokio::select! {
            () = stop.cancelled() => Err(ScanError::Stopped),
            media = self.media.stat(id, None) => Ok(media),
        }
    }

    /// Media that the scan no longer told are missing if the source confirms each, and if they are few or an
    /// administrator has accepted as many.
    ///
    /// They are counted first and looked up again then: an unmounted disk lacks more of them than are to be held. Those
    /// that were told by another spelling of their ids are no sign of one: where the storage doesn't tell cases apart,
    /// they answer to both.
    pub(super) async fn confirm_vanished(&self, stop: &CancellationToken) -> Result<(), ScanError> {
        let (mut known, mut untold, mut vanished) = (0_u64, 0_u64, 0_u64);
        let mut from = None;
        loop {
            let page = self.untold(from).await?;
            known = known.saturating_add(page.known);
            untold = untold.saturating_add(page.untold.len() as u64);
            let respelled = page.untold.iter().filter(|id| self.heard.was_respelled(id)).count();
            vanished = vanished.saturating_add(page.untold.len().saturating_sub(respelled) as u64);
            match page.next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        let mut accepted = None;
        self.report(|progress| {
            accepted = progress.accepted_loss.take();
            progress.unbelieved_loss = None;
        });
        if untold == 0 {
            return Ok(());
        }
        let few = vanished <= believed(known) && vanished < known;
        // A disk that is unmounted after the word was given lacks more than was meant.
        if !few && accepted.is_none_or(|accepted| vanished > accepted.saturating_add(believed(known))) {
            return self.too_many(vanished, known);
        }
        // More of them may be gone than looked like it: those that don't answer to their other spelling.
        let most = accepted.unwrap_or(0).saturating_add(believed(known));
        let (mut gone, mut marked, mut failures) = (0_u64, 0, Vec::new());
        let mut from = None;
        loop {
            let page = self.untold(from).await?;
            let confirmed = self.confirm_page(stop, page.untold, &mut failures).await?;
            gone = gone.saturating_add(confirmed.len() as u64);
            if gone > most {
                return self.too_many(gone, known);
            }
            marked += self.mark_gone(&confirmed).await?;
            match page.next {
                Some(next) if failures.len() < FAILURES => from = Some(next),
                _ => break,
            }
        }
        if marked > 0 {
            tracing::warn!(tenant = %self.tenant.name, source = %self.source.name, count = marked, "published recordings have vanished from their source");
        }
        match failures.into_iter().next() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Those of these media that the source confirms to be gone. One that can't be asked for keeps no others from being
    /// asked for.
    async fn confirm_page(
        &self,
        stop: &CancellationToken,
        untold: Vec<String>,
        failures: &mut Vec<SourceError>,
    ) -> Result<Vec<String>, ScanError> {
        let mut gone = Vec::new();
        for id in untold {
            if failures.len() >= FAILURES {
                break;
            }
            match self.ask(stop, &id).await? {
                Ok(_) => {}
                Err(error) if error.error.code == ErrorCode::NotFound => gone.push(id),
                Err(error) if error.error.code.is_retryable() => failures.push(error),
                // Not to be read isn't gone.
                Err(error) => {
                    tracing::warn!(tenant = %self.tenant.name, media = %id, %error, "not told any more, and not to be asked for")
                }
            }
        }
        // What the watch has told meanwhile has come back.
        gone.retain(|id| !self.heard.was_told(id));
        Ok(gone)
    }

    async fn mark_gone(&self, gone: &[String]) -> Result<u64, CatalogError> {
        let marked = self.mark(gone, Condition::Missing).await?;
        for id in gone.iter().filter(|id| self.heard.was_respelled(id)) {
            tracing::warn!(tenant = %self.tenant.name, source = %self.source.name, media = %id, "it is not there any more under this spelling of its id: the other one is a new recording");
        }
        Ok(marked)
    }

    fn too_many(&self, vanished: u64, known: u64) -> Result<(), ScanError> {
        self.report(|progress| progress.unbelieved_loss = Some(vanished));
        let whose = format!("{}/{}", self.tenant.name, self.source.name);
        Err(ScanError::Vanished { vanished, known, whose })
    }

    /// A page of the source's media: how many they are, and those that weren't told since the scan began.
    async fn untold(&self, from: Option<Vec<u8>>) -> Result<Untold, CatalogError> {
        let (mut media, next) = self.catalog.present_of(self.tenant.id, self.source.id, from).await?;
        let known = media.len() as u64;
        media.retain(|id| !self.heard.was_told(id));
        Ok(Untold { known, untold: media, next })
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
    /// What is known of a medium; `None` where it was never told.
    async fn medium(&self, tenant: u32, source: u32, id: &str) -> Result<Option<MediaRow>, CatalogError> {
        self.row(&keys::media(tenant, source, id)).await
    }

    /// Media that a source has as far as anybody knows, a page from `from` on: all but those that are known to be missing
    /// or changed.
    async fn present_of(
        &self,
        tenant: u32,
        source: u32,
        from: Option<Vec<u8>>,
    ) -> Result<(Vec<String>, Option<Vec<u8>>), CatalogError> {
        let prefix = keys::media_of(tenant, source);
        let page = self.store.scan(&prefix, from.as_deref().unwrap_or(&prefix), 4096).await?;
        let mut present = Vec::with_capacity(page.rows.len());
        // Without a version, a published one is missing or changed, or the catalog was rebuilt and awaits its first scan.
        let (mut doubtful, mut recordings) = (Vec::new(), Vec::new());
        for row in &page.rows {
            let Some(id) = keys::id_of_media(&row.key) else { continue };
            let media: MediaRow = rows::decode(&row.value)?;
            match media.place {
                Some(place) if media.told.version.is_empty() => {
                    doubtful.push(id.to_owned());
                    recordings.push(keys::recording(tenant, place));
                }
                _ => present.push(id.to_owned()),
            }
        }
        for (id, recording) in doubtful.into_iter().zip(self.store.get_many(&recordings).await?) {
            if let Some(recording) = recording
                && Recording::decode_listed(&recording.value)?.condition == Condition::Sound
            {
                present.push(id);
            }
        }
        Ok((present, page.next))
    }
}
