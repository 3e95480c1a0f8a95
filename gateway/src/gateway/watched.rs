//! What those who watch over the gateway ask of it.

use std::{collections::HashMap, sync::PoisonError, time::Instant};

use async_trait::async_trait;

use super::{Shared, now_ms, operations::SourceNow};
use crate::{
    catalog::{Counts, Overdue, SourceRow, UnmatchedRow, is_ahead},
    state::Chain,
    telemetry::{
        EntranceState, IndexState, ReadAheadState, RecordingStates, Snapshot, SourceState, TenantState,
        watch::Watched,
    },
};

#[async_trait]
impl Watched for Shared {
    async fn snapshot(&self) -> Snapshot {
        let now = now_ms();
        let overdue: HashMap<u32, Overdue> =
            self.overdue.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut tenants = Vec::new();
        for (tenant, sources) in self.sources_now() {
            let mut states = Vec::new();
            for source in &sources {
                let row = self.data.catalog.source(tenant.id, source.0.id).await.ok();
                let unmatched = self.data.catalog.unmatched(tenant.id, source.0.id).await.ok();
                states.push(source_state(source, row.as_ref(), unmatched, now));
            }
            tenants.push(TenantState {
                name: tenant.name.clone(),
                recordings: self.data.catalog.counts(tenant.id).await.ok().map(recording_states),
                index: overdue.get(&tenant.id).map(|overdue| index_state(*overdue, now)),
                sources: states,
            });
        }
        tenants.sort_by(|a, b| a.name.cmp(&b.name));
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let (running_checks, waiting_checks) = self.identity.password_checks();
        let throttle = self.identity.entrance().throttle().status(Instant::now());
        Snapshot {
            draining: self.drain.has_begun(),
            entrance: EntranceState {
                running_checks: count(running_checks),
                waiting_checks: count(waiting_checks),
                refused: count(throttle.refused),
                spared: count(throttle.spared),
            },
            read_ahead: ReadAheadState {
                in_use: self.reader.bytes_in_use(),
                budget: self.reader.budget_bytes(),
                files: count(self.reader.active_files()),
            },
            journals: vec![
                (Chain::Governance.name(), self.data.journal.head().sequence),
                (Chain::Access.name(), self.data.access.head().sequence),
            ],
            tenants,
        }
    }

    fn stuck(&self) -> Vec<String> {
        [&self.background_pulse, &self.housekeeping_pulse]
            .into_iter()
            .filter_map(|pulse| pulse.stuck())
            .collect()
    }

    async fn unready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.drain.has_begun() {
            reasons.push("draining".to_owned());
        } else {
            reasons.extend(self.door.troubles());
        }
        if let Err(error) = self.data.catalog.applied().await {
            tracing::error!(%error, "not ready: the catalog can't be read");
            reasons.push("the catalog can't be read; the log says why".to_owned());
        }
        reasons
    }
}

fn recording_states(counts: Counts) -> RecordingStates {
    let Counts { learned, published, orphans, missing, corrupt } = counts;
    RecordingStates {
        learned: learned.saturating_sub(orphans),
        orphan: orphans,
        published: published.saturating_sub(missing).saturating_sub(corrupt),
        missing,
        corrupt,
    }
}

fn index_state(overdue: Overdue, now_ms: i64) -> IndexState {
    let lag_seconds = overdue.since_ms.map_or(0.0, |since| seconds(now_ms.saturating_sub(since)));
    IndexState { overdue: overdue.indexes, lag_seconds, incomplete: overdue.incomplete }
}

fn source_state(
    (source, slot, progress): &SourceNow,
    row: Option<&SourceRow>,
    unmatched: Option<UnmatchedRow>,
    now_ms: i64,
) -> SourceState {
    let status = slot.instance().map(|instance| instance.status()).unwrap_or_default();
    // 0 is what was never told.
    let since = |at_ms: i64| (at_ms > 0).then(|| seconds(now_ms.saturating_sub(at_ms)));
    let scanned = progress.last_scan_ms.or_else(|| row.map(|row| row.scanned_ms));
    let count = |calls: usize| u64::try_from(calls).unwrap_or(u64::MAX);
    SourceState {
        name: source.name.clone(),
        problem: progress.error.is_some(),
        available: status.available,
        scanning: progress.scanning,
        watched: progress.watched,
        media: row.map_or(progress.media, |row| row.media),
        partial: progress.partial,
        complaints: progress.complaints,
        unmatched_facts: unmatched.map(|row| row.kept),
        facts_left_out: progress.left_out,
        lag_seconds: row
            .filter(|row| !is_ahead(row.watermark_ms, now_ms))
            .and_then(|row| since(row.watermark_ms)),
        scan_age_seconds: scanned.and_then(since),
        running_calls: count(status.running_calls),
        abandoned_calls: count(status.abandoned_calls),
        calls: slot.calls(),
    }
}

/// Seconds of a span; a clock that was set back makes none negative.
#[expect(clippy::cast_precision_loss, reason = "exact for 285 thousand years")]
fn seconds(ms: i64) -> f64 {
    ms.max(0) as f64 / 1000.0
}
