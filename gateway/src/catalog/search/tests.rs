//! Searches against a model in memory: each page is a part of what the model finds, and together they are all of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    catalog::{
        rows::{Details, DueRow, Frozen, Listed, SourceRow, Told},
        tests::{EVENING, World, add, medium, open},
    },
    state::Batch,
};

const TENANT: u32 = 7;

/// A recording of the model.
#[derive(Debug, Clone)]
struct Known {
    named: bool,
    start_ms: i64,
    condition: Condition,
    orphan: bool,
    source: u32,
    agent: &'static str,
    number: &'static str,
    called: &'static str,
    queue: &'static str,
    transaction: &'static str,
}

fn known() -> impl Strategy<Value = Known> {
    let condition = prop_oneof![
        4 => Just(Condition::Sound),
        1 => Just(Condition::Missing),
        1 => Just(Condition::Corrupt)
    ];
    // Few seconds, so that many share one, around a midnight of UTC.
    let start = (-3_i64..3, 0_i64..1000).prop_map(|(second, ms)| 1_465_257_600_000 + second * 1000 + ms);
    (
        (any::<bool>(), start, condition, any::<bool>(), 1_u32..4),
        (
            prop::sample::select(vec!["Björn Ågren", "Ann", "", "ÄNNE"]),
            prop::sample::select(vec!["+1 202 555-0143", "12025550199", ""]),
            prop::sample::select(vec!["1001", "00 44 20", ""]),
            prop::sample::select(vec!["Support", "sales", ""]),
            prop::sample::select(vec!["7", "77", ""]),
        ),
    )
        .prop_map(
            |((named, start_ms, condition, orphan, source), (agent, number, called, queue, transaction))| {
                Known {
                    named,
                    start_ms,
                    condition,
                    orphan,
                    source,
                    agent,
                    number,
                    called,
                    queue,
                    transaction,
                }
            },
        )
}

fn search() -> impl Strategy<Value = Search> {
    let instant =
        || prop::option::of((-4_i64..4, 0_i64..1000).prop_map(|(s, ms)| 1_465_257_600_000 + s * 1000 + ms));
    let text =
        |of: Vec<&'static str>| prop::option::weighted(0.3, prop::sample::select(of).prop_map(str::to_owned));
    let state = prop::option::of(prop::sample::select(vec![
        State::Learned,
        State::Published,
        State::Orphan,
        State::Missing,
        State::Corrupt,
    ]));
    (
        (instant(), instant(), state, prop::option::weighted(0.3, 1_u32..4)),
        (
            text(vec!["björn", "ANN", "änne", "x"]),
            text(vec!["2025550143", "0199", "44-20", "999"]),
            text(vec!["SUPPORT", "sale", "x"]),
            text(vec!["7", "77", "777"]),
        ),
    )
        .prop_map(|((from_ms, until_ms, state, source), (agent, number, queue, transaction))| Search {
            from_ms,
            until_ms,
            state,
            any_state: false,
            source,
            agent,
            number,
            queue,
            transaction,
        })
}

/// Whether the model finds it: said in another way than the code does.
#[allow(clippy::nonminimal_bool, reason = "the code says it the shorter way")]
fn wanted(known: &Known, search: &Search) -> bool {
    let state = match (known.named, known.orphan, known.condition) {
        (false, true, _) => State::Orphan,
        (false, false, _) => State::Learned,
        (true, _, Condition::Sound) => State::Published,
        (true, _, Condition::Missing) => State::Missing,
        (true, _, Condition::Corrupt) => State::Corrupt,
    };
    let only_digits = |text: &str| text.replace(['+', ' ', '-'], "");
    let lower = |text: &str| text.to_lowercase();
    // What has a name lies somewhere in its second.
    let (first, last) = if known.named {
        (known.start_ms / 1000 * 1000, known.start_ms / 1000 * 1000 + 999)
    } else {
        (known.start_ms, known.start_ms)
    };
    search.state.map_or(known.named, |wanted| wanted == state)
        && !search.from_ms.is_some_and(|from| last < from)
        && !search.until_ms.is_some_and(|until| first >= until)
        && !search.source.is_some_and(|source| source != known.source)
        && !search.agent.as_ref().is_some_and(|agent| !lower(known.agent).contains(&lower(agent)))
        && !search.queue.as_ref().is_some_and(|queue| !lower(known.queue).contains(&lower(queue)))
        && !search.transaction.as_ref().is_some_and(|id| id != known.transaction)
        && !search.number.as_ref().is_some_and(|number| {
            let number = only_digits(number);
            !only_digits(known.number).contains(&number) && !only_digits(known.called).contains(&number)
        })
}

