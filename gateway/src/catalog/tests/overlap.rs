//! Batches that are prepared while the one before is still on its way to the store.

use std::sync::atomic::AtomicU32;

use tokio::sync::Semaphore;

use super::*;
use crate::state::{Batch, Page, StoreError, Versioned};

/// A store whose commits wait until they are let through, and fail where the test wants it.
#[derive(Debug)]
struct Gate {
    store: RedbStore,
    open: Semaphore,
    /// So many commits pass before others fail.
    passing: AtomicU32,
    failing: AtomicU32,
}

#[async_trait]
impl Store for Gate {
    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Versioned>>, StoreError> {
        self.store.get_many(keys).await
    }

    async fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Page, StoreError> {
        self.store.scan(prefix, from, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<u64, StoreError> {
        self.open.acquire().await.unwrap().forget();
        let spend = |left: u32| left.checked_sub(1);
        let passes = self.passing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok();
        if !passes && self.failing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok() {
            return Err(StoreError::Engine { store: "gate".into(), detail: "as the test wants".into() });
        }
        self.store.commit(batch).await
    }
}

/// A catalog whose store is the gate.
async fn gated(world: World) -> (World, Arc<Gate>) {
    let World { dir, tenant, bent, catalog, governance } = world;
    drop((catalog, governance));
    let store = RedbStore::open(&dir.path().join("catalog.redb")).unwrap();
    let gate = Arc::new(Gate {
        store,
        open: Semaphore::new(1000),
        passing: AtomicU32::new(0),
        failing: AtomicU32::new(0),
    });
    let views = Arc::new(RedbStore::open(&dir.path().join("views.redb")).unwrap());
    let journal = Journal::open(
        &dir.path().join("journal"),
        Chain::Governance,
        Uuid::nil(),
        JournalOptions::default(),
        &[],
    );
    let journal = Arc::new(journal.unwrap().0);
    let governance = Arc::new(Governance::new(views, Arc::clone(&journal)));
    let store = Arc::clone(&gate) as Arc<dyn Store>;
    let catalog = Catalog::new(store, journal, dir.path().join("index"), Some(Arc::clone(&governance) as _));
    catalog.catch_up().await.unwrap();
    (World { dir, tenant, bent, catalog: Arc::new(catalog), governance }, gate)
}

impl World {
    async fn ingest_on(&self, items: Vec<Item>) -> Ingested {
        self.catalog.ingest_on(&self.tenant, &self.tenant.sources[0], items, now()).await.unwrap()
    }
}

fn names_of(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("S20160607/R20160607003000{n:04}.wav")).collect()
}

#[tokio::test]
async fn a_batch_sees_the_one_before_that_is_still_on_its_way() {
    let (world, gate) = gated(World::new().await).await;
    gate.open.forget_permits(1000);
    // Facts of the second, media of both: the second batch joins what the first one told, in the same second.
    let first = vec![Item::Facts(facts(1, EVENING)), Item::Facts(facts(2, EVENING)), Item::Media(medium(1))];
    assert_eq!(world.ingest_on(first).await.published, 1);
    let done = {
        let second = world.ingest_on(vec![Item::Media(medium(2)), Item::Media(medium(1))]);
        tokio::pin!(second);
        // The first is in the journal, and the second waits until it is in the store.
        let journaled = async {
            while world.catalog.journal.head().sequence < 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), async {
            tokio::select! {
                () = journaled => {}
                _ = &mut second => panic!("it didn't wait"),
            }
        })
        .await
        .unwrap();
        assert_eq!(world.names().await, names_of(0), "nobody sees what isn't committed");
        gate.open.add_permits(1000);
        second.await
    };
    assert_eq!((done.learned, done.published), (1, 1));
    world.catalog.settle(7, 3, 0).await.unwrap();
    assert_eq!(world.names().await, names_of(2));
    assert_eq!(world.catalog.counts(7).await.unwrap().published, 2);
    let rows = world.index(IndexPart::Brief(crate::layout::UtcDay::parse_folder("S20160607").unwrap())).await;
    assert_eq!(rows.lines().count(), 3, "{rows}");
}

#[tokio::test]
async fn what_could_not_be_committed_is_applied_from_the_journal_and_no_name_is_given_twice() {
    for failing in 1..4 {
        let (world, gate) = gated(World::new().await).await;
        gate.failing.store(failing, Ordering::Relaxed);
        let mut published = 0;
        for n in 0..4_u32 {
            let items = vec![Item::Facts(facts(n, EVENING)), Item::Media(medium(n))];
            // What a scan does after a failure: it tells everything again.
            let told = world.catalog.ingest_on(&world.tenant, &world.tenant.sources[0], items, now()).await;
            published += told.map_or(0, |ingested| ingested.published);
        }
        let _ = world.catalog.settle(7, 3, 0).await;
        let all = (0..4).flat_map(|n| [Item::Facts(facts(n, EVENING)), Item::Media(medium(n))]).collect();
        let lost = world.catalog.lost(7, 3).await;
        published += world.ingest_on(all).await.published;
        world.catalog.settle(7, 3, lost).await.unwrap();
        assert_eq!(world.names().await, names_of(4), "{failing} commits failed");
        assert!(published <= 4, "{published} names were given by four publications");
        let counts = world.catalog.counts(7).await.unwrap();
        assert_eq!((counts.published, counts.learned), (4, 0), "{failing} commits failed");
    }
}

