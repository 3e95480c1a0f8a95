//! Sources that fail: nothing is marked missing by mistake, what is wrong is told, and the cure needs no restart.

use super::*;

const HOUR: i64 = 3_600_000;

/// A source with forty recordings that is followed from scan to scan, with what is known of how it goes.
struct Followed {
    world: World,
    progress: Arc<RwLock<Progress>>,
    clock: fn() -> i64,
}

impl Followed {
    async fn new() -> Self {
        let world = World::new().await;
        world.bent.change(|storage| (1..=40).for_each(|n| add(storage, n, EVENING)));
        let mut followed = Self { world, progress: Arc::default(), clock: now };
        assert_eq!(followed.scan().await.error, None);
        followed
    }

    async fn scan(&mut self) -> Progress {
        let synchroniser = Synchroniser {
            catalog: Arc::clone(&self.world.catalog),
            tenant: Arc::clone(&self.world.tenant),
            source: self.world.tenant.sources[0].clone(),
            media: Arc::clone(&self.world.bent) as _,
            progress: Arc::clone(&self.progress),
            wake: Arc::default(),
            heard: Heard::default(),
            now_ms: self.clock,
        };
        synchroniser.scan_once(&tokio_util::sync::CancellationToken::new()).await;
        self.progress.read().unwrap().clone()
    }

    async fn watermark(&self) -> i64 {
        self.world.catalog.source(7, 3).await.unwrap().watermark_ms
    }

    async fn assert_whole(&self, what: &str) {
        assert_eq!(self.world.names().await.len(), 40, "{what}");
        let counts = self.world.catalog.counts(7).await.unwrap();
        assert_eq!((counts.published, counts.missing, counts.corrupt), (40, 0, 0), "{what}");
    }
}

type Ill = fn(&mut Storage);

#[tokio::test]
async fn a_source_that_fails_says_so_loses_nothing_and_is_well_again() {
    let cases: [(&str, Ill, &str); 5] = [
        ("down", |storage| storage.fails = Some(ErrorCode::Unavailable), "as the test wants"),
        ("slow", |storage| storage.hangs = true, "Timeout"),
        ("unmounted", |storage| storage.media.clear(), "40 of 40 media vanished"),
        ("partly unmounted", |storage| storage.media.retain(|_, media| media.size % 4 != 0), "10 of 40"),
        (
            "unreadable in large part",
            |storage| storage.unreadable.extend((1..=20).map(|n| format!("{n}.wav"))),
            "20 of 40",
        ),
    ];
    for (what, ill, error) in cases {
        let mut followed = Followed::new().await;
        let media = followed.world.bent.0.lock().unwrap().media.clone();
        let before = followed.watermark().await;
        followed.world.bent.change(ill);
        followed.world.bent.change(|storage| storage.watermark_ms = Some(i64::MIN));
        for _ in 0..2 {
            let told = followed.scan().await.error.expect(what);
            assert!(told.contains(error), "{what}: {told}");
            followed.assert_whole(what).await;
            assert_eq!(followed.watermark().await, before, "{what}: what it tells is known until then");
        }
        followed.world.bent.change(|storage| *storage = Storage { media, ..Storage::default() });
        followed.world.bent.change(|storage| add(storage, 41, EVENING));
        assert_eq!(followed.scan().await.error, None, "{what}");
        assert_eq!(followed.world.names().await.len(), 41, "{what}");
        assert!(followed.watermark().await >= before);
    }
}

#[tokio::test]
async fn a_source_that_is_unreadable_in_a_small_part_says_so() {
    let mut followed = Followed::new().await;
    let before = followed.watermark().await;
    followed.world.bent.change(|storage| {
        storage.unreadable.insert("7.wav".into());
        add(storage, 41, EVENING);
        storage.unreadable.insert("41.wav".into());
        storage.watermark_ms = Some(i64::MIN);
    });
    for _ in 0..2 {
        let progress = followed.scan().await;
        assert_eq!((progress.error, progress.partial), (None, true));
        followed.assert_whole("not to be read isn't gone").await;
        assert_eq!(followed.watermark().await, before);
    }
    followed.world.bent.change(|storage| (storage.unreadable, storage.watermark_ms) = Default::default());
    assert!(!followed.scan().await.partial);
    assert_eq!(followed.world.names().await.len(), 41);
}

