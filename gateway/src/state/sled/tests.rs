//! What sled must never get to read, and what must never be lost silently.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;

use super::*;
use crate::state::shim::Random;

fn put(key: &[u8], value: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put(key, value);
    batch
}

/// A store with rows, closed cleanly.
async fn closed(dir: &Path) {
    let store = SledStore::open(dir).unwrap().store;
    for number in 0..50_u8 {
        store.commit(put(&[number], &[number; 200])).await.unwrap();
    }
    store.close().await.unwrap();
}

/// A closed store with whatever `damage` does to it must ask for a rebuild.
async fn must_rebuild(damage: impl FnOnce(&Path), expected: &str) {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("governance");
    closed(&dir).await;
    damage(&dir);
    let opened = SledStore::open(&dir).unwrap();
    match &opened.state {
        OpenState::Rebuild { set_aside: Some(aside), reason } => {
            assert!(reason.contains(expected), "{reason}, not {expected}");
            assert!(aside.ends_with("governance.set-aside-1") && aside.exists());
        }
        other => panic!("{other:?} where {expected} should be"),
    }
    assert!(opened.store.scan(b"", b"", 1).await.unwrap().rows.is_empty());
    opened.store.commit(put(b"k", b"rebuilt")).await.unwrap();
    opened.store.close().await.unwrap();
    let again = SledStore::open(&dir).unwrap();
    assert_eq!(again.state, OpenState::Clean);
    assert_eq!(again.store.get(b"k").await.unwrap().unwrap().value.as_ref(), b"rebuilt");
}

#[tokio::test]
async fn a_clean_stop_brings_everything_back() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("governance");
    closed(&dir).await;
    for _ in 0..3 {
        let opened = SledStore::open(&dir).unwrap();
        assert_eq!(opened.state, OpenState::Clean);
        assert_eq!(opened.store.scan(b"", b"", 100).await.unwrap().rows.len(), 50);
        opened.store.close().await.unwrap();
        let error = opened.store.get(b"k").await.unwrap_err();
        assert!(error.to_string().contains("closed"), "{error}");
        assert!(opened.store.commit(put(b"k", b"")).await.is_err());
        assert!(opened.store.close().await.is_err());
    }
}

