//! The journal on disks that lose power, fill up and lie, and with files that somebody has changed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::format::{MAX_ENTRY_BYTES, segment_name};
use super::storage::Storage;
use super::writer::{MARK, MAX_UNSYNCED_BYTES};
use super::*;
use crate::state::shim::{Disk, DiskFolder, Random};

fn entry(number: u64) -> NewEntry {
    NewEntry::new("test", &json!({ "n": number })).unwrap()
}

/// An entry of about this many bytes.
fn sized(number: u64, bytes: usize) -> NewEntry {
    NewEntry::new("test", &json!({ "n": number, "fill": "x".repeat(bytes) })).unwrap()
}

fn options() -> JournalOptions {
    // No test waits for the time; those that need a sync ask for it.
    JournalOptions { segment_bytes: 4000, verify_all: false, sync_every: Duration::from_secs(3600) }
}

fn open_chain(disk: &Arc<Disk>, chain: Chain, applied: u64) -> Result<(Journal, Recovery), JournalError> {
    let storage: Arc<dyn Storage> = Arc::new(DiskFolder(Arc::clone(disk)));
    Journal::open_on(storage, chain, Uuid::nil(), options(), &[("sled", applied)])
}

fn open(disk: &Arc<Disk>, applied: u64) -> Result<(Journal, Recovery), JournalError> {
    open_chain(disk, Chain::Governance, applied)
}

fn verify(disk: &Arc<Disk>) -> Result<Report, JournalError> {
    recovery::verify(&DiskFolder(Arc::clone(disk)))
}

fn numbers(journal: &Journal) -> Vec<u64> {
    journal.read_from(1).unwrap().map(|entry| entry.unwrap().data["n"].as_u64().unwrap()).collect()
}

/// A journal of so many single entries, closed.
async fn journal_of(disk: &Arc<Disk>, count: u64) {
    let (journal, _) = open(disk, 0).unwrap();
    for number in 1..=count {
        journal.append(vec![entry(number)]).await.unwrap();
    }
}

fn last_segment(disk: &Arc<Disk>) -> String {
    disk.names().into_iter().rfind(|name| format::segment_first(name).is_some()).unwrap()
}

