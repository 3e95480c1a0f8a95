//! How much users and tenants may take: bytes a second, and sessions at once. For all doors.
//!
//! Each user and each tenant with a limit has a bucket that fills at its rate. A session draws from both before it reads
//! and sends. It draws a quantum (32 KiB, or 4 ms of the rate if that is more) and then goes to the end of the line,
//! whatever it wants: so sessions that want all they can get have equal numbers of bytes after each round, whether they
//! ask in one large request, in 64 of them at once, or in small ones. What is left of a quantum after a small request is
//! the session's own, for its next.
//!
//! A session stands first in its user's line, then in its tenant's, never in both. So a user's limit doesn't hold up the
//! tenant's other users. In `t` seconds a bucket gives at most `rate × t`, a tenth of a second's worth (at least a
//! quantum), and a quantum for each session.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::FutureExt;

use self::bucket::Bucket;
use super::{Identity, Login, UserId};
use crate::config::{Quota, Tenant};

mod bucket;

impl Identity {
    /// Counts a session of somebody who has logged in, until the permit is dropped.
    ///
    /// # Errors
    /// [`TooManySessions`] of the user or the tenant.
    pub fn start_session(&self, login: &Login) -> Result<SessionPermit, TooManySessions> {
        self.limits.start(login.id)
    }

    /// A tenant's sessions now, and how many it may have.
    pub fn sessions(&self, tenant: u32) -> (usize, Option<usize>) {
        self.limits.sessions(tenant)
    }
}

/// A session that counts. Dropping it ends the count; what waits for its [`Pace`] may wait on.
#[derive(Debug)]
pub struct SessionPermit {
    pace: Pace,
}

impl SessionPermit {
    /// The session's share of the bandwidth. It follows the configuration, also where there is no limit now.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        self.pace.0.user.leave();
        self.pace.0.tenant.leave();
    }
}

/// A session's share of its user's and its tenant's bandwidth. Clones are the same share.
#[derive(Debug, Clone)]
pub struct Pace(Arc<Session>);

#[derive(Debug)]
struct Session {
    user: Arc<Share>,
    tenant: Arc<Share>,
    /// Bytes that were drawn and not used. Held by whoever draws for the session: its requests wait for each other here,
    /// in order, and only one of them stands in a line.
    drawn: tokio::sync::Mutex<u64>,
}

impl Pace {
    /// Takes bytes if there is no limit, or they are there and nobody waits for them. Never waits.
    #[inline]
    pub fn try_take(&self, bytes: usize) -> bool {
        !self.is_limited() || self.try_take_limited(bytes)
    }

    /// Gets in line at once, and waits there when it is polled: for requests that are answered in tasks of their own and
    /// are to be answered in their order. Otherwise as [`Pace::take`].
    pub fn line_up(&self, bytes: usize) -> impl Future<Output = ()> + Send + use<> {
        let pace = self.clone();
        let mut taken = Box::pin(async move { pace.take(bytes).await });
        let at_once = (&mut taken).now_or_never().is_some();
        async move {
            if !at_once {
                taken.await;
            }
        }
    }

    /// Waits until so many bytes may be sent. Dropping the future gives up its place; what it has drawn by then stays
    /// the session's.
    pub async fn take(&self, bytes: usize) {
        if !self.is_limited() {
            return;
        }
        let (bytes, session) = (widened(bytes), &*self.0);
        let mut drawn = session.drawn.lock().await;
        while *drawn < bytes {
            let Some(quantum) = self.quantum() else { return };
            let from_user = session.user.bucket.draw(quantum).await;
            let from_tenant = session.tenant.bucket.draw(quantum).await;
            from_user.keep();
            from_tenant.keep();
            *drawn += quantum;
        }
        *drawn -= bytes;
    }

    fn is_limited(&self) -> bool {
        // Both are looked at, for a single branch.
        self.0.user.bucket.is_limited() | self.0.tenant.bucket.is_limited()
    }

    /// The smaller one: no bucket is asked for more than it holds.
    fn quantum(&self) -> Option<u64> {
        let quanta = [self.0.user.bucket.quantum(), self.0.tenant.bucket.quantum()];
        quanta.into_iter().flatten().min()
    }

