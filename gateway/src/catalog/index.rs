//! The index files: a folder's grow with each publication, a day's root index is published in generations.
//!
//! A file's name holds its generation, and the catalog's row how much of it counts. So a reader that has a
//! file open keeps what it opened, whatever is published meanwhile, and a crash while writing leaves bytes
//! that nobody sees.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    Catalog, CatalogError, PAGE,
    apply::{self, AT_ONCE},
    entries::{Adopted, Entry},
    keys,
    keys::Place,
    rows::{self, Condition, FolderRow, IndexFile, Recording, RootIndexRow, TenantRow},
    txn::Txn,
};
use crate::{
    config::Tenant,
    layout::{Extension, IndexKind, IndexRow, LocalDay, NameForm, UtcDay, append_row, header},
    state::Pages,
};
use recgate_plugin_api::fact;

/// A root index is published at the latest this long after its day's end, as at 8x8 (between 00:00 and 01:00).
const LATEST_MS: i64 = 55 * 60 * 1000;

/// A root index that has changed is published again at most this often.
const REPUBLISH_MS: i64 = 5 * 60 * 1000;

/// A folder's index is written anew at most this often; additions are appended at once.
const REWRITE_MS: i64 = 30 * 1000;

/// Root indexes that should be there, or newer, or whole, by now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overdue {
    /// How many should be there, or newer.
    pub indexes: u64,
    /// Since when the first of them is, Unix milliseconds UTC; `None` where there are none.
    pub since_ms: Option<i64>,
    /// How many were published before every source had told all of their day, and not yet again since.
    pub incomplete: u64,
}

/// Which index file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IndexPart {
    /// The root index of a local day.
    Root(LocalDay),
    /// A folder's WAVs, brief columns.
    Brief(UtcDay),
    /// A folder's WAVs, all columns.
    Full(UtcDay),
    /// A folder's other media, all columns.
    Media(UtcDay),
}

impl IndexPart {
    fn kind(self) -> IndexKind {
        match self {
            Self::Root(_) => IndexKind::Root,
            Self::Brief(_) => IndexKind::Brief,
            Self::Full(_) => IndexKind::Full,
            Self::Media(_) => IndexKind::Media,
        }
    }

    fn stem(self) -> String {
        match self {
            Self::Root(day) => format!("root/{day}"),
            Self::Brief(day) => format!("{}/brief", day.folder_name()),
            Self::Full(day) => format!("{}/full", day.folder_name()),
            Self::Media(day) => format!("{}/media", day.folder_name()),
        }
    }
}

impl Catalog {
    /// Where a generation of an index lies.
    pub fn index_path(&self, tenant: u32, part: IndexPart, generation: u64) -> PathBuf {
        self.index_dir.join(format!("t{tenant}/{}.{generation}.csv", part.stem()))
    }

    /// Publishes root indexes whose day is over, and writes anew what has changed. Called at intervals.
    pub async fn publish_indexes(&self, tenant: &Tenant, now_ms: i64) -> Result<u64, CatalogError> {
        self.finish_erasures(tenant, now_ms).await?;
        Ok(self.publish_roots(tenant, now_ms, |_| true).await? + self.rewrite_folders(tenant, now_ms).await?)
    }

    /// The part of [`Self::publish_indexes`] that waits for no source: what somebody wants written anew at once, and
    /// folders.
    pub async fn publish_urgent(&self, tenant: &Tenant, now_ms: i64) -> Result<u64, CatalogError> {
        self.finish_erasures(tenant, now_ms).await?;
        let roots = self.publish_roots(tenant, now_ms, is_wanted_at_once).await?;
        Ok(roots + self.rewrite_folders(tenant, now_ms).await?)
    }

    /// Publishes the root indexes that are due, of those that are wanted.
    async fn publish_roots(
        &self,
        tenant: &Tenant,
        now_ms: i64,
        wanted: impl Fn(&RootIndexRow) -> bool,
    ) -> Result<u64, CatalogError> {
        self.owe_empty_days(tenant, now_ms).await?;
        let watermark = self.watermark(tenant).await?;
        let mut published = 0;
        let mut from = None;
        loop {
            let (rows, next) = self.root_indexes(tenant.id, from).await?;
            for (day, row) in rows {
                let Some(end) = tenant.zone.end_of(day) else { continue };
                if wanted(&row) && is_due(&row, end, watermark, now_ms) {
                    let incomplete = watermark < end;
                    self.publish_root(tenant, day, incomplete, now_ms).await?;
                    published += 1;
                }
            }
            match next {
                Some(day) => from = Some(day),
                None => return Ok(published),
            }
        }
    }

