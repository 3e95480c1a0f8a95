//! What the published index files still tell after the catalog's store was lost.
//!
//! The journal gives names and frozen fields back, and no fact: it holds no personal values. A source tells its facts
//! again, unless it has forgotten them, and nobody tells how the index files were: without that they would all be
//! published anew, and emptier. So, once, after the journal was applied to a new store, the files are read:
//!
//! 1. Rows are found by DIRECTORY and FILENAME, and what their cells say becomes the recording's. Of two files that tell
//!    of one recording the younger generation is believed. What was erased stays so.
//! 2. A file whose whole rows are those that were published, in their order, keeps its generation, its length and its
//!    time. What lies behind them, as a crash leaves it, doesn't count. If a cell differs from what is known now, or
//!    rows are to be added, the file is as it was before the loss: behind, and published again by the same rules. Any
//!    other file is written anew.
//!
//! What sources tell counts more than what an index said, value by value. So the latter is kept beside the recording
//! ([`RecoveredRow`]) until all of it was told again: of two facts about one recording, a source may have forgotten one.
//!
//! Files are read line by line and rows are looked up some at a time, however large a day is.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use recgate_plugin_api::fact;
use serde::{Deserialize, Serialize};

use super::{
    Catalog, CatalogError, IndexPart, PAGE, Writer, erase,
    index::{index_row, is_wav, modified},
    keys,
    keys::Place,
    rows::{self, Condition, IndexFile, Recording, RootIndexRow, TenantRow, Told},
    txn::Txn,
};
use crate::{
    layout::{IndexLine, IndexRow, LocalDay, NameForm, UtcDay, header},
    state::Batch,
};

/// Bytes of a line at most. What is longer was not written here.
const LINE_MAX: u64 = 4 << 20;

/// Recordings that are changed in one commit.
const AT_ONCE: usize = 1024;

/// A fact and the cell that it fills.
type Column = (&'static str, fn(&mut IndexRow) -> &mut String);

/// The columns of text.
const TEXTS: [Column; 14] = [
    (fact::CALL_TYPE, |row| &mut row.call_type),
    (fact::AGENT_NAME, |row| &mut row.agent_name),
    (fact::CUSTOMER_NUMBER, |row| &mut row.customer_number),
    (fact::PHONE_CHANNEL, |row| &mut row.phone_channel),
    (fact::CALLED_NUMBER, |row| &mut row.called_number),
    (fact::CASE_ID, |row| &mut row.case_id),
    (fact::ACCOUNT, |row| &mut row.account),
    (fact::QUEUE_TYPE, |row| &mut row.queue),
    (fact::QUEUE_NAME, |row| &mut row.queue_name),
    (fact::TRANSACTION_ID, |row| &mut row.transaction_id),
    (fact::EXTERNAL_VARIABLE_1, |row| &mut row.external_variable_1),
    (fact::EXTERNAL_VARIABLE_2, |row| &mut row.external_variable_2),
    (fact::OUTDIAL_CODE, |row| &mut row.outdial_code),
    (fact::WRAP_UP_CODE, |row| &mut row.wrap_up_code),
];

/// What an index said of a recording, as facts would say it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveredRow {
    /// The generation of the index.
    pub generation: u64,
    /// Key and value.
    pub values: BTreeMap<String, String>,
}

/// What came of it, for the log.
#[derive(Debug, Default)]
struct Recovered {
    recordings: u64,
    kept: u64,
    anew: u64,
}

impl Catalog {
    /// Remembers that the store is new and the journal is not: what the index files tell has to be read.
    pub(super) async fn note_loss(&self) -> Result<(), CatalogError> {
        if self.applied().await? == 0 && self.journal.head().sequence > 0 {
            let mut batch = Batch::new();
            batch.put(keys::REBUILT, rows::encode(&true)?);
            self.store.commit(batch).await?;
        }
        Ok(())
    }

    /// Reads the index files, if the store was lost and they weren't read since. A file that can't be read is
    /// written anew.
    pub(super) async fn recover(&self, writer: &mut Writer) -> Result<(), CatalogError> {
        if self.store.get(keys::REBUILT).await?.is_none() {
            return Ok(());
        }
        let mut recovered = Recovered::default();
        for tenant in tenants_below(&self.index_dir) {
            self.recover_tenant(writer, tenant, &mut recovered).await?;
        }
        writer.recovered.clear();
        let mut txn = Txn::new(&*self.store);
        txn.delete(keys::REBUILT.to_vec());
        self.record(writer, txn, Vec::new()).await?;
        let Recovered { recordings, kept, anew } = recovered;
        tracing::info!(
            recordings,
            kept,
            anew,
            "the catalog was rebuilt; its index files told of recordings, were kept, or are written anew"
        );
        Ok(())
    }

