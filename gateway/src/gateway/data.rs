//! The data folder: where the state lies, how it is opened and what is done when a part of it is lost.
//!
//! ```text
//! catalog.redb          the catalog
//! governance/           sled: what keeps recordings
//! governance-snapshot   its rows at the last checkpoint, for when sled wasn't stopped cleanly
//! journal/governance/   every uid, name and change of state; the two stores can be rebuilt from it
//! journal/access/       for logins, refusals and downloads; nothing writes them there yet
//! index/                the published index files
//! notes/                what people wrote as their reasons, which the journal points to
//! ssh/                  host keys
//! gateway-id            whose journal this is
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use uuid::Uuid;

use crate::{
    admin::{BackupReport, JournalHead},
    catalog::{Catalog, CatalogError},
    governance::{self, Governance, GovernanceError},
    state::{
        Chain, DataDirLock, Head, Journal, JournalError, JournalOptions, Notes, OpenState, RedbStore, Report,
        SledStore, Store, StoreError, gateway_id, load_snapshot, sync_folder,
    },
};

/// The journal's name for the catalog's store.
const CATALOG: &str = "catalog.redb";
/// The journal's name for the governance store.
const GOVERNANCE: &str = "governance";
/// From which the governance store is made anew.
const SNAPSHOT: &str = "governance-snapshot";

/// Why the data folder can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file can't be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A store failed in a way that a rebuild doesn't mend.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal is damaged or can't be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The catalog can't be brought up to the journal.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The governance store can't be brought up to the journal.
    #[error(transparent)]
    Governance(#[from] GovernanceError),
    /// There is nothing to rebuild from.
    #[error("there is no journal in {}, and names hang on it; restore a backup", .0.display())]
    NoJournal(PathBuf),
    /// Not what was asked for.
    #[error("{0}")]
    Refused(String),
}

impl DataError {
    /// Whether what is stored is damaged, so that nothing goes on before somebody has looked.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Journal(
                JournalError::Broken { .. } | JournalError::Short { .. } | JournalError::Damaged { .. }
            ) | Self::Store(StoreError::Corrupt { .. })
                | Self::NoJournal(_)
        )
    }
}

/// The opened state.
pub struct Data {
    dir: PathBuf,
    id: Uuid,
    store: Arc<RedbStore>,
    sled: Arc<SledStore>,
    /// The entry of the last checkpoint that was written since the start; 0 before the first.
    checkpoint: AtomicU64,
    /// The governance chain.
    pub journal: Arc<Journal>,
    /// The access chain.
    pub access: Arc<Journal>,
    /// Recordings.
    pub catalog: Arc<Catalog>,
    /// What keeps them.
    pub governance: Arc<Governance>,
}

impl Data {
    /// Opens the state in a locked folder, mends what can be mended and brings the stores up to the journal.
    ///
    /// # Errors
    ///
    /// A journal that is broken, or that ends below what a store has applied.
    pub async fn open(dir: &Path) -> Result<Self, DataError> {
        let dir = dir.to_owned();
        let folder = dir.clone();
        let store = blocking(move || open_catalog(&folder)).await?;
        let applied = crate::catalog::applied(&*store).await?;
        let folder = dir.clone();
        let (id, journal, access) = blocking(move || open_journals(&folder, applied)).await?;
        // Last, because opening it uses up the mark of its clean stop: a start that is refused must not.
        let folder = dir.clone();
        let (sled, rebuilt) = blocking(move || open_governance(&folder)).await?;
        if rebuilt {
            load_snapshot(&*sled, &dir.join(SNAPSHOT), id).await?;
        }
        reaches(&dir, journal.head(), "the governance store", governance::applied(&*sled).await?)?;
        let governance = Arc::new(Governance::new(Arc::clone(&sled) as _, Arc::clone(&journal)));
        let catalog = Arc::new(Catalog::new(
            Arc::clone(&store) as Arc<dyn Store>,
            Arc::clone(&journal),
            dir.join("index"),
            Some(Arc::clone(&governance) as _),
        ));
        for (what, count) in
            [("catalog", catalog.catch_up().await?), ("governance", governance.catch_up().await?)]
        {
            if count > 0 {
                tracing::info!(store = what, entries = count, "brought up to the journal");
            }
        }
        let checkpoint = AtomicU64::new(0);
        Ok(Self { dir, id, store, sled, checkpoint, journal, access, catalog, governance })
    }

    /// Lets the next start verify the journal, and make the governance store anew where it has to, from what both stores
    /// have applied, instead of from the journal's beginning.
    pub async fn checkpoint(&self) -> Result<(), DataError> {
        let applied = self.catalog.applied().await?.min(self.governance.applied().await?);
        if applied > self.checkpoint.load(Ordering::Relaxed) {
            self.governance.write_snapshot(&self.dir.join(SNAPSHOT), self.id).await?;
            self.journal.write_checkpoint(applied).await?;
            self.checkpoint.store(applied, Ordering::Relaxed);
        }
        Ok(())
    }