    /// Which root indexes should have been published by now, or published anew, and weren't, and which were published
    /// incomplete. Reads a row a day.
    pub async fn overdue_indexes(&self, tenant: &Tenant, now_ms: i64) -> Result<Overdue, CatalogError> {
        let mut overdue = Overdue::default();
        let mut from = None;
        loop {
            let (rows, next) = self.root_indexes(tenant.id, from).await?;
            let dues = rows.iter().filter_map(|(day, row)| latest(row, tenant.zone.end_of(*day)?));
            overdue.incomplete += rows.iter().map(|(_, row)| u64::from(row.incomplete)).sum::<u64>();
            for due in dues.filter(|due| *due <= now_ms) {
                overdue.indexes += 1;
                overdue.since_ms = Some(overdue.since_ms.map_or(due, |since| since.min(due)));
            }
            match next {
                Some(day) => from = Some(day),
                None => return Ok(overdue),
            }
        }
    }

    /// Writes the folders' indexes anew whose rows have changed in place. Called at intervals.
    pub async fn rewrite_folders(&self, tenant: &Tenant, now_ms: i64) -> Result<u64, CatalogError> {
        let mut published = 0;
        let mut from = None;
        loop {
            let (rows, next) = self.folders(tenant.id, from).await?;
            for (day, row) in rows {
                // A mark from the future is a clock that was set back.
                let rested = |since| now_ms.saturating_sub(since) >= REWRITE_MS || now_ms < since;
                if row.dirty_since_ms.is_some_and(rested) {
                    self.rewrite_folder(tenant, day, now_ms).await?;
                    published += 1;
                }
            }
            match next {
                Some(day) => from = Some(day),
                None => return Ok(published),
            }
        }
    }

    /// Takes a tenant in, and says which form its names have had from the beginning.
    pub async fn adopt(&self, tenant: &Tenant, now_ms: i64) -> Result<NameForm, CatalogError> {
        let key = keys::tenant(tenant.id);
        let mut writer = self.writer.lock().await;
        self.ensure_caught_up(&mut writer).await?;
        let mut txn = Txn::new(&*self.store);
        let row: TenantRow = txn.get(&key).await?.unwrap_or_default();
        let short = match row.short_names {
            Some(short) => short,
            None => {
                let adopted = Adopted {
                    tenant: tenant.id,
                    short_names: tenant.name_form == NameForm::Short,
                    first_day: tenant.zone.day_of(now_ms).map_or(0, LocalDay::number),
                };
                apply::adopted(&mut txn, &adopted, now_ms).await?;
                let short = adopted.short_names;
                self.record(&mut writer, txn, &[Entry::Adopted(adopted)]).await?;
                short
            }
        };
        Ok(if short { NameForm::Short } else { NameForm::Long })
    }

    /// Marks index files that the catalog counts on and the disk has lost (power failed before they were
    /// written out, or somebody removed them). Called at start.
    pub async fn check_index_files(&self, tenant: &Tenant, now_ms: i64) -> Result<u64, CatalogError> {
        let mut writer = self.writer.lock().await;
        self.ensure_caught_up(&mut writer).await?;
        let mut lost = 0;
        let mut from = None;
        loop {
            let (rows, next) = self.folders(tenant.id, from).await?;
            let mut txn = Txn::new(&*self.store);
            for (day, mut row) in rows {
                if !self.folder_is_whole(tenant.id, day, &row) {
                    row.dirty_since_ms = Some(AT_ONCE);
                    (row.brief, row.full, row.media) = Default::default();
                    txn.put(keys::folder(tenant.id, day), &row)?;
                    lost += 1;
                }
            }
            self.record(&mut writer, txn, &[]).await?;
            match next {
                Some(day) => from = Some(day),
                None => break,
            }
        }
        let mut from = None;
        loop {
            let (rows, next) = self.root_indexes(tenant.id, from).await?;
            let mut txn = Txn::new(&*self.store);
            for (day, mut row) in rows {
                if !self.is_whole(tenant.id, IndexPart::Root(day), row.file) {
                    row.file = IndexFile::default();
                    row.dirty_since_ms.get_or_insert(now_ms);
                    txn.put(keys::root_index(tenant.id, day), &row)?;
                    lost += 1;
                }
            }
            self.record(&mut writer, txn, &[]).await?;
            match next {
                Some(day) => from = Some(day),
                None => break,
            }
        }
        Ok(lost)
    }

