//! The catalog with a source that can be bent at will, on real stores in a temporary folder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use recgate_plugin_api::{
    Capabilities, Error, ErrorCode, Facts, Health, Item, JoinKey, JoinKind, Media, MediaState, ScanEnd, fact,
};
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use super::*;
use crate::{
    config::{Source, Tenant, Unmatched},
    governance::Governance,
    layout::{NameForm, TenantZone},
    sources::{MediaSource, OpenMedia, ScanStart, SourceError, SourceStatus},
    state::{Chain, JournalOptions, RedbStore},
};

mod facts;
mod failing;
mod history;
mod live;
mod losses;
mod names;
mod overlap;
mod running;

/// 2016-06-07T00:30:00Z, 17:30 of 6 June in Los Angeles.
pub(super) const EVENING: i64 = 1_465_259_400_000;

static NOW: AtomicI64 = AtomicI64::new(EVENING + 40 * 24 * 3_600_000);

pub(super) fn now() -> i64 {
    NOW.load(Ordering::Relaxed)
}

#[derive(Default)]
pub(super) struct Storage {
    pub(super) media: BTreeMap<String, Media>,
    pub(super) facts: BTreeMap<String, Facts>,
    /// What `stat` says of media that have changed since the scan read them.
    asked: BTreeMap<String, Media>,
    /// Media that can't be asked for.
    unasked: BTreeSet<String>,
    fails: Option<ErrorCode>,
    /// A call that is abandoned keeps its end of the channel.
    hangs: bool,
    watermark_ms: Option<i64>,
    /// Media that are there and can't be read: they aren't told, and asked for they are refused.
    unreadable: BTreeSet<String>,
    /// It doesn't tell upper from lower case.
    folds_case: bool,
}

#[derive(Default)]
pub(super) struct Bent(Mutex<Storage>);

impl Bent {
    pub(super) fn change(&self, change: impl FnOnce(&mut Storage)) {
        change(&mut self.0.lock().unwrap());
    }

    fn error(code: ErrorCode) -> SourceError {
        SourceError { source_name: "bent".into(), error: Error::new(code, "as the test wants") }
    }
}

