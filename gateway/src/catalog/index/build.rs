//! Building whole new index files, which takes long where a day has many recordings.
//!
//! The writer's lock is not held meanwhile, so that names go on being given. Rows are read in the order of publication,
//! a page at a time; with the lock follow those that have been published since, and the commit. A row that was changed
//! in place after it was read is in the files as it was before: then the index stays marked as behind ([`Builds`] hears
//! of it), as if it had been changed right after the build. Threads that may wait for the disk write the files, under a
//! name of their own until the commit.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{IndexPart, index_row, is_wav, next_generation, open_for_writing, set_modified};
use crate::{
    catalog::{
        Catalog, CatalogError, PAGE,
        apply::AT_ONCE,
        keys,
        keys::Place,
        rows::{self, Condition, IndexFile, Recording},
        txn::Txn,
    },
    config::Tenant,
    layout::{LocalDay, NameForm, TenantZone, UtcDay, append_row, header},
    state::Store,
};

/// Bytes of rows that are held before they are written.
const BUFFER: usize = 1 << 18;

/// What stands in a file's name, instead of a generation, while it is built.
const UNFINISHED: &str = "building";

/// The index of a local day, or those of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Root(LocalDay),
    Folder(UtcDay),
}

impl Subject {
    /// The keys of the order in which its rows stand.
    fn order(self, tenant: u32) -> Vec<u8> {
        match self {
            Self::Root(day) => keys::local_order_of(tenant, day),
            Self::Folder(day) => keys::folder_order_of(tenant, day),
        }
    }

    /// The folders that its recordings may lie in.
    fn folders(self) -> impl Iterator<Item = UtcDay> {
        let (day, around) = match self {
            Self::Root(day) => (day.number(), 1),
            Self::Folder(day) => (day.number(), 0),
        };
        (day.saturating_sub(around)..=day.saturating_add(around)).filter_map(UtcDay::from_number)
    }

    /// What a recording's change means for it.
    fn disturbed_by(self, before: &Recording, after: &Recording) -> Disturbance {
        let cells = before.details != after.details;
        match self {
            Self::Root(day) if after.frozen.local_day != day.number() => Disturbance::None,
            // A root index keeps the rows of what is missing.
            Self::Folder(_) if before.listed != after.listed => Disturbance::Listing,
            _ if cells => Disturbance::Cells,
            _ => Disturbance::None,
        }
    }
}

/// What has happened, since a build began, to rows that it may have read before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Disturbance {
    None,
    /// Cells have changed.
    Cells,
    /// The folder doesn't list the same as before, or nobody knows.
    Listing,
}

impl Disturbance {
    /// The mark of an index after a build. `before` and `now` are the marks that it had when the build began and when it
    /// ended.
    pub(super) fn mark(self, before: Option<i64>, now: Option<i64>, now_ms: i64) -> Option<i64> {
        match self {
            // Somebody may have asked for it since.
            Self::None => now.filter(|mark| *mark == AT_ONCE && before != Some(AT_ONCE)),
            Self::Cells => Some(now_ms),
            Self::Listing => Some(AT_ONCE),
        }
    }
}

/// Whose turn it is to build, and what happens to the rows meanwhile. One builds at a time.
#[derive(Default)]
pub struct Builds {
    turn: tokio::sync::Mutex<()>,
    watched: Mutex<Option<Watched>>,
}

#[derive(Clone, Copy)]
struct Watched {
    tenant: u32,
    subject: Subject,
    disturbance: Disturbance,
}

/// The turn to build.
pub struct Building<'a> {
    builds: &'a Builds,
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

impl Drop for Building<'_> {
    fn drop(&mut self) {
        self.builds.watched().take();
    }
}

impl Builds {
    /// Waits for the turn. The writer's lock comes after it, never before.
    pub async fn lock(&self) -> Building<'_> {
        Building { builds: self, _turn: self.turn.lock().await }
    }

    /// The writer is about to commit these changes.
    pub async fn note(&self, store: &dyn Store, txn: &Txn<'_>) -> Result<(), CatalogError> {
        let watched = *self.watched();
        let Some(Watched { tenant, subject, .. }) = watched else { return Ok(()) };
        let mut changed = Vec::new();
        for day in subject.folders() {
            changed.extend(txn.recordings(&keys::recordings_of(tenant, day)));
        }
        if changed.is_empty() {
            return Ok(());
        }
        let wanted: Vec<Vec<u8>> = changed.iter().map(|(key, _)| key.to_vec()).collect();
        for ((_, after), before) in changed.into_iter().zip(store.get_many(&wanted).await?) {
            // What is new comes into the files at the end.
            let Some(before) = before else { continue };
            self.disturb(subject.disturbed_by(&rows::decode(&before.value)?, &rows::decode(after)?));
        }
        Ok(())
    }

    /// Anything may have happened.
    pub fn disturb_all(&self) {
        self.disturb(Disturbance::Listing);
    }

    fn disturb(&self, what: Disturbance) {
        if let Some(watched) = &mut *self.watched() {
            watched.disturbance = watched.disturbance.max(what);
        }
    }

    fn watched(&self) -> MutexGuard<'_, Option<Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Building<'_> {
    /// From now on changes of the subject's rows are watched. Called with the writer's lock.
    fn begin(&self, tenant: u32, subject: Subject) {
        *self.builds.watched() = Some(Watched { tenant, subject, disturbance: Disturbance::None });
    }

    /// What has happened since the beginning. Called with the writer's lock.
    pub(super) fn end(&self) -> Disturbance {
        self.builds.watched().take().map_or(Disturbance::Listing, |watched| watched.disturbance)
    }
}