    fn folder_is_whole(&self, tenant: u32, day: UtcDay, row: &FolderRow) -> bool {
        self.is_whole(tenant, IndexPart::Brief(day), row.brief)
            && self.is_whole(tenant, IndexPart::Full(day), row.full)
            && self.is_whole(tenant, IndexPart::Media(day), row.media)
    }

    fn is_whole(&self, tenant: u32, part: IndexPart, file: IndexFile) -> bool {
        file.generation == 0
            || fs::metadata(self.index_path(tenant, part, file.generation))
                .is_ok_and(|metadata| metadata.len() >= file.length)
    }

    /// The earliest of the sources' watermarks: what started before it is known.
    pub(super) async fn watermark(&self, tenant: &Tenant) -> Result<i64, CatalogError> {
        let mut earliest = i64::MAX;
        for source in &tenant.sources {
            earliest = earliest.min(self.source(tenant.id, source.id).await?.watermark_ms);
        }
        Ok(earliest)
    }

    /// From the day on which a tenant was first served, each day has an index, with or without recordings.
    async fn owe_empty_days(&self, tenant: &Tenant, now_ms: i64) -> Result<(), CatalogError> {
        let Some(today) = tenant.zone.day_of(now_ms) else { return Ok(()) };
        let key = keys::tenant(tenant.id);
        let row: TenantRow = self.row(&key).await?.unwrap_or_default();
        if row.owed_until == today.number() {
            return Ok(());
        }
        let mut writer = self.writer.lock().await;
        self.ensure_caught_up(&mut writer).await?;
        let mut txn = Txn::new(&*self.store);
        let mut row: TenantRow = txn.get(&key).await?.unwrap_or_default();
        // 0: the tenant is new; a day to come: the clock was ahead once.
        let first = if row.owed_until == 0 || row.owed_until > today.number() {
            today.number()
        } else {
            row.owed_until
        };
        // A clock that jumped must not fill the folder: ten years of days are the most that is owed at once.
        for number in first.max(today.number().saturating_sub(3660))..=today.number() {
            let Some(day) = LocalDay::from_number(number) else { continue };
            let key = keys::root_index(tenant.id, day);
            if tenant.zone.end_of(day).is_some() && txn.get::<RootIndexRow>(&key).await?.is_none() {
                txn.put(key, &RootIndexRow { dirty_since_ms: Some(now_ms), ..RootIndexRow::default() })?;
            }
        }
        row.owed_until = today.number();
        txn.put(key, &row)?;
        self.record(&mut writer, txn, &[]).await
    }

    pub(super) async fn publish_root(
        &self,
        tenant: &Tenant,
        day: LocalDay,
        incomplete: bool,
        now_ms: i64,
    ) -> Result<(), CatalogError> {
        let mut writer = self.writer.lock().await;
        self.ensure_caught_up(&mut writer).await?;
        let began = Instant::now();
        let mut txn = Txn::new(&*self.store);
        let key = keys::root_index(tenant.id, day);
        let mut row: RootIndexRow = txn.get(&key).await?.unwrap_or_default();
        let part = IndexPart::Root(day);
        let only_flag = row.dirty_since_ms.is_none() && row.file.generation != 0;
        if !only_flag {
            let mut generation = Generation::create(self, tenant.id, part, row.file.generation, now_ms)?;
            let places = keys::local_order_of(tenant.id, day);
            row.rows = 0;
            self.each_recording(tenant.id, &places, |place, recording| {
                row.rows += 1;
                generation.append(tenant, place, &recording)
            })
            .await?;
            row.file = generation.finish(now_ms)?;
            row.dirty_since_ms = None;
        }
        row.incomplete = incomplete;
        txn.put(key, &row)?;
        self.record(&mut writer, txn, &[]).await?;
        let took_ms = began.elapsed().as_millis();
        if incomplete {
            tracing::warn!(tenant = %tenant.name, %day, rows = row.rows, took_ms, "root index published incomplete: a source has not told all of that day yet");
        } else {
            tracing::info!(tenant = %tenant.name, %day, rows = row.rows, took_ms, "root index published");
        }
        self.remove_others(tenant.id, part, row.file.generation);
        Ok(())
    }