    /// How many entries the journal has got since the last checkpoint, or has in all where there was none since the start.
    pub fn since_checkpoint(&self) -> u64 {
        self.journal.head().sequence.saturating_sub(self.checkpoint.load(Ordering::Relaxed))
    }

    /// Closes the stores, so that the next start need not rebuild anything.
    pub async fn close(&self) -> Result<(), DataError> {
        self.checkpoint().await?;
        self.access.sync().await?;
        self.sled.close().await?;
        Ok(())
    }

    /// Writes a consistent copy of the state into an empty folder, while the gateway runs. Index files aren't
    /// copied: they are written anew from the catalog. Host keys are.
    ///
    /// The catalog is copied before the journal: what the journal has more, the copy applies when it is started.
    ///
    /// # Errors
    ///
    /// The folder isn't empty, or a copy can't be written.
    pub async fn backup(&self, target: &Path) -> Result<BackupReport, DataError> {
        let (dir, folder) = (self.dir.clone(), target.to_owned());
        blocking(move || prepare_empty(&folder)).await?;
        self.store.copy_to(&target.join(CATALOG)).await?;
        self.journal.copy_to(target).await?;
        self.access.copy_to(target).await?;
        let folder = target.to_owned();
        blocking(move || {
            copy_file(&dir.join("gateway-id"), &folder.join("gateway-id"))?;
            copy_folder(&dir.join("ssh"), &folder.join("ssh"))?;
            // After the journal: whatever its copy points to is there.
            copy_folder(&dir.join(Notes::FOLDER), &folder.join(Notes::FOLDER))?;
            let io = |source| DataError::Io { path: folder.clone(), source };
            sync_folder(&folder).map_err(io)?;
            let journals = vec![
                head(Chain::Governance, Journal::verify(&folder, Chain::Governance)?.head),
                head(Chain::Access, Journal::verify(&folder, Chain::Access)?.head),
            ];
            let mut report = BackupReport { journals, directory: folder, files: 0, bytes: 0 };
            for file in files_below(&report.directory)? {
                let metadata = fs::metadata(&file).map_err(|source| DataError::Io { path: file, source })?;
                report.files = report.files.saturating_add(1);
                report.bytes = report.bytes.saturating_add(metadata.len());
            }
            Ok(report)
        })
        .await
    }
}

/// The catalog's store; a damaged one is set aside and made anew.
fn open_catalog(dir: &Path) -> Result<Arc<RedbStore>, DataError> {
    let path = dir.join(CATALOG);
    let store = match RedbStore::open(&path) {
        Err(StoreError::Corrupt { detail, .. }) => {
            let aside = set_aside(&path)?;
            tracing::error!(path = %path.display(), set_aside = %aside.display(), %detail, "the catalog is damaged; it is rebuilt from the journal");
            RedbStore::open(&path)?
        }
        other => other?,
    };
    Ok(Arc::new(store))
}

/// The governance store, and whether it is new and has to be rebuilt.
fn open_governance(dir: &Path) -> Result<(Arc<SledStore>, bool), DataError> {
    let opened = SledStore::open(&dir.join(GOVERNANCE))?;
    let rebuilt = match opened.state {
        OpenState::Clean => false,
        OpenState::Rebuild { set_aside: None, .. } => true,
        OpenState::Rebuild { reason, set_aside: Some(aside) } => {
            tracing::warn!(%reason, set_aside = %aside.display(), "the governance store is rebuilt from the journal");
            true
        }
    };
    Ok((Arc::new(opened.store), rebuilt))
}

fn open_journals(dir: &Path, catalog: u64) -> Result<(Uuid, Arc<Journal>, Arc<Journal>), DataError> {
    let id = gateway_id(dir).map_err(|source| DataError::Io { path: dir.join("gateway-id"), source })?;
    let applied = [("the catalog", catalog)];
    let open = |chain, applied: &[(&str, u64)]| {
        let (journal, recovery) = Journal::open(dir, chain, id, JournalOptions::default(), applied)?;
        if let Some(cut) = recovery.cut {
            tracing::warn!(?chain, ?cut, "an incomplete write at the journal's end was cut off");
        }
        Ok::<_, DataError>(Arc::new(journal))
    };
    Ok((id, open(Chain::Governance, &applied)?, open(Chain::Access, &[])?))
}

/// What `state verify` found.
#[derive(Debug)]
pub struct Verified {
    /// The governance chain.
    pub governance: Report,
    /// The access chain.
    pub access: Report,
    /// What the next start mends by itself.
    pub notes: Vec<String>,
}

