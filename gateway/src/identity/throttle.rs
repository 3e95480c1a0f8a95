//! Slows down who guesses passwords, and nobody else.
//!
//! Everything is counted by address ([`Origin`]), nothing by login: a tenant's name is no secret, and whoever could
//! lock it by failing would. Three things follow from what an address does:
//!
//! - Its failed logins are answered later and later: the first one at once, then after 1, 2, 4, 8 … seconds. A failure
//!   is forgotten after `failure_window / refuse_after`, so that a person's slips of the hand don't add up.
//! - `refuse_after` failures within the window, and it is refused for a while: new connections and password checks
//!   alike. The next refusal takes twice as long, up to `refuse_at_most`; how often it was is forgotten when an address
//!   has kept quiet for that long.
//! - Its connections are paced: `connection_burst` at once, then `connections_per_second`. Those that come too early
//!   wait, silent, at most [`LONGEST_WAIT`]; those that would wait longer are turned away. A key exchange costs the
//!   gateway more than the client, so nobody may ask for many.
//!
//! An address that logged in lately is spared: its connections are neither refused nor paced. Its passwords are checked
//! on for the tenant that it logged in to, one each [`SPARED_INTERVAL`] once it has failed `refuse_after` times (those
//! that come faster wait, up to [`SPARED_WAIT`], beyond which they are refused); for any other tenant it is refused like a stranger, so that who has one login can't guess others'. So neither a
//! stranger behind the same NAT nor a script with an old password shuts out an office that works; and where a whole
//! office connects at once, its first login lets all pass that wait. A login excuses no failure: those who guess may
//! have a login of their own.
//!
//! ## Memory
//!
//! Two tables, of [`TRACKED`] addresses with something against them and [`SPARED`] that are spared; some hundred bytes
//! an entry, 40 MB for both when full (a botnet's or an IPv6 provider's worth of addresses). A full table forgets what
//! would end first: a pace is forgotten within seconds, a failure within a minute, a refusal last. Strangers never take
//! a spared address's place.

use std::{
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{origin::Origin, table::Table};
use crate::config;

/// Addresses with something against them that are remembered.
const TRACKED: usize = 50_000;
/// Addresses that are spared.
const SPARED: usize = 50_000;
/// Tenants that an address is spared for: those that it logged in to last.
const SPARED_TENANTS: usize = 8;
/// Between two checks of passwords of a spared address that has failed too often.
const SPARED_INTERVAL: Duration = Duration::from_secs(1);
/// The longest that one waits for that.
const SPARED_WAIT: Duration = Duration::from_secs(10);
/// The longest that a connection waits for its turn. Less than clients wait for a greeting: paramiko gives up after
/// 15 seconds, `ssh-audit` after 5.
pub const LONGEST_WAIT: Duration = Duration::from_secs(4);
/// The worst addresses that a status names.
const WORST: usize = 5;
/// No time here is longer; it keeps sums within what an [`Instant`] can be.
const LONGEST_TIME: Duration = Duration::from_secs(10 * 366 * 86_400);

/// See the [module](self).
#[derive(Debug)]
pub struct Throttle {
    state: Mutex<State>,
    /// An address has become spared.
    spared_one: Notify,
}

/// An address is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}, for {} more seconds", retry_after.as_millis().div_ceil(1000))]
pub struct Refused {
    /// From then on it would be heard.
    pub retry_after: Duration,
    /// Why.
    pub reason: RefusedFor,
}

/// What an address is turned away for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedFor {
    /// It failed to log in too often.
    #[error("too many failed logins from this address")]
    Failures,
    /// It connects too often and hasn't logged in.
    #[error("too many connections at once from an address that hasn't logged in")]
    Pace,
}

/// How the throttle is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ThrottleStatus {
    /// Addresses that something is remembered of, without those that are spared.
    pub tracked: usize,
    /// Those among them that are refused now.
    pub refused: usize,
    /// Addresses that logged in lately.
    pub spared: usize,
    /// The worst first: refused ones, then those with most failures. Five at most.
    pub worst: Vec<WorstAddress>,
}

