//! Facts in every order: before their media, after them, twice, corrected, contradictory, and without any.

use proptest::prelude::*;

use super::*;

/// Facts with these keys and values, all of one call.
fn told(id: &str, revision: u64, keys: &[(JoinKind, &str)], values: &[(&str, &str)]) -> Facts {
    let values = values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Facts {
        id: id.into(),
        revision,
        keys: keys.iter().map(|(kind, value)| JoinKey { kind: *kind, value: (*value).into() }).collect(),
        values: [(fact::STARTED_AT.to_owned(), EVENING.to_string())].into_iter().chain(values).collect(),
        ..Facts::default()
    }
}

/// A medium with two keys, the weaker of them first.
fn with_two_keys(n: u32) -> Media {
    let conversation = JoinKey { kind: JoinKind::ConversationId, value: format!("c-{n}") };
    let keys = [conversation].into_iter().chain(medium(n).keys).collect();
    Media { keys, ..medium(n) }
}

async fn ingest(world: &World, items: Vec<Item>) -> Ingested {
    world.catalog.ingest(&world.tenant, &world.tenant.sources[0], items, now()).await.unwrap()
}

/// The cells of all published recordings, by the ids of their media.
async fn cells(world: &World) -> BTreeMap<String, Details> {
    let mut cells = BTreeMap::new();
    let (folders, _) = world.catalog.folders(7, None).await.unwrap();
    for (day, _) in folders {
        let (rows, _) = world.catalog.recordings(7, day, None).await.unwrap();
        for (place, _) in rows {
            let recording = world.catalog.recording(7, place).await.unwrap().unwrap();
            cells.insert(recording.frozen.media, recording.details);
        }
    }
    cells
}

async fn agent(world: &World) -> Option<String> {
    let cells = cells(world).await;
    cells.get("1.wav").and_then(|details| details.values.get(fact::AGENT_NAME).cloned())
}

/// A world in which so many sets of facts may wait for media.
async fn bounded(most: u64) -> World {
    let mut world = World::new().await;
    Arc::get_mut(&mut world.catalog).unwrap().unmatched_max = most;
    world
}

async fn unmatched(world: &World) -> UnmatchedRow {
    world.catalog.unmatched(7, 3).await.unwrap()
}

const UUID: (JoinKind, &str) = (JoinKind::RecordingUuid, "1");
const CALL: (JoinKind, &str) = (JoinKind::ConversationId, "c-1");

#[tokio::test]
async fn of_contradictory_facts_the_same_ones_win_in_every_order() {
    let by =
        |id, revision, keys: &[_], name| Item::Facts(told(id, revision, keys, &[(fact::AGENT_NAME, name)]));
    for (what, expected, contradictory) in [
        ("one key and revision: the id", "A", [by("a", 1, &[UUID], "A"), by("b", 1, &[UUID], "B")]),
        ("one key: the revision", "B", [by("a", 1, &[UUID], "A"), by("b", 2, &[UUID], "B")]),
        (
            "the stronger key, whatever the revision",
            "B",
            [by("a", 9, &[CALL], "A"), by("b", 1, &[UUID], "B")],
        ),
        ("the strongest of several keys", "B", [by("a", 1, &[UUID], "A"), by("b", 2, &[CALL, UUID], "B")]),
    ] {
        for turned in [false, true] {
            for media_first in [false, true] {
                let world = World::new().await;
                let mut items = contradictory.to_vec();
                if turned {
                    items.reverse();
                }
                items.insert(if media_first { 0 } else { 2 }, Item::Media(with_two_keys(1)));
                for item in items {
                    ingest(&world, vec![item]).await;
                }
                assert_eq!(agent(&world).await.as_deref(), Some(expected), "{what}, {turned} {media_first}");
            }
        }
    }
}

#[tokio::test]
async fn that_the_source_deleted_a_recording_is_a_fact_and_no_more() {
    let world = World::new().await;
    let deleted = told("a", 1, &[UUID], &[("deleted", "true")]);
    world.bent.change(|storage| {
        storage.media.insert(medium(1).id, medium(1));
        storage.facts.insert(deleted.id.clone(), deleted);
    });
    assert_eq!(world.scan().await.error, None);
    assert_eq!(world.names().await.len(), 1, "its medium is there, and that decides");
    assert_eq!(cells(&world).await["1.wav"].values["deleted"], "true");
}