    async fn recover_tenant(
        &self,
        writer: &mut Writer,
        tenant: u32,
        recovered: &mut Recovered,
    ) -> Result<(), CatalogError> {
        let row: TenantRow = self.row(&keys::tenant(tenant)).await?.unwrap_or_default();
        let form = if row.short_names == Some(true) { NameForm::Short } else { NameForm::Long };
        let erasures = self.has_erasures(writer, tenant).await?;
        let files = Files { catalog: self, tenant, form, erasures };
        let roots = files.root_days();
        let mut chosen = HashMap::new();
        let mut from = None;
        loop {
            let (days, next) = self.folders(tenant, from).await?;
            for (day, _) in days {
                for part in [IndexPart::Brief(day), IndexPart::Full(day), IndexPart::Media(day)] {
                    files.choose(writer, part, &mut chosen, recovered).await?;
                }
            }
            match next {
                Some(day) => from = Some(day),
                None => break,
            }
        }
        for day in &roots {
            files.choose(writer, IndexPart::Root(*day), &mut chosen, recovered).await?;
        }
        // All is known now that can be: which of the files are as they would be written?
        let mut from = None;
        loop {
            let (days, next) = self.folders(tenant, from).await?;
            for (day, _) in days {
                files.keep_folder(writer, day, &chosen, recovered).await?;
            }
            match next {
                Some(day) => from = Some(day),
                None => break,
            }
        }
        for day in roots {
            files.keep_root(writer, day, &chosen, recovered).await?;
        }
        Ok(())
    }

    /// Whether something about the tenant's recordings is known from index files alone.
    pub(super) async fn has_recovered(&self, writer: &mut Writer, tenant: u32) -> Result<bool, CatalogError> {
        self.has_any(&mut writer.recovered, tenant, &keys::all_recovered(tenant)).await
    }
}

/// What facts say now, and where they say nothing, what an index said before the store was lost.
pub async fn completed(
    txn: &mut Txn<'_>,
    tenant: u32,
    source: u32,
    media: &str,
    told: &Told,
    mut values: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, CatalogError> {
    let key = keys::recovered(tenant, source, media);
    let Some(row) = txn.get::<RecoveredRow>(&key).await? else { return Ok(values) };
    let is_told =
        |key: &String| values.contains_key(key) || key == fact::DURATION_MS && told.duration_ms.is_some();
    if row.values.keys().all(is_told) {
        txn.delete(key);
        return Ok(values);
    }
    for (key, value) in row.values {
        values.entry(key).or_insert(value);
    }
    Ok(values)
}

/// Takes what is personal out of what an index said.
pub async fn strip(txn: &mut Txn<'_>, tenant: u32, source: u32, media: &str) -> Result<(), CatalogError> {
    let key = keys::recovered(tenant, source, media);
    match txn.get::<RecoveredRow>(&key).await? {
        Some(mut row) => {
            row.values.retain(|key, _| !erase::is_personal(key));
            txn.put(key, &row)
        }
        None => Ok(()),
    }
}

/// The index files of a tenant.
struct Files<'a> {
    catalog: &'a Catalog,
    tenant: u32,
    form: NameForm,
    /// Something of the tenant was erased once.
    erasures: bool,
}

/// What is done with the rows of a file.
enum Work<'w> {
    /// They are compared with what is known.
    Compare,
    /// They become known.
    Fill(&'w mut Writer, &'w mut Recovered),
}

/// How a file was found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Reading {
    /// Whole rows that stand where they were published, from the first on.
    rows: u64,
    /// Bytes up to their end, the header among them; 0 where there is none.
    length: u64,
    /// When it was made, Unix seconds.
    modified: i64,
    /// No row lacks.
    whole: bool,
    /// Their cells say what is known.
    same: bool,
    /// A row stands where it was not published.
    disordered: bool,
}

impl Reading {
    fn is_as_published(&self) -> bool {
        self.length > 0 && !self.disordered
    }

    fn file(&self, generation: u64) -> IndexFile {
        IndexFile { generation, length: self.length, modified: self.modified }
    }
}

