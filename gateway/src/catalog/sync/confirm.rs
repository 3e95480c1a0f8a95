//! What a source seems to have lost or changed is asked for before it is believed.

use recgate_plugin_api::{ErrorCode, Media};
use tokio_util::sync::CancellationToken;

use super::{ScanError, Synchroniser, VANISH_PERCENT};
use crate::{
    catalog::{
        Catalog, CatalogError, keys,
        rows::{self, Condition, MediaRow},
    },
    sources::SourceError,
};

impl Synchroniser {
    /// A published medium that was told with another version is asked for again before that is believed.
    pub(super) async fn confirm_changed(
        &self,
        stop: &CancellationToken,
        changed: Vec<(String, String)>,
    ) -> Result<(), ScanError> {
        for (id, pinned) in changed {
            match self.ask(stop, &id).await? {
                Ok(media) if media.version == pinned => {}
                Ok(_) => {
                    let marked = self.mark(std::slice::from_ref(&id), Condition::Corrupt).await?;
                    if marked > 0 {
                        tracing::error!(tenant = %self.tenant.name, source = %self.source.name, media = %id, "its content has changed since it was published: it is no longer served");
                    }
                }
                Err(error) if error.error.code == ErrorCode::NotFound => {}
                Err(error) if error.error.code.is_retryable() => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(tenant = %self.tenant.name, media = %id, %error, "told with another version, and not to be asked for")
                }
            }
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

    /// Media that the scan no longer told are missing if the source confirms each, and if they are few.
    ///
    /// Those that were told by another spelling of their ids are no sign of an unmounted disk: where the storage doesn't
    /// tell cases apart, they answer to both.
    pub(super) async fn confirm_vanished(&self, stop: &CancellationToken) -> Result<(), ScanError> {
        let (mut known, mut vanished) = (0_u64, Vec::new());
        let mut from = None;
        loop {
            let (page, next) = self.catalog.media_of(self.tenant.id, self.source.id, from).await?;
            for (id, row) in page {
                if row.told.version.is_empty() {
                    continue;
                }
                known = known.saturating_add(1);
                if !self.heard.was_told(&id) {
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
        let count = vanished.iter().filter(|id| !self.heard.was_respelled(id)).count() as u64;
        // A single one may always go, so that small archives work; but never the last.
        let allowed = (known.saturating_mul(VANISH_PERCENT) / 100).max(1);
        if count > allowed || count == known {
            return Err(ScanError::Vanished { vanished: count, known });
        }
        let mut confirmed = Vec::new();
        for id in vanished {
            match self.ask(stop, &id).await? {
                Ok(_) => {}
                Err(error) if error.error.code == ErrorCode::NotFound => confirmed.push(id),
                Err(error) if error.error.code.is_retryable() => return Err(error.into()),
                // Not to be read isn't gone.
                Err(error) => {
                    tracing::warn!(tenant = %self.tenant.name, media = %id, %error, "not told any more, and not to be asked for")
                }
            }
        }
        // What the watch has told meanwhile has come back.
        confirmed.retain(|id| !self.heard.was_told(id));
        let count = confirmed.len() as u64;
        if count > allowed {
            return Err(ScanError::Vanished { vanished: count, known });
        }
        let marked = self.mark(&confirmed, Condition::Missing).await?;
        for id in confirmed.iter().filter(|id| self.heard.was_respelled(id)) {
            tracing::warn!(tenant = %self.tenant.name, source = %self.source.name, media = %id, "it is not there any more under this spelling of its id: the other one is a new recording");
        }
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
    /// What is known of a medium; `None` where it was never told.
    async fn medium(&self, tenant: u32, source: u32, id: &str) -> Result<Option<MediaRow>, CatalogError> {
        self.row(&keys::media(tenant, source, id)).await
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