#[async_trait]
impl MediaSource for Bent {
    fn name(&self) -> &str {
        "bent"
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
    fn status(&self) -> SourceStatus {
        SourceStatus::default()
    }
    async fn health(&self) -> Result<Health, SourceError> {
        Ok(Health::default())
    }
    async fn scan(&self, _from: ScanStart, items: mpsc::Sender<Vec<Item>>) -> Result<ScanEnd, SourceError> {
        let items_of_an_abandoned_call = items.clone();
        let (batches, fails) = {
            let storage = self.0.lock().unwrap();
            let readable = |media: &&Media| !storage.unreadable.contains(&media.id);
            let media = storage.media.values().filter(readable).cloned().map(Item::Media);
            let facts = storage.facts.values().cloned().map(Item::Facts);
            let items: Vec<Item> = media.chain(facts).collect();
            if storage.hangs {
                std::mem::forget(items_of_an_abandoned_call);
                return Err(Self::error(ErrorCode::Timeout));
            }
            (items.chunks(100).map(<[Item]>::to_vec).collect::<Vec<_>>(), storage.fails)
        };
        for batch in batches {
            items.send(batch).await.map_err(|_| Self::error(ErrorCode::Cancelled))?;
        }
        match fails {
            Some(code) => Err(Self::error(code)),
            None => {
                let watermark_ms = self.0.lock().unwrap().watermark_ms.unwrap_or_else(now);
                Ok(ScanEnd { cursor: Vec::new(), complete: true, watermark_ms })
            }
        }
    }
    async fn stat(&self, id: &str, _version: Option<&str>) -> Result<Media, SourceError> {
        let storage = self.0.lock().unwrap();
        if storage.unasked.contains(id) {
            return Err(Self::error(ErrorCode::Unavailable));
        }
        if storage.unreadable.contains(id) {
            return Err(Self::error(ErrorCode::Permission));
        }
        let folded = |media: &&Media| storage.folds_case && media.id.eq_ignore_ascii_case(id);
        let found = storage.asked.get(id).or_else(|| storage.media.get(id));
        found
            .or_else(|| storage.media.values().find(folded))
            .map(|media| Media { id: id.into(), ..media.clone() })
            .ok_or_else(|| Self::error(ErrorCode::NotFound))
    }
    async fn open(&self, _id: &str, _version: &str) -> Result<Arc<dyn OpenMedia>, SourceError> {
        Err(Self::error(ErrorCode::Unsupported))
    }
}

pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) tenant: Arc<Tenant>,
    pub(super) bent: Arc<Bent>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) governance: Arc<Governance>,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(Unmatched::Orphan).await
    }

    pub(super) async fn with(unmatched: Unmatched) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (catalog, governance) = open(dir.path()).await;
        let source = Source {
            id: 3,
            name: "bent".into(),
            plugin: "bent".into(),
            in_process: true,
            sha256: None,
            metadata_wait: Duration::from_secs(24 * 3600),
            unmatched,
            scan_interval: Duration::from_secs(60),
            call_timeout: Duration::from_secs(5),
            settings: serde_json::Value::Null,
        };
        let tenant = Tenant {
            id: 7,
            name: "acme".into(),
            zone: TenantZone::new(chrono_tz::America::Los_Angeles, Vec::new()).unwrap(),
            name_form: NameForm::Long,
            live_index: false,
            user_ca_keys: Vec::new(),
            revoked_keys: Vec::new(),
            quota: crate::config::Quota::default(),
            users: Vec::new(),
            sources: vec![source],
        };
        Self { dir, tenant: Arc::new(tenant), bent: Arc::default(), catalog, governance }
    }

    /// The gateway stops and starts again.
    pub(super) async fn restart(self) -> Self {
        let Self { dir, tenant, bent, catalog, governance } = self;
        drop((catalog, governance));
        let (catalog, governance) = open(dir.path()).await;
        Self { dir, tenant, bent, catalog, governance }
    }

    /// The gateway starts with the journal alone.
    async fn rebuilt(self) -> Self {
        let Self { dir, tenant, bent, catalog, governance } = self;
        drop((catalog, governance));
        std::fs::remove_file(dir.path().join("catalog.redb")).unwrap();
        std::fs::remove_file(dir.path().join("views.redb")).unwrap();
        let (catalog, governance) = open(dir.path()).await;
        Self { dir, tenant, bent, catalog, governance }
    }

    pub(super) async fn scan(&self) -> Progress {
        self.scan_of(&self.tenant.sources[0], &self.bent).await
    }

    async fn scan_of(&self, source: &Source, bent: &Arc<Bent>) -> Progress {
        self.scan_from(source, bent, Progress::default()).await
    }

    /// A scan of a source that is as far as this.
    async fn scan_from(&self, source: &Source, bent: &Arc<Bent>, before: Progress) -> Progress {
        let progress = Arc::new(RwLock::new(before));
        let wake = Arc::new(Notify::new());
        let stop = tokio_util::sync::CancellationToken::new();
        let synchroniser = Synchroniser {
            catalog: Arc::clone(&self.catalog),
            tenant: Arc::clone(&self.tenant),
            source: source.clone(),
            media: Arc::clone(bent) as _,
            progress: Arc::clone(&progress),
            wake,
            heard: Heard::default(),
            now_ms: now,
        };
        synchroniser.scan_once(&stop).await;
        drop(synchroniser);
        Arc::into_inner(progress).unwrap().into_inner().unwrap()
    }

    pub(super) async fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut from = None;
        loop {
            let (folders, next) = self.catalog.folders(7, from).await.unwrap();
            for (day, _) in folders {
                let mut from = None;
                loop {
                    let (rows, next) = self.catalog.recordings(7, day, from).await.unwrap();
                    names.extend(
                        rows.into_iter().filter(|(_, row)| row.condition != Condition::Missing).map(
                            |(place, row)| {
                                let name = place.name(&row.extension).unwrap().text(NameForm::Long);
                                format!("{}/{name}", day.folder_name())
                            },
                        ),
                    );
                    match next {
                        Some(place) => from = Some(place),
                        None => break,
                    }
                }
            }
            match next {
                Some(day) => from = Some(day),
                None => return names,
            }
        }
    }

    pub(super) async fn index(&self, part: IndexPart) -> String {
        let file = match part {
            IndexPart::Root(day) => self.catalog.root_index(7, day).await.unwrap().unwrap().file,
            IndexPart::Brief(day) => self.catalog.folder(7, day).await.unwrap().unwrap().brief,
            IndexPart::Full(day) => self.catalog.folder(7, day).await.unwrap().unwrap().full,
            IndexPart::Media(day) => self.catalog.folder(7, day).await.unwrap().unwrap().media,
        };
        let bytes = std::fs::read(self.catalog.index_path(7, part, file.generation)).unwrap();
        String::from_utf8(bytes[..usize::try_from(file.length).unwrap()].to_vec()).unwrap()
    }
}

