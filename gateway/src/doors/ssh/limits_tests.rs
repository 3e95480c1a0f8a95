//! Limits of bandwidth and sessions, as the door applies them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::HashSet,
    num::NonZeroU64,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::sync::Semaphore;

use super::testing::{
    Memory, Pace, TestDoor, byte_at, config, deadline, limits, read_body, string, throttle,
};
use crate::config::{Limits, Quota};

fn bandwidth(bytes: u64) -> Quota {
    Quota { bandwidth: NonZeroU64::new(bytes), max_sessions: None }
}

/// The bytes of a DATA, which has to be one.
fn data((kind, answer): (u8, Vec<u8>)) -> Vec<u8> {
    assert_eq!(kind, 103, "data is due: {}", String::from_utf8_lossy(&answer));
    answer[4..].to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_kept_waiting_is_not_idle() {
    let limits = Limits { idle_timeout: Duration::from_secs(1), ..limits() };
    let memory = Memory::new(&[("/a.wav", 1 << 20, Pace::Hot)]);
    let mut door = TestDoor::open_limited(memory, config(), limits, throttle()).await;
    door.limit(bandwidth(64 << 10));
    let mut raw = door.raw().await;
    let file = raw.open(3, "/a.wav").await;
    // 32 KiB are there at once, the rest takes two seconds, in which nothing moves.
    let got = data(raw.ask(5, &read_body(&file, 0, 160 << 10)).await);
    assert_eq!(got, (0..160 << 10).map(byte_at).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_read_is_neither_read_nor_in_the_way() {
    let memory = Memory::new(&[("/a.wav", 1 << 20, Pace::Hot)]);
    let served = Arc::clone(&memory.served);
    let mut door = TestDoor::open(memory).await;
    door.limit(bandwidth(64 << 10));
    let mut raw = door.raw().await;
    let file = raw.open(3, "/a.wav").await;
    assert_eq!(data(raw.ask(5, &read_body(&file, 0, 32 << 10)).await).len(), 32 << 10);
    let mut waiting = HashSet::new();
    for _ in 0..3 {
        waiting.insert(raw.request(5, &read_body(&file, 0, 255 << 10)).await.to_be_bytes());
    }
    // What isn't paced passes them.
    let before = served.load(Ordering::Relaxed);
    let stat = raw.request(8, &string(&file)).await;
    let answer = raw.receive().await.unwrap();
    assert_eq!((answer[0], &answer[1..5]), (105, &stat.to_be_bytes()[..]));
    assert_eq!(served.load(Ordering::Relaxed), before);
    // A limit that is lifted lets them go at once.
    door.limit(Quota::default());
    while !waiting.is_empty() {
        let answer = raw.receive().await.unwrap();
        assert_eq!((answer[0], answer.len()), (103, 9 + (255 << 10)));
        assert!(waiting.remove(&answer[1..5]), "an answer to nothing: {:?}", &answer[1..5]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_is_free_when_the_connection_is_gone() {
    let gate = Arc::new(Semaphore::new(0));
    let memory = Memory::new(&[("/a.wav", 1 << 20, Pace::Gated(Arc::clone(&gate)))]);
    let mut door = TestDoor::open(memory).await;
    door.limit(Quota { bandwidth: None, max_sessions: Some(1) });
    let mut raw = door.raw().await;
    let file = raw.open(3, "/a.wav").await;
    raw.request(5, &read_body(&file, 0, 1000)).await;
    let refused = door.sftp("acme/anna", "ls\n").await;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("too many sessions of this tenant: at most 1 at once"), "{told}");
    assert_eq!(door.identity.sessions(1), (1, Some(1)));
    // A read that storage never answers keeps no place.
    raw.child.kill().await.unwrap();
    deadline(async {
        while door.identity.sessions(1).0 > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(door.sftp("acme/anna", "ls\n").await.status.success());
}
