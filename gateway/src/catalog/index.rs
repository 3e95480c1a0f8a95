//! The index files: a folder's grow with each publication, a day's root index is published in generations.
//!
//! A file's name holds its generation, and the catalog's row how much of it counts. So a reader that has a
//! file open keeps what it opened, whatever is published meanwhile, and a crash while writing leaves bytes
//! that nobody sees.

use std::{
    cmp::Reverse,
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use super::{
    Catalog, CatalogError,
    apply::{self, AT_ONCE},
    entries::{Adopted, Entry},
    keys,
    keys::Place,
    rows::{FolderRow, IndexFile, Recording, RootIndexRow, TenantRow},
    sync::is_ahead,
    txn::Txn,
};
use crate::{
    config::Tenant,
    layout::{Extension, IndexKind, IndexRow, LocalDay, NameForm, UtcDay},
};
use recgate_plugin_api::fact;

mod append;
mod build;
mod due;
mod turn;

pub(super) use append::{Append, New, append_all};
pub use build::Builds;
pub use turn::Turn;

use build::{Building, Draft, Replaced, Subject, in_thread};
pub(super) use due::latest;
use due::{Span, believable, has_waited, is_due, is_wanted_at_once};

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
    pub(super) fn kind(self) -> IndexKind {
        match self {
            Self::Root(_) => IndexKind::Root,
            Self::Brief(_) => IndexKind::Brief,
            Self::Full(_) => IndexKind::Full,
            Self::Media(_) => IndexKind::Media,
        }
    }

    pub(super) fn stem(self) -> String {
        match self {
            Self::Root(day) => format!("root/{day}"),
            Self::Brief(day) => format!("{}/brief", day.folder_name()),
            Self::Full(day) => format!("{}/full", day.folder_name()),
            Self::Media(day) => format!("{}/media", day.folder_name()),
        }
    }
}

impl FolderRow {
    /// Its index files; generation 0 where there is none.
    pub(super) fn files(&self, day: UtcDay) -> [(IndexPart, IndexFile); 3] {
        [
            (IndexPart::Brief(day), self.brief),
            (IndexPart::Full(day), self.full),
            (IndexPart::Media(day), self.media),
        ]
    }
}

impl Catalog {
    /// Where a generation of an index lies.
    pub fn index_path(&self, tenant: u32, part: IndexPart, generation: u64) -> PathBuf {
        self.index_dir.join(format!("t{tenant}/{}.{generation}.csv", part.stem()))
    }

    /// Publishes root indexes whose day is over, and writes anew what has changed: all that is due.
    pub async fn publish_indexes(&self, tenant: &Tenant, now_ms: i64) -> Result<u64, CatalogError> {
        self.publish_due(tenant, None, now_ms, &mut Turn::whole()).await
    }

    /// One turn of writing what is due. Called at intervals.
    ///
    /// `unheard_since`: not all of its sources have been heard yet since then, Unix milliseconds UTC. A day would only be
    /// published twice, so its index waits for them, within limits.
    pub async fn publish_due(
        &self,
        tenant: &Tenant,
        unheard_since: Option<i64>,
        now_ms: i64,
        turn: &mut Turn<'_>,
    ) -> Result<u64, CatalogError> {
        self.finish_some_erasures(tenant, now_ms, turn).await?;
        let roots = self.publish_roots(tenant, unheard_since, now_ms, turn).await;
        let folders = self.rewrite_some_folders(tenant, now_ms, turn).await;
        Ok(roots? + folders?)
    }

    /// Publishes root indexes that are due: first those that were never published, then those that somebody waits for,
    /// of these the newest first. One that can't be written keeps no other back.
    async fn publish_roots(
        &self,
        tenant: &Tenant,
        unheard_since: Option<i64>,
        now_ms: i64,
        turn: &mut Turn<'_>,
    ) -> Result<u64, CatalogError> {
        self.owe_empty_days(tenant, now_ms).await?;
        let watermark = self.watermark(tenant, now_ms).await?;
        let mut due = Vec::new();
        let mut from = None;
        loop {
            let (rows, next) = self.root_indexes(tenant.id, from).await?;
            for (day, row) in rows {
                let Some(span) = Span::of(tenant, day) else { continue };
                let wanted = is_wanted_at_once(&row)
                    || unheard_since.is_none_or(|since| has_waited(&row, span.end, since, now_ms));
                if wanted && is_due(&row, span, tenant.live_index, watermark, now_ms) {
                    due.push((row.file.generation != 0, !is_wanted_at_once(&row), Reverse(day), span.end));
                }
            }
            match next {
                Some(day) => from = Some(day),
                None => break,
            }
        }
        due.sort_unstable();
        let (mut published, mut failed) = (0, None);
        for (.., Reverse(day), end) in turn.share(due) {
            let building = self.builds.lock().await;
            match self.publish_root(&building, tenant, day, watermark < end, now_ms).await {
                Ok(()) => published += 1,
                Err(error) => drop(failed.get_or_insert(error)),
            }
            turn.beat();
        }
        failed.map_or(Ok(published), Err)
    }