pub(super) async fn open(dir: &std::path::Path) -> (Arc<Catalog>, Arc<Governance>) {
    let store = Arc::new(RedbStore::open(&dir.join("catalog.redb")).unwrap());
    let views = Arc::new(RedbStore::open(&dir.join("views.redb")).unwrap());
    let journal =
        Journal::open(&dir.join("journal"), Chain::Governance, Uuid::nil(), JournalOptions::default(), &[]);
    let journal = Arc::new(journal.unwrap().0);
    let governance = Arc::new(Governance::new(views, Arc::clone(&journal)));
    governance.catch_up().await.unwrap();
    let catalog = Catalog::new(store, journal, dir.join("index"), Some(Arc::clone(&governance) as _));
    catalog.catch_up().await.unwrap();
    (Arc::new(catalog), governance)
}

pub(super) fn medium(n: u32) -> Media {
    Media {
        id: format!("{n}.wav"),
        version: format!("{n}-1"),
        size: 1000 + u64::from(n),
        media_type: "audio/wav".into(),
        duration_ms: Some(3500),
        changed_ms: EVENING,
        keys: vec![JoinKey { kind: JoinKind::RecordingUuid, value: n.to_string() }],
        ..Media::default()
    }
}

pub(super) fn facts(n: u32, start: i64) -> Facts {
    Facts {
        id: format!("cdr-{n}"),
        revision: 1,
        keys: vec![JoinKey { kind: JoinKind::RecordingUuid, value: n.to_string() }],
        values: vec![
            (fact::STARTED_AT.into(), start.to_string()),
            (fact::STOPPED_AT.into(), start.saturating_add(4000).to_string()),
            (fact::AGENT_NAME.into(), format!("Agent {n}")),
        ],
        ..Facts::default()
    }
}

pub(super) fn add(storage: &mut Storage, n: u32, start: i64) {
    storage.media.insert(medium(n).id, medium(n));
    storage.facts.insert(facts(n, start).id, facts(n, start));
}

pub(super) fn june(day: u32) -> LocalDay {
    LocalDay::from_date(chrono::NaiveDate::from_ymd_opt(2016, 6, day).unwrap()).unwrap()
}

pub(super) fn utc_june(day: u32) -> UtcDay {
    UtcDay::from_number(june(day).number()).unwrap()
}

