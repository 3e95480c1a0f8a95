//! What the admin API asks of the running gateway.

use std::{path::PathBuf, sync::PoisonError, time::Instant};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{Shared, data::head, now_ms};
use crate::{
    admin::{
        BackupReport, DoorStatus, Operations, PluginStatus, RecordingCounts, SessionCounts, SourceReport,
        Status, TenantStatus,
    },
    catalog::Progress,
    config::Source,
    sources::Slot,
    state::Chain,
};

#[async_trait]
impl Operations for Shared {
    async fn status(&self) -> Status {
        let mut tenants = Vec::new();
        // Copied out, so that the lock isn't held while the store is asked.
        let running: Vec<_> = {
            let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
            running
                .values()
                .map(|running| {
                    let sources: Vec<_> = running
                        .sources
                        .iter()
                        .map(|running| {
                            let progress =
                                running.progress.read().unwrap_or_else(PoisonError::into_inner).clone();
                            (running.source.clone(), std::sync::Arc::clone(&running.slot), progress)
                        })
                        .collect();
                    (std::sync::Arc::clone(&running.tenant), sources)
                })
                .collect()
        };
        let entrance = self.identity.entrance();
        let connections = entrance.admission().status();
        for (tenant, sources) in running {
            let counts = self.data.catalog.counts(tenant.id).await.unwrap_or_default();
            let mut reports = Vec::new();
            for (source, slot, progress) in sources {
                let row = self.data.catalog.source(tenant.id, source.id).await.unwrap_or_default();
                reports.push(report(&source, &slot, &progress, row.watermark_ms));
            }
            tenants.push(TenantStatus {
                id: tenant.id,
                name: tenant.name.clone(),
                sessions: connections.tenants.get(&tenant.id).map_or(0, |sessions| *sessions as u64),
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
                    host_keys: vec![self.door.host_key_sha256.clone()],
                })
                .collect(),
            sessions: SessionCounts::new(&connections, entrance.admission().caps()),
            throttle: entrance.throttle().status(Instant::now()).into(),
            tenants,
            journals: vec![
                head(Chain::Governance, self.data.journal.head()),
                head(Chain::Access, self.data.access.head()),
            ],
        }
    }

    async fn backup(&self, directory: PathBuf) -> Result<BackupReport, String> {
        self.data.backup(&directory).await.map_err(|error| error.to_string())
    }
}

fn report(source: &Source, slot: &Slot, progress: &Progress, watermark_ms: i64) -> SourceReport {
    let status = slot.instance().map(|instance| instance.status()).unwrap_or_default();
    let lag = now_ms().saturating_sub(watermark_ms);
    SourceReport {
        id: source.id,
        name: source.name.clone(),
        plugin: source.plugin.clone(),
        scanning: progress.scanning,
        media: progress.media,
        last_scan: progress.last_scan_ms.and_then(DateTime::<Utc>::from_timestamp_millis),
        lag_seconds: (watermark_ms > 0).then(|| u64::try_from(lag / 1000).unwrap_or(0)),
        problem: progress.error.clone(),
        plugin_status: PluginStatus::from(status),
    }
}