/// An address with failed logins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorstAddress {
    /// Which.
    pub origin: Origin,
    /// Failures that aren't forgotten yet; those that led to a refusal are told by the refusal.
    pub failures: u32,
    /// How often in a row it was refused.
    pub refusals: u32,
    /// How long it will be refused.
    pub refused_for: Duration,
}

#[derive(Debug)]
struct State {
    settings: config::Throttle,
    troubles: Table<Trouble>,
    spared: Table<Vec<Spared>>,
}

/// An address logged in to a tenant.
#[derive(Debug, Clone, Copy)]
struct Spared {
    tenant: u32,
    until: Instant,
}

/// What is held against an address. Times that are past mean nothing.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    /// When a connection would be due, were they evenly spaced (the generic cell rate algorithm).
    due: Instant,
    /// When its next password may be checked, were it refused but that it is spared.
    check_due: Instant,
    /// When its last failure will be forgotten. Each lengthens this by what a failure is remembered for.
    failed_until: Instant,
    refused_until: Instant,
    /// How often it was refused in a row, and when that is forgotten.
    refusals: u32,
    refusals_until: Instant,
}

impl Throttle {
    /// One that remembers nothing.
    pub fn new(settings: config::Throttle) -> Self {
        Self::with_limits(settings, TRACKED, SPARED)
    }

    fn with_limits(settings: config::Throttle, tracked: usize, spared: usize) -> Self {
        let state = State { settings, troubles: Table::new(tracked), spared: Table::new(spared) };
        Self { state: Mutex::new(state), spared_one: Notify::new() }
    }

    /// Takes other settings. What is remembered stays.
    pub fn configure(&self, settings: config::Throttle) {
        self.state().settings = settings;
    }

    /// A connection comes from an address. It may go on after the time that is returned, see [`Throttle::wait`].
    ///
    /// # Errors
    /// [`Refused`]: it is to be closed before it costs anything.
    pub fn connect(&self, from: IpAddr, now: Instant) -> Result<Duration, Refused> {
        let origin = Origin::from(from);
        let mut state = self.state();
        if state.is_spared(origin, now) {
            return Ok(Duration::ZERO);
        }
        let mut trouble = state.trouble(origin, now);
        trouble.check(now)?;
        let interval = Duration::from_secs(1) / state.settings.connections_per_second.max(1);
        let burst = interval.saturating_mul(state.settings.connection_burst.max(1) - 1);
        let due = trouble.due.max(now);
        let wait = due.duration_since(now).saturating_sub(burst);
        if wait > LONGEST_WAIT {
            let retry_after = wait.saturating_sub(LONGEST_WAIT);
            return Err(Refused { retry_after, reason: RefusedFor::Pace });
        }
        trouble.due = later(due, interval);
        state.put(origin, trouble, now);
        Ok(wait)
    }

    /// Waits for a connection's turn: as long as [`Throttle::connect`] said, or until its address has become spared.
    pub async fn wait(&self, from: IpAddr, wait: Duration) {
        if wait.is_zero() {
            return;
        }
        let mut turn = std::pin::pin!(tokio::time::sleep(wait));
        loop {
            // Asked for before the look, so that no news falls between.
            let news = self.spared_one.notified();
            if self.is_spared(from, Instant::now()) {
                return;
            }
            tokio::select! {
                () = &mut turn => return,
                () = news => {}
            }
        }
    }

