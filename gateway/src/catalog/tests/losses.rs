//! What a source has lost or changed, and what only looks so.

use super::*;

#[tokio::test]
async fn media_that_is_copied_back_is_not_taken_for_changed() {
    let world = World::new().await;
    world.bent.change(|storage| (1..=40).for_each(|n| add(storage, n, EVENING)));
    world.scan().await;
    world.bent.change(|storage| {
        storage.media.remove("1.wav");
    });
    world.scan().await;
    let condition = async || {
        let (rows, _) = world.catalog.recordings(7, utc_june(7), None).await.unwrap();
        let place = rows.iter().find(|(_, row)| row.size == 1001).unwrap().0;
        world.catalog.recording(7, place).await.unwrap().unwrap().listed.condition
    };
    assert_eq!(condition().await, Condition::Missing);

    let whole = Media { version: "half-1".into(), ..medium(1) };
    for state in [MediaState::Growing, MediaState::Uploading] {
        let half = Media { state, ..whole.clone() };
        world.bent.change(|storage| {
            storage.media.insert("1.wav".into(), half.clone());
        });
        assert_eq!(world.scan().await.error, None);
        assert_eq!(condition().await, Condition::Missing, "told as {state:?}");
        // It looked whole when the scan read it, and is being written when it is asked for.
        world.bent.change(|storage| {
            storage.media.insert("1.wav".into(), whole.clone());
            storage.asked.insert("1.wav".into(), half);
        });
        assert_eq!(world.scan().await.error, None);
        assert_eq!(condition().await, Condition::Missing, "{state:?} when asked for");
        world.bent.change(|storage| storage.asked.clear());
    }
    world.bent.change(|storage| add(storage, 1, EVENING));
    world.scan().await;
    assert_eq!(condition().await, Condition::Sound);
    assert_eq!(world.names().await.len(), 40);
}

#[tokio::test]
async fn a_storage_that_shows_nothing_completes_no_day_and_decides_nothing() {
    for unmatched in [Unmatched::Orphan, Unmatched::Publish] {
        let world = World::with(unmatched).await;
        world.bent.change(|storage| {
            (1..=100).for_each(|n| add(storage, n, EVENING));
            storage.media.insert("101.wav".into(), medium(101));
            storage.watermark_ms = Some(EVENING);
        });
        world.scan().await;
        // This scan doesn't end, so nothing is decided about one more without facts.
        world.bent.change(|storage| {
            storage.media.insert("102.wav".into(), medium(102));
            storage.fails = Some(ErrorCode::Unavailable);
        });
        world.scan().await;
        let before = world.catalog.counts(7).await.unwrap();
        assert_eq!(before.published + before.learned, 102);
        let source = world.catalog.source(7, 3).await.unwrap();
        assert_eq!(source.watermark_ms, EVENING);

        // The disk isn't mounted. The scan ends well, and the empty folder is up to date.
        let disk = {
            let mut storage = world.bent.0.lock().unwrap();
            storage.fails = None;
            storage.watermark_ms = None;
            std::mem::take(&mut storage.media)
        };
        let error = world.scan().await.error.unwrap();
        assert!(error.contains("102 of 102"), "{error}");
        assert_eq!(world.catalog.counts(7).await.unwrap(), before, "{unmatched:?}");
        assert_eq!(world.catalog.source(7, 3).await.unwrap(), source);
        world.catalog.publish_indexes(&world.tenant, now()).await.unwrap();
        assert!(world.catalog.root_index(7, june(6)).await.unwrap().unwrap().incomplete);

        world.bent.change(|storage| storage.media = disk);
        assert_eq!(world.scan().await.error, None);
        let after = world.catalog.counts(7).await.unwrap();
        match unmatched {
            Unmatched::Orphan => assert_eq!((after.published, after.orphans), (100, 2)),
            Unmatched::Publish => assert_eq!((after.published, after.orphans), (102, 0)),
        }
        world.catalog.publish_indexes(&world.tenant, now() + 301_000).await.unwrap();
        assert!(!world.catalog.root_index(7, june(6)).await.unwrap().unwrap().incomplete);
    }
}