fn uid_of(at: usize) -> [u8; 16] {
    let mut uid = [0; 16];
    uid[..8].copy_from_slice(&(at as u64).to_be_bytes());
    uid
}

/// Puts the model's recordings into a catalog.
async fn fill(catalog: &Catalog, all: &[Known]) {
    let mut batch = Batch::new();
    let mut sequences = BTreeMap::new();
    for (at, known) in all.iter().enumerate() {
        let id = format!("{at:04}.wav");
        let values: BTreeMap<String, String> = [
            (fact::AGENT_NAME, known.agent),
            (fact::CUSTOMER_NUMBER, known.number),
            (fact::CALLED_NUMBER, known.called),
            (fact::QUEUE_NAME, known.queue),
            (fact::TRANSACTION_ID, known.transaction),
            (fact::STARTED_AT, &known.start_ms.to_string()),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
        let mut told = Told { version: "1".into(), keys: vec![(1, id.clone())], ..Told::default() };
        told.changed_ms = known.start_ms;
        let mut place = None;
        if known.named {
            let second = UtcSecond::from_unix_ms(known.start_ms).unwrap();
            let sequence = sequences.entry(second).or_insert(0);
            let at_place = Place::new(second, *sequence);
            *sequence += 1;
            place = Some(at_place);
            let recording = Recording {
                listed: Listed { condition: known.condition, size: 1, modified: 2, extension: "wav".into() },
                frozen: Frozen {
                    uid: uid_of(at),
                    local_day: 0,
                    publication: at as u64,
                    source: known.source,
                    media: id.clone(),
                    version: "1".into(),
                    header_patch: Vec::new(),
                },
                details: Details {
                    start_ms: known.start_ms,
                    stop_ms: known.start_ms,
                    duration_ms: None,
                    values,
                },
            };
            batch.put(keys::recording(TENANT, at_place), rows::encode(&recording).unwrap());
        } else {
            let facts = FactsRow {
                revision: 1,
                gone: false,
                keys: vec![(1, id.clone())],
                values: values.into_iter().collect(),
                unmatched_since: None,
            };
            let join = JoinRow { media: vec![id.clone()], facts: vec![id.clone()] };
            batch.put(keys::facts(TENANT, known.source, &id), rows::encode(&facts).unwrap());
            batch.put(keys::join(TENANT, known.source, 1, &id), rows::encode(&join).unwrap());
        }
        let media =
            MediaRow { uid: uid_of(at), place, due_ms: None, orphan: known.orphan && !known.named, told };
        batch.put(keys::media(TENANT, known.source, &id), rows::encode(&media).unwrap());
        batch.put(keys::uid(TENANT, &uid_of(at)), rows::encode(&(known.source, &id)).unwrap());
    }
    // Neighbours that no search may touch: another tenant's, and another kind's.
    let due = DueRow { source: 1, media: "x".into() };
    batch.put(keys::due(TENANT, 0, &[1; 16]), rows::encode(&due).unwrap());
    batch.put(keys::recording(TENANT + 1, Place { day: 0, second: 0, sequence: 0 }), vec![9]);
    batch.put(keys::media(TENANT + 1, 0, "x"), vec![9]);
    batch.put(keys::source(TENANT, 1), rows::encode(&SourceRow::default()).unwrap());
    catalog.store.commit(batch).await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn pages_are_together_what_the_model_finds(
        all in prop::collection::vec(known(), 0..40),
        searches in prop::collection::vec(search(), 1..6),
        found in 1_usize..6,
        examined in 1_usize..9,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let (catalog, _) = open(dir.path()).await;
            fill(&catalog, &all).await;
            for search in &searches {
                let mut expected: Vec<usize> = (0..all.len()).filter(|at| wanted(&all[*at], search)).collect();
                // Names are in the order of their seconds, then of their birth; media by source and id.
                if search.state.is_none_or(State::has_name) {
                    expected.sort_by_key(|at| (all[*at].start_ms / 1000, *at));
                } else {
                    expected.sort_by_key(|at| (all[*at].source, *at));
                }
                let expected: Vec<_> = expected.into_iter().map(|at| Uuid::from_bytes(uid_of(at))).collect();
                let bounds = Bounds { found, examined };
                let (mut got, mut from, mut pages) = (Vec::new(), None, 0);
                loop {
                    let page = catalog.search(TENANT, search, from.as_ref(), bounds).await.unwrap();
                    assert!(page.found.len() <= found && page.examined <= examined, "{page:?}");
                    got.extend(page.found.into_iter().map(|found| found.uid));
                    pages += 1;
                    assert!(pages <= 1 + all.len(), "each page gets on");
                    match page.next {
                        Some(next) => from = Some(next),
                        None => break,
                    }
                }
                assert_eq!(got, expected, "{search:?}");
            }
        });
    }
}

