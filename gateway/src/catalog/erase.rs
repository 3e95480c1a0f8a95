//! Erasing what is personal about a recording, so that it stays erased.
//!
//! Facts are personal, all but those of [`KEPT`]: times, lengths, the direction and the queue of a call say nothing
//! about a person who isn't known already. Numbers, names, accounts, cases, codes, the source's id of the call (it
//! leads back to the person there) and every key that the gateway doesn't know are erased.
//!
//! The journal says that it was done, and for which facts; it never held a value. From then on a mark stands for the
//! recording and one for each of its facts: a source that tells them again is believed about what is kept, and about
//! nothing else. Facts that other recordings have in common with the erased one stay for those, until they are erased
//! as well.
//!
//! Index files that hold what was erased are replaced, and their other generations are removed from the disk. A row
//! stands for that work until it is done, so that neither a crash nor a full disk ends it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use recgate_plugin_api::{Item, fact};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Catalog, CatalogError, IndexPart, Turn, Writer, apply,
    entries::{Actor, Entry, FactsErased, Subject},
    join, keys,
    keys::Place,
    recover,
    rows::{self, FactsRow, FolderRow, JoinRow, MediaRow, Recording, RootIndexRow, Told},
    txn::Txn,
};
use crate::{
    config::Tenant,
    layout::{LocalDay, UtcDay},
    state::Pages,
};

/// Keys of facts that aren't personal.
pub const KEPT: [&str; 6] = [
    fact::STARTED_AT,
    fact::STOPPED_AT,
    fact::DURATION_MS,
    fact::CALL_TYPE,
    fact::QUEUE_TYPE,
    fact::QUEUE_NAME,
];

/// Bytes of facts' ids in one entry of the journal, which takes 64 KiB. An id has at most 1024 bytes, and six times as
/// many where each of them is escaped.
const IDS_BYTES: usize = 40 << 10;

/// Whether an erasure takes the values of this key away.
pub fn is_personal(key: &str) -> bool {
    !KEPT.contains(&key)
}

/// That something was erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasedRow {
    /// When, Unix milliseconds UTC.
    pub at_ms: i64,
    /// By whom.
    pub by: Actor,
    /// The note that says why.
    pub note: Option<Uuid>,
}

/// Index files that may hold what was erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct ErasingRow {
    /// Another for each erasure, so that one that comes while the files are written isn't taken for done.
    change: [u8; 16],
}

/// What an erasure takes away, or has taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// The recording.
    pub subject: Subject,
    /// Where it stands, and the local day (days since 1970-01-01) of its root index; `None` without a name.
    pub place: Option<(Place, i32)>,
    /// Keys of the personal values that are there.
    pub values: BTreeSet<String>,
    /// Ids of the facts that are erased.
    pub facts: Vec<String>,
    /// Facts that stay, because these other recordings have them, too.
    pub shared: Vec<(String, Vec<Uuid>)>,
    /// The erasure before this one.
    pub before: Option<ErasedRow>,
    /// Whether there is anything to do.
    pub is_needed: bool,
}

impl Catalog {
    /// What an erasure would take away; `None` where there is no such medium.
    pub async fn plan_erasure(
        &self,
        tenant: u32,
        source: u32,
        media: &str,
    ) -> Result<Option<Erasure>, CatalogError> {
        plan(&mut Txn::new(&*self.store), tenant, source, media).await
    }

    /// Erases the personal values of a recording's facts from the catalog, for good: journal first, as always. The
    /// index files follow with [`Catalog::finish_erasures`]. Done again, it takes what has come since, if anything.
    pub async fn erase_facts(
        &self,
        tenant: u32,
        source: u32,
        media: &str,
        by: Actor,
        note: Option<Uuid>,
        now_ms: i64,
    ) -> Result<Option<Erasure>, CatalogError> {
        let mut writer = self.writer.lock().await;
        self.ensure_caught_up(&mut writer).await?;
        let mut txn = Txn::new(&*self.store);
        let Some(erasure) = plan(&mut txn, tenant, source, media).await? else { return Ok(None) };
        if !erasure.is_needed {
            return Ok(Some(erasure));
        }
        let mut entries = Vec::new();
        for facts in portions(&erasure.facts) {
            let entry = FactsErased { subject: erasure.subject.clone(), facts, by, note };
            facts_erased(&mut txn, &entry, now_ms).await?;
            entries.push(Entry::FactsErased(entry));
        }
        // Before the journal is written: whatever fails then, the next one to ingest looks for marks.
        writer.erasures.insert(tenant, true);
        self.record(&mut writer, txn, entries).await?;
        Ok(Some(erasure))
    }

