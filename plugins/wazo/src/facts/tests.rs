#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::cdr;

/// The item of the vendor's page on call recording, as its API answers it.
pub(crate) fn sample() -> Value {
    json!({
        "id": 2060,
        "tenant_uuid": "2c34c282-433e-4bb8-8d56-fec14ff7e1e9",
        "start": "2021-05-14T17:47:15.632882+00:00",
        "end": "2021-05-14T17:47:22.979637+00:00",
        "answered": true,
        "answer": "2021-05-14T17:47:18.146089+00:00",
        "duration": 4,
        "call_direction": "internal",
        "destination_extension": "1011",
        "destination_internal_context": "inside",
        "destination_internal_extension": "1011",
        "destination_line_id": 76,
        "destination_name": "Anastasia Romanov",
        "destination_user_uuid": "def42192-837a-41e0-aa4e-86390e46eb17",
        "requested_name": "Anastasia Romanov",
        "requested_context": "inside",
        "requested_extension": "1011",
        "source_extension": "1015",
        "source_line_id": 52,
        "source_name": "Olga Romanov",
        "source_user_uuid": "b2e98781-7118-4010-8da3-b93b1b7e1389",
        "tags": ["olga"],
        "recordings": [{
            "uuid": "5ea37d0b-0823-4d2b-a18c-b9082e551b50",
            "start_time": "2021-05-14T17:47:16.701984+00:00",
            "end_time": "2021-05-14T17:47:22.979637+00:00",
            "deleted": false,
            "filename": "2021-05-14T17_47_16UTC-2060-5ea37d0b-0823-4d2b-a18c-b9082e551b50.wav"
        }]
    })
}

/// The facts of a document, and what was reported.
fn read(document: &str, settings: &str) -> (Vec<Facts>, Vec<String>) {
    let settings = Settings::parse(settings).unwrap();
    let (mut told, mut reported) = (Vec::new(), Vec::new());
    let result = cdr::read_for_tests(document.as_bytes(), &mut |index, item| {
        match item {
            Ok(cdr) => of(
                &cdr,
                7,
                &settings,
                &mut |problem| reported.push(format!("{index}: {problem}")),
                &mut |facts| {
                    told.push(facts);
                    Ok(())
                },
            )?,
            Err(problem) => reported.push(format!("{index}: {problem}")),
        }
        Ok(())
    });
    if let Err(reason) = result {
        reported.push(reason);
    }
    (told, reported)
}

fn one(item: &Value, settings: &str) -> BTreeMap<String, String> {
    let (told, reported) = read(&item.to_string(), settings);
    assert_eq!(reported, Vec::<String>::new());
    told.into_iter().next().unwrap().values.into_iter().collect()
}

fn with(changes: &Value) -> Value {
    let mut item = sample();
    for (key, value) in changes.as_object().unwrap() {
        item[key] = value.clone();
    }
    item
}

const PLAIN: &str = r#"{"root":"/m"}"#;

#[test]
fn the_vendors_sample_becomes_facts() {
    let document = json!({"items": [sample()], "total": 887, "filtered": 887}).to_string();
    let (told, reported) = read(&document, PLAIN);
    assert_eq!(reported, Vec::<String>::new());
    let [facts] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(facts.id, "cdr-2060-5ea37d0b-0823-4d2b-a18c-b9082e551b50");
    assert_eq!((facts.revision, facts.gone), (7, false));
    assert_eq!(
        facts.keys,
        [
            JoinKey {
                kind: JoinKind::RecordingUuid,
                value: "5ea37d0b-0823-4d2b-a18c-b9082e551b50".to_owned()
            },
            JoinKey {
                kind: JoinKind::ObjectKey,
                value: "2021-05-14T17_47_16UTC-2060-5ea37d0b-0823-4d2b-a18c-b9082e551b50.wav".to_owned()
            },
        ]
    );
    let values: BTreeMap<_, _> = facts.values.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(values.len(), facts.values.len(), "no key twice");
    for (key, value) in [
        (fact::STARTED_AT, "1621014436701"),
        (fact::STOPPED_AT, "1621014442979"),
        (fact::DURATION_MS, "6278"),
        (fact::CALL_TYPE, "direct_agent_access"),
        (fact::AGENT_NAME, "Anastasia Romanov"),
        (fact::CUSTOMER_NUMBER, "1015"),
        (fact::TRANSACTION_ID, "2060"),
        (fact::EXTERNAL_VARIABLE_2, "olga"),
        ("cdr_start", "2021-05-14T17:47:15.632882+00:00"),
        ("source_user_uuid", "b2e98781-7118-4010-8da3-b93b1b7e1389"),
    ] {
        assert_eq!(values.get(key), Some(&value), "{key}");
    }
    for key in
        [fact::PHONE_CHANNEL, fact::CALLED_NUMBER, fact::QUEUE_NAME, fact::EXTERNAL_VARIABLE_1, "deleted"]
    {
        assert_eq!(values.get(key), None, "{key}");
    }
}