/// New index files that nobody sees yet.
pub(super) struct Draft {
    /// The keys of its rows' order, and that from which on rows are still to come.
    order: Vec<u8>,
    from: Vec<u8>,
    files: Files,
}

/// An index's file, as a build found it at its beginning and at its end.
pub(super) struct Replaced {
    pub part: IndexPart,
    pub before: IndexFile,
    pub now: IndexFile,
}

/// What was built.
pub(super) struct Built {
    /// Rows of all files but the brief ones.
    pub rows: u64,
    files: Vec<(IndexPart, IndexFile)>,
}

impl Built {
    /// The file of a part; generation 0 where there is none.
    pub fn file(&self, part: IndexPart) -> IndexFile {
        self.files.iter().find(|(built, _)| *built == part).map(|(_, file)| *file).unwrap_or_default()
    }
}

impl Catalog {
    /// Begins a draft. Called with the writer's lock, which is given back before it is filled.
    pub(super) fn draft(&self, building: &Building<'_>, tenant: &Tenant, subject: Subject) -> Draft {
        building.begin(tenant.id, subject);
        let order = subject.order(tenant.id);
        let files = Files {
            folder: self.index_dir.join(format!("t{}", tenant.id)),
            tenant: tenant.id,
            subject,
            names: tenant.name_form,
            zone: tenant.zone.clone(),
            rows: 0,
            files: Vec::new(),
        };
        Draft { from: order.clone(), order, files }
    }

    /// Writes the rows of what is published by now.
    pub(super) async fn fill(&self, draft: Draft) -> Result<Draft, CatalogError> {
        let mut draft = self.add_rows(draft).await?;
        let mut files = draft.files;
        // What is on the disk already need not be waited for with the lock.
        draft.files = in_thread(move || files.sync().map(|()| files)).await?;
        self.add_rows(draft).await
    }

    /// Writes what has been published since, and gives the files their names. Called with the writer's lock.
    pub(super) async fn finish(
        &self,
        draft: Draft,
        replaced: Vec<Replaced>,
        now_ms: i64,
    ) -> Result<Built, CatalogError> {
        let Draft { files, .. } = self.add_rows(draft).await?;
        in_thread(move || files.finish(&replaced, now_ms)).await
    }

    async fn add_rows(&self, mut draft: Draft) -> Result<Draft, CatalogError> {
        loop {
            let page = self.store.scan(&draft.order, &draft.from, PAGE).await?;
            let is_last = page.next.is_none();
            let behind = |last: &crate::state::Row| [&last.key[..], &[0][..]].concat();
            if let Some(from) = page.next.or_else(|| page.rows.last().map(behind)) {
                draft.from = from;
            }
            let places =
                page.rows.iter().map(|row| rows::decode(&row.value)).collect::<Result<Vec<Place>, _>>()?;
            let wanted: Vec<_> =
                places.iter().map(|place| keys::recording(draft.files.tenant, *place)).collect();
            let found = self.store.get_many(&wanted).await?;
            let rows: Vec<(Place, Bytes)> =
                places.into_iter().zip(found).filter_map(|(place, row)| Some((place, row?.value))).collect();
            if !rows.is_empty() {
                let mut files = draft.files;
                draft.files = in_thread(move || files.append(rows).map(|()| files)).await?;
            }
            if is_last {
                return Ok(draft);
            }
        }
    }
}

/// Work that may wait for the disk.
pub(super) async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, CatalogError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| CatalogError::Row(format!("writing indexes: {error}")))?
}

/// The files of a draft.
struct Files {
    /// The tenant's folder of indexes.
    folder: PathBuf,
    tenant: u32,
    subject: Subject,
    names: NameForm,
    zone: TenantZone,
    rows: u64,
    files: Vec<Unfinished>,
}

/// A whole new file.
struct Unfinished {
    part: IndexPart,
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    length: u64,
}