#[tokio::test]
async fn nothing_is_decided_about_media_that_a_scan_has_not_told() {
    let world = World::with(Unmatched::Publish).await;
    world.bent.change(|storage| {
        (1..=40).for_each(|n| add(storage, n, EVENING));
        storage.media.insert("41.wav".into(), medium(41));
        storage.fails = Some(ErrorCode::Unavailable);
    });
    world.scan().await;
    // The next scan doesn't tell it, though it is there.
    world.bent.change(|storage| {
        storage.fails = None;
        let untold = storage.media.remove("41.wav").unwrap();
        storage.asked.insert("41.wav".into(), untold);
    });
    assert_eq!(world.scan().await.error, None);
    let counts = world.catalog.counts(7).await.unwrap();
    assert_eq!((counts.published, counts.learned), (40, 1));
    world.bent.change(|storage| storage.media.extend(std::mem::take(&mut storage.asked)));
    world.scan().await;
    assert_eq!(world.names().await.len(), 41);
}

#[tokio::test]
async fn one_that_can_not_be_asked_for_keeps_no_others_from_being_missing() {
    let world = World::new().await;
    world.bent.change(|storage| (1..=200).for_each(|n| add(storage, n, EVENING)));
    world.scan().await;
    world.bent.change(|storage| {
        storage.media.retain(|_, media| !(1001..=1005).contains(&media.size));
        storage.unasked.insert("3.wav".into());
    });
    let error = world.scan().await.error.unwrap();
    assert!(error.contains("as the test wants"), "{error}");
    assert_eq!(world.catalog.counts(7).await.unwrap().missing, 4);
    world.bent.change(|storage| storage.unasked.clear());
    assert_eq!(world.scan().await.error, None);
    assert_eq!(world.catalog.counts(7).await.unwrap().missing, 5);
}

#[tokio::test]
async fn media_that_changes_in_masses_is_not_believed_to_have_changed() {
    let world = World::new().await;
    world.bent.change(|storage| (1..=100).for_each(|n| add(storage, n, EVENING)));
    world.scan().await;
    let touch = |numbers: std::ops::RangeInclusive<u32>| {
        world.bent.change(|storage| {
            for n in numbers {
                storage.media.get_mut(&format!("{n}.wav")).unwrap().version = format!("{n}-2");
            }
        });
    };
    let corrupt = async || world.catalog.counts(7).await.unwrap().corrupt;
    touch(1..=5);
    assert_eq!(world.scan().await.error, None);
    assert_eq!(corrupt().await, 5);
    // Those of before count: a folder that is touched slowly isn't changed either.
    touch(6..=7);
    let error = world.scan().await.error.unwrap();
    assert!(error.contains("7 of 100") && error.contains("mounted"), "{error}");
    assert_eq!(corrupt().await, 5);
    touch(8..=100);
    assert!(world.scan().await.error.unwrap().contains("100 of 100"));
    assert_eq!(corrupt().await, 5);

    world.bent.change(|storage| (1..=100).for_each(|n| add(storage, n, EVENING)));
    assert_eq!(world.scan().await.error, None);
    assert_eq!(corrupt().await, 0);
}

#[tokio::test]
async fn what_vanishes_without_a_name_is_counted_no_more() {
    let mut world = World::new().await;
    let (orphan, young) = (medium(41), Media { changed_ms: now() - 1000, ..medium(42) });
    world.bent.change(|storage| {
        (1..=40).for_each(|n| add(storage, n, EVENING));
        storage.media.extend([orphan, young].map(|media| (media.id.clone(), media)));
    });
    world.scan().await;
    let counts = world.catalog.counts(7).await.unwrap();
    assert_eq!((counts.learned, counts.orphans), (2, 1));
    let mut uids = Vec::new();
    for id in ["41.wav", "42.wav"] {
        uids.push(world.catalog.describe(7, 3, id).await.unwrap().unwrap().found.uid);
    }

    world.bent.change(|storage| storage.media.retain(|_, media| media.size <= 1040));
    assert_eq!(world.scan().await.error, None);
    for _ in 0..2 {
        let counts = world.catalog.counts(7).await.unwrap();
        assert_eq!((counts.published, counts.learned, counts.orphans), (40, 0, 0));
        assert!(world.governance.orphans(7, None).await.unwrap().0.is_empty());
        let bounds = Bounds { found: 100, examined: 100 };
        let all = Search { any_state: true, ..Search::default() };
        let unnamed = Search { state: Some(State::Learned), ..Search::default() };
        for (search, found) in [(all, 40), (unnamed, 0)] {
            let page = world.catalog.search(7, &search, None, bounds).await.unwrap();
            assert_eq!(page.found.len(), found);
        }
        world = world.rebuilt().await;
    }

    // Both come back, one with its uid written beside it.
    world.bent.change(|storage| {
        add(storage, 41, EVENING);
        add(storage, 42, EVENING);
        storage.media.get_mut("42.wav").unwrap().uid = Some(*uids[1].as_bytes());
    });
    assert_eq!(world.scan().await.error, None);
    for _ in 0..2 {
        let counts = world.catalog.counts(7).await.unwrap();
        assert_eq!((counts.published, counts.learned, counts.orphans), (42, 0, 0));
        for (id, uid) in ["41.wav", "42.wav"].into_iter().zip(&uids) {
            assert_eq!(world.catalog.describe(7, 3, id).await.unwrap().unwrap().found.uid, *uid);
        }
        world = world.rebuilt().await;
    }
}

