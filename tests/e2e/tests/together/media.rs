//! Recordings in the states in which a PBX leaves them.

use std::{fs, io::Write, time::Duration};

use recgate_e2e::{ACME, Fixture, TenantSpec, read_index, utc, wait_for};

#[test]
fn a_header_without_lengths_is_served_with_them_and_as_long_as_stored() {
    let mut fixture = Fixture::new();
    let acme = fixture.wazo.get_mut("acme").unwrap();
    // As a PBX leaves it that crashed: both sizes zero.
    let mut crashed = acme.plan(utc("2016-06-06 10:00:00"), 40);
    let good = crashed.bytes.clone();
    crashed.bytes[4..8].fill(0);
    crashed.bytes[40..44].fill(0);
    acme.write_record(&crashed);
    acme.write_media(&crashed);
    // Cut off: its sizes point beyond the end.
    let mut cut = acme.plan(utc("2016-06-06 11:00:00"), 41);
    cut.bytes.truncate(cut.bytes.len() / 4 * 2);
    acme.write_record(&cut);
    acme.write_media(&cut);
    fixture.start();
    fixture.wait_published("acme", &[crashed.clone(), cut.clone()]);
    let mut raw = fixture.login("acme").raw();
    let served = raw.file(&format!("/{}", crashed.path())).unwrap();
    assert!(served == good, "the corrected header isn't that of the whole file");
    let served = raw.file(&format!("/{}", cut.path())).unwrap();
    assert_eq!(served.len(), cut.bytes.len());
    assert!(served[44..] == cut.bytes[44..]);
    for (call, served) in [(&crashed, good), (&cut, served)] {
        let wav = hound::WavReader::new(&served[..]).unwrap();
        let samples = u32::try_from((served.len() - 44) / 2).unwrap();
        assert_eq!((wav.spec().sample_rate, wav.duration()), (8000, samples));
        assert_eq!(raw.stat(format!("/{}", call.path()).as_bytes()).unwrap().size, served.len() as u64);
    }
    assert!(
        fs::read(fixture.wazo["acme"].media_path(&crashed)).unwrap() == crashed.bytes,
        "the PBX's file was touched"
    );
}

#[test]
fn what_is_incomplete_is_not_shown() {
    let mut fixture = Fixture::new();
    let acme = fixture.wazo.get_mut("acme").unwrap();
    let shown = acme.add(utc("2016-06-06 10:00:00"), 40);
    // A record whose file is gone, and a file without a record.
    let deleted = acme.plan(utc("2016-06-06 10:00:01"), 41);
    acme.write_record(&deleted);
    let unmatched = acme.plan(utc("2016-06-06 10:00:02"), 42);
    acme.write_media(&unmatched);
    acme.write_other("conference-4711.wav", &unmatched.bytes, unmatched.stop);
    acme.write_other("notes.txt", b"no recording", unmatched.stop);
    // A file that grows: written again and again, its record there already.
    let growing = acme.plan(utc("2016-06-06 10:00:03"), 0);
    acme.write_record(&growing);
    let path = acme.media_path(&growing);
    fs::write(&path, &growing.bytes[..50_000]).unwrap();

    fixture.start();
    let visible = [shown];
    let mut raw = fixture.login("acme").raw();
    let mut chunks = growing.bytes[50_000..].chunks(400_000).peekable();
    while let Some(chunk) = chunks.next() {
        fs::File::options().append(true).open(&path).unwrap().write_all(chunk).unwrap();
        // With its last write it is complete, and there at once.
        if chunks.peek().is_some() {
            fixture.wait_published("acme", &visible);
        }
    }
    let rows = read_index(&raw.file("/S20160606/I20160606.csv").unwrap()).1;
    assert!(rows.len() <= 2, "{rows:?}");
    let now_complete = [visible[0].clone(), growing.clone()];
    fixture.wait_published("acme", &now_complete);
    assert!(raw.file(&format!("/{}", growing.path())).unwrap() == growing.bytes);
    assert!(raw.stat(format!("/{}", deleted.path()).as_bytes()).is_err());
    assert!(raw.stat(format!("/{}", unmatched.path()).as_bytes()).is_err());
    assert!(raw.stat(b"/Orphans").is_err(), "a downloader sees orphans");

    // The record comes after all: the recording is placed.
    fixture.wazo["acme"].write_record(&unmatched);
    let [first, second] = now_complete;
    fixture.wait_published("acme", &[first, second, unmatched]);
}

#[test]
fn without_facts_the_source_decides_after_its_wait() {
    let mut fixture = Fixture::with(vec![TenantSpec { metadata_wait: "1s", ..ACME }]);
    let acme = fixture.wazo.get_mut("acme").unwrap();
    let shown = acme.add(utc("2016-06-06 10:00:00"), 40);
    let orphan = acme.plan(utc("2016-06-06 11:00:00"), 41);
    acme.write_media(&orphan);
    fixture.start();
    fixture.wait_published("acme", &[shown]);
    wait_for("an orphan", Duration::from_secs(60), || {
        let status: serde_json::Value =
            serde_json::from_str(&fixture.recgate(&["status", "--json"]).stdout).ok()?;
        let counts = &status["tenants"][0]["recordings"];
        (counts["orphans"] == 1 && counts["published"] == 1).then_some(())
    });
    let mut raw = fixture.login("acme").raw();
    assert!(raw.stat(format!("/{}", orphan.path()).as_bytes()).is_err());
    assert_eq!(
        raw.list("/S20160606").unwrap().iter().filter(|entry| entry.name.ends_with(".wav")).count(),
        1
    );
}

#[test]
fn media_that_changed_after_publication_is_refused() {
    let mut fixture = Fixture::new();
    let acme = fixture.wazo.get_mut("acme").unwrap();
    let call = acme.add(utc("2016-06-06 10:00:00"), 40);
    let other = acme.add(utc("2016-06-06 10:00:01"), 41);
    fixture.start();
    fixture.wait_published("acme", &[call.clone(), other.clone()]);
    let mut raw = fixture.login("acme").raw();
    let path = format!("/{}", call.path());
    let frozen = raw.stat(path.as_bytes()).unwrap();
    let mut changed = call.bytes.clone();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    fs::write(fixture.wazo["acme"].media_path(&call), &changed).unwrap();
    let refused = wait_for("a refusal", Duration::from_secs(60), || raw.file(&path).err());
    assert!(refused.message.contains("changed"), "{refused:?}");
    assert_eq!(raw.stat(path.as_bytes()).map_or(frozen, |stat| stat), frozen);
    assert!(raw.file(&format!("/{}", other.path())).unwrap() == other.bytes);
}
