//! All rows of a store in one file: from it and the journal's tail a store that can't be relied on is made anew, without
//! reading the whole journal.
//!
//! A line names the format and the gateway. Each row follows as two lengths (4 bytes, big-endian), key and value; at the
//! end stands [`END`] in place of a length, then the SHA-256 of all before. The file is replaced whole, and what isn't
//! whole is not used.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::files::{parent, sync_folder};
use super::store::{Batch, Store, StoreError};

/// Stands where the next row's first length would.
const END: u32 = u32::MAX;
/// Longer keys and values are nobody's.
const MAX_PART_BYTES: usize = 16 << 20;
/// Rows of one commit while loading, and their bytes.
const BATCH: usize = 1000;
const BATCH_BYTES: usize = 1 << 20;

/// Writes all rows of a store into a file, which is on the disk and under its name when this returns. Nobody may change
/// the store meanwhile.
///
/// # Errors
///
/// The store can't be read, or the file not written; then an earlier file stays as it was.
pub async fn write_snapshot(store: &dyn Store, path: &Path, gateway: Uuid) -> Result<u64, StoreError> {
    let target = path.to_owned();
    let mut writer = blocking(path, move || SnapshotWriter::create(&target, gateway)).await?;
    let (mut from, mut rows) = (Vec::new(), 0_u64);
    loop {
        let page = store.scan(&[], &from, BATCH).await?;
        rows = rows.saturating_add(page.rows.len() as u64);
        writer = blocking(path, move || {
            for row in &page.rows {
                writer.row(&row.key, &row.value)?;
            }
            Ok(writer)
        })
        .await?;
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    blocking(path, move || writer.finish()).await?;
    Ok(rows)
}

/// Puts the rows of a file into a store, which should have none. `None` where there is no such file, or one that isn't
/// whole or another gateway's, which the log says: then nothing is put.
///
/// # Errors
///
/// The store failed; then some rows may be in it.
pub async fn load_snapshot(store: &dyn Store, path: &Path, gateway: Uuid) -> Result<Option<u64>, StoreError> {
    let file = path.to_owned();
    let opened = blocking(path, move || Ok(SnapshotReader::open(&file, gateway))).await?;
    let mut reader = match opened {
        Ok(reader) => reader,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the snapshot is of no use; the whole journal is read instead");
            return Ok(None);
        }
    };
    let mut rows = 0_u64;
    loop {
        let batch;
        (reader, batch) = blocking(path, move || {
            let batch = reader.batch()?;
            Ok((reader, batch))
        })
        .await?;
        if batch.is_empty() {
            return Ok(Some(rows));
        }
        rows = rows.saturating_add(batch.changes.len() as u64);
        store.commit(batch).await?;
    }
}

struct SnapshotWriter {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    hash: Sha256,
}

impl SnapshotWriter {
    fn create(path: &Path, gateway: Uuid) -> io::Result<Self> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        let mut writer =
            Self { path: path.to_owned(), temporary, file: BufWriter::new(file), hash: Sha256::new() };
        writer.write(first_line(gateway).as_bytes())?;
        Ok(writer)
    }

    fn row(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        for part in [key, value] {
            let length = u32::try_from(part.len()).ok().filter(|_| part.len() <= MAX_PART_BYTES);
            let length = length.ok_or_else(|| invalid("a row is too long for a snapshot"))?;
            self.write(&length.to_be_bytes())?;
        }
        self.write(key)?;
        self.write(value)
    }

    fn finish(mut self) -> io::Result<()> {
        self.write(&END.to_be_bytes())?;
        let hash = self.hash.finalize();
        self.file.write_all(&hash)?;
        self.file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(&self.temporary, &self.path)?;
        sync_folder(parent(&self.path))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.file.write_all(bytes)
    }
}

#[derive(Debug)]
struct SnapshotReader(BufReader<File>);

impl SnapshotReader {
    /// Opens a file that is whole and this gateway's.
    fn open(path: &Path, gateway: Uuid) -> io::Result<Self> {
        let mut file = File::open(path)?;
        verify(&mut file)?;
        let mut reader = BufReader::new(File::open(path)?);
        let expected = first_line(gateway);
        let mut line = vec![0; expected.len()];
        reader.read_exact(&mut line)?;
        if line != expected.as_bytes() {
            return Err(invalid("it is another gateway's, or of another format"));
        }
        Ok(Self(reader))
    }

