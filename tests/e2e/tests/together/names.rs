//! Names are given once and for ever.

use std::{collections::BTreeMap, fs, time::Duration};

use recgate_e2e::{Call, Fixture, Stat, utc, wait_for};

/// Everything of the tree with its bytes.
fn whole(fixture: &Fixture, tenant: &str) -> BTreeMap<String, (Stat, Option<Vec<u8>>)> {
    let mut raw = fixture.login(tenant).raw();
    let tree = raw.tree();
    tree.into_iter()
        .map(|(path, stat)| {
            let bytes = (stat.kind == recgate_e2e::Kind::File).then(|| raw.file(&path).unwrap());
            if let Some(bytes) = &bytes {
                assert_eq!(u64::try_from(bytes.len()).unwrap(), stat.size, "{path}: stat and read differ");
            }
            (path, (stat, bytes))
        })
        .collect()
}

fn name_of(fixture: &Fixture, call: &Call) -> Option<String> {
    let mut raw = fixture.login("acme").raw();
    let entries = raw.list(&format!("/{}", call.folder())).ok()?;
    let found = entries.iter().find(|entry| {
        entry.name.ends_with(".wav")
            && raw.file(&format!("/{}/{}", call.folder(), entry.name)).is_ok_and(|bytes| bytes == call.bytes)
    });
    found.map(|entry| entry.name.clone())
}

#[test]
fn a_restart_and_rescans_change_nothing() {
    let mut fixture = Fixture::new();
    let calls = fixture.fill();
    fixture.start();
    fixture.wait_published("acme", &calls["acme"]);
    fixture.wait_root_index("acme", "20160606", 7);
    fixture.wait_root_index("acme", "20160605", 1);
    fixture.wait_root_index("acme", "20160607", 1);
    let before = whole(&fixture, "acme");
    fixture.restart();
    assert!(whole(&fixture, "acme") == before, "a restart changed the tree");
    // The records are told anew: the same facts, a newer revision.
    for call in &calls["acme"] {
        fixture.wazo["acme"].write_record(call);
    }
    fixture.gateway.take().unwrap().kill();
    fixture.start();
    fixture.wait_published("acme", &calls["acme"]);
    assert!(whole(&fixture, "acme") == before, "SIGKILL and a start changed the tree");
}

#[test]
fn files_that_come_and_go_change_no_other_name() {
    let mut fixture = Fixture::new();
    let calls = fixture.fill();
    fixture.start();
    fixture.wait_published("acme", &calls["acme"]);
    let before: BTreeMap<String, Option<String>> =
        calls["acme"].iter().map(|call| (call.uuid.clone(), name_of(&fixture, call))).collect();
    assert!(before.values().all(Option::is_some), "{before:?}");

    // Another one in the second of two, and one before all others.
    let acme = fixture.wazo.get_mut("acme").unwrap();
    let third = acme.add(utc("2016-06-06 17:30:05"), 48);
    let early = acme.add(utc("2016-06-06 00:00:01"), 49);
    let third_name =
        wait_for("the third recording of a second", Duration::from_secs(60), || name_of(&fixture, &third));
    wait_for("the early recording", Duration::from_secs(60), || name_of(&fixture, &early));
    assert_eq!(third_name, "R201606061730050002.wav");

    // One of the two goes: its file is gone, and nobody gets its name.
    let gone = &calls["acme"][3];
    let gone_path = format!("/{}/{}", gone.folder(), before[&gone.uuid].as_ref().unwrap());
    fs::remove_file(fixture.wazo["acme"].media_path(gone)).unwrap();
    wait_for("the deleted file's refusal", Duration::from_secs(60), || {
        fixture.login("acme").raw().file(&gone_path).err()
    });
    let fourth = fixture.wazo.get_mut("acme").unwrap().add(utc("2016-06-06 17:30:05"), 60);
    let fourth_name = wait_for("a fourth one", Duration::from_secs(60), || name_of(&fixture, &fourth));
    assert_eq!(fourth_name, "R201606061730050003.wav");

    for round in 0..2 {
        for call in calls["acme"].iter().filter(|call| call.uuid != gone.uuid) {
            assert_eq!(name_of(&fixture, call), before[&call.uuid], "round {round}");
        }
        fixture.restart();
    }
}

#[test]
fn a_backup_that_is_restored_shows_the_same_tree() {
    let mut fixture = Fixture::new();
    let calls = fixture.fill();
    fixture.start();
    fixture.wait_published("acme", &calls["acme"]);
    fixture.wait_root_index("acme", "20160606", 7);
    let before = whole(&fixture, "acme");
    let backup = fixture.path().join("backup");
    fixture.recgate(&["state", "backup", backup.to_str().unwrap()]).success();
    fixture.gateway.take().unwrap().kill();
    fs::rename(fixture.data_dir(), fixture.path().join("lost")).unwrap();
    fixture.recgate(&["state", "restore", backup.to_str().unwrap()]).success();
    fixture.recgate(&["state", "verify"]).success();
    fixture.start();
    fixture.wait_published("acme", &calls["acme"]);
    let after = whole(&fixture, "acme");
    let recordings = |tree: &BTreeMap<String, (Stat, Option<Vec<u8>>)>| -> BTreeMap<_, _> {
        tree.iter()
            .filter(|(path, _)| path.ends_with(".wav"))
            .map(|(path, what)| (path.clone(), what.clone()))
            .collect()
    };
    assert!(recordings(&before) == recordings(&after), "names, sizes, times or bytes differ");
    for index in ["/Index/I20160606.csv", "/S20160606/I20160606.csv", "/S20160606/I20160606_version2.csv"] {
        assert!(before[index].1 == after[index].1, "{index}");
    }
}
