//! What an entry of the journal means for the store. Used when the entry is new, and again, to the same
//! effect, when a store is brought up to the journal.

use super::{
    CatalogError,
    entries::{Adopted, Entry, Learned, Published, Subject},
    erase, join, keys,
    keys::Place,
    rows::{
        Condition, Counts, Details, FolderRow, Frozen, Listed, MediaRow, Recording, RootIndexRow, TenantRow,
        Told,
    },
    txn::Txn,
};
use crate::layout::{LocalDay, UtcDay};

/// Applies an entry that a store lacks. What isn't in the journal (facts, join keys) comes with the next scan.
pub async fn replay(txn: &mut Txn<'_>, entry: &Entry, now_ms: i64) -> Result<(), CatalogError> {
    match entry {
        Entry::Learned(entry) => {
            let row = MediaRow {
                uid: *entry.uid.as_bytes(),
                place: None,
                due_ms: None,
                orphan: false,
                told: Told::default(),
            };
            learned(txn, entry, &row).await
        }
        Entry::Published(entry) => {
            // Facts that the store has already count; those that it has lost come with the next scan.
            let key = keys::media(entry.tenant, entry.source, &entry.media);
            let before = txn.get::<MediaRow>(&key).await?;
            let told = before.as_ref().map(|row| row.told.clone()).unwrap_or_default();
            let values = join::joined(txn, entry.tenant, entry.source, &told).await?;
            let details = Details {
                start_ms: entry.start_ms,
                stop_ms: entry.stop_ms,
                duration_ms: entry.duration_ms,
                values: erase::without_erased(txn, entry.tenant, entry.source, &entry.media, &told, values)
                    .await?,
            };
            published(txn, entry, before, details, now_ms).await?;
            // The rows that the index files hold are not known to be there.
            let place = Place { day: entry.day, second: entry.second, sequence: entry.sequence };
            folder_changed(txn, entry.tenant, place, AT_ONCE).await?;
            running_index_changed(txn, entry.tenant, entry.local_day).await
        }
        Entry::Adopted(entry) => adopted(txn, entry, now_ms).await,
        Entry::Orphaned(subject) => {
            let key = keys::media(subject.tenant, subject.source, &subject.media);
            match txn.get::<MediaRow>(&key).await? {
                Some(row) => orphaned(txn, subject, row).await,
                None => Ok(()),
            }
        }
        Entry::Vanished(subject) => {
            let key = keys::media(subject.tenant, subject.source, &subject.media);
            match txn.get::<MediaRow>(&key).await? {
                Some(row) => vanished(txn, subject, row).await,
                None => Ok(()),
            }
        }
        Entry::Missing(subject) => replay_condition(txn, subject, Condition::Missing).await,
        Entry::Returned(subject) => replay_condition(txn, subject, Condition::Sound).await,
        Entry::Corrupt(subject) => replay_condition(txn, subject, Condition::Corrupt).await,
        Entry::FactsErased(entry) => erase::facts_erased(txn, entry, now_ms).await,
    }
}

/// A tenant is served for the first time.
pub async fn adopted(txn: &mut Txn<'_>, entry: &Adopted, now_ms: i64) -> Result<(), CatalogError> {
    let key = keys::tenant(entry.tenant);
    let mut row: TenantRow = txn.get(&key).await?.unwrap_or_default();
    row.short_names = Some(entry.short_names);
    row.owed_until = entry.first_day;
    txn.put(key, &row)?;
    root_index_changed(txn, entry.tenant, entry.first_day, now_ms).await
}

/// A uid is given.
pub async fn learned(txn: &mut Txn<'_>, entry: &Learned, row: &MediaRow) -> Result<(), CatalogError> {
    txn.put(keys::media(entry.tenant, entry.source, &entry.media), row)?;
    txn.put(keys::uid(entry.tenant, entry.uid.as_bytes()), &(entry.source, &entry.media))?;
    txn.delete(keys::vanished(entry.tenant, entry.source, &entry.media));
    count(txn, entry.tenant, |counts| counts.learned += 1).await
}