    /// The next rows; none at the end.
    fn batch(&mut self) -> io::Result<Batch> {
        let (mut batch, mut bytes) = (Batch::new(), 0_usize);
        while batch.changes.len() < BATCH && bytes < BATCH_BYTES {
            let Some((key, value)) = self.row()? else { break };
            bytes = bytes.saturating_add(key.len()).saturating_add(value.len());
            batch.put(key, value);
        }
        Ok(batch)
    }

    fn row(&mut self) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        let key = self.length()?;
        if key == END {
            // Whoever asks again gets the same answer.
            self.0.seek_relative(-4)?;
            return Ok(None);
        }
        let value = self.length()?;
        Ok(Some((self.part(key)?, self.part(value)?)))
    }

    fn length(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.0.read_exact(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn part(&mut self, length: u32) -> io::Result<Vec<u8>> {
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_PART_BYTES);
        let mut part = vec![0; length.ok_or_else(|| invalid("a row is too long"))?];
        self.0.read_exact(&mut part)?;
        Ok(part)
    }
}

/// Whether the SHA-256 at the end is that of all before.
fn verify(file: &mut File) -> io::Result<()> {
    let hashed = file.metadata()?.len().checked_sub(32).ok_or_else(|| invalid("it is cut short"))?;
    let (mut hash, mut left) = (Sha256::new(), hashed);
    let mut buffer = vec![0; 64 << 10];
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        file.read_exact(part)?;
        hash.update(&*part);
        left = left.saturating_sub(wanted as u64);
    }
    let mut expected = [0; 32];
    file.read_exact(&mut expected)?;
    if expected == <[u8; 32]>::from(hash.finalize()) {
        Ok(())
    } else {
        Err(invalid("its checksum doesn't agree"))
    }
}

fn first_line(gateway: Uuid) -> String {
    format!("recgate snapshot 1 {gateway}\n")
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let failed = |source| StoreError::Io { store: path.display().to_string(), source };
    tokio::task::spawn_blocking(work).await.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::super::RedbStore;
    use super::*;

    const GATEWAY: Uuid = Uuid::from_u128(7);

    fn store(folder: &Path, name: &str) -> RedbStore {
        RedbStore::open(&folder.join(name)).unwrap()
    }

    async fn rows(store: &RedbStore) -> Vec<(Vec<u8>, Vec<u8>)> {
        let (mut rows, mut from) = (Vec::new(), Vec::new());
        loop {
            let page = store.scan(&[], &from, 4096).await.unwrap();
            rows.extend(page.rows.iter().map(|row| (row.key.to_vec(), row.value.to_vec())));
            match page.next {
                Some(next) => from = next,
                None => return rows,
            }
        }
    }

    #[tokio::test]
    async fn a_store_comes_back_row_for_row() {
        let folder = tempfile::tempdir().unwrap();
        let (from, path) = (store(folder.path(), "from"), folder.path().join("snapshot"));
        let mut batch = Batch::new();
        for n in 0..2500_u32 {
            batch.put(n.to_be_bytes(), vec![7; n as usize % 50]);
        }
        batch.put(b"long".to_vec(), vec![1; 3 << 20]);
        from.commit(batch).await.unwrap();
        assert_eq!(write_snapshot(&from, &path, GATEWAY).await.unwrap(), 2501);
        let to = store(folder.path(), "to");
        assert_eq!(load_snapshot(&to, &path, GATEWAY).await.unwrap(), Some(2501));
        assert_eq!(rows(&to).await, rows(&from).await);
    }

    #[tokio::test]
    async fn what_is_not_whole_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let (from, path) = (store(folder.path(), "from"), folder.path().join("snapshot"));
        let to = store(folder.path(), "to");
        assert_eq!(load_snapshot(&to, &path, GATEWAY).await.unwrap(), None, "there is none");
        let mut batch = Batch::new();
        batch.put(b"key".to_vec(), b"value".to_vec());
        from.commit(batch).await.unwrap();
        write_snapshot(&from, &path, GATEWAY).await.unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(load_snapshot(&to, &path, GATEWAY).await.unwrap(), None, "{length} bytes of it");
        }
        for at in 0..whole.len() {
            let mut other = whole.clone();
            other[at] ^= 1;
            std::fs::write(&path, &other).unwrap();
            assert_eq!(load_snapshot(&to, &path, GATEWAY).await.unwrap(), None, "byte {at} is another");
        }
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(load_snapshot(&to, &path, Uuid::nil()).await.unwrap(), None, "another gateway's");
        assert_eq!(rows(&to).await, []);
        assert_eq!(load_snapshot(&to, &path, GATEWAY).await.unwrap(), Some(1));
    }
}