#[tokio::test]
async fn recordings_of_a_local_day_lie_in_two_folders_and_one_root_index() {
    let world = World::new().await;
    world.bent.change(|storage| {
        add(storage, 1, EVENING - 8 * 3_600_000); // 09:30 local, 6 June UTC
        add(storage, 2, EVENING); // 17:30 local, 7 June UTC
        add(storage, 3, EVENING + 7 * 3_600_000); // 00:30 local of 7 June
    });
    assert_eq!(world.scan().await.error, None);
    assert_eq!(
        world.names().await,
        [
            "S20160606/R201606061630000000.wav",
            "S20160607/R201606070030000000.wav",
            "S20160607/R201606070730000000.wav"
        ]
    );
    world.catalog.publish_indexes(&world.tenant, now()).await.unwrap();
    let index = world.index(IndexPart::Root(june(6))).await;
    let lines: Vec<_> = index.lines().collect();
    assert_eq!(lines.len(), 3, "{index}");
    assert!(lines[1].contains("R201606061630000000.wav,S20160606"), "{index}");
    assert!(lines[2].contains("2016-06-06 17:30:00") && lines[2].contains("S20160607"), "{index}");
    assert_eq!(world.index(IndexPart::Brief(utc_june(7))).await.lines().count(), 3);
    assert_eq!(world.index(IndexPart::Full(utc_june(6))).await.lines().count(), 2);
}

#[tokio::test]
async fn names_are_for_ever() {
    let world = World::new().await;
    world.bent.change(|storage| (1..=40).for_each(|n| add(storage, n, EVENING)));
    world.scan().await;
    let before = world.names().await;
    assert_eq!(before.len(), 40);
    assert_eq!(before[39], "S20160607/R201606070030000039.wav");

    let world = world.restart().await;
    world.bent.change(|storage| {
        storage.media.remove("5.wav");
        add(storage, 0, EVENING);
    });
    assert_eq!(world.scan().await.error, None);
    let after = world.names().await;
    assert_eq!(after.len(), 40, "one has gone, one has come");
    assert_eq!(after[39], "S20160607/R201606070030000040.wav", "a name is never given twice");
    assert!(before.iter().filter(|name| !after.contains(name)).count() == 1);
    assert_eq!(world.catalog.counts(7).await.unwrap().missing, 1);

    world.bent.change(|storage| add(storage, 5, EVENING));
    world.scan().await;
    let back = world.names().await;
    assert!(before.iter().all(|name| back.contains(name)), "what comes back has its old name");
    assert_eq!(world.catalog.counts(7).await.unwrap().missing, 0);
}

#[tokio::test]
async fn a_lost_store_is_rebuilt_from_the_journal() {
    let world = World::new().await;
    world.bent.change(|storage| {
        (1..=20).for_each(|n| add(storage, n, EVENING + i64::from(n % 3) * 1000));
        storage.media.insert("99.wav".into(), medium(99));
    });
    world.scan().await;
    world.catalog.publish_indexes(&world.tenant, now()).await.unwrap();
    let (names, counts) = (world.names().await, world.catalog.counts(7).await.unwrap());
    let index = world.index(IndexPart::Root(june(6))).await;
    assert_eq!(counts.orphans, 1);

    let World { dir, tenant, bent, catalog, governance } = world;
    drop((catalog, governance));
    std::fs::remove_file(dir.path().join("catalog.redb")).unwrap();
    let (catalog, governance) = open(dir.path()).await;
    let world = World { dir, tenant, bent, catalog, governance };
    assert_eq!(world.names().await, names);
    assert_eq!(world.catalog.counts(7).await.unwrap(), counts);
    world.scan().await;
    world.catalog.publish_indexes(&world.tenant, now()).await.unwrap();
    assert_eq!(world.names().await, names);
    assert_eq!(world.index(IndexPart::Root(june(6))).await, index);
    assert_eq!(world.catalog.counts(7).await.unwrap(), counts);
}

