//! Names that an earlier archive gave.

use std::collections::BTreeSet;

use proptest::prelude::*;
use recgate_plugin_api::Precision;

use super::*;
use crate::{
    catalog::{keys::Place, naming::Sequences, txn::Txn},
    layout::UtcSecond,
};

/// A medium with this name and the start that the name tells.
fn archived(n: u32, name: &str, start: i64) -> Media {
    Media {
        preferred_name: Some(name.into()),
        start_ms: Some(start),
        start_precision: Precision::Second,
        ..medium(n)
    }
}

/// The medium, with facts that tell this start.
fn add_archived(storage: &mut Storage, medium: Media, n: u32, start: i64) {
    storage.media.insert(medium.id.clone(), medium);
    storage.facts.insert(facts(n, start).id, facts(n, start));
}

/// A second source of the tenant.
fn second_source(world: &World) -> (Source, Arc<Bent>) {
    (Source { id: 4, name: "archive".into(), ..world.tenant.sources[0].clone() }, Arc::default())
}

#[tokio::test]
async fn names_of_an_archive_are_kept_for_ever() {
    let world = World::new().await;
    world.bent.change(|storage| {
        add_archived(storage, archived(1, "R201606070030009000.wav", EVENING), 1, EVENING);
        add_archived(storage, archived(2, "R20160607003000.wav", EVENING), 2, EVENING);
        // Whatever the media type says: the name is kept whole.
        let mp3 = Media { media_type: "audio/wav".into(), ..archived(3, "R201606070030000003.mp3", EVENING) };
        add_archived(storage, mp3, 3, EVENING);
        add_archived(storage, archived(4, "R201606070030004294967295.wav", EVENING), 4, EVENING);
    });
    assert_eq!(world.scan().await.error, None);
    let kept = [
        "S20160607/R201606070030000000.wav",
        "S20160607/R201606070030000003.mp3",
        "S20160607/R201606070030009000.wav",
        "S20160607/R201606070030004294967295.wav",
    ];
    assert_eq!(world.names().await, kept);

    // Others fill the gaps, from the lowest on, and step over what is taken.
    world.bent.change(|storage| (5..10).for_each(|n| add(storage, n, EVENING)));
    world.scan().await;
    let all: Vec<String> = [0, 1, 2, 3, 4, 5, 6, 9000]
        .into_iter()
        .map(|n| format!("S20160607/R20160607003000{n:04}.{}", if n == 3 { "mp3" } else { "wav" }))
        .chain([kept[3].to_owned()])
        .collect();
    assert_eq!(world.names().await, all);

    let world = world.restart().await;
    world.bent.change(|storage| {
        storage.media.remove("5.wav");
    });
    world.scan().await;
    world.bent.change(|storage| add(storage, 10, EVENING));
    world.scan().await;
    let names = world.names().await;
    assert!(
        names.contains(&"S20160607/R201606070030000007.wav".to_owned()),
        "a gone one's name is not given"
    );
    assert_eq!(names.len(), all.len());

    let World { dir, tenant, bent, catalog, governance } = world;
    drop((catalog, governance));
    std::fs::remove_file(dir.path().join("catalog.redb")).unwrap();
    let (catalog, governance) = open(dir.path()).await;
    let world = World { dir, tenant, bent, catalog, governance };
    world.bent.change(|storage| add(storage, 11, EVENING));
    world.scan().await;
    let rebuilt = world.names().await;
    assert!(names.iter().all(|name| rebuilt.contains(name)));
    assert!(rebuilt.contains(&"S20160607/R201606070030000008.wav".to_owned()), "{rebuilt:?}");
}

