//! The tree itself: which path is what, and what each folder holds.
//!
//! ```text
//! /                      Index and the day folders
//! /Index/I20160606.csv   the root index of a tenant-local day
//! /S20160606/            the recordings of a UTC day, and the indexes about them
//! ```

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Arc, RwLock},
};

use async_trait::async_trait;
use bytes::BytesMut;

use super::{
    Attributes, Entry, FileSystem, Listing, MediaReader, Medium, OpenFile, Refusal, RefusalKind, VPath,
    read_refusal,
};
use crate::{
    catalog::{Catalog, CatalogError, Condition, FolderRow, IndexFile, IndexPart, Listed, Place, Recording},
    config::Tenant,
    identity::{Account, Role},
    layout::{LocalDay, RecordingName, UtcDay},
    sources::Slot,
};

/// The folder of the root indexes.
const INDEX: &str = "Index";

/// The one tree behind all doors.
pub struct Vfs {
    catalog: Arc<Catalog>,
    reader: Arc<MediaReader>,
    tenants: RwLock<HashMap<u32, Arc<Mounted>>>,
}

/// A tenant with its sources, as configured now.
pub struct Mounted {
    /// The tenant.
    pub tenant: Arc<Tenant>,
    /// Sources by id.
    pub sources: HashMap<u32, Arc<Slot>>,
}

impl Vfs {
    /// A tree without tenants.
    pub fn new(catalog: Arc<Catalog>, reader: Arc<MediaReader>) -> Self {
        Self { catalog, reader, tenants: RwLock::default() }
    }

    /// Replaces the tenants. Files that are open stay open.
    pub fn mount(&self, tenants: impl IntoIterator<Item = Mounted>) {
        let tenants = tenants.into_iter().map(|mounted| (mounted.tenant.id, Arc::new(mounted))).collect();
        *self.tenants.write().unwrap_or_else(std::sync::PoisonError::into_inner) = tenants;
    }

    fn mounted(&self, account: &Account) -> Result<Arc<Mounted>, Refusal> {
        let tenants = self.tenants.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        tenants
            .get(&account.tenant)
            .cloned()
            .ok_or_else(|| Refusal::new(RefusalKind::Unavailable, "this tenant is no longer served"))
    }

    async fn resolve(&self, tenant: &Tenant, path: &VPath) -> Result<Node, Refusal> {
        let node = match path.segments() {
            [] => Some(Node::Root),
            [name] if name == INDEX => Some(Node::IndexFolder),
            [name] => match UtcDay::parse_folder(name) {
                Some(day) => {
                    self.catalog.folder(tenant.id, day).await?.map(|row| Node::Day(day, Box::new(row)))
                }
                None => None,
            },
            [folder, name] if folder == INDEX => match LocalDay::parse_index_name(name) {
                Some(day) => self.root_index(tenant, day).await?.map(Node::Index),
                None => None,
            },
            [folder, name] => match UtcDay::parse_folder(folder) {
                Some(day) => self.in_day(tenant, day, name).await?,
                None => None,
            },
            // No folder lies deeper, and a file has no children.
            _ => None,
        };
        node.ok_or_else(not_found)
    }

    async fn root_index(&self, tenant: &Tenant, day: LocalDay) -> Result<Option<IndexNode>, Refusal> {
        let row = self.catalog.root_index(tenant.id, day).await?;
        Ok(row
            .filter(|row| row.file.generation != 0)
            .map(|row| IndexNode { part: IndexPart::Root(day), file: row.file }))
    }