    /// Which root indexes should have been published by now, or published anew, and weren't, and which were published
    /// incomplete. Reads a row a day.
    pub async fn overdue_indexes(&self, tenant: &Tenant, now_ms: i64) -> Result<Overdue, CatalogError> {
        let mut overdue = Overdue::default();
        let mut from = None;
        loop {
            let (rows, next) = self.root_indexes(tenant.id, from).await?;
            let dues = rows.iter().filter_map(|(day, row)| {
                let end = tenant.zone.end_of(*day)?;
                latest(&believable(row, end, now_ms), end, tenant.live_index)
            });
            let incomplete = |row: &RootIndexRow| row.incomplete && !row.running;
            overdue.incomplete += rows.iter().map(|(_, row)| u64::from(incomplete(row))).sum::<u64>();
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

    /// Writes the folders' indexes anew whose rows have changed in place.
    pub async fn rewrite_folders(&self, tenant: &Tenant, now_ms: i64) -> Result<u64, CatalogError> {
        self.rewrite_some_folders(tenant, now_ms, &mut Turn::whole()).await
    }

    /// Those that have changed first come first.
    async fn rewrite_some_folders(
        &self,
        tenant: &Tenant,
        now_ms: i64,
        turn: &mut Turn<'_>,
    ) -> Result<u64, CatalogError> {
        let mut due = Vec::new();
        let mut from = None;
        loop {
            let (rows, next) = self.folders(tenant.id, from).await?;
            for (day, row) in rows {
                // A mark from the future is a clock that was set back.
                let rested = |since: &i64| now_ms.saturating_sub(*since) >= REWRITE_MS || now_ms < *since;
                if let Some(since) = row.dirty_since_ms.filter(rested) {
                    due.push((since, day));
                }
            }
            match next {
                Some(day) => from = Some(day),
                None => break,
            }
        }
        due.sort_unstable();
        let (mut written, mut failed) = (0, None);
        for (_, day) in turn.share(due) {
            let building = self.builds.lock().await;
            match self.rewrite_folder(&building, tenant, day, now_ms).await {
                Ok(()) => written += 1,
                Err(error) => drop(failed.get_or_insert(error)),
            }
            turn.beat();
        }
        failed.map_or(Ok(written), Err)
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
                self.record(&mut writer, txn, vec![Entry::Adopted(adopted)]).await?;
                short
            }
        };
        Ok(if short { NameForm::Short } else { NameForm::Long })
    }

