//! Caps on connections, for all doors together.
//!
//! A connection takes a [`Place`] before it costs anything, and keeps it to its end. Until it has logged in, the place
//! is not for sure: where a cap is reached, a connection that hasn't logged in goes, of the address that has most such
//! ones, its oldest. So whoever opens thousands of connections pushes out its own, and a client that logs in takes a
//! place for a moment only. Addresses that logged in lately lose places last, as long as they hold no more than their
//! [`SHARE`]. Sessions are never pushed out; where only they are left, the newcomer is turned away.
//!
//! Sockets are bounded too: besides the places there are [`SLACK`] that are on their way in, being refused, or pushed
//! out and not gone yet. A door asks [`Admission::arrive`] before it accepts; when they are used up, newcomers
//! wait in the operating system's queue.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::origin::Origin;
use crate::config::Limits;

/// Sockets besides those that have a place.
pub const SLACK: usize = 256;
/// The part of `max_unauthenticated` in which an address that logged in lately is preferred to strangers. Not all of
/// it: with one login to any tenant it could keep all others' newcomers out.
const SHARE: usize = 8;

/// The connections of all doors. Clones are the same.
#[derive(Debug, Clone)]
pub struct Admission {
    state: Arc<Mutex<State>>,
    slack: Arc<Semaphore>,
}

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// In all.
    pub connections: usize,
    /// That haven't logged in.
    pub unauthenticated: usize,
    /// Of one address, logged in or not.
    pub per_address: usize,
    /// That have logged in to one tenant.
    pub per_tenant: usize,
}

impl From<&Limits> for Caps {
    fn from(limits: &Limits) -> Self {
        Self {
            connections: limits.max_connections,
            unauthenticated: limits.max_unauthenticated,
            per_address: limits.max_connections_per_address,
            per_tenant: limits.max_connections_per_tenant,
        }
    }
}

/// Why there is no place. Named by the cap's key in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// In all.
    #[error("max_connections is reached")]
    Connections,
    /// That haven't logged in.
    #[error("max_unauthenticated is reached")]
    Unauthenticated,
    /// Of this address.
    #[error("max_connections_per_address is reached")]
    Address,
    /// Of this tenant.
    #[error("max_connections_per_tenant is reached")]
    Tenant,
    /// It had a place and lost it to a newer connection.
    #[error("pushed out by newer connections")]
    PushedOut,
}

impl Full {
    /// The cap's key in the configuration, or `pushed_out`; for the metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connections => "max_connections",
            Self::Unauthenticated => "max_unauthenticated",
            Self::Address => "max_connections_per_address",
            Self::Tenant => "max_connections_per_tenant",
            Self::PushedOut => "pushed_out",
        }
    }
}

/// Connections now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdmissionStatus {
    /// That haven't logged in.
    pub unauthenticated: usize,
    /// That have.
    pub logged_in: usize,
    /// Addresses that they come from.
    pub addresses: usize,
    /// Of the address that has most.
    pub most_of_an_address: usize,
    /// By tenant, of those that have logged in.
    pub tenants: BTreeMap<u32, usize>,
    /// Turned away or pushed out since the start.
    pub turned_away: u64,
}

/// A socket that may be accepted.
#[derive(Debug)]
pub struct Arrival {
    _permit: OwnedSemaphorePermit,
}

/// A connection's place. Dropped when the connection has ended.
#[derive(Debug)]
pub struct Place {
    state: Arc<Mutex<State>>,
    number: u64,
    origin: Origin,
    tenant: Option<u32>,
    pushed_out: usize,
}

impl Admission {
    /// Nobody is connected.
    pub fn new(caps: Caps) -> Self {
        Self {
            state: Arc::new(Mutex::new(State { caps, ..State::default() })),
            slack: Arc::new(Semaphore::new(SLACK)),
        }
    }

    /// Takes other caps. Nobody is cut off for it but connections that haven't logged in, at the next arrival.
    pub fn configure(&self, caps: Caps) {
        lock(&self.state).caps = caps;
    }

