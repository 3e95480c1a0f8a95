//! What the admin API asks of the running gateway.

use std::{
    num::NonZeroU64,
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::Instant,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{Shared, data::head, now_ms, source::Running};
use crate::{
    admin::{
        AcceptLossReport, AcceptLossRequest, BackupReport, DoorStatus, Operations, PasswordChecks,
        PluginStatus, RecordingCounts, SessionCounts, SourceReport, Status, TenantStatus,
        records::OperationError,
    },
    catalog::{Actor, Progress, is_ahead},
    config::{Source, Tenant},
    sources::Slot,
    state::Chain,
};

#[async_trait]
impl Operations for Shared {
    async fn status(&self) -> Status {
        let mut tenants = Vec::new();
        let entrance = self.identity.entrance();
        let connections = entrance.admission().status();
        for (tenant, sources) in self.sources_now() {
            let counts = self.data.catalog.counts(tenant.id).await.unwrap_or_default();
            let mut reports = Vec::new();
            for (source, slot, progress) in sources {
                let row = self.data.catalog.source(tenant.id, source.id).await.unwrap_or_default();
                let unmatched = self.data.catalog.unmatched(tenant.id, source.id).await.unwrap_or_default();
                reports.push(report(&source, &slot, &progress, row.watermark_ms, unmatched.kept));
            }
            let (sessions, max_sessions) = self.identity.sessions(tenant.id);
            tenants.push(TenantStatus {
                id: tenant.id,
                name: tenant.name.clone(),
                sessions: count(sessions),
                max_sessions: max_sessions.map(count),
                bandwidth: tenant.quota.bandwidth.map(NonZeroU64::get),
                recordings: RecordingCounts {
                    learned: counts.learned,
                    published: counts.published,
                    orphans: counts.orphans,
                    missing: counts.missing,
                    corrupt: counts.corrupt,
                },
                sources: reports,
            });
        }
        tenants.sort_by_key(|tenant| tenant.id);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started,
            pid: std::process::id(),
            data_dir: self.dir.clone(),
            draining: self.drain.has_begun(),
            doors: self
                .door
                .addresses
                .iter()
                .map(|address| DoorStatus {
                    door: "sftp".to_owned(),
                    address: address.to_string(),
                    host_keys: self.door.host_keys.clone(),
                })
                .collect(),
            metrics: self.metrics.map(|address| address.to_string()),
            sessions: SessionCounts::new(&connections, entrance.admission().caps()),
            throttle: entrance.throttle().status(Instant::now()).into(),
            password_checks: Some(PasswordChecks::new(self.identity.password_checks())),
            settings: Some(self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()),
            tenants,
            journals: vec![
                head(Chain::Governance, self.data.journal.head()),
                head(Chain::Access, self.data.access.head()),
            ],
        }
    }

    async fn accept_loss(
        &self,
        request: AcceptLossRequest,
        by: Actor,
    ) -> Result<AcceptLossReport, OperationError> {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        let mut sources: Vec<_> = running
            .values()
            .flat_map(|tenant| tenant.sources.iter().map(move |source| (&tenant.tenant, source)))
            .map(|(tenant, source)| (format!("{}/{}", tenant.name, source.source.name), source))
            .collect();
        sources.sort_by(|(a, _), (b, _)| a.cmp(b));
        let Some((name, source)) = sources.iter().find(|(name, _)| *name == request.source) else {
            let names: Vec<_> = sources.iter().map(|(name, _)| name.as_str()).collect();
            return Err(OperationError::NotFound(format!(
                "there is no source {:?}; there is {}",
                request.source,
                if names.is_empty() { "none".to_owned() } else { names.join(", ") }
            )));
        };
        let mut progress = source.progress.write().unwrap_or_else(PoisonError::into_inner);
        let Some(media) = progress.unbelieved_loss else {
            let reason = format!("{name}: its last full scan missed nothing that has to be accepted");
            return Err(OperationError::Invalid { field: "source", reason });
        };
        progress.accepted_loss = Some(media);
        tracing::warn!(source = %name, media, %by, "what has vanished is accepted as lost: the next full scan marks it missing");
        source.wake.notify_one();
        Ok(AcceptLossReport { source: name.clone(), media })
    }

    async fn backup(&self, directory: PathBuf) -> Result<BackupReport, String> {
        self.data.backup(&directory).await.map_err(|error| error.to_string())
    }
}