/// No facts came in time.
pub async fn orphaned(txn: &mut Txn<'_>, subject: &Subject, mut row: MediaRow) -> Result<(), CatalogError> {
    row.orphan = true;
    txn.put(keys::media(subject.tenant, subject.source, &subject.media), &row)?;
    count(txn, subject.tenant, |counts| counts.orphans += 1).await
}

/// Media without a name are gone: nothing is left of them but the uid, which is theirs if they come back.
pub async fn vanished(txn: &mut Txn<'_>, subject: &Subject, row: MediaRow) -> Result<(), CatalogError> {
    let Subject { tenant, source, media, .. } = subject;
    for (kind, value) in &row.told.keys {
        join::change(txn, keys::join(*tenant, *source, *kind, value), |row| &mut row.media, media, false)
            .await?;
    }
    if let Some(at) = row.due_ms {
        txn.delete(keys::due(*tenant, at, &row.uid));
    }
    txn.delete(keys::media(*tenant, *source, media));
    txn.put(keys::vanished(*tenant, *source, media), &row.uid)?;
    count(txn, *tenant, |counts| {
        counts.learned = counts.learned.saturating_sub(1);
        counts.orphans = counts.orphans.saturating_sub(u64::from(row.orphan));
    })
    .await
}

async fn count(txn: &mut Txn<'_>, tenant: u32, change: impl FnOnce(&mut Counts)) -> Result<(), CatalogError> {
    let key = keys::tenant(tenant);
    let mut row: TenantRow = txn.get(&key).await?.unwrap_or_default();
    change(&mut row.counts);
    txn.put(key, &row)
}

/// A name is given to a medium that was known as `before`. Returns the recording that has it.
pub async fn published(
    txn: &mut Txn<'_>,
    entry: &Published,
    before: Option<MediaRow>,
    details: Details,
    now_ms: i64,
) -> Result<Recording, CatalogError> {
    let place = Place { day: entry.day, second: entry.second, sequence: entry.sequence };
    let (Some(day), Some(local_day)) =
        (UtcDay::from_number(entry.day), LocalDay::from_number(entry.local_day))
    else {
        return Err(CatalogError::Row(format!("a publication on day {} is outside the calendar", entry.day)));
    };
    let recording = Recording {
        listed: Listed {
            condition: Condition::Sound,
            size: entry.size,
            modified: entry.modified,
            extension: entry.extension.clone(),
        },
        frozen: Frozen {
            uid: *entry.uid.as_bytes(),
            local_day: entry.local_day,
            publication: entry.publication,
            source: entry.source,
            media: entry.media.clone(),
            version: entry.version.clone(),
            header_patch: entry.header_patch.clone(),
        },
        details,
    };
    txn.put(keys::recording(entry.tenant, place), &recording)?;
    txn.put(keys::local_order(entry.tenant, local_day, entry.publication), &place)?;
    txn.put(keys::folder_order(entry.tenant, day, entry.publication), &place)?;

    let was_orphan = before.as_ref().is_some_and(|row| row.orphan);
    if let Some(at) = before.as_ref().and_then(|row| row.due_ms) {
        txn.delete(keys::due(entry.tenant, at, entry.uid.as_bytes()));
    }
    let told = before.map(|row| row.told).unwrap_or_default();
    let row = MediaRow { uid: *entry.uid.as_bytes(), place: Some(place), due_ms: None, orphan: false, told };
    txn.put(keys::media(entry.tenant, entry.source, &entry.media), &row)?;

    let key = keys::folder(entry.tenant, day);
    let mut folder: FolderRow = txn.get(&key).await?.unwrap_or_default();
    folder.newest = folder.newest.max(entry.modified);
    txn.put(key, &folder)?;

    let key = keys::tenant(entry.tenant);
    let mut counters: TenantRow = txn.get(&key).await?.unwrap_or_default();
    counters.next_publication = counters.next_publication.max(entry.publication.saturating_add(1));
    counters.counts.published += 1;
    counters.counts.learned = counters.counts.learned.saturating_sub(1);
    counters.counts.orphans = counters.counts.orphans.saturating_sub(u64::from(was_orphan));
    txn.put(key, &counters)?;
    root_index_changed(txn, entry.tenant, entry.local_day, now_ms).await?;
    Ok(recording)
}