impl Verified {
    /// The ends of the chains.
    pub fn heads(&self) -> Vec<JournalHead> {
        vec![head(Chain::Governance, self.governance.head), head(Chain::Access, self.access.head)]
    }
}

/// The end of a chain, as the admin API tells it.
pub fn head(chain: Chain, head: Head) -> JournalHead {
    let sha256 = head.hash.iter().map(|byte| format!("{byte:02x}")).collect();
    JournalHead { chain: chain.name().to_owned(), sequence: head.sequence, sha256 }
}

/// Verifies the whole journal, the catalog's file, and that no store is ahead of the journal. Mends nothing.
///
/// # Errors
///
/// The first thing that is wrong, with its place.
pub async fn verify(dir: &Path) -> Result<Verified, DataError> {
    let folder = dir.to_owned();
    let (governance, access) = blocking(move || {
        if !folder.is_dir() {
            return Err(DataError::Refused(format!("there is no data folder {}", folder.display())));
        }
        Ok((Journal::verify(&folder, Chain::Governance)?, Journal::verify(&folder, Chain::Access)?))
    })
    .await?;
    let mut notes = Vec::new();
    let path = dir.join(CATALOG);
    if path.exists() {
        let file = path.clone();
        let store = blocking(move || {
            RedbStore::verify_file(&file)?;
            Ok(RedbStore::open(&file)?)
        })
        .await?;
        reaches(dir, governance.head, "the catalog", crate::catalog::applied(&store).await?)?;
    } else if governance.head.sequence > 0 {
        notes.push("the catalog is not there: the next start rebuilds it from the journal".to_owned());
    }
    let sled = dir.join(GOVERNANCE);
    if let Err(reason) = blocking(move || Ok(SledStore::verify(&sled)?)).await? {
        notes.push(format!("the governance store is rebuilt from the journal at the next start: {reason}"));
    }
    Ok(Verified { governance, access, notes })
}

/// Refuses a journal that ends below what a store has applied: entries are lost.
fn reaches(dir: &Path, head: Head, store: &str, applied: u64) -> Result<(), DataError> {
    if head.sequence >= applied {
        return Ok(());
    }
    Err(DataError::Journal(JournalError::Short {
        folder: Chain::Governance.folder(dir).display().to_string(),
        head: head.sequence,
        by: store.to_owned(),
        known: applied,
    }))
}

/// Sets both stores aside and rebuilds them from the journal, once that is known to be whole and to hold all that
/// the catalog has. Facts come back with the next scans, and before that from the index files, which stay as they are.
///
/// # Errors
///
/// The journal is damaged, short or not there; then the stores stay as they are.
pub async fn rebuild(dir: &Path) -> Result<(), DataError> {
    if !Chain::Governance.folder(dir).is_dir() {
        return Err(DataError::NoJournal(dir.to_owned()));
    }
    let folder = dir.to_owned();
    let head = blocking(move || Ok(Journal::verify(&folder, Chain::Governance)?)).await?.head;
    let path = dir.join(CATALOG);
    if path.exists() {
        let file = path.clone();
        match blocking(move || Ok(RedbStore::open(&file)?)).await {
            Ok(store) => reaches(dir, head, "the catalog", crate::catalog::applied(&store).await?)?,
            // That is what a rebuild is for, but only if there is something to rebuild from.
            Err(DataError::Store(StoreError::Corrupt { .. })) if head.sequence > 0 => {}
            Err(error) => return Err(error),
        }
    } else if head.sequence == 0 {
        return Err(DataError::NoJournal(dir.to_owned()));
    }
    for name in [CATALOG, GOVERNANCE, SNAPSHOT] {
        let path = dir.join(name);
        if path.exists() {
            set_aside(&path)?;
        }
    }
    Data::open(dir).await?.close().await
}

/// Puts a backup into an empty data folder and opens it once, so that what is wrong with it shows now.
///
/// # Errors
///
/// It isn't a backup, or a damaged one, or the data folder isn't empty.
pub async fn restore(backup: &Path, dir: &Path) -> Result<(), DataError> {
    let target = dir.to_owned();
    blocking(move || prepare_empty(&target)).await?;
    if !backup.join("journal").is_dir() || !backup.join("gateway-id").is_file() {
        return Err(DataError::Refused(format!(
            "{} is not a backup: it has no journal; name the folder that `recgate state backup` wrote",
            backup.display()
        )));
    }
    let (from, to) = (backup.to_owned(), dir.to_owned());
    blocking(move || copy_folder(&from, &to)).await?;
    verify(dir).await?;
    Data::open(dir).await?.close().await
}

/// Makes a folder, or takes one that has nothing in it but the lock of who works on it.
fn prepare_empty(dir: &Path) -> Result<(), DataError> {
    use std::os::unix::fs::DirBuilderExt;
    let io = |source| DataError::Io { path: dir.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
    for entry in fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        if name != DataDirLock::FILE {
            return Err(DataError::Refused(format!(
                "{} is not empty (it holds {:?}); name a new folder",
                dir.display(),
                name
            )));
        }
    }
    Ok(())
}