#[tokio::test]
async fn an_id_that_is_told_twice_is_one_recording_and_is_reported() {
    let mut followed = Followed::new().await;
    let twice = || Item::Media(Media { size: 5, version: "other".into(), ..medium(50) });
    let world = &followed.world;
    let items = vec![Item::Media(medium(50)), twice(), Item::Facts(facts(50, EVENING))];
    let ingested = world.catalog.ingest(&world.tenant, &world.tenant.sources[0], items, now()).await.unwrap();
    assert_eq!((ingested.learned, ingested.published), (1, 1));
    assert_eq!(ingested.complaints, ["the id \"50.wav\" was told twice in one batch"]);
    // In another batch: the storage is asked which it is.
    world.bent.change(|storage| add(storage, 50, EVENING));
    let ingested = world.catalog.ingest(&world.tenant, &world.tenant.sources[0], vec![twice()], now()).await;
    assert_eq!(ingested.unwrap().changed.len(), 1);
    assert_eq!(followed.scan().await.error, None);
    assert_eq!(followed.world.catalog.counts(7).await.unwrap().corrupt, 0);
}

/// All ids in upper case, nothing else changed.
fn shout(storage: &mut Storage) {
    let media = std::mem::take(&mut storage.media).into_values();
    let shouted = media.map(|media| Media { id: media.id.to_uppercase(), ..media });
    storage.media = shouted.map(|media| (media.id.clone(), media)).collect();
}

#[tokio::test]
async fn ids_that_change_case_are_the_same_recordings() {
    let mut followed = Followed::new().await;
    let names = followed.world.names().await;
    followed.world.bent.change(|storage| {
        storage.folds_case = true;
        shout(storage);
    });
    for scan in 1..=2 {
        let progress = followed.scan().await;
        assert_eq!((progress.error, progress.complaints), (None, 16 * scan), "a batch says so many at most");
        let complaint = progress.complaint.unwrap();
        assert!(complaint.contains(".WAV\"") && complaint.contains(".wav\""), "{complaint}");
        followed.assert_whole("the storage doesn't tell cases apart").await;
        assert_eq!(followed.world.names().await, names);
    }
    // Facts that are corrected reach them; and they may be as they were again.
    followed.world.bent.change(|storage| {
        let facts = storage.facts.get_mut("cdr-1").unwrap();
        facts.revision = 2;
        facts.values[2].1 = "Late".into();
        let media = std::mem::take(&mut storage.media).into_values();
        storage.media = media
            .map(|media| Media { id: media.id.to_lowercase(), ..media })
            .map(|media| (media.id.clone(), media))
            .collect();
    });
    let progress = followed.scan().await;
    assert_eq!((progress.error, progress.complaints), (None, 32));
    assert_eq!(followed.world.names().await, names);
}

#[tokio::test]
async fn an_id_in_another_case_is_another_recording_where_the_storage_tells_them_apart() {
    let mut followed = Followed::new().await;
    followed.world.bent.change(|storage| {
        let media = storage.media.remove("7.wav").unwrap();
        storage.media.insert("7.WAV".into(), Media { id: "7.WAV".into(), ..media });
    });
    let progress = followed.scan().await;
    assert!(progress.complaint.unwrap().contains("\"7.wav\""));
    assert_eq!(followed.world.catalog.counts(7).await.unwrap().missing, 1, "it was confirmed");
    followed.scan().await;
    assert_eq!(followed.world.names().await.len(), 40);
    assert_eq!(followed.world.catalog.counts(7).await.unwrap().published, 41);

    // With other content it is no other spelling.
    followed.world.bent.change(|storage| {
        storage
            .media
            .insert("8.WAV".into(), Media { id: "8.WAV".into(), version: "own".into(), ..medium(8) });
    });
    followed.scan().await;
    assert_eq!(followed.world.names().await.len(), 41);

    // A whole storage that is renamed looks like one that is unmounted.
    let mut followed = Followed::new().await;
    followed.world.bent.change(shout);
    for _ in 0..2 {
        assert!(followed.scan().await.error.unwrap().contains("40 of 40"));
        followed.assert_whole("renamed").await;
    }
}