#[tokio::test]
async fn facts_of_one_revision_that_change_are_reported_and_the_last_word_counts() {
    let world = World::new().await;
    let named = |name| Item::Facts(told("a", 1, &[UUID], &[(fact::AGENT_NAME, name)]));
    ingest(&world, vec![Item::Media(medium(1)), named("A")]).await;
    assert_eq!(ingest(&world, vec![named("A")]).await, Ingested::default(), "told twice");
    let again = ingest(&world, vec![named("B")]).await;
    assert!(again.complaints[0].contains("same revision"), "{again:?}");
    assert_eq!(agent(&world).await.as_deref(), Some("B"));
}

#[tokio::test]
async fn more_facts_and_media_of_one_key_than_are_kept_are_reported_once() {
    let world = World::new().await;
    let many = |n: usize| Item::Facts(told(&format!("f-{n:03}"), 1, &[UUID], &[("n", &n.to_string())]));
    let all: Vec<Item> = [Item::Media(medium(1))].into_iter().chain((0..65).map(many)).collect();
    let first = ingest(&world, all.clone()).await;
    assert_eq!((first.published, first.complaints.len()), (1, 1), "{first:?}");
    assert!(first.complaints[0].contains("more than 64 share a key"), "{first:?}");
    assert_eq!(ingest(&world, all).await, Ingested::default());

    let shared = |n: u32| {
        Item::Media(Media { keys: vec![JoinKey { kind: CALL.0, value: "c-9".into() }], ..medium(n) })
    };
    let media = ingest(&world, (100..165).map(shared).collect()).await;
    assert!(media.complaints == ["media \"164.wav\": more than 64 share a key"], "{media:?}");
    // The facts of the call find those that there is room for at once, and the last one when its wait is over.
    let call = told("call", 1, &[(CALL.0, "c-9")], &[]);
    assert_eq!(ingest(&world, vec![Item::Facts(call)]).await.published, 64);
    let source = &world.tenant.sources[0];
    let late = world.catalog.process_due(&world.tenant, source, &["164.wav".into()], now()).await.unwrap();
    assert_eq!(late.published, 1);
}

#[tokio::test]
async fn facts_that_join_no_recording_are_kept_within_a_bound_the_newest_of_them() {
    let world = bounded(10).await;
    let fill = |storage: &mut Storage, calls: std::ops::Range<u32>| {
        for n in calls {
            let facts = facts(n, EVENING + i64::from(n) * 1000);
            storage.facts.insert(facts.id.clone(), facts);
        }
    };
    world.bent.change(|storage| {
        (1..=3).for_each(|n| add(storage, n, EVENING));
        fill(storage, 10..30);
        let startless = Facts { values: Vec::new(), ..facts(99, 0) };
        storage.facts.insert(startless.id.clone(), startless);
    });
    let progress = world.scan().await;
    assert_eq!((progress.error, progress.left_out), (None, 11), "ten of the newest are kept");
    assert_eq!(unmatched(&world).await.kept, 10);
    assert_eq!(world.names().await.len(), 3, "those that have joined don't count");
    // Told again, those that were dropped don't come in and go.
    let progress = world.scan().await;
    assert_eq!((progress.left_out, unmatched(&world).await.kept), (11, 10));

    // The media of one that was kept, and of one that wasn't: its facts are told again once it is there.
    world.bent.change(|storage| {
        storage.media.insert(medium(29).id, medium(29));
        storage.media.insert(medium(12).id, medium(12));
    });
    world.scan().await;
    assert_eq!((world.names().await.len(), unmatched(&world).await.kept), (5, 9));
    // A newer one takes the room of an older one.
    world.bent.change(|storage| fill(storage, 30..33));
    let progress = world.scan().await;
    assert_eq!((progress.left_out, unmatched(&world).await.kept), (12, 10));
    // With much room they are taken in again.
    world.bent.change(|storage| {
        for n in 22..33 {
            storage.media.insert(medium(n).id, medium(n));
        }
    });
    world.scan().await;
    assert_eq!(unmatched(&world).await, UnmatchedRow::default());
    let world = world.restart().await;
    assert_eq!(world.scan().await.left_out, 0);
    assert_eq!((unmatched(&world).await.kept, world.names().await.len()), (12, 15));
    // Facts stay matched when their media goes.
    world.bent.change(|storage| drop(storage.media.remove("1.wav")));
    world.scan().await;
    assert_eq!(unmatched(&world).await.kept, 12);
}