    /// A login failed; `tenant` is the one that it names, if there is such a one. Returns how long the answer has to
    /// wait.
    pub fn failed(&self, from: IpAddr, tenant: Option<u32>, now: Instant) -> Duration {
        let origin = Origin::from(from);
        let mut state = self.state();
        let settings = state.settings.clone();
        let spared = state.is_spared_for(origin, tenant, now);
        let mut trouble = state.trouble(origin, now);
        if !spared && trouble.refused_until > now {
            // A check that was under way when the refusal began.
            return settings.delay_at_most;
        }
        let remembered = settings.failure_memory();
        let most = settings.failure_window.min(LONGEST_TIME);
        trouble.failed_until = later(trouble.failed_until.max(now), remembered).min(later(now, most));
        let failures = trouble.failures(now, remembered);
        if !spared && failures >= settings.refuse_after {
            let before = trouble.refusals(now);
            let doubled = settings.refuse_for.saturating_mul(1_u32 << before.min(31));
            let refused_for = doubled.min(settings.refuse_at_most);
            trouble.refusals = before.saturating_add(1);
            trouble.refused_until = later(now, refused_for);
            trouble.refusals_until = later(trouble.refused_until, settings.refuse_at_most);
            trouble.failed_until = now;
            tracing::warn!(
                address = %origin, failures, seconds = refused_for.as_secs_f64(),
                "an address is refused for its failed logins"
            );
        }
        state.put(origin, trouble, now);
        match failures.checked_sub(2) {
            None => Duration::ZERO,
            Some(doublings) => Duration::from_secs(1 << doublings.min(31)).min(settings.delay_at_most),
        }
    }

    /// The longest time that [`Throttle::failed`] returns.
    pub fn longest_delay(&self) -> Duration {
        self.state().settings.delay_at_most
    }

    /// Whether a password of this address may be checked for a login of this tenant (`None`: there is no such one), and
    /// after which time. To be asked once a password; [`Throttle::may_still_check`] looks again.
    ///
    /// # Errors
    /// [`Refused`]: the answer is the same as for a wrong one, and nothing is hashed.
    pub fn may_check(&self, from: IpAddr, tenant: Option<u32>, now: Instant) -> Result<Duration, Refused> {
        let origin = Origin::from(from);
        let mut state = self.state();
        let mut trouble = state.trouble(origin, now);
        if !state.is_spared_for(origin, tenant, now) {
            return trouble.check(now).map(|()| Duration::ZERO);
        }
        let failures = trouble.failures(now, state.settings.failure_memory());
        if failures < state.settings.refuse_after {
            return Ok(Duration::ZERO);
        }
        let wait = trouble.check_due.saturating_duration_since(now);
        if wait > SPARED_WAIT {
            let retry_after = wait.saturating_sub(SPARED_WAIT);
            return Err(Refused { retry_after, reason: RefusedFor::Failures });
        }
        trouble.check_due = later(trouble.check_due.max(now), SPARED_INTERVAL);
        state.put(origin, trouble, now);
        Ok(wait)
    }

    /// Whether a check that was allowed still is, after it has waited for its turn: others of its address may have
    /// failed meanwhile.
    ///
    /// # Errors
    /// As [`Throttle::may_check`].
    pub fn may_still_check(&self, from: IpAddr, tenant: Option<u32>, now: Instant) -> Result<(), Refused> {
        let origin = Origin::from(from);
        let state = self.state();
        if state.is_spared_for(origin, tenant, now) { Ok(()) } else { state.trouble(origin, now).check(now) }
    }

    /// Somebody logged in to this tenant: the address is spared from here on for a while.
    pub fn succeeded(&self, from: IpAddr, tenant: u32, now: Instant) {
        let origin = Origin::from(from);
        let mut state = self.state();
        let news = !state.is_spared(origin, now);
        state.spare(origin, tenant, now);
        drop(state);
        if news {
            self.spared_one.notify_waiters();
        }
    }

    /// A session has ended: its address is spared from now on, not from its login on.
    pub fn left(&self, from: IpAddr, tenant: u32, now: Instant) {
        self.state().spare(from.into(), tenant, now);
    }

    /// Whether somebody logged in from there lately, to whichever tenant.
    pub fn is_spared(&self, from: IpAddr, now: Instant) -> bool {
        self.state().is_spared(from.into(), now)
    }