    /// Whether an erasure's index files are still to be written anew or removed.
    pub async fn is_erasing(&self, erasure: &Erasure) -> Result<bool, CatalogError> {
        let Some((place, local_day)) = erasure.place else { return Ok(false) };
        let key = keys::erasing(erasure.subject.tenant, local_day, place.day);
        Ok(self.store.get(&key).await?.is_some())
    }

    /// Replaces the index files that may hold what was erased, and removes their other generations from the disk.
    /// Called at start; what fails is logged and tried again.
    pub async fn finish_erasures(&self, tenant: &Tenant, now_ms: i64) -> Result<u64, CatalogError> {
        self.finish_some_erasures(tenant, now_ms, &mut Turn::whole()).await
    }

    /// As many of them as belong to the turn. Called at intervals.
    pub(super) async fn finish_some_erasures(
        &self,
        tenant: &Tenant,
        now_ms: i64,
        turn: &mut Turn<'_>,
    ) -> Result<u64, CatalogError> {
        let (mut pages, mut finished) = (Pages::of(&*self.store, keys::all_erasing(tenant.id)), 0);
        while let Some(page) = pages.next(super::PAGE).await? {
            for row in &page {
                let days = keys::days_of_erasing(&row.key).and_then(|(local, utc)| {
                    Some((LocalDay::from_number(local)?, UtcDay::from_number(utc)?))
                });
                let Some((local_day, utc_day)) = days else { continue };
                let erasing = rows::decode(&row.value)?;
                match self.replace_files(tenant, local_day, utc_day, erasing, now_ms).await {
                    Ok(()) => finished += 1,
                    Err(error) => {
                        tracing::error!(tenant = %tenant.name, day = %local_day, folder = %utc_day, %error, "index files that hold erased values could not be replaced; it is tried again")
                    }
                }
                turn.beat();
                if turn.is_over(finished) {
                    return Ok(finished);
                }
            }
        }
        Ok(finished)
    }

    async fn replace_files(
        &self,
        tenant: &Tenant,
        local_day: LocalDay,
        utc_day: UtcDay,
        erasing: ErasingRow,
        now_ms: i64,
    ) -> Result<(), CatalogError> {
        // A build that has read before the erasure ends first.
        let building = self.builds.lock().await;
        let root = self.root_index(tenant.id, local_day).await?;
        if root.is_some_and(|row| row.file.generation != 0) {
            let end = tenant.zone.end_of(local_day).unwrap_or(i64::MIN);
            let incomplete = self.watermark(tenant, now_ms).await? < end;
            self.publish_root(&building, tenant, local_day, incomplete, now_ms).await?;
        }
        if self.folder(tenant.id, utc_day).await?.is_some_and(|row| row.dirty_since_ms.is_some()) {
            self.rewrite_folder(&building, tenant, utc_day, now_ms).await?;
        }
        let mut writer = self.writer.lock().await;
        self.ensure_caught_up(&mut writer).await?;
        let mut txn = Txn::new(&*self.store);
        let root: RootIndexRow = txn.get(&keys::root_index(tenant.id, local_day)).await?.unwrap_or_default();
        let folder: FolderRow = txn.get(&keys::folder(tenant.id, utc_day)).await?.unwrap_or_default();
        let generations = [
            (IndexPart::Root(local_day), root.file),
            (IndexPart::Brief(utc_day), folder.brief),
            (IndexPart::Full(utc_day), folder.full),
            (IndexPart::Media(utc_day), folder.media),
        ];
        for (part, file) in generations {
            self.remove_other_generations(tenant.id, part, file.generation)?;
            // What was removed must not be there again after a power failure.
            let path = self.index_path(tenant.id, part, file.generation);
            if let Some(folder) = path.parent().filter(|folder| folder.is_dir()) {
                crate::state::sync_folder(folder)
                    .map_err(|source| CatalogError::Index { path: folder.to_owned(), source })?;
            }
        }
        let key = keys::erasing(tenant.id, local_day.number(), utc_day.number());
        if txn.get::<ErasingRow>(&key).await? == Some(erasing) {
            txn.delete(key);
            self.record(&mut writer, txn, Vec::new()).await?;
        }
        Ok(())
    }