#[tokio::test]
async fn what_is_appended_is_read_in_order_over_segments() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Uuid::new_v4();
    let open = || Journal::open(dir.path(), Chain::Governance, gateway, options(), &[]).unwrap();
    let mut count = 0;
    for _ in 0..3 {
        let (journal, recovery) = open();
        assert_eq!((recovery.head.sequence, recovery.cut), (count, None));
        for _ in 0..20 {
            let appended = journal.append(vec![entry(count + 1), entry(count + 2)]).await.unwrap();
            assert_eq!(appended, Appended { first: count + 1, last: count + 2 });
            count += 2;
        }
        assert_eq!(journal.head().sequence, count);
        assert_eq!(numbers(&journal), (1..=count).collect::<Vec<_>>());
        for from in [1, 2, 15, 39, 40, count] {
            let first = journal.read_from(from).unwrap().next().unwrap().unwrap();
            assert_eq!((first.sequence, first.gateway, first.kind.as_str()), (from, gateway, "test"));
        }
        assert_eq!(journal.read_from(count + 1).unwrap().count(), 0);
        assert!(journal.read_from(count + 2).is_err());
        assert!(journal.read_from(0).is_err());
    }
    let report = Journal::verify(dir.path(), Chain::Governance).unwrap();
    assert_eq!((report.entries, report.head.sequence), (120, 120));
    assert!(report.segments > 5, "{}", report.segments);
    assert!(Journal::verify(dir.path(), Chain::Access).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_append_and_read_at_once() {
    for chain in [Chain::Governance, Chain::Access] {
        let disk = Disk::new(1);
        let (journal, _) = open_chain(&disk, chain, 0).unwrap();
        let journal = Arc::new(journal);
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let journal = Arc::clone(&journal);
                tokio::spawn(async move {
                    let mut last = 0;
                    for number in 0..30 {
                        let id = task * 1000 + number;
                        let appended = journal.append(vec![entry(id), entry(id)]).await.unwrap();
                        assert!(appended.first > last && appended.last == appended.first + 1);
                        last = appended.last;
                        let found = journal.read_from(appended.first).unwrap().next().unwrap().unwrap();
                        assert_eq!(found.data["n"], id);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(journal.head().sequence, 480);
        let found = numbers(&journal);
        assert!(found.chunks(2).all(|pair| pair[0] == pair[1]), "an append was torn apart");
        drop(journal);
        assert_eq!(verify(&disk).unwrap().entries, 480);
    }
}

#[tokio::test]
async fn what_is_refused_changes_nothing() {
    let disk = Disk::new(1);
    let (journal, _) = open(&disk, 0).unwrap();
    for bad in [vec![], vec![entry(1), sized(2, MAX_ENTRY_BYTES)], vec![sized(1, 60_000); 10]] {
        journal.append(bad).await.unwrap_err();
    }
    assert_eq!(journal.head(), Head::default());
    journal.append(vec![sized(1, 60_000); 8]).await.unwrap();
    assert_eq!(journal.head().sequence, 8);
}

/// Everything acknowledged is there after a power loss, nothing is half, and the chain goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_loss_loses_nothing_acknowledged() {
    let mut cuts = 0;
    for seed in 0..250 {
        let disk = Disk::new(seed);
        let mut random = Random(seed ^ 0xbeef);
        let mut acknowledged: BTreeMap<u64, u64> = BTreeMap::new();
        for round in 0..4 {
            let context = format!("seed {seed}, round {round}");
            disk.cut_power_after(random.below(50));
            // What a store has applied is never more than what was acknowledged, and often less.
            let applied = acknowledged.keys().next_back().copied().unwrap_or(0) * random.below(2);
            if let Ok((journal, _)) = open(&disk, applied) {
                let journal = Arc::new(journal);
                let tasks: Vec<_> = (0..3)
                    .map(|_| {
                        let journal = Arc::clone(&journal);
                        let mut random = Random(random.next());
                        tokio::spawn(async move {
                            let mut acknowledged = Vec::new();
                            loop {
                                let id = random.next() >> 1;
                                let size = usize::try_from(random.below(900)).unwrap();
                                let entries =
                                    vec![sized(id, size); 1 + usize::try_from(random.below(3)).unwrap()];
                                match journal.append(entries).await {
                                    Ok(a) => acknowledged.extend((a.first..=a.last).map(|seq| (seq, id))),
                                    Err(_) => return acknowledged,
                                }
                            }
                        })
                    })
                    .collect();
                for task in tasks {
                    acknowledged.extend(task.await.unwrap());
                }
            }
            disk.reboot();
            let (journal, recovery) = open(&disk, applied).unwrap_or_else(|e| panic!("{context}: {e}"));
            cuts += u32::from(recovery.cut.is_some());
            let found = numbers(&journal);
            for (sequence, id) in &acknowledged {
                let index = usize::try_from(*sequence - 1).unwrap();
                assert_eq!(found.get(index), Some(id), "{context}: entry {sequence}");
            }
            drop(journal);
            assert_eq!(verify(&disk).unwrap().entries, found.len() as u64, "{context}");
            if random.below(3) == 0 && !found.is_empty() {
                let (journal, _) = open(&disk, 0).unwrap();
                journal.write_checkpoint(1 + random.below(found.len() as u64)).await.unwrap();
            }
        }
    }
    assert!(cuts > 50, "only {cuts} incomplete writes: the test tests nothing");
}

#[tokio::test]
async fn the_access_chain_keeps_what_was_synced() {
    for seed in 0..100 {
        let disk = Disk::new(seed);
        let mut random = Random(seed);
        let mut synced = 0;
        disk.cut_power_after(random.below(60) + 5);
        if let Ok((journal, _)) = open_chain(&disk, Chain::Access, 0) {
            for number in 1.. {
                let Ok(appended) = journal.append(vec![sized(number, 300)]).await else { break };
                if random.below(5) == 0 && journal.sync().await.is_ok() {
                    synced = appended.last;
                }
            }
        }
        disk.reboot();
        let (journal, recovery) =
            open_chain(&disk, Chain::Access, synced).unwrap_or_else(|e| panic!("{seed}: {e}"));
        assert!(recovery.head.sequence >= synced, "seed {seed}");
        assert_eq!(numbers(&journal), (1..=recovery.head.sequence).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn the_access_chain_is_synced_in_time() {
    let disk = Disk::new(1);
    let storage: Arc<dyn Storage> = Arc::new(DiskFolder(Arc::clone(&disk)));
    let options = JournalOptions { sync_every: Duration::from_millis(5), ..options() };
    let (journal, _) = Journal::open_on(storage, Chain::Access, Uuid::nil(), options, &[]).unwrap();
    journal.append(vec![entry(1)]).await.unwrap();
    // The mark is written after an fsync; the test waits for that and for nothing else.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !String::from_utf8_lossy(&disk.content(MARK)).starts_with("00000000000000000001") {
        assert!(std::time::Instant::now() < deadline, "nothing was synced");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_failed_fsync_stops_the_journal_for_good() {
    for chain in [Chain::Governance, Chain::Access] {
        let disk = Disk::new(3);
        let (journal, _) = open_chain(&disk, chain, 0).unwrap();
        journal.append(vec![entry(1)]).await.unwrap();
        journal.sync().await.unwrap();
        disk.fail_syncs(true);
        let _ = journal.append(vec![entry(2)]).await;
        let error = journal.sync().await.unwrap_err();
        assert!(error.to_string().contains("the disk doesn't answer"), "{error}");
        disk.fail_syncs(false);
        for _ in 0..3 {
            let error = journal.append(vec![entry(3)]).await.unwrap_err();
            assert!(matches!(error, JournalError::Poisoned { .. }), "{error}");
            assert!(error.to_string().contains("restart"), "{error}");
        }
        assert!(journal.write_checkpoint(1).await.is_err());
        drop(journal);
        // Started again, with or without a power loss between.
        for _ in 0..2 {
            let (journal, recovery) = open_chain(&disk, chain, 1).unwrap();
            let there = numbers(&journal);
            assert_eq!(there[0], 1);
            assert_eq!(recovery.head.sequence, there.len() as u64);
            drop(journal);
            disk.reboot();
        }
    }
}

/// Whole entries that were never synced (a killed process, a failed fsync) are durable once a start has taken
/// them.
#[tokio::test]
async fn what_a_start_takes_over_is_made_durable() {
    for seed in 0..40 {
        let longer = Disk::new(1);
        journal_of(&longer, 5).await;
        let name = last_segment(&longer);
        let whole = longer.content(&name);
        let disk = Disk::new(seed);
        let settled = whole.split_inclusive(|byte| *byte == b'\n').take(3).map(<[u8]>::len).sum::<usize>();
        disk.put(&name, Some(whole[..settled].to_vec()));
        let file = DiskFolder(Arc::clone(&disk)).open(&name).unwrap();
        file.write_at(settled as u64, &whole[settled..]).unwrap();
        if seed % 2 == 0 {
            // The kernel takes the pages for clean now, though they aren't on the disk.
            disk.fail_syncs(true);
            file.sync().unwrap_err();
            disk.fail_syncs(false);
        }
        assert_eq!(open(&disk, 3).unwrap().1.head.sequence, 5);
        disk.reboot();
        assert_eq!(open(&disk, 5).unwrap().1.head.sequence, 5, "seed {seed}");
    }
}

#[tokio::test]
async fn a_full_disk_leaves_whole_entries() {
    for room in [0, 1, 100, 200, 400, 5000, 20_000] {
        let disk = Disk::new(4);
        journal_of(&disk, 5).await;
        let (journal, _) = open(&disk, 5).unwrap();
        disk.fill_after(Some(room));
        let mut last = 5;
        let error = loop {
            match journal.append(vec![sized(last + 1, 100)]).await {
                Ok(appended) => last = appended.last,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, JournalError::Poisoned { .. }), "{error}");
        assert_eq!(journal.head().sequence, last);
        assert_eq!(numbers(&journal), (1..=last).collect::<Vec<_>>());
        disk.fill_after(None);
        assert!(journal.append(vec![entry(0)]).await.is_err());
        drop(journal);
        let report = verify(&disk).unwrap();
        assert_eq!((report.entries, report.incomplete), (last, None), "room {room}");
        let (journal, _) = open(&disk, last).unwrap();
        journal.append(vec![entry(last + 1)]).await.unwrap();
    }
}

/// Without the mark, as after a power loss that took it, and with no store's word: what may be cut and what
/// may not.
#[tokio::test]
async fn only_what_one_write_can_have_torn_is_cut() {
    let disk = Disk::new(5);
    journal_of(&disk, 4).await;
    let name = last_segment(&disk);
    let whole = disk.content(&name);
    disk.put(MARK, None);
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    let before = whole.len() - lines[3].len();

    // A torn last line, at every length.
    for length in before + 1..whole.len() {
        disk.put(&name, Some(whole[..length].to_vec()));
        let (journal, recovery) = open(&disk, 3).unwrap();
        let cut = recovery.cut.unwrap();
        assert_eq!((cut.sequence, cut.offset, cut.bytes), (4, before as u64, (length - before) as u64));
        assert_eq!(numbers(&journal), [1, 2, 3]);
        journal.append(vec![entry(40)]).await.unwrap();
        drop(journal);
        assert_eq!(verify(&disk).unwrap().entries, 4);
        disk.put(MARK, None);
        // A store that has applied it makes it damage.
        disk.put(&name, Some(whole[..length].to_vec()));
        let error = open(&disk, 4).unwrap_err().to_string();
        assert!(error.contains("entry 4") && error.contains("the store sled"), "{error}");
        assert_eq!(disk.content(&name).len(), length, "a refused journal was changed");
    }

    // Zeros and garbage behind whole entries.
    let mut random = Random(9);
    let garbage: Vec<u8> = (0..9000).map(|_| random.next().to_le_bytes()[0]).collect();
    let zeros = vec![0; 8192];
    let newlines = vec![b'\n'; 300];
    for tail in [&garbage, &zeros, &newlines, &b"{\"seq\":5,\"prev\"".to_vec(), &b"x".to_vec()] {
        disk.put(&name, Some([&whole, tail.as_slice()].concat()));
        let (journal, recovery) = open(&disk, 4).unwrap();
        assert_eq!(recovery.cut.unwrap().bytes, tail.len() as u64);
        assert_eq!(numbers(&journal), [1, 2, 3, 4]);
        drop(journal);
        disk.put(MARK, None);
    }

    // More than one write can leave.
    let many = vec![0; usize::try_from(MAX_UNSYNCED_BYTES).unwrap() + 1];
    disk.put(&name, Some([&whole, many.as_slice()].concat()));
    let error = open(&disk, 4).unwrap_err().to_string();
    assert!(error.contains("more than one write"), "{error}");

    // Entry 2 spoiled: entries 3 and 4 were written after its fsync, so it can't be torn.
    let mut spoiled = whole.clone();
    let second = lines[0].len();
    spoiled[second..second + 20].fill(0);
    disk.put(&name, Some(spoiled));
    let error = open(&disk, 0).unwrap_err().to_string();
    assert!(
        error.contains("entry 2") && error.contains("line 2") && error.contains("written whole"),
        "{error}"
    );

    // An entry that is one, but not of this chain.
    let stranger = Disk::new(6);
    journal_of(&stranger, 1).await;
    let (journal, _) = open(&stranger, 0).unwrap();
    journal.append(vec![entry(99), entry(100), entry(101)]).await.unwrap();
    drop(journal);
    let strange = stranger.content(&last_segment(&stranger));
    let second = strange.split_inclusive(|byte| *byte == b'\n').nth(1).unwrap();
    disk.put(&name, Some([lines[0], lines[1], second].concat()));
    let error = open(&disk, 0).unwrap_err().to_string();
    assert!(error.contains("stands where 3 should"), "{error}");
    disk.put(&name, Some([lines[0], lines[1], lines[3]].concat()));
    assert!(open(&disk, 0).is_err());
}

/// One write of several entries, of which a power loss took the middle.
#[tokio::test]
async fn a_hole_in_the_last_write_is_cut_with_what_follows() {
    let disk = Disk::new(7);
    journal_of(&disk, 2).await;
    let (journal, _) = open(&disk, 0).unwrap();
    journal.append((3..9).map(|number| sized(number, 100)).collect()).await.unwrap();
    drop(journal);
    let name = last_segment(&disk);
    let whole = disk.content(&name);
    let starts: Vec<usize> = std::iter::once(0)
        .chain(whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1))
        .collect();
    for hole in 2..7 {
        let mut content = whole.clone();
        content[starts[hole] + 10..starts[hole] + 60].fill(0);
        disk.put(&name, Some(content.clone()));
        // The mark says that the write was synced: damage.
        let error = open(&disk, 0).unwrap_err().to_string();
        assert!(error.contains("the mark of the last fsync"), "{error}");
        let mark = disk.content(MARK);
        disk.put(MARK, None);
        let (journal, recovery) = open(&disk, 2).unwrap();
        assert_eq!(recovery.cut.unwrap().sequence, hole as u64 + 1);
        assert_eq!(numbers(&journal), (1..=hole as u64).collect::<Vec<_>>());
        drop(journal);
        disk.put(MARK, Some(mark));
    }
}

#[tokio::test]
async fn no_changed_byte_goes_unseen() {
    let disk = Disk::new(8);
    journal_of(&disk, 30).await;
    let segments: Vec<String> =
        disk.names().into_iter().filter(|name| format::segment_first(name).is_some()).collect();
    assert!(segments.len() >= 2);
    let mut random = Random(1);
    for name in &segments {
        let whole = disk.content(name);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1 << random.below(8);
            disk.put(name, Some(changed));
            match verify(&disk) {
                Err(JournalError::Broken { sequence, .. }) => assert!((1..=30).contains(&sequence)),
                other => panic!("{name}, byte {at}: {other:?}"),
            }
            assert!(open(&disk, 0).is_err());
        }
        disk.put(name, Some(whole));
    }
    verify(&disk).unwrap();
}

#[tokio::test]
async fn missing_parts_are_named() {
    let disk = Disk::new(9);
    journal_of(&disk, 80).await;
    let segments: Vec<String> =
        disk.names().into_iter().filter(|name| format::segment_first(name).is_some()).collect();
    assert!(segments.len() >= 4);
    for (index, name) in segments.iter().enumerate() {
        let whole = disk.content(name);
        disk.put(name, None);
        let error = open(&disk, 0).unwrap_err();
        match (&error, index + 1 == segments.len()) {
            (JournalError::Short { known: 80, .. }, true) => {}
            (JournalError::Broken { detail, .. }, false) => assert!(detail.contains("missing"), "{detail}"),
            _ => panic!("{error}"),
        }
        // A segment that isn't the last, cut short by some entries, or in the midst of one.
        for length in [whole.len() - 1, whole.len() / 2, 0] {
            disk.put(name, Some(whole[..length].to_vec()));
            assert!(open(&disk, 0).is_err(), "{name} {length}");
        }
        disk.put(name, Some(whole));
    }
    // Everything gone, but a store knows better.
    for name in disk.names() {
        disk.put(&name, None);
    }
    let error = open(&disk, 3).unwrap_err().to_string();
    assert!(error.contains("ends at entry 0") && error.contains("entry 3"), "{error}");
    open(&disk, 0).unwrap();
}

#[tokio::test]
async fn a_start_verifies_from_the_checkpoint() {
    let disk = Disk::new(10);
    journal_of(&disk, 60).await;
    let (journal, recovery) = open(&disk, 60).unwrap();
    assert_eq!((recovery.verified, recovery.checkpoint), (60, None));
    for bad in [0, 61] {
        journal.write_checkpoint(bad).await.unwrap_err();
    }
    let checkpoint = journal.write_checkpoint(55).await.unwrap();
    drop(journal);
    let (journal, recovery) = open(&disk, 60).unwrap();
    assert_eq!(recovery.checkpoint, Some(checkpoint));
    assert!(recovery.verified < 30, "{}", recovery.verified);
    drop(journal);

    // Before it, what binds the segments is still looked at; what is within them only by a full verification.
    let first = segment_name(1);
    let whole = disk.content(&first);
    let mut changed = whole.clone();
    let middle = whole.len() / 2;
    changed[middle] ^= 1;
    disk.put(&first, Some(changed));
    drop(open(&disk, 60).unwrap());
    assert!(verify(&disk).is_err());
    let mut changed = whole.clone();
    let end = whole.len() - 5;
    changed[end] ^= 1;
    disk.put(&first, Some(changed));
    assert!(open(&disk, 60).is_err());
    disk.put(&first, Some(whole));

    // Another entry at its place, and a file that is none.
    let text = String::from_utf8(disk.content("checkpoint.json")).unwrap();
    let other = text.replace("\"seq\":55", "\"seq\":54");
    disk.put("checkpoint.json", Some(other.into_bytes()));
    let error = open(&disk, 60).unwrap_err().to_string();
    assert!(error.contains("checkpoint"), "{error}");
    for bad in ["", "{}", "{\"seq\":0,\"hash\":\"\"}", "{\"seq\":1,\"hash\":\"zz\"}"] {
        disk.put("checkpoint.json", Some(bad.into()));
        let error = open(&disk, 60).unwrap_err().to_string();
        assert!(error.contains("checkpoint.json is damaged"), "{error}");
    }
}

#[tokio::test]
async fn a_checkpoint_is_the_same_whether_its_entry_is_remembered_or_looked_for() {
    let disk = Disk::new(10);
    let (journal, _) = open(&disk, 0).unwrap();
    let mut ends = Vec::new();
    for number in 1..=20_u64 {
        let entries = (0..number % 4).map(|n| entry(number * 10 + n)).collect::<Vec<_>>();
        if !entries.is_empty() {
            ends.push(journal.append(entries).await.unwrap().last);
        }
    }
    // In the middle of appends it always has to look.
    let all = 1..=journal.head().sequence;
    let mut remembered = Vec::new();
    for sequence in all.clone() {
        remembered.push(journal.write_checkpoint(sequence).await.unwrap());
    }
    assert!(ends.iter().all(|end| journal.writer.recent(*end).is_some()), "{ends:?}");
    drop(journal);
    let (journal, _) = open(&disk, 0).unwrap();
    for (sequence, remembered) in all.zip(remembered) {
        assert_eq!(journal.write_checkpoint(sequence).await.unwrap(), remembered);
    }
}

#[tokio::test]
async fn a_torn_mark_is_no_mark() {
    let disk = Disk::new(11);
    journal_of(&disk, 3).await;
    let mark = disk.content(MARK);
    for length in 0..mark.len() {
        disk.put(MARK, Some(mark[..length].to_vec()));
        assert_eq!(numbers(&open(&disk, 3).unwrap().0), [1, 2, 3]);
    }
    disk.put(MARK, Some(vec![0xff; 1000]));
    assert_eq!(numbers(&open(&disk, 3).unwrap().0), [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_a_chain_of_its_own() {
    let (dir, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (journal, _) = Journal::open(dir.path(), Chain::Governance, Uuid::nil(), options(), &[]).unwrap();
    let journal = Arc::new(journal);
    let writer = tokio::spawn({
        let journal = Arc::clone(&journal);
        async move {
            for number in 1..200 {
                journal.append(vec![entry(number)]).await.unwrap();
            }
        }
    });
    let mut copies = 0_u32;
    while !writer.is_finished() || copies == 0 {
        let to = target.path().join(copies.to_string());
        let head = journal.copy_to(&to).await.unwrap();
        let (copy, recovery) = Journal::open(&to, Chain::Governance, Uuid::nil(), options(), &[]).unwrap();
        assert_eq!((recovery.head, recovery.cut), (head, None));
        assert_eq!(numbers(&copy), (1..=head.sequence).collect::<Vec<_>>());
        assert!(head.sequence == 0 || journal.copy_to(&to).await.is_err());
        copies += 1;
    }
    writer.await.unwrap();
    let settled: u64 = journal.segments().unwrap().iter().map(|segment| segment.bytes).sum();
    let on_disk: u64 =
        journal.segments().unwrap().iter().map(|segment| segment.path.metadata().unwrap().len()).sum();
    assert_eq!(settled, on_disk);
}

/// A chain as the first release wrote it. It must stay readable for ever.
#[test]
fn the_first_release_is_read() {
    let disk = Disk::new(12);
    disk.put(&segment_name(1), Some(include_bytes!("fixtures/1.jsonl").to_vec()));
    let (journal, recovery) = open(&disk, 3).unwrap();
    assert_eq!(recovery.cut, None);
    let entries: Vec<Entry> = journal.read_from(1).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(entries.len(), 3);
    assert_eq!((entries[2].sequence, entries[2].kind.as_str()), (3, "hold.placed"));
    assert_eq!(entries[2].data, json!({"case": "4711", "reason": "ü\n\""}));
    assert_eq!(entries[2].gateway.to_string(), "6f1c2a3b-0000-4000-8000-00000000000a");
}

#[derive(Debug, Clone)]
enum Change {
    Remove(usize, usize),
    Repeat(usize, usize),
    Insert(usize, Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    let bytes =
        prop_oneof![proptest::collection::vec(any::<u8>(), 1..50), Just(b"\n".to_vec()), Just(vec![0; 512]),];
    prop_oneof![
        (any::<usize>(), 1..600_usize).prop_map(|(at, length)| Change::Remove(at, length)),
        (any::<usize>(), 1..600_usize).prop_map(|(at, length)| Change::Repeat(at, length)),
        (any::<usize>(), bytes).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is done to a segment, what was synced is there as it was, or the journal doesn't open.
    #[test]
    fn a_changed_segment_is_never_taken_for_the_chain(changes in proptest::collection::vec(change(), 1..4), applied in 0..2_u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let disk = Disk::new(13);
        runtime.block_on(journal_of(&disk, 8));
        let name = last_segment(&disk);
        let whole = disk.content(&name);
        let mut content = whole.clone();
        for change in changes {
            let end = |at: usize, length: usize| (at + length).min(content.len());
            match change {
                Change::Remove(at, length) => {
                    let at = at % (content.len() + 1);
                    let end = end(at, length);
                    content.drain(at..end);
                }
                Change::Repeat(at, length) => {
                    let at = at % (content.len() + 1);
                    let part = content[at..end(at, length)].to_vec();
                    content.splice(at..at, part);
                }
                Change::Insert(at, bytes) => {
                    let at = at % (content.len() + 1);
                    content.splice(at..at, bytes);
                }
            }
        }
        disk.put(&name, Some(content.clone()));
        if let Ok((journal, recovery)) = open(&disk, applied * 8) {
            prop_assert!(content.starts_with(&whole));
            prop_assert_eq!(recovery.cut.is_some(), content.len() > whole.len());
            prop_assert_eq!(numbers(&journal), (1..=8).collect::<Vec<_>>());
        }
        // Without the mark there may be less, but nothing else: only the last entry, whose hash no other holds, may be one
        // that was put together of two.
        disk.put(MARK, None);
        disk.put(&name, Some(content));
        if let Ok((journal, _)) = open(&disk, 0) {
            let found = numbers(&journal);
            let sure = found.len().saturating_sub(1);
            prop_assert_eq!(&found[..sure], &(1..=sure as u64).collect::<Vec<_>>()[..]);
        }
    }
}