#[test]
fn directions_decide_who_is_the_agent() {
    let inbound = one(
        &with(
            &json!({"call_direction": "inbound", "source_extension": "+15551234", "requested_extension": "8005550100",
            "destination_details": {"type": "group", "group_id": 3, "group_label": "Sales, \"east\""}}),
        ),
        PLAIN,
    );
    assert_eq!(inbound[fact::CALL_TYPE], "inbound");
    assert_eq!(inbound[fact::AGENT_NAME], "Anastasia Romanov");
    assert_eq!(inbound[fact::CUSTOMER_NUMBER], "+15551234");
    assert_eq!(inbound[fact::PHONE_CHANNEL], "8005550100");
    assert_eq!(inbound[fact::QUEUE_TYPE], "inbound");
    assert_eq!(inbound[fact::QUEUE_NAME], "Sales, \"east\"");
    assert_eq!(inbound.get(fact::CALLED_NUMBER), None);

    let outbound = one(
        &with(&json!({"call_direction": "outbound", "source_name": "", "source_internal_name": "Olga",
            "destination_extension": "15557777", "requested_extension": null})),
        PLAIN,
    );
    assert_eq!(outbound[fact::CALL_TYPE], "outbound");
    assert_eq!(outbound[fact::AGENT_NAME], "Olga");
    assert_eq!(outbound[fact::CUSTOMER_NUMBER], "15557777");
    assert_eq!(outbound[fact::CALLED_NUMBER], "15557777");
    assert_eq!(outbound.get(fact::PHONE_CHANNEL), None);
    assert_eq!(outbound.get(fact::QUEUE_TYPE), None);

    let strange = one(&with(&json!({"call_direction": "sideways"})), PLAIN);
    assert_eq!((strange.get(fact::CALL_TYPE), strange.get(fact::AGENT_NAME)), (None, None));
    assert_eq!(strange[fact::TRANSACTION_ID], "2060");
}

#[test]
fn settings_choose_what_tags_and_conversation_fill() {
    let item =
        with(&json!({"conversation_id": "1621014435.12", "tags": ["vip", "case:4711", "acct=ACME & Co"]}));
    let plain = one(&item, PLAIN);
    assert_eq!(plain[fact::EXTERNAL_VARIABLE_1], "1621014435.12");
    assert_eq!(plain[fact::EXTERNAL_VARIABLE_2], "vip;case:4711;acct=ACME & Co");
    assert_eq!((plain.get(fact::CASE_ID), plain.get(fact::ACCOUNT)), (None, None));

    let settings =
        r#"{"root":"/m","external_variable_1":"first_tag","case_id_tag":"case:","account_tag":"acct="}"#;
    let tagged = one(&item, settings);
    assert_eq!(tagged[fact::EXTERNAL_VARIABLE_1], "vip");
    assert_eq!(tagged[fact::CASE_ID], "4711");
    assert_eq!(tagged[fact::ACCOUNT], "ACME & Co");
    for case in ["case:", "case:47x", "case:-1", "case:2147483648", "case:99999999999999999999999"] {
        assert_eq!(one(&with(&json!({"tags": [case]})), settings).get(fact::CASE_ID), None, "{case}");
    }
}

#[test]
fn a_call_may_have_several_recordings_and_deleted_ones() {
    let second = "6EA37D0B-0823-4d2b-a18c-b9082e551b50";
    let mut item = sample();
    item["recordings"].as_array_mut().unwrap().push(json!({
        "uuid": second, "start_time": "2021-05-14T17:47:20Z", "end_time": null, "deleted": true, "filename": null
    }));
    let (told, reported) = read(&item.to_string(), PLAIN);
    assert_eq!(reported, Vec::<String>::new());
    assert_eq!(told.len(), 2);
    let values: BTreeMap<_, _> = told[1].values.iter().cloned().collect();
    assert_eq!(told[1].keys[0].value, second.to_lowercase());
    assert_eq!(told[1].keys.len(), 1);
    assert_eq!(values[fact::STARTED_AT], "1621014440000");
    assert_eq!((values.get(fact::STOPPED_AT), values.get(fact::DURATION_MS)), (None, None));
    assert_eq!(values["deleted"], "true");
    assert!(!told[1].gone);
}

#[test]
fn times_are_read_in_every_spelling_and_truncated() {
    for (text, ms) in [
        ("2021-05-14T17:47:16.701984+00:00", Some(1_621_014_436_701)),
        ("2021-05-14T17:47:16.999999Z", Some(1_621_014_436_999)),
        ("2021-05-14T17:47:16+0000", Some(1_621_014_436_000)),
        ("2021-05-14T17:47:16.5+0000", Some(1_621_014_436_500)),
        ("2021-05-14T13:47:16-04:00", Some(1_621_014_436_000)),
        ("1969-12-31T23:59:59.9999Z", Some(-1)),
        ("2021-05-14T17:47:16", None),
        ("2021-02-30T17:47:16Z", None),
        ("yesterday", None),
        ("", None),
    ] {
        assert_eq!(unix_ms(text), ms, "{text}");
    }
}