    pub(super) async fn rewrite_folder(
        &self,
        tenant: &Tenant,
        day: UtcDay,
        now_ms: i64,
    ) -> Result<(), CatalogError> {
        let mut writer = self.writer.lock().await;
        self.ensure_caught_up(&mut writer).await?;
        let mut txn = Txn::new(&*self.store);
        let key = keys::folder(tenant.id, day);
        let mut row: FolderRow = txn.get(&key).await?.unwrap_or_default();
        let create =
            |part, file: IndexFile| Generation::create(self, tenant.id, part, file.generation, now_ms);
        let mut brief = create(IndexPart::Brief(day), row.brief)?;
        let mut full = create(IndexPart::Full(day), row.full)?;
        let mut media: Option<Generation> = None;
        let places = keys::folder_order_of(tenant.id, day);
        self.each_recording(tenant.id, &places, |place, recording| {
            if recording.listed.condition == Condition::Missing {
                return Ok(());
            }
            if is_wav(&recording) {
                brief.append(tenant, place, &recording)?;
                return full.append(tenant, place, &recording);
            }
            let file = match media.take() {
                Some(file) => file,
                None => create(IndexPart::Media(day), row.media)?,
            };
            media.insert(file).append(tenant, place, &recording)
        })
        .await?;
        row.brief = brief.finish(now_ms)?;
        row.full = full.finish(now_ms)?;
        row.media = media.map_or(Ok(IndexFile::default()), |file| file.finish(now_ms))?;
        row.dirty_since_ms = None;
        txn.put(key, &row)?;
        self.record(&mut writer, txn, &[]).await?;
        for (part, file) in [
            (IndexPart::Brief(day), row.brief),
            (IndexPart::Full(day), row.full),
            (IndexPart::Media(day), row.media),
        ] {
            self.remove_others(tenant.id, part, file.generation);
        }
        Ok(())
    }

    /// Recordings in the order of publication, a page at a time.
    async fn each_recording(
        &self,
        tenant: u32,
        order: &[u8],
        mut each: impl FnMut(Place, Recording) -> Result<(), CatalogError>,
    ) -> Result<(), CatalogError> {
        let mut pages = Pages::of(&*self.store, order.to_vec());
        while let Some(page) = pages.next(PAGE).await? {
            let places =
                page.iter().map(|row| rows::decode(&row.value)).collect::<Result<Vec<Place>, _>>()?;
            let wanted: Vec<_> = places.iter().map(|place| keys::recording(tenant, *place)).collect();
            for (place, row) in places.into_iter().zip(self.store.get_many(&wanted).await?) {
                if let Some(row) = row {
                    each(place, rows::decode(&row.value)?)?;
                }
            }
        }
        Ok(())
    }

    /// Appends the rows of new names to their folders' files, which are synced before anybody counts on them.
    pub(super) async fn append_to_folders(
        &self,
        txn: &mut Txn<'_>,
        tenant: &Tenant,
        named: BTreeMap<UtcDay, Vec<Place>>,
        now_ms: i64,
    ) -> Result<(), CatalogError> {
        let mut appends = Vec::new();
        for (day, places) in named {
            let key = keys::folder(tenant.id, day);
            let mut row: FolderRow = txn.get(&key).await?.unwrap_or_default();
            if !self.folder_is_whole(tenant.id, day, &row) {
                row = FolderRow { newest: row.newest, dirty_since_ms: Some(AT_ONCE), ..FolderRow::default() };
            }
            if row.dirty_since_ms.is_some() && row.brief.generation == 0 {
                // It will be written anew, with these rows.
                txn.put(key, &row)?;
                continue;
            }
            let (mut brief, mut full, mut media) = (Vec::new(), Vec::new(), Vec::new());
            for place in places {
                let Some(recording) = txn.get::<Recording>(&keys::recording(tenant.id, place)).await? else {
                    continue;
                };
                let index_row = index_row(tenant, place, &recording)?;
                if is_wav(&recording) {
                    append_row(IndexKind::Brief, &index_row, &tenant.zone, &mut brief);
                    append_row(IndexKind::Full, &index_row, &tenant.zone, &mut full);
                } else {
                    append_row(IndexKind::Media, &index_row, &tenant.zone, &mut media);
                }
            }
            // The indexes of WAVs are there in every folder, with or without a row.
            for (part, file, bytes, wanted) in [
                (IndexPart::Brief(day), &mut row.brief, brief, true),
                (IndexPart::Full(day), &mut row.full, full, true),
                (IndexPart::Media(day), &mut row.media, media, false),
            ] {
                if bytes.is_empty() && (file.generation != 0 || !wanted) {
                    continue;
                }
                appends.push(self.plan_append(tenant.id, part, file, bytes, now_ms));
            }
            txn.put(key, &row)?;
        }
        if appends.is_empty() {
            return Ok(());
        }
        let folder = self.index_dir.clone();
        tokio::task::spawn_blocking(move || append_all(&folder, &appends))
            .await
            .map_err(|error| CatalogError::Row(format!("appending to indexes: {error}")))?
    }

