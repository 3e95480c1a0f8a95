//! What an archive consists of: its day folders and root indexes, found anew by each scan.
//!
//! An archive is a folder with `S20160606`, `Index` and so on. The root is one, or its folders are some, or both: people
//! sort years of archive into a folder each. Folders whose names are numbers are taken for such parts of one archive,
//! whose indexes may speak of recordings in another part; all others for archives that have nothing to do with each other.

use recgate_plugin_api::{Call, Error, ErrorCode};
use recgate_plugin_common::folder::Folder;
use recgate_plugin_common::open::cancelled;
use recgate_plugin_common::report::Reports;

use crate::names::{self, Digits, FolderName, IndexKind};

/// Day folders, and root indexes, that a scan goes through: five centuries of each.
const FOUND_MAX: usize = 200_000;
/// Archives in a root.
const BASES_MAX: usize = 10_000;

/// A folder that has day folders or root indexes: the root, or one in it.
#[derive(Debug)]
pub(crate) struct Base {
    /// Its name in the root; `None` for the root itself.
    pub(crate) name: Option<String>,
    /// `Index`, as it is spelled here.
    pub(crate) index: Option<String>,
    /// `Orphans`, as it is spelled here.
    pub(crate) orphans: Option<String>,
}

impl Base {
    /// A part of one archive: the root, or `2016`, `2016-06`.
    fn is_part(&self) -> bool {
        self.name.as_deref().is_none_or(|name| {
            name.len() >= 4 && name.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'_'))
        })
    }
}

/// Something with a date that lies in a base.
#[derive(Debug)]
pub(crate) struct Dated<K> {
    pub(crate) day: Digits,
    /// Place in [`Survey::bases`].
    base: usize,
    /// As it is spelled here.
    pub(crate) name: String,
    pub(crate) kind: K,
}

/// What there is, in the order of days.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    bases: Vec<Base>,
    /// Day folders.
    pub(crate) days: Vec<Dated<()>>,
    /// Root indexes.
    pub(crate) indexes: Vec<Dated<IndexKind>>,
    /// Something could not be read.
    pub(crate) is_partial: bool,
}

impl Survey {
    /// Looks through the root.
    ///
    /// # Errors
    /// Those of the root; a folder in it that can't be read is reported and costs what lies there.
    pub(crate) fn of(root: &Folder, call: &dyn Call, reports: &mut Reports<'_>) -> Result<Self, Error> {
        let mut survey = Self::default();
        let others = survey.base(root, None, call, reports)?;
        for name in others {
            if call.is_cancelled() {
                return Err(cancelled());
            }
            let Some(folder) = survey.tolerated(root.folder(&name), reports)?.flatten() else { continue };
            if let Err(error) = survey.base(&folder, Some(name), call, reports) {
                survey.tolerated::<()>(Err(error), reports)?;
            }
        }
        survey.indexes_of(root, call, reports)?;
        survey
            .days
            .sort_by(|one, other| (one.day, one.base, &one.name).cmp(&(other.day, other.base, &other.name)));
        survey
            .indexes
            .sort_by(|one, other| (one.day, one.base, &one.name).cmp(&(other.day, other.base, &other.name)));
        Ok(survey)
    }

    /// The archives.
    pub(crate) fn bases(&self) -> &[Base] {
        &self.bases
    }

    /// Where something lies.
    pub(crate) fn base_of<K>(&self, dated: &Dated<K>) -> Option<&Base> {
        self.bases.get(dated.base)
    }

    /// The name of the archive that has the recordings of a day of which a root index of `dated`'s archive speaks:
    /// that archive itself, or, where it has no such folder and is a part, the one other part that has it.
    pub(crate) fn home_of<K>(&self, dated: &Dated<K>, day: Digits) -> Option<&str> {
        let own = self.bases.get(dated.base)?;
        let from = self.days.partition_point(|folder| folder.day < day);
        let folders = || self.days.iter().skip(from).take_while(|folder| folder.day == day);
        if folders().any(|folder| folder.base == dated.base) {
            return own.name.as_deref();
        }
        // Where the root has but one archive in it, the root's index is about that.
        let is_related =
            |base: &Base| own.is_part() && (base.is_part() || own.name.is_none() && self.bases.len() == 2);
        let mut others =
            folders().filter_map(|folder| self.bases.get(folder.base)).filter(|base| is_related(base));
        match (others.next(), others.next()) {
            (Some(other), None) => other.name.as_deref(),
            _ => own.name.as_deref(),
        }
    }

