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
//! An address that logged in lately is spared: it isn't refused and not paced, its failures are only answered late. So
//! neither a stranger behind the same NAT nor a script with an old password shuts out an office that works; and
//! where a whole office connects at once, its first login lets all pass that wait.
//!
//! ## Memory
//!
//! Two tables, of [`TRACKED`] addresses with something against them and [`SPARED`] that are spared; some hundred bytes
//! an entry, 30 MB for both when full (a botnet's or an IPv6 provider's worth of addresses). A full table forgets what
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
#[error("{reason}, for {} more seconds", retry_after.as_secs().max(1))]
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
    spared: Table<()>,
}

/// What is held against an address. Times that are past mean nothing.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    /// When a connection would be due, were they evenly spaced (the generic cell rate algorithm).
    due: Instant,
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

    /// A login failed. Returns how long the answer has to wait.
    pub fn failed(&self, from: IpAddr, now: Instant) -> Duration {
        let origin = Origin::from(from);
        let mut state = self.state();
        let settings = state.settings.clone();
        let spared = state.is_spared(origin, now);
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

    /// Whether a password of this address may be checked.
    ///
    /// # Errors
    /// [`Refused`]: the answer is the same as for a wrong one, and nothing is hashed.
    pub fn may_check(&self, from: IpAddr, now: Instant) -> Result<(), Refused> {
        let origin = Origin::from(from);
        let state = self.state();
        if state.is_spared(origin, now) { Ok(()) } else { state.trouble(origin, now).check(now) }
    }

    /// Somebody logged in, or a session that had ended now: the address is spared from here on for a while. Its
    /// failures are forgotten.
    pub fn succeeded(&self, from: IpAddr, now: Instant) {
        let origin = Origin::from(from);
        let mut state = self.state();
        let news = !state.is_spared(origin, now);
        let end = later(now, state.settings.spare_for);
        state.spared.put(origin, (), end, now);
        let trouble = Trouble { due: state.trouble(origin, now).due, ..Trouble::none(now) };
        state.put(origin, trouble, now);
        drop(state);
        if news {
            self.spared_one.notify_waiters();
        }
    }

    /// Whether somebody logged in from there lately.
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

    fn trouble(&self, origin: Origin, now: Instant) -> Trouble {
        self.troubles.get(origin, now).copied().unwrap_or_else(|| Trouble::none(now))
    }

    fn put(&mut self, origin: Origin, trouble: Trouble, now: Instant) {
        let Trouble { due, failed_until, refused_until, refusals: _, refusals_until } = trouble;
        let end = due.max(failed_until).max(refused_until).max(refusals_until);
        self.troubles.put(origin, trouble, end, now);
    }
}

impl Trouble {
    fn none(now: Instant) -> Self {
        Self { due: now, failed_until: now, refused_until: now, refusals: 0, refusals_until: now }
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
        worst.sort_unstable_by_key(|it| std::cmp::Reverse((it.refused_for, it.refusals, it.failures, it.origin)));
        worst.truncate(WORST);
    }
}

fn later(now: Instant, by: Duration) -> Instant {
    now + by.min(LONGEST_TIME)
}