#[tokio::test]
async fn what_vanishes_while_the_catalog_is_lost_is_noticed() {
    let world = World::new().await;
    world.bent.change(|storage| {
        (1..=40).for_each(|n| add(storage, n, EVENING));
        storage.media.insert("41.wav".into(), medium(41));
    });
    world.scan().await;
    let world = world.rebuilt().await;
    let disk = std::mem::take(&mut world.bent.0.lock().unwrap().media);
    assert!(
        world.scan().await.error.unwrap().contains("41 of 41"),
        "an unmounted disk is one at first sight, too"
    );
    world.bent.change(|storage| {
        storage.media = disk;
        storage.media.retain(|_, media| ![1001, 1041].contains(&media.size));
    });
    assert_eq!(world.scan().await.error, None);
    let counts = world.catalog.counts(7).await.unwrap();
    assert_eq!((counts.published, counts.missing, counts.learned), (40, 1, 0));
}

#[tokio::test]
async fn what_an_administrator_accepts_as_lost_is_believed_once() {
    let world = World::new().await;
    world.bent.change(|storage| (1..=100).for_each(|n| add(storage, n, EVENING)));
    world.scan().await;
    let scan = |before: Progress| world.scan_from(&world.tenant.sources[0], &world.bent, before);
    let missing = async || world.catalog.counts(7).await.unwrap().missing;
    world.bent.change(|storage| storage.media.retain(|_, media| media.size > 1010));
    let unbelieved = scan(Progress::default()).await;
    assert_eq!(unbelieved.unbelieved_loss, Some(10));
    let error = unbelieved.error.clone().unwrap();
    assert!(error.contains("10 of 100") && error.contains("recgate source accept-loss acme/bent"), "{error}");

    // The word is about ten: the disk that is unmounted now lacks more.
    let accepted = Progress { accepted_loss: Some(10), ..unbelieved };
    let disk = std::mem::take(&mut world.bent.0.lock().unwrap().media);
    let unmounted = scan(accepted.clone()).await;
    assert!(unmounted.error.unwrap().contains("100 of 100"));
    assert_eq!((unmounted.unbelieved_loss, unmounted.accepted_loss), (Some(100), None));
    assert_eq!(missing().await, 0);

    world.bent.change(|storage| storage.media = disk);
    let well = scan(accepted).await;
    assert_eq!((well.error, well.unbelieved_loss, well.accepted_loss), (None, None, None));
    assert_eq!(missing().await, 10);
    // The word was taken.
    world.bent.change(|storage| storage.media.retain(|_, media| media.size > 1020));
    assert!(scan(Progress::default()).await.error.unwrap().contains("10 of 90"));

    // Everything may go as well, and a word that isn't needed any more is none.
    world.bent.change(|storage| storage.media.clear());
    let all = scan(Progress { accepted_loss: Some(90), ..Progress::default() }).await;
    assert_eq!((all.error, missing().await), (None, 100));
    world.bent.change(|storage| (1..=100).for_each(|n| add(storage, n, EVENING)));
    let back = scan(Progress { accepted_loss: Some(90), ..Progress::default() }).await;
    assert_eq!((back.error, back.accepted_loss, missing().await), (None, None, 0));
}
