//! redb on disks that lose power and with files that aren't what they should be.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::state::shim::{Disk, Random};

fn put(key: &[u8], value: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put(key, value);
    batch
}

type Rows = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

async fn rows(store: &RedbStore, prefix: &[u8]) -> Result<Rows, StoreError> {
    let mut rows = Rows::new();
    let mut from = Vec::new();
    loop {
        let page = store.scan(prefix, &from, 1000).await?;
        rows.extend(page.rows.into_iter().map(|row| (row.key.to_vec(), (row.value.to_vec(), row.version))));
        match page.next {
            Some(next) => from = next,
            None => return Ok(rows),
        }
    }
}

/// A random batch on keys of its own, some larger than a page.
fn random_batch(random: &mut Random, prefix: u8) -> Batch {
    let mut batch = Batch::new();
    for _ in 0..=random.below(5) {
        let key = [prefix, u8::try_from(random.below(40)).unwrap()];
        if random.below(4) == 0 {
            batch.delete(key);
        } else {
            let size = if random.below(8) == 0 { 9000 } else { 40 };
            batch.put(key, vec![random.next().to_le_bytes()[0]; size]);
        }
    }
    batch
}

fn apply(rows: &mut Rows, batch: &Batch, version: u64) {
    for (key, value) in batch.writes() {
        match value {
            Some(value) => rows.insert(key.to_vec(), (value.to_vec(), version)),
            None => rows.remove(key),
        };
    }
}

fn same_values(one: &Rows, other: &Rows) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|((a, (value_a, _)), (b, (value_b, _)))| a == b && value_a == value_b)
}

/// Several tasks commit until the power goes; then each finds what was acknowledged to it, and of what wasn't
/// either all or nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_loss_loses_nothing_acknowledged_and_halves_nothing() {
    for seed in 0..60 {
        let disk = Disk::new(seed);
        let mut random = Random(seed ^ 0xc0ffee);
        let mut models = vec![Rows::new(); 3];
        let mut highest = 0;
        RedbStore::with_backend("shim", disk.file("catalog")).unwrap();
        for round in 0..4 {
            disk.cut_power_after(random.below(60));
            let mut in_flight: Vec<Option<Batch>> = vec![None; models.len()];
            if let Ok(store) = RedbStore::with_backend("shim", disk.file("catalog")) {
                let store = Arc::new(store);
                let tasks: Vec<_> = models
                    .iter()
                    .enumerate()
                    .map(|(task, model)| {
                        let (store, mut model) = (Arc::clone(&store), model.clone());
                        let mut random = Random(random.next());
                        tokio::spawn(async move {
                            let mut highest = 0;
                            loop {
                                let batch = random_batch(&mut random, u8::try_from(task).unwrap());
                                match store.commit(batch.clone()).await {
                                    Ok(version) => {
                                        apply(&mut model, &batch, version);
                                        highest = version;
                                    }
                                    Err(_) => return (model, batch, highest),
                                }
                            }
                        })
                    })
                    .collect();
                for (task, result) in tasks.into_iter().enumerate() {
                    let (model, batch, version) = result.await.unwrap();
                    models[task] = model;
                    in_flight[task] = Some(batch);
                    highest = highest.max(version);
                }
            }
            disk.reboot();
            let store = RedbStore::with_backend("shim", disk.file("catalog"))
                .unwrap_or_else(|e| panic!("seed {seed}, round {round}: {e}"));
            for (task, model) in models.iter_mut().enumerate() {
                let found = rows(&store, &[u8::try_from(task).unwrap()]).await.unwrap();
                let mut with_last = model.clone();
                if let Some(batch) = &in_flight[task] {
                    apply(&mut with_last, batch, 0);
                }
                assert!(
                    found == *model || same_values(&found, &with_last),
                    "seed {seed}, round {round}, task {task}: {found:?}, not {model:?}"
                );
                *model = found;
            }
            let version = store.commit(put(b"z", b"")).await.unwrap();
            assert!(version > highest, "seed {seed}, round {round}");
            highest = version;
        }
    }
}

#[tokio::test]
async fn a_disk_that_fails_gives_errors_and_keeps_what_was_acknowledged() {
    let disk = Disk::new(7);
    let store = RedbStore::with_backend("shim", disk.file("catalog")).unwrap();
    store.commit(put(b"a", b"1")).await.unwrap();
    disk.fail_syncs(true);
    assert!(store.commit(put(b"b", b"2")).await.is_err());
    disk.fail_syncs(false);
    // What the failed fsync left on the disk isn't known, so nothing more is taken.
    assert!(store.commit(put(b"c", b"3")).await.is_err());
    drop(store);
    disk.reboot();
    let store = RedbStore::with_backend("shim", disk.file("catalog")).unwrap();
    assert_eq!(store.get(b"a").await.unwrap().unwrap().value.as_ref(), b"1");
    assert_eq!(store.get(b"c").await.unwrap(), None);
}

#[tokio::test]
async fn a_conflict_fails_alone_in_its_group() {
    let disk = Disk::new(8);
    let store = Arc::new(RedbStore::with_backend("shim", disk.file("catalog")).unwrap());
    let mut commits = Vec::new();
    for number in 0..200_u8 {
        let mut batch = put(&[number], b"");
        if number % 3 == 0 {
            batch.require(*b"missing", super::super::store::Condition::At(1));
        }
        let store = Arc::clone(&store);
        commits.push(tokio::spawn(async move { (number, store.commit(batch).await) }));
    }
    for commit in commits {
        let (number, result) = commit.await.unwrap();
        assert_eq!(result.is_err(), number % 3 == 0, "{number}");
        assert_eq!(store.get(&[number]).await.unwrap().is_some(), number % 3 != 0);
    }
}

