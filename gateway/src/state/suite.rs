//! What every engine of [`Store`] must do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use proptest::prelude::*;
use tempfile::TempDir;

use super::redb::RedbStore;
use super::shim::Disk;
use super::sled::{OpenState, SledStore};
use super::store::{Batch, Condition, MAX_PAGE, Store, StoreError};

/// An engine on storage of its own, which can be closed and opened again.
#[async_trait]
pub trait Bench: Send {
    async fn open(&mut self) -> Arc<dyn Store>;
    /// Closes what was opened; the caller has dropped its handle.
    async fn close(&mut self);
}

struct Redb(TempDir);

#[async_trait]
impl Bench for Redb {
    async fn open(&mut self) -> Arc<dyn Store> {
        Arc::new(RedbStore::open(&self.0.path().join("catalog.redb")).unwrap())
    }

    async fn close(&mut self) {}
}

struct RedbOnShim(Arc<Disk>);

#[async_trait]
impl Bench for RedbOnShim {
    async fn open(&mut self) -> Arc<dyn Store> {
        Arc::new(RedbStore::with_backend("shim", self.0.file("catalog")).unwrap())
    }

    async fn close(&mut self) {}
}

struct Sled {
    _dir: TempDir,
    path: PathBuf,
    store: Option<Arc<SledStore>>,
    fresh: bool,
}

#[async_trait]
impl Bench for Sled {
    async fn open(&mut self) -> Arc<dyn Store> {
        let opened = SledStore::open(&self.path).unwrap();
        match opened.state {
            OpenState::Rebuild { set_aside: None, .. } if self.fresh => {}
            OpenState::Clean if !self.fresh => {}
            other => panic!("{other:?}"),
        }
        self.fresh = false;
        let store = Arc::new(opened.store);
        self.store = Some(Arc::clone(&store));
        store
    }

    async fn close(&mut self) {
        self.store.take().unwrap().close().await.unwrap();
    }
}

fn redb() -> Redb {
    Redb(tempfile::tempdir().unwrap())
}

fn redb_on_shim() -> RedbOnShim {
    RedbOnShim(Disk::new(1))
}

fn sled() -> Sled {
    let dir = tempfile::tempdir().unwrap();
    Sled { path: dir.path().join("governance"), _dir: dir, store: None, fresh: true }
}

macro_rules! engines {
    ($($test:ident),* $(,)?) => {
        engines!(@ redb, redb_engine, $($test),*);
        engines!(@ redb_on_shim, redb_on_shim_engine, $($test),*);
        engines!(@ sled, sled_engine, $($test),*);
    };
    (@ $engine:ident, $module:ident, $($test:ident),*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test(super::$engine()).await;
                }
            )*

            #[test]
            fn agrees_with_a_model() {
                super::agrees_with_a_model(super::$engine);
            }
        }
    };
}

engines!(
    reads_what_was_written,
    scans_a_prefix_in_pages,
    scans_at_the_edges,
    bounds_a_page,
    holds_conditions,
    applies_whole_or_not_at_all,
    never_uses_a_version_again,
    commits_from_many_tasks,
    takes_odd_sizes,
);

fn put(key: &[u8], value: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put(key, value);
    batch
}

async fn everything(store: &dyn Store) -> Vec<(Vec<u8>, Vec<u8>, u64)> {
    scan_all(store, b"", b"", 3).await
}

async fn scan_all(
    store: &dyn Store,
    prefix: &[u8],
    from: &[u8],
    limit: usize,
) -> Vec<(Vec<u8>, Vec<u8>, u64)> {
    let mut rows = Vec::new();
    let mut from = from.to_vec();
    loop {
        let page = store.scan(prefix, &from, limit).await.unwrap();
        assert!(page.rows.len() <= limit.clamp(1, MAX_PAGE));
        rows.extend(page.rows.into_iter().map(|row| (row.key.to_vec(), row.value.to_vec(), row.version)));
        match page.next {
            Some(next) => {
                assert!(rows.last().is_some_and(|(key, _, _)| *key < next));
                from = next;
            }
            None => return rows,
        }
    }
}

fn keys(rows: &[(Vec<u8>, Vec<u8>, u64)]) -> Vec<&[u8]> {
    rows.iter().map(|(key, _, _)| key.as_slice()).collect()
}