    /// Whether anything of the tenant was ever erased. Where nothing was, no mark has to be looked for.
    pub(super) async fn has_erasures(&self, writer: &mut Writer, tenant: u32) -> Result<bool, CatalogError> {
        self.has_any(&mut writer.erasures, tenant, &keys::all_erased(tenant)).await
    }

    /// Whether the store has any row below a tenant's prefix, which is looked up once.
    pub(super) async fn has_any(
        &self,
        known: &mut HashMap<u32, bool>,
        tenant: u32,
        prefix: &[u8],
    ) -> Result<bool, CatalogError> {
        if let Some(any) = known.get(&tenant) {
            return Ok(*any);
        }
        let any = !self.store.scan(prefix, prefix, 1).await?.rows.is_empty();
        known.insert(tenant, any);
        Ok(any)
    }
}

/// The ids in portions that an entry of the journal takes; one at least, maybe empty.
fn portions(ids: &[String]) -> Vec<Vec<String>> {
    let mut portions = vec![Vec::new()];
    let mut bytes = 0;
    for id in ids {
        let length = serde_json::Value::from(id.as_str()).to_string().len().saturating_add(1);
        if bytes + length > IDS_BYTES && bytes > 0 {
            portions.push(Vec::new());
            bytes = 0;
        }
        bytes += length;
        if let Some(last) = portions.last_mut() {
            last.push(id.clone());
        }
    }
    portions
}

async fn plan(
    txn: &mut Txn<'_>,
    tenant: u32,
    source: u32,
    media: &str,
) -> Result<Option<Erasure>, CatalogError> {
    let Some(row) = txn.get::<MediaRow>(&keys::media(tenant, source, media)).await? else {
        return Ok(None);
    };
    let before = txn.get::<ErasedRow>(&keys::erased_media(tenant, source, media)).await?;
    let mut is_needed = before.is_none();
    let (mut values, mut facts, mut shared) = (BTreeSet::new(), Vec::new(), Vec::new());
    let mut place = None;
    if let Some(at) = row.place
        && let Some(recording) = txn.get::<Recording>(&keys::recording(tenant, at)).await?
    {
        place = Some((at, recording.frozen.local_day));
        values.extend(recording.details.values.into_keys().filter(|key| is_personal(key)));
    }
    for (id, facts_row) in join::joined_rows(txn, tenant, source, &row.told).await? {
        let others = others(txn, tenant, source, media, &facts_row).await?;
        if !others.is_empty() {
            shared.push((id, others));
            continue;
        }
        is_needed |= txn.get::<ErasedRow>(&keys::erased_facts(tenant, source, &id)).await?.is_none();
        values.extend(facts_row.values.into_iter().map(|(key, _)| key).filter(|key| is_personal(key)));
        facts.push(id);
    }
    is_needed |= !values.is_empty();
    let subject = Subject { tenant, uid: Uuid::from_bytes(row.uid), source, media: media.to_owned() };
    Ok(Some(Erasure { subject, place, values, facts, shared, before, is_needed }))
}

/// Recordings besides this one that facts belong to and that aren't erased.
async fn others(
    txn: &mut Txn<'_>,
    tenant: u32,
    source: u32,
    media: &str,
    facts: &FactsRow,
) -> Result<Vec<Uuid>, CatalogError> {
    let mut joined = BTreeSet::new();
    for (kind, value) in &facts.keys {
        let row = txn.get::<JoinRow>(&keys::join(tenant, source, *kind, value)).await?.unwrap_or_default();
        joined.extend(row.media);
    }
    joined.remove(media);
    let mut others = Vec::new();
    for id in joined {
        let erased = txn.get::<ErasedRow>(&keys::erased_media(tenant, source, &id)).await?.is_some();
        if !erased && let Some(row) = txn.get::<MediaRow>(&keys::media(tenant, source, &id)).await? {
            others.push(Uuid::from_bytes(row.uid));
        }
    }
    Ok(others)
}