#[tokio::test]
async fn facts_may_come_late_and_change_cells_only() {
    let world = World::new().await;
    world.bent.change(|storage| add(storage, 1, EVENING));
    world.scan().await;
    world.catalog.publish_indexes(&world.tenant, now()).await.unwrap();
    let before = world.catalog.root_index(7, june(6)).await.unwrap().unwrap();

    world.bent.change(|storage| {
        let facts = storage.facts.get_mut("cdr-1").unwrap();
        facts.revision = 2;
        facts.values[2].1 = "=Zoë, \"Q\"".into();
    });
    world.scan().await;
    world.catalog.publish_indexes(&world.tenant, now()).await.unwrap();
    assert_eq!(
        world.catalog.root_index(7, june(6)).await.unwrap().unwrap().file,
        before.file,
        "not more often than once in five minutes"
    );
    world.catalog.publish_indexes(&world.tenant, now() + 301_000).await.unwrap();
    let index = world.index(IndexPart::Root(june(6))).await;
    assert!(index.contains("\"'=Zoë, \"\"Q\"\"\""), "{index}");
    assert!(world.index(IndexPart::Brief(utc_june(7))).await.contains("Zoë"));
    assert_eq!(world.names().await, ["S20160607/R201606070030000000.wav"]);

    // An older revision, told late, changes nothing.
    world.bent.change(|storage| *storage.facts.get_mut("cdr-1").unwrap() = facts(1, EVENING + 5000));
    world.scan().await;
    let (rows, _) = world.catalog.recordings(7, utc_june(7), None).await.unwrap();
    let row = world.catalog.recording(7, rows[0].0).await.unwrap().unwrap();
    assert_eq!(row.details.start_ms, EVENING);
}

#[tokio::test]
async fn a_record_that_is_made_anew_leaves_nothing_of_the_old_one_in_the_row() {
    let world = World::new().await;
    world.bent.change(|storage| {
        add(storage, 1, EVENING);
        storage.facts.get_mut("cdr-1").unwrap().values.push((fact::CALLED_NUMBER.into(), "5550100".into()));
    });
    world.scan().await;
    world.bent.change(|storage| {
        let anew = Facts { id: "cdr-2".into(), revision: 2, ..facts(1, EVENING) };
        storage.facts.insert("cdr-2".into(), anew);
        let values = &mut storage.facts.get_mut("cdr-2").unwrap().values;
        values.last_mut().unwrap().1 = "Another agent".into();
    });
    world.scan().await;
    let values = world.catalog.describe(7, 3, "1.wav").await.unwrap().unwrap().found.values;
    assert_eq!(values.get(fact::AGENT_NAME).map(String::as_str), Some("Another agent"));
    assert_eq!(values.get(fact::CALLED_NUMBER), None, "{values:?}");
}

#[tokio::test]
async fn what_nobody_claims_is_an_orphan_until_facts_come() {
    let world = World::new().await;
    world.bent.change(|storage| {
        storage.media.insert("1.wav".into(), medium(1));
        let young = Media { changed_ms: now() - 1000, ..medium(2) };
        storage.media.insert("2.wav".into(), young);
    });
    world.scan().await;
    assert!(world.names().await.is_empty());
    let (orphans, _) = world.governance.orphans(7, None).await.unwrap();
    assert_eq!(orphans.iter().map(|orphan| orphan.media.as_str()).collect::<Vec<_>>(), ["1.wav"]);
    let counts = world.catalog.counts(7).await.unwrap();
    assert_eq!((counts.learned, counts.orphans), (2, 1));

    world.bent.change(|storage| {
        storage.facts.insert("cdr-1".into(), facts(1, EVENING));
    });
    world.scan().await;
    assert_eq!(world.names().await, ["S20160607/R201606070030000000.wav"]);
    assert!(world.governance.orphans(7, None).await.unwrap().0.is_empty());
    assert_eq!(world.catalog.counts(7).await.unwrap().orphans, 0);
}

#[tokio::test]
async fn without_facts_media_is_published_with_what_it_tells_itself() {
    let world = World::with(Unmatched::Publish).await;
    world.bent.change(|storage| {
        storage.media.insert("1.wav".into(), Media { media_type: "video/webm".into(), ..medium(1) });
        // Facts told after the media in the same scan count, though the wait was over before it began.
        add(storage, 2, EVENING - 1000);
    });
    world.scan().await;
    assert_eq!(
        world.names().await,
        ["S20160607/R201606070029560000.webm", "S20160607/R201606070029590000.wav"]
    );
    assert_eq!(world.index(IndexPart::Brief(utc_june(7))).await.lines().count(), 2, "WAVs only");
    assert_eq!(world.index(IndexPart::Media(utc_june(7))).await.lines().count(), 2);
}

