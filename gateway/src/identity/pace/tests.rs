//! In virtual time: nothing here waits for a clock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    future::Future,
    num::NonZeroU64,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures_util::FutureExt;
use proptest::prelude::*;
use tokio::{task::JoinSet, time::Instant};

use super::{
    super::tests::{tenant, user},
    *,
};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// What a timer may be late.
const TICK: Duration = Duration::from_millis(1);

fn rate(bytes: u64) -> Quota {
    Quota { bandwidth: NonZeroU64::new(bytes), max_sessions: None }
}

fn sessions(most: usize) -> Quota {
    Quota { bandwidth: None, max_sessions: Some(most) }
}

/// One tenant with two users.
fn limits(whole: Quota, first: Quota, second: Quota) -> Vec<Tenant> {
    let (mut one, mut two) = (user(1, None), user(2, Some("anna")));
    (one.quota, two.quota) = (first, second);
    let mut tenant = tenant(vec![one, two]);
    tenant.quota = whole;
    vec![tenant]
}

fn only(first: Quota) -> Limits {
    Limits::new(&limits(Quota::default(), first, Quota::default()))
}

fn start(limits: &Limits, user: u32) -> SessionPermit {
    limits.start((1, user)).unwrap()
}

fn quantum(rate: u64) -> u64 {
    bucket::quantum(NonZeroU64::new(rate).unwrap())
}

/// What a bucket holds at most.
fn burst(rate: u64) -> u64 {
    (rate / 10).max(quantum(rate))
}

fn bytes_in(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate) * time.as_nanos() / 1_000_000_000).unwrap()
}

/// Runs in virtual time.
fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(future)
}

/// A client that always has so many reads of one size outstanding; tells what it got.
fn client(tasks: &mut JoinSet<()>, pace: &Pace, size: u64, outstanding: usize) -> Arc<AtomicU64> {
    let got = Arc::new(AtomicU64::new(0));
    for _ in 0..outstanding {
        let (pace, got) = (pace.clone(), Arc::clone(&got));
        tasks.spawn(async move {
            loop {
                pace.take(usize::try_from(size).unwrap()).await;
                got.fetch_add(size, Ordering::Relaxed);
            }
        });
    }
    got
}