impl Files {
    fn append(&mut self, rows: Vec<(Place, Bytes)>) -> Result<(), CatalogError> {
        for (place, bytes) in rows {
            let recording: Recording = rows::decode(&bytes)?;
            let (first, second) = match self.subject {
                Subject::Root(day) => (IndexPart::Root(day), None),
                Subject::Folder(_) if recording.listed.condition == Condition::Missing => continue,
                Subject::Folder(day) if is_wav(&recording) => {
                    (IndexPart::Full(day), Some(IndexPart::Brief(day)))
                }
                Subject::Folder(day) => (IndexPart::Media(day), None),
            };
            let row = index_row(self.names, place, &recording)?;
            for part in [Some(first), second].into_iter().flatten() {
                let zone = self.zone.clone();
                let file = self.file(part)?;
                append_row(part.kind(), &row, &zone, &mut file.buffer);
                if file.buffer.len() >= BUFFER {
                    file.flush()?;
                }
            }
            self.rows = self.rows.saturating_add(1);
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), CatalogError> {
        self.files.iter_mut().try_for_each(Unfinished::sync)
    }

    fn finish(mut self, replaced: &[Replaced], now_ms: i64) -> Result<Built, CatalogError> {
        // These are there with or without a row.
        let wanted = match self.subject {
            Subject::Root(day) => vec![IndexPart::Root(day)],
            Subject::Folder(day) => vec![IndexPart::Brief(day), IndexPart::Full(day)],
        };
        for part in wanted {
            self.file(part)?;
        }
        let mut files = Vec::with_capacity(self.files.len());
        for file in &mut self.files {
            let (before, now) = replaced
                .iter()
                .find(|replaced| replaced.part == file.part)
                .map(|replaced| (replaced.before, replaced.now))
                .unwrap_or_default();
            // Rows that were appended meanwhile are in the new file, which is no older than they are.
            let is_same = (now.generation, now.length) == (before.generation, before.length);
            let appended = if is_same { i64::MIN } else { now.modified };
            let modified = now_ms.div_euclid(1000).max(appended);
            // After a loss of the catalog, the file has to tell its time.
            file.flush()?;
            set_modified(&file.file, modified)
                .map_err(|source| CatalogError::Index { path: file.path.clone(), source })?;
            file.sync()?;
            let mut generation = next_generation(now.generation, now_ms);
            let named = |generation: u64| self.folder.join(file_name(file.part, &generation.to_string()));
            // One that a lost catalog or a crash has left behind may still be read by somebody.
            while named(generation).exists() {
                generation = generation.saturating_add(1);
            }
            let path = named(generation);
            fs::rename(&file.path, &path).map_err(|source| CatalogError::Index { path, source })?;
            files.push((file.part, IndexFile { generation, length: file.length, modified }));
        }
        // All of them lie in one folder.
        if let Some(folder) = self.files.first().and_then(|file| file.path.parent()) {
            crate::state::sync_folder(folder)
                .map_err(|source| CatalogError::Index { path: folder.to_owned(), source })?;
        }
        Ok(Built { rows: self.rows, files })
    }

    fn path(&self, part: IndexPart, generation: &str) -> PathBuf {
        self.folder.join(file_name(part, generation))
    }

    /// A part's file, which is made when it is first asked for.
    fn file(&mut self, part: IndexPart) -> Result<&mut Unfinished, CatalogError> {
        let at = match self.files.iter().position(|file| file.part == part) {
            Some(at) => at,
            None => {
                let path = self.path(part, UNFINISHED);
                self.files.push(Unfinished::create(part, path)?);
                self.files.len() - 1
            }
        };
        self.files.get_mut(at).ok_or_else(|| CatalogError::Row(format!("a draft has no file for {part:?}")))
    }
}

fn file_name(part: IndexPart, generation: &str) -> String {
    format!("{}.{generation}.csv", part.stem())
}

impl Unfinished {
    fn create(part: IndexPart, path: PathBuf) -> Result<Self, CatalogError> {
        let file = open_for_writing(&path, true)
            .and_then(|file| file.set_len(0).map(|()| file))
            .map_err(|source| CatalogError::Index { path: path.clone(), source })?;
        Ok(Self { part, path, file, buffer: header(part.kind()), length: 0 })
    }

    fn flush(&mut self) -> Result<(), CatalogError> {
        self.file
            .write_all(&self.buffer)
            .map_err(|source| CatalogError::Index { path: self.path.clone(), source })?;
        self.length = self.length.saturating_add(self.buffer.len() as u64);
        self.buffer.clear();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), CatalogError> {
        self.flush()?;
        self.file.sync_all().map_err(|source| CatalogError::Index { path: self.path.clone(), source })
    }
}
