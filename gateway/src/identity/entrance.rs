//! The way in, for all doors: who may connect, who has to wait, how late a failed login is answered.
//!
//! A door asks in this order, before a connection costs anything:
//!
//! 1. [`Admission::arrive`], then it accepts a socket;
//! 2. it learns the client's address, from the socket or from a proxy;
//! 3. [`Entrance::admit`], which refuses, waits, and gives a place;
//! 4. after a login [`Admitted::log_in`], after a failed one [`Identity::login_failed`](super::Identity::login_failed).

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{
    LoginRefused,
    admission::{Admission, Arrival, Full, Place},
    throttle::{Refused, RefusedFor, Throttle},
};
use crate::config;

/// Between two lines in the log about the same trouble.
const NOTICE_INTERVAL: Duration = Duration::from_secs(60);
/// How late the answer comes where so much was asked that a login wasn't looked at.
const BUSY_DELAY: Duration = Duration::from_secs(1);

/// See the [module](self).
#[derive(Debug)]
pub struct Entrance {
    throttle: Throttle,
    admission: Admission,
    failures: Notice,
    pace: Notice,
    full: Notice,
    pushed_out: Notice,
    headers: Notice,
}

/// A connection isn't taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TurnedAway {
    /// By the throttle.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// By a cap.
    #[error(transparent)]
    Full(#[from] Full),
}

impl TurnedAway {
    /// In a few words with underscores, for the metrics: a cap by its key in the configuration.
    pub fn label(self) -> &'static str {
        match self {
            Self::Refused(Refused { reason: RefusedFor::Failures, .. }) => "failed_logins",
            Self::Refused(_) => "pace",
            Self::Full(full) => full.label(),
        }
    }

    /// What a client is told, where the protocol has words for it.
    pub fn to_client(self) -> &'static str {
        match self {
            Self::Refused(Refused { reason: RefusedFor::Failures, .. }) => {
                "Not allowed at this time: too many failed logins"
            }
            Self::Refused(_) | Self::Full(_) => "Not allowed at this time: too many connections",
        }
    }
}

/// A connection's right to be here. Dropped when it has ended.
#[derive(Debug)]
pub struct Admitted {
    entrance: Arc<Entrance>,
    place: Place,
    from: IpAddr,
    tenant: Option<u32>,
}

impl Entrance {
    /// Nobody has come yet.
    pub fn new(limits: &config::Limits, throttle: &config::Throttle) -> Self {
        Self {
            throttle: Throttle::new(throttle.clone()),
            admission: Admission::new(limits.into()),
            failures: Notice::default(),
            pace: Notice::default(),
            full: Notice::default(),
            pushed_out: Notice::default(),
            headers: Notice::default(),
        }
    }

    /// Takes a reloaded configuration. Sessions stay, and what is remembered of addresses.
    pub fn configure(&self, limits: &config::Limits, throttle: &config::Throttle) {
        self.admission.configure(limits.into());
        self.throttle.configure(throttle.clone());
    }

    /// What is remembered of addresses.
    pub fn throttle(&self) -> &Throttle {
        &self.throttle
    }

    /// The caps on connections.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Takes a connection in, after the time that it may have to wait for its turn. `from` is the client's own address,
    /// behind a proxy too; `cut` is cancelled when the connection has to go for another, also while it waits.
    ///
    /// # Errors
    /// [`TurnedAway`]: it is to be closed at once. The log has been told.
    pub async fn admit(
        self: &Arc<Self>,
        arrival: Arrival,
        from: IpAddr,
        cut: &CancellationToken,
    ) -> Result<Admitted, TurnedAway> {
        let now = Instant::now();
        let wait = self.throttle.connect(from, now).map_err(|refused| {
            self.admission.turned_away();
            self.note(from, refused.into(), now)
        })?;
        let spared = self.throttle.is_spared(from, now);
        let place = self
            .admission
            .enter(arrival, from, spared, cut)
            .map_err(|full| self.note(from, full.into(), now))?;
        if place.pushed_out() > 0
            && let Some(others) = self.pushed_out.due(now)
        {
            tracing::warn!(
                address = %from, others,
                "a cap on connections is reached, connections that haven't logged in are pushed out by newer ones"
            );
        }
        tokio::select! {
            () = self.throttle.wait(from, wait) => {}
            () = cut.cancelled() => return Err(Full::PushedOut.into()),
        }
        Ok(Admitted { entrance: Arc::clone(self), place, from, tenant: None })
    }

    /// A connection from a load balancer ends because it doesn't tell where its client is. Counted, and the log is told.
    pub fn no_header(&self, from: IpAddr, reason: &dyn std::fmt::Display) {
        self.admission.turned_away();
        if let Some(others) = self.headers.due(Instant::now()) {
            tracing::warn!(address = %from, %reason, others, "a connection from a load balancer is closed");
        } else {
            tracing::debug!(address = %from, %reason, "a connection from a load balancer is closed");
        }
    }

    /// A login failed, or wasn't looked at; `tenant` is the one that it names. Counts it; the answer has to wait for the
    /// time that is returned.
    pub(super) fn login_failed(&self, from: IpAddr, tenant: Option<u32>, refused: &LoginRefused) -> Duration {
        match refused {
            LoginRefused::Busy => BUSY_DELAY.min(self.throttle.longest_delay()),
            LoginRefused::Throttled => self.throttle.longest_delay(),
            _ => self.throttle.failed(from, tenant, Instant::now()),
        }
    }