    fn plan_append(
        &self,
        tenant: u32,
        part: IndexPart,
        file: &mut IndexFile,
        rows: Vec<u8>,
        now_ms: i64,
    ) -> Append {
        let mut bytes = Vec::new();
        if file.generation == 0 {
            file.generation = next_generation(0, now_ms);
            file.length = 0;
            bytes = header(part.kind());
        }
        bytes.extend_from_slice(&rows);
        let append =
            Append { path: self.index_path(tenant, part, file.generation), offset: file.length, bytes };
        file.length = file.length.saturating_add(append.bytes.len() as u64);
        file.modified = now_ms.div_euclid(1000).max(file.modified);
        append
    }

    /// Removes other generations of an index; who has one open keeps it. What can't be removed only takes room.
    fn remove_others(&self, tenant: u32, part: IndexPart, keep: u64) {
        if let Err(error) = self.remove_other_generations(tenant, part, keep) {
            tracing::debug!(%error, "an old generation of an index stays");
        }
    }

    /// Removes other generations of an index, all of them where `keep` is 0. The folder isn't synced.
    pub(super) fn remove_other_generations(
        &self,
        tenant: u32,
        part: IndexPart,
        keep: u64,
    ) -> Result<(), CatalogError> {
        let kept = self.index_path(tenant, part, keep);
        let (Some(folder), Some(stem)) = (kept.parent(), part.stem().rsplit('/').next().map(str::to_owned))
        else {
            return Ok(());
        };
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(CatalogError::Index { path: folder.to_owned(), source }),
        };
        for entry in entries {
            let entry = entry.map_err(|source| CatalogError::Index { path: folder.to_owned(), source })?;
            let path = entry.path();
            let same = entry.file_name().to_str().is_some_and(|name| {
                name.strip_prefix(&stem).is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".csv"))
            });
            if same && path != kept {
                fs::remove_file(&path).map_err(|source| CatalogError::Index { path, source })?;
            }
        }
        Ok(())
    }
}

/// Somebody wants a published index written anew at once.
fn is_wanted_at_once(row: &RootIndexRow) -> bool {
    row.file.generation != 0 && row.dirty_since_ms == Some(AT_ONCE)
}

fn is_due(row: &RootIndexRow, end: i64, watermark: i64, now_ms: i64) -> bool {
    if is_wanted_at_once(row) {
        return true;
    }
    if now_ms < end {
        return false;
    }
    let complete = watermark >= end;
    if row.file.generation == 0 {
        return complete || now_ms >= end.saturating_add(LATEST_MS);
    }
    let rested = now_ms.saturating_sub(row.file.modified.saturating_mul(1000)) >= REPUBLISH_MS;
    row.dirty_since_ms.is_some() && rested || row.incomplete && complete
}

/// When a root index is due at the latest; `None` where nothing is owed. What came late is due when it came.
pub(super) fn latest(row: &RootIndexRow, end: i64) -> Option<i64> {
    let at_the_latest = match row.file.generation {
        0 => end.saturating_add(LATEST_MS),
        _ => row.file.modified.saturating_mul(1000).saturating_add(REPUBLISH_MS),
    };
    row.dirty_since_ms.map(|since| since.max(at_the_latest))
}

fn is_wav(recording: &Recording) -> bool {
    recording.listed.extension == Extension::WAV.as_str()
}

