//! Rows of new names at the ends of index files.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{AT_ONCE, IndexPart, in_thread, next_generation, open_for_writing, set_modified};
use crate::{
    catalog::{
        Catalog, CatalogError, keys,
        rows::{FolderRow, IndexFile, RootIndexRow},
        txn::Txn,
    },
    config::Tenant,
    layout::{IndexKind, IndexRow, LocalDay, UtcDay, append_row, header},
};

/// A name that was just given, as index files show it.
pub(in crate::catalog) struct New {
    /// Its row.
    pub row: IndexRow,
    /// Of a WAV.
    pub wav: bool,
    /// The day whose root index is shown while it runs.
    pub running: Option<LocalDay>,
}

/// Bytes that go to the end of a file, which is at `offset` whatever lies behind it.
pub(in crate::catalog) struct Append {
    path: PathBuf,
    offset: u64,
    bytes: Vec<u8>,
    modified: i64,
}

impl Catalog {
    /// Which rows new names add to their folders' files, and to the root indexes of running days, in the order of
    /// publication. The rows that say how much of these files counts are changed with it.
    pub(in crate::catalog) async fn plan_appends(
        &self,
        txn: &mut Txn<'_>,
        tenant: &Tenant,
        new: &[New],
        now_ms: i64,
    ) -> Result<Vec<Append>, CatalogError> {
        let mut appends = Vec::new();
        let mut running: BTreeMap<LocalDay, Vec<&New>> = BTreeMap::new();
        let mut folders: BTreeMap<UtcDay, Vec<&New>> = BTreeMap::new();
        for new in new {
            folders.entry(new.row.folder).or_default().push(new);
            if let Some(day) = new.running {
                running.entry(day).or_default().push(new);
            }
        }
        for (day, new) in running {
            appends.extend(self.append_to_root(txn, tenant, day, &new, now_ms).await?);
        }
        for (day, new) in folders {
            self.append_to_folder(txn, tenant, day, &new, now_ms, &mut appends).await?;
        }
        Ok(appends)
    }

    async fn append_to_folder(
        &self,
        txn: &mut Txn<'_>,
        tenant: &Tenant,
        day: UtcDay,
        new: &[&New],
        now_ms: i64,
        appends: &mut Vec<Append>,
    ) -> Result<(), CatalogError> {
        let key = keys::folder(tenant.id, day);
        // The files may just be growing to what a row says that is on its way, too.
        let settled = !txn.is_pending(&key);
        let mut row: FolderRow = txn.get(&key).await?.unwrap_or_default();
        if settled && !self.folder_is_whole(tenant.id, day, &row) {
            row = FolderRow { newest: row.newest, dirty_since_ms: Some(AT_ONCE), ..FolderRow::default() };
        }
        let is_unknown = row.dirty_since_ms == Some(AT_ONCE);
        if is_unknown || row.dirty_since_ms.is_some() && row.brief.generation == 0 {
            // It will be written anew, with these rows.
            return txn.put(key, &row);
        }
        let (mut brief, mut full, mut media) = (Vec::new(), Vec::new(), Vec::new());
        for New { row, wav, .. } in new {
            if *wav {
                append_row(IndexKind::Brief, row, &tenant.zone, &mut brief);
                append_row(IndexKind::Full, row, &tenant.zone, &mut full);
            } else {
                append_row(IndexKind::Media, row, &tenant.zone, &mut media);
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
        txn.put(key, &row)
    }

    async fn append_to_root(
        &self,
        txn: &mut Txn<'_>,
        tenant: &Tenant,
        day: LocalDay,
        new: &[&New],
        now_ms: i64,
    ) -> Result<Option<Append>, CatalogError> {
        let (key, part) = (keys::root_index(tenant.id, day), IndexPart::Root(day));
        let settled = !txn.is_pending(&key);
        let mut row: RootIndexRow = txn.get(&key).await?.unwrap_or_default();
        if settled && !self.is_whole(tenant.id, part, row.file) {
            row.file = IndexFile::default();
            row.dirty_since_ms = Some(now_ms);
        }
        if row.file.generation == 0 || row.dirty_since_ms == Some(AT_ONCE) {
            // It will be written anew, with these rows.
            txn.put(key, &row)?;
            return Ok(None);
        }
        let mut bytes = Vec::new();
        for New { row, .. } in new {
            append_row(part.kind(), row, &tenant.zone, &mut bytes);
        }
        row.rows = row.rows.saturating_add(new.len() as u64);
        let append = self.plan_append(tenant.id, part, &mut row.file, bytes, now_ms);
        txn.put(key, &row)?;
        Ok(Some(append))
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
        let (path, offset) = (self.index_path(tenant, part, file.generation), file.length);
        file.length = file.length.saturating_add(bytes.len() as u64);
        file.modified = now_ms.div_euclid(1000).max(file.modified);
        Append { path, offset, bytes, modified: file.modified }
    }
}

/// Writes the rows. The files are synced before anybody counts on them.
pub(in crate::catalog) async fn append_all(
    folder: PathBuf,
    appends: Vec<Append>,
) -> Result<(), CatalogError> {
    if appends.is_empty() {
        return Ok(());
    }
    in_thread(move || write_all(&folder, &appends)).await
}

fn write_all(folder: &Path, appends: &[Append]) -> Result<(), CatalogError> {
    let few = appends.len() <= 8;
    for append in appends {
        let write = || -> io::Result<()> {
            let file = open_for_writing(&append.path, append.offset == 0)?;
            // Set to a length that it has lost, it would be filled with zeros.
            if file.metadata()?.len() < append.offset {
                let short = format!("it is shorter than the {} bytes that it had", append.offset);
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, short));
            }
            file.set_len(append.offset)?;
            file.write_all_at(&append.bytes, append.offset)?;
            set_modified(&file, append.modified)?;
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