    async fn in_day(&self, tenant: &Tenant, day: UtcDay, name: &str) -> Result<Option<Node>, Refusal> {
        if let Some(recording) = RecordingName::parse(name, tenant.name_form) {
            if recording.second.day() != day {
                return Ok(None);
            }
            let place = Place::new(recording.second, recording.sequence);
            let row = self.catalog.recording(tenant.id, place).await?;
            return Ok(row
                .filter(|row| {
                    row.listed.condition != Condition::Missing
                        && row.listed.extension == recording.extension.as_str()
                })
                .map(|row| Node::Recording(Box::new(row))));
        }
        let Some(row) = self.catalog.folder(tenant.id, day).await? else { return Ok(None) };
        Ok(folder_indexes(day, &row)
            .into_iter()
            .find(|(known, _)| known == name)
            .map(|(_, node)| Node::Index(node)))
    }
}

/// What a path names.
enum Node {
    Root,
    IndexFolder,
    Day(UtcDay, Box<FolderRow>),
    Index(IndexNode),
    Recording(Box<Recording>),
}

/// An index file and how much of it counts.
#[derive(Debug, Clone, Copy)]
struct IndexNode {
    part: IndexPart,
    file: IndexFile,
}

impl IndexNode {
    fn attributes(self) -> Attributes {
        Attributes { is_folder: false, size: self.file.length, modified: self.file.modified }
    }
}

#[async_trait]
impl FileSystem for Vfs {
    async fn stat(&self, account: &Account, path: &VPath) -> Result<Attributes, Refusal> {
        let mounted = self.mounted(account)?;
        let tenant = &mounted.tenant;
        Ok(match self.resolve(tenant, path).await? {
            Node::Root => folder(self.newest_child(tenant).await?),
            Node::IndexFolder => folder(self.newest_index(tenant).await?),
            Node::Day(_, row) => folder(folder_time(&row)),
            Node::Index(node) => node.attributes(),
            Node::Recording(recording) => file(&recording.listed),
        })
    }

    async fn list(&self, account: &Account, path: &VPath) -> Result<Box<dyn Listing>, Refusal> {
        let mounted = self.mounted(account)?;
        let tenant = Arc::clone(&mounted.tenant);
        let catalog = Arc::clone(&self.catalog);
        let (first, rest) = match self.resolve(&tenant, path).await? {
            Node::Root => {
                let index =
                    Entry { name: INDEX.into(), attributes: folder(self.newest_index(&tenant).await?) };
                (vec![index], Rest::Folders(None))
            }
            Node::IndexFolder => (Vec::new(), Rest::Indexes(None)),
            Node::Day(day, row) => {
                let indexes = folder_indexes(day, &row)
                    .into_iter()
                    .map(|(name, node)| Entry { name, attributes: node.attributes() })
                    .collect();
                (indexes, Rest::Recordings(day, None))
            }
            Node::Index(_) | Node::Recording(_) => {
                return Err(Refusal::new(RefusalKind::NotAFolder, "this is a file, not a folder"));
            }
        };
        Ok(Box::new(Pages { catalog, tenant, first, rest }))
    }

