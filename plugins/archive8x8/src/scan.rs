//! Telling what an archive holds: facts first, then the media that they are about.

use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use recgate_plugin_api::{Call, Emit, Error, ErrorCode, Item};
use recgate_plugin_common::clock::Clock;
use recgate_plugin_common::folder::{self, Folder};
use recgate_plugin_common::open::cancelled;
use recgate_plugin_common::report::Reports;

use crate::columns::{Column, Row};
use crate::facts::{self, Origin, Rank};
use crate::media;
use crate::names::{self, Digits, FileName, FolderName, Id, IndexKind, Medium};
use crate::rows::{self, Failed};
use crate::settings::Settings;
use crate::survey::{self, Dated, Survey};

/// Recordings of a day of which it is remembered that the full index has a row about them, so that the brief one's
/// isn't told. Where there are more the gateway finds that out: it costs time, never a wrong fact.
const REMEMBERED_MAX: usize = 250_000;
/// Index files of one day folder.
const FILES_MAX: usize = 1000;
/// Days after a UTC day of which a root index speaks at most, and whose media its rows may be about.
const ROOT_AFTER: u32 = 1;
const ROWS_AFTER: u32 = 2;

/// What a scan has told.
#[derive(Debug)]
pub(crate) struct Told {
    /// All that is there could be read, and no index is just being written.
    pub(crate) all: bool,
    /// The earliest start among media that are growing, Unix milliseconds.
    pub(crate) growing_since_ms: Option<i64>,
    recordings: u64,
    rows: u64,
    ignored: u64,
}

/// Tells everything.
pub(crate) fn run(
    root: &Folder,
    settings: &Settings,
    clock: Clock,
    call: &dyn Call,
    reports: &mut Reports<'_>,
    emit: Emit<'_>,
) -> Result<Told, Error> {
    let survey = Survey::of(root, call, reports)?;
    if survey.days.is_empty() {
        reports.warn("root: there is no folder S20160606 or the like; is it the right path?");
    }
    let told = Told { all: !survey.is_partial, growing_since_ms: None, recordings: 0, rows: 0, ignored: 0 };
    let mut scan = Scan { root, settings, clock, call, reports, emit, survey: &survey, told };
    let (mut days, mut indexes) = (survey.days.iter().peekable(), survey.indexes.iter().peekable());
    for day in &survey.days {
        // A root index is of a local date, which has instants of the UTC days around it. The folders' own indexes come
        // before it: their rows are fuller, and what they have told is not changed by it.
        while let Some(near) = days.next_if(|other| other.day <= day.day.plus(ROWS_AFTER)) {
            scan.day_facts(near)?;
        }
        while let Some(index) = indexes.next_if(|index| index.day <= day.day.plus(ROOT_AFTER)) {
            scan.root_facts(index)?;
        }
        scan.day_media(day)?;
    }
    for index in indexes {
        scan.root_facts(index)?;
    }
    for base in survey.bases() {
        let (base, orphans) = (base.name.as_deref(), base.orphans.as_deref());
        if let Some(orphans) = orphans
            && let Some(folder) = scan.folder(base, orphans)?
        {
            scan.media(&folder, base, orphans, None)?;
        }
    }
    let told = scan.told;
    reports.debug(&format!(
        "root: {} recordings and {} rows in {} day folders, {} other files ignored",
        told.recordings,
        told.rows,
        survey.days.len(),
        told.ignored
    ));
    Ok(told)
}

struct Scan<'s, 'h> {
    root: &'s Folder,
    settings: &'s Settings,
    clock: Clock,
    call: &'s dyn Call,
    reports: &'s mut Reports<'h>,
    emit: Emit<'s>,
    survey: &'s Survey,
    told: Told,
}

impl Scan<'_, '_> {
    /// Tells the rows of a day folder's own indexes: the full one's, then the brief one's about recordings that the
    /// full one doesn't have.
    fn day_facts(&mut self, day: &Dated<()>) -> Result<(), Error> {
        let base = self.survey.base_of(day).and_then(|base| base.name.as_deref());
        let Some(folder) = self.folder(base, &day.name)? else { return Ok(()) };
        let mut files = Vec::new();
        let Some(entries) = self.tolerated(folder.entries())? else { return Ok(()) };
        for entry in entries {
            self.check()?;
            let Some(raw) = self.tolerated(entry)? else { break };
            let name = raw.to_str().unwrap_or_default();
            if let Some((_, kind)) = names::parse_index(name) {
                files.push((kind == IndexKind::Plain, name.to_owned()));
            }
            // There are three; a folder full of such names is no archive's.
            if files.len() > FILES_MAX {
                self.reports
                    .warn(&format!("{name}: more than {FILES_MAX} index files, the others are ignored"));
                break;
            }
        }
        // Full ones first, then by name.
        files.sort_unstable();
        let mut seen = Remembered::default();
        for (plain, name) in files {
            let index = Index {
                shown: names::path(base, &day.name, &name),
                rank: if plain { Rank::Brief } else { Rank::Full },
                place: Place::Day { base, day: day.day },
            };
            self.index(&folder, &name, &index, &mut seen)?;
        }
        Ok(())
    }