#[tokio::test]
async fn a_name_that_somebody_has_is_not_given_again() {
    let world = World::new().await;
    world.bent.change(|storage| (1..=2).for_each(|n| add(storage, n, EVENING)));
    world.scan().await;
    let (source, archive) = second_source(&world);
    archive.change(|storage| {
        add_archived(storage, archived(1, "R201606070030000000.wav", EVENING), 1, EVENING);
        add_archived(storage, archived(3, "R201606070030000003.wav", EVENING), 3, EVENING);
        // Two that bring the same name, as copies in another case do.
        add_archived(storage, archived(4, "R201606070030000003.wav", EVENING), 4, EVENING);
    });
    assert_eq!(world.scan_of(&source, &archive).await.error, None);
    let name_of = async |id: &str| {
        let (rows, _) = world.catalog.recordings(7, utc_june(7), None).await.unwrap();
        for (place, _) in rows {
            let recording = world.catalog.recording(7, place).await.unwrap().unwrap();
            if recording.frozen.source == 4 && recording.frozen.media == id {
                return place.sequence;
            }
        }
        panic!("{id} has no name")
    };
    assert_eq!((name_of("1.wav").await, name_of("3.wav").await, name_of("4.wav").await), (2, 3, 4));
    // Whoever comes later steps over all of them; and who came first keeps what they have.
    let before = world.names().await;
    world.bent.change(|storage| add(storage, 9, EVENING));
    world.scan().await;
    world.scan_of(&source, &archive).await;
    let after = world.names().await;
    assert_eq!(after[..5], before);
    assert_eq!(after[5..], ["S20160607/R201606070030000005.wav"]);
}

#[tokio::test]
async fn a_name_counts_where_it_tells_the_second_of_the_start() {
    let world = World::new().await;
    let hour = 3_600_000;
    world.bent.change(|storage| {
        // The agent answered 8 s after the recording began, past midnight of the tenant's: the medium knows best.
        let midnight = EVENING + 13 * hour / 2;
        add_archived(storage, archived(1, "R201606070659550007.wav", midnight - 5000), 1, midnight + 3000);
        // A name of another second, of a medium that tells no start of its own.
        let bare = Media { preferred_name: Some("R201606070029590007.wav".into()), ..medium(2) };
        add_archived(storage, bare, 2, EVENING);
        // The same second, though the medium tells none.
        let bare = Media { preferred_name: Some("R201606070130000007.wav".into()), ..medium(3) };
        add_archived(storage, bare, 3, EVENING + hour);
        // A start that is only known to the minute.
        let minute = Media {
            start_precision: Precision::Minute,
            ..archived(4, "R201606070230000007.wav", EVENING + 2 * hour)
        };
        add_archived(storage, minute, 4, EVENING + 2 * hour + 1000);
        for (n, name) in
            ["x.wav", "R2016.wav", "R20160607033000.W", "R99990607033000.wav"].into_iter().enumerate()
        {
            let n = u32::try_from(n).unwrap() + 5;
            add_archived(storage, archived(n, name, EVENING + 3 * hour), n, EVENING + 3 * hour);
        }
    });
    assert_eq!(world.scan().await.error, None);
    assert_eq!(
        world.names().await,
        [
            "S20160607/R201606070030000000.wav",
            "S20160607/R201606070130000007.wav",
            "S20160607/R201606070230010000.wav",
            "S20160607/R201606070330000000.wav",
            "S20160607/R201606070330000001.wav",
            "S20160607/R201606070330000002.wav",
            "S20160607/R201606070330000003.wav",
            "S20160607/R201606070659550007.wav",
        ]
    );
    world.catalog.publish_indexes(&world.tenant, now()).await.unwrap();
    let index = world.index(IndexPart::Root(june(7))).await;
    assert!(index.contains("2016-06-07 00:00:03") && index.contains("R201606070659550007.wav"), "{index}");
}