fn now(got: &AtomicU64) -> u64 {
    got.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_nothing_waits() {
    let limits = only(Quota::default());
    let permit = start(&limits, 1);
    for _ in 0..1000 {
        assert!(permit.pace().try_take(1 << 30));
        assert!(permit.pace().take(1 << 30).now_or_never().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn credit_that_is_there_is_taken_at_once_and_no_more() {
    let limits = only(rate(20 * MIB));
    let permit = start(&limits, 1);
    let mut taken = 0;
    while permit.pace().try_take(255 * 1024) {
        taken += 255 * KIB;
    }
    assert!(taken <= 2 * MIB && taken + 256 * KIB > 2 * MIB, "{taken}");
    // A pause of an hour gives no more than one of a tenth of a second.
    tokio::time::advance(Duration::from_secs(3600)).await;
    let mut again = 0;
    while permit.pace().try_take(255 * 1024) {
        again += 255 * KIB;
    }
    assert!(again <= 2 * MIB + quantum(20 * MIB), "{again}");
}

#[tokio::test(start_paused = true)]
async fn nobody_overtakes_whoever_waits() {
    let limits = only(rate(64 * KIB));
    let (waits, comes) = (start(&limits, 1), start(&limits, 1));
    waits.pace().take(32 * 1024).await;
    let mut waiting = Box::pin(waits.pace().take(32 * 1024));
    assert!((&mut waiting).now_or_never().is_none());
    // The credit has come, but it is for whoever came first.
    tokio::time::advance(Duration::from_millis(500)).await;
    assert!(!comes.pace().try_take(1), "another session");
    assert!(!waits.pace().try_take(1), "the session's own later read");
    assert!(waiting.now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_sessions_reads_come_in_the_order_in_which_they_lined_up() {
    let limits = only(rate(MIB));
    let permit = start(&limits, 1);
    let done = Arc::new(Mutex::new(Vec::new()));
    let reads: Vec<_> = (0..20).map(|number| (number, permit.pace().line_up(100 * 1024))).collect();
    let mut tasks = JoinSet::new();
    for (number, read) in reads.into_iter().rev() {
        let done = Arc::clone(&done);
        tasks.spawn(async move {
            read.await;
            done.lock().unwrap().push(number);
        });
    }
    tasks.join_all().await;
    // The first found its credit there, and ends when it is asked.
    let done = done.lock().unwrap().clone();
    let waited: Vec<_> = done.into_iter().filter(|number| *number > 0).collect();
    assert_eq!(waited, (1..20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_given_up_goes_to_the_next() {
    let limits = only(rate(64 * KIB));
    let permits: Vec<_> = (0..3).map(|_| start(&limits, 1)).collect();
    let begin = Instant::now();
    permits[0].pace().take(32 * 1024).await;
    let mut first = Box::pin(permits[1].pace().take(32 * 1024));
    let mut second = Box::pin(permits[2].pace().take(32 * 1024));
    assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
    tokio::time::advance(Duration::from_millis(250)).await;
    drop(first);
    second.await;
    assert!(begin.elapsed() <= Duration::from_millis(500) + TICK, "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_was_drawn_for_nothing_goes_back() {
    // The user's quantum is drawn, the tenant's is waited for: giving up returns the user's.
    let limits = Limits::new(&limits(rate(64 * KIB), rate(64 * KIB), Quota::default()));
    let (hungry, gives_up) = (start(&limits, 2), start(&limits, 1));
    hungry.pace().take(32 * 1024).await;
    assert!(gives_up.pace().take(32 * 1024).now_or_never().is_none());
    tokio::time::advance(Duration::from_millis(500)).await;
    assert!(gives_up.pace().try_take(32 * 1024));

    // What a session hasn't used when it ends is the others'.
    let limits = only(rate(64 * KIB));
    let (ends, stays) = (start(&limits, 1), start(&limits, 1));
    ends.pace().take(1).await;
    let (rest, all) = (32 * 1024 - 1, 32 * 1024);
    assert!(!stays.pace().try_take(1));
    drop(ends);
    let begin = Instant::now();
    stays.pace().take(all).await;
    assert!(begin.elapsed() <= 2 * TICK, "{rest} bytes were there: {:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_new_rate_counts_at_once() {
    let configured = |bandwidth: Quota| limits(Quota::default(), bandwidth, Quota::default());
    let limits = Limits::new(&configured(rate(64 * KIB)));
    let permit = start(&limits, 1);
    permit.pace().take(32 * 1024).await;
    for (new, at_most) in [(rate(MIB), Duration::from_millis(32)), (Quota::default(), Duration::ZERO)] {
        limits.replace(&configured(rate(64 * KIB)));
        let mut waiting = Box::pin(permit.pace().take(32 * 1024));
        assert!((&mut waiting).now_or_never().is_none());
        limits.replace(&configured(new));
        let begin = Instant::now();
        waiting.await;
        assert!(begin.elapsed() <= at_most + TICK, "{:?}", begin.elapsed());
    }
    // A limit that comes while the session runs; then a lower one, which takes what the larger bucket held.
    limits.replace(&configured(rate(20 * MIB)));
    assert!(permit.pace().try_take(1));
    limits.replace(&configured(rate(64 * KIB)));
    let begin = Instant::now();
    permit.pace().take(5 * 32 * 1024).await;
    assert!(begin.elapsed() >= Duration::from_millis(500), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn late_timers_cost_nothing() {
    // No quantum takes a whole number of milliseconds, and timers are late by up to one.
    const RATE: u64 = 1_000_003;
    let limits = only(rate(RATE));
    let permit = start(&limits, 1);
    let begin = Instant::now();
    for _ in 0..10_000 {
        permit.pace().take(32 * 1024).await;
    }
    let exact = Duration::from_nanos((10_000 * 32 * KIB - burst(RATE)) * 1_000_000_000 / RATE);
    let took = begin.elapsed();
    assert!(took >= exact && took <= exact + 2 * TICK, "{took:?}, not {exact:?}");
}

#[test]
fn one_outstanding_small_read_gets_as_much_as_64_large_ones() {
    run(async {
        let limits = only(rate(MIB));
        let (greedy, modest) = (start(&limits, 1), start(&limits, 1));
        let mut tasks = JoinSet::new();
        let greedy = client(&mut tasks, greedy.pace(), 255 * KIB, 64);
        let modest = client(&mut tasks, modest.pace(), 4 * KIB, 1);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let (greedy, modest) = (now(&greedy), now(&modest));
        assert!(greedy.abs_diff(modest) <= 256 * KIB + quantum(MIB), "{greedy} and {modest}");
        assert!(greedy + modest >= 59 * MIB, "{greedy} and {modest}");
    });
}

#[test]
fn a_users_limit_is_not_the_tenants() {
    run(async {
        let limits = Limits::new(&limits(rate(4 * MIB), rate(MIB), Quota::default()));
        let permits: Vec<_> = [1, 1, 2].map(|user| start(&limits, user)).into();
        let mut tasks = JoinSet::new();
        let got: Vec<_> =
            permits.iter().map(|permit| client(&mut tasks, permit.pace(), 32 * KIB, 4)).collect();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let got: Vec<_> = got.iter().map(|got| now(got) / MIB).collect();
        // The first user's two share 1 MiB/s, the other has the rest of the tenant's 4.
        assert!(got[0].abs_diff(30) <= 1 && got[1].abs_diff(30) <= 1 && got[2].abs_diff(180) <= 1, "{got:?}");
    });
}

#[tokio::test]
async fn sessions_are_counted_by_user_and_by_tenant() {
    let limits = Limits::new(&limits(sessions(3), sessions(2), Quota::default()));
    let first = [start(&limits, 1), start(&limits, 1)];
    let refused = limits.start((1, 1)).unwrap_err();
    assert_eq!(refused.to_string(), "too many sessions of this user: at most 2 at once");
    let other = start(&limits, 2);
    let refused = limits.start((1, 2)).unwrap_err();
    assert_eq!(refused.to_string(), "too many sessions of this tenant: at most 3 at once");
    assert_eq!(limits.sessions(1), (3, Some(3)));
    drop(other);
    assert_eq!(limits.start((1, 1)).unwrap_err(), TooManySessions::OfUser(2), "a refusal takes no place");
    drop(first);
    assert_eq!(limits.sessions(1), (0, Some(3)));
    assert_eq!(limits.sessions(9), (0, None));
}

#[tokio::test]
async fn counts_outlive_configurations() {
    let configured = |most| limits(Quota::default(), sessions(most), Quota::default());
    let limits = Limits::new(&configured(3));
    let mut running: Vec<_> = (0..3).map(|_| start(&limits, 1)).collect();
    limits.replace(&configured(1));
    assert_eq!(limits.sessions(1), (3, None), "nobody is thrown out");
    running.pop();
    assert_eq!(limits.start((1, 1)).unwrap_err(), TooManySessions::OfUser(1));
    // Removed and made anew while the sessions still run.
    limits.replace(&[]);
    limits.replace(&configured(2));
    assert_eq!(limits.start((1, 1)).unwrap_err(), TooManySessions::OfUser(2));
    running.pop();
    drop(start(&limits, 1));
    limits.replace(&[]);
    running.clear();
    limits.replace(&[]);
    assert!(limits.shares().users.is_empty() && limits.shares().tenants.is_empty());
}

/// Sizes and numbers of outstanding reads of a few clients.
fn clients() -> impl Strategy<Value = Vec<(u64, usize)>> {
    prop::collection::vec((KIB..=255 * KIB, 1..=64_usize), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Clients that want all they can get: together they get the rate, each of them the same.
    #[test]
    fn the_rate_is_reached_kept_and_shared(rate_of in 64 * KIB..200 * MIB, clients in clients()) {
        let (count, quantum) = (u64::try_from(clients.len()).unwrap(), quantum(rate_of));
        let largest = clients.iter().map(|(size, _)| *size).max().unwrap();
        let time = Duration::from_nanos(100 * count * quantum * 1_000_000_000 / rate_of);
        let (early, got): (Vec<u64>, Vec<u64>) = run(async {
            let limits = only(rate(rate_of));
            let permits: Vec<_> = clients.iter().map(|_| start(&limits, 1)).collect();
            let mut tasks = JoinSet::new();
            let got: Vec<_> = clients
                .iter()
                .zip(&permits)
                .map(|((size, outstanding), permit)| client(&mut tasks, permit.pace(), *size, *outstanding))
                .collect();
            // What the bucket holds goes to whoever comes first; nobody waits for it then.
            tokio::time::sleep(time / 20).await;
            let early = got.iter().map(|got| now(got)).collect();
            tokio::time::sleep(time - time / 20).await;
            (early, got.iter().map(|got| now(got)).collect())
        });
        let all: u64 = got.iter().sum();
        // The sleeps may be late as well.
        let most = bytes_in(rate_of, time + 3 * TICK) + burst(rate_of);
        prop_assert!(all <= most, "{all} in {time:?}");
        let in_hand = count * (largest + quantum) + bytes_in(rate_of, TICK);
        prop_assert!(all + in_hand >= bytes_in(rate_of, time) + burst(rate_of), "{all} in {time:?}");
        let grown = || got.iter().zip(&early).map(|(got, early)| got - early);
        let (least, most) = (grown().min().unwrap(), grown().max().unwrap());
        prop_assert!(most - least <= 2 * (largest + quantum) + quantum, "{:?}", grown().collect::<Vec<_>>());
    }

    /// Whatever clients do, pauses and reads that are given up among it: in no stretch of time they get more than the
    /// rate and a burst, and one that wants all it can get has all that the others leave.
    #[test]
    fn no_stretch_of_time_has_more(
        rate_of in 64 * KIB..20 * MIB,
        clients in prop::collection::vec(
            prop::collection::vec((0..3000_u64, 1..=255 * KIB, prop::option::of(0..2000_u64)), 1..12),
            1..5,
        ),
    ) {
        let (count, quantum) = (u64::try_from(clients.len()).unwrap() + 1, quantum(rate_of));
        let time = Duration::from_secs(20);
        let (taken, steady) = run(async {
            let limits = only(rate(rate_of));
            let begin = Instant::now();
            let taken: Arc<Mutex<Vec<(Duration, u64)>>> = Arc::default();
            let mut tasks = JoinSet::new();
            for steps in clients {
                let (permit, taken) = (start(&limits, 1), Arc::clone(&taken));
                tasks.spawn(async move {
                    for (pause, size, patience) in steps {
                        tokio::time::sleep(Duration::from_millis(pause)).await;
                        let patience = Duration::from_millis(patience.unwrap_or(1 << 32));
                        let take = permit.pace().take(usize::try_from(size).unwrap());
                        if tokio::time::timeout(patience, take).await.is_ok() {
                            taken.lock().unwrap().push((begin.elapsed(), size));
                        }
                    }
                });
            }
            let steady: Arc<AtomicU64> = Arc::default();
            let (permit, sum, all) = (start(&limits, 1), Arc::clone(&steady), Arc::clone(&taken));
            tasks.spawn(async move {
                loop {
                    permit.pace().take(32 * 1024).await;
                    sum.fetch_add(32 * KIB, Ordering::Relaxed);
                    all.lock().unwrap().push((begin.elapsed(), 32 * KIB));
                }
            });
            tokio::time::sleep(time).await;
            let taken = taken.lock().unwrap().clone();
            (taken, now(&steady))
        });
        // What a session had drawn before counts when its read is complete.
        let slack = burst(rate_of) + count * (255 * KIB + quantum) + bytes_in(rate_of, 2 * TICK);
        // Only beginnings and ends that differ from their neighbours need a look; a sample of them does.
        for first in (0..taken.len()).step_by(taken.len() / 50 + 1) {
            let mut sum = 0;
            for (at, size) in &taken[first..] {
                sum += size;
                let most = bytes_in(rate_of, *at - taken[first].0) + slack;
                prop_assert!(sum <= most, "{sum} from {:?} to {at:?}", taken[first].0);
            }
        }
        let all: u64 = taken.iter().map(|(_, size)| size).sum();
        prop_assert!(all + slack >= bytes_in(rate_of, time) + burst(rate_of), "{all}, of them {steady}");
    }
}