async fn reads_what_was_written(mut bench: impl Bench) {
    let store = bench.open().await;
    let first = store.commit(put(b"a", b"1")).await.unwrap();
    let mut batch = Batch::new();
    batch.put(*b"b", *b"2").put(*b"a", *b"x").put(*b"a", *b"3").delete(*b"nothing");
    let second = store.commit(batch).await.unwrap();
    assert!(second > first);
    let found =
        store.get_many(&[b"b".to_vec(), b"missing".to_vec(), b"a".to_vec(), b"b".to_vec()]).await.unwrap();
    let values: Vec<_> = found.iter().map(|v| v.as_ref().map(|v| (v.value.to_vec(), v.version))).collect();
    assert_eq!(
        values,
        [Some((b"2".to_vec(), second)), None, Some((b"3".to_vec(), second)), Some((b"2".to_vec(), second))]
    );
    let mut batch = Batch::new();
    batch.put(*b"b", *b"4").delete(*b"b");
    store.commit(batch).await.unwrap();
    assert_eq!(store.get(b"b").await.unwrap(), None);
    drop(store);
    bench.close().await;
    let store = bench.open().await;
    assert_eq!(everything(store.as_ref()).await, [(b"a".to_vec(), b"3".to_vec(), second)]);
}

async fn scans_a_prefix_in_pages(mut bench: impl Bench) {
    let store = bench.open().await;
    let mut batch = Batch::new();
    for number in 0..100_u8 {
        batch.put([b'p', number], [number]);
        batch.put([b'q', number], [number]);
    }
    batch.put(*b"o", *b"before");
    store.commit(batch).await.unwrap();
    for limit in [1, 7, 99, 100, 101, usize::MAX] {
        let rows = scan_all(store.as_ref(), b"p", b"", limit).await;
        assert_eq!(rows.len(), 100, "{limit}");
        assert!(rows.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
    let page = store.scan(b"p", &[b'p', 40], 5).await.unwrap();
    assert_eq!(page.rows.first().unwrap().key.as_ref(), [b'p', 40]);
    assert_eq!(page.next, Some(vec![b'p', 45]));
    // The last page that is exactly full has no next.
    assert_eq!(store.scan(b"p", &[b'p', 95], 5).await.unwrap().next, None);
}

async fn scans_at_the_edges(mut bench: impl Bench) {
    let store = bench.open().await;
    let all: [&[u8]; 8] = [b"", &[0], &[0, 0], b"a", &[0xfe, 0xff], &[0xff], &[0xff, 0], &[0xff, 0xff, 0xff]];
    let mut batch = Batch::new();
    for key in all {
        batch.put(key, b"v".to_vec());
    }
    store.commit(batch).await.unwrap();
    assert_eq!(keys(&everything(store.as_ref()).await), all);
    assert_eq!(keys(&scan_all(store.as_ref(), &[0xff], b"", 1).await), all[5..]);
    assert_eq!(keys(&scan_all(store.as_ref(), &[0xff, 0xff], b"", 9).await), all[7..]);
    assert_eq!(keys(&scan_all(store.as_ref(), &[0xff], &[0xff, 1], 9).await), all[7..]);
    assert_eq!(keys(&scan_all(store.as_ref(), b"a", b"b", 9).await), [&[0_u8; 0]; 0]);
    assert_eq!(keys(&scan_all(store.as_ref(), b"a", &[0], 9).await), [b"a"]);
    assert_eq!(keys(&scan_all(store.as_ref(), &[0xff; 4], b"", 9).await), [&[0_u8; 0]; 0]);
    assert_eq!(keys(&scan_all(store.as_ref(), &[0], &[0], 1).await), all[1..3]);
    assert_eq!(store.get(b"").await.unwrap().unwrap().value.as_ref(), b"v");
}

async fn bounds_a_page(mut bench: impl Bench) {
    let store = bench.open().await;
    let mut batch = Batch::new();
    for number in 0..5000_u32 {
        batch.put(number.to_be_bytes(), b"".to_vec());
    }
    store.commit(batch).await.unwrap();
    let page = store.scan(b"", b"", usize::MAX).await.unwrap();
    assert_eq!(page.rows.len(), MAX_PAGE);
    assert!(page.next.is_some());
    // A limit of none would never come to an end.
    assert_eq!(store.scan(b"", b"", 0).await.unwrap().rows.len(), 1);
    let mut batch = Batch::new();
    for number in 0..5_u8 {
        batch.put([b'x', number], vec![7; 3 << 20]);
    }
    store.commit(batch).await.unwrap();
    assert_eq!(store.scan(b"x", b"", 100).await.unwrap().rows.len(), 3);
    assert_eq!(scan_all(store.as_ref(), b"x", b"", 100).await.len(), 5);
}

async fn holds_conditions(mut bench: impl Bench) {
    let store = bench.open().await;
    let mut fresh = put(b"k", b"1");
    fresh.require(*b"k", Condition::Absent);
    let version = store.commit(fresh.clone()).await.unwrap();
    match store.commit(fresh).await.unwrap_err() {
        StoreError::Conflict { key } => assert_eq!(key, b"k"),
        other => panic!("{other}"),
    }
    let mut update = put(b"k", b"2");
    update.require(*b"k", Condition::At(version)).require(*b"other", Condition::Absent);
    let next = store.commit(update.clone()).await.unwrap();
    assert!(matches!(store.commit(update).await, Err(StoreError::Conflict { .. })));
    let mut missing = put(b"k", b"3");
    missing.require(*b"other", Condition::At(next));
    assert!(matches!(store.commit(missing).await, Err(StoreError::Conflict { key }) if key == b"other"));
    // Conditions look at the state before the batch, also for keys that it writes.
    let mut both = Batch::new();
    both.put(*b"n", *b"1")
        .require(*b"n", Condition::Absent)
        .delete(*b"k")
        .require(*b"k", Condition::At(next));
    store.commit(both).await.unwrap();
    assert_eq!(keys(&everything(store.as_ref()).await), [b"n"]);
    let mut only = Batch::new();
    only.require(*b"n", Condition::Absent);
    assert!(matches!(store.commit(only).await, Err(StoreError::Conflict { .. })));
}

async fn applies_whole_or_not_at_all(mut bench: impl Bench) {
    let store = bench.open().await;
    store.commit(put(b"a", b"old")).await.unwrap();
    let before = everything(store.as_ref()).await;
    let mut batch = Batch::new();
    batch.put(*b"a", *b"new").put(*b"b", *b"new").delete(*b"a").require(*b"z", Condition::At(1));
    assert!(store.commit(batch).await.is_err());
    assert_eq!(everything(store.as_ref()).await, before);
    // Readers see both keys of a commit or none, whenever they look.
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for number in 0..100_u32 {
                let mut batch = Batch::new();
                batch.put(*b"x", number.to_be_bytes()).put(*b"y", number.to_be_bytes());
                store.commit(batch).await.unwrap();
            }
        }
    });
    while !writer.is_finished() {
        let pair = store.get_many(&[b"x".to_vec(), b"y".to_vec()]).await.unwrap();
        assert_eq!(pair[0], pair[1]);
        let page = store.scan(b"", b"x", 2).await.unwrap();
        assert!(page.rows.windows(2).all(|pair| pair[0].version == pair[1].version));
        assert_ne!(page.rows.len(), 1);
    }
    writer.await.unwrap();
    drop(store);
    bench.close().await;
}