/// A published recording's media has vanished, come back or changed.
pub async fn condition(
    txn: &mut Txn<'_>,
    tenant: u32,
    place: Place,
    recording: &mut Recording,
    condition: Condition,
) -> Result<(), CatalogError> {
    let before = std::mem::replace(&mut recording.listed.condition, condition);
    count(txn, tenant, |counts| {
        for (state, number) in
            [(Condition::Missing, &mut counts.missing), (Condition::Corrupt, &mut counts.corrupt)]
        {
            *number = number
                .saturating_add(u64::from(condition == state))
                .saturating_sub(u64::from(before == state));
        }
    })
    .await?;
    txn.put(keys::recording(tenant, place), recording)?;
    // A folder's index lists what the folder shows; the root index keeps its rows.
    folder_changed(txn, tenant, place, AT_ONCE).await
}

async fn replay_condition(txn: &mut Txn<'_>, subject: &Subject, to: Condition) -> Result<(), CatalogError> {
    let key = keys::media(subject.tenant, subject.source, &subject.media);
    let Some(mut row) = txn.get::<MediaRow>(&key).await? else { return Ok(()) };
    let Some(place) = row.place else { return Ok(()) };
    if to != Condition::Sound {
        forget_version(txn, key, &mut row)?;
    }
    match txn.get::<Recording>(&keys::recording(subject.tenant, place)).await? {
        Some(mut recording) => condition(txn, subject.tenant, place, &mut recording, to).await,
        None => Ok(()),
    }
}

/// Makes the next scan that tells the medium take the long way and find out whether it is as it was.
pub fn forget_version(txn: &mut Txn<'_>, key: Vec<u8>, row: &mut MediaRow) -> Result<(), CatalogError> {
    row.told.version.clear();
    txn.put(key, row)
}

/// For changes that must not wait, because the folder shows them already.
pub const AT_ONCE: i64 = 0;

/// The folder's index files have to be written anew: soon after `since_ms`, or [`AT_ONCE`].
pub async fn folder_changed(
    txn: &mut Txn<'_>,
    tenant: u32,
    place: Place,
    since_ms: i64,
) -> Result<(), CatalogError> {
    let Some(day) = UtcDay::from_number(place.day) else { return Ok(()) };
    let key = keys::folder(tenant, day);
    let mut folder: FolderRow = txn.get(&key).await?.unwrap_or_default();
    folder.dirty_since_ms = Some(folder.dirty_since_ms.map_or(since_ms, |since| since.min(since_ms)));
    txn.put(key, &folder)
}

/// The root index of a day that is shown while it runs has to be written anew: it isn't known what it has.
async fn running_index_changed(txn: &mut Txn<'_>, tenant: u32, local_day: i32) -> Result<(), CatalogError> {
    let Some(day) = LocalDay::from_number(local_day) else { return Ok(()) };
    let key = keys::root_index(tenant, day);
    match txn.get::<RootIndexRow>(&key).await? {
        Some(row) if row.running => txn.put(key, &RootIndexRow { dirty_since_ms: Some(AT_ONCE), ..row }),
        _ => Ok(()),
    }
}

/// The root index of the local day is behind.
pub async fn root_index_changed(
    txn: &mut Txn<'_>,
    tenant: u32,
    local_day: i32,
    now_ms: i64,
) -> Result<(), CatalogError> {
    let Some(day) = LocalDay::from_number(local_day) else { return Ok(()) };
    let key = keys::root_index(tenant, day);
    let mut index: RootIndexRow = txn.get(&key).await?.unwrap_or_default();
    index.dirty_since_ms.get_or_insert(now_ms);
    txn.put(key, &index)
}