    /// How it is. Looks at all that is remembered: for an operator, not for each request.
    pub fn status(&self, now: Instant) -> ThrottleStatus {
        let state = self.state();
        let remembered = state.settings.failure_memory();
        let mut status =
            ThrottleStatus { spared: state.spared.iter(now).count(), ..ThrottleStatus::default() };
        for (origin, trouble) in state.troubles.iter(now) {
            status.tracked += 1;
            let refused_for = trouble.refused_until.saturating_duration_since(now);
            let (failures, refusals) = (trouble.failures(now, remembered), trouble.refusals(now));
            if !refused_for.is_zero() {
                status.refused += 1;
            } else if failures == 0 {
                continue;
            }
            status.worst.push(WorstAddress { origin, failures, refusals, refused_for });
            if status.worst.len() > 20 * WORST {
                WorstAddress::keep_worst(&mut status.worst);
            }
        }
        drop(state);
        WorstAddress::keep_worst(&mut status.worst);
        status
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_spared(&self, origin: Origin, now: Instant) -> bool {
        self.spared.get(origin, now).is_some()
    }

    fn is_spared_for(&self, origin: Origin, tenant: Option<u32>, now: Instant) -> bool {
        let spared = self.spared.get(origin, now);
        spared.is_some_and(|all| all.iter().any(|one| Some(one.tenant) == tenant && one.until > now))
    }

    fn spare(&mut self, origin: Origin, tenant: u32, now: Instant) {
        let until = later(now, self.settings.spare_for);
        let mut all = self.spared.get(origin, now).cloned().unwrap_or_default();
        all.retain(|one| one.tenant != tenant && one.until > now);
        if all.len() >= SPARED_TENANTS {
            all.remove(0);
        }
        // The last one lasts longest, but where a reload has shortened the time.
        all.push(Spared { tenant, until });
        self.spared.put(origin, all, until, now);
    }

    fn trouble(&self, origin: Origin, now: Instant) -> Trouble {
        self.troubles.get(origin, now).copied().unwrap_or_else(|| Trouble::none(now))
    }

    fn put(&mut self, origin: Origin, trouble: Trouble, now: Instant) {
        let Trouble { due, check_due, failed_until, refused_until, refusals: _, refusals_until } = trouble;
        let end = due.max(check_due).max(failed_until).max(refused_until).max(refusals_until);
        self.troubles.put(origin, trouble, end, now);
    }
}

impl Trouble {
    fn none(now: Instant) -> Self {
        Self {
            due: now,
            check_due: now,
            failed_until: now,
            refused_until: now,
            refusals: 0,
            refusals_until: now,
        }
    }

    fn check(&self, now: Instant) -> Result<(), Refused> {
        let retry_after = self.refused_until.saturating_duration_since(now);
        if retry_after.is_zero() {
            return Ok(());
        }
        Err(Refused { retry_after, reason: RefusedFor::Failures })
    }

    /// Refusals in a row that aren't forgotten.
    fn refusals(&self, now: Instant) -> u32 {
        if self.refusals_until > now { self.refusals } else { 0 }
    }

    /// Failures that aren't forgotten.
    fn failures(&self, now: Instant, remembered: Duration) -> u32 {
        let left = self.failed_until.saturating_duration_since(now).as_nanos();
        u32::try_from(left.div_ceil(remembered.as_nanos().max(1))).unwrap_or(u32::MAX)
    }
}

impl config::Throttle {
    /// For how long one failure is remembered.
    fn failure_memory(&self) -> Duration {
        self.failure_window.min(LONGEST_TIME) / self.refuse_after.max(1)
    }
}

impl WorstAddress {
    fn keep_worst(worst: &mut Vec<Self>) {
        worst.sort_unstable_by_key(|it| {
            std::cmp::Reverse((it.refused_for, it.refusals, it.failures, it.origin))
        });
        worst.truncate(WORST);
    }
}

fn later(now: Instant, by: Duration) -> Instant {
    now + by.min(LONGEST_TIME)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const ACME: Option<u32> = Some(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn throttle() -> Throttle {
        Throttle::new(config::Throttle::default())
    }

    fn address(number: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + number).to_be_bytes())
    }