    /// Waits until a socket may be accepted.
    pub async fn arrive(&self) -> Arrival {
        loop {
            if let Ok(permit) = Arc::clone(&self.slack).acquire_owned().await {
                return Arrival { _permit: permit };
            }
            // Nobody closes the semaphore.
            std::future::pending::<()>().await;
        }
    }

    /// Takes a place for a connection that hasn't logged in. `cut` ends it should it be pushed out; `spared` says that
    /// its address logged in lately.
    ///
    /// # Errors
    /// [`Full`], and the connection is to be closed.
    pub fn enter(
        &self,
        arrival: Arrival,
        from: IpAddr,
        spared: bool,
        cut: &CancellationToken,
    ) -> Result<Place, Full> {
        let origin = Origin::from(from);
        let mut state = lock(&self.state);
        let number = state.next;
        state.next += 1;
        state.change(origin, |group| {
            group.spared = spared;
            group.waiting.insert(number, cut.clone());
        });
        // From here on dropping it gives the place back.
        let mut place = Place { state: Arc::clone(&self.state), number, origin, tenant: None, pushed_out: 0 };
        let mut arrival = Some(arrival);
        let mut pushed_out = Vec::new();
        let result = loop {
            let Some(full) = state.over(origin) else { break Ok(()) };
            let victim = match full {
                Full::Address => state.oldest_of(origin),
                _ => state.most_waiting(),
            };
            // A session would have to go for it.
            let Some((victim, of)) = victim.filter(|(victim, _)| *victim != number) else { break Err(full) };
            state.turned_away += 1;
            let cut = state.remove(of, victim);
            // Until it is gone its socket is one of those on their way.
            if let Some(arrival) = arrival.take() {
                state.leaving.insert(victim, arrival);
            }
            pushed_out.extend(cut);
        };
        if result.is_err() {
            state.turned_away += 1;
        }
        drop(state);
        place.pushed_out = pushed_out.len();
        for cut in pushed_out {
            cut.cancel();
        }
        result.map(|()| place)
    }

    /// A connection was turned away for another reason; counted.
    pub fn turned_away(&self) {
        lock(&self.state).turned_away += 1;
    }

    /// The caps.
    pub fn caps(&self) -> Caps {
        lock(&self.state).caps
    }

    /// Sockets that have no place: on their way in, or on their way out.
    #[cfg(test)]
    pub(crate) fn arriving(&self) -> usize {
        SLACK - self.slack.available_permits()
    }

    /// Who is connected.
    pub fn status(&self) -> AdmissionStatus {
        let state = lock(&self.state);
        AdmissionStatus {
            unauthenticated: state.unauthenticated,
            logged_in: state.logged_in,
            addresses: state.groups.len(),
            most_of_an_address: state.groups.values().map(Group::connections).max().unwrap_or(0),
            tenants: state.tenants.iter().map(|(tenant, count)| (*tenant, *count)).collect(),
            turned_away: state.turned_away,
        }
    }
}

impl Place {
    /// How many connections have lost their places to this one.
    pub fn pushed_out(&self) -> usize {
        self.pushed_out
    }

    /// The connection has logged in to a tenant: it is a session from now on, and nobody pushes it out.
    ///
    /// # Errors
    /// [`Full::Tenant`], or [`Full::PushedOut`] where it was just then; the connection is to be closed.
    pub fn log_in(&mut self, tenant: u32) -> Result<(), Full> {
        let mut state = lock(&self.state);
        if self.tenant.is_some() {
            return Ok(());
        }
        if state.tenants.get(&tenant).copied().unwrap_or(0) >= state.caps.per_tenant {
            state.turned_away += 1;
            return Err(Full::Tenant);
        }
        if state.remove(self.origin, self.number).is_none() {
            return Err(Full::PushedOut);
        }
        state.change(self.origin, |group| {
            group.sessions += 1;
            group.spared = true;
        });
        *state.tenants.entry(tenant).or_default() += 1;
        self.tenant = Some(tenant);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        let Some(tenant) = self.tenant else {
            if state.remove(self.origin, self.number).is_none() {
                state.leaving.remove(&self.number);
            }
            return;
        };
        state.change(self.origin, |group| group.sessions = group.sessions.saturating_sub(1));
        if let Some(count) = state.tenants.get_mut(&tenant) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                state.tenants.remove(&tenant);
            }
        }
    }
}