#[tokio::test]
async fn a_medium_that_brings_its_name_is_no_orphan() {
    let world = World::new().await;
    world.bent.change(|storage| {
        let one = archived(1, "R201606070030000023.wav", EVENING);
        let two =
            Media { start_precision: Precision::Unknown, ..archived(2, "R201606070030000024.wav", EVENING) };
        let young = Media { changed_ms: now() - 1000, ..archived(3, "R201606070030000025.wav", EVENING) };
        let growing = Media { state: MediaState::Growing, ..archived(4, "R201606070030000026.wav", EVENING) };
        for medium in [one, two, young, growing] {
            storage.media.insert(medium.id.clone(), medium);
        }
    });
    world.scan().await;
    assert_eq!(world.names().await, ["S20160607/R201606070030000023.wav"]);
    let counts = world.catalog.counts(7).await.unwrap();
    assert_eq!((counts.published, counts.orphans, counts.learned), (1, 1, 3));
    // Facts that come later change its cells and not its name.
    world.bent.change(|storage| {
        storage.facts.insert("cdr-1".into(), facts(1, EVENING + 1500));
    });
    world.scan().await;
    assert_eq!(world.names().await, ["S20160607/R201606070030000023.wav"]);
    world.catalog.publish_indexes(&world.tenant, now()).await.unwrap();
    assert!(world.index(IndexPart::Root(june(6))).await.contains("Agent 1"));
}

#[tokio::test]
async fn what_was_given_and_came_to_nothing_is_given_once_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let store = RedbStore::open(&dir.path().join("catalog.redb")).unwrap();
    let (earlier, second) =
        (UtcSecond::from_unix_ms(EVENING).unwrap(), UtcSecond::from_unix_ms(EVENING + 5000).unwrap());
    let (mut sequences, mut given) = (Sequences::default(), Vec::new());
    // A batch that is given up: nothing of it is written.
    sequences.give(&mut Txn::new(&store), 7, second, None).await.unwrap();
    let mut txn = Txn::new(&store);
    for (second, preferred) in [
        (earlier, None),
        (second, None),
        (second, Some(5)),
        (second, Some(5)),
        (second, Some(1)),
        (second, None),
    ] {
        let sequence = sequences.give(&mut txn, 7, second, preferred).await.unwrap();
        txn.put(keys::recording(7, Place::new(second, sequence)), &sequence).unwrap();
        assert!(!given.contains(&(second, sequence)), "{second:?} {sequence}, after {given:?}");
        given.push((second, sequence));
    }
}

/// In which of a few seconds what is asked for, whether all that was remembered is forgotten before, and whether what was
/// given goes to the store then.
fn any_history() -> impl Strategy<Value = Vec<(u8, Option<u32>, bool, bool)>> {
    let preferred =
        prop_oneof![Just(None), (0..12_u32).prop_map(Some), Just(Some(u32::MAX)), Just(Some(u32::MAX - 1)),];
    let step = (0..5_u8, preferred, prop::bool::weighted(0.1), prop::bool::weighted(0.2));
    proptest::collection::vec(step, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sequences_are_the_preferred_or_the_lowest_free_and_never_given_twice(history in any_history()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let store = RedbStore::open(&dir.path().join("catalog.redb")).unwrap();
            let mut sequences = Sequences::default();
            let mut txn = Txn::new(&store);
            let mut of_seconds: [BTreeSet<u32>; 5] = std::array::from_fn(|_| BTreeSet::new());
            for (second, preferred, forget, commit) in history {
                let taken = &mut of_seconds[usize::from(second)];
                // Neighbours, and one that is the last of its day.
                let start = if second == 4 { EVENING.div_euclid(86_400_000) * 86_400_000 - 1 } else { EVENING };
                let second = UtcSecond::from_unix_ms(start + i64::from(second % 4) * 2000).unwrap();
                if forget {
                    sequences.clear();
                }
                let given = sequences.give(&mut txn, 7, second, preferred).await.unwrap();
                let lowest = (0..).find(|n| !taken.contains(n)).unwrap();
                assert_eq!(given, preferred.filter(|n| !taken.contains(n)).unwrap_or(lowest));
                assert!(taken.insert(given));
                txn.put(keys::recording(7, Place::new(second, given)), &given).unwrap();
                // Of another second, tenant and day.
                txn.put(keys::recording(8, Place::new(second, given & 7)), &given).unwrap();
                if commit {
                    let done = std::mem::replace(&mut txn, Txn::new(&store));
                    store.commit(crate::state::Batch::of(done.into_prepared().rows)).await.unwrap();
                }
            }
        });
    }
}