    async fn open(&self, account: &Account, path: &VPath) -> Result<Arc<dyn OpenFile>, Refusal> {
        let mounted = self.mounted(account)?;
        // A generation that is replaced between the look-up and the open is looked up again.
        for _ in 0..3 {
            let node = match self.resolve(&mounted.tenant, path).await? {
                Node::Recording(recording) => return self.open_recording(&mounted, *recording, path).await,
                Node::Index(node) => node,
                Node::Root | Node::IndexFolder | Node::Day(..) => {
                    return Err(Refusal::new(RefusalKind::IsAFolder, "this is a folder, not a file"));
                }
            };
            let path = self.catalog.index_path(mounted.tenant.id, node.part, node.file.generation);
            match tokio::task::spawn_blocking(move || File::open(path)).await.map_err(internal)? {
                Ok(file) => {
                    return Ok(Arc::new(IndexReader { file: Arc::new(file), attributes: node.attributes() }));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(internal(error)),
            }
        }
        Err(Refusal::new(RefusalKind::Unavailable, "this index is being written anew; try again"))
    }

    async fn remove(&self, account: &Account, path: &VPath) -> Result<(), Refusal> {
        let mounted = self.mounted(account)?;
        match self.resolve(&mounted.tenant, path).await? {
            Node::Recording(_) if account.role != Role::Administrator => {
                Err(Refusal::new(RefusalKind::Forbidden, "only an administrator may delete recordings"))
            }
            Node::Recording(_) => Err(Refusal::new(
                RefusalKind::ReadOnly,
                "recordings are read-only here: nothing can be deleted through this gateway",
            )),
            Node::Index(_) => Err(Refusal::new(RefusalKind::ReadOnly, "an index can't be deleted")),
            Node::Root | Node::IndexFolder | Node::Day(..) => {
                Err(Refusal::new(RefusalKind::IsAFolder, "this is a folder, not a file"))
            }
        }
    }
}

impl Vfs {
    async fn open_recording(
        &self,
        mounted: &Mounted,
        recording: Recording,
        path: &VPath,
    ) -> Result<Arc<dyn OpenFile>, Refusal> {
        if recording.listed.condition == Condition::Corrupt {
            return Err(Refusal::new(
                RefusalKind::Corrupt,
                "the stored bytes have changed since this recording was published; ask your administrator",
            ));
        }
        let frozen = &recording.frozen;
        let slot = mounted
            .sources
            .get(&frozen.source)
            .ok_or_else(|| unavailable("its source is not configured any more"))?;
        let source = slot.instance().ok_or_else(|| unavailable("its source is not started"))?;
        let describe = format!("{path} of {}, from source {}", mounted.tenant.name, source.name());
        // One trip to the source for what is fetched at once anyway.
        let (media, first) = source
            .open_with_first(&frozen.media, &frozen.version, MediaReader::first(recording.listed.size))
            .await
            .map_err(|error| read_refusal(&error, &describe))?;
        let medium = Medium { media, first, source: (mounted.tenant.id, frozen.source), describe };
        Ok(self.reader.open(
            medium,
            recording.listed.size,
            frozen.header_patch.clone().into(),
            file(&recording.listed),
            None,
        ))
    }

    async fn newest_index(&self, tenant: &Tenant) -> Result<i64, Refusal> {
        let (mut newest, mut from) = (0, None);
        loop {
            let (rows, next) = self.catalog.root_indexes(tenant.id, from).await?;
            newest = rows.iter().map(|(_, row)| row.file.modified).fold(newest, i64::max);
            match next {
                Some(day) => from = Some(day),
                None => return Ok(newest),
            }
        }
    }