    /// Looks through one folder; gives the names in it that may be archives themselves.
    fn base(
        &mut self,
        folder: &Folder,
        name: Option<String>,
        call: &dyn Call,
        reports: &mut Reports<'_>,
    ) -> Result<Vec<String>, Error> {
        let is_root = name.is_none();
        let place = self.bases.len();
        let shown = name.clone().unwrap_or_else(|| ".".to_owned());
        let mut base = Base { name, index: None, orphans: None };
        let (mut others, mut ignored) = (Vec::new(), 0_u64);
        let before = self.days.len();
        for entry in folder.entries()? {
            if call.is_cancelled() {
                return Err(cancelled());
            }
            let raw = entry?;
            let Some(name) = raw.to_str() else {
                reports.warn(&format!("{shown}: {raw:?} is ignored, its name is not UTF-8; rename it"));
                continue;
            };
            match FolderName::parse(name) {
                FolderName::Day(day) => {
                    if day.date().is_none() {
                        reports.warn(&format!("{shown}: folder {name:?} names a day that doesn't exist"));
                    }
                    push(
                        &mut self.days,
                        FOUND_MAX,
                        Dated { day, base: place, name: name.to_owned(), kind: () },
                    )?;
                }
                FolderName::Index => spelled(&mut base.index, name, reports),
                FolderName::Orphans => spelled(&mut base.orphans, name, reports),
                FolderName::Other if is_root && names::is_base(name) => {
                    // Looked at here, so that files that lie about in the root don't count.
                    match self.tolerated(folder.folder(name), reports)?.flatten() {
                        Some(_) => push(&mut others, BASES_MAX, name.to_owned())?,
                        None => ignored = ignored.saturating_add(1),
                    }
                }
                FolderName::Other => ignored = ignored.saturating_add(1),
            }
        }
        if ignored > 0 {
            reports.debug(&format!("{shown}: {ignored} files and folders are ignored"));
        }
        if is_root || base.index.is_some() || base.orphans.is_some() || self.days.len() > before {
            self.bases.push(base);
        }
        others.sort_unstable();
        Ok(others)
    }

    /// Finds the root indexes of all archives.
    fn indexes_of(&mut self, root: &Folder, call: &dyn Call, reports: &mut Reports<'_>) -> Result<(), Error> {
        let mut found = Vec::new();
        for place in 0..self.bases.len() {
            let Some((name, index)) =
                self.bases.get(place).map(|base| (base.name.clone(), base.index.clone()))
            else {
                continue;
            };
            let Some(index) = index else { continue };
            let opened = open(root, name.as_deref(), &index);
            let Some(folder) = self.tolerated(opened, reports)?.flatten() else { continue };
            let Some(entries) = self.tolerated(folder.entries(), reports)? else { continue };
            let mut ignored = 0_u64;
            for entry in entries {
                if call.is_cancelled() {
                    return Err(cancelled());
                }
                let Some(raw) = self.tolerated(entry, reports)? else { break };
                match raw.to_str().and_then(|name| Some((name, names::parse_index(name)?))) {
                    Some((name, (day, kind))) => {
                        push(&mut found, FOUND_MAX, Dated { day, base: place, name: name.to_owned(), kind })?;
                    }
                    None => ignored = ignored.saturating_add(1),
                }
            }
            if ignored > 0 {
                reports.debug(&format!("{index}: {ignored} files are ignored, they are no indexes"));
            }
        }
        self.indexes = found;
        Ok(())
    }

    /// What was read; an error that costs only what it is about is reported, and `None`.
    fn tolerated<T>(
        &mut self,
        result: Result<T, Error>,
        reports: &mut Reports<'_>,
    ) -> Result<Option<T>, Error> {
        match result {
            Ok(value) => Ok(Some(value)),
            // Out of file descriptors, or the host's wish: that is no matter of this one folder.
            Err(error)
                if matches!(error.code, ErrorCode::Busy | ErrorCode::Cancelled | ErrorCode::TooLarge) =>
            {
                Err(error)
            }
            Err(error) => {
                self.is_partial = true;
                reports.warn(&error.message);
                Ok(None)
            }
        }
    }
}

/// Opens a folder of an archive.
pub(crate) fn open(root: &Folder, base: Option<&str>, name: &str) -> Result<Option<Folder>, Error> {
    match base {
        None => root.folder(name),
        Some(base) => match root.folder(base)? {
            Some(base) => base.folder(name),
            None => Ok(None),
        },
    }
}

fn push<T>(found: &mut Vec<T>, most: usize, one: T) -> Result<(), Error> {
    if found.len() >= most {
        let message = format!(
            "root: there are more than {most} archives, day folders or root indexes; make it several sources"
        );
        return Err(Error::new(ErrorCode::TooLarge, message));
    }
    found.push(one);
    Ok(())
}

fn spelled(place: &mut Option<String>, name: &str, reports: &mut Reports<'_>) {
    match place {
        Some(first) => {
            reports.warn(&format!("folder {name:?} is ignored beside {first:?}; move its files there"))
        }
        None => *place = Some(name.to_owned()),
    }
}