#[tokio::test]
async fn growing_media_waits_and_changed_media_is_not_served() {
    let world = World::new().await;
    world.bent.change(|storage| {
        add(storage, 1, EVENING);
        storage.media.get_mut("1.wav").unwrap().state = MediaState::Growing;
    });
    world.scan().await;
    assert!(world.names().await.is_empty());
    world.bent.change(|storage| add(storage, 1, EVENING));
    world.scan().await;
    assert_eq!(world.names().await.len(), 1);

    world.bent.change(|storage| storage.media.get_mut("1.wav").unwrap().version = "other".into());
    world.scan().await;
    let (rows, _) = world.catalog.recordings(7, utc_june(7), None).await.unwrap();
    assert_eq!(rows[0].1.condition, Condition::Corrupt);
    assert_eq!(rows[0].1.size, 1001, "what was frozen stays");

    world.bent.change(|storage| add(storage, 1, EVENING));
    assert_eq!(world.scan().await.error, None);
    let (rows, _) = world.catalog.recordings(7, utc_june(7), None).await.unwrap();
    assert_eq!(rows[0].1.condition, Condition::Sound, "the version that was published is back");
    assert_eq!(world.catalog.counts(7).await.unwrap().corrupt, 0);
    let world = world.rebuilt().await;
    assert_eq!(world.catalog.counts(7).await.unwrap().corrupt, 0);
}

#[tokio::test]
async fn a_storage_that_shows_too_little_is_not_believed() {
    let world = World::new().await;
    world.bent.change(|storage| (1..=100).for_each(|n| add(storage, n, EVENING)));
    world.scan().await;
    world.bent.change(|storage| storage.media.retain(|_, media| media.size % 10 != 0));
    let error = world.scan().await.error.unwrap();
    assert!(error.contains("10 of 100"), "{error}");
    assert_eq!(world.names().await.len(), 100);
    world.bent.change(|storage| storage.media.clear());
    assert!(world.scan().await.error.unwrap().contains("100 of 100"));
    world.bent.change(|storage| storage.fails = Some(ErrorCode::Unavailable));
    assert!(world.scan().await.error.unwrap().contains("as the test wants"));
    assert_eq!(world.names().await.len(), 100);
    assert_eq!(world.catalog.counts(7).await.unwrap().missing, 0);
}

#[tokio::test]
async fn index_files_that_are_lost_are_written_again() {
    let world = World::new().await;
    world.bent.change(|storage| (1..=3).for_each(|n| add(storage, n, EVENING)));
    world.scan().await;
    world.catalog.publish_indexes(&world.tenant, now()).await.unwrap();
    let before = world.index(IndexPart::Brief(utc_june(7))).await;
    std::fs::remove_dir_all(world.dir.path().join("index")).unwrap();
    let world = world.restart().await;
    assert!(world.catalog.check_index_files(&world.tenant, now()).await.unwrap() >= 2);
    world.catalog.publish_indexes(&world.tenant, now()).await.unwrap();
    assert_eq!(world.index(IndexPart::Brief(utc_june(7))).await, before);
    assert_eq!(world.index(IndexPart::Root(june(6))).await.lines().count(), 4);
}

#[tokio::test]
async fn a_day_without_calls_has_an_index_once_the_tenant_is_served() {
    let world = World::new().await;
    let today = world.tenant.zone.day_of(now()).unwrap();
    world.catalog.publish_indexes(&world.tenant, now()).await.unwrap();
    assert!(world.catalog.root_index(7, today).await.unwrap().unwrap().file.generation == 0);
    let later = now() + 3 * 24 * 3_600_000;
    world.catalog.publish_indexes(&world.tenant, later).await.unwrap();
    let row = world.catalog.root_index(7, today).await.unwrap().unwrap();
    assert!(row.file.generation != 0 && row.incomplete, "no source has told that it is complete");
    world.scan().await;
}