#[tokio::test]
async fn a_stop_that_was_not_clean_is_set_aside() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("governance");
    closed(&dir).await;
    let opened = SledStore::open(&dir).unwrap();
    assert_eq!(opened.state, OpenState::Clean);
    let version = opened.store.commit(put(b"k", b"unclean")).await.unwrap();
    drop(opened);
    let opened = SledStore::open(&dir).unwrap();
    match &opened.state {
        OpenState::Rebuild { set_aside: Some(_), reason } => assert!(reason.contains("cleanly"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(opened.store.get(b"k").await.unwrap(), None);
    assert!(opened.store.commit(put(b"k", b"")).await.unwrap() > version, "a version was used again");
}

#[tokio::test]
async fn the_newest_folders_set_aside_are_kept() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("governance");
    for _ in 0..6 {
        drop(SledStore::open(&dir).unwrap());
    }
    let mut names: Vec<String> =
        fs::read_dir(root.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(
        names,
        ["governance", "governance.set-aside-3", "governance.set-aside-4", "governance.set-aside-5"]
    );
}

#[tokio::test]
async fn another_process_keeps_it() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("governance");
    fs::create_dir(&dir).unwrap();
    let log = fs::File::create(dir.join("db")).unwrap();
    rustix::fs::flock(&log, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let opened = std::thread::spawn({
        let dir = dir.clone();
        move || open_with_limit(&dir, Duration::from_millis(50))
    });
    let error = opened.join().unwrap().unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    assert!(dir.exists());
}

#[tokio::test]
async fn a_truncated_log_is_set_aside_at_any_length() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("governance");
    closed(&dir).await;
    let length = fs::metadata(dir.join("db")).unwrap().len();
    let mut random = Random(11);
    let lengths = (0..12).map(|_| random.below(length)).chain([0, 1, 512, length / 2, length - 1]);
    for length in lengths {
        let cut = move |dir: &Path| {
            fs::OpenOptions::new().write(true).open(dir.join("db")).unwrap().set_len(length).unwrap();
        };
        must_rebuild(cut, "db has").await;
    }
}

#[tokio::test]
async fn garbled_bytes_are_seen_wherever_they_are() {
    for seed in 0..12 {
        let garble = move |dir: &Path| {
            let mut random = Random(seed);
            let files: Vec<_> = clean::files(dir)
                .unwrap()
                .into_iter()
                .filter(|(_, digest)| digest.bytes > 0)
                .map(|(name, _)| dir.join(name))
                .collect();
            let path = &files[usize::try_from(random.below(files.len() as u64)).unwrap()];
            let mut content = fs::read(path).unwrap();
            let at = usize::try_from(random.below(content.len() as u64)).unwrap();
            content[at] ^= 1 << random.below(8);
            fs::write(path, content).unwrap();
        };
        must_rebuild(garble, "has changed").await;
    }
}

#[tokio::test]
async fn missing_empty_and_new_files_are_seen() {
    must_rebuild(|dir| fs::remove_file(dir.join("db")).unwrap(), "db is missing").await;
    must_rebuild(|dir| fs::write(dir.join("db"), b"").unwrap(), "db has 0 bytes").await;
    must_rebuild(|dir| fs::write(dir.join("conf"), b"").unwrap(), "conf has 0 bytes").await;
    must_rebuild(|dir| fs::write(dir.join("snap.0000000000000FFF"), b"").unwrap(), "is new in it").await;
    must_rebuild(
        |dir| fs::write(dir.join("snap.0000000000000FFF.generating"), b"half").unwrap(),
        "generating is new in it",
    )
    .await;
    must_rebuild(
        |dir| {
            fs::remove_dir_all(dir).unwrap();
            fs::write(dir, b"a file").unwrap();
        },
        "its files can't be read",
    )
    .await;
    must_rebuild(
        |dir| std::os::unix::fs::symlink("/nowhere", dir.join("blobs").join("link")).unwrap(),
        "is no file",
    )
    .await;
}

#[tokio::test]
async fn a_damaged_marker_vouches_for_nothing() {
    let marker = |dir: &Path| dir.with_file_name("governance.clean");
    must_rebuild(|dir| fs::remove_file(marker(dir)).unwrap(), "wasn't stopped cleanly").await;
    must_rebuild(|dir| fs::write(marker(dir), b"").unwrap(), "marker").await;
    must_rebuild(|dir| fs::write(marker(dir), b"{\"format\":1}").unwrap(), "marker").await;
    for (from, to) in
        [("\"format\":1", "\"format\":9"), ("\"rows\":50", "\"rows\":49"), ("\"version\":", "\"version\":1")]
    {
        let change = move |dir: &Path| {
            let text = fs::read_to_string(marker(dir)).unwrap();
            assert!(text.contains(from));
            fs::write(marker(dir), text.replace(from, to)).unwrap();
        };
        must_rebuild(change, "").await;
    }
}

/// What sled does with damaged files if it gets to read them differs from run to run: it opens them, reports
/// an error, or panics in a thread of its own. It must not take this process with it.
#[test]
fn sled_may_panic_and_that_is_a_doubt() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("whole");
    {
        let database = ::sled::open(&dir).unwrap();
        for number in 0..20_000_u32 {
            database.insert(number.to_be_bytes(), vec![7; 100]).unwrap();
        }
    }
    assert!(clean::is_released(&dir, RELEASE_LIMIT).unwrap());
    let log = fs::read(dir.join("db")).unwrap();
    let conf = fs::read(dir.join("conf")).unwrap();
    let damaged = |name: &str, log: &[u8], conf: &[u8]| {
        let dir = root.path().join(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("db"), log).unwrap();
        fs::write(dir.join("conf"), conf).unwrap();
        drop(open_guarded(&dir).unwrap());
    };
    for part in [3, 5, 9] {
        damaged(&part.to_string(), &log[..log.len() / 10 * part], &conf);
    }
    damaged("conf", &log, b"nonsense");
    // What sled can't open for certain is a doubt about the folder, not an error of the machine.
    let dir = root.path().join("folder");
    fs::create_dir_all(dir.join("db")).unwrap();
    assert!(open_guarded(&dir).unwrap().is_err());
}
