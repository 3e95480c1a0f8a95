//! SIGKILL at random moments: a child process works on all stores, the parent kills it and looks.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::shim::Random;
use super::*;

/// Where the child works. Without it, the child's test returns at once.
const DIR: &str = "RECGATE_CRASH_DIR";
/// How many kills.
const ROUNDS: &str = "RECGATE_CRASH_ROUNDS";
/// To repeat a run.
const SEED: &str = "RECGATE_CRASH_SEED";

fn open_journal(dir: &Path, applied: u64) -> Journal {
    let options = JournalOptions { segment_bytes: 100_000, ..JournalOptions::default() };
    let gateway = gateway_id(dir).unwrap();
    Journal::open(dir, Chain::Governance, gateway, options, &[("redb", applied)]).unwrap().0
}

fn number_from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The child's part: journal, redb, sled, and then a line that says so.
#[test]
fn worker() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let dir = Path::new(&dir);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let _lock = DataDirLock::acquire(dir).unwrap();
        let journal = Arc::new(open_journal(dir, 0));
        let redb = Arc::new(RedbStore::open(&dir.join("catalog.redb")).unwrap());
        let opened = SledStore::open(&dir.join("governance")).unwrap();
        assert!(journal.head().sequence == 0 || opened.state == OpenState::Clean, "{:?}", opened.state);
        let sled = Arc::new(opened.store);
        let first = journal.head().sequence * 1000;
        let tasks: Vec<_> = (0..6)
            .map(|task: u64| {
                let (journal, redb, sled) = (Arc::clone(&journal), Arc::clone(&redb), Arc::clone(&sled));
                tokio::spawn(async move {
                    for number in first.. {
                        let key = [task.to_be_bytes(), number.to_be_bytes()].concat();
                        let data = json!({"task": task, "number": number});
                        let sequence =
                            journal.append(vec![NewEntry::new("work", &data).unwrap()]).await.unwrap().last;
                        say(&format!("journal {task} {number} {sequence}\n"));
                        let mut batch = Batch::new();
                        batch.put(key.clone(), sequence.to_be_bytes()).put(task.to_be_bytes(), key.clone());
                        redb.commit(batch.clone()).await.unwrap();
                        say(&format!("redb {task} {number} {sequence}\n"));
                        sled.commit(batch).await.unwrap();
                        // Some rounds are killed within a checkpoint.
                        if number % 64 == 63 {
                            journal.write_checkpoint(sequence).await.unwrap();
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// One write a line, so that the parent sees whole lines or nothing.
fn say(line: &str) {
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    std::io::stdout().lock().flush().unwrap();
}

/// What the child said before it was killed: per store, the sequence number of each piece of work.
type Said = BTreeMap<(String, u64, u64), u64>;

fn run_and_kill(dir: &Path, wait: Duration) -> Said {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "state::crash::worker", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (started, start) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut said = Said::new();
        let mut line = String::new();
        while output.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["journal" | "redb", task, number, sequence] = words[..] {
                let key = (words[0].to_owned(), task.parse().unwrap(), number.parse().unwrap());
                said.insert(key, sequence.parse().unwrap());
                let _ = started.send(());
            }
            line.clear();
        }
        said
    });
    // Work has begun, or the child has ended before and the channel with it.
    let begun = start.recv_timeout(Duration::from_secs(60));
    // Not to wait for anything: the moment of the kill is what is random here.
    std::thread::sleep(wait);
    child.kill().unwrap();
    child.wait().unwrap();
    let said = reader.join().unwrap();
    assert!(begun.is_ok() && !said.is_empty(), "the child did nothing");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigkill_loses_nothing_acknowledged() {
    let rounds = number_from_environment(ROUNDS).unwrap_or(30);
    let seed = number_from_environment(SEED)
        .unwrap_or_else(|| u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos()));
    let mut random = Random(seed);
    let root = tempfile::tempdir().unwrap();
    let dir = root.path();
    let mut acknowledged = Said::new();
    for round in 0..rounds {
        let context = format!("seed {seed} ({SEED}), round {round}");
        let wait = Duration::from_micros(random.below(120_000));
        acknowledged.extend(run_and_kill(dir, wait));
        let _lock = DataDirLock::acquire(dir).unwrap_or_else(|e| panic!("{context}: {e}"));

        let redb = RedbStore::open(&dir.join("catalog.redb")).unwrap_or_else(|e| panic!("{context}: {e}"));
        let mut applied = 0;
        let keys: Vec<_> = acknowledged.iter().filter(|((store, _, _), _)| store == "redb").collect();
        let wanted: Vec<Vec<u8>> = keys
            .iter()
            .map(|((_, task, number), _)| [task.to_be_bytes(), number.to_be_bytes()].concat())
            .collect();
        for ((key, sequence), found) in keys.iter().zip(redb.get_many(&wanted).await.unwrap()) {
            let found = found.unwrap_or_else(|| panic!("{context}: redb lost {key:?}"));
            assert_eq!(found.value.as_ref(), sequence.to_be_bytes(), "{context}");
            applied = applied.max(**sequence);
        }
        // Both keys of a batch are there: the last of a task exists itself.
        for task in 0..6_u64 {
            if let Some(last) = redb.get(&task.to_be_bytes()).await.unwrap() {
                assert!(redb.get(&last.value).await.unwrap().is_some(), "{context}: half a batch");
            }
        }

        let journal = open_journal(dir, applied);
        let report = Journal::verify(dir, Chain::Governance).unwrap_or_else(|e| panic!("{context}: {e}"));
        let entries: Vec<_> = journal.read_from(1).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!((report.entries, report.incomplete), (entries.len() as u64, None), "{context}");
        for ((_, task, number), sequence) in &acknowledged {
            let entry = &entries[usize::try_from(*sequence - 1).unwrap()];
            assert_eq!(entry.data, json!({"task": task, "number": number}), "{context}: entry {sequence}");
        }

        let opened = SledStore::open(&dir.join("governance")).unwrap();
        assert!(matches!(opened.state, OpenState::Rebuild { set_aside: Some(_), .. }), "{context}");
        for part in entries.chunks(500) {
            let mut batch = Batch::new();
            for entry in part {
                batch.put(entry.sequence.to_be_bytes(), entry.data.to_string());
            }
            opened.store.commit(batch).await.unwrap();
        }
        opened.store.close().await.unwrap();
    }
    let opened = SledStore::open(&dir.join("governance")).unwrap();
    assert_eq!(opened.state, OpenState::Clean);
    assert!(acknowledged.len() as u64 > rounds, "seed {seed}: only {} acknowledged", acknowledged.len());
}