#[tokio::test]
async fn incomplete_indexes_count_until_they_are_whole() {
    const DAY: i64 = 24 * 3_600_000;
    let world = World::new().await;
    let incomplete = async || world.catalog.overdue_indexes(&world.tenant, now()).await.unwrap().incomplete;
    // The tenant has been served for four days, and its source has told nothing.
    world.catalog.publish_indexes(&world.tenant, now() - 4 * DAY).await.unwrap();
    assert_eq!(incomplete().await, 0);
    world.catalog.publish_indexes(&world.tenant, now()).await.unwrap();
    // Yesterday's may have some minutes left.
    assert!((3..=4).contains(&incomplete().await));
    world.scan().await;
    assert!((3..=4).contains(&incomplete().await), "until they are published anew");
    world.catalog.publish_indexes(&world.tenant, now()).await.unwrap();
    assert_eq!(incomplete().await, 0);
}

#[tokio::test]
async fn indexes_that_are_owed_and_not_published_are_overdue() {
    const HOUR: i64 = 3_600_000;
    let world = World::new().await;
    let overdue = async |at| world.catalog.overdue_indexes(&world.tenant, at).await.unwrap();
    assert_eq!(overdue(now()).await, Overdue::default());
    world.bent.change(|storage| {
        add(storage, 1, EVENING);
        add(storage, 2, EVENING + 24 * HOUR);
    });
    world.scan().await;
    // Days that came long after their end are due at once, and no longer than they have been known.
    let (known, known_until) = (overdue(now()).await, now());
    assert_eq!(known.indexes, 2);
    assert!(known.since_ms.is_some_and(|since| since > EVENING + 30 * 24 * HOUR && since <= known_until));
    world.catalog.publish_indexes(&world.tenant, now()).await.unwrap();
    assert_eq!(overdue(now()).await, Overdue::default());

    // One that changes has some minutes, then it is overdue as well.
    world.bent.change(|storage| {
        add(storage, 3, EVENING);
    });
    world.scan().await;
    assert_eq!(overdue(now()).await, Overdue::default());
    assert_eq!(overdue(now() + HOUR).await.indexes, 1);

    // The tenant's present day is owed 55 minutes after its end.
    world.catalog.adopt(&world.tenant, now()).await.unwrap();
    world.catalog.publish_indexes(&world.tenant, now() + HOUR).await.unwrap();
    let end = world.tenant.zone.end_of(world.tenant.zone.day_of(now()).unwrap()).unwrap();
    assert_eq!(overdue(end + 54 * 60_000).await, Overdue::default());
    let due = end + 55 * 60_000;
    assert_eq!(overdue(due + 1).await, Overdue { indexes: 1, since_ms: Some(due), incomplete: 0 });
}

#[tokio::test]
async fn a_scan_that_hangs_is_given_up() {
    let world = World::new().await;
    world.bent.change(|storage| storage.hangs = true);
    let error = tokio::time::timeout(Duration::from_secs(30), world.scan()).await.expect("it goes on").error;
    assert!(error.unwrap().contains("as the test wants"));
    world.bent.change(|storage| storage.hangs = false);
    assert_eq!(world.scan().await.error, None);
}

#[tokio::test]
async fn what_the_store_lacks_of_the_journal_is_applied_to_the_same_effect() {
    let world = World::new().await;
    world.bent.change(|storage| (1..=40).for_each(|n| add(storage, n, EVENING)));
    world.scan().await;
    let World { dir, tenant, bent, catalog, governance } = world;
    drop((catalog, governance));
    let (store, older) = (dir.path().join("catalog.redb"), dir.path().join("older.redb"));
    std::fs::copy(&store, &older).unwrap();
    let (catalog, governance) = open(dir.path()).await;
    let world = World { dir, tenant, bent, catalog, governance };
    world.bent.change(|storage| {
        storage.media.remove("5.wav");
        add(storage, 41, EVENING);
    });
    world.scan().await;
    let names = world.names().await;

    // Power fails after the journal was written and before the store was.
    let World { dir, tenant, bent, catalog, governance } = world;
    drop((catalog, governance));
    std::fs::rename(&older, &store).unwrap();
    let (catalog, governance) = open(dir.path()).await;
    let world = World { dir, tenant, bent, catalog, governance };
    assert_eq!(world.names().await, names);
    world.bent.change(|storage| add(storage, 5, EVENING));
    assert_eq!(world.scan().await.error, None);
    assert_eq!(world.names().await.len(), 41, "what was missing has come back");
    assert_eq!(world.catalog.counts(7).await.unwrap().missing, 0);
}