async fn never_uses_a_version_again(mut bench: impl Bench) {
    let mut highest = 0;
    for round in 0..4_u8 {
        let store = bench.open().await;
        for _ in 0..5 {
            let version = store.commit(put(b"k", &[round])).await.unwrap();
            assert!(version > highest);
            highest = version;
            let mut delete = Batch::new();
            delete.delete(*b"k");
            let version = store.commit(delete).await.unwrap();
            assert!(version > highest);
            highest = version;
        }
        drop(store);
        bench.close().await;
    }
}

async fn commits_from_many_tasks(mut bench: impl Bench) {
    let store = bench.open().await;
    let tasks: Vec<_> = (0..16_u8)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut versions = Vec::new();
                for number in 0..10_u8 {
                    versions.push(store.commit(put(&[b't', task, number], &[number])).await.unwrap());
                    // All add to one counter: nobody's addition may be lost.
                    loop {
                        let now = store.get(b"counter").await.unwrap();
                        let value = now
                            .as_ref()
                            .map_or(0, |v| u32::from_be_bytes(v.value.as_ref().try_into().unwrap()));
                        let mut batch = put(b"counter", &(value + 1).to_be_bytes());
                        batch.require(
                            *b"counter",
                            now.map_or(Condition::Absent, |v| Condition::At(v.version)),
                        );
                        match store.commit(batch).await {
                            Ok(version) => break versions.push(version),
                            Err(StoreError::Conflict { .. }) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                }
                versions
            })
        })
        .collect();
    let mut versions = Vec::new();
    for task in tasks {
        versions.extend(task.await.unwrap());
    }
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions.len(), 320);
    assert_eq!(store.get(b"counter").await.unwrap().unwrap().value.as_ref(), 160_u32.to_be_bytes());
    assert_eq!(scan_all(store.as_ref(), b"t", b"", 50).await.len(), 160);
    drop(store);
    bench.close().await;
}