#[tokio::test]
async fn a_source_whose_clock_is_wrong_completes_nothing_too_soon() {
    let mut followed = Followed::new().await;
    // Hours ahead: what it says of times to come isn't known yet.
    followed.world.bent.change(|storage| {
        storage.watermark_ms = Some(now() + 5 * HOUR);
        let young = Media { changed_ms: now() + 5 * HOUR, ..medium(50) };
        storage.media.insert(young.id.clone(), young);
    });
    assert_eq!(followed.scan().await.error, None);
    assert!(followed.watermark().await <= now());
    // It waits no longer for its facts than it would otherwise.
    let source = &followed.world.tenant.sources[0];
    let (due, _) =
        followed.world.catalog.due(&followed.world.tenant, source, now() + 24 * HOUR, None).await.unwrap();
    assert_eq!(due, ["50.wav"]);
    // Hours behind: that it knows less than before isn't true, and it gets no further.
    let before = followed.watermark().await;
    followed.world.bent.change(|storage| storage.watermark_ms = Some(now() - 5 * HOUR));
    assert_eq!(followed.scan().await.error, None);
    assert_eq!(followed.watermark().await, before);
    followed.assert_whole("a wrong clock").await;
}

#[tokio::test]
async fn a_gateway_whose_clock_was_ahead_starts_anew_when_it_is_set_back() {
    let mut followed = Followed::new().await;
    followed.clock = || now() + 24 * HOUR;
    followed.world.bent.change(|storage| storage.watermark_ms = Some(i64::MAX));
    followed.scan().await;
    assert!(followed.watermark().await > now() + 23 * HOUR);
    let world = &followed.world;
    let today = world.tenant.zone.day_of(now()).unwrap();
    let end = world.tenant.zone.end_of(today).unwrap();
    world.catalog.adopt(&world.tenant, now()).await.unwrap();
    world.catalog.publish_indexes(&world.tenant, now()).await.unwrap();

    // Set back, and the source down: the day ends, and nobody takes it for complete.
    followed.clock = now;
    followed.world.bent.change(|storage| storage.fails = Some(ErrorCode::Unavailable));
    assert!(followed.scan().await.error.is_some());
    let world = &followed.world;
    world.catalog.publish_indexes(&world.tenant, end).await.unwrap();
    assert_eq!(world.catalog.root_index(7, today).await.unwrap().unwrap().file.generation, 0);
    // Well again, it is believed, though it knows less than was thought.
    followed.world.bent.change(|storage| (storage.fails, storage.watermark_ms) = (None, Some(now() - HOUR)));
    assert_eq!(followed.scan().await.error, None);
    assert!(followed.watermark().await < now());
    followed.assert_whole("a clock that was set back").await;
}

#[tokio::test]
async fn an_index_that_was_written_by_a_clock_ahead_is_written_again_when_it_is_set_back() {
    let mut followed = Followed::new().await;
    let day = june(6);
    let ahead = now() + 24 * HOUR;
    followed.world.catalog.publish_indexes(&followed.world.tenant, ahead).await.unwrap();
    let before = followed.world.catalog.root_index(7, day).await.unwrap().unwrap().file;
    followed.world.bent.change(|storage| add(storage, 41, EVENING));
    followed.scan().await;
    followed.world.catalog.publish_indexes(&followed.world.tenant, now()).await.unwrap();
    let after = followed.world.catalog.root_index(7, day).await.unwrap().unwrap().file;
    assert!(after.generation > before.generation && after.length > before.length);
}