#[tokio::test]
async fn nonsense_in_facts_makes_an_orphan_and_a_clock_ahead_completes_nothing() {
    let world = World::new().await;
    world.bent.change(|storage| {
        add(storage, 1, i64::MAX);
        storage.watermark_ms = Some(i64::MAX);
    });
    world.scan().await;
    assert!(world.names().await.is_empty());
    assert_eq!(world.catalog.counts(7).await.unwrap().orphans, 1);
    let row = world.catalog.source(7, 3).await.unwrap();
    assert!(row.watermark_ms <= now());
    world.bent.change(|storage| add(storage, 2, EVENING));
    world.bent.change(|storage| storage.facts.get_mut("cdr-2").unwrap().values[1].1 = i64::MAX.to_string());
    world.scan().await;
    let (rows, _) = world.catalog.recordings(7, utc_june(7), None).await.unwrap();
    assert_eq!(rows[0].1.modified, EVENING / 1000, "a stop beyond the calendar doesn't count");
}

#[tokio::test]
async fn two_media_never_share_a_uid() {
    let world = World::new().await;
    let uid = Some([7; 16]);
    world.bent.change(|storage| {
        add(storage, 1, EVENING);
        add(storage, 2, EVENING);
        storage.media.values_mut().for_each(|media| media.uid = uid);
    });
    world.scan().await;
    let (rows, _) = world.catalog.recordings(7, utc_june(7), None).await.unwrap();
    let first = world.catalog.recording(7, rows[0].0).await.unwrap().unwrap().frozen.uid;
    let second = world.catalog.recording(7, rows[1].0).await.unwrap().unwrap().frozen.uid;
    assert!(first != second && (first == [7; 16] || second == [7; 16]));
}

#[tokio::test]
async fn a_folder_lists_as_many_rows_as_wavs_while_facts_change() {
    let world = World::new().await;
    world.bent.change(|storage| (1..=30).for_each(|n| add(storage, n, EVENING)));
    world.scan().await;
    world.bent.change(|storage| {
        let facts = storage.facts.get_mut("cdr-1").unwrap();
        facts.revision = 2;
        facts.values[2].1 = "Late".into();
    });
    world.scan().await;
    world.bent.change(|storage| add(storage, 31, EVENING));
    world.scan().await;
    assert_eq!(world.index(IndexPart::Brief(utc_june(7))).await.lines().count(), 32);
    world.bent.change(|storage| {
        storage.media.remove("31.wav");
    });
    world.scan().await;
    world.catalog.rewrite_folders(&world.tenant, now()).await.unwrap();
    let index = world.index(IndexPart::Full(utc_june(7))).await;
    assert_eq!(index.lines().count(), 31);
    assert!(index.contains("Late"));
}

#[tokio::test]
async fn the_form_of_names_and_the_first_day_survive_a_lost_store() {
    let world = World::new().await;
    assert_eq!(world.catalog.adopt(&world.tenant, now()).await.unwrap(), NameForm::Long);
    let today = world.tenant.zone.day_of(now()).unwrap();
    let World { dir, tenant, bent, catalog, governance } = world;
    drop((catalog, governance));
    std::fs::remove_file(dir.path().join("catalog.redb")).unwrap();
    let (catalog, governance) = open(dir.path()).await;
    let world = World { dir, tenant, bent, catalog, governance };
    let short = Tenant { name_form: NameForm::Short, ..(*world.tenant).clone() };
    assert_eq!(world.catalog.adopt(&short, now()).await.unwrap(), NameForm::Long);
    assert!(world.catalog.root_index(7, today).await.unwrap().is_some());
}