    fn seconds(times: impl IntoIterator<Item = Duration>) -> Vec<u64> {
        times.into_iter().map(|time| time.as_secs()).collect()
    }

    #[test]
    fn failures_are_answered_later_and_later() {
        let (throttle, now) = (throttle(), Instant::now());
        let delays = seconds((0..9).map(|_| throttle.failed(address(1), ACME, now)));
        assert_eq!(delays, [0, 1, 2, 4, 8, 10, 10, 10, 10]);
        assert_eq!(throttle.failed(address(2), ACME, now), Duration::ZERO, "each address for itself");
        // One a minute is forgotten.
        assert_eq!(seconds([throttle.failed(address(1), ACME, now + 7 * 60 * SECOND)]), [2]);
        throttle.succeeded(address(1), 1, now + 8 * 60 * SECOND);
        let after = throttle.failed(address(1), ACME, now + 8 * 60 * SECOND);
        assert_eq!(after, 2 * SECOND, "a login excuses no failure");
    }

    #[test]
    fn slips_of_the_hand_do_not_add_up() {
        let (throttle, mut now) = (throttle(), Instant::now());
        for _ in 0..1000 {
            assert_eq!(throttle.failed(address(1), ACME, now), Duration::ZERO);
            now += 60 * SECOND;
        }
        assert_eq!(throttle.status(now), ThrottleStatus::default());
    }