    /// Tells the rows of a root index.
    fn root_facts(&mut self, dated: &Dated<IndexKind>) -> Result<(), Error> {
        let survey = self.survey;
        let Some(base) = survey.base_of(dated) else { return Ok(()) };
        let Some(folder_name) = &base.index else { return Ok(()) };
        let name = base.name.as_deref();
        let Some(folder) = self.folder(name, folder_name)? else { return Ok(()) };
        let index = Index {
            shown: names::path(name, folder_name, &dated.name),
            rank: if dated.kind == IndexKind::Full { Rank::RootFull } else { Rank::Root },
            place: Place::Root { survey, dated },
        };
        self.index(&folder, &dated.name, &index, &mut Remembered::default())
    }

    /// Tells the rows of one index.
    fn index(
        &mut self,
        folder: &Folder,
        name: &str,
        index: &Index<'_>,
        seen: &mut Remembered,
    ) -> Result<(), Error> {
        let shown = &index.shown;
        let Some(opened) = self.tolerated(folder.file(name))? else { return Ok(()) };
        let Some(regular) = opened else {
            self.reports.debug(&format!("{shown} is ignored, it is not a regular file"));
            return Ok(());
        };
        let young = self.clock.is_young(regular.stamp.changed_ms());
        let (zone, call, emit, told) = (self.settings.zone(), self.call, &mut *self.emit, &mut self.told);
        // Both closures report.
        let reports = RefCell::new(&mut *self.reports);
        let warn = |problem: &str| reports.borrow_mut().warn(&format!("{shown}{problem}"));
        let mut tell = |line: u64, row: Row<'_>| {
            if call.is_cancelled() {
                return Err(cancelled());
            }
            let mut report = |problem: &str| warn(&format!(", row {line}: {problem}"));
            let Some((medium, path)) = index.subject(&row, &mut report) else { return Ok(()) };
            if matches!(index.place, Place::Day { .. }) && !seen.insert(&path) && index.rank == Rank::Brief {
                return Ok(());
            }
            let revision = facts::revision(index.rank, regular.stamp.mtime_ns, line);
            let origin = Origin { path: &path, medium: &medium, revision, zone };
            told.rows = told.rows.saturating_add(1);
            emit(Item::Facts(facts::of(&row, origin, &mut report)))
        };
        let read = rows::read(regular.file, &mut |notice| warn(&format!(": {notice}")), &mut tell);
        match read {
            Ok(()) => self.told.all &= !young,
            Err(Failed::Stopped(error)) => return Err(error),
            Err(Failed::Io(error)) => {
                self.told.all = false;
                self.reports.warn(&format!("{shown} can't be read: {error}"));
            }
            Err(Failed::Broken(reason)) if young => {
                self.told.all = false;
                self.reports.debug(&format!("{shown} is being written: {reason}"));
            }
            Err(Failed::Broken(reason)) => {
                self.reports.warn(&format!("{shown} is broken, what follows is not read: {reason}"));
            }
        }
        Ok(())
    }

    fn day_media(&mut self, day: &Dated<()>) -> Result<(), Error> {
        let base = self.survey.base_of(day).and_then(|base| base.name.as_deref());
        // What there is to say of one that can't be opened was said when its indexes were looked for.
        match survey::open(self.root, base, &day.name) {
            Ok(Some(folder)) => self.media(&folder, base, &day.name, Some(day.day)),
            Ok(None) => Ok(()),
            Err(error) if error.code == ErrorCode::Busy => Err(error),
            Err(_) => {
                self.told.all = false;
                Ok(())
            }
        }
    }

    /// Streams a folder's media: one file is open at a time, no list of them is held.
    fn media(
        &mut self,
        folder: &Folder,
        base: Option<&str>,
        name: &str,
        day: Option<Digits>,
    ) -> Result<(), Error> {
        let Some(entries) = self.tolerated(folder.entries())? else { return Ok(()) };
        let mut ignored = 0_u64;
        let mut ignore = |reports: &mut Reports<'_>, file: &str, why: &str| {
            ignored = ignored.saturating_add(1);
            if ignored <= 3 {
                reports.debug(&format!("{name}: {file:?} is ignored, {why}"));
            }
        };
        for entry in entries {
            self.check()?;
            let Some(raw) = self.tolerated(entry)? else { break };
            let Some(file) = raw.to_str() else {
                self.reports.warn(&format!("{name}: {raw:?} is ignored, its name is not UTF-8; rename it"));
                continue;
            };
            let medium = match FileName::parse(file) {
                FileName::Medium(medium) => medium,
                FileName::Index(_) => continue,
                FileName::UnknownExtension => {
                    ignore(self.reports, file, "it has the name of a recording, but the extension of none");
                    continue;
                }
                FileName::Other => {
                    ignore(self.reports, file, "it is no recording");
                    continue;
                }
            };
            let Some(opened) = self.tolerated(folder.file(file))? else { continue };
            // A link, a pipe, a device, a folder; or it has just been deleted.
            let Some(regular) = opened else {
                ignore(self.reports, file, "it is not a regular file");
                continue;
            };
            if medium.start_ms.is_none() {
                self.reports.warn(&format!("{name}: {file:?} names a time that doesn't exist"));
            } else if let Some(day) = day
                && medium.day() != Some(day)
            {
                self.reports
                    .warn(&format!("{name}: {file:?} names another day; it is listed in that day's folder"));
            }
            let path = names::path(base, name, file);
            let id = Id { base, folder: name, file, medium, place: FolderName::parse(name) };
            let seen = media::examine(&path, &id, &regular, self.clock)
                .map_err(|error| folder::io_error(&error, format!("recording {path:?} can't be read")));
            // Not told at all rather than told as failed: told so, a slip in the permissions of the folder would
            // make orphans of everything.
            let Some(seen) = self.tolerated(seen)? else { continue };
            if let Some(since) = seen.growing_since_ms {
                let known = self.told.growing_since_ms;
                self.told.growing_since_ms = Some(known.map_or(since, |known| known.min(since)));
            }
            (self.emit)(Item::Media(seen.media))?;
            self.told.recordings = self.told.recordings.saturating_add(1);
        }
        self.told.ignored = self.told.ignored.saturating_add(ignored);
        Ok(())
    }

    /// A folder of an archive; what can't be opened, or is no folder, is reported, and `None`.
    fn folder(&mut self, base: Option<&str>, name: &str) -> Result<Option<Folder>, Error> {
        let opened = survey::open(self.root, base, name);
        let folder = self.tolerated(opened)?;
        if let Some(None) = folder {
            self.reports.warn(&format!("{name:?} is ignored, it is not a folder; links are not followed"));
        }
        Ok(folder.flatten())
    }

    fn check(&self) -> Result<(), Error> {
        if self.call.is_cancelled() { Err(cancelled()) } else { Ok(()) }
    }

    /// What was read; an error that costs only what it is about is reported, and `None`.
    fn tolerated<T>(&mut self, result: Result<T, Error>) -> Result<Option<T>, Error> {
        match result {
            Ok(value) => Ok(Some(value)),
            // Out of file descriptors: that is no matter of this one file.
            Err(error) if error.code == ErrorCode::Busy => Err(error),
            Err(error) => {
                self.told.all = false;
                self.reports.warn(&error.message);
                Ok(None)
            }
        }
    }
}