/// Applies an erasure, a new one or one that a store lacks.
pub async fn facts_erased(txn: &mut Txn<'_>, entry: &FactsErased, at_ms: i64) -> Result<(), CatalogError> {
    let Subject { tenant, source, media, .. } = &entry.subject;
    let (tenant, source) = (*tenant, *source);
    let mark = ErasedRow { at_ms, by: entry.by, note: entry.note };
    txn.put(keys::erased_media(tenant, source, media), &mark)?;
    for id in &entry.facts {
        strip_facts(txn, tenant, source, id, &mark).await?;
    }
    let Some(row) = txn.get::<MediaRow>(&keys::media(tenant, source, media)).await? else { return Ok(()) };
    let Some(place) = row.place else { return Ok(()) };
    let key = keys::recording(tenant, place);
    let Some(mut recording) = txn.get::<Recording>(&key).await? else { return Ok(()) };
    recording.details.values.retain(|key, _| !is_personal(key));
    recover::strip(txn, tenant, source, media).await?;
    let local_day = recording.frozen.local_day;
    txn.put(key, &recording)?;
    apply::folder_changed(txn, tenant, place, apply::AT_ONCE).await?;
    apply::root_index_changed(txn, tenant, local_day, at_ms).await?;
    let change = *Uuid::now_v7().as_bytes();
    txn.put(keys::erasing(tenant, local_day, place.day), &ErasingRow { change })
}

/// Takes the personal values out of a row of facts and marks it.
async fn strip_facts(
    txn: &mut Txn<'_>,
    tenant: u32,
    source: u32,
    id: &str,
    mark: &ErasedRow,
) -> Result<(), CatalogError> {
    txn.put(keys::erased_facts(tenant, source, id), mark)?;
    let key = keys::facts(tenant, source, id);
    match txn.get::<FactsRow>(&key).await? {
        Some(mut row) => {
            row.values.retain(|(key, _)| !is_personal(key));
            txn.put(key, &row)
        }
        None => Ok(()),
    }
}

/// The key of the mark that decides about an item.
pub fn mark_of(tenant: u32, source: u32, item: &Item) -> Option<Vec<u8>> {
    match item {
        Item::Media(media) => Some(keys::erased_media(tenant, source, &media.id)),
        Item::Facts(facts) => Some(keys::erased_facts(tenant, source, &facts.id)),
        Item::MediaGone(_) => None,
    }
}

/// Whether these facts were erased, so that only [`KEPT`] values of them count.
pub async fn are_erased(
    txn: &mut Txn<'_>,
    tenant: u32,
    source: u32,
    facts: &str,
) -> Result<bool, CatalogError> {
    Ok(txn.get::<ErasedRow>(&keys::erased_facts(tenant, source, facts)).await?.is_some())
}

/// Whether what is personal about a medium was erased.
pub async fn is_erased(
    txn: &mut Txn<'_>,
    tenant: u32,
    source: u32,
    media: &str,
) -> Result<bool, CatalogError> {
    Ok(txn.get::<ErasedRow>(&keys::erased_media(tenant, source, media)).await?.is_some())
}

/// What joined facts say about a medium, without what was erased. Facts that have come since the erasure and belong to
/// nothing else are stripped, too.
pub async fn without_erased(
    txn: &mut Txn<'_>,
    tenant: u32,
    source: u32,
    media: &str,
    told: &Told,
    mut values: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, CatalogError> {
    if !values.keys().any(|key| is_personal(key)) {
        return Ok(values);
    }
    let Some(mark) = txn.get::<ErasedRow>(&keys::erased_media(tenant, source, media)).await? else {
        return Ok(values);
    };
    for (id, facts) in join::joined_rows(txn, tenant, source, told).await? {
        let personal = facts.values.iter().any(|(key, _)| is_personal(key));
        if personal && others(txn, tenant, source, media, &facts).await?.is_empty() {
            strip_facts(txn, tenant, source, &id, &mark).await?;
        }
    }
    values.retain(|key, _| !is_personal(key));
    Ok(values)
}

#[cfg(test)]
mod tests;