    async fn newest_child(&self, tenant: &Tenant) -> Result<i64, Refusal> {
        let (mut newest, mut from) = (self.newest_index(tenant).await?, None);
        loop {
            let (rows, next) = self.catalog.folders(tenant.id, from).await?;
            newest = rows.iter().map(|(_, row)| folder_time(row)).fold(newest, i64::max);
            match next {
                Some(day) => from = Some(day),
                None => return Ok(newest),
            }
        }
    }
}

/// An open folder.
struct Pages {
    catalog: Arc<Catalog>,
    tenant: Arc<Tenant>,
    /// Entries that come before the pages.
    first: Vec<Entry>,
    rest: Rest,
}

/// What of an open folder is still to be listed, and from where.
enum Rest {
    Folders(Option<UtcDay>),
    Indexes(Option<LocalDay>),
    Recordings(UtcDay, Option<Place>),
    Nothing,
}

#[async_trait]
impl Listing for Pages {
    async fn next_page(&mut self) -> Result<Vec<Entry>, Refusal> {
        // A page may be empty of what this account may see; the end is an empty page with nothing behind it.
        loop {
            let mut entries = std::mem::take(&mut self.first);
            match self.rest {
                Rest::Folders(from) => {
                    let (rows, next) = self.catalog.folders(self.tenant.id, from).await?;
                    entries.extend(rows.into_iter().map(|(day, row)| Entry {
                        name: day.folder_name(),
                        attributes: folder(folder_time(&row)),
                    }));
                    self.rest = next.map_or(Rest::Nothing, |day| Rest::Folders(Some(day)));
                }
                Rest::Indexes(from) => {
                    let (rows, next) = self.catalog.root_indexes(self.tenant.id, from).await?;
                    entries.extend(rows.into_iter().filter(|(_, row)| row.file.generation != 0).map(
                        |(day, row)| Entry {
                            name: day.index_name(),
                            attributes: IndexNode { part: IndexPart::Root(day), file: row.file }.attributes(),
                        },
                    ));
                    self.rest = next.map_or(Rest::Nothing, |day| Rest::Indexes(Some(day)));
                }
                Rest::Recordings(day, from) => {
                    let (rows, next) = self.catalog.recordings(self.tenant.id, day, from).await?;
                    entries.extend(
                        rows.into_iter().filter_map(|(place, listed)| self.recording(place, &listed)),
                    );
                    self.rest = next.map_or(Rest::Nothing, |place| Rest::Recordings(day, Some(place)));
                }
                Rest::Nothing => return Ok(entries),
            }
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
    }
}

impl Pages {
    fn recording(&self, place: Place, listed: &Listed) -> Option<Entry> {
        if listed.condition == Condition::Missing {
            return None;
        }
        let name = place.name(&listed.extension)?;
        Some(Entry { name: name.text(self.tenant.name_form), attributes: file(listed) })
    }
}

/// An open index file: the generation that was current when it was opened, up to its length then.
struct IndexReader {
    file: Arc<File>,
    attributes: Attributes,
}

#[async_trait]
impl OpenFile for IndexReader {
    fn attributes(&self) -> Attributes {
        self.attributes
    }

    fn read_now(&self, _offset: u64, _len: usize, _out: &mut BytesMut) -> bool {
        // The file's pages may have to come from the disk.
        false
    }

    async fn read(&self, offset: u64, len: usize, out: &mut BytesMut) -> Result<(), Refusal> {
        let rest = self.attributes.size.saturating_sub(offset);
        let len = usize::try_from(rest).map_or(len, |rest| rest.min(len));
        let file = Arc::clone(&self.file);
        let bytes = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, offset).map(|()| bytes)
        })
        .await
        .map_err(internal)?
        .map_err(internal)?;
        out.extend_from_slice(&bytes);
        Ok(())
    }

    fn sha256(&self) -> Option<[u8; 32]> {
        None
    }
}

fn folder_indexes(day: UtcDay, row: &FolderRow) -> Vec<(String, IndexNode)> {
    [
        (day.brief_index_name(), IndexPart::Brief(day), row.brief),
        (day.full_index_name(), IndexPart::Full(day), row.full),
        (day.media_index_name(), IndexPart::Media(day), row.media),
    ]
    .into_iter()
    .filter(|(_, _, file)| file.generation != 0)
    .map(|(name, part, file)| (name, IndexNode { part, file }))
    .collect()
}

/// A folder's time is the newest of its children.
fn folder_time(row: &FolderRow) -> i64 {
    row.newest.max(row.brief.modified).max(row.full.modified).max(row.media.modified)
}

fn folder(modified: i64) -> Attributes {
    Attributes { is_folder: true, size: 0, modified }
}

fn file(listed: &Listed) -> Attributes {
    Attributes { is_folder: false, size: listed.size, modified: listed.modified }
}

fn not_found() -> Refusal {
    Refusal::new(RefusalKind::NotFound, "no such file or folder")
}

fn unavailable(why: &str) -> Refusal {
    Refusal::new(
        RefusalKind::Unavailable,
        "the source of this recording can't be reached now; try again later",
    )
    .with_detail(why)
}

fn internal(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(RefusalKind::Internal, "an internal error; the gateway's log has the details")
        .with_detail(error.to_string())
}

impl From<CatalogError> for Refusal {
    fn from(error: CatalogError) -> Self {
        internal(error)
    }
}