fn index_row(tenant: &Tenant, place: Place, recording: &Recording) -> Result<IndexRow, CatalogError> {
    let name = place
        .name(&recording.listed.extension)
        .ok_or_else(|| CatalogError::Row(format!("a recording at {place:?} has no valid name")))?;
    let details = &recording.details;
    let value = |key: &str| details.values.get(key).cloned().unwrap_or_default();
    let seconds = |ms: i64| ms.div_euclid(1000);
    // The medium's own length counts; where nobody knows it, from start to stop. Rounded to the nearest second.
    let duration_ms = details.duration_ms.or_else(|| {
        u64::try_from(details.stop_ms.saturating_sub(details.start_ms)).ok().filter(|ms| *ms > 0)
    });
    Ok(IndexRow {
        call_type: value(fact::CALL_TYPE),
        start_utc_s: seconds(details.start_ms),
        stop_utc_s: seconds(details.stop_ms),
        agent_name: value(fact::AGENT_NAME),
        customer_number: value(fact::CUSTOMER_NUMBER),
        phone_channel: value(fact::PHONE_CHANNEL),
        called_number: value(fact::CALLED_NUMBER),
        case_id: value(fact::CASE_ID),
        duration_s: duration_ms.map(|ms| ms.saturating_add(500) / 1000),
        file_name: name.text(tenant.name_form),
        folder: name.second.day(),
        account: value(fact::ACCOUNT),
        queue: value(fact::QUEUE_TYPE),
        queue_name: value(fact::QUEUE_NAME),
        transaction_id: value(fact::TRANSACTION_ID),
        external_variable_1: value(fact::EXTERNAL_VARIABLE_1),
        external_variable_2: value(fact::EXTERNAL_VARIABLE_2),
        outdial_code: value(fact::OUTDIAL_CODE),
        wrap_up_code: value(fact::WRAP_UP_CODE),
    })
}

/// Greater than every generation before, also after the catalog was rebuilt and has forgotten them.
fn next_generation(last: u64, now_ms: i64) -> u64 {
    u64::try_from(now_ms).unwrap_or(0).max(last.saturating_add(1))
}

/// A whole new file.
struct Generation {
    part: IndexPart,
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    state: IndexFile,
}

impl Generation {
    fn create(
        catalog: &Catalog,
        tenant: u32,
        part: IndexPart,
        last: u64,
        now_ms: i64,
    ) -> Result<Self, CatalogError> {
        let generation = next_generation(last, now_ms);
        let path = catalog.index_path(tenant, part, generation);
        let file = open_for_writing(&path, true)
            .map_err(|source| CatalogError::Index { path: path.clone(), source })?;
        let state = IndexFile { generation, length: 0, modified: 0 };
        Ok(Self { part, path, file, buffer: header(part.kind()), state })
    }

    fn append(&mut self, tenant: &Tenant, place: Place, recording: &Recording) -> Result<(), CatalogError> {
        let row = index_row(tenant, place, recording)?;
        append_row(self.part.kind(), &row, &tenant.zone, &mut self.buffer);
        if self.buffer.len() >= 1 << 18 { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), CatalogError> {
        let error = |source| CatalogError::Index { path: self.path.clone(), source };
        self.file.write_all(&self.buffer).map_err(error)?;
        self.state.length = self.state.length.saturating_add(self.buffer.len() as u64);
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self, now_ms: i64) -> Result<IndexFile, CatalogError> {
        self.flush()?;
        let durable = self.file.sync_all().and_then(|()| match self.path.parent() {
            Some(folder) => crate::state::sync_folder(folder),
            None => Ok(()),
        });
        durable.map_err(|source| CatalogError::Index { path: self.path.clone(), source })?;
        self.state.modified = now_ms.div_euclid(1000);
        Ok(self.state)
    }
}

/// Bytes that go to the end of a file, which is at `offset` whatever lies behind it.
struct Append {
    path: PathBuf,
    offset: u64,
    bytes: Vec<u8>,
}

fn append_all(folder: &Path, appends: &[Append]) -> Result<(), CatalogError> {
    let few = appends.len() <= 8;
    for append in appends {
        let write = || -> io::Result<()> {
            let file = open_for_writing(&append.path, append.offset == 0)?;
            file.set_len(append.offset)?;
            file.write_all_at(&append.bytes, append.offset)?;
            if few {
                file.sync_all()?;
                append.path.parent().map_or(Ok(()), crate::state::sync_folder)?;
            }
            Ok(())
        };
        write().map_err(|source| CatalogError::Index { path: append.path.clone(), source })?;
    }
    if !few {
        // One flush of the file system costs less than hundreds of single ones.
        File::open(folder)
            .and_then(|folder| rustix::fs::syncfs(folder).map_err(io::Error::from))
            .map_err(|source| CatalogError::Index { path: folder.to_owned(), source })?;
    }
    Ok(())
}

fn open_for_writing(path: &Path, fresh: bool) -> io::Result<File> {
    if fresh && let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().write(true).create(fresh).truncate(false).open(path)
}