async fn takes_odd_sizes(mut bench: impl Bench) {
    let store = bench.open().await;
    let mut batch = Batch::new();
    for size in [0_usize, 1, 7, 8, 4095, 4096, 70_000, 1 << 20] {
        batch.put(size.to_be_bytes(), vec![0xab; size]);
    }
    batch.put(vec![7; 2000], *b"long key");
    store.commit(batch).await.unwrap();
    drop(store);
    bench.close().await;
    let store = bench.open().await;
    for size in [0_usize, 1, 7, 8, 4095, 4096, 70_000, 1 << 20] {
        assert_eq!(store.get(&size.to_be_bytes()).await.unwrap().unwrap().value.as_ref(), vec![0xab; size]);
    }
    assert!(store.get(&[7; 2000]).await.unwrap().is_some());
}

#[derive(Debug, Clone)]
enum Step {
    Commit { changes: Vec<(Vec<u8>, Option<u8>)>, condition: Option<(Vec<u8>, bool)> },
    Scan { prefix: Vec<u8>, from: Vec<u8>, limit: usize },
    Reopen,
}

fn short_key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0xff)], 0..4)
}

fn step() -> impl Strategy<Value = Step> {
    let changes = proptest::collection::vec((short_key(), any::<Option<u8>>()), 0..6);
    prop_oneof![
        6 => (changes, proptest::option::of((short_key(), any::<bool>())))
            .prop_map(|(changes, condition)| Step::Commit { changes, condition }),
        3 => (short_key(), short_key(), 0..5_usize)
            .prop_map(|(prefix, from, limit)| Step::Scan { prefix, from, limit }),
        1 => Just(Step::Reopen),
    ]
}

/// Random steps give what a plain map gives.
fn agrees_with_a_model<B: Bench>(make: impl Fn() -> B) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in proptest::collection::vec(step(), 1..25))| {
        runtime.block_on(follow(make(), steps));
    });
}

async fn follow(mut bench: impl Bench, steps: Vec<Step>) {
    let mut model: BTreeMap<Vec<u8>, (Vec<u8>, u64)> = BTreeMap::new();
    let mut store = bench.open().await;
    for step in steps {
        match step {
            Step::Commit { changes, condition } => {
                let mut batch = Batch::new();
                for (key, value) in &changes {
                    match value {
                        Some(byte) => batch.put(key.clone(), vec![*byte]),
                        None => batch.delete(key.clone()),
                    };
                }
                let mut holds = true;
                if let Some((key, right)) = condition {
                    let there = model.get(&key).map(|(_, version)| *version);
                    let condition = match (there, right) {
                        (Some(version), true) => Condition::At(version),
                        (None, true) | (Some(_), false) => Condition::Absent,
                        (None, false) => Condition::At(1),
                    };
                    holds = right;
                    batch.require(key, condition);
                }
                match store.commit(batch).await {
                    Ok(version) => {
                        assert!(holds);
                        for (key, value) in changes {
                            match value {
                                Some(byte) => model.insert(key, (vec![byte], version)),
                                None => model.remove(&key),
                            };
                        }
                    }
                    Err(StoreError::Conflict { .. }) => assert!(!holds),
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Scan { prefix, from, limit } => {
                let expected: Vec<_> = model
                    .range(from.clone()..)
                    .filter(|(key, _)| key.starts_with(&prefix))
                    .map(|(key, (value, version))| (key.clone(), value.clone(), *version))
                    .collect();
                assert_eq!(scan_all(store.as_ref(), &prefix, &from, limit).await, expected);
            }
            Step::Reopen => {
                drop(store);
                bench.close().await;
                store = bench.open().await;
            }
        }
    }
    let expected: Vec<_> = model.into_iter().map(|(key, (value, version))| (key, value, version)).collect();
    assert_eq!(everything(store.as_ref()).await, expected);
    drop(store);
    bench.close().await;
}