#[derive(Debug)]
struct State {
    caps: Caps,
    /// Numbers rise with the order of arrival.
    next: u64,
    groups: HashMap<Origin, Group>,
    /// Of the groups with connections that haven't logged in; the last one loses a place first.
    ranks: BTreeSet<(Rank, Origin)>,
    unauthenticated: usize,
    logged_in: usize,
    tenants: HashMap<u32, usize>,
    /// What was pushed out and isn't gone.
    leaving: HashMap<u64, Arrival>,
    turned_away: u64,
}

/// The connections of an address.
#[derive(Debug, Default)]
struct Group {
    spared: bool,
    /// Those that haven't logged in, by number.
    waiting: BTreeMap<u64, CancellationToken>,
    sessions: usize,
    /// Under which it stands among the ranks.
    rank: Option<Rank>,
}

/// Strangers before spared ones (and what these have beyond their share counts as a stranger's), who has many before who has few, who came early before who came late.
type Rank = (bool, usize, Reverse<u64>);

impl Default for State {
    fn default() -> Self {
        Self {
            caps: Caps { connections: 0, unauthenticated: 0, per_address: 0, per_tenant: 0 },
            next: 0,
            groups: HashMap::new(),
            ranks: BTreeSet::new(),
            unauthenticated: 0,
            logged_in: 0,
            tenants: HashMap::new(),
            leaving: HashMap::new(),
            turned_away: 0,
        }
    }
}

impl State {
    /// Changes a group and what is counted over all.
    fn change<T>(&mut self, origin: Origin, change: impl FnOnce(&mut Group) -> T) -> T {
        let share = (self.caps.unauthenticated / SHARE).max(1);
        let group = self.groups.entry(origin).or_default();
        if let Some(rank) = group.rank.take() {
            self.ranks.remove(&(rank, origin));
        }
        self.unauthenticated -= group.waiting.len();
        self.logged_in -= group.sessions;
        let result = change(group);
        self.unauthenticated += group.waiting.len();
        self.logged_in += group.sessions;
        group.rank = group.rank(share);
        if let Some(rank) = group.rank {
            self.ranks.insert((rank, origin));
        }
        if group.connections() == 0 {
            self.groups.remove(&origin);
        }
        result
    }

    /// The first cap that is exceeded by the last arrival.
    fn over(&self, origin: Origin) -> Option<Full> {
        let of_address = self.groups.get(&origin).map_or(0, Group::connections);
        if of_address > self.caps.per_address {
            Some(Full::Address)
        } else if self.unauthenticated > self.caps.unauthenticated {
            Some(Full::Unauthenticated)
        } else if self.unauthenticated + self.logged_in > self.caps.connections {
            Some(Full::Connections)
        } else {
            None
        }
    }

    fn most_waiting(&self) -> Option<(u64, Origin)> {
        self.ranks.last().map(|((_, _, Reverse(oldest)), origin)| (*oldest, *origin))
    }

    fn oldest_of(&self, origin: Origin) -> Option<(u64, Origin)> {
        let (oldest, _) = self.groups.get(&origin)?.waiting.first_key_value()?;
        Some((*oldest, origin))
    }

    /// Takes a connection that hasn't logged in out.
    fn remove(&mut self, origin: Origin, number: u64) -> Option<CancellationToken> {
        self.change(origin, |group| group.waiting.remove(&number))
    }
}

impl Group {
    fn connections(&self) -> usize {
        self.waiting.len() + self.sessions
    }