/// An index file that is read.
struct Index<'a> {
    /// Its path, for messages.
    shown: String,
    rank: Rank,
    place: Place<'a>,
}

/// Where an index lies.
enum Place<'a> {
    /// In a day folder of an archive.
    Day { base: Option<&'a str>, day: Digits },
    /// In an archive's `Index`.
    Root { survey: &'a Survey, dated: &'a Dated<IndexKind> },
}

impl Index<'_> {
    /// The recording that a row is about, and its path.
    fn subject(&self, row: &Row<'_>, report: &mut dyn FnMut(&str)) -> Option<(Medium, String)> {
        let Some(file_name) = row.cell(Column::FileName) else {
            report("FILENAME is empty, the row is not used");
            return None;
        };
        let Some(medium) = FileName::medium(last_part(&file_name)) else {
            // What stands there may be a name or a number that a missing quote has shifted: no log may have it.
            report("FILENAME is no recording's name such as R201606060001170000.wav, the row is not used");
            return None;
        };
        let directory = row.cell(Column::Directory);
        let directory = match directory.as_deref().map(|text| FolderName::parse(last_part(text))) {
            Some(FolderName::Day(day)) => Some(day),
            Some(_) => {
                report("DIRECTORY is no day folder such as S20160606, it is not used");
                None
            }
            None => None,
        };
        // Without one it is the folder that the index lies in; a root index lies in none, there the name tells.
        let (base, day) = match &self.place {
            Place::Day { base, day } => (*base, directory.unwrap_or(*day)),
            Place::Root { survey, dated } => {
                let day = directory.or_else(|| medium.day()).unwrap_or(dated.day);
                (survey.home_of(dated, day), day)
            }
        };
        let path = names::path(base, &day.folder(), &medium.key);
        Some((medium, path))
    }
}

/// What follows the last slash, of either kind.
fn last_part(path: &str) -> &str {
    path.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or_default()
}

/// Paths that were told, by their hashes: two that have the same are taken for one. That happens to one folder in
/// hundreds of millions, and costs a row of the brief index.
#[derive(Default)]
struct Remembered {
    hashes: HashSet<u64>,
    hasher: RandomState,
}

impl Remembered {
    /// Whether the path is new, as far as is remembered.
    fn insert(&mut self, path: &str) -> bool {
        let hash = self.hasher.hash_one(path);
        if self.hashes.len() < REMEMBERED_MAX {
            self.hashes.insert(hash)
        } else {
            !self.hashes.contains(&hash)
        }
    }
}