#[tokio::test]
async fn what_is_named_leads_to_it_directly() {
    let world = World::new().await;
    world.bent.change(|storage| {
        (1..=3).for_each(|n| add(storage, n, EVENING));
        storage.media.insert("9.wav".into(), medium(9));
    });
    world.scan().await;
    let catalog = &world.catalog;
    let named = |text: &str| RecordingName::parse(text, crate::layout::NameForm::Long).unwrap();
    let (source, media) =
        catalog.media_with_name(7, named("R201606070030000001.wav")).await.unwrap().unwrap();
    assert_eq!((source, media.as_str()), (3, "2.wav"));
    assert_eq!(catalog.media_with_name(7, named("R201606070030000001.webm")).await.unwrap(), None);
    assert_eq!(catalog.media_with_name(7, named("R201606070030000003.wav")).await.unwrap(), None);
    assert_eq!(catalog.media_with_name(8, named("R201606070030000001.wav")).await.unwrap(), None);

    let described = catalog.describe(7, 3, "2.wav").await.unwrap().unwrap();
    assert_eq!(described.found.state, State::Published);
    assert_eq!(described.facts.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["cdr-2"]);
    assert_eq!(described.found.values[fact::AGENT_NAME], "Agent 2");
    let again = catalog.media_with_uid(7, described.found.uid).await.unwrap();
    assert_eq!(again, Some((3, "2.wav".to_owned())));

    // The key that media and facts share; and of one without a name.
    assert_eq!(catalog.media_with_key(7, "2").await.unwrap(), [(3, "2.wav".to_owned())]);
    assert_eq!(catalog.media_with_key(7, "9").await.unwrap(), [(3, "9.wav".to_owned())]);
    assert_eq!(catalog.media_with_key(7, "nobody").await.unwrap(), []);
    let orphan = catalog.describe(7, 3, "9.wav").await.unwrap().unwrap();
    assert_eq!((orphan.found.state, orphan.found.place), (State::Orphan, None));
    let orphans = world.governance.orphans_from(7, [0; 16], 10).await.unwrap().0;
    assert_eq!(orphans.len(), 1);
    let candidates: Vec<_> = orphans.into_iter().map(|orphan| (orphan.source, orphan.media)).collect();
    let search = Search { state: Some(State::Orphan), ..Search::default() };
    assert_eq!(catalog.search_among(7, &search, &candidates).await.unwrap()[0].media, "9.wav");
}

#[tokio::test]
async fn a_search_waits_for_no_writer() {
    let world = World::new().await;
    world.bent.change(|storage| add(storage, 1, EVENING));
    world.scan().await;
    let catalog = Arc::clone(&world.catalog);
    let _writer = catalog.writer.lock().await;
    let bounds = Bounds { found: 10, examined: 10 };
    let all = Search::default();
    let search = world.catalog.search(7, &all, None, bounds);
    let page =
        tokio::time::timeout(std::time::Duration::from_secs(20), search).await.expect("it waits").unwrap();
    assert_eq!(page.found.len(), 1);
}