#[tokio::test]
async fn a_scan_whose_facts_could_not_be_kept_does_not_count_and_the_next_one_tells_them_again() {
    let agents = |rows: &str| rows.lines().filter(|row| row.contains("Agent ")).count();
    let folder = IndexPart::Full(utc_june(7));
    let mut failed = 0;
    for passing in 0..8 {
        let (world, gate) = gated(World::new().await).await;
        // More than are ingested at once, so that each of several commits fails in its turn.
        world.bent.change(|storage| (0..900).for_each(|n| add(storage, n, EVENING)));
        gate.passing.store(passing, Ordering::Relaxed);
        gate.failing.store(1, Ordering::Relaxed);
        let told = world.scan().await.error;
        if gate.failing.swap(0, Ordering::Relaxed) == 1 {
            assert_eq!(told, None);
            continue;
        }
        failed += 1;
        assert!(told.is_some_and(|told| told.contains("as the test wants")), "commit {passing}");
        let source = world.catalog.source(7, 3).await.unwrap();
        assert_eq!(source.watermark_ms, SourceRow::default().watermark_ms, "commit {passing}");
        world.bent.change(|storage| add(storage, 900, EVENING));
        assert_eq!(world.scan().await.error, None, "commit {passing}");
        assert!(world.catalog.source(7, 3).await.unwrap().watermark_ms > EVENING);
        let row = world.catalog.folder(7, utc_june(7)).await.unwrap().unwrap();
        let before = if row.full.generation == 0 { String::new() } else { world.index(folder).await };
        world.catalog.rewrite_folders(&world.tenant, now() + 3_600_000).await.unwrap();
        let rows = world.index(folder).await;
        assert_eq!(agents(&rows), 901, "commit {passing}");
        let names = |rows: &str| -> Vec<String> {
            rows.lines().map(|row| row.split(',').nth(9).unwrap_or_default().to_owned()).collect()
        };
        assert!(names(&rows).starts_with(&names(&before)), "commit {passing}: additions only append");
        assert_eq!(world.names().await, names_of(901), "commit {passing}");
    }
    assert!(failed >= 3, "only {failed} commits failed");
}

#[tokio::test]
async fn names_whose_index_rows_could_not_be_written_are_kept_and_their_rows_come_later() {
    let world = World::new().await;
    world.bent.change(|storage| (0..3).for_each(|n| add(storage, n, EVENING)));
    std::fs::create_dir_all(world.dir.path().join("index")).unwrap();
    let in_the_way = world.dir.path().join("index/t7");
    std::fs::write(&in_the_way, "no folder").unwrap();
    assert!(world.scan().await.error.is_some_and(|told| told.contains("index/t7")));
    let source = world.catalog.source(7, 3).await.unwrap();
    assert_eq!(source.watermark_ms, SourceRow::default().watermark_ms);
    std::fs::remove_file(&in_the_way).unwrap();
    assert_eq!(world.scan().await.error, None);
    world.catalog.rewrite_folders(&world.tenant, now() + 3_600_000).await.unwrap();
    assert_eq!(world.names().await, names_of(3));
    let rows = world.index(IndexPart::Full(utc_june(7))).await;
    assert_eq!((rows.lines().count(), rows.matches("Agent ").count()), (4, 3), "{rows}");
}

#[tokio::test]
async fn what_one_tenant_can_not_write_fails_no_other() {
    let world = World::new().await;
    let source = &world.tenant.sources[0];
    let other = Tenant { id: 8, name: "globex".into(), ..Tenant::clone(&world.tenant) };
    std::fs::create_dir_all(world.dir.path().join("index")).unwrap();
    std::fs::write(world.dir.path().join("index/t8"), "no folder").unwrap();
    let lost = (world.catalog.lost(7, 3).await, world.catalog.lost(8, 3).await);
    let told = |n: u32| vec![Item::Media(medium(n)), Item::Facts(facts(n, EVENING))];
    for n in 0..4 {
        // It is on its way while the other one's batch is prepared.
        let _ = world.catalog.ingest_on(&other, source, told(n), now()).await;
        world.catalog.ingest_on(&world.tenant, source, told(n), now()).await.unwrap();
    }
    world.catalog.settle(7, 3, lost.0).await.unwrap();
    let refused = world.catalog.settle(8, 3, lost.1).await.unwrap_err().to_string();
    assert!(refused.contains("index/t8"), "{refused}");
    assert_eq!(world.names().await, names_of(4));
    assert_eq!(world.catalog.counts(8).await.unwrap().published, 4, "the journal has their names");
}