    fn rank(&self, share: usize) -> Option<Rank> {
        let (oldest, _) = self.waiting.first_key_value()?;
        let waiting = self.waiting.len();
        let (stranger, counted) = match self.spared {
            true if waiting > share => (true, waiting - share),
            spared => (!spared, waiting),
        };
        Some((stranger, counted, Reverse(*oldest)))
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    const CAPS: Caps = Caps { connections: 10, unauthenticated: 8, per_address: 6, per_tenant: 4 };

    fn address(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    fn enter(admission: &Admission, number: u8, spared: bool) -> Result<(Place, CancellationToken), Full> {
        let cut = CancellationToken::new();
        let arrival = admission.arrive().now_or_never().unwrap();
        admission.enter(arrival, address(number), spared, &cut).map(|place| (place, cut))
    }

    fn cut(connections: &[(Place, CancellationToken)]) -> Vec<bool> {
        connections.iter().map(|(_, cut)| cut.is_cancelled()).collect()
    }

    #[test]
    fn the_oldest_of_the_address_with_most_makes_room() {
        let admission = Admission::new(CAPS);
        let _few: Vec<_> = (1..=3).map(|number| enter(&admission, number, false).unwrap()).collect();
        let many: Vec<_> = (0..5).map(|_| enter(&admission, 9, false).unwrap()).collect();
        let newcomer = enter(&admission, 4, false).unwrap();
        assert_eq!(cut(&many), [true, false, false, false, false]);
        assert_eq!((newcomer.0.pushed_out(), cut(&_few)), (1, vec![false; 3]));
        let more = enter(&admission, 9, false).unwrap();
        assert_eq!(cut(&many), [true, true, false, false, false]);
        let status = admission.status();
        assert_eq!((status.unauthenticated, status.most_of_an_address, status.turned_away), (8, 4, 2));
        drop((more, many));
        assert_eq!(admission.status().unauthenticated, 4);
        assert_eq!(admission.slack.available_permits(), SLACK);
    }

    #[test]
    fn spared_addresses_go_last_but_do_not_take_all() {
        let admission =
            Admission::new(Caps { unauthenticated: 16, connections: 99, per_address: 99, ..CAPS });
        // Two are its share.
        let office: Vec<_> = (0..2).map(|_| enter(&admission, 1, true).unwrap()).collect();
        let strangers: Vec<_> = (10..24).map(|number| enter(&admission, number, false).unwrap()).collect();
        let newcomer = enter(&admission, 2, true).unwrap();
        assert_eq!(
            (cut(&office), strangers[0].1.is_cancelled()),
            (vec![false; 2], true),
            "the oldest stranger"
        );
        drop((strangers, newcomer, office));

        let greedy: Vec<_> = (0..16).map(|_| enter(&admission, 1, true).unwrap()).collect();
        let stranger = enter(&admission, 2, false).unwrap();
        assert!(greedy[0].1.is_cancelled() && !stranger.1.is_cancelled());
    }

    #[test]
    fn sessions_stay_and_newcomers_are_turned_away_for_them() {
        let admission = Admission::new(CAPS);
        let mut sessions = Vec::new();
        for number in 1..=10 {
            let (mut place, cut) = enter(&admission, number, false).unwrap();
            assert_eq!(place.log_in(u32::from(number)), Ok(()));
            sessions.push((place, cut));
        }
        assert_eq!(enter(&admission, 11, false).unwrap_err(), Full::Connections);
        let status = admission.status();
        assert_eq!((status.logged_in, status.unauthenticated, status.turned_away), (10, 0, 1));
        sessions.pop();
        // The last place is a newcomer's until the next comes.
        let (_place, first) = enter(&admission, 11, false).unwrap();
        let (_other, second) = enter(&admission, 12, false).unwrap();
        assert!(first.is_cancelled() && !second.is_cancelled());
        assert_eq!(cut(&sessions), [false; 9]);
    }

    #[test]
    fn an_address_has_so_many_and_a_tenant_too() {
        let admission = Admission::new(CAPS);
        let mut connections: Vec<_> = (0..6).map(|_| enter(&admission, 1, true).unwrap()).collect();
        for (place, _) in &mut connections[..4] {
            assert_eq!((place.log_in(7), place.log_in(7)), (Ok(()), Ok(())));
        }
        assert_eq!(connections[4].0.log_in(7), Err(Full::Tenant));
        assert_eq!(connections[4].0.log_in(8), Ok(()));
        let newer = enter(&admission, 1, true).unwrap();
        assert!(connections[5].1.is_cancelled(), "its own oldest that hasn't logged in");
        assert_eq!(connections[5].0.log_in(8), Err(Full::PushedOut));
        let mut newer = newer;
        assert_eq!(newer.0.log_in(8), Ok(()));
        assert_eq!(enter(&admission, 1, true).unwrap_err(), Full::Address);
        assert!(enter(&admission, 2, false).is_ok());
        assert_eq!(admission.status().tenants, [(7, 4), (8, 2)].into());
        connections.truncate(3);
        drop(newer);
        assert_eq!(admission.status().tenants, [(7, 3)].into());
    }

    #[test]
    fn what_is_pushed_out_and_not_gone_counts_among_the_sockets() {
        let admission = Admission::new(Caps { unauthenticated: 1, ..CAPS });
        let mut all = Vec::new();
        for _ in 0..SLACK {
            all.push(enter(&admission, 1, false).unwrap());
        }
        assert_eq!(admission.arriving(), SLACK - 1);
        let last = admission.arrive().now_or_never().unwrap();
        assert!(admission.arrive().now_or_never().is_none(), "no more are accepted");
        drop(all.remove(0));
        let next = admission.arrive().now_or_never();
        assert!(next.is_some());
        drop((all, last, next));
        assert_eq!((admission.arriving(), admission.status().unauthenticated), (0, 0));
    }

    #[test]
    fn lower_caps_count_for_newcomers() {
        let admission = Admission::new(CAPS);
        let connections: Vec<_> = (1..=8).map(|number| enter(&admission, number, false).unwrap()).collect();
        admission.configure(Caps { unauthenticated: 3, ..CAPS });
        assert_eq!(admission.status().unauthenticated, 8);
        let newcomer = enter(&admission, 9, false).unwrap();
        assert_eq!((admission.status().unauthenticated, newcomer.0.pushed_out()), (3, 6));
        assert_eq!(cut(&connections), [true, true, true, true, true, true, false, false]);
    }

    proptest! {
        #[test]
        fn caps_hold_and_nothing_is_lost(
            steps in prop::collection::vec((0..4_u8, 0..6_u8, any::<bool>(), any::<prop::sample::Index>()), 0..300),
        ) {
            let admission = Admission::new(CAPS);
            let mut connections: Vec<(Place, CancellationToken)> = Vec::new();
            for (step, number, spared, at) in steps {
                match step {
                    0 | 1 => connections.extend(enter(&admission, number, spared)),
                    _ if connections.is_empty() => {}
                    2 => {
                        let at = at.index(connections.len());
                        let _ = connections[at].0.log_in(u32::from(number % 2));
                    }
                    _ => {
                        let at = at.index(connections.len());
                        // A connection whose token was cancelled ends, sooner or later.
                        drop(connections.swap_remove(at));
                    }
                }
                let status = admission.status();
                prop_assert!(status.unauthenticated <= CAPS.unauthenticated);
                prop_assert!(status.unauthenticated + status.logged_in <= CAPS.connections);
                prop_assert!(status.most_of_an_address <= CAPS.per_address);
                prop_assert!(status.tenants.values().all(|sessions| *sessions <= CAPS.per_tenant));
                let alive = connections.iter().filter(|(_, cut)| !cut.is_cancelled()).count();
                prop_assert_eq!(alive, status.unauthenticated + status.logged_in);
                prop_assert_eq!(admission.arriving(), connections.len() - alive);
                let sessions = connections.iter().filter(|(place, _)| place.tenant.is_some()).count();
                prop_assert_eq!(sessions, status.logged_in);
                prop_assert_eq!(sessions, status.tenants.values().sum::<usize>());
                let state = lock(&admission.state);
                prop_assert_eq!(state.ranks.len(), state.groups.values().filter(|it| !it.waiting.is_empty()).count());
            }
            drop(connections);
            let state = lock(&admission.state);
            prop_assert!(state.groups.is_empty() && state.ranks.is_empty() && state.leaving.is_empty());
        }
    }
}