#[tokio::test]
async fn facts_without_end_in_one_scan_are_bounded_too() {
    let world = bounded(2).await;
    let call = |n: u32| Item::Facts(facts(n, EVENING));
    let flood = ingest(&world, (0..100).map(call).collect()).await;
    assert_eq!((flood.left_out, unmatched(&world).await.kept), (60, 40));
    assert_eq!(world.catalog.drop_unmatched(7, 3).await.unwrap(), 38);
    // What was dropped leaves nothing behind: its medium, told now, has no facts until they are told again.
    ingest(&world, vec![Item::Media(medium(0))]).await;
    assert!(world.names().await.is_empty());
    ingest(&world, vec![call(0)]).await;
    assert_eq!(world.names().await.len(), 1);
    assert_eq!(unmatched(&world).await.kept, 2);
}

#[tokio::test]
async fn facts_whose_keys_are_corrected_join_or_wait_on() {
    let world = World::new().await;
    ingest(&world, vec![Item::Media(medium(1)), Item::Facts(told("a", 1, &[(UUID.0, "x")], &[]))]).await;
    ingest(&world, vec![Item::Facts(told("a", 2, &[(UUID.0, "y")], &[]))]).await;
    assert_eq!((unmatched(&world).await.kept, world.names().await.len()), (1, 0));
    ingest(&world, vec![Item::Facts(told("a", 3, &[UUID], &[]))]).await;
    assert_eq!((unmatched(&world).await.kept, world.names().await.len()), (0, 1));
    ingest(&world, vec![Item::Facts(told("a", 4, &[(UUID.0, "z")], &[]))]).await;
    assert_eq!(unmatched(&world).await.kept, 0, "it has joined a recording");
}

/// What a source tells about three media: all revisions of some facts.
fn any_facts() -> impl Strategy<Value = Vec<Facts>> {
    let key = prop_oneof![
        (1..=3_u32).prop_map(|n| JoinKey { kind: JoinKind::RecordingUuid, value: n.to_string() }),
        (1..=3_u32).prop_map(|n| JoinKey { kind: JoinKind::ConversationId, value: format!("c-{n}") }),
        Just(JoinKey { kind: JoinKind::ObjectKey, value: "nobody's".into() }),
    ];
    let values = proptest::collection::btree_map("[a-c]", "[x-z]{1,2}", 0..3);
    let revision = (proptest::collection::vec(key, 0..3), values, -1..2_i64, prop::bool::weighted(0.15));
    let revisions = proptest::collection::vec(revision, 1..4);
    proptest::collection::vec(revisions, 1..5).prop_map(|all| {
        let mut facts = Vec::new();
        for (id, revisions) in all.into_iter().enumerate() {
            for (revision, (keys, values, later, gone)) in (1..).zip(revisions) {
                let start = (fact::STARTED_AT.to_owned(), (EVENING + later * 1000).to_string());
                let values = values.into_iter().chain([start]).collect();
                facts.push(Facts { id: format!("f-{id}"), revision, gone, keys, values });
            }
        }
        facts
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn any_order_and_repetition_ends_in_the_same_cells(
        facts in any_facts(),
        order in proptest::collection::vec((any::<prop::sample::Index>(), 0..4_usize), 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // They grow until all is told, so that publication comes after it.
            let growing = |n| Item::Media(Media { state: MediaState::Growing, ..with_two_keys(n) });
            let mut items: Vec<Item> = facts.into_iter().map(Item::Facts).collect();
            items.extend((1..=3).map(growing));
            let once = World::new().await;
            ingest(&once, items.clone()).await;

            let mixed = World::new().await;
            let mut batch = Vec::new();
            // Some of them in some order, and then all of them from the last to the first.
            let some = order.iter().map(|(at, together)| (at.get(&items).clone(), *together));
            for (item, together) in some.chain(items.iter().rev().map(|item| (item.clone(), 1))) {
                batch.push(item);
                if batch.len() > together {
                    ingest(&mixed, std::mem::take(&mut batch)).await;
                }
            }
            ingest(&mixed, batch).await;
            for world in [&once, &mixed] {
                ingest(world, (1..=3).map(|n| Item::Media(with_two_keys(n))).collect()).await;
            }
            assert_eq!(cells(&mixed).await, cells(&once).await);
            assert_eq!(mixed.catalog.counts(7).await.unwrap(), once.catalog.counts(7).await.unwrap());
        });
    }
}