    fn note(&self, from: IpAddr, turned_away: TurnedAway, now: Instant) -> TurnedAway {
        let notice = match turned_away {
            TurnedAway::Refused(Refused { reason: RefusedFor::Failures, .. }) => &self.failures,
            TurnedAway::Refused(_) => &self.pace,
            TurnedAway::Full(_) => &self.full,
        };
        if let Some(others) = notice.due(now) {
            tracing::warn!(address = %from, reason = %turned_away, others, "a connection is turned away");
        }
        turned_away
    }
}

impl Admitted {
    /// Somebody logged in to a tenant over the connection.
    ///
    /// # Errors
    /// [`Full`]: the tenant has as many connections as it may, or this one was just pushed out. It is to be closed.
    pub fn log_in(&mut self, tenant: u32) -> Result<(), Full> {
        // Whether there is a place or not, it was no stranger.
        self.entrance.throttle.succeeded(self.from, tenant, Instant::now());
        self.place.log_in(tenant)?;
        self.tenant = Some(tenant);
        Ok(())
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        // A session may last longer than an address is spared for its login.
        if let Some(tenant) = self.tenant {
            self.entrance.throttle.left(self.from, tenant, Instant::now());
        }
    }
}

/// Keeps a trouble that comes with every connection from filling the log.
#[derive(Debug, Default)]
struct Notice(Mutex<(Option<Instant>, u64)>);

impl Notice {
    /// Whether the trouble is to be told now; how often it came since it was told last.
    fn due(&self, now: Instant) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.0.is_some_and(|last| now.saturating_duration_since(last) < NOTICE_INTERVAL) {
            told.1 += 1;
            return None;
        }
        told.0 = Some(now);
        Some(std::mem::take(&mut told.1))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    async fn admit(entrance: &Arc<Entrance>) -> Result<(Admitted, CancellationToken), TurnedAway> {
        let cut = CancellationToken::new();
        let arrival = entrance.admission().arrive().await;
        Ok((entrance.admit(arrival, HERE, &cut).await?, cut))
    }

    fn entrance(limits: &config::Limits, throttle: &config::Throttle) -> Arc<Entrance> {
        Arc::new(Entrance::new(limits, throttle))
    }

    #[tokio::test]
    async fn an_address_is_spared_from_its_login_to_a_day_after_its_session() {
        let entrance = entrance(&config::Limits::default(), &config::Throttle::default());
        let (mut place, _) = admit(&entrance).await.unwrap();
        assert!(!entrance.throttle().is_spared(HERE, Instant::now()));
        place.log_in(1).unwrap();
        assert!(entrance.throttle().is_spared(HERE, Instant::now()));
        let ends = Instant::now() + Duration::from_secs(86_400);
        drop(place);
        assert!(entrance.throttle().is_spared(HERE, ends));
        assert_eq!(entrance.admission().status().logged_in, 0);
    }

    #[tokio::test]
    async fn what_was_not_looked_at_counts_for_nothing() {
        let entrance = entrance(&config::Limits::default(), &config::Throttle::default());
        for _ in 0..30 {
            assert_eq!(entrance.login_failed(HERE, None, &LoginRefused::Busy), BUSY_DELAY);
            assert_eq!(entrance.login_failed(HERE, None, &LoginRefused::Throttled), Duration::from_secs(10));
        }
        assert_eq!(entrance.login_failed(HERE, None, &LoginRefused::Wrong), Duration::ZERO);
        for _ in 0..9 {
            entrance.login_failed(HERE, None, &LoginRefused::Wrong);
        }
        let turned_away = admit(&entrance).await.unwrap_err();
        assert_eq!(turned_away.to_string(), "too many failed logins from this address, for 60 more seconds");
        assert_eq!(turned_away.to_client(), "Not allowed at this time: too many failed logins");
        assert_eq!(entrance.admission().status().turned_away, 1);
    }

    #[tokio::test]
    async fn who_waits_can_be_pushed_out() {
        let limits = config::Limits { max_unauthenticated: 1, ..config::Limits::default() };
        let throttle = config::Throttle {
            connection_burst: 1,
            connections_per_second: 1,
            ..config::Throttle::default()
        };
        let entrance = entrance(&limits, &throttle);
        let _first = admit(&entrance).await.unwrap();
        let mine = Arc::clone(&entrance);
        let waiting = tokio::spawn(async move { admit(&mine).await.map(|_| ()) });
        while entrance.admission().status().turned_away == 0 {
            tokio::task::yield_now().await;
        }
        let arrival = entrance.admission().arrive().await;
        let _newer = entrance.admission().enter(arrival, HERE, false, &CancellationToken::new()).unwrap();
        assert_eq!(waiting.await.unwrap(), Err(TurnedAway::Full(Full::PushedOut)));
    }

    #[test]
    fn a_trouble_is_told_once_a_minute() {
        let (notice, now) = (Notice::default(), Instant::now());
        assert_eq!(notice.due(now), Some(0));
        assert!((0..59).all(|second| notice.due(now + Duration::from_secs(second)).is_none()));
        assert_eq!(notice.due(now + NOTICE_INTERVAL), Some(59));
        assert_eq!(notice.due(now + 3 * NOTICE_INTERVAL), Some(0));
    }
}