impl Files<'_> {
    /// Decides which generation of an index counts, and takes from it what it tells.
    async fn choose(
        &self,
        writer: &mut Writer,
        part: IndexPart,
        chosen: &mut HashMap<IndexPart, u64>,
        recovered: &mut Recovered,
    ) -> Result<(), CatalogError> {
        let generations = self.generations(part);
        let mut best: Option<(u64, u64)> = None;
        for generation in &generations {
            // Two are there after a crash, or where the older one couldn't be removed.
            let rows = match generations.len() {
                1 => 0,
                _ => self.read(part, *generation, Work::Compare).await?.rows,
            };
            best = best.max(Some((rows, *generation)));
        }
        let Some((_, generation)) = best else { return Ok(()) };
        chosen.insert(part, generation);
        // The brief columns tell nothing that the others don't.
        if !matches!(part, IndexPart::Brief(_)) {
            self.read(part, generation, Work::Fill(writer, recovered)).await?;
        }
        Ok(())
    }

    async fn compare(
        &self,
        part: IndexPart,
        chosen: &HashMap<IndexPart, u64>,
    ) -> Result<(u64, Reading), CatalogError> {
        match chosen.get(&part) {
            Some(generation) => Ok((*generation, self.read(part, *generation, Work::Compare).await?)),
            None => {
                let whole = Expected::new(self, part).next().await?.is_none();
                Ok((0, Reading { whole, same: true, ..Reading::default() }))
            }
        }
    }

    async fn keep_folder(
        &self,
        writer: &mut Writer,
        day: UtcDay,
        chosen: &HashMap<IndexPart, u64>,
        recovered: &mut Recovered,
    ) -> Result<(), CatalogError> {
        let brief = self.compare(IndexPart::Brief(day), chosen).await?;
        let full = self.compare(IndexPart::Full(day), chosen).await?;
        let media = self.compare(IndexPart::Media(day), chosen).await?;
        let is_sound = |reading: Reading| reading.is_as_published() && reading.whole && reading.same;
        // There is none while a folder has no other media.
        let no_media = media.1.whole && media.1.rows == 0;
        if !is_sound(brief.1) || !is_sound(full.1) || !(no_media || is_sound(media.1)) {
            recovered.anew += 1;
            return Ok(());
        }
        let mut txn = Txn::new(&*self.catalog.store);
        let key = keys::folder(self.tenant, day);
        let mut row: rows::FolderRow = txn.get(&key).await?.unwrap_or_default();
        row.brief = brief.1.file(brief.0);
        row.full = full.1.file(full.0);
        row.media = if no_media { IndexFile::default() } else { media.1.file(media.0) };
        row.dirty_since_ms = None;
        txn.put(key, &row)?;
        self.catalog.record(writer, txn, Vec::new()).await?;
        self.catalog.remove_others(self.tenant, &row.files(day)).await;
        recovered.kept += 1;
        Ok(())
    }

    async fn keep_root(
        &self,
        writer: &mut Writer,
        day: LocalDay,
        chosen: &HashMap<IndexPart, u64>,
        recovered: &mut Recovered,
    ) -> Result<(), CatalogError> {
        let part = IndexPart::Root(day);
        let (generation, reading) = self.compare(part, chosen).await?;
        if generation == 0 || !reading.is_as_published() {
            recovered.anew += 1;
            return Ok(());
        }
        let mut txn = Txn::new(&*self.catalog.store);
        let key = keys::root_index(self.tenant, day);
        let mut row: RootIndexRow = txn.get(&key).await?.unwrap_or_default();
        row.file = reading.file(generation);
        row.rows = reading.rows;
        // Nobody knows any more whether every source had told all of the day; their next scans say so.
        row.incomplete = true;
        row.dirty_since_ms = match reading.whole && reading.same {
            true => None,
            false => row.dirty_since_ms.or(Some(reading.modified.saturating_mul(1000))),
        };
        txn.put(key, &row)?;
        self.catalog.record(writer, txn, Vec::new()).await?;
        self.catalog.remove_others(self.tenant, &[(part, row.file)]).await;
        recovered.kept += 1;
        Ok(())
    }

    /// Reads a file beside what was published.
    async fn read(
        &self,
        part: IndexPart,
        generation: u64,
        mut work: Work<'_>,
    ) -> Result<Reading, CatalogError> {
        let path = self.catalog.index_path(self.tenant, part, generation);
        let mut reading = Reading { same: true, ..Reading::default() };
        let mut lines = match Lines::open(&path) {
            Ok((lines, modified)) => {
                reading.modified = modified;
                lines
            }
            Err(error) => return Ok(unreadable(&path, &error)),
        };
        match lines.next() {
            Ok(Some(line)) if line == header(part.kind()) => reading.length = line.len() as u64,
            Ok(_) => return Ok(reading),
            Err(error) => return Ok(unreadable(&path, &error)),
        }
        let mut expected = Expected::new(self, part);
        let mut next = expected.next().await?;
        let mut changes = Txn::new(&*self.catalog.store);
        let mut changed = 0;
        loop {
            let (length, line) = match lines.next() {
                Ok(None) => break,
                Ok(Some(line)) => (line.len() as u64, IndexLine::read(part.kind(), line)),
                Err(error) => return Ok(unreadable(&path, &error)),
            };
            let Some(line) = line else { break };
            let Some(name) = line.name(self.form) else { break };
            let place = Place::new(name.second, name.sequence);
            let (recording, in_order) = match next.take_if(|(at, _)| *at == place) {
                Some((_, recording)) => (recording, true),
                // What the journal doesn't know of was written and not published.
                None => match self.catalog.recording(self.tenant, place).await? {
                    Some(recording) => (recording, false),
                    None => break,
                },
            };
            if in_order && !reading.disordered {
                reading.rows = reading.rows.saturating_add(1);
                reading.length = reading.length.saturating_add(length);
                reading.same &= line.says(&index_row(self.form, place, &recording)?);
            } else {
                reading.disordered = true;
            }
            if next.is_none() {
                next = expected.next().await?;
            }
            if let Work::Fill(writer, recovered) = &mut work {
                if !self.fill(&mut changes, place, recording, &line, generation).await? {
                    continue;
                }
                recovered.recordings += 1;
                changed += 1;
                if changed == AT_ONCE {
                    let full = std::mem::replace(&mut changes, Txn::new(&*self.catalog.store));
                    self.catalog.record(writer, full, Vec::new()).await?;
                    changed = 0;
                }
            }
        }
        reading.whole = next.is_none();
        if let Work::Fill(writer, _) = work
            && !changes.is_empty()
        {
            self.catalog.record(writer, changes, Vec::new()).await?;
        }
        Ok(reading)
    }

    /// Makes a recording say what a row says, and returns whether that changes anything.
    async fn fill(
        &self,
        txn: &mut Txn<'_>,
        place: Place,
        mut recording: Recording,
        line: &IndexLine,
        generation: u64,
    ) -> Result<bool, CatalogError> {
        let known = index_row(self.form, place, &recording)?;
        if line.says(&known) {
            return Ok(false);
        }
        let Some(mut told) = line.row() else { return Ok(false) };
        let (source, media) = (recording.frozen.source, recording.frozen.media.clone());
        let key = keys::recovered(self.tenant, source, &media);
        let before = txn.get::<RecoveredRow>(&key).await?;
        if before.as_ref().is_some_and(|before| before.generation > generation) {
            return Ok(false);
        }
        let details = &mut recording.details;
        // What an older index said is replaced.
        for key in before.into_iter().flat_map(|before| before.values.into_keys()) {
            details.values.remove(&key);
        }
        for (key, cell) in TEXTS {
            let cell = std::mem::take(cell(&mut told));
            if !cell.is_empty() {
                details.values.insert(key.to_owned(), cell);
            }
        }
        // The journal knows times to the millisecond, unless facts have corrected them since.
        if known.start_utc_s != told.start_utc_s {
            details.start_ms = told.start_utc_s.saturating_mul(1000);
        }
        if known.stop_utc_s != told.stop_utc_s {
            details.stop_ms = told.stop_utc_s.saturating_mul(1000);
        }
        if index_row(self.form, place, &recording)?.duration_s != told.duration_s {
            recording.details.duration_ms = told.duration_s.map(|seconds| seconds.saturating_mul(1000));
        }
        let details = &mut recording.details;
        let values = &mut details.values;
        values.insert(fact::STARTED_AT.to_owned(), details.start_ms.to_string());
        values.insert(fact::STOPPED_AT.to_owned(), details.stop_ms.to_string());
        if let Some(duration_ms) = details.duration_ms {
            values.insert(fact::DURATION_MS.to_owned(), duration_ms.to_string());
        }
        if self.erasures && erase::is_erased(txn, self.tenant, source, &media).await? {
            values.retain(|key, _| !erase::is_personal(key));
        }
        txn.put(key, &RecoveredRow { generation, values: values.clone() })?;
        txn.put(keys::recording(self.tenant, place), &recording)?;
        Ok(true)
    }

    /// The local days that have files of root indexes, ascending.
    fn root_days(&self) -> Vec<LocalDay> {
        let folder = self.folder_of(IndexPart::Root(LocalDay::default()));
        let mut days: Vec<LocalDay> = file_names(&folder)
            .filter_map(|name| LocalDay::parse_index_name(&format!("I{}.csv", name.split('.').next()?)))
            .collect();
        days.sort_unstable();
        days.dedup();
        days
    }

    /// The generations of an index that lie on the disk.
    fn generations(&self, part: IndexPart) -> Vec<u64> {
        let stem = part.stem();
        let stem = stem.rsplit('/').next().unwrap_or_default();
        let generation = |name: String| -> Option<u64> {
            let digits = name.strip_prefix(stem)?.strip_prefix('.')?.strip_suffix(".csv")?;
            digits.parse().ok().filter(|number: &u64| *number > 0 && number.to_string() == digits)
        };
        file_names(&self.folder_of(part)).filter_map(generation).collect()
    }

    fn folder_of(&self, part: IndexPart) -> PathBuf {
        let path = self.catalog.index_path(self.tenant, part, 0);
        path.parent().map(Path::to_owned).unwrap_or_default()
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Reading {
    tracing::warn!(path = %path.display(), %error, "the index file can't be read; it is written anew");
    Reading { disordered: true, ..Reading::default() }
}

/// Ids of the tenants that have index files.
fn tenants_below(folder: &Path) -> Vec<u32> {
    file_names(folder).filter_map(|name| name.strip_prefix('t')?.parse().ok()).collect()
}

/// The names in a folder; none where it can't be read.
fn file_names(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

/// What a file has to list, in the order of publication.
struct Expected<'a> {
    files: &'a Files<'a>,
    part: IndexPart,
    order: Vec<u8>,
    from: Option<Vec<u8>>,
    page: VecDeque<(Place, Recording)>,
}

impl<'a> Expected<'a> {
    fn new(files: &'a Files<'a>, part: IndexPart) -> Self {
        let order = match part {
            IndexPart::Root(day) => keys::local_order_of(files.tenant, day),
            IndexPart::Brief(day) | IndexPart::Full(day) | IndexPart::Media(day) => {
                keys::folder_order_of(files.tenant, day)
            }
        };
        Self { files, part, from: Some(order.clone()), order, page: VecDeque::new() }
    }

    async fn next(&mut self) -> Result<Option<(Place, Recording)>, CatalogError> {
        loop {
            if let Some(next) = self.page.pop_front() {
                return Ok(Some(next));
            }
            let Some(from) = self.from.take() else { return Ok(None) };
            let (store, tenant) = (&self.files.catalog.store, self.files.tenant);
            let page = store.scan(&self.order, &from, PAGE).await?;
            let places =
                page.rows.iter().map(|row| rows::decode(&row.value)).collect::<Result<Vec<Place>, _>>()?;
            let wanted: Vec<_> = places.iter().map(|place| keys::recording(tenant, *place)).collect();
            for (place, row) in places.into_iter().zip(store.get_many(&wanted).await?) {
                let Some(row) = row else { continue };
                let recording: Recording = rows::decode(&row.value)?;
                let is_there = recording.listed.condition != Condition::Missing;
                let is_listed = match self.part {
                    IndexPart::Root(_) => true,
                    IndexPart::Brief(_) | IndexPart::Full(_) => is_there && is_wav(&recording),
                    IndexPart::Media(_) => is_there && !is_wav(&recording),
                };
                if is_listed {
                    self.page.push_back((place, recording));
                }
            }
            self.from = page.next;
        }
    }
}

/// The whole lines of a file.
struct Lines {
    file: BufReader<File>,
    line: Vec<u8>,
}

impl Lines {
    fn open(path: &Path) -> io::Result<(Self, i64)> {
        let file = File::open(path)?;
        let modified = modified(&file.metadata()?)?;
        Ok((Self { file: BufReader::with_capacity(1 << 16, file), line: Vec::new() }, modified))
    }

    /// The next line with its end; `None` where no whole one is left.
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        (&mut self.file).take(LINE_MAX).read_until(b'\n', &mut self.line)?;
        Ok(self.line.ends_with(b"\r\n").then_some(self.line.as_slice()))
    }
}

#[cfg(test)]
mod tests;