impl Shared {
    /// The tenants with their sources and how they go, copied out: so that nothing is locked while a store is asked.
    pub(super) fn sources_now(&self) -> Vec<(Arc<Tenant>, Vec<SourceNow>)> {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        let source = |running: &Running| {
            let progress = running.progress.read().unwrap_or_else(PoisonError::into_inner).clone();
            (running.source.clone(), Arc::clone(&running.slot), progress)
        };
        running
            .values()
            .map(|running| (Arc::clone(&running.tenant), running.sources.iter().map(source).collect()))
            .collect()
    }
}

/// A source with where its instance is and how its scans go.
pub(super) type SourceNow = (Source, Arc<Slot>, Progress);

fn count(sessions: usize) -> u64 {
    u64::try_from(sessions).unwrap_or(u64::MAX)
}

fn report(
    source: &Source,
    slot: &Slot,
    progress: &Progress,
    watermark_ms: i64,
    unmatched_facts: u64,
) -> SourceReport {
    let status = slot.instance().map(|instance| instance.status()).unwrap_or_default();
    let now = now_ms();
    let lag = now.saturating_sub(watermark_ms);
    SourceReport {
        id: source.id,
        name: source.name.clone(),
        plugin: source.plugin.clone(),
        scanning: progress.scanning,
        watched: progress.watched,
        watch_problem: progress.watch_problem.clone(),
        partial: progress.partial,
        complaints: progress.complaints,
        complaint: progress.complaint.clone(),
        unmatched_facts,
        facts_left_out: progress.left_out,
        media: progress.media,
        last_scan: progress.last_scan_ms.and_then(DateTime::<Utc>::from_timestamp_millis),
        lag_seconds: (watermark_ms > 0 && !is_ahead(watermark_ms, now))
            .then(|| u64::try_from(lag / 1000).unwrap_or(0)),
        problem: progress.error.clone(),
        plugin_status: PluginStatus::from(status),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::path::Path;

    use super::*;
    use crate::gateway::Gateway;

    #[tokio::test(flavor = "multi_thread")]
    async fn only_a_loss_that_was_seen_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let text = "data_dir = \"data\"\n[ssh]\nlisten = [\"127.0.0.1:0\"]\n[[tenant]]\nid = 1\nname = \"acme\"\n\
                    zone = \"UTC\"\n[[tenant.source]]\nid = 1\nname = \"pbx\"\nplugin = \"there-is-none\"\n";
        let config = crate::config::parse(Path::new("recgate.toml"), text, dir.path())
            .unwrap_or_else(|problems| panic!("{problems}"));
        let gateway = Gateway::start(config, None, Vec::new()).await.unwrap();
        let shared = Arc::clone(&gateway.shared);
        let accept = async |source: &str| {
            let request = AcceptLossRequest { source: source.to_owned() };
            shared.accept_loss(request, Actor::LocalUser(0)).await.map_err(|error| error.to_string())
        };
        assert_eq!(accept("pbx").await.unwrap_err(), "there is no source \"pbx\"; there is acme/pbx");
        assert_eq!(
            accept("acme/pbx").await.unwrap_err(),
            "source: acme/pbx: its last full scan missed nothing that has to be accepted"
        );
        let progress = {
            let running = shared.running.read().unwrap();
            Arc::clone(&running.get(&1).unwrap().sources.first().unwrap().progress)
        };
        progress.write().unwrap().unbelieved_loss = Some(7);
        let report = accept("acme/pbx").await.unwrap();
        assert_eq!(report, AcceptLossReport { source: "acme/pbx".to_owned(), media: 7 });
        assert_eq!(progress.read().unwrap().accepted_loss, Some(7));
    }
}