fn set_aside(path: &Path) -> Result<PathBuf, DataError> {
    let stamp = chrono::Utc::now().format("%Y%m%dT%H%M%S%.3fZ");
    let aside = path.with_extension(format!("set-aside-{stamp}"));
    fs::rename(path, &aside).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
    Ok(aside)
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), DataError> {
    let io = |source| DataError::Io { path: from.to_owned(), source };
    if !from.is_dir() {
        return Ok(());
    }
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(to).map_err(io)?;
    for entry in fs::read_dir(from).map_err(io)? {
        let entry = entry.map_err(io)?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        // Links, sockets and the like are nobody's state.
        let kind = entry.file_type().map_err(io)?;
        if kind.is_dir() {
            copy_folder(&source, &target)?;
        } else if kind.is_file() && entry.file_name() != DataDirLock::FILE && !is_unfinished(&source) {
            copy_file(&source, &target)?;
        }
    }
    sync_folder(to).map_err(io)
}

/// A file that [`crate::state::durable_write`] has begun and not renamed yet: it may be gone in a moment.
fn is_unfinished(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tmp")
}

fn copy_file(from: &Path, to: &Path) -> Result<(), DataError> {
    let io = |source| DataError::Io { path: from.to_owned(), source };
    fs::copy(from, to).map_err(io)?;
    fs::File::open(to).and_then(|file| file.sync_all()).map_err(io)
}

fn files_below(dir: &Path) -> Result<Vec<PathBuf>, DataError> {
    let io = |source| DataError::Io { path: dir.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DataError> + Send + 'static,
) -> Result<T, DataError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| DataError::Refused(format!("the work was stopped: {error}")))?
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::catalog::{Entry, Subject};

    async fn orphan(data: &Data, number: u128) {
        let subject =
            Subject { tenant: 1, uid: Uuid::from_u128(number), source: 1, media: format!("{number}.wav") };
        data.journal.append(vec![Entry::Orphaned(subject).to_journal().unwrap()]).await.unwrap();
        data.catalog.catch_up().await.unwrap();
        data.governance.catch_up().await.unwrap();
    }

    async fn orphans(data: &Data) -> Vec<u128> {
        let (orphans, _) = data.governance.orphans(1, None).await.unwrap();
        orphans.iter().map(|orphan| orphan.uid.as_u128()).collect()
    }

    #[tokio::test]
    async fn after_a_kill_governance_is_made_anew_from_its_snapshot_and_the_journals_tail() {
        let dir = tempfile::tempdir().unwrap();
        let data = Data::open(dir.path()).await.unwrap();
        orphan(&data, 1).await;
        assert_eq!(data.since_checkpoint(), 1);
        data.checkpoint().await.unwrap();
        assert_eq!(data.since_checkpoint(), 0);
        orphan(&data, 2).await;
        drop(data);
        let snapshot = dir.path().join(SNAPSHOT);
        let whole = fs::read(&snapshot).unwrap();

        let data = Data::open(dir.path()).await.unwrap();
        assert_eq!(orphans(&data).await, [1, 2]);
        drop(data);
        // Not whole, or lost: the journal has it all.
        fs::write(&snapshot, whole.get(1..).unwrap()).unwrap();
        let data = Data::open(dir.path()).await.unwrap();
        assert_eq!(orphans(&data).await, [1, 2]);
        drop(data);
        fs::remove_file(&snapshot).unwrap();
        let data = Data::open(dir.path()).await.unwrap();
        assert_eq!(orphans(&data).await, [1, 2]);
    }

    #[tokio::test]
    async fn a_snapshot_that_is_ahead_of_the_journal_shows_that_entries_are_lost() {
        let dir = tempfile::tempdir().unwrap();
        let data = Data::open(dir.path()).await.unwrap();
        orphan(&data, 1).await;
        drop(data);
        let earlier = tempfile::tempdir().unwrap();
        copy_folder(&dir.path().join("journal"), &earlier.path().join("journal")).unwrap();
        let data = Data::open(dir.path()).await.unwrap();
        orphan(&data, 2).await;
        data.checkpoint().await.unwrap();
        drop(data);
        fs::remove_dir_all(dir.path().join("journal")).unwrap();
        fs::remove_file(dir.path().join(CATALOG)).unwrap();
        copy_folder(&earlier.path().join("journal"), &dir.path().join("journal")).unwrap();
        let refused = Data::open(dir.path()).await.err().unwrap();
        assert!(refused.is_damage(), "{refused}");
        assert!(refused.to_string().contains("governance store"), "{refused}");
    }
}
