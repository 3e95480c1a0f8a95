//! Facts that join no medium, within a bound.
//!
//! Facts may come long before their media, or for media that never come: a call whose recording was deleted, a row of an
//! archive's index whose file nobody kept. They wait, and as many of a source are kept as the bound says: those of the
//! newest calls. The others can't be told from facts whose media just hasn't been told yet, so they are dropped only
//! after a complete scan. What was dropped is told again by the next scan; it isn't taken in again, as long as there is
//! no room, unless its medium is there by then. Facts that have joined a medium once don't count, whatever becomes of it.

use recgate_plugin_api::fact;
use serde::{Deserialize, Serialize};

use super::{
    Catalog, CatalogError, join, keys,
    rows::{FactsRow, JoinRow},
    txn::Txn,
};

/// Sets of facts of one source that are kept though they join no medium.
pub const UNMATCHED_MAX: u64 = 100_000;

/// How many times more there may be while a scan runs that may still tell their media.
const AT_ONCE: u64 = 20;

/// Sets of facts that are dropped in one commit.
const DROPPED_AT_ONCE: usize = 512;

/// How many facts of a source join no medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UnmatchedRow {
    /// Those that are kept.
    pub kept: u64,
    /// Of the calls until then (Unix milliseconds UTC) none are, for want of room.
    pub dropped_until_ms: Option<i64>,
}

/// The time by which the oldest facts are told from the newest: the start of the call. Those that tell none go first.
pub fn age(values: &[(String, String)], now_ms: i64) -> i64 {
    let start = values.iter().find(|(key, _)| key == fact::STARTED_AT);
    // A start to come would stay for ever.
    start.and_then(|(_, start)| start.parse::<i64>().ok()).unwrap_or(0).clamp(0, now_ms.max(0))
}

/// Whether facts with these keys have a medium.
pub async fn joins_media(
    txn: &mut Txn<'_>,
    tenant: u32,
    source: u32,
    facts_keys: &[(u32, String)],
) -> Result<bool, CatalogError> {
    for (kind, value) in facts_keys {
        let join = txn.get::<JoinRow>(&keys::join(tenant, source, *kind, value)).await?;
        if join.is_some_and(|join| !join.media.is_empty()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes in facts of this age that join no medium, if there is room.
pub async fn take_in(
    txn: &mut Txn<'_>,
    most: u64,
    (tenant, source, id): (u32, u32, &str),
    age_ms: i64,
) -> Result<bool, CatalogError> {
    let key = keys::unmatched_count(tenant, source);
    let mut row: UnmatchedRow = txn.get(&key).await?.unwrap_or_default();
    if row.kept >= most.saturating_mul(AT_ONCE) || row.dropped_until_ms.is_some_and(|until| age_ms <= until) {
        return Ok(false);
    }
    row.kept = row.kept.saturating_add(1);
    txn.put(key, &row)?;
    txn.put(keys::unmatched(tenant, source, age_ms, id), &())?;
    Ok(true)
}

/// Facts of this age have joined a medium, or are no longer kept.
pub async fn let_go(
    txn: &mut Txn<'_>,
    (tenant, source, id): (u32, u32, &str),
    age_ms: i64,
) -> Result<(), CatalogError> {
    let key = keys::unmatched_count(tenant, source);
    let mut row: UnmatchedRow = txn.get(&key).await?.unwrap_or_default();
    row.kept = row.kept.saturating_sub(1);
    txn.put(key, &row)?;
    txn.delete(keys::unmatched(tenant, source, age_ms, id));
    Ok(())
}

/// A medium has these keys now: facts that waited for it have joined one.
pub async fn matched(
    txn: &mut Txn<'_>,
    tenant: u32,
    source: u32,
    media_keys: &[(u32, String)],
) -> Result<(), CatalogError> {
    for (kind, value) in media_keys {
        let join = txn.get::<JoinRow>(&keys::join(tenant, source, *kind, value)).await?;
        for id in join.map(|join| join.facts).unwrap_or_default() {
            let key = keys::facts(tenant, source, &id);
            let Some(mut facts) = txn.get::<FactsRow>(&key).await? else { continue };
            if let Some(age_ms) = facts.unmatched_since.take() {
                let_go(txn, (tenant, source, &id), age_ms).await?;
                txn.put(key, &facts)?;
            }
        }
    }
    Ok(())
}

impl Catalog {
    /// How many facts of a source join no medium.
    pub async fn unmatched(&self, tenant: u32, source: u32) -> Result<UnmatchedRow, CatalogError> {
        Ok(self.row(&keys::unmatched_count(tenant, source)).await?.unwrap_or_default())
    }

    /// Drops what is more than the bound, the oldest first. Called after a complete scan, which has told all media.
    /// Returns how many were dropped.
    pub(super) async fn drop_unmatched(&self, tenant: u32, source: u32) -> Result<u64, CatalogError> {
        let (count_key, prefix) =
            (keys::unmatched_count(tenant, source), keys::all_unmatched(tenant, source));
        let mut dropped = 0_u64;
        loop {
            let mut writer = self.writer.lock().await;
            self.ensure_caught_up(&mut writer).await?;
            let mut txn = Txn::new(&*self.store);
            let mut row: UnmatchedRow = txn.get(&count_key).await?.unwrap_or_default();
            let excess = row.kept.saturating_sub(self.unmatched_max);
            if excess == 0 {
                // Only when there is much room: else what was dropped would come in and go with every scan.
                if row.dropped_until_ms.is_some() && row.kept <= self.unmatched_max / 2 {
                    row.dropped_until_ms = None;
                    txn.put(count_key, &row)?;
                    self.record(&mut writer, txn, Vec::new()).await?;
                }
                return Ok(dropped);
            }
            let page = usize::try_from(excess).unwrap_or(DROPPED_AT_ONCE).min(DROPPED_AT_ONCE);
            let oldest = self.store.scan(&prefix, &prefix, page).await?.rows;
            for (age_ms, id) in oldest.iter().filter_map(|row| keys::parse_unmatched(&row.key)) {
                let key = keys::facts(tenant, source, id);
                let facts = txn.get::<FactsRow>(&key).await?;
                for (kind, value) in facts.map(|facts| facts.keys).unwrap_or_default() {
                    let key = keys::join(tenant, source, kind, &value);
                    join::change(&mut txn, key, |row| &mut row.facts, id, false).await?;
                }
                txn.delete(key);
                txn.delete(keys::unmatched(tenant, source, age_ms, id));
                row.dropped_until_ms = row.dropped_until_ms.max(Some(age_ms));
            }
            let gone = oldest.len() as u64;
            // Without one to drop the count is wrong; there are none.
            row.kept = if gone == 0 { 0 } else { row.kept.saturating_sub(gone) };
            dropped = dropped.saturating_add(gone);
            txn.put(count_key.clone(), &row)?;
            self.record(&mut writer, txn, Vec::new()).await?;
        }
    }
}