    /// Marks index files that the catalog counts on and the disk has lost (power failed before they were
    /// written out, or somebody removed them), and takes away what a crash has left that doesn't count. Called at start.
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
                for (part, file) in row.files(day) {
                    self.settle_file(tenant.id, part, file);
                }
                self.remove_others(tenant.id, &row.files(day)).await;
            }
            self.record(&mut writer, txn, Vec::new()).await?;
            match next {
                Some(day) => from = Some(day),
                None => break,
            }
        }
        let (mut from, mut published) = (None, HashSet::new());
        loop {
            let (rows, next) = self.root_indexes(tenant.id, from).await?;
            let mut txn = Txn::new(&*self.store);
            for (day, mut row) in rows {
                published.insert(self.index_path(tenant.id, IndexPart::Root(day), row.file.generation));
                if !self.is_whole(tenant.id, IndexPart::Root(day), row.file) {
                    row.file = IndexFile::default();
                    row.dirty_since_ms.get_or_insert(now_ms);
                    txn.put(keys::root_index(tenant.id, day), &row)?;
                    lost += 1;
                }
            }
            self.record(&mut writer, txn, Vec::new()).await?;
            match next {
                Some(day) => from = Some(day),
                None => break,
            }
        }
        self.remove_unpublished(tenant.id, &published);
        Ok(lost)
    }

    /// Removes root indexes that a crash has kept from being published. After a loss of the catalog they would be taken
    /// for the ones that clients have seen.
    fn remove_unpublished(&self, tenant: u32, published: &HashSet<PathBuf>) {
        let root = self.index_path(tenant, IndexPart::Root(LocalDay::default()), 0);
        let entries = root.parent().map(fs::read_dir).and_then(Result::ok);
        for path in entries.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())) {
            if !published.contains(&path)
                && let Err(error) = fs::remove_file(&path)
            {
                tracing::debug!(path = %path.display(), %error, "what was never published stays");
            }
        }
    }

    fn folder_is_whole(&self, tenant: u32, day: UtcDay, row: &FolderRow) -> bool {
        row.files(day).into_iter().all(|(part, file)| self.is_whole(tenant, part, file))
    }

    fn is_whole(&self, tenant: u32, part: IndexPart, file: IndexFile) -> bool {
        file.generation == 0
            || fs::metadata(self.index_path(tenant, part, file.generation))
                .is_ok_and(|metadata| metadata.len() >= file.length)
    }

    /// Takes away what a crash has left behind a file's committed bytes, and the time at which it did: after a loss of
    /// the catalog, the file has to tell both. What can't be taken away doesn't count.
    fn settle_file(&self, tenant: u32, part: IndexPart, file: IndexFile) {
        if file.generation == 0 {
            return;
        }
        let path = self.index_path(tenant, part, file.generation);
        let settle = || -> io::Result<()> {
            let metadata = fs::metadata(&path)?;
            if metadata.len() <= file.length && modified(&metadata)? == file.modified {
                return Ok(());
            }
            let open = open_for_writing(&path, false)?;
            open.set_len(file.length)?;
            set_modified(&open, file.modified)?;
            open.sync_all()
        };
        if let Err(error) = settle() {
            tracing::warn!(path = %path.display(), %error, "what a crash has left in an index file can't be taken away");
        }
    }

    /// The earliest of the sources' watermarks: what started before it is known. One that was told while the clock ran
    /// ahead says nothing.
    pub(super) async fn watermark(&self, tenant: &Tenant, now_ms: i64) -> Result<i64, CatalogError> {
        let mut earliest = i64::MAX;
        for source in &tenant.sources {
            let told = self.source(tenant.id, source.id).await?.watermark_ms;
            earliest = earliest.min(if is_ahead(told, now_ms) { i64::MIN } else { told });
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
        self.record(&mut writer, txn, Vec::new()).await
    }

    /// Publishes a root index, or only says anew whether it is complete, if nothing else has changed.
    pub(super) async fn publish_root(
        &self,
        building: &Building<'_>,
        tenant: &Tenant,
        day: LocalDay,
        incomplete: bool,
        now_ms: i64,
    ) -> Result<(), CatalogError> {
        let began = Instant::now();
        let begun = self.begin_root(building, tenant, day).await?;
        let row = self.commit_root(building, tenant, day, begun, incomplete, now_ms).await?;
        let took_ms = began.elapsed().as_millis();
        if row.running {
            tracing::debug!(tenant = %tenant.name, %day, rows = row.rows, took_ms, "root index of the running day written");
        } else if incomplete {
            tracing::warn!(tenant = %tenant.name, %day, rows = row.rows, took_ms, "root index published incomplete: a source has not told all of that day yet");
        } else {
            tracing::info!(tenant = %tenant.name, %day, rows = row.rows, took_ms, "root index published");
        }
        Ok(())
    }

    pub(super) async fn begin_root(
        &self,
        building: &Building<'_>,
        tenant: &Tenant,
        day: LocalDay,
    ) -> Result<Begun<RootIndexRow>, CatalogError> {
        let mut writer = self.writer.lock().await;
        self.ensure_caught_up(&mut writer).await?;
        let row: RootIndexRow = self.row(&keys::root_index(tenant.id, day)).await?.unwrap_or_default();
        let only_flag = row.dirty_since_ms.is_none() && row.file.generation != 0;
        if only_flag {
            return Ok(Begun { row, draft: None });
        }
        let draft = self.draft(building, tenant, Subject::Root(day));
        drop(writer);
        Ok(Begun { row, draft: Some(self.fill(draft).await?) })
    }

    pub(super) async fn commit_root(
        &self,
        building: &Building<'_>,
        tenant: &Tenant,
        day: LocalDay,
        begun: Begun<RootIndexRow>,
        incomplete: bool,
        now_ms: i64,
    ) -> Result<RootIndexRow, CatalogError> {
        let mut writer = self.writer.lock().await;
        self.ensure_caught_up(&mut writer).await?;
        let mut txn = Txn::new(&*self.store);
        let (key, part) = (keys::root_index(tenant.id, day), IndexPart::Root(day));
        let mut row: RootIndexRow = txn.get(&key).await?.unwrap_or_default();
        if let Some(draft) = begun.draft {
            let replaced = Replaced { part, before: begun.row.file, now: row.file };
            let built = self.finish(draft, vec![replaced], now_ms).await?;
            row.file = built.file(part);
            row.rows = built.rows;
            row.dirty_since_ms = building.end().mark(begun.row.dirty_since_ms, row.dirty_since_ms, now_ms);
        }
        row.running = Span::of(tenant, day).is_some_and(|span| !span.is_settled(incomplete, now_ms));
        row.incomplete = incomplete || row.running;
        txn.put(key, &row)?;
        self.record(&mut writer, txn, Vec::new()).await?;
        self.remove_others(tenant.id, &[(part, row.file)]).await;
        Ok(row)
    }

    /// Writes a folder's indexes anew.
    pub(super) async fn rewrite_folder(
        &self,
        building: &Building<'_>,
        tenant: &Tenant,
        day: UtcDay,
        now_ms: i64,
    ) -> Result<(), CatalogError> {
        let begun = self.begin_folder(building, tenant, day).await?;
        self.commit_folder(building, tenant, day, begun, now_ms).await
    }

    async fn begin_folder(
        &self,
        building: &Building<'_>,
        tenant: &Tenant,
        day: UtcDay,
    ) -> Result<Begun<FolderRow>, CatalogError> {
        let mut writer = self.writer.lock().await;
        self.ensure_caught_up(&mut writer).await?;
        let row: FolderRow = self.row(&keys::folder(tenant.id, day)).await?.unwrap_or_default();
        let draft = self.draft(building, tenant, Subject::Folder(day));
        drop(writer);
        Ok(Begun { row, draft: Some(self.fill(draft).await?) })
    }

    async fn commit_folder(
        &self,
        building: &Building<'_>,
        tenant: &Tenant,
        day: UtcDay,
        begun: Begun<FolderRow>,
        now_ms: i64,
    ) -> Result<(), CatalogError> {
        let mut writer = self.writer.lock().await;
        self.ensure_caught_up(&mut writer).await?;
        let mut txn = Txn::new(&*self.store);
        let key = keys::folder(tenant.id, day);
        let mut row: FolderRow = txn.get(&key).await?.unwrap_or_default();
        let Begun { row: before, draft: Some(draft) } = begun else { return Ok(()) };
        let replaced = before.files(day).into_iter().zip(row.files(day));
        let replaced = replaced.map(|((part, before), (_, now))| Replaced { part, before, now });
        let built = self.finish(draft, replaced.collect(), now_ms).await?;
        let [brief, full, media] = row.files(day).map(|(part, _)| built.file(part));
        (row.brief, row.full, row.media) = (brief, full, media);
        row.dirty_since_ms = building.end().mark(before.dirty_since_ms, row.dirty_since_ms, now_ms);
        txn.put(key, &row)?;
        self.record(&mut writer, txn, Vec::new()).await?;
        self.remove_others(tenant.id, &row.files(day)).await;
        Ok(())
    }

    /// Removes other generations of these indexes; who has one open keeps it. What can't be removed only takes room.
    /// Called with the writer's lock: nobody may make a new generation meanwhile.
    pub(super) async fn remove_others(&self, tenant: u32, kept: &[(IndexPart, IndexFile)]) {
        let kept: Vec<(IndexPart, PathBuf)> = kept
            .iter()
            .map(|(part, file)| (*part, self.index_path(tenant, *part, file.generation)))
            .collect();
        let removed = in_thread(move || kept.iter().try_for_each(|(part, path)| remove_beside(*part, path)));
        if let Err(error) = removed.await {
            tracing::debug!(%error, "an old generation of an index stays");
        }
    }

    /// Removes other generations of an index, and what is left of a build, all of them where `keep` is 0. The folder
    /// isn't synced. Called with the turn to build.
    pub(super) fn remove_other_generations(
        &self,
        tenant: u32,
        part: IndexPart,
        keep: u64,
    ) -> Result<(), CatalogError> {
        remove_beside(part, &self.index_path(tenant, part, keep))
    }
}