    fn try_take_limited(&self, bytes: usize) -> bool {
        let (bytes, session) = (widened(bytes), &*self.0);
        let Ok(mut drawn) = session.drawn.try_lock() else { return false };
        let Some(quantum) = self.quantum() else { return true };
        let wanted = bytes.saturating_sub(*drawn).div_ceil(quantum).saturating_mul(quantum);
        if wanted > 0 {
            let Some(from_user) = session.user.bucket.try_draw(wanted) else { return false };
            let Some(from_tenant) = session.tenant.bucket.try_draw(wanted) else { return false };
            from_user.keep();
            from_tenant.keep();
            *drawn += wanted;
        }
        *drawn -= bytes;
        true
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let unused = std::mem::take(self.drawn.get_mut());
        self.user.bucket.give_back(unused);
        self.tenant.bucket.give_back(unused);
    }
}

/// A session more than the user or the tenant may have. What is displayed is for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooManySessions {
    /// Of the user.
    #[error("too many sessions of this user: at most {0} at once")]
    OfUser(usize),
    /// Of the tenant.
    #[error("too many sessions of this tenant: at most {0} at once")]
    OfTenant(usize),
}

/// The limits of all tenants and users, by id. They outlive a configuration, with the sessions that they count.
#[derive(Debug, Default)]
pub(super) struct Limits(Mutex<Shares>);

#[derive(Debug, Default)]
struct Shares {
    tenants: HashMap<u32, Arc<Share>>,
    users: HashMap<UserId, Arc<Share>>,
}

impl Limits {
    pub(super) fn new(tenants: &[Tenant]) -> Self {
        let limits = Self::default();
        limits.replace(tenants);
        limits
    }

    /// Takes the limits of a configuration, for running sessions too. None of them is ended.
    pub(super) fn replace(&self, tenants: &[Tenant]) {
        let mut shares = self.shares();
        let users = |tenant: &Tenant| {
            let id = tenant.id;
            tenant.users.iter().map(move |user| ((id, user.id), user.quota)).collect::<Vec<_>>()
        };
        replace(&mut shares.tenants, tenants.iter().map(|tenant| (tenant.id, tenant.quota)).collect());
        replace(&mut shares.users, tenants.iter().flat_map(users).collect());
    }

    fn start(&self, id: UserId) -> Result<SessionPermit, TooManySessions> {
        let mut shares = self.shares();
        // A user who has just been removed: the session ends at once.
        let user = Arc::clone(shares.users.entry(id).or_default());
        let tenant = Arc::clone(shares.tenants.entry(id.0).or_default());
        user.enter().map_err(TooManySessions::OfUser)?;
        if let Err(most) = tenant.enter() {
            user.leave();
            return Err(TooManySessions::OfTenant(most));
        }
        let session = Session { user, tenant, drawn: tokio::sync::Mutex::default() };
        Ok(SessionPermit { pace: Pace(Arc::new(session)) })
    }

    fn sessions(&self, tenant: u32) -> (usize, Option<usize>) {
        self.shares().tenants.get(&tenant).map_or((0, None), |share| {
            let sessions = share.sessions();
            (sessions.open, sessions.most)
        })
    }

    fn shares(&self) -> MutexGuard<'_, Shares> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those that aren't configured any more stay, without a limit, while they have sessions.
fn replace<K: std::hash::Hash + Eq>(shares: &mut HashMap<K, Arc<Share>>, quotas: HashMap<K, Quota>) {
    shares.retain(|id, share| quotas.contains_key(id) || share.sessions().open > 0);
    for (id, share) in shares.iter() {
        share.set(quotas.get(id).copied().unwrap_or_default());
    }
    for (id, quota) in quotas {
        if let Entry::Vacant(place) = shares.entry(id) {
            place.insert(Arc::default()).set(quota);
        }
    }
}

/// What one user or one tenant has.
#[derive(Debug)]
struct Share {
    bucket: Bucket,
    sessions: Mutex<Sessions>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Sessions {
    open: usize,
    most: Option<usize>,
}

impl Default for Share {
    fn default() -> Self {
        Self { bucket: Bucket::new(None), sessions: Mutex::default() }
    }
}

impl Share {
    fn set(&self, quota: Quota) {
        self.bucket.set_rate(quota.bandwidth);
        self.lock().most = quota.max_sessions;
    }

    /// Counts a session, or says how many there may be.
    fn enter(&self) -> Result<(), usize> {
        let mut sessions = self.lock();
        if let Some(most) = sessions.most.filter(|most| sessions.open >= *most) {
            return Err(most);
        }
        sessions.open += 1;
        Ok(())
    }

    fn leave(&self) {
        let mut sessions = self.lock();
        sessions.open = sessions.open.saturating_sub(1);
    }

    fn sessions(&self) -> Sessions {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn widened(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