    #[test]
    fn who_goes_on_is_refused_longer_and_longer() {
        let (throttle, mut now) = (throttle(), Instant::now());
        let mut lengths = Vec::new();
        for _ in 0..8 {
            for _ in 0..9 {
                throttle.failed(address(1), ACME, now);
                assert_eq!(throttle.may_check(address(1), ACME, now), Ok(Duration::ZERO));
            }
            throttle.failed(address(1), ACME, now);
            let refused = throttle.may_check(address(1), ACME, now).unwrap_err();
            assert_eq!(throttle.connect(address(1), now), Err(refused));
            assert_eq!(refused.reason, RefusedFor::Failures);
            lengths.push(refused.retry_after);
            // What was under way changes nothing.
            assert_eq!(throttle.failed(address(1), ACME, now), 10 * SECOND);
            assert_eq!(throttle.connect(address(1), now), Err(refused));
            now += refused.retry_after;
            assert!(throttle.connect(address(1), now).is_ok());
        }
        assert_eq!(seconds(lengths), [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        let status = throttle.status(now);
        assert_eq!((status.refused, status.worst.len()), (0, 0), "{status:?}");
        // Quiet for as long as the longest refusal, and all is forgotten.
        now += 3600 * SECOND;
        for _ in 0..10 {
            throttle.failed(address(1), ACME, now);
        }
        assert_eq!(throttle.may_check(address(1), ACME, now).unwrap_err().retry_after, 60 * SECOND);
    }

    #[test]
    fn an_address_that_logged_in_is_neither_refused_nor_paced() {
        let (throttle, mut now) = (throttle(), Instant::now());
        throttle.succeeded(address(1), 1, now);
        for _ in 0..9 {
            assert_eq!(throttle.connect(address(1), now), Ok(Duration::ZERO));
            throttle.failed(address(1), ACME, now);
            assert_eq!(throttle.may_check(address(1), ACME, now), Ok(Duration::ZERO));
        }
        throttle.failed(address(1), ACME, now);
        // Too many now: what it tries is still looked at, one a second.
        for wait in 0..=10 {
            assert_eq!(throttle.may_check(address(1), ACME, now), Ok(wait * SECOND));
        }
        assert_eq!(throttle.may_check(address(1), ACME, now).unwrap_err().retry_after, SECOND);
        for _ in 0..1000 {
            now += SECOND;
            throttle.failed(address(1), ACME, now);
            assert_eq!(throttle.may_check(address(1), ACME, now), Ok(10 * SECOND));
            assert_eq!(throttle.may_still_check(address(1), ACME, now), Ok(()));
            assert_eq!(throttle.connect(address(1), now), Ok(Duration::ZERO));
        }
        assert_eq!(throttle.failed(address(1), ACME, now), 10 * SECOND, "its failures are answered late");
        throttle.left(address(1), 1, now);
        assert_eq!(
            throttle.failed(address(1), ACME, now),
            10 * SECOND,
            "the end of a session excuses nothing"
        );
        // A correct login in the midst of a refusal ends it: somebody else of that address works there.
        for _ in 0..10 {
            throttle.failed(address(2), ACME, now);
        }
        assert!(throttle.connect(address(2), now).is_err());
        throttle.succeeded(address(2), 1, now);
        assert!(throttle.connect(address(2), now).is_ok());
        // A day later it is a stranger.
        let later = now + Duration::from_secs(86_400);
        assert!(throttle.is_spared(address(1), later - SECOND) && !throttle.is_spared(address(1), later));
    }

    #[test]
    fn who_has_a_login_cannot_guess_those_of_other_tenants() {
        let (throttle, now) = (throttle(), Instant::now());
        for other in [Some(2), None] {
            let mut checked = 0;
            for _ in 0..1000 {
                // Between any two guesses one's own login works.
                throttle.succeeded(address(1), 1, now);
                if throttle.may_check(address(1), other, now).is_ok() {
                    checked += 1;
                    throttle.failed(address(1), other, now);
                }
            }
            assert_eq!(checked, if other.is_some() { 10 } else { 0 });
        }
        assert!(throttle.may_still_check(address(1), Some(2), now).is_err());
        assert_eq!(
            throttle.may_check(address(1), ACME, now),
            Ok(Duration::ZERO),
            "its own tenant isn't locked out"
        );
        assert_eq!(throttle.connect(address(1), now), Ok(Duration::ZERO));
    }

    #[test]
    fn an_address_is_spared_for_the_tenants_that_it_logged_in_to_last() {
        let (throttle, now) = (throttle(), Instant::now());
        for tenant in (1..=9).chain([2]) {
            throttle.succeeded(address(1), tenant, now);
        }
        for tenant in 1..=10 {
            for _ in 0..10 {
                throttle.failed(address(1), Some(tenant), now);
            }
            let refused = throttle.may_still_check(address(1), Some(tenant), now).is_err();
            assert_eq!(refused, matches!(tenant, 1 | 10), "{tenant}");
        }
    }

    #[test]
    fn connections_are_paced_until_somebody_logs_in() {
        let (throttle, mut now) = (throttle(), Instant::now());
        let answers: Vec<_> = (0..50).map(|_| throttle.connect(address(1), now)).collect();
        assert!(answers[..20].iter().all(|answer| *answer == Ok(Duration::ZERO)));
        let waits: Vec<_> = answers.iter().flatten().skip(20).map(Duration::as_millis).collect();
        assert_eq!(waits, (1..=16).map(|n| n * 250).collect::<Vec<_>>());
        let refused = answers[36].unwrap_err();
        assert_eq!((refused.reason, refused.retry_after), (RefusedFor::Pace, Duration::from_millis(250)));
        assert_eq!(throttle.connect(address(2), now), Ok(Duration::ZERO));
        // It gets one again each quarter of a second, and all of them after a while.
        now += 10 * SECOND;
        let answers: Vec<_> = (0..21).map(|_| throttle.connect(address(1), now)).collect();
        assert_eq!(answers.iter().filter(|answer| **answer == Ok(Duration::ZERO)).count(), 20);
        throttle.succeeded(address(1), 1, now);
        assert!((0..1000).all(|_| throttle.connect(address(1), now) == Ok(Duration::ZERO)));
    }

    /// `ssh-audit` 3.9.0 keeps three connections under way for 1.5 seconds, after some ten for what it looks at, and
    /// complains where it gets more than 20 greetings a second.
    #[test]
    fn the_default_pace_satisfies_ssh_audit() {
        let (throttle, start) = (throttle(), Instant::now());
        let (mut greeted, mut waiting) = (0, Vec::new());
        for tick in 0..1500 {
            let now = start + Duration::from_millis(tick);
            waiting.retain(|turn| *turn > now);
            while waiting.len() < 3 {
                let Ok(wait) = throttle.connect(address(1), now) else { break };
                greeted += u32::from(wait < Duration::from_millis(1500 - tick));
                waiting.push(now + wait.max(Duration::from_millis(1)));
            }
        }
        assert!((20..=30).contains(&greeted), "{greeted}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_login_lets_all_pass_that_wait() {
        let throttle = std::sync::Arc::new(throttle());
        let start = tokio::time::Instant::now();
        let mine = std::sync::Arc::clone(&throttle);
        let waiting = tokio::spawn(async move { mine.wait(address(1), 4 * SECOND).await });
        let mine = std::sync::Arc::clone(&throttle);
        let other = tokio::spawn(async move { mine.wait(address(2), 4 * SECOND).await });
        tokio::time::sleep(SECOND).await;
        throttle.succeeded(address(1), 1, Instant::now());
        waiting.await.unwrap();
        assert_eq!(start.elapsed(), SECOND);
        other.await.unwrap();
        assert_eq!(start.elapsed(), 4 * SECOND, "others wait on");
        throttle.wait(address(1), 4 * SECOND).await;
        assert_eq!(start.elapsed(), 4 * SECOND);
    }

    #[test]
    fn ipv6_is_counted_by_network_and_mapped_ipv4_as_ipv4() {
        let (throttle, now) = (throttle(), Instant::now());
        for number in 0..10_u16 {
            throttle.failed(IpAddr::from([0x2001, 0xdb8, 0, 1, 9, 9, 9, number]), ACME, now);
            throttle.failed(IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0xc000, 0x201]), ACME, now);
        }
        assert!(throttle.connect(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, 1]), now).is_err());
        assert!(throttle.connect(IpAddr::from([0x2001, 0xdb8, 0, 2, 0, 0, 0, 1]), now).is_ok());
        assert!(throttle.connect(IpAddr::from([192, 0, 2, 1]), now).is_err());
        assert!(throttle.connect(IpAddr::from([192, 0, 2, 2]), now).is_ok());
        let worst: Vec<_> = throttle.status(now).worst.iter().map(|it| it.origin.to_string()).collect();
        assert_eq!(worst, ["2001:db8:0:1::/64", "192.0.2.1"]);
    }

    #[test]
    fn a_flood_of_addresses_forgets_neither_spared_nor_refused_ones() {
        let throttle = Throttle::with_limits(config::Throttle::default(), 100, 100);
        let now = Instant::now();
        throttle.succeeded(address(0), 1, now);
        for _ in 0..10 {
            throttle.failed(address(1), ACME, now);
        }
        throttle.failed(address(2), ACME, now);
        for number in 10..10_000 {
            let _ = throttle.connect(address(number), now);
        }
        let status = throttle.status(now);
        assert_eq!((status.tracked, status.refused, status.spared), (100, 1, 1));
        assert_eq!(status.worst[1].origin, Origin::from(address(2)), "a failure is worse than a connection");
        assert!(throttle.is_spared(address(0), now) && throttle.connect(address(1), now).is_err());
    }

    #[test]
    fn a_reload_counts_at_once() {
        let (throttle, now) = (throttle(), Instant::now());
        throttle.configure(config::Throttle { refuse_after: 2, delay_at_most: SECOND, ..Default::default() });
        throttle.failed(address(1), ACME, now);
        assert_eq!(throttle.failed(address(1), ACME, now), SECOND);
        assert!(throttle.may_check(address(1), ACME, now).is_err());
        throttle.configure(config::Throttle { spare_for: Duration::ZERO, ..Default::default() });
        throttle.succeeded(address(2), 1, now);
        assert!(!throttle.is_spared(address(2), now), "nobody is spared for no time");
        // Whatever the numbers are: an answer.
        let huge = config::Throttle {
            connection_burst: u32::MAX,
            connections_per_second: u32::MAX,
            refuse_after: u32::MAX,
            failure_window: Duration::MAX,
            refuse_for: Duration::MAX,
            refuse_at_most: Duration::MAX,
            spare_for: Duration::MAX,
            delay_at_most: Duration::MAX,
        };
        for settings in
            [config::Throttle { refuse_after: 0, connections_per_second: 0, ..huge.clone() }, huge]
        {
            throttle.configure(settings);
            for _ in 0..100 {
                let _ = throttle.connect(address(3), now);
                throttle.failed(address(3), ACME, now);
            }
            throttle.succeeded(address(3), 1, now);
            throttle.status(now);
        }
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Answer {
        Connect(Result<Duration, Refused>),
        Check(Result<Duration, Refused>),
        Delay(Duration),
        None,
    }

    fn apply(throttle: &Throttle, step: u8, from: IpAddr, now: Instant) -> Answer {
        match step {
            0 | 1 => Answer::Connect(throttle.connect(from, now)),
            2 => Answer::Check(throttle.may_check(from, ACME, now)),
            3..=8 => Answer::Delay(throttle.failed(from, ACME, now)),
            _ => {
                throttle.succeeded(from, 1, now);
                Answer::None
            }
        }
    }

    proptest! {
        #[test]
        fn what_others_do_never_changes_an_answer(
            steps in prop::collection::vec((0..10_u8, 0..4_u32, 0..40_u64), 0..300),
        ) {
            // One throttle sees all, the other the first address only.
            let (all, alone) = (throttle(), throttle());
            let mut now = Instant::now();
            let mut spared_until = now;
            for (step, number, pause) in steps {
                now += Duration::from_secs(pause);
                let answer = apply(&all, step, address(number), now);
                if number == 0 {
                    prop_assert_eq!(answer, apply(&alone, step, address(0), now));
                    if step == 9 {
                        spared_until = now + Duration::from_secs(86_400);
                    }
                    if now < spared_until {
                        prop_assert_eq!(all.connect(address(0), now), Ok(Duration::ZERO));
                        prop_assert_eq!(all.may_still_check(address(0), ACME, now), Ok(()));
                        alone.connect(address(0), now).unwrap();
                    }
                }
                if let Answer::Delay(delay) = answer {
                    prop_assert!(delay <= 10 * SECOND);
                }
                if let Answer::Connect(Ok(wait)) = answer {
                    prop_assert!(wait <= LONGEST_WAIT);
                }
            }
        }

        #[test]
        fn tables_are_bounded_and_the_spared_are_not_forgotten_for_strangers(
            steps in prop::collection::vec((0..9_u8, 0..1000_u32, 0..3_u64), 0..400),
        ) {
            let throttle = Throttle::with_limits(config::Throttle::default(), 20, 20);
            let mut now = Instant::now();
            let spared: HashSet<u32> = (5000..5020).collect();
            for number in &spared {
                throttle.succeeded(address(*number), 1, now);
            }
            for (step, number, pause) in steps {
                now += Duration::from_secs(pause);
                apply(&throttle, step, address(number), now);
                prop_assert!(throttle.status(now).tracked <= 20);
            }
            prop_assert!(spared.iter().all(|number| throttle.is_spared(address(*number), now)));
        }
    }
}