/// Removes the other files of an index.
fn remove_beside(part: IndexPart, kept: &Path) -> Result<(), CatalogError> {
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

/// A build that has begun: the index's row as it was then, and what is to replace its files.
pub(super) struct Begun<R> {
    row: R,
    draft: Option<Draft>,
}

pub(super) fn is_wav(recording: &Recording) -> bool {
    recording.listed.extension == Extension::WAV.as_str()
}

/// What an index says of a recording.
pub(super) fn index_row(
    form: NameForm,
    place: Place,
    recording: &Recording,
) -> Result<IndexRow, CatalogError> {
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
        file_name: name.text(form),
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

/// Gives a file the time that clients are told: where the catalog is lost, the file still has it.
fn set_modified(file: &File, unix_s: i64) -> io::Result<()> {
    let since = Duration::from_secs(u64::try_from(unix_s).unwrap_or(0));
    file.set_modified(SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH))
}

/// The time that a file has, Unix seconds.
pub(super) fn modified(metadata: &fs::Metadata) -> io::Result<i64> {
    let since = metadata.modified()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(i64::try_from(since.as_secs()).unwrap_or(0))
}

fn open_for_writing(path: &Path, fresh: bool) -> io::Result<File> {
    if fresh && let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().write(true).create(fresh).truncate(false).open(path)
}

#[cfg(test)]
mod tests;