async fn sample(path: &Path, count: u32) {
    let store = RedbStore::open(path).unwrap();
    let mut batch = Batch::new();
    for number in 0..count {
        batch.put(number.to_be_bytes(), vec![b'v'; 100]);
    }
    store.commit(batch).await.unwrap();
}

/// Opens and reads a file that may be anything. Rows or an error, never a panic.
async fn try_to_read(path: &Path) -> Result<Rows, StoreError> {
    let store = RedbStore::open(path)?;
    rows(&store, b"").await
}

#[tokio::test]
async fn empty_and_foreign_files_are_corrupt_and_stay() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.redb");
    let foreign: [&[u8]; 4] = [b"", b"x", b"SQLite format 3\0 and so on", &[0; 1 << 20]];
    for content in foreign {
        std::fs::write(&path, content).unwrap();
        let error = RedbStore::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains("catalog.redb"));
        assert_eq!(std::fs::read(&path).unwrap().len(), content.len());
    }
    std::fs::remove_file(&path).unwrap();
    // redb's own format, but not ours.
    drop(Database::create(&path).unwrap());
    assert!(matches!(RedbStore::open(&path).unwrap_err(), StoreError::Corrupt { .. }));
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    RedbStore::open(&path).unwrap_err();
}

#[tokio::test]
async fn a_crash_while_a_file_is_made_leaves_none_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.redb");
    std::fs::write(dir.path().join("catalog.redb.new"), b"half").unwrap();
    sample(&path, 1).await;
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_truncated_file_is_never_silently_short() {
    let dir = tempfile::tempdir().unwrap();
    let (path, cut) = (dir.path().join("whole.redb"), dir.path().join("cut.redb"));
    sample(&path, 3000).await;
    let whole = try_to_read(&path).await.unwrap();
    let content = std::fs::read(&path).unwrap();
    let mut random = Random(3);
    let mut lengths: Vec<usize> = (0..40)
        .map(|_| usize::try_from(random.below(content.len() as u64)).unwrap())
        .chain([1, 63, 64, 128, 320, 511, 512, 4095, 4096, 4097, 8192, content.len() - 1])
        .collect();
    lengths.sort_unstable();
    for length in lengths {
        std::fs::write(&cut, &content[..length]).unwrap();
        match try_to_read(&cut).await {
            Ok(rows) => assert_eq!(rows, whole, "{length}"),
            Err(error) => assert!(matches!(error, StoreError::Corrupt { .. }), "{length}: {error:?}"),
        }
    }
}

#[tokio::test]
async fn a_garbled_file_never_panics_and_verification_sees_it() {
    let dir = tempfile::tempdir().unwrap();
    let (path, bad) = (dir.path().join("whole.redb"), dir.path().join("bad.redb"));
    sample(&path, 3000).await;
    RedbStore::verify_file(&path).unwrap();
    let whole = try_to_read(&path).await.unwrap();
    let content = std::fs::read(&path).unwrap();
    let mut random = Random(5);
    for round in 0..80 {
        let mut garbled = content.clone();
        // The header often, for what it says decides about everything else.
        let end = if round % 2 == 0 { 512 } else { content.len() as u64 };
        for _ in 0..=random.below(4) {
            let at = usize::try_from(random.below(end)).unwrap();
            garbled[at] = random.next().to_le_bytes()[0];
        }
        std::fs::write(&bad, &garbled).unwrap();
        let read = try_to_read(&bad).await;
        std::fs::write(&bad, &garbled).unwrap();
        if RedbStore::verify_file(&bad).is_ok() {
            assert_eq!(read.unwrap(), whole, "round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_of_one_moment_and_keeps_versions() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(RedbStore::open(&dir.path().join("catalog.redb")).unwrap());
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            let mut last = 0;
            for number in 0..300_u32 {
                let mut batch = Batch::new();
                batch.put(*b"x", number.to_be_bytes()).put(*b"y", number.to_be_bytes());
                batch.put(number.to_be_bytes(), vec![1; 500]);
                last = store.commit(batch).await.unwrap();
            }
            last
        }
    });
    let mut copies = 0;
    while !writer.is_finished() || copies == 0 {
        let path = dir.path().join(format!("copy-{copies}"));
        store.copy_to(&path).await.unwrap();
        let copy = RedbStore::open(&path).unwrap();
        let found = rows(&copy, b"").await.unwrap();
        assert_eq!(found.get(b"x".as_slice()), found.get(b"y".as_slice()));
        if let Some((_, version)) = found.get(b"x".as_slice()) {
            assert_eq!(copy.commit(put(b"after", b"")).await.unwrap(), version + 1);
        }
        copies += 1;
    }
    let last = writer.await.unwrap();
    let path = dir.path().join("last");
    store.copy_to(&path).await.unwrap();
    assert_eq!(rows(&RedbStore::open(&path).unwrap(), b"").await.unwrap(), rows(&store, b"").await.unwrap());
    assert_eq!(store.commit(Batch::new()).await.unwrap(), last + 1);
    let error = store.copy_to(&path).await.unwrap_err();
    assert!(error.to_string().contains("exists already"), "{error}");
}

#[tokio::test]
async fn a_file_has_one_user() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.redb");
    let _store = RedbStore::open(&path).unwrap();
    let error = RedbStore::open(&path).unwrap_err();
    assert!(matches!(&error, StoreError::Engine { .. }), "{error:?}");
}