#[test]
fn what_is_wrong_is_reported_and_the_rest_goes_on() {
    let mut bad_times = sample();
    bad_times["recordings"][0]["start_time"] = json!("soon");
    bad_times["recordings"][0]["end_time"] = json!(17);
    let mut backwards = sample();
    backwards["recordings"][0]["end_time"] = json!("2020-05-14T17:47:20Z");
    let mut bad_uuid = sample();
    bad_uuid["recordings"][0]["uuid"] = json!("../../etc/passwd");
    let document = json!({"total": 1, "items": [
        5, null, "x", [[]], {}, {"id": -1}, {"id": "7"}, {"id": 8}, {"id": 9, "recordings": "none", "tags": {}},
        {"id": 10, "recordings": [1, {"uuid": null}]},
        bad_times, backwards, bad_uuid, sample()
    ]});
    let (told, reported) = read(&document.to_string(), PLAIN);
    assert_eq!(told.len(), 3);
    let values: BTreeMap<_, _> = told[0].values.iter().cloned().collect();
    assert_eq!((values.get(fact::STARTED_AT), values.get(fact::STOPPED_AT)), (None, None));
    let expected = [
        "0: it is not an object",
        "1: it is not an object",
        "2: it is not an object",
        "3: it is not an object",
        "4: id is not",
        "5: id is not",
        "6: id is not",
        "8: recordings is no list",
        "8: tags is no list",
        "9: recordings is no list",
        "9: record 10 has a recording whose uuid",
        "10: record 2060, recording 5ea37d0b-0823-4d2b-a18c-b9082e551b50: start_time \"soon\"",
        "10: record 2060, recording 5ea37d0b-0823-4d2b-a18c-b9082e551b50: end_time is not a text",
        "11: record 2060, recording 5ea37d0b-0823-4d2b-a18c-b9082e551b50: end_time is before",
        "12: record 2060 has a recording whose uuid",
    ];
    let mut sorted = reported.clone();
    sorted.sort_by_key(|line| line.split(':').next().unwrap().parse::<u32>().unwrap());
    for line in expected {
        assert!(sorted.iter().any(|said| said.starts_with(line)), "{line} in {sorted:#?}");
    }
    assert_eq!(sorted.len(), expected.len(), "{sorted:#?}");
}

#[test]
fn an_array_and_a_single_record_are_documents_too_and_broken_ones_keep_what_came_before() {
    let item = sample().to_string();
    for (document, told, reported) in [
        (format!("[{item},{item}]"), 2, None),
        (item.clone(), 1, None),
        (format!(" {item} \n"), 1, None),
        ("[]".to_owned(), 0, None),
        (r#"{"items":[],"total":0}"#.to_owned(), 0, None),
        (format!("[{item},{item}"), 2, Some("EOF")),
        (format!("[{item},]"), 1, Some("trailing comma")),
        (format!("{item}{item}"), 1, Some("trailing characters")),
        (String::new(), 0, Some("EOF")),
        ("17".to_owned(), 0, Some("answer of GET /cdr")),
        (r#"{"items":7}"#.to_owned(), 0, Some("a list of records")),
        (r#"{"message":"unauthorized","error_id":"x"}"#.to_owned(), 0, Some("neither items nor an id")),
        ("[".repeat(100_000), 0, Some("EOF")),
    ] {
        let (facts, problems) = read(&document, PLAIN);
        assert_eq!(facts.len(), told, "{:.80}", document);
        match reported {
            None => assert_eq!(problems, Vec::<String>::new()),
            Some(said) => assert!(problems.last().unwrap().contains(said), "{problems:?}"),
        }
    }
}

#[test]
fn texts_and_lists_are_bounded() {
    let item = with(&json!({
        "destination_name": "é".repeat(100_000),
        "tags": vec!["t"; 1000],
        "recordings": vec![json!({"uuid": "5ea37d0b-0823-4d2b-a18c-b9082e551b50"}); 5000],
    }));
    let (told, reported) = read(&item.to_string(), PLAIN);
    assert_eq!((told.len(), reported.len()), (1000, 2));
    let longest = told[0].values.iter().map(|(_, value)| value.len()).max();
    assert_eq!(longest, Some(1024));

    let item = with(&json!({"tags": vec!["t".repeat(1000); 50]}));
    assert_eq!(one(&item, PLAIN)[fact::EXTERNAL_VARIABLE_2].len(), 4 * 1000 + 3);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(Value::from("2021-05-14T17:47:16Z")),
    ];
    let key = prop::sample::select(vec![
        "id",
        "items",
        "tags",
        "recordings",
        "uuid",
        "start_time",
        "call_direction",
        "x",
    ]);
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_document_panics(document in any_json()) {
        read(&document.to_string(), PLAIN);
    }

    #[test]
    fn one_odd_field_never_loses_the_record(
        key in prop::sample::select(vec![
            "start", "answer", "call_direction", "destination_name", "destination_details", "source_extension", "tags",
            "conversation_id",
        ]),
        value in any_json(),
    ) {
        let mut item = sample();
        item[key] = value;
        let (told, _) = read(&json!([item, sample()]).to_string(), PLAIN);
        prop_assert_eq!(told.len(), 2);
    }

    #[test]
    fn arbitrary_bytes_never_panic(text in "\\PC{0,200}") {
        read(&text, PLAIN);
    }
}
